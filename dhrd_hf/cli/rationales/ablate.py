"""`dhrd rationales ablate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ...files import did_you_mean
from ..parsing import Parser
from .source import Source, add_table_options, write_table

_EXAMPLES = """examples:
  dhrd rationales ablate train.jsonl --kind shuffled_rationale --output shuffled.jsonl
  dhrd rationales ablate train.jsonl --kind same_label_rationale --seed 1 --output same-label.jsonl

What a set of rationales is worth shows where a student trains on the same rows with the rationales spoilt. Spoil the
training rows only, and evaluate on rows as they are.

kinds:
"""
after_interrupt = "No half-written table was left behind."


def run(argv: Sequence[str]) -> int:
    """Spoil the rationales of a table in a known way."""
    from ...data.ablations import ABLATIONS, KEEP, ablate_columns

    width = max(map(len, ABLATIONS))
    parser = Parser(
        prog="dhrd rationales ablate",
        description="Spoil the rationales of a table in a known way: the ablations of the paper's Table 2, and controls.",
        epilog=_EXAMPLES + "\n".join(f"  {name:{width}}  {it.description}" for name, it in ABLATIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_table_options(parser, prompt=False)
    parser.add_argument("--kind", required=True, metavar="NAME", help="one of the kinds below")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default: 0)")
    parser.add_argument(
        "--keep", type=float, default=KEEP, metavar="SHARE", help=f"of the words, for keywords_only (default: {KEEP})"
    )
    args = parser.parse_args(argv)
    if args.kind not in ABLATIONS:
        near = did_you_mean(args.kind, ABLATIONS) or "."
        raise ValueError(f"--kind: no ablation {args.kind!r}{near} There are {', '.join(ABLATIONS)}")

    from ...data.table_writing import check_target

    check_target(args.output, args.data)
    needed = [args.rationale_column, *([args.label_column] if ABLATIONS[args.kind].needs_label else [])]
    source = Source(args.data, needed, args.label_column)
    columns = ((row.get(args.rationale_column), row.get(args.label_column)) for row in source)
    before, labels = zip(*columns, strict=True)
    now, labels_now = ablate_columns(before, labels, args.kind, args.seed, keep=args.keep)
    moves_labels = args.kind == "shuffled_rationale_and_label"
    # The other columns are written as they are read: a table of one type a column would change what stands in them.
    rows = (
        row | {args.rationale_column: rationale} | ({args.label_column: label} if moves_labels else {})
        for row, rationale, label in zip(source, now, labels_now, strict=True)
    )
    count = write_table(args.output, rows, source.columns)
    had = [place for place, rationale in enumerate(before) if rationale is not None and str(rationale).strip()]
    said = (
        f"{len(source)} rows in, {count} out; {len(had)} rationales in, {sum(now[it] is not None for it in had)} out"
    )
    said += f", {sum(before[it] != now[it] for it in had)} of the rows have another"
    if args.label_column in source.columns:
        said += f"; {sum(one != other for one, other in zip(labels, labels_now, strict=True))} labels are others"
    if args.kind == "rationale_after_label":
        said += "\ntrain on it with: dhrd train --rationale-after-label"
    print(said, file=sys.stderr)
    return 0
