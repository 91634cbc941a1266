r"""Time of a training step: ours, the stock causal LM's on the same sequences, the stock classifier's, the two-pass way.

A step is forward, backward, clipping and AdamW, on one batch of rows [x, suffix] of uneven lengths. The two-pass way runs
x alone for the classification loss, and then x with the suffix for the LM's loss.

    python examples/benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from paired import paired, ratio, report
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dhrd_hf import AutoModelForDualHeadClassification
from dhrd_hf.embedded import smollm2_path


def make_batch(rows: int, input_tokens: int, suffix_tokens: int, vocab_size: int, pad: int) -> dict[str, torch.Tensor]:
    """Random rows whose x and suffix have half to one and a half times the given number of tokens, right padded."""
    generator = torch.Generator().manual_seed(0)

    def lengths(mean: int) -> torch.Tensor:
        return torch.randint(mean // 2, mean + mean // 2 + 1, (rows,), generator=generator)

    input_length, suffix_length = lengths(input_tokens), lengths(suffix_tokens)
    total = input_length + suffix_length
    mask = torch.arange(int(total.max())) < total[:, None]  # [B, L]
    ids = torch.randint(pad + 1, vocab_size, mask.shape, generator=generator)
    ids = torch.where(mask, ids, pad)
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "input_length": input_length,
        "reasoning_targets": torch.where(mask, ids, -100),
        "labels": torch.randint(0, 3, (rows,), generator=generator),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hub id or folder (default: the embedded SmolLM2-135M-Instruct)")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--input-tokens", type=int, default=48)
    parser.add_argument("--suffix-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()
    path = args.model or str(smollm2_path())

    ours = AutoModelForDualHeadClassification.from_pretrained(path, num_labels=3).train()
    causal_lm = AutoModelForCausalLM.from_pretrained(path).train()
    classifier = AutoModelForSequenceClassification.from_pretrained(path, num_labels=3).train()
    batch = make_batch(
        args.rows, args.input_tokens, args.suffix_tokens, ours.config.vocab_size, ours.config.pad_token_id
    )
    longest = int(batch["input_length"].max())
    in_x = torch.arange(longest) < batch["input_length"][:, None]
    x = {
        "input_ids": torch.where(in_x, batch["input_ids"][:, :longest], ours.config.pad_token_id),
        "attention_mask": in_x.long(),
    }
    s = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def step(model: torch.nn.Module, *losses) -> callable:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

        def run() -> None:
            for loss in losses:
                loss().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return run

    times = paired(
        {
            "ours": step(ours, lambda: ours(**batch).loss),
            "causal LM": step(
                causal_lm, lambda: causal_lm(**s, labels=batch["reasoning_targets"], use_cache=False).loss
            ),
            "classifier": step(classifier, lambda: classifier(**x, labels=batch["labels"], use_cache=False).loss),
            "two passes": step(
                ours,
                lambda: ours(**x, labels=batch["labels"]).loss,
                lambda: ours(**s, reasoning_targets=batch["reasoning_targets"]).loss,
            ),
        },
        rounds=args.rounds,
    )
    to_lm, to_two = ratio(times, "ours", "causal LM"), ratio(times, "two passes", "ours")
    to_classifier = ratio(times, "ours", "classifier")
    report(
        f"Training step, {args.rows} rows, {int(batch['attention_mask'].sum())} tokens ({int(in_x.sum())} of x)",
        f"python examples/benchmarks/train_step.py --rounds {args.rounds}",
        [
            ("ours / stock causal LM on the same sequences", _text(to_lm)),
            ("two passes / ours", _text(to_two)),
            ("ours / stock classifier on x alone", _text(to_classifier)),
        ],
        args.output,
    )


def _text(values: tuple[float, float, float]) -> str:
    return "{:.3f} (rounds: {:.3f} to {:.3f})".format(*values)


if __name__ == "__main__":
    main()
