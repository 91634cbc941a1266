"""`dhrd rationales audit`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.prompts import chosen_prompt, unescaped
from ..parsing import Parser

if TYPE_CHECKING:
    from ...rationales.select import LabelJudge

_EXAMPLES = r"""examples:
  dhrd rationales audit rationales.jsonl
  dhrd rationales audit rationales.jsonl --data train.jsonl --key id --json audit.json --html audit.html
  dhrd rationales audit train.jsonl --other-split dev.jsonl --tokenizer Qwen/Qwen3-0.6B --max-length 512

The report goes to standard output, --json - puts the JSON there instead. Without a column of texts, what needs them is
left out and named.
"""
_SHOWN = 5
after_interrupt = "Nothing was written."


def run(argv: Sequence[str]) -> int:
    """Audit the rationales of a table."""
    parser = Parser(
        prog="dhrd rationales audit",
        description="Say what a table's rationales are worth before they are trained on.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="table with rationales")
    parser.add_argument("--data", metavar="TABLE", help="the rows with their texts, where FILE has none")
    parser.add_argument(
        "--key", metavar="NAME", help="column of --data that FILE is joined by (default: id, key or idx)"
    )
    parser.add_argument("--prompt", metavar="TEMPLATE", help="a row's text over its columns; default: {text}")
    parser.add_argument("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="column of labels (default: label)")
    parser.add_argument(
        "--rationale-column", default="rationale", metavar="NAME", help="column of rationales (default: rationale)"
    )
    parser.add_argument(
        "--id-column", metavar="NAME", help="what rows are called; default: id, key or idx, else their number"
    )
    parser.add_argument("--group-column", metavar="NAME", help="what belongs together; default: group, if it is there")
    parser.add_argument("--label-words", metavar="JSON", help='further words for labels, such as {"yes": ["sure"]}')
    parser.add_argument("--min-words", type=int, metavar="N", help="fewest words of a rationale (default: 3)")
    parser.add_argument("--max-words", type=int, metavar="N", help="most words of a rationale (default: 150)")
    parser.add_argument(
        "--other-split", action="append", default=[], metavar="TABLE", help="another split, for duplicates; repeatable"
    )
    parser.add_argument("--tokenizer", metavar="NAME", help="count the rationales that training would cut")
    parser.add_argument("--max-length", type=int, metavar="N", help="most tokens of a row in training")
    parser.add_argument(
        "--suffix", metavar="TEMPLATE", help="what follows the input in training (default: the paper's)"
    )
    parser.add_argument(
        "--judge",
        metavar="TEACHER",
        help="have a chat model read the label out of each rationale (as --teacher of generate)",
    )
    parser.add_argument(
        "--judge-model", metavar="NAME", help="the model at the judge's endpoint (default: its only one)"
    )
    parser.add_argument("--api-key-env", metavar="NAME", help="the environment variable that holds the judge's key")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--json", metavar="OUT", help="write all that was found; - is standard output")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots")
    args = parser.parse_args(argv)

    if args.max_length is not None and args.tokenizer is None:
        raise ValueError("--max-length is in tokens: add --tokenizer NAME.")
    if args.suffix is not None and args.tokenizer is None:
        raise ValueError("--suffix is for counting tokens: add --tokenizer NAME.")
    if args.key and not args.data:
        raise ValueError("--key joins FILE to --data TABLE, which is missing.")
    _check_outputs(args)

    from ...data.joining import NamedRows
    from ...data.prompts import template_columns
    from ...data.tables import check_columns, iter_rows, table_name
    from ...files import strict_json, write_whole
    from ...rationales.audit import audit_rationales

    prompt = chosen_prompt(args.prompt, args.text_column)
    rows = _joined(args) if args.data else list(NamedRows(args.file, args.label_column))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    asked = template_columns(prompt) if args.prompt or args.text_column else []
    named = [it for it in (args.id_column, args.group_column) if it]
    check_columns(columns, [args.rationale_column, *asked, *named], [args.label_column])
    limits = {"min_words": args.min_words, "max_words": args.max_words}
    report = audit_rationales(
        rows,
        prompt=prompt,
        label_column=args.label_column,
        rationale_column=args.rationale_column,
        id_column=args.id_column,
        group_column=args.group_column,
        label_words=_label_words(args.label_words),
        other_splits={name: list(iter_rows(name)) for name in args.other_split},
        tokenizer=_tokenizer(args.tokenizer),
        max_length=args.max_length,
        suffix=None if args.suffix is None else unescaped(args.suffix),
        judge=_judge(args, rows) if args.judge else None,
        seed=args.seed,
        progress=sys.stderr.isatty(),
        **{name: limit for name, limit in limits.items() if limit is not None},
    )
    report = {"data": "standard input" if args.file == "-" else table_name(args.file), **report}
    if args.html:
        from ...rationales.report import audit_page

        write_whole(args.html, audit_page(report, report["data"]))
    text = strict_json(report, ensure_ascii=False, indent=2, default=str) + "\n"
    if args.json and args.json != "-":
        write_whole(args.json, text)
    sys.stdout.write(text if args.json == "-" else _readable(report))
    for target in filter(lambda it: it and it != "-", (args.json, args.html)):
        print(f"Wrote {target}", file=sys.stderr)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse outputs that would replace a table that is read, or one another."""
    from ...data.table_writing import same_file

    outputs = {"--json": args.json, "--html": args.html}
    outputs = {option: target for option, target in outputs.items() if target and target != "-"}
    for option, target in outputs.items():
        if Path(target).expanduser().is_dir():
            raise ValueError(f"{target} is a folder: name a file.")
        for source in filter(None, (args.file, args.data, *args.other_split)):
            if same_file(target, source):
                raise ValueError(
                    f"can't write {option} {target}: it is {source} itself, which would be lost. Name another file"
                )
    if len(outputs) == 2 and same_file(*outputs.values()):
        raise ValueError(f"--json and --html are both {args.json}: name another file for one of them")


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
    ours = args.key or key_column(rows[0])
    places = {comparable(row[theirs]): n for n, row in enumerate(given)}
    there = ((row, places.get(comparable(row[ours] if ours else n))) for n, row in enumerate(rows))
    rows = [row | {why: odd[n]} if n in odd else row for row, n in there if n is not None]
    print(f"{counts}; the {len(rows)} rows that {args.file} has are audited", file=sys.stderr)
    return rows


def _judge(args: argparse.Namespace, rows: list[dict[str, Any]]) -> LabelJudge:
    from ...data.label_names import label_names
    from ...rationales.select import LabelJudge
    from ...rationales.teacher import Sampling, open_teacher

    labels = sorted({name for row in rows for name in label_names(row.get(args.label_column))})
    if not labels:
        raise ValueError(f"--judge compares with the labels, and column {args.label_column!r} has none.")
    judge = open_teacher(args.judge, args.judge_model, Sampling(temperature=0), api_key_env=args.api_key_env)
    return LabelJudge(judge, labels)


def _label_words(given: str | None) -> dict[str, list[str]] | None:
    if given is None:
        return None
    try:
        words = json.loads(given)
        return {
            str(label): [str(it) for it in ([its] if isinstance(its, str) else its)] for label, its in words.items()
        }
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f'--label-words {given} is not JSON such as {{"yes": ["sure", "indeed"]}}.') from None


def _tokenizer(name: str | None) -> Any:
    if name is None:
        return None
    from ...opening import load_tokenizer

    try:
        return load_tokenizer(name)
    except Exception as error:  # the Hub and broken folders fail in many ways
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"--tokenizer {name}: no tokenizer can be read there ({reason})") from error


def _readable(report: Mapping[str, Any]) -> str:
    lines = [f"{report['data']}: {report['rows']} rows", ""]
    lines += [f"* {line}" for line in report["verdict"]]
    lines += ["", f"{'check':16}{'rows':>8}{'share':>9}  by label"]
    for name, ids in report["checks"].items():
        by_label = ", ".join(
            f"{label} {it['flagged'][name]}" for label, it in report["per_label"].items() if it["flagged"][name]
        )
        some = f"  such as {', '.join(map(str, ids[:_SHOWN]))}" if ids else ""
        lines.append(f"{name:16}{len(ids):8}{len(ids) / report['rows']:9.1%}  {by_label}{some}".rstrip())
    matching, probe = report["matching"], report["label_probe"]
    lines.append("")
    if matching["verdict"]:
        lines.append(
            f"matching        {matching['verdict']}: {matching['accuracy']:.1%} of {matching['rows']} rationales are matched to "
            f"their own text among {matching['others']} others (chance {matching['chance']:.1%}); "
            f"{len(matching['mismatched'])} fit another text better"
        )
    if "reason" not in probe:
        text_only = "not known" if probe["text_only"] is None else f"{probe['text_only']:.1%}"
        lines.append(
            f"label probe     {probe['rationale_only']:.1%} from the rationale alone, {text_only} from the text alone, "
            f"{probe['majority']:.1%} by majority"
        )
    lengths, duplicates = report["lengths"], report["duplicates"]
    if lengths["mean"] is not None:
        lines.append(
            f"words           mean {lengths['mean']:.1f}, median {lengths['median']}, {lengths['least']} to {lengths['most']}"
        )
    lines.append(f"duplicates      {duplicates['same_rationale']} rows share their rationale with another")
    for name, it in duplicates["across_splits"].items():
        texts = "" if it["texts"] is None else f" and {it['texts']} texts"
        lines.append(f"                {it['rationales']} rationales{texts} stand in {name} as well")
    if report["consistency"] and report["consistency"]["accuracy"] is not None:
        it = report["consistency"]
        lines.append(
            f"judge           reads the row's label out of {it['accuracy']:.1%} of {it['rows']} rationales; {it['unjudged']} unjudged"
        )
    if report["truncation"]:
        it = report["truncation"]
        lines.append(f"truncation      {it['rows']} rationales do not fit into {it['max_length']} tokens")
    lines += [f"note            {note}" for note in report["notes"]]
    return "\n".join(lines) + "\n"
