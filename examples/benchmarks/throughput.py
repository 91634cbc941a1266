r"""Classifying texts: ours against the stock classifier's own loop on the same batches, and against `pipeline`.

The texts are made of random words, 5 to 120 of them, in random order.

    python examples/benchmarks/throughput.py
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from paired import paired, ratio, report
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
from dhrd_hf.embedded import smollm2_path
from dhrd_hf.evaluation import predict_texts

WORDS = [
    "the",
    "of",
    "a",
    "to",
    "in",
    "is",
    "on",
    "that",
    "it",
    "as",
    "with",
    "for",
    "was",
    "at",
    "by",
    "from",
    "have",
    "this",
    "which",
    "one",
    "were",
    "all",
    "when",
    "who",
    "will",
    "more",
]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hub id or folder (default: the embedded SmolLM2-135M-Instruct)")
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()
    path = args.model or str(smollm2_path())

    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(5, 120))) for _ in range(args.texts)]
    tokenizer = AutoTokenizer.from_pretrained(path)
    ours = AutoModelForDualHeadClassification.from_pretrained(path, num_labels=3)
    with tempfile.TemporaryDirectory() as folder:
        export_classifier(ours, tokenizer, folder, overwrite=True)
        stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        classify = pipeline("text-classification", model=stock, tokenizer=tokenizer)
    batches = [
        tokenizer(texts[start : start + 16], padding=True, padding_side="right", return_tensors="pt")
        for start in range(0, len(texts), 16)
    ]

    def next_batch_of(model: torch.nn.Module) -> Callable[[], None]:
        turn = cycle(batches)

        @torch.inference_mode()
        def run() -> None:
            model(**next(turn)).logits.argmax(-1).tolist()

        return run

    # Batch by batch, so that a drift of the machine meets both alike.
    times = paired(
        {"our model": next_batch_of(ours), "stock model": next_batch_of(stock)}, rounds=2 * args.rounds * len(batches)
    )
    times |= paired(
        {
            "predict_texts": lambda: list(predict_texts(stock, tokenizer, texts)),
            "pipeline": lambda: classify(texts, batch_size=16),
        },
        rounds=args.rounds,
    )

    def text(above: str, below: str) -> str:
        return "{:.3f} (rounds: {:.3f} to {:.3f})".format(*ratio(times, above, below))

    report(
        f"Classification of {args.texts} texts of mixed length",
        f"python examples/benchmarks/throughput.py --rounds {args.rounds}",
        [
            ("speed of our model / stock classifier, same batches", text("stock model", "our model")),
            ("speed of predict_texts / pipeline(batch_size=16)", text("pipeline", "predict_texts")),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
