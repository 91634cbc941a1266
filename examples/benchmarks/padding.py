r"""Share of padding, and training tokens per second, before and after: in random order, grouped by length, padding-free.

Every variant trains on the same rows (forward and backward, real tokens counted), in turn. On a CPU sdpa masks what lies
across the rows of a padding-free batch, but computes it; flash attention on a GPU skips it.

    python examples/benchmarks/padding.py ../shared/data/creak/train.jsonl.gz ../shared/data/strategyqa/train.jsonl.gz
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from paired import paired, ratio, report
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadEncoder
from dhrd_hf.data.tables import load_table
from dhrd_hf.embedded import smollm2_path


def batches(rows: list[dict], size: int, grouped: bool) -> Iterator[list[dict]]:
    """The rows in batches, in random order or as the Trainer's group_by_length orders them."""
    generator = torch.Generator().manual_seed(0)
    if grouped:
        lengths = [len(row["input_ids"]) for row in rows]
        order = list(LengthGroupedSampler(size, lengths=lengths, generator=generator))
    else:
        order = torch.randperm(len(rows), generator=generator).tolist()
    for start in range(0, len(order), size):
        yield [rows[index] for index in order[start : start + size]]


def share_of_padding(rows: list[dict], size: int, grouped: bool) -> float:
    """Padding tokens over all tokens of the padded batches."""
    groups = [[len(row["input_ids"]) for row in batch] for batch in batches(rows, size, grouped)]
    return 1 - sum(map(sum, groups)) / sum(max(group) * len(group) for group in groups)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", help="tables with the columns text, label and rationale")
    parser.add_argument("--model", help="Hub id or folder (default: the embedded SmolLM2-135M-Instruct)")
    parser.add_argument("--attn-implementation", help="as in from_pretrained")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1000, help="rows for the share of padding")
    parser.add_argument("--timed-rows", type=int, default=48, help="rows that each variant trains on in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the results to")
    args = parser.parse_args()
    path = args.model or str(smollm2_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")

    for table in args.tables:
        data = load_table(table)
        labels = {name: index for index, name in enumerate(sorted({str(label) for label in data["label"]}))}
        chosen = data.select(range(min(args.rows, len(data))))
        encoded = list(DualHeadEncoder(tokenizer, labels).encode_dataset(chosen))
        timed = encoded[: args.timed_rows]
        tokens = sum(len(row["input_ids"]) for row in timed)
        model = AutoModelForDualHeadClassification.from_pretrained(
            path, num_labels=len(labels), attn_implementation=args.attn_implementation
        )
        model.train().to(device)

        def train(grouped: bool, padding_free: bool, model=model, timed=timed) -> callable:
            collate = DualHeadCollator(tokenizer, padding_free=padding_free)

            def run() -> None:
                for rows in batches(timed, args.batch_size, grouped):
                    batch = {k: v.to(device) if hasattr(v, "to") else v for k, v in collate(rows).items()}
                    model(**batch).loss.backward()
                    model.zero_grad()
                if device.type != "cpu":
                    torch.accelerator.synchronize()

            return run

        times = paired(
            {"padded": train(False, False), "grouped": train(True, False), "padding-free": train(False, True)},
            rounds=args.rounds,
        )
        rate = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
        report(
            f"{table}: {len(encoded)} rows of {sum(len(r['input_ids']) for r in encoded) / len(encoded):.0f} tokens on "
            f"average, batches of {args.batch_size}; timed on {len(timed)} rows, {tokens} tokens",
            f"python examples/benchmarks/padding.py {table} --rounds {args.rounds} --timed-rows {args.timed_rows}",
            [
                ("share of padding, random order", f"{share_of_padding(encoded, args.batch_size, False):.1%}"),
                ("share of padding, grouped by length", f"{share_of_padding(encoded, args.batch_size, True):.1%}"),
                ("share of padding, padding-free", "0.0%"),
                *((f"tokens per second, {name}", f"{value:.0f}") for name, value in rate.items()),
                ("speed, grouped / padded", _text(ratio(times, "padded", "grouped"))),
                ("speed, padding-free / padded", _text(ratio(times, "padded", "padding-free"))),
            ],
            args.output,
        )


def _text(values: tuple[float, float, float]) -> str:
    return "{:.2f} (rounds: {:.2f} to {:.2f})".format(*values)


if __name__ == "__main__":
    main()
