"""What the benchmarks share: timing in turns, and a report of it. Only ratios within one run are claimed."""

from __future__ import annotations

import json
from pathlib import Path

from dhrd_hf.evaluation.timing import machine, paired, ratio, versions

__all__ = ["machine", "paired", "ratio", "report"]


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
