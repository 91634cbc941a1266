r"""Time of `import dhrd_hf` over that of transformers' own auto class, as whole processes.

python examples/benchmarks/import_time.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from paired import paired, ratio, report


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()

    def process(statement: str) -> callable:
        return lambda: subprocess.run([sys.executable, "-c", statement], check=True)

    times = paired(
        {
            "dhrd_hf": process("import dhrd_hf"),
            "transformers": process("from transformers import AutoModelForSequenceClassification"),
        },
        rounds=args.rounds,
    )
    found = ratio(times, "dhrd_hf", "transformers")
    report(
        "Import, whole processes",
        "python examples/benchmarks/import_time.py",
        [("import dhrd_hf / transformers' auto class", "{:.3f} (rounds: {:.3f} to {:.3f})".format(*found))],
        args.output,
    )


if __name__ == "__main__":
    main()
