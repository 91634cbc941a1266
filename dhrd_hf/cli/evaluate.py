"""`dhrd evaluate`."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parsing import Parser, add_model_options, chosen_prompt, with_label_names

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_EXAMPLES = """examples:
  dhrd evaluate --model runs/first --data test.jsonl
  dhrd evaluate --model my-classifier --data user/name@test --label-column gold --output metrics.json
"""


def run(argv: Sequence[str]) -> int:
    """Measure a classifier on a table with labels.

    Args:
        argv (`Sequence[str]`): The arguments behind `dhrd evaluate`.

    Returns:
        `int`: 0.

    Raises:
        ValueError, OSError: if the model or the table cannot be read, or a label is not one of the model's.
    """
    parser = Parser(
        prog="dhrd evaluate",
        description="Measure a classifier on a table with labels; prints one line of JSON.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    parser.add_argument("--data", required=True, metavar="TABLE", help="the rows, with their labels")
    parser.add_argument(
        "--label-column", default="label", metavar="NAME", help="column of the labels (default: label)"
    )
    parser.add_argument("--output", metavar="FILE", help="write the metrics to this .json file as well")
    args = parser.parse_args(argv)

    import numpy as np

    from ..data.prompts import render
    from ..data.tables import load_table
    from ..evaluation import compute_metrics, load_classifier, predict_texts

    table = with_label_names(load_table(args.data), args.label_column)
    model, tokenizer = load_classifier(args.model, device=args.device, dtype=args.dtype)
    prompt = chosen_prompt(args.prompt, args.text_column, getattr(model.config, "prompt_template", None))
    labels = _labels(table, args.label_column, prompt, model.config, tokenizer)
    texts = (render(prompt, row) for row in table)
    sizes = {"max_length": args.max_length, "batch_tokens": args.batch_tokens}
    predictions = list(predict_texts(model, tokenizer, texts, **sizes))
    metrics: dict[str, Any] = compute_metrics((np.array([it.logits for it in predictions]), labels))
    metrics |= {"rows": len(predictions), "cut": sum(it.cut for it in predictions)}
    text = json.dumps(metrics)
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        Path(args.output).write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def _labels(
    table: datasets.Dataset, column: str, prompt: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> Any:
    """The labels as the encoder of training reads them, which also refuses empty texts and unknown labels."""
    import numpy as np

    from .. import DualHeadEncoder

    # Only its labels are wanted: no length may stand in the way.
    boundless = copy.deepcopy(tokenizer)
    boundless.model_max_length = int(1e30)
    encode = DualHeadEncoder(
        boundless,
        config.label2id,
        prompt,
        max_length=10**9,
        label_column=column,
        problem_type=config.problem_type,
    )
    return np.array([label for batch in table.iter(1000) for label in encode(batch)["labels"]])


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C.

    Args:
        argv (`Sequence[str]`): The arguments.

    Returns:
        `str`: a sentence.
    """
    return "No metrics were written."
