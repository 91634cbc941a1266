"""Time and memory of a training step, beside the plain ones and the two-pass way.

    python examples/benchmarks/training_step.py --model smollm2 --lengths 48,48
    python examples/benchmarks/training_step.py --model Qwen/Qwen3-0.6B --lora --data train.jsonl --batch-size 16

ways:
  causal_lm   the plain causal LM on x with its rationale
  ours        one forward pass over x with its rationale, both heads
  two_pass    a pass over x for the label, another over x with its rationale for the tokens, each with its backward
  classifier  the stock classifier on x alone

A step is forward, backward, clipping and AdamW. The ways start from the same weights and take turns on the same batches; times
are medians over the steps. Memory is measured in a process for each, above what the process has without a model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from paired import paired, ratio, report, spread
from peak_memory import PeakMemory
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadEncoder
from dhrd_hf.auto import load_config
from dhrd_hf.data import ensure_pad_token, input_only
from dhrd_hf.data.labels import read_labels
from dhrd_hf.data.tables import load_table

WAYS = ("causal_lm", "ours", "two_pass", "classifier")
# What is divided by what: all by the plain causal LM's, then what ours saves and what it costs.
RATIOS = [("ours", "causal_lm"), ("two_pass", "causal_lm"), ("classifier", "causal_lm"), ("two_pass", "ours")]
RATIOS += [("ours", "classifier")]
LABELS = 3
# The first step makes the optimiser's states, which the second one finds there.
MEMORY_STEPS = 2
# Small enough for the weights to stay where they are; the step costs the same.
LEARNING_RATE = 1e-6

Batch = Mapping[str, Mapping[str, Tensor]]


class Step:
    """Steps of training on batches: forward, backward, clipping and AdamW.

    Args:
        way: one of `WAYS`.
        args: the command's: `model`, `labels`, `pad`, `lora`, `device`, `dtype`.
        model: the model of another way, which starts from what this one does.
    """

    def __init__(self, way: str, args: argparse.Namespace, model: torch.nn.Module | None = None):
        self.way, self.device = way, torch.device(args.device)
        self.model = opened(way, args).to(self.device).train() if model is None else model
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)

    def losses(self, batch: Batch) -> Iterator[Tensor]:
        """The loss of each pass over a batch, which runs when it is asked for."""
        x, s, labels = (
            {name: it.to(self.device) for name, it in batch[part].items()} for part in ("x", "s", "labels")
        )
        inputs = {name: s[name] for name in ("input_ids", "attention_mask")}
        if self.way == "ours":
            yield self.model(**s, **labels).loss
        elif self.way == "causal_lm":
            yield self.model(**inputs, labels=s["reasoning_targets"], use_cache=False).loss
        elif self.way == "classifier":
            yield self.model(**x, **labels, use_cache=False).loss
        else:
            yield self.model(**x, **labels).loss
            yield self.model(**inputs, reasoning_targets=s["reasoning_targets"]).loss

    def __call__(self, batch: Batch) -> None:
        for loss in self.losses(batch):  # one after the other: no two graphs at once
            loss.backward()
        torch.nn.utils.clip_grad_norm_([it for group in self.optimizer.param_groups for it in group["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def opened(way: str, args: argparse.Namespace) -> torch.nn.Module:
    """The model of a way, with LoRA adapters if asked for."""
    if way == "causal_lm":
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype, trust_remote_code=False)
    else:
        stock = way == "classifier"
        kind = AutoModelForSequenceClassification if stock else AutoModelForDualHeadClassification
        model = kind.from_pretrained(args.model, num_labels=args.labels, dtype=args.dtype, trust_remote_code=False)
    model.config.get_text_config().pad_token_id = args.pad
    if not args.lora:
        return model
    classifies = way != "causal_lm"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if classifies else TaskType.CAUSAL_LM,
        r=16,
        lora_alpha=32,
        target_modules="all-linear",
        modules_to_save=["score"] if classifies else None,
    )
    return get_peft_model(model, config)


def random_rows(count: int, lengths: tuple[int, int], vocab_size: int, pad: int) -> list[dict[str, Any]]:
    """Rows of random tokens whose x and suffix have half to one and a half times the given numbers of tokens."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, size: int = 1) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()

    rows = []
    for _ in range(count):
        x, suffix = (draw((mean + 1) // 2, mean + mean // 2 + 1)[0] for mean in lengths)
        ids = [token + (token >= pad) for token in draw(0, vocab_size - 1, x + suffix)]
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "input_length": x, "reasoning_targets": ids}
        rows.append({**row, "labels": draw(0, LABELS)[0]})
    return rows


def step_batch(rows: list[dict[str, Any]], tokenizer: Any) -> Batch:
    """Encoded rows as one batch for every way to train on them."""
    collate = DualHeadCollator(tokenizer)
    s, x = collate(rows), collate([input_only(row) for row in rows])
    labels = {"labels": s.pop("labels")}
    return {"x": {name: it for name, it in x.items() if name != "labels"}, "s": s, "labels": labels}


def peak_memory(way: str, args: argparse.Namespace, batch: Batch) -> float:
    """Memory of a step in MiB, measured in a process of its own."""
    plain = {part: {name: it.tolist() for name, it in tensors.items()} for part, tensors in batch.items()}
    command = [sys.executable, __file__, "--model", args.model, "--measure", way]
    done = subprocess.run(
        command,
        input=json.dumps({"batch": plain, "args": {**vars(args), "output": None}}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def measure(way: str) -> float:
    """What [`peak_memory`] asks for on standard input."""
    job = json.load(sys.stdin)
    args = argparse.Namespace(**job["args"])
    torch.set_num_threads(args.threads)
    batch = {part: {name: torch.tensor(it) for name, it in tensors.items()} for part, tensors in job["batch"].items()}
    memory = PeakMemory(torch.device(args.device))
    step = Step(way, args)
    memory.reset()
    for _ in range(MEMORY_STEPS):
        step(batch)
    return memory.peak()


def encoded(args: argparse.Namespace, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """The first rows of a table; says how many labels it has."""
    table, labels = read_labels(load_table(args.data), "label", where=args.data)
    args.labels = len(labels.names)
    kind = {"problem_type": labels.problem_type}
    encode = DualHeadEncoder(tokenizer, labels.label2id, args.prompt, args.max_length, **kind)
    return list(encode.encode_dataset(table.select(range(min(count, len(table))))))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="Hub id or folder of a causal LM; smollm2: the embedded one")
    add("--data", help="rows with labels, and rationales where they have some; default: random tokens")
    add("--lengths", default="48,48", help="mean tokens of an input and of what follows it, without --data")
    add("--prompt", default="{text}", help="the input over a row's columns")
    add("--max-length", type=int, default=1024)
    add("--batch-size", type=int, default=8)
    add("--steps", type=int, default=7)
    add("--warmup", type=int, default=1)
    add("--lora", action="store_true")
    add(
        "--device", default=torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    )
    add("--dtype", default="float32")
    add("--output", type=Path, help="JSON Lines file to add the result to")
    add("--measure", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(measure(args.measure))
        return

    named = args.model
    if args.model == "smollm2":
        from dhrd_hf.embedded import smollm2_path

        args.model = str(smollm2_path())
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    args.pad, args.labels, args.threads = ensure_pad_token(tokenizer), LABELS, torch.get_num_threads()
    count = args.batch_size * (args.steps + args.warmup)
    if args.data is None:
        lengths = tuple(int(length) for length in args.lengths.split(","))
        rows = random_rows(count, lengths, load_config(args.model).get_text_config().vocab_size, args.pad)
    else:
        rows = encoded(args, tokenizer, count)
    chunks = [rows[at : at + args.batch_size] for at in range(0, len(rows) - args.batch_size + 1, args.batch_size)]
    batches = [step_batch(chunk, tokenizer) for chunk in chunks]
    largest = max(batches, key=lambda batch: batch["s"]["input_ids"].numel())
    memory = {way: peak_memory(way, args, largest) for way in WAYS}

    steps: dict[str, Step] = {}
    for way in WAYS:
        steps[way] = Step(way, args, steps["ours"].model if way == "two_pass" else None)
    turns = dict.fromkeys(WAYS, 0)

    def of(way: str) -> None:
        steps[way](batches[turns[way] % len(batches)])
        turns[way] += 1

    times = paired({way: lambda way=way: of(way) for way in WAYS}, rounds=args.steps, warmup=args.warmup)
    tokens = sum(len(row["input_ids"]) for chunk in chunks for row in chunk) / len(chunks)
    found = [("rows, tokens of a step", f"{args.batch_size}, {tokens:.0f}")]
    for way in WAYS:
        seconds = "{:.4g} s ({:.4g} to {:.4g})".format(*spread(times[way]))
        found.append((way, f"{seconds}, peak memory {memory[way]:.0f} MiB"))
    for above, below in RATIOS:
        timed = "time {:.3f} ({:.3f} to {:.3f})".format(*ratio(times, above, below))
        found.append((f"{above} / {below}", f"{timed}, peak memory {memory[above] / memory[below]:.3f}"))
    options = f"--batch-size {args.batch_size} --steps {args.steps}{' --lora' if args.lora else ''}"
    of_rows = f"--lengths {args.lengths}" if args.data is None else f"--data {args.data}"
    command = f"python examples/benchmarks/training_step.py --model {named} {of_rows} {options}"
    report(f"A training step of {named}", command, found, args.output)


if __name__ == "__main__":
    main()
