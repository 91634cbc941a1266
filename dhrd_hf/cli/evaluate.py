"""`dhrd evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .early import check_command, held_out_rows
from .parsing import (
    Parser,
    add_label_options,
    add_model_options,
    add_table_options,
    chosen_prompt,
    with_labels,
    without_bars,
)

_EXAMPLES = """examples:
  dhrd evaluate --model runs/first --data test.jsonl
  dhrd evaluate --model runs/first                          (on the rows that it held out)
  dhrd evaluate --model my-classifier --data user/name@test --label-column gold --output metrics.json
"""
after_interrupt = "No metrics were written."


def run(argv: Sequence[str]) -> int:
    """Measure a classifier on a table with labels."""
    parser = Parser(
        prog="dhrd evaluate",
        description="Measure a classifier on a table with labels; prints one line of JSON.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    parser.add_argument(
        "--data", metavar="TABLE", help="the rows, with their labels (default: those that the run held out)"
    )
    add_label_options(parser, default=None)
    add_table_options(parser)
    parser.add_argument("--output", metavar="FILE", help="write the metrics to this .json file as well")
    args = parser.parse_args(argv)
    args.data = args.data or held_out_rows(args.model, "--data")
    check_command(args, args.data)

    from ..data.table_writing import check_file
    from ..data.tables import load_table
    from ..evaluation import calibration_metrics, compute_metrics, load_classifier, predict_table
    from ..files import strict_json, write_whole

    if args.output:
        check_file(args.output, args.data)
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
    text = strict_json(metrics)
    print(text, flush=True)  # first of all: a file that can't be written loses no evaluation
    if args.output:
        write_whole(args.output, text + "\n")
    return 0
