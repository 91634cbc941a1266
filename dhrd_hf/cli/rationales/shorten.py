"""`dhrd rationales shorten`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..parsing import Parser
from .source import Source, add_table_options, write_table

_EXAMPLES = """examples:
  dhrd rationales shorten rationales.jsonl --max-tokens 64 --tokenizer Qwen/Qwen3-0.6B --output short.jsonl

Whole sentences are kept, the first ones that fit. A rationale whose first sentence is too long is dropped: its row stays
and trains on its label alone. Tokens are counted as training counts them, without special tokens.
"""
after_interrupt = "No half-written table was left behind."


def run(argv: Sequence[str]) -> int:
    """Cut the rationales of a table to a number of tokens, in whole sentences."""
    parser = Parser(
        prog="dhrd rationales shorten",
        description="Cut rationales to a number of tokens, in whole sentences; the counts go to standard error.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_table_options(parser, prompt=False)
    parser.add_argument("--max-tokens", type=int, required=True, metavar="N", help="most tokens of a rationale")
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="the student: folder or Hub id")
    args = parser.parse_args(argv)
    if args.max_tokens < 1:
        raise ValueError(f"--max-tokens {args.max_tokens} must be 1 or greater")

    from ...data.table_writing import check_target
    from ...opening import load_tokenizer
    from ...rationales.filter import Tally, shorten_rationales

    check_target(args.output, args.data)
    source = Source(args.data, [args.rationale_column], args.label_column)
    tokenizer, tally = load_tokenizer(args.tokenizer), Tally()
    columns = {"rationale_column": args.rationale_column, "label_column": args.label_column}
    rows = shorten_rationales(source, args.max_tokens, tokenizer, tally=tally, **columns)
    write_table(args.output, rows, source.columns)
    print(tally, file=sys.stderr)
    return 0
