"""The answers of a run of CoT decoding, in a process of its own: `python -m dhrd_hf.evaluation.decode`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dhrd_hf.evaluation.decode", allow_abbrev=False)
    for name in ("--model", "--data", "--output", "--metrics"):
        parser.add_argument(name, required=True)
    parser.add_argument("--label-column", default="label")
    for name in ("--seed", "--max-new-tokens"):
        parser.add_argument(name, type=int, required=True)
    args = parser.parse_args(argv)

    from ..data.prompts import input_or_empty, render_rows
    from ..data.table_writing import write_rows
    from ..data.tables import iter_rows
    from ..files import strict_json, write_whole
    from . import load_classifier
    from .cot import decode_answers

    model, tokenizer = load_classifier(args.model)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    prompt = getattr(model.config, "prompt_template", None) or "{text}"
    rows = list(iter_rows(args.data))
    began = time.perf_counter()
    answers = decode_answers(
        model,
        tokenizer,
        list(render_rows(prompt, rows, input_or_empty)),
        names,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
    )
    seconds = time.perf_counter() - began
    said = (
        {
            args.label_column: row[args.label_column],
            "predicted_label": it.label,
            "answer": it.text,
            "new_tokens": it.new_tokens,
        }
        for row, it in zip(rows, answers, strict=True)
    )
    write_rows(args.output, said)
    metrics = {
        "eval_runtime": seconds,
        "eval_unreadable": sum(it.label is None for it in answers) / len(answers),
        "eval_new_tokens": sum(it.new_tokens for it in answers) / len(answers),
    }
    write_whole(Path(args.metrics), strict_json(metrics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
