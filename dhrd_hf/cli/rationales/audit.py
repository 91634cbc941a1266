"""`dhrd rationales audit`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from ...data.prompts import chosen_prompt, unescaped
from ..parsing import Parser
from .choose import MAX_WORDS, MIN_WORDS, opened_judge, opened_tokenizer, taken

_EXAMPLES = r"""examples:
  dhrd rationales audit rationales.jsonl
  dhrd rationales audit rationales.jsonl --data train.jsonl --key id --json audit.json --html audit.html
  dhrd rationales audit train.jsonl --other-split dev.jsonl --tokenizer Qwen/Qwen3-0.6B --max-length 512

The report goes to standard output, --json - puts the JSON there instead. Without a column of texts, what needs them is
left out and named.
"""
after_interrupt = "Nothing was written."


def run(argv: Sequence[str]) -> int:
    """Audit the rationales of a table."""
    said, form = (
        "Say what a table's rationales are worth before they are trained on.",
        argparse.RawDescriptionHelpFormatter,
    )
    parser = Parser(prog="dhrd rationales audit", description=said, epilog=_EXAMPLES, formatter_class=form)
    add = parser.add_argument
    add("file", metavar="FILE", help="table with rationales")
    add("--data", metavar="TABLE", help="the rows with their texts, where FILE has none")
    add("--key", metavar="NAME", help="column of --data that FILE is joined by (default: id, key or idx)")
    add("--prompt", metavar="TEMPLATE", help="a row's text over its columns; default: {text}")
    add("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    add("--label-column", default="label", metavar="NAME", help="column of labels (default: label)")
    add("--rationale-column", default="rationale", metavar="NAME", help="column of rationales (default: rationale)")
    add("--id-column", metavar="NAME", help="what rows are called; default: id, key or idx, else their number")
    add("--group-column", metavar="NAME", help="what belongs together; default: group, if it is there")
    add("--label-words", metavar="JSON", help='further words for labels, such as {"yes": ["sure"]}')
    add("--min-words", type=int, default=MIN_WORDS, metavar="N", help="fewest words of a rationale (default: 3)")
    add("--max-words", type=int, default=MAX_WORDS, metavar="N", help="most words of a rationale (default: 150)")
    other = "another split, for duplicates; repeatable"
    add("--other-split", action="append", default=[], metavar="TABLE", help=other)
    add("--tokenizer", metavar="NAME", help="count the rationales that training would cut")
    add("--max-length", type=int, metavar="N", help="most tokens of a row in training")
    add("--suffix", metavar="TEMPLATE", help="what follows the input in training (default: the paper's)")
    judge = "have a chat model read the label out of each rationale (as --teacher of generate)"
    add("--judge", metavar="TEACHER", help=judge)
    add("--judge-model", metavar="NAME", help="the model at the judge's endpoint (default: its only one)")
    add("--api-key-env", metavar="NAME", help="the environment variable that holds the judge's key")
    add("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    add("--json", metavar="OUT", help="write all that was found; - is standard output")
    add("--html", metavar="OUT", help="write a page with plots")
    args = parser.parse_args(argv)

    from ...data.joining import NamedRows
    from ...data.prompts import template_columns
    from ...data.table_writing import check_file, same_file
    from ...data.tables import check_columns, iter_rows, table_name
    from ...files import strict_json, write_whole
    from ...pages.audit import audit_page, audit_text
    from ...rationales.audit import audit_rationales

    if args.max_length is not None and args.tokenizer is None:
        raise ValueError("--max-length is in tokens: add --tokenizer NAME.")
    if args.suffix is not None and args.tokenizer is None:
        raise ValueError("--suffix is for counting tokens: add --tokenizer NAME.")
    if args.key and not args.data:
        raise ValueError("--key joins FILE to --data TABLE, which is missing.")
    outputs = [target for target in (args.json, args.html) if target and target != "-"]
    for target in outputs:
        check_file(target, args.file, args.data, *args.other_split)
    if len(outputs) == 2 and same_file(*outputs):
        raise ValueError(f"--json and --html are both {args.json}: name another file for one of them")
    prompt = chosen_prompt(args.prompt, args.text_column)
    rows = _joined(args) if args.data else list(NamedRows(args.file, args.label_column))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    asked = template_columns(prompt) if args.prompt or args.text_column else []
    named = [it for it in (args.id_column, args.group_column) if it]
    check_columns(columns, [args.rationale_column, *asked, *named], [args.label_column])
    found = audit_rationales(
        rows,
        prompt=prompt,
        label_words=_label_words(args.label_words),
        other_splits={name: list(iter_rows(name)) for name in args.other_split},
        tokenizer=args.tokenizer and opened_tokenizer(args.tokenizer),
        suffix=args.suffix and unescaped(args.suffix),
        judge=_judge(args, rows) if args.judge else None,
        progress=sys.stderr.isatty(),
        **taken(args, "label_column", "rationale_column", "id_column", "group_column", "min_words", "max_words"),
        **taken(args, "max_length", "seed"),
    )
    report = {"data": "standard input" if args.file == "-" else table_name(args.file), **found}
    text = strict_json(report, ensure_ascii=False, indent=2, default=str) + "\n"
    for target in outputs:
        write_whole(target, text if target == args.json else audit_page(report, report["data"]))
    sys.stdout.write(text if args.json == "-" else audit_text(report))
    for target in outputs:
        print(f"Wrote {target}", file=sys.stderr)
    return 0


def _joined(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows that the file has, with their texts; an empty rationale is there to be flagged."""
    from ...data.joining import NamedRows, comparable, join_rationales, key_column

    why, label = args.rationale_column, args.label_column
    given = list(NamedRows(args.file, label))
    columns = {name for row in given for name in row}
    theirs = args.key if args.key in columns else key_column(columns)
    # A list or an object can't be joined; it is put back for the audit to name.
    odd = {n: row[why] for n, row in enumerate(given) if isinstance(row.get(why), (list, dict))}
    texts = [row | {why: None} if n in odd else row for n, row in enumerate(given)]
    rows, counts = join_rationales(
        NamedRows(args.data, label), texts, key=args.key, rationale_column=why, label_column=label
    )
    ours = theirs and (args.key or key_column(rows[0]))  # without keys they are joined in their order
    places = {comparable(row[theirs] if theirs else n): n for n, row in enumerate(given)}
    there = ((row, places.get(comparable(row[ours] if ours else n))) for n, row in enumerate(rows))
    rows = [row | {why: odd[n]} if n in odd else row for row, n in there if n is not None]
    print(f"{counts}; the {len(rows)} rows that {args.file} has are audited", file=sys.stderr)
    return rows


def _judge(args: argparse.Namespace, rows: list[dict[str, Any]]) -> Any:
    from ...data.label_names import label_names
    from ...rationales.select import LabelJudge

    labels = sorted({name for row in rows for name in label_names(row.get(args.label_column))})
    if not labels:
        raise ValueError(f"--judge compares with the labels, and column {args.label_column!r} has none.")
    return LabelJudge(opened_judge(args), labels)


def _label_words(given: str | None) -> dict[str, list[str]] | None:
    try:
        words = json.loads(given or "{}")
        return {str(name): [str(it) for it in ([its] if isinstance(its, str) else its)] for name, its in words.items()}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f'--label-words {given} is not JSON such as {{"yes": ["sure", "indeed"]}}.') from None
