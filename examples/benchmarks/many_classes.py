r"""Seconds and peak memory of `dhrd evaluate` and `dhrd predict` on a classifier of thousands of classes.

    python examples/benchmarks/many_classes.py --rows 20000 --classes 5000

The classifier is a tiny one with random weights, so that what is measured is what becomes of its logits. Each command runs
in a process of its own, whose peak of resident memory the system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

_WORDS = [f"w{index}" for index in range(200)]


def write_classifier(folder: Path, classes: int) -> None:
    """A Llama of one layer, and a tokenizer of some words."""
    words = {word: index for index, word in enumerate(["<pad>", "<unk>", *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=32
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        id2label={index: f"class {index}" for index in range(classes)},
        label2id={f"class {index}": index for index in range(classes)},
        problem_type="single_label_classification",
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)


def measured(*arguments: str) -> tuple[float, float]:
    """Seconds and peak MB of a command."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dhrd_hf.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"dhrd {' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=5_000)
    parser.add_argument("--predict-rows", type=int, default=2_000, help="rows of each dhrd predict")
    args = parser.parse_args()

    with TemporaryDirectory() as name:
        here = Path(name)
        write_classifier(here / "model", args.classes)
        rows = [
            json.dumps(
                {
                    "text": " ".join(_WORDS[(row * 7 + it) % 200] for it in range(9)),
                    "label": f"class {row % args.classes}",
                }
            )
            for row in range(args.rows)
        ]
        (here / "all.jsonl").write_text("\n".join(rows) + "\n")
        (here / "some.jsonl").write_text("\n".join(rows[: args.predict_rows]) + "\n")
        model = ("--model", str(here / "model"), "--device", "cpu")
        commands = {f"evaluate, {args.rows} rows": ("evaluate", *model, "--data", str(here / "all.jsonl"))}
        for kind in ("jsonl", "csv", "parquet"):
            data = ("--data", str(here / "some.jsonl"), "--output", str(here / f"out.{kind}"))
            commands[f"predict to .{kind}, {args.predict_rows} rows"] = ("predict", *model, *data)
        print("$", *sys.argv)
        print(", ".join(f"{it} {version(it)}" for it in ("torch", "transformers", "pyarrow", "numpy")))
        for what, command in commands.items():
            seconds, peak = measured(*command)
            print(f"{args.classes} classes: {what:34} {seconds:8.1f} s {peak:8.0f} MB")


if __name__ == "__main__":
    main()
