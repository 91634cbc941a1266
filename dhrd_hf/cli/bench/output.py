"""What the benchmarks share: numbers from the command line, the result's file, and a table for people."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark has."""
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        help="the result as JSON, written whole after each round; - is standard output, and the table goes to standard error",
    )


def check_output(path: str | None, data: str | None) -> None:
    """Raise on a file that can't be one, before there is a result to lose."""
    from ...data.table_writing import check_file

    if path not in (None, "-"):
        check_file(path, data)


def at_least(number: int, name: str, least: int = 1) -> None:
    """Raise on a number that is too small."""
    if number < least:
        raise ValueError(f"{name} {number} must be {least} or greater.")


def whole_numbers(text: str, name: str, example: str) -> list[int]:
    """Numbers with commas between them."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{name} {text} must be whole numbers of 1 or greater, such as {name} {example}.")
    return numbers


def with_origin(result: dict[str, Any], prog: str, argv: Sequence[str]) -> dict[str, Any]:
    """A result with the machine, the versions and the command that it came from."""
    from ...evaluation.timing import machine, versions

    words = [f"{name}{equals}{_last_part(value)}" for name, equals, value in (_split(word) for word in argv)]
    return {
        **result,
        "machine": machine(),
        "versions": versions(),
        "command": f"{prog} {shlex.join(words)}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _split(word: str) -> tuple[str, str, str]:
    """`--model=/a/b` as its three parts; any other word is a value."""
    return word.partition("=") if word.startswith("--") and "=" in word else ("", "", word)


def _last_part(value: str) -> str:
    return Path(value).name or value if value.startswith(("/", "~")) else value


def write_result(path: str | None, result: dict[str, Any]) -> None:
    """Write a result to its file, if one was named, whole or not at all."""
    from ...files import strict_json, write_whole

    if path not in (None, "-"):
        write_whole(path, strict_json(result, indent=2, ensure_ascii=False) + "\n")


def show(path: str | None, result: dict[str, Any], *tables: Sequence[Sequence[str]]) -> None:
    """Print a result's tables, and the result itself where it goes to standard output."""
    from ...files import strict_json

    file = sys.stderr if path == "-" else sys.stdout
    for table in tables:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            # Words to the left, numbers to the right.
            cells = [
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(cells).rstrip(), file=file)
    print(f"{result['machine']}\n$ {result['command']}", file=file)
    if path == "-":
        print(strict_json(result))
    elif path is not None:
        print(f"Wrote {path}", file=sys.stderr)


def times(ratio: float | None) -> str:
    """A ratio of speeds for people, who read 1/96 more easily than 0.0104."""
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"
