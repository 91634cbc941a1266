"""`dhrd rationales audit`, `filter`, `select`, `shorten` and `ablate`: what a table's rationales are worth, and another table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...data.prompts import chosen_prompt, unescaped
from ...files import did_you_mean
from ..parsing import Parser

_AUDIT = r"""examples:
  dhrd rationales audit rationales.jsonl
  dhrd rationales audit rationales.jsonl --data train.jsonl --key id --json audit.json --html audit.html
  dhrd rationales audit train.jsonl --other-split dev.jsonl --tokenizer Qwen/Qwen3-0.6B --max-length 512

The report goes to standard output, --json - puts the JSON there instead. Without a column of texts, what needs them is
left out and named.
"""
_FILTER = """examples:
  dhrd rationales filter rationales.jsonl --output checked.jsonl
  dhrd rationales filter rationales.jsonl --checks truncated,prompt_echo --repair --output checked.jsonl
  dhrd rationales filter rationales.jsonl --drop rows --rejected rejected.jsonl --output checked.jsonl

A row whose rationale is dropped stays and trains on its label alone, unless --drop rows. --repair cuts a last sentence
that has no end, the echo of the prompt, what is repeated, and sentences beyond --max-words; what then still fails is
dropped. near_duplicate is checked only where it is named: of rationales that are nearly the same the first is kept.
"""
_SELECT = """examples:
  dhrd rationales select samples.jsonl --best-of 4 --score likelihood --model runs/first --output best.jsonl

The samples of a row are rows with one id, or a list in the rationale column. The best one makes the gold label likelier to
a student than the others: how much more likely than without it, in nats, is written to a column rationale_score.
"""
_SHORTEN = """examples:
  dhrd rationales shorten rationales.jsonl --max-tokens 64 --tokenizer Qwen/Qwen3-0.6B --output short.jsonl

Whole sentences are kept, the first ones that fit. A rationale whose first sentence is too long is dropped: its row stays
and trains on its label alone. Tokens are counted as training counts them, without special tokens.
"""
_ABLATE = """examples:
  dhrd rationales ablate train.jsonl --kind shuffled_rationale --output shuffled.jsonl
  dhrd rationales ablate train.jsonl --kind same_label_rationale --seed 1 --output same-label.jsonl

What a set of rationales is worth shows where a student trains on the same rows with the rationales spoilt. Spoil the
training rows only, and evaluate on rows as they are.

kinds:
"""


class Command(NamedTuple):
    run: Callable[[Sequence[str]], int]
    after_interrupt: str = "No half-written table was left behind."


def _parser(command: str, description: str, epilog: str, *more: str) -> Parser:
    """The parser of a command, with the names of the columns, and more: the file to write, the text, bounds of words."""
    parser = Parser(f"dhrd rationales {command}", description, epilog)
    add = parser.add_argument
    add("file", metavar="FILE", help="the table with the rationales; - is JSON Lines on standard input")
    if "output" in more:
        add("--output", required=True, metavar="OUT", help="the file to write; - is standard output")
    add("--rationale-column", default="rationale", metavar="NAME", help="default: rationale")
    add("--label-column", default="label", metavar="NAME", help="default: label")
    if "prompt" in more:
        example = r"'{premise}\n{hypothesis}'; default: {text}"
        add("--prompt", metavar="TEMPLATE", help=f"the text over a row's columns, such as {example}")
        add("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    if "bounds" in more:
        add("--min-words", type=int, default=3, metavar="N", help="fewest words of a rationale (default: 3)")
        add("--max-words", type=int, default=150, metavar="N", help="most words of a rationale (default: 150)")
    return parser


def _taken(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options that are arguments of the same name."""
    return {name: getattr(args, name) for name in ("label_column", "rationale_column", *names)}


class _Source:
    """A table, read once to see its columns and labels, and then streamed as often as wanted."""

    def __init__(self, args: argparse.Namespace, *needed: str | None):
        from ...data.joining import NamedRows
        from ...data.label_names import label_names
        from ...data.table_writing import check_target
        from ...data.tables import check_columns

        check_target(args.output, args.file)
        self._rows, self._output = NamedRows(args.file, args.label_column), args.output
        columns: dict[str, None] = {}
        names, self.multi_label = set(), False
        for row in self:
            columns.update(dict.fromkeys(row))
            names.update(label_names(row.get(args.label_column)))
            self.multi_label |= isinstance(row.get(args.label_column), list)
        self.columns, self.labels = list(columns), sorted(names)
        check_columns(self.columns, filter(None, needed))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def write(self, rows: Iterable[dict[str, Any]], *further: str) -> int:
        """Write rows in its place; a flat table has all the columns that any of them has."""
        from ...data.table_writing import is_flat, write_rows

        columns = list(dict.fromkeys([*self.columns, *further]))
        return write_rows(self._output, rows, columns if is_flat(self._output) else None)


def _audit(argv: Sequence[str]) -> int:
    """Audit the rationales of a table."""
    said = "Say what a table's rationales are worth before they are trained on."
    parser = _parser("audit", said, _AUDIT, "prompt", "bounds")
    add = parser.add_argument
    add("--data", metavar="TABLE", help="the rows with their texts, where FILE has none")
    add("--key", metavar="NAME", help="column of --data that FILE is joined by (default: id, key or idx)")
    add("--id-column", metavar="NAME", help="what rows are called; default: id, key or idx, else their number")
    add("--group-column", metavar="NAME", help="what belongs together; default: group, if it is there")
    add("--label-words", metavar="JSON", help='further words for labels, such as {"yes": ["sure"]}')
    add("--other-split", action="append", default=[], metavar="TABLE", help="for duplicates across splits; repeatable")
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
    from ...data.label_names import label_names
    from ...data.prompts import template_columns
    from ...data.table_writing import check_file, same_file
    from ...data.tables import check_columns, iter_rows, table_name
    from ...files import strict_json, write_whole
    from ...pages.audit import audit_page, audit_text
    from ...rationales.audit import audit_rationales
    from ...rationales.judge import LabelJudge
    from ...rationales.teacher import Sampling, open_teacher

    for option in ("max_length", "suffix"):
        if getattr(args, option) is not None and args.tokenizer is None:
            raise ValueError(f"--{option.replace('_', '-')} is for counting tokens: add --tokenizer NAME.")
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
    labels = sorted({name for row in rows for name in label_names(row.get(args.label_column))})
    if args.judge and not labels:
        raise ValueError(f"--judge compares with the labels, and column {args.label_column!r} has none.")
    judge = None
    if args.judge:
        named = (args.judge, args.judge_model, Sampling(temperature=0.0))
        judge = LabelJudge(open_teacher(*named, api_key_env=args.api_key_env), labels)
    found = audit_rationales(
        rows,
        prompt=prompt,
        label_words=_label_words(args.label_words),
        other_splits={name: list(iter_rows(name)) for name in args.other_split},
        tokenizer=args.tokenizer and _opened_tokenizer(args.tokenizer),
        suffix=args.suffix and unescaped(args.suffix),
        judge=judge,
        progress=sys.stderr.isatty(),
        **_taken(args, "id_column", "group_column", "min_words", "max_words", "max_length", "seed"),
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
    table = NamedRows(args.data, label)
    rows, counts = join_rationales(table, texts, key=args.key, rationale_column=why, label_column=label)
    ours = theirs and (args.key or key_column(rows[0]))  # without keys they are joined in their order
    places = {comparable(row[theirs] if theirs else n): n for n, row in enumerate(given)}
    there = ((row, places.get(comparable(row[ours] if ours else n))) for n, row in enumerate(rows))
    rows = [row | {why: odd[n]} if n in odd else row for row, n in there if n is not None]
    print(f"{counts}; the {len(rows)} rows that {args.file} has are audited", file=sys.stderr)
    return rows


def _label_words(given: str | None) -> dict[str, list[str]] | None:
    try:
        words = json.loads(given or "{}")
        return {str(name): [str(it) for it in ([its] if isinstance(its, str) else its)] for name, its in words.items()}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f'--label-words {given} is not JSON such as {{"yes": ["sure", "indeed"]}}.') from None


def _filter(argv: Sequence[str]) -> int:
    """Drop or repair the rationales of a table that fail a check."""
    said = "Drop or repair the rationales that fail a check; the counts go to standard error."
    parser = _parser("filter", said, _FILTER, "output", "prompt", "bounds")
    add = parser.add_argument
    add("--checks", metavar="NAMES", help="such as empty,label_leak; default: all but near_duplicate")
    add("--drop", default="rationales", choices=("rationales", "rows"), help="what goes (default: rationales)")
    add("--repair", action="store_true", help="repair what can be repaired before it is dropped")
    add("--rejected", metavar="FILE", help="write the rows that lost their rationale here, with reasons")
    args = parser.parse_args(argv)

    from ...data.prompts import template_columns
    from ...data.table_writing import check_target, write_rows
    from ...data.tables import check_columns
    from ...rationales.checks import ROW_CHECKS
    from ...rationales.filter import Tally, filter_rationales

    checks = ROW_CHECKS if args.checks is None else [it.strip() for it in args.checks.split(",") if it.strip()]
    if not checks:
        raise ValueError(
            f"--checks {args.checks!r} holds no name: write them with commas between, or leave --checks out"
        )
    if args.rejected:
        check_target(args.rejected, args.output, args.file)
    prompt = chosen_prompt(args.prompt, args.text_column)
    source = _Source(args, args.rationale_column)
    if args.prompt is not None or args.text_column is not None:
        check_columns(source.columns, template_columns(prompt))
    elif not set(template_columns(prompt)) <= set(source.columns) and {"copy", "wrong_language"} & set(checks):
        print("no column 'text': copy and wrong_language are not checked (name it: --text-column)", file=sys.stderr)
    tally, rejected = Tally(), []
    options = _taken(args, "drop", "repair", "min_words", "max_words") | {"prompt": prompt, "tally": tally}
    lost = rejected.append if args.rejected else None
    rows = filter_rationales(source, checks, labels=source.labels, rejected=lost, **options)
    source.write(rows, args.rationale_column)
    if args.rejected:
        write_rows(args.rejected, rejected, columns=[*source.columns, "reasons"])
    print(tally, file=sys.stderr)
    return 0


def _select(argv: Sequence[str]) -> int:
    """Keep the best of several rationales of a row."""
    said = "Keep the best of several rationales of a row, by a score; the counts go to standard error."
    parser = _parser("select", said, _SELECT, "output", "prompt")
    add = parser.add_argument
    add("--id-column", metavar="NAME", help="column that samples of a row share; default: id, key or idx")
    add("--best-of", type=int, metavar="K", help="most samples of a row to choose from; default: all")
    add("--score", default="likelihood", choices=("likelihood",), help="what is best: likelihood is all there is")
    add("--model", required=True, metavar="DIR", help="the student, a causal LM or what dhrd train wrote")
    add("--max-length", type=int, metavar="N", help="most tokens of a row")
    add("--batch-tokens", type=int, metavar="N", help="most tokens of a batch")
    add("--device", help="such as cpu or cuda:1; default: the accelerator if there is one")
    add("--dtype", default="auto", help="such as float32; default: as the model was saved")
    args = parser.parse_args(argv)
    for option in ("best_of", "max_length", "batch_tokens"):
        if (number := getattr(args, option)) is not None and number < 1:
            raise ValueError(f"--{option.replace('_', '-')} {number} must be 1 or greater")

    from tqdm import tqdm

    from ...data.prompts import template_columns
    from ...data.tables import check_columns
    from ...rationales.filter import Tally
    from ...rationales.select import SCORE_COLUMN, LikelihoodScore, select_best

    prompt = chosen_prompt(args.prompt, args.text_column)
    source = _Source(args, args.rationale_column, args.label_column, args.id_column)
    own = prompt if args.prompt or args.text_column else None
    kind = f"{'multi' if source.multi_label else 'single'}_label_classification"
    options = _taken(args, "device", "dtype", "max_length", "batch_tokens") | {"problem_type": kind}
    score = LikelihoodScore.from_pretrained(args.model, source.labels, prompt=own, named=True, **options)
    check_columns(source.columns, template_columns(score.encode.prompt))
    if SCORE_COLUMN in source.columns:
        print(f"the column {SCORE_COLUMN} is written anew", file=sys.stderr)
    tally = Tally()
    with tqdm(unit=" samples", file=sys.stderr, disable=None) as bar:
        options = _taken(args) | {"key": args.id_column, "progress": bar.update}
        rows, fewer = select_best(source, score, args.best_of, tally=tally, **options)
    source.write(rows, SCORE_COLUMN)
    print(tally, file=sys.stderr)
    if args.best_of is not None:
        print(f"{fewer} of {len(rows)} rows have fewer than {args.best_of} samples", file=sys.stderr)
    return 0


def _opened_tokenizer(name: str) -> Any:
    """The tokenizer that `--tokenizer` names."""
    from ...opening import load_tokenizer

    try:
        return load_tokenizer(name)
    except Exception as error:  # the Hub and broken folders fail in many ways
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"--tokenizer {name}: no tokenizer can be read there ({reason})") from error


def _shorten(argv: Sequence[str]) -> int:
    """Cut the rationales of a table to a number of tokens, in whole sentences."""
    said = "Cut rationales to a number of tokens, in whole sentences; the counts go to standard error."
    parser = _parser("shorten", said, _SHORTEN, "output")
    parser.add_argument("--max-tokens", type=int, required=True, metavar="N", help="most tokens of a rationale")
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="the student: folder or Hub id")
    args = parser.parse_args(argv)
    if args.max_tokens < 1:
        raise ValueError(f"--max-tokens {args.max_tokens} must be 1 or greater")

    from ...rationales.filter import Tally, shorten_rationales

    source, tally = _Source(args, args.rationale_column), Tally()
    tokenizer = _opened_tokenizer(args.tokenizer)
    source.write(shorten_rationales(source, args.max_tokens, tokenizer, tally=tally, **_taken(args)))
    print(tally, file=sys.stderr)
    return 0


def _ablate(argv: Sequence[str]) -> int:
    """Spoil the rationales of a table in a known way."""
    from ...data.ablations import ABLATIONS, KEEP, ablate_columns

    width = max(map(len, ABLATIONS))
    kinds = "\n".join(f"  {name:{width}}  {it.description}" for name, it in ABLATIONS.items())
    said = "Spoil the rationales of a table in a known way: the ablations of the paper's Table 2, and controls."
    parser = _parser("ablate", said, _ABLATE + kinds, "output")
    add = parser.add_argument
    add("--kind", required=True, metavar="NAME", help="one of the kinds below")
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default: 0)")
    add("--keep", type=float, default=KEEP, metavar="SHARE", help=f"of the words, by keywords_only (default: {KEEP})")
    args = parser.parse_args(argv)
    if args.kind not in ABLATIONS:
        near = did_you_mean(args.kind, ABLATIONS) or "."
        raise ValueError(f"--kind: no ablation {args.kind!r}{near} There are {', '.join(ABLATIONS)}")
    why, label = args.rationale_column, args.label_column
    source = _Source(args, why, label if ABLATIONS[args.kind].needs_label else None)
    before, labels = zip(*((row.get(why), row.get(label)) for row in source), strict=True)
    now, labels_now = ablate_columns(before, labels, args.kind, args.seed, keep=args.keep)
    moves_labels = args.kind == "shuffled_rationale_and_label"
    # The other columns are written as they are read: a table of one type a column would change what stands in them.
    rows = (
        row | {why: rationale} | ({label: other} if moves_labels else {})
        for row, rationale, other in zip(source, now, labels_now, strict=True)
    )
    count = source.write(rows)
    had = [place for place, rationale in enumerate(before) if rationale is not None and str(rationale).strip()]
    left, new = sum(now[it] is not None for it in had), sum(before[it] != now[it] for it in had)
    said = f"{len(before)} rows in, {count} out; {len(had)} rationales in, {left} out, {new} of the rows have another"
    if label in source.columns:
        said += f"; {sum(one != other for one, other in zip(labels, labels_now, strict=True))} labels are others"
    if args.kind == "rationale_after_label":
        said += "\ntrain on it with: dhrd train --rationale-after-label"
    print(said, file=sys.stderr)
    return 0


COMMANDS = {it.__name__[1:]: Command(it) for it in (_filter, _select, _shorten, _ablate)}
COMMANDS["audit"] = Command(_audit, "Nothing was written.")
