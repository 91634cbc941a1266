"""`dhrd rationales select`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ...data.prompts import chosen_prompt
from ..parsing import Parser
from .source import Source, add_table_options, write_table

SCORE_COLUMN = "rationale_score"
_EXAMPLES = """examples:
  dhrd rationales select samples.jsonl --best-of 4 --score likelihood --model runs/first --output best.jsonl
  dhrd rationales select samples.jsonl --score judge --judge http://localhost:8000/v1 --output best.jsonl

The samples of a row are rows with one id, or a list in the rationale column. likelihood: how much more likely the gold
label is to a student after the rationale than before, in nats. judge: how well a chat model thinks that it leads to the
label, from 0 to 10. The score is written to a column rationale_score.
"""
after_interrupt = "No half-written table was left behind."


def run(argv: Sequence[str]) -> int:
    """Keep the best of several rationales of a row."""
    parser = Parser(
        prog="dhrd rationales select",
        description="Keep the best of several rationales of a row, by a score; the counts go to standard error.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_table_options(parser)
    parser.add_argument(
        "--id-column", metavar="NAME", help="column that samples of a row share; default: id, key or idx"
    )
    parser.add_argument("--best-of", type=int, metavar="K", help="most samples of a row to choose from; default: all")
    parser.add_argument(
        "--score", default="likelihood", choices=("likelihood", "judge"), help="what is best (default: likelihood)"
    )
    parser.add_argument("--model", metavar="DIR", help="likelihood: the student, a causal LM or what dhrd train wrote")
    parser.add_argument("--max-length", type=int, metavar="N", help="likelihood: most tokens of a row")
    parser.add_argument("--batch-tokens", type=int, metavar="N", help="likelihood: most tokens of a batch")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: the accelerator if there is one")
    parser.add_argument("--dtype", default="auto", help="likelihood: such as float32; default: as the model was saved")
    parser.add_argument("--judge", metavar="URL", help="judge: who is asked, as --teacher of dhrd rationales generate")
    parser.add_argument("--judge-model", metavar="NAME", help="judge: the model at the endpoint")
    parser.add_argument("--api-key-env", metavar="NAME", help="judge: the environment variable with its key")
    parser.add_argument(
        "--concurrency", type=int, default=32, metavar="N", help="judge: requests at a time (default: 32)"
    )
    args = parser.parse_args(argv)
    limits = {"--best-of": args.best_of, "--max-length": args.max_length, "--batch-tokens": args.batch_tokens}
    for option, number in limits.items():
        if number is not None and number < 1:
            raise ValueError(f"{option} {number} must be 1 or greater")
    wanted, other = ("model", "judge") if args.score == "likelihood" else ("judge", "model")
    if getattr(args, wanted) is None or getattr(args, other) is not None:
        raise ValueError(f"--score {args.score} wants --{wanted}, and no --{other}")

    from tqdm import tqdm

    from ...data.prompts import template_columns
    from ...data.table_writing import check_target
    from ...data.tables import check_columns
    from ...rationales.filter import Tally
    from ...rationales.select import select_best

    check_target(args.output, args.data)
    needed = [args.rationale_column, args.label_column, *([args.id_column] if args.id_column else [])]
    source = Source(args.data, needed, args.label_column)
    score, prompt = _likelihood(args, source) if args.score == "likelihood" else _judge(args, source.labels)
    check_columns(source.columns, template_columns(prompt))
    if SCORE_COLUMN in source.columns:
        print(f"the column {SCORE_COLUMN} is written anew", file=sys.stderr)
    tally = Tally()
    with tqdm(unit=" samples", file=sys.stderr, disable=None) as progress:
        rows, fewer = select_best(
            source,
            score,
            args.best_of,
            key=args.id_column,
            label_column=args.label_column,
            rationale_column=args.rationale_column,
            score_column=SCORE_COLUMN,
            tally=tally,
            progress=progress.update,
        )
    unjudged = getattr(score, "unjudged", 0)
    if unjudged and unjudged == tally.rationales_in:
        raise ValueError(f"{args.judge} gave none of the {unjudged} samples a number from 0 to 10: take another judge")
    write_table(args.output, rows, [*source.columns, SCORE_COLUMN])
    print(tally, file=sys.stderr)
    if args.best_of is not None:
        print(f"{fewer} of {len(rows)} rows have fewer than {args.best_of} samples", file=sys.stderr)
    if unjudged:
        print(f"{unjudged} samples were given no number by the judge, and count as the worst", file=sys.stderr)
    return 0


def _likelihood(args: argparse.Namespace, source: Source) -> tuple[Any, str]:
    from ...data.label_names import is_missing, label_names
    from ...rationales.select import LikelihoodScore

    score = LikelihoodScore.from_pretrained(
        args.model,
        source.labels,
        device=args.device,
        dtype=args.dtype,
        prompt=chosen_prompt(args.prompt, args.text_column) if args.prompt or args.text_column else None,
        max_length=args.max_length,
        batch_tokens=args.batch_tokens,
        label_column=args.label_column,
        rationale_column=args.rationale_column,
        problem_type=f"{'multi' if source.multi_label else 'single'}_label_classification",
    )

    def by_name(rows: Sequence[dict[str, Any]]) -> list[float]:
        """The scores of rows whose labels may be numbers: the names of all are known, so that none is taken for an id."""
        label = args.label_column
        return score([row if is_missing(row.get(label)) else {**row, label: named(row[label])} for row in rows])

    def named(label: Any) -> str | list[str]:
        return label_names(label) if source.multi_label else label_names(label)[0]

    return by_name, score.encode.prompt


def _judge(args: argparse.Namespace, labels: Sequence[str]) -> tuple[Any, str]:
    from ...rationales.select import JudgeScore
    from ...rationales.teacher import Sampling, open_teacher

    sampling = Sampling(temperature=0.0)
    options = {"api_key_env": args.api_key_env, "concurrency": args.concurrency, "device": args.device}
    judge = open_teacher(args.judge, args.judge_model, sampling, **options)
    columns = {"label_column": args.label_column, "rationale_column": args.rationale_column}
    prompt = chosen_prompt(args.prompt, args.text_column)
    return JudgeScore(judge, labels, prompt, **columns), prompt
