r"""From rows to a published classifier: train, calibrate, export, push, open it elsewhere, run it on ONNX Runtime.

    python examples/publish.py                          # the push is a dry run: no account, no network
    python examples/publish.py --repo user/my-errands    # pushes, and opens what was pushed

Every step is a `dhrd` command, printed before it runs, so that each can be typed by hand. The model is the embedded
SmolLM2-135M-Instruct (extra `demo`) and the rows are synthetic; the last two steps need the extra `onnx`.
About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from transformers.utils import logging

from dhrd_hf.cli import main as dhrd
from dhrd_hf.data.synthetic import synthetic_errands
from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.data.tables import load_table

# What a stranger runs: plain transformers, in a new process.
CLASSIFY = """
import json, sys
from transformers import pipeline
answers = pipeline("text-classification", sys.argv[1], truncation=True)(json.loads(sys.argv[2]))
assert "dhrd_hf" not in sys.modules
print(json.dumps(answers))
"""

SUFFIX = r"\nReasoning:\n{rationale} {label}"

CARD = """\
license: apache-2.0
language: en
rationale_source: written by a program, with the rows (dhrd_hf.data.synthetic)
intended_use: To see how a classifier is published; it knows nothing but its synthetic errands.
"""


def run(*arguments: str | Path | float) -> None:
    """Print a `dhrd` command and run it; stop where it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ dhrd {shlex.join(words)}", flush=True)
    code = dhrd(words)
    if code:
        raise SystemExit(code)


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="Hub id or folder of a causal LM (default: %(default)s)")
    parser.add_argument("--repo", help="user/name on the Hub to push to; by default the push is a dry run")
    said = "folder with train.jsonl, calibration.jsonl and test.jsonl of your own (default: synthetic rows)"
    parser.add_argument("--data", type=Path, help=said)
    parser.add_argument("--rows", type=int, default=160, help="training rows, at most 600")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--output", type=Path, default=Path("runs/publish"))
    args = parser.parse_args()
    logging.set_verbosity_error()

    out, card = args.output, []
    train, calibration, test = ((args.data or out) / f"{name}.jsonl" for name in ("train", "calibration", "test"))
    if args.data is None:
        for path, split, rows in ((train, "train", args.rows), (calibration, "validation", 150), (test, "test", 150)):
            write_rows(path, synthetic_errands(split, rows))
        (out / "card.yaml").write_text(CARD)
        card = ["--card", out / "card.yaml"]

    training = ["--lora", "--alpha", 0.2, "--max-length", 256, "--num-train-epochs", args.epochs]
    # The classifier starts as the language model's own answer, and the reasons come behind the label.
    training += ["--classifier-init", "label_words", "--rationale-after-label", "--suffix", SUFFIX]
    training += [
        "--learning-rate",
        args.learning_rate,
        "--per-device-train-batch-size",
        8,
        "--save-strategy",
        "no",
        "--eval-split",
        0,
    ]
    run(
        "train",
        "--model",
        args.model,
        "--train-data",
        train,
        *training,
        "--output-dir",
        out / "run",
        "--overwrite-output-dir",
    )

    # The temperature and the thresholds are fitted on one table, the card's results are of another.
    tables = ["--data", calibration, "--eval-data", test, "--recall", 0.9]
    run("calibrate", "--model", out / "run", *tables, *card, "--output", out / "classifier", "--overwrite")

    name = args.repo or "user/my-errands"
    run("push", "--model", out / "classifier", "--repo", name, *([] if args.repo else ["--dry-run"]))

    where = args.repo or str(out / "classifier")
    print(f"\nOpened as {where} in a new process, with plain transformers:")
    rows = load_table(test).select(range(4))
    command = [sys.executable, "-c", CLASSIFY, where, json.dumps(rows["text"][:])]
    answers = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout
    for text, label, answer in zip(rows["text"], rows["label"], json.loads(answers.splitlines()[-1]), strict=True):
        print(f"  {answer['label']:<8} {answer['score']:.2f}  ({label})  {text}")

    onnx = out / "classifier-onnx"
    run(
        "export",
        "--model",
        out / "classifier",
        "--format",
        "onnx",
        "--eval-data",
        test,
        "--output",
        onnx,
        "--overwrite",
    )
    run("predict", "--model", onnx, "--engine", "onnx", "--data", test, "--output", out / "predictions.jsonl")


if __name__ == "__main__":
    main()
