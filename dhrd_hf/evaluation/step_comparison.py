"""Time and memory of a training step: ours, the plain causal LM's, the stock classifier's, and the two-pass way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from .memory import PeakMemory, free_memory, out_of_memory
from .steps import WAYS, Step, StepSetup, step_batch
from .timing import ratio, spread, turns

# The first step makes the optimiser's states, which the second one finds there.
_MEMORY_STEPS = 2
# What is divided by what: all by the plain causal LM's, then what ours saves and what it costs.
_RATIOS = (
    ("ours", "causal_lm"),
    ("two_pass", "causal_lm"),
    ("classifier", "causal_lm"),
    ("two_pass", "ours"),
    ("ours", "classifier"),
)
_CHILD = "from dhrd_hf.evaluation.step_comparison import measure_in_this_process as measure; measure()"


def compare_steps(
    setup: StepSetup,
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 8,
    steps: int = 7,
    warmup: int = 1,
) -> Iterator[dict[str, Any]]:
    r"""Measure a step of each of [`WAYS`] on the same batches, and say after each round what is known so far."""
    for name, value, least in (("batch_size", batch_size, 1), ("steps", steps, 1), ("warmup", warmup, 0)):
        if value < least:
            raise ValueError(f"{name}={value} must be {least} or greater.")
    if len(rows) < batch_size:
        raise ValueError(
            f"there are {len(rows)} rows for batches of {batch_size}: give more rows, or a smaller batch."
        )
    count = min(len(rows) // batch_size, steps + warmup)
    return _rounds(
        setup, [rows[at * batch_size : (at + 1) * batch_size] for at in range(count)], tokenizer, steps, warmup
    )


def _rounds(
    setup: StepSetup,
    chunks: list[Sequence[Mapping[str, Any]]],
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    warmup: int,
) -> Iterator[dict[str, Any]]:
    largest = max(chunks, key=lambda chunk: len(chunk) * max(len(row["input_ids"]) for row in chunk))
    batches = [step_batch(chunk, tokenizer) for chunk in chunks]
    left_out: list[dict[str, str]] = []
    memory: dict[str, dict[str, float]] = {}
    by_way: dict[str, Step] = {}
    times: dict[str, list[float]] = {}

    def attempt(way: str, function: Callable[[], Any], progress: tqdm) -> Any:
        progress.set_description(way)
        try:
            return function()
        except Exception as error:
            why = out_of_memory(error)
            if why is None:
                raise
        finally:
            progress.update()
        # Behind the error, whose frames hold tensors.
        why = f"not beside the others: {why}" if way in memory else why
        left_out.append({"way": way, "why": why})
        progress.write(f"{way}: {why}", file=sys.stderr)
        times.pop(way, None)
        failed = by_way.pop(way, None)
        if failed is not None:
            failed.optimizer.zero_grad()  # its model may be another's too
        del failed
        free_memory()
        return None

    total = (2 + warmup + steps) * len(WAYS)
    with tqdm(total=total, unit=" steps", file=sys.stderr, disable=None) as progress:
        for way in WAYS:
            found = attempt(way, lambda way=way: step_memory(way, setup, step_batch(largest, tokenizer)), progress)
            memory |= {} if found is None else {way: found}
        for way in memory:
            # No name but this holds a step: it has to go where it does not fit.
            by_way.update(attempt(way, lambda way=way: {way: Step(way, setup, _shared(way, by_way))}, progress) or {})
        times |= {way: [] for way in by_way}
        for index in range(-warmup, steps):
            batch = batches[(index + warmup) % len(batches)]
            for way in turns(by_way, index):
                started = time.perf_counter()
                attempt(way, lambda way=way, batch=batch: by_way[way](batch), progress)
                if index >= 0 and way in times:
                    times[way].append(time.perf_counter() - started)
            if index >= 0:
                yield _summary(times, memory, left_out, chunks) | {"rounds": index + 1}


def _shared(way: str, by_way: Mapping[str, Step]) -> Step | None:
    """The step whose model a way takes: two passes are made with ours."""
    return by_way.get("ours") if way == "two_pass" else None


def _summary(
    times: Mapping[str, list[float]],
    memory: Mapping[str, Mapping[str, float]],
    left_out: list[dict[str, str]],
    chunks: Sequence[Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    rows = []
    for way, of_memory in memory.items():
        seconds = times.get(way, [])
        middle, low, high = spread(seconds) if seconds else (None, None, None)
        rows.append(
            {
                "way": way,
                "seconds_per_step": middle,
                "low": low,
                "high": high,
                "samples_per_second": middle and len(chunks[0]) / middle,
                **of_memory,
                "seconds": list(seconds),
            }
        )
    return {
        "rows": rows,
        "ratios": [_ratio(times, memory, *pair) for pair in _RATIOS if memory.keys() >= set(pair)],
        "left_out": list(left_out),
        "batches": len(chunks),
        "tokens_per_step": sum(len(row["input_ids"]) for chunk in chunks for row in chunk) / len(chunks),
        "input_tokens_per_step": sum(row["input_length"] for chunk in chunks for row in chunk) / len(chunks),
    }


def _ratio(
    times: Mapping[str, list[float]], memory: Mapping[str, Mapping[str, float]], above: str, below: str
) -> dict[str, Any]:
    timed = times.keys() >= {above, below}
    middle, low, high = ratio(times, above, below) if timed else (None, None, None)
    peaks = [memory[way]["peak_memory_mb"] for way in (above, below)]
    return {
        "above": above,
        "below": below,
        "time": middle,
        "time_low": low,
        "time_high": high,
        "peak_memory": peaks[0] / peaks[1] if all(peaks) else None,
    }


def step_memory(way: str, setup: StepSetup, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """Memory of a training step, measured in a process of its own."""
    plain = {part: {name: it.tolist() for name, it in tensors.items()} for part, tensors in batch.items()}
    job = {"way": way, "setup": asdict(setup), "batch": plain, "threads": torch.get_num_threads()}
    # Where this package was imported from, installed or not.
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.strip().splitlines()
    last = said[-1] if said else f"exit code {done.returncode}"
    if done.returncode == -9 or out_of_memory(RuntimeError(last)):
        raise MemoryError(f"its process ended with {last if done.returncode != -9 else 'SIGKILL'}")
    raise ValueError(f"the step {way!r} can't be measured: {last}")


def measure_in_this_process() -> None:
    """Read what [`step_memory`] asks from standard input, and print the answer as one line of JSON."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    setup = StepSetup(**job["setup"])
    batch = {part: {name: torch.tensor(it) for name, it in tensors.items()} for part, tensors in job["batch"].items()}
    memory = PeakMemory(setup.torch_device)
    step = Step(job["way"], setup)
    # By their sizes: on a CPU they may lie in a mapped file, and be resident only when they are read.
    weights = sum(it.numel() * it.element_size() for it in step.model.parameters()) / 2**20
    memory.reset()
    for _ in range(_MEMORY_STEPS):
        step(batch)
    print(json.dumps({"weights_memory_mb": weights, "peak_memory_mb": memory.peak()}))
