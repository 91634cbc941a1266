"""`dhrd evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.prompts import chosen_prompt
from ..data.table_writing import check_file
from ..data.tables import load_table, same_table
from ..files import strict_json, write_whole
from .parsing import (
    Parser,
    add_label_options,
    add_model_options,
    add_table_options,
    check_command,
    held_out_rows,
    warn,
    with_labels,
    without_bars,
)

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig

    from ..evaluation import LabelledLogits
    from ..evaluation.verdict import Judged

_EXAMPLES = """examples:
  dhrd evaluate --model runs/first --data test.jsonl
  dhrd evaluate --model runs/first                          (on the rows that it held out)
  dhrd evaluate --model my-classifier --data user/name@test --label-column gold --output metrics.json
  dhrd evaluate --model runs/first --data test.jsonl --baseline runs/pooled --report report.html

The table beside what costs less goes to standard error, one line of JSON to standard output; --output has both as JSON.
"""
after_interrupt = "No metrics were written."


def run(argv: Sequence[str]) -> int:
    parser = Parser(
        "dhrd evaluate",
        "Measure a classifier on a table with labels: is it any good? Prints a table and one line of JSON.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add_model_options(parser)
    add("--data", metavar="TABLE", help="the rows, with their labels (default: those that the run held out)")
    add_label_options(parser, default=None)
    add_table_options(parser)
    add("--output", metavar="FILE", help="write the metrics and the verdict to this .json file")
    add("--report", metavar="FILE", help="write a page to look at first to this .html file")
    add("--train-data", metavar="TABLE", help="what the baselines are trained on; default: what the run was")
    add("--baseline", metavar="DIR", help="another classifier to be compared to, such as a pooled run")
    args = parser.parse_args(argv)
    args.data = args.data or held_out_rows(args.model, "--data")
    check_command(args, args.data)

    from ..evaluation import calibration_metrics, compute_metrics, load_classifier, predict_table

    if args.output:
        check_file(args.output, args.data)
    if args.report:
        check_file(args.report, args.data, args.output)
    without_bars()
    table = load_table(args.data)
    model, tokenizer = load_classifier(args.model, device=args.device, dtype=args.dtype)
    table = with_labels(args, table, args.data, model.config)
    prompt = chosen_prompt(args.prompt, args.text_column, getattr(model.config, "prompt_template", None))
    sizes = {"max_length": args.max_length, "batch_tokens": args.batch_tokens}
    found = predict_table(model, tokenizer, table, prompt, args.label_column, **sizes)
    metrics: dict[str, Any] = compute_metrics((found.logits, found.labels), found.problem_type)
    if "accuracy" in metrics:
        metrics |= calibration_metrics(found.logits, found.labels)
    metrics |= {"rows": len(found.labels), "cut": found.cut}
    print(strict_json(metrics), flush=True)  # first of all: a file that can't be written loses no evaluation
    judged = None
    if "accuracy" in metrics and len(found.labels) > 1:
        judged = _judged(args, model.config, prompt, table, found)
        print(judged.text(), file=sys.stderr)
        metrics["verdict"] = judged.report
    if args.output:
        write_whole(args.output, strict_json(metrics) + "\n")
    if args.report and judged is None:
        warn(f"--report is of classes and of two rows or more: there is no {args.report}.")
    elif args.report:
        cut = [f"{found.cut} of {len(found.labels)} texts were cut to the model's input length."]
        write_whole(args.report, judged.page(Path(args.model).name, args.data, _history(args.model), cut))
        print(f"The page: {args.report}", file=sys.stderr)
    return 0


def _judged(
    args: argparse.Namespace, config: PreTrainedConfig, prompt: str, table: datasets.Dataset, found: LabelledLogits
) -> Judged:
    """The verdict, beside the baselines where the training rows are known, and another classifier where one is named."""
    import numpy as np

    from ..data.labels import Labels
    from ..evaluation import load_classifier, predict_table
    from ..evaluation.verdict import Judged, decided

    source, seen, others = args.train_data or _remembered(args.model), None, {}
    rows = None
    if source is not None:
        # Of a table that is remembered, rows without a label were left out then.
        options = argparse.Namespace(**{**vars(args), "drop_unlabelled": args.drop_unlabelled or not args.train_data})
        try:
            rows = with_labels(options, load_table(source), source, config)
        except (OSError, ValueError) as error:
            if args.train_data:
                raise
            warn(f"the training rows, {source}, can't be read any more ({error})")
    if rows is None:
        warn("no training rows are known, so there are no baselines beside it: add --train-data TABLE.")
    else:
        if same_table(source, args.data):
            warn(f"{source} was trained on: what is measured on its rows says nothing of others.")
        seen = (rows, np.array(Labels.of(config, args.label_column).read_all(rows[args.label_column][:])))
    if args.baseline:
        model, tokenizer = load_classifier(args.baseline, device=args.device, dtype=args.dtype)
        names, theirs = (list(it.id2label.values()) for it in (config, model.config))
        if sorted(names) != sorted(theirs):
            raise ValueError(
                f"--baseline {args.baseline} has the labels {', '.join(theirs)}; {args.model} {', '.join(names)}."
            )
        own_prompt = chosen_prompt(args.prompt, args.text_column, getattr(model.config, "prompt_template", None))
        said = predict_table(model, tokenizer, table, own_prompt, args.label_column, batch_tokens=args.batch_tokens)
        others[Path(args.baseline).name] = decided(
            said.logits[:, [theirs.index(name) for name in names]], found.labels
        )
    return Judged(config, prompt, table, found, seen, others)


def _remembered(model: str) -> str | None:
    from ..train import VERDICT_FILE

    for folder in (Path(model), Path(model).parent):
        with suppress(OSError, ValueError):
            source = json.loads((folder / VERDICT_FILE).read_text(encoding="utf-8")).get("train_data")
            where = str(source).removesuffix("@train")
            return source if source and (Path(where).exists() or not Path(where).is_absolute()) else None
    return None


def _history(model: str) -> list[dict[str, float]]:
    with suppress(OSError, ValueError, KeyError):
        return json.loads((Path(model) / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return []
