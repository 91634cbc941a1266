"""Timing in pairs: what is compared runs in turn, in one process, and only ratios of medians are claimed."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path


def paired(variants: dict[str, Callable[[], None]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each variant in each round; the variants take turns, so a drift of the machine meets all of them.

    Args:
        variants: name to function.
        rounds: number of measured rounds.
        warmup: number of rounds before them.

    Returns:
        Name to its `rounds` times, in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(-warmup, rounds):
        # Forwards and backwards in turn: none is always the one that follows a given other.
        for name, function in list(variants.items())[:: -1 if index % 2 else 1]:
            started = time.perf_counter()
            function()
            if index >= 0:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> tuple[float, float, float]:
    """Median, minimum and maximum over the rounds of the time of `above` divided by that of `below`.

    Args:
        times: as `paired` returns them.
        above: name of one variant.
        below: name of the other.

    Returns:
        Median, minimum and maximum.
    """
    ratios = [a / b for a, b in zip(times[above], times[below], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def machine() -> str:
    """One line: processor count, architecture, and the versions that matter.

    Returns:
        The line.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {packages}"


def report(title: str, command: str, rows: list[tuple[str, str]], output: Path | None) -> None:
    """Print a result, and add it to a JSON Lines file where one is given.

    Args:
        title: what was measured.
        command: what to type to measure it again.
        rows: name and value of each figure.
        output: the file, or None.
    """
    print(f"\n{title}\n{machine()}\n$ {command}")
    for name, value in rows:
        print(f"  {name:<58} {value}")
    if output is not None:
        with output.open("a") as file:
            file.write(json.dumps({"title": title, "machine": machine(), "command": command, **dict(rows)}) + "\n")
