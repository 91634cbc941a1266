"""`dhrd predict`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ..data.prompts import chosen_prompt, has_input, input_columns, render
from ..data.table_writing import check_target, is_flat
from ..data.tables import check_columns, iter_rows
from ..export import ENGINES
from .parsing import Parser, add_model_options, add_table_options, check_command, quiet, without_bars

if TYPE_CHECKING:
    from ..evaluation.ranks import Ranks

_EXAMPLES = """examples:
  dhrd predict --model runs/first --data new.jsonl --output predictions.jsonl
  cat new.jsonl | dhrd predict --model my-classifier --data - --output - | jq .predicted_label
  torchrun --nproc-per-node 8 -m dhrd_hf.cli predict --model runs/first --data new.jsonl --output predictions.jsonl

The columns are kept. New ones: predicted_label, probabilities (in .csv, .tsv and .parquet one probability_LABEL for
each label) and, where a row has no prediction, prediction_error. A classifier with thresholds (dhrd calibrate --precision)
adds accepted_labels, the labels whose probability reaches theirs; one of dhrd calibrate --min-accuracy adds abstains, whether it
is too unsure for that accuracy, and of --label-sets label_set.
"""
after_interrupt = "No half-written predictions were left behind."
# Of so many rows the columns are known before the model is loaded: as many as predict_texts reads ahead.
_HEAD = 2048


def run(argv: Sequence[str]) -> int:
    parser = Parser("dhrd predict", "Classify the rows of a table; a table larger than memory will do.", _EXAMPLES)
    add = parser.add_argument
    add_model_options(parser)
    add(
        "--engine",
        choices=("torch", *ENGINES),
        help="what to run it on; default: what --model was exported for. A torch classifier is exported for it first, into a "
        "temporary folder (dhrd export --format keeps it)",
    )
    add("--data", required=True, metavar="TABLE", help="the rows; - is JSON Lines on standard input")
    add("--output", required=True, metavar="FILE", help="the file to write; - is standard output")
    add_table_options(parser)
    args = parser.parse_args(argv)
    check_command(args, args.data, labels=False)

    from ..evaluation.loading import on_engine
    from ..evaluation.ranks import Ranks

    check_target(args.output, args.data)
    without_bars()
    with Ranks() as ranks:
        if ranks.count > 1 and "-" in (args.data, args.output):
            raise ValueError(
                f"{ranks.count} ranks can't share standard input or output: name files for --data and --output."
            )
        if ranks.rank > 0:
            quiet()
        with on_engine(args.model, args.engine, partial(print, file=sys.stderr)) as args.model:
            return _predict(args, ranks)


def _predict(args: argparse.Namespace, ranks: Ranks) -> int:
    """Classify this rank's share of the rows; rank 0 shows how far it is, says what was written, and has the exit code."""
    from tqdm import tqdm

    from ..evaluation import Prediction, load_classifier, predict_texts
    from ..evaluation.prediction import NOT_FINITE, prediction_columns
    from ..opening import THRESHOLDS

    rows = iter_rows(args.data)
    head = list(islice(rows, _HEAD))  # before the model is loaded: a wrong name or a broken file is an error at once
    model, tokenizer = load_classifier(args.model, device=args.device, dtype=args.dtype)
    prompt = chosen_prompt(args.prompt, args.text_column, getattr(model.config, "prompt_template", None))
    labels = list(model.config.id2label.values())
    thresholds = {name: getattr(model.config, name, None) for name in THRESHOLDS}
    flat = is_flat(args.output)
    check_columns(dict.fromkeys(chain.from_iterable(head)), input_columns(prompt))
    added = prediction_columns(Prediction(None, error="none"), labels, thresholds, flat).keys()
    counts = Counter(empty=0, cut=0, not_finite=0)
    read_ahead: deque[dict[str, Any]] = deque()

    def predicted(share: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        texts = _texts(share, prompt, added, read_ahead)
        sizes = {"max_length": args.max_length, "batch_tokens": args.batch_tokens}
        for prediction in predict_texts(model, tokenizer, texts, **sizes):
            counts["not_finite"] += prediction.error == NOT_FINITE
            counts["empty"] += prediction.error not in (None, NOT_FINITE)
            counts["cut"] += prediction.cut
            progress.update(ranks.count)  # the others are about as far
            yield read_ahead.popleft() | prediction_columns(prediction, labels, thresholds, flat)

    started = time.perf_counter()
    with tqdm(unit=" rows", file=sys.stderr, disable=ranks.rank > 0 or None) as progress:
        share = ranks.share(enumerate(chain(head, rows)))
        count = ranks.write_rows(args.output, predicted(share), counts)
    seconds = time.perf_counter() - started
    if ranks.rank == 0:
        print(
            f"{count} rows, {counts['empty']} of them empty (see prediction_error), {counts['cut']} cut to the model's "
            f"input length; {count / seconds:.1f} rows/s",
            file=sys.stderr,
        )
    if ranks.rank > 0 or not counts["not_finite"]:
        return 0
    print(
        f"dhrd: error: {counts['not_finite']} of {count} rows have {NOT_FINITE} (see prediction_error): the model's numbers "
        "overflow there. Try --dtype float32, or train it again.",
        file=sys.stderr,
    )
    return 1


def _texts(
    rows: Iterable[tuple[int, dict[str, Any]]], prompt: str, added: Set[str], read_ahead: deque
) -> Iterator[str | None]:
    """The input of each numbered row, or None where a column of the prompt is empty; the row waits in `read_ahead`."""

    for number, row in rows:
        taken = added & row.keys()
        if taken:
            raise ValueError(
                f"Row {number} has a column {min(taken)!r} already, which would be lost: rename or remove it"
            )
        try:
            text = render(prompt, row) if has_input(prompt, row) else None
        except ValueError as error:
            raise ValueError(f"Row {number}: {error}") from None
        read_ahead.append(row)
        yield text
