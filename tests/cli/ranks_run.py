"""Run `dhrd` commands in each of the ranks that torchrun starts; called by test_ranks.py."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import dhrd_hf.evaluation
from dhrd_hf.cli import main

sys.path.append(str(Path(__file__).parents[1] / "training"))
from fsdp_on_cpu import shard_on_cpu  # noqa: E402

RANK = int(os.environ["RANK"])
predict_texts = dhrd_hf.evaluation.predict_texts


def one_then(end):
    """A `predict_texts` that comes to an end in rank 1 after its first row."""

    def predict(*args, **kwargs):
        for prediction in predict_texts(*args, **kwargs):
            yield prediction
            if RANK == 1:
                end()

    return predict


def fail():
    raise ValueError("rank 1 failed")


def run(cases, folder):
    killed = cases.pop("one is killed")
    found = {}
    for name, arguments in cases.items():
        dhrd_hf.evaluation.predict_texts = one_then(fail) if name == "one fails" else predict_texts
        with contextlib.redirect_stderr(io.StringIO()) as error, contextlib.redirect_stdout(io.StringIO()) as output:
            code = main(arguments)
        lines = error.getvalue().splitlines()
        said = [line for line in lines if line and not (RANK == 0 and "Loading" in line)]
        found[name] = {"code": code, "said": said, "printed": output.getvalue()}
    (folder / f"rank{RANK}.json").write_text(json.dumps(found))
    dhrd_hf.evaluation.predict_texts = one_then(lambda: os._exit(9))
    main(killed)


if __name__ == "__main__":
    shard_on_cpu()
    run(json.loads(Path(sys.argv[1], "cases.json").read_text()), Path(sys.argv[1]))
