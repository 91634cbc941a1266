"""What the benchmarks share: timing in turns, and a report of it. Only ratios within one run are claimed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dhrd_hf.evaluation.timing import machine, spread, turns, versions

__all__ = ["machine", "paired", "ratio", "report", "spread"]


def paired(variants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds that each of some functions takes in each round; all of them run in every round, the warm-up's too."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(-warmup, rounds):
        for name in turns(variants, index):
            started = time.perf_counter()
            variants[name]()
            if index >= 0:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: Mapping[str, Sequence[float]], above: str, below: str) -> tuple[float, float, float]:
    """Median, least and greatest over the rounds of one's time divided by another's in the same round."""
    return spread([a / b for a, b in zip(times[above], times[below], strict=True)])


def report(title: str, command: str, rows: list[tuple[str, str]], output: Path | None) -> None:
    """Print a result, and add it to a JSON Lines file where one is given.

    Args:
        title: what was measured.
        command: what to type to measure it again.
        rows: name and value of each figure.
        output: the file, or None.
    """
    said = f"{machine()}; {', '.join(f'{name} {number}' for name, number in versions().items())}"
    print(f"\n{title}\n{said}\n$ {command}")
    for name, value in rows:
        print(f"  {name:<58} {value}")
    if output is not None:
        with output.open("a") as file:
            file.write(json.dumps({"title": title, "machine": said, "command": command, **dict(rows)}) + "\n")
