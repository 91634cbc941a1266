r"""Time of whole trainings with rationales over that of pooled on the same rows: with the reasoning loss in each step, and in a share.

    python examples/benchmarks/training_time.py TABLE --rounds 3

TABLE is a training table with the columns text, label and rationale, such as DATA/creak/train.jsonl.gz, or another with
--rationales. Each is a `dhrd train` of its own; the seconds are those of its training, without the loading before and after.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from paired import ratio, report, spread

from dhrd_hf.data.tables import load_table
from dhrd_hf.evaluation.timing import turns

_CLI = (sys.executable, "-m", "dhrd_hf.cli")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rationales", type=Path, help="their table, where TABLE has none")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.33, help="--reasoning-share of the third training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", default="", help="more options of dhrd train, such as '--bf16 true'")
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()

    share = f"a share of {args.share:g}"
    ways = {"pooled": ["0"], "each step": ["1"], share: ["1", "--reasoning-share", f"{args.share:g}"]}
    times: dict[str, list[float]] = {way: [] for way in ways}
    with TemporaryDirectory() as name:
        rows = Path(name, "rows.parquet")
        load_table(str(args.table)).select(range(args.rows)).to_parquet(rows)
        given = ["--model", args.model, "--train-data", str(rows), "--eval-split", "0", "--lora", "--num-train-epochs"]
        given += [str(args.epochs), "--save-strategy", "no", "--train-sampling-strategy", "group_by_length"]
        given += ["--length-column-name", "input_length", "--per-device-train-batch-size", "8"]
        given += ["--rationale-after-label", *shlex.split(args.options)]
        if args.rationales is not None:
            given += ["--rationales", str(args.rationales)]
        for index in range(args.rounds):
            for way in turns(ways, index):
                folder = Path(name, f"{index}-{way}")
                _run([*_CLI, "train", *given, "--output-dir", str(folder), "--alpha", *ways[way]])
                times[way].append(json.loads((folder / "train_results.json").read_text())["train_runtime"])
    found = [(way, "{:.4g} s ({:.4g} to {:.4g})".format(*spread(times[way]))) for way in ways]
    for way in ("each step", share):
        found.append((f"{way} / pooled", "{:.3f} ({:.3f} to {:.3f})".format(*ratio(times, way, "pooled"))))
    of_rows = f"{args.table}" if args.rationales is None else f"{args.table} --rationales {args.rationales}"
    command = f"python examples/benchmarks/training_time.py {of_rows} --rows {args.rows} --epochs {args.epochs}"
    command += f" --share {args.share:g} --rounds {args.rounds}"
    command += f" --options '{args.options}'" if args.options else ""
    report(f"Training {args.model} on {args.rows} rows, {args.epochs} epochs", command, found, args.output)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
