r"""Time and memory of `dhrd rationales audit` on many rows.

    python examples/benchmarks/audit.py --rows 100000 --threads 2

The rows are made at run time: texts and rationales of drawn words that follow Zipf's law, and with `--table` of a table's
rows, repeated, with a few words of each changed.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--table", help="table with the columns text, label and rationale to repeat and change")
    parser.add_argument("--shuffle", type=float, default=0.0, help="share of rows whose rationales are moved")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the results to")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)

    from dhrd_hf.rationales.audit import audit_rationales, quick_audit

    rows = _rows(args.rows, args.table, args.shuffle)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, worked = time.perf_counter(), time.process_time()
    found = audit_rationales(rows, progress=True)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    quick_audit(rows)
    quick = time.perf_counter() - start
    figures = [
        (
            "audit",
            f"{seconds:.1f} s ({worked:.1f} s of work), peak {peak:.0f} MB, of which {before:.0f} MB were there before",
        ),
        ("quick_audit", f"{quick:.2f} s"),
        ("matching", f"{found['matching']['verdict']}, {len(found['matching']['mismatched'])} mismatched"),
    ]
    from paired import report  # it loads torch, which an audit does without

    command = f"python examples/benchmarks/audit.py --rows {args.rows} --threads {args.threads}"
    command += f" --table {args.table}" if args.table else ""
    report(f"Audit of {args.rows} rows", command, figures, args.output)


def _rows(count: int, table: str | None, shuffle: float) -> list[dict[str, str]]:
    import numpy as np

    generator = np.random.default_rng(0)
    odds = 1 / np.arange(1, 30_001)
    words = np.array([f"{'bcdfgklmnprst'[n % 13]}{'aeiou'[n % 5]}{n:x}" for n in range(30_000)])

    def drawn(length: int) -> list[str]:
        return generator.choice(words, length, p=odds / odds.sum()).tolist()

    rows = []
    if table:
        from dhrd_hf.data.tables import load_table

        known = load_table(table).to_list()
        for number in range(count):
            row = known[number % len(known)]
            sign = f"{words[number % 30_000]}{number // 30_000}"
            rows.append(
                {
                    "id": number,
                    "text": f"{row['text']} {sign}",
                    "label": row["label"],
                    "rationale": f"{' '.join(drawn(3))} {sign} {row['rationale']}",
                }
            )
    else:
        for number in range(count):
            text = drawn(40)
            shared = generator.choice(text, 8).tolist()
            rationale = " ".join([*shared, *drawn(22)])
            rows.append(
                {
                    "id": number,
                    "text": " ".join(text),
                    "label": "yes" if number % 2 else "no",
                    "rationale": f"{rationale}.",
                }
            )
    moved = generator.permutation(count)[: int(shuffle * count)].tolist()
    said = [rows[place]["rationale"] for place in moved]
    for place, rationale in zip(moved, said[1:] + said[:1], strict=True):
        rows[place]["rationale"] = rationale
    return rows


if __name__ == "__main__":
    main()
