"""`dhrd rationales filter`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ...data.prompts import chosen_prompt
from ...files import did_you_mean
from ..parsing import Parser
from .source import Source, add_table_options, write_table

_EXAMPLES = """examples:
  dhrd rationales filter rationales.jsonl --output checked.jsonl
  dhrd rationales filter rationales.jsonl --checks truncated,prompt_echo --repair --output checked.jsonl
  dhrd rationales filter rationales.jsonl --drop rows --rejected rejected.jsonl --output checked.jsonl

A row whose rationale is dropped stays and trains on its label alone, unless --drop rows. --repair cuts a last sentence
that has no end, the echo of the prompt, what is repeated, and sentences beyond --max-words; what then still fails is
dropped. near_duplicate is checked only where it is named: of rationales that are nearly the same the first is kept.
"""
after_interrupt = "No half-written table was left behind."


def run(argv: Sequence[str]) -> int:
    """Drop or repair the rationales of a table that fail a check."""
    parser = Parser(
        prog="dhrd rationales filter",
        description="Drop or repair the rationales that fail a check; the counts go to standard error.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_table_options(parser)
    parser.add_argument("--checks", metavar="NAMES", help="such as empty,label_leak; default: all but near_duplicate")
    parser.add_argument(
        "--drop", default="rationales", choices=("rationales", "rows"), help="what goes (default: rationales)"
    )
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired before it is dropped")
    parser.add_argument("--labels", metavar="NAMES", help="all labels, such as yes,no; default: those of the table")
    parser.add_argument("--min-words", type=int, metavar="N", help="fewest words of a rationale")
    parser.add_argument("--max-words", type=int, metavar="N", help="most words of a rationale")
    parser.add_argument(
        "--rejected", metavar="FILE", help="write the rows that lost their rationale here, with reasons"
    )
    args = parser.parse_args(argv)

    from ...data.prompts import template_columns
    from ...data.table_writing import check_target, write_rows
    from ...data.tables import check_columns
    from ...rationales.checks import CHECKS
    from ...rationales.filter import ROW_CHECKS, Tally, filter_rationales

    checks = ROW_CHECKS if args.checks is None else _names("--checks", args.checks)
    for name in checks:
        if name not in CHECKS:
            near = did_you_mean(name, CHECKS) or "."
            raise ValueError(f"--checks: no check {name!r}{near} There are {', '.join(CHECKS)}")
    check_target(args.output, args.data)
    if args.rejected:
        check_target(args.rejected, args.output, args.data)
    prompt = chosen_prompt(args.prompt, args.text_column)
    source = Source(args.data, [args.rationale_column], args.label_column)
    asked = args.prompt is not None or args.text_column is not None
    if asked:
        check_columns(source.columns, template_columns(prompt))
    elif not set(template_columns(prompt)) <= set(source.columns) and {"copy", "wrong_language"} & set(checks):
        print("no column 'text': copy and wrong_language are not checked (name it: --text-column)", file=sys.stderr)
    labels = source.labels if args.labels is None else _names("--labels", args.labels)
    limits = {"min_words": args.min_words, "max_words": args.max_words}
    tally, rejected = Tally(), []
    rows = filter_rationales(
        source,
        checks,
        drop=args.drop,
        repair=args.repair,
        labels=labels,
        prompt=prompt,
        label_column=args.label_column,
        rationale_column=args.rationale_column,
        tally=tally,
        rejected=rejected.append if args.rejected else None,
        **{name: limit for name, limit in limits.items() if limit is not None},
    )
    write_table(args.output, rows, [*source.columns, args.rationale_column])
    if args.rejected:
        write_rows(args.rejected, rejected, columns=[*source.columns, "reasons"])
    print(tally, file=sys.stderr)
    return 0


def _names(option: str, typed: str) -> list[str]:
    names = [name.strip() for name in typed.split(",") if name.strip()]
    if not names:
        raise ValueError(f"{option} {typed!r} holds no name: write them with commas between, or leave {option} out")
    return names
