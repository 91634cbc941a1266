r"""Peak memory of the reasoning loss, forward and backward: the chunked path over the naive one.

Each path runs in a process of its own, and its peak is the resident memory above what was there before the loss. Value
and gradients of the two are compared in one process as well.

    python examples/benchmarks/reasoning_loss_memory.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from paired import report
from peak_memory import PeakMemory

from dhrd_hf.losses import chunked_reasoning_loss, naive_reasoning_loss

HIDDEN = 576  # SmolLM2-135M's


def make(targets: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    """Hidden states, targets and a head of SmolLM2-135M's sizes."""
    torch.manual_seed(0)
    head = torch.nn.Linear(HIDDEN, vocabulary, bias=False)
    hidden = torch.randn(targets, HIDDEN, requires_grad=True)
    return hidden, torch.randint(0, vocabulary, (targets,)), head


def loss_of(path: str, hidden: torch.Tensor, targets: torch.Tensor, head: torch.nn.Linear) -> torch.Tensor:
    """The summed loss by one of the two paths."""
    if path == "naive":
        return naive_reasoning_loss(hidden, targets, head)
    return chunked_reasoning_loss(hidden, targets, head, linear=head, vocab_size=head.out_features)


def measure(path: str, targets: int, vocabulary: int) -> None:
    """Print the peak in bytes and the seconds of one path."""
    inputs = make(targets, vocabulary)
    loss_of(path, *make(8, 64)).backward()  # threads and kernels are there before the measurement
    memory = PeakMemory(torch.device("cpu"))
    memory.reset()
    started = time.perf_counter()
    loss_of(path, *inputs).backward()
    print(memory.peak() * 2**20, time.perf_counter() - started)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=("naive", "chunked"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the result to")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.targets, args.vocabulary)
        return

    found: dict[str, list[tuple[float, float]]] = {"naive": [], "chunked": []}
    for _ in range(args.rounds):
        for path in found:
            sizes = ["--targets", str(args.targets), "--vocabulary", str(args.vocabulary)]
            printed = subprocess.run(
                [sys.executable, __file__, "--measure", path, *sizes], check=True, capture_output=True, text=True
            ).stdout
            peak, seconds = (float(value) for value in printed.split())
            found[path].append((peak, seconds))

    gradients = {}
    for path in found:
        hidden, targets, head = make(args.targets, args.vocabulary)
        loss = loss_of(path, hidden, targets, head)
        loss.backward()
        gradients[path] = {"value": loss.detach(), "hidden": hidden.grad, "weight": head.weight.grad}
    apart = {
        name: ((gradients["chunked"][name] - value).norm() / value.norm()).item()
        for name, value in gradients["naive"].items()
    }

    def middle(path: str, index: int) -> float:
        return sorted(entry[index] for entry in found[path])[args.rounds // 2]

    report(
        f"Reasoning loss of {args.targets} targets over {args.vocabulary} words, forward and backward",
        "python examples/benchmarks/reasoning_loss_memory.py",
        [
            ("peak memory, chunked / naive", f"{middle('chunked', 0) / middle('naive', 0):.3f}"),
            (
                "peak memory, naive and chunked",
                f"{middle('naive', 0) / 2**20:.0f} and {middle('chunked', 0) / 2**20:.0f} MiB",
            ),
            ("time, chunked / naive", f"{middle('chunked', 1) / middle('naive', 1):.2f}"),
            (
                "relative difference of value, hidden and weight gradients",
                ", ".join(f"{v:.1e}" for v in apart.values()),
            ),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
