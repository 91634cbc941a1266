r"""Time of a study over that of the same `dhrd train` commands, typed one after the other.

    python examples/benchmarks/study_overhead.py TABLE --rounds 3

TABLE is a training table with the columns text, label and rationale, such as DATA/creak/train.jsonl.gz. A study of pooled
and dual-head runs is done in an empty folder, its own start, its draw of rows, its table and its clearing included; then the
commands that it names for these runs, in another folder, where the rows lie already.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from paired import paired, ratio, report

from dhrd_hf.study import read_study
from dhrd_hf.study.data import StudyData
from dhrd_hf.study.runner import planned_runs

_CLI = (sys.executable, "-m", "dhrd_hf.cli")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "table", type=Path, help="training rows with rationales, from which the evaluation rows are drawn too"
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=250, help="training rows of a run")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()

    with TemporaryDirectory() as name:
        here = Path(name)
        plan = {
            "name": "overhead",
            "model": args.model,
            "data": {"rows": {"train": str(args.table.resolve()), "eval": str(args.table.resolve())}},
            "train": {"lora": True, "num_train_epochs": args.epochs, "per_device_eval_batch_size": 16},
            "eval_size": 600,
            "grid": [
                {"setting": ["pooled", "dual_head"], "train_size": args.rows, "seed": list(range(args.seeds))},
            ],
        }
        (here / "study.yaml").write_text(yaml.safe_dump(plan))
        studies = (here / f"study-{n}" for n in itertools.count())
        # Of a folder for each round, whose rows are written before the clock runs.
        typed = [here / f"typed-{n}" for n in range(args.rounds)]
        found = read_study(here / "study.yaml")
        runs = [list(planned_runs(found, folder)) for folder in typed]
        for folder in typed:
            data = StudyData(found, folder)
            for run in found.runs:
                data.of(run)
        rounds = iter(zip(typed, runs, strict=True))

        def study() -> None:
            _run([*_CLI, "study", str(here / "study.yaml"), "--output-dir", str(next(studies))], here)

        def train() -> None:
            folder, its = next(rounds)
            for _, _, command in its:
                _run([*_CLI, *shlex.split(command)[1:]], folder)

        times = paired({"study": study, "train": train}, rounds=args.rounds, warmup=0)

    found = ratio(times, "study", "train")
    command = f"python examples/benchmarks/study_overhead.py {args.table} --rounds {args.rounds} --seeds {args.seeds}"
    each = sum(times["train"]) / len(times["train"]) / len(runs[0])
    report(
        f"A study of {len(runs[0])} runs of {args.rows} rows and {args.epochs} epochs",
        command,
        [
            ("dhrd study / the same dhrd train commands", "{:.3f} (rounds: {:.3f} to {:.3f})".format(*found)),
            ("a run's dhrd train, mean", f"{each:.0f} s"),
        ],
        args.output,
    )


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
