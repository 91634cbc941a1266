r"""Time of `import dhrd_hf`, and of what `dhrd` answers before it imports torch, as whole processes.

python examples/benchmarks/import_time.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from paired import paired, ratio, report, spread

# A usage error of each kind.
COMMANDS = (
    "--version",
    "--help",
    "train --help",
    "train --modle x",
    "train --model model --train-data trian.csv --output-dir run",
    "train --model model --train-data train.csv --output-dir run",
    "train --model ./modle --train-data train.csv --output-dir run",
    "evaluate --model model --data tset.csv",
)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()

    def process(statement: str) -> callable:
        return lambda: subprocess.run([sys.executable, "-c", statement], check=True)

    def command(words: str) -> callable:
        run = [sys.executable, "-m", "dhrd_hf.cli", *words.split()]
        return lambda: subprocess.run(run, cwd=folder, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.csv").write_text("text,category\nfine,good\nbad,bad\n")
        (Path(folder) / "model").mkdir()
        (Path(folder) / "model" / "config.json").write_text("{}")
        times = paired(
            {
                "dhrd_hf": process("import dhrd_hf"),
                "transformers": process("from transformers import AutoModelForSequenceClassification"),
                "both": process("import dhrd_hf; from transformers import AutoModelForSequenceClassification"),
                **{f"dhrd {words}": command(words) for words in COMMANDS},
            },
            rounds=args.rounds,
        )
    found = ratio(times, "both", "transformers")
    named = [name for name in times if name not in ("both", "transformers")]
    report(
        "Import and answers, whole processes",
        "python examples/benchmarks/import_time.py",
        [
            ("with dhrd_hf / transformers' auto class alone", "{:.3f} (rounds: {:.3f} to {:.3f})".format(*found)),
            *((name[:56], "{:.3f} s (rounds: {:.3f} to {:.3f})".format(*spread(times[name]))) for name in named),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
