"""`dhrd rationales filter`, `select`, `shorten` and `ablate`: from a table with rationales to one with fewer, or others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...data.prompts import chosen_prompt
from ...files import did_you_mean
from ..parsing import Parser

SCORE_COLUMN = "rationale_score"
MIN_WORDS, MAX_WORDS = 3, 150  # as in the checks, whose import a help can do without
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
  dhrd rationales select samples.jsonl --score judge --judge http://localhost:8000/v1 --output best.jsonl

The samples of a row are rows with one id, or a list in the rationale column. likelihood: how much more likely the gold
label is to a student after the rationale than before, in nats. judge: how well a chat model thinks that it leads to the
label, from 0 to 10. The score is written to a column rationale_score.
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
    """A command of this module."""

    run: Callable[[Sequence[str]], int]
    after_interrupt: str = "No half-written table was left behind."


def _parser(command: str, description: str, epilog: str, prompt: bool = True) -> Parser:
    """The parser of a command, with the table, the file to write and the names of the columns."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=f"dhrd rationales {command}", description=description, epilog=epilog, formatter_class=form)
    parser.add_argument(
        "data", metavar="FILE", help="the table with the rationales; - is JSON Lines on standard input"
    )
    parser.add_argument("--output", required=True, metavar="OUT", help="the file to write; - is standard output")
    parser.add_argument("--rationale-column", default="rationale", metavar="NAME", help="default: rationale")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="default: label")
    if prompt:
        example = r"'{premise}\n{hypothesis}'; default: {text}"
        parser.add_argument("--prompt", metavar="TEMPLATE", help=f"the text over a row's columns, such as {example}")
        parser.add_argument("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    return parser


class _Source:
    """A table, read once to see its columns and labels, and then streamed as often as wanted."""

    def __init__(self, args: argparse.Namespace, *needed: str | None):
        from ...data.joining import NamedRows
        from ...data.label_names import label_names
        from ...data.table_writing import check_target
        from ...data.tables import check_columns

        check_target(args.output, args.data)
        self._rows = NamedRows(args.data, args.label_column)
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


def _write(args: argparse.Namespace, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> int:
    """Write rows; a flat table has all the columns that any of them has."""
    from ...data.table_writing import is_flat, write_rows

    return write_rows(args.output, rows, list(dict.fromkeys(columns)) if is_flat(args.output) else None)


def taken(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options that are arguments of the same name."""
    return {name: getattr(args, name) for name in names}


def _filter(argv: Sequence[str]) -> int:
    """Drop or repair the rationales of a table that fail a check."""
    said = "Drop or repair the rationales that fail a check; the counts go to standard error."
    parser = _parser("filter", said, _FILTER)
    add = parser.add_argument
    add("--checks", metavar="NAMES", help="such as empty,label_leak; default: all but near_duplicate")
    add("--drop", default="rationales", choices=("rationales", "rows"), help="what goes (default: rationales)")
    add("--repair", action="store_true", help="repair what can be repaired before it is dropped")
    add("--labels", metavar="NAMES", help="all labels, such as yes,no; default: those of the table")
    add("--min-words", type=int, default=MIN_WORDS, metavar="N", help="fewest words of a rationale (default: 3)")
    add("--max-words", type=int, default=MAX_WORDS, metavar="N", help="most words of a rationale (default: 150)")
    add("--rejected", metavar="FILE", help="write the rows that lost their rationale here, with reasons")
    args = parser.parse_args(argv)

    from ...data.prompts import template_columns
    from ...data.table_writing import check_target, write_rows
    from ...data.tables import check_columns
    from ...rationales.checks import ROW_CHECKS
    from ...rationales.filter import Tally, filter_rationales

    checks = ROW_CHECKS if args.checks is None else _names("--checks", args.checks)
    labels = None if args.labels is None else _names("--labels", args.labels)
    if args.rejected:
        check_target(args.rejected, args.output, args.data)
    prompt = chosen_prompt(args.prompt, args.text_column)
    source = _Source(args, args.rationale_column)
    if args.prompt is not None or args.text_column is not None:
        check_columns(source.columns, template_columns(prompt))
    elif not set(template_columns(prompt)) <= set(source.columns) and {"copy", "wrong_language"} & set(checks):
        print("no column 'text': copy and wrong_language are not checked (name it: --text-column)", file=sys.stderr)
    tally, rejected = Tally(), []
    rows = filter_rationales(
        source,
        checks,
        labels=labels or source.labels,
        prompt=prompt,
        tally=tally,
        rejected=rejected.append if args.rejected else None,
        **taken(args, "drop", "repair", "label_column", "rationale_column", "min_words", "max_words"),
    )
    _write(args, rows, [*source.columns, args.rationale_column])
    if args.rejected:
        write_rows(args.rejected, rejected, columns=[*source.columns, "reasons"])
    print(tally, file=sys.stderr)
    return 0


def _names(option: str, typed: str) -> list[str]:
    names = [name.strip() for name in typed.split(",") if name.strip()]
    if not names:
        raise ValueError(f"{option} {typed!r} holds no name: write them with commas between, or leave {option} out")
    return names


def _select(argv: Sequence[str]) -> int:
    """Keep the best of several rationales of a row."""
    said = "Keep the best of several rationales of a row, by a score; the counts go to standard error."
    parser = _parser("select", said, _SELECT)
    add = parser.add_argument
    add("--id-column", metavar="NAME", help="column that samples of a row share; default: id, key or idx")
    add("--best-of", type=int, metavar="K", help="most samples of a row to choose from; default: all")
    add("--score", default="likelihood", choices=("likelihood", "judge"), help="what is best (default: likelihood)")
    add("--model", metavar="DIR", help="likelihood: the student, a causal LM or what dhrd train wrote")
    add("--max-length", type=int, metavar="N", help="likelihood: most tokens of a row")
    add("--batch-tokens", type=int, metavar="N", help="likelihood: most tokens of a batch")
    add("--device", help="such as cpu or cuda:1; default: the accelerator if there is one")
    add("--dtype", default="auto", help="likelihood: such as float32; default: as the model was saved")
    add("--judge", metavar="URL", help="judge: who is asked, as --teacher of dhrd rationales generate")
    add("--judge-model", metavar="NAME", help="judge: the model at the endpoint")
    add("--api-key-env", metavar="NAME", help="judge: the environment variable with its key")
    add("--concurrency", type=int, default=32, metavar="N", help="judge: requests at a time (default: 32)")
    args = parser.parse_args(argv)
    for name, number in taken(args, "best_of", "max_length", "batch_tokens").items():
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} {number} must be 1 or greater")
    wanted, other = ("model", "judge") if args.score == "likelihood" else ("judge", "model")
    if getattr(args, wanted) is None or getattr(args, other) is not None:
        raise ValueError(f"--score {args.score} wants --{wanted}, and no --{other}")

    from tqdm import tqdm

    from ...data.prompts import template_columns
    from ...data.tables import check_columns
    from ...rationales.filter import Tally
    from ...rationales.select import select_best

    source = _Source(args, args.rationale_column, args.label_column, args.id_column)
    score, prompt = (_likelihood if args.score == "likelihood" else _judge)(args, source)
    check_columns(source.columns, template_columns(prompt))
    if SCORE_COLUMN in source.columns:
        print(f"the column {SCORE_COLUMN} is written anew", file=sys.stderr)
    tally, options = Tally(), taken(args, "label_column", "rationale_column") | {"key": args.id_column}
    with tqdm(unit=" samples", file=sys.stderr, disable=None) as bar:
        options |= {"score_column": SCORE_COLUMN, "progress": bar.update}
        rows, fewer = select_best(source, score, args.best_of, tally=tally, **options)
    unjudged = getattr(score, "unjudged", 0)
    if unjudged and unjudged == tally.rationales_in:
        raise ValueError(f"{args.judge} gave none of the {unjudged} samples a number from 0 to 10: take another judge")
    _write(args, rows, [*source.columns, SCORE_COLUMN])
    print(tally, file=sys.stderr)
    if args.best_of is not None:
        print(f"{fewer} of {len(rows)} rows have fewer than {args.best_of} samples", file=sys.stderr)
    if unjudged:
        print(f"{unjudged} samples were given no number by the judge, and count as the worst", file=sys.stderr)
    return 0


def _likelihood(args: argparse.Namespace, source: _Source) -> tuple[Any, str]:
    from ...data.label_names import is_missing, label_names
    from ...rationales.select import LikelihoodScore

    score = LikelihoodScore.from_pretrained(
        args.model,
        source.labels,
        prompt=chosen_prompt(args.prompt, args.text_column) if args.prompt or args.text_column else None,
        problem_type=f"{'multi' if source.multi_label else 'single'}_label_classification",
        **taken(args, "device", "dtype", "max_length", "batch_tokens", "label_column", "rationale_column"),
    )

    def named(row: dict[str, Any]) -> dict[str, Any]:
        """A row whose label is a name, and not taken for an id where it is a number."""
        label, names = row.get(args.label_column), label_names(row.get(args.label_column))
        return row if is_missing(label) else {**row, args.label_column: names if source.multi_label else names[0]}

    return lambda rows: score(list(map(named, rows))), score.encode.prompt


def _judge(args: argparse.Namespace, source: _Source) -> tuple[Any, str]:
    from ...rationales.select import JudgeScore

    prompt = chosen_prompt(args.prompt, args.text_column)
    judge = opened_judge(args, concurrency=args.concurrency, device=args.device)
    return JudgeScore(judge, source.labels, prompt, **taken(args, "label_column", "rationale_column")), prompt


def opened_judge(args: argparse.Namespace, **options: Any) -> Any:
    """The chat model that `--judge` names."""
    from ...rationales.teacher import Sampling, open_teacher

    named = (args.judge, args.judge_model, Sampling(temperature=0.0))
    return open_teacher(*named, api_key_env=args.api_key_env, **options)


def opened_tokenizer(name: str) -> Any:
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
    parser = _parser("shorten", said, _SHORTEN, prompt=False)
    parser.add_argument("--max-tokens", type=int, required=True, metavar="N", help="most tokens of a rationale")
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="the student: folder or Hub id")
    args = parser.parse_args(argv)
    if args.max_tokens < 1:
        raise ValueError(f"--max-tokens {args.max_tokens} must be 1 or greater")

    from ...rationales.filter import Tally, shorten_rationales

    source, tally = _Source(args, args.rationale_column), Tally()
    columns = taken(args, "label_column", "rationale_column")
    rows = shorten_rationales(source, args.max_tokens, opened_tokenizer(args.tokenizer), tally=tally, **columns)
    _write(args, rows, source.columns)
    print(tally, file=sys.stderr)
    return 0


def _ablate(argv: Sequence[str]) -> int:
    """Spoil the rationales of a table in a known way."""
    from ...data.ablations import ABLATIONS, KEEP, ablate_columns

    width = max(map(len, ABLATIONS))
    kinds = "\n".join(f"  {name:{width}}  {it.description}" for name, it in ABLATIONS.items())
    said = "Spoil the rationales of a table in a known way: the ablations of the paper's Table 2, and controls."
    parser = _parser("ablate", said, _ABLATE + kinds, prompt=False)
    add = parser.add_argument
    add("--kind", required=True, metavar="NAME", help="one of the kinds below")
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default: 0)")
    share = f"of the words, for keywords_only (default: {KEEP})"
    add("--keep", type=float, default=KEEP, metavar="SHARE", help=share)
    args = parser.parse_args(argv)
    if args.kind not in ABLATIONS:
        near = did_you_mean(args.kind, ABLATIONS) or "."
        raise ValueError(f"--kind: no ablation {args.kind!r}{near} There are {', '.join(ABLATIONS)}")
    source = _Source(args, args.rationale_column, args.label_column if ABLATIONS[args.kind].needs_label else None)
    columns = ((row.get(args.rationale_column), row.get(args.label_column)) for row in source)
    before, labels = zip(*columns, strict=True)
    now, labels_now = ablate_columns(before, labels, args.kind, args.seed, keep=args.keep)
    moves_labels = args.kind == "shuffled_rationale_and_label"
    # The other columns are written as they are read: a table of one type a column would change what stands in them.
    rows = (
        row | {args.rationale_column: rationale} | ({args.label_column: label} if moves_labels else {})
        for row, rationale, label in zip(source, now, labels_now, strict=True)
    )
    count = _write(args, rows, source.columns)
    had = [place for place, rationale in enumerate(before) if rationale is not None and str(rationale).strip()]
    said = (
        f"{len(before)} rows in, {count} out; {len(had)} rationales in, {sum(now[it] is not None for it in had)} out"
    )
    said += f", {sum(before[it] != now[it] for it in had)} of the rows have another"
    if args.label_column in source.columns:
        said += f"; {sum(one != other for one, other in zip(labels, labels_now, strict=True))} labels are others"
    if args.kind == "rationale_after_label":
        said += "\ntrain on it with: dhrd train --rationale-after-label"
    print(said, file=sys.stderr)
    return 0


COMMANDS = {it.__name__[1:]: Command(it) for it in (_filter, _select, _shorten, _ablate)}
