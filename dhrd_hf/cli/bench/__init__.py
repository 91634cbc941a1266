"""`dhrd bench`: finds the command behind it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..parsing import Parser, find_command

COMMANDS = {
    "throughput": "rows a second of a classifier: pooled, exported, and decoding its answers",
    "train": "time and memory of a training step, beside the plain ones and the two-pass way",
}
_EXAMPLES = """examples:
  dhrd bench throughput --model runs/first --data dev.jsonl --output throughput.json
  dhrd bench train --model smollm2 --data train.jsonl --output step.json

Each command has its own help: dhrd bench throughput --help
"""


def run(argv: Sequence[str]) -> int:
    """Run one of the benchmarks.

    Args:
        argv (`Sequence[str]`): The arguments behind `dhrd bench`.

    Returns:
        `int`: the command's exit code.

    Raises:
        ValueError, OSError: as the command.
    """
    width = max(map(len, COMMANDS))
    parser = Parser(
        prog="dhrd bench",
        usage="dhrd bench COMMAND ...",
        description="Benchmarks on your own machine, model and rows.\n\ncommands:\n"
        + "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    argv = list(argv) or ["--help"]
    if argv[0].startswith("-"):
        parser.parse_args(argv)
    return find_command(argv, COMMANDS, __package__, "dhrd bench").run(argv[1:])


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C.

    Args:
        argv (`Sequence[str]`): The arguments.

    Returns:
        `str`: what the command behind it says.
    """
    return find_command(argv, COMMANDS, __package__, "dhrd bench").after_interrupt(argv[1:])
