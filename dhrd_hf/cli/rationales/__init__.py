"""`dhrd rationales`: finds the command behind it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..parsing import Parser, find_command

COMMANDS = {
    "generate": "have a teacher write the rationales of a table with labels",
    "audit": "say what a table's rationales are worth before they are trained on",
    "filter": "drop or repair the rationales that fail a check",
    "select": "keep the best of several rationales of a row",
    "shorten": "cut rationales to a number of tokens, in whole sentences",
    "ablate": "spoil rationales in a known way, to see what they are worth",
}
_EXAMPLES = """examples:
  dhrd rationales generate --data train.jsonl --teacher http://localhost:8000/v1 --output rationales.jsonl
  dhrd rationales audit rationales.jsonl --html audit.html
  dhrd rationales filter rationales.jsonl --output checked.jsonl

Each command has its own help: dhrd rationales audit --help
"""


def run(argv: Sequence[str]) -> int:
    """Run one of the commands on rationales.

    Args:
        argv (`Sequence[str]`): The arguments behind `dhrd rationales`.

    Returns:
        `int`: the command's exit code.

    Raises:
        ValueError, OSError: as the command.
    """
    width = max(map(len, COMMANDS))
    parser = Parser(
        prog="dhrd rationales",
        usage="dhrd rationales COMMAND ...",
        description="Rationales: write them, check them, choose among them.\n\ncommands:\n"
        + "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    argv = list(argv) or ["--help"]
    if argv[0].startswith("-"):
        parser.parse_args(argv)
    return find_command(argv, COMMANDS, __package__, "dhrd rationales").run(argv[1:])


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C.

    Args:
        argv (`Sequence[str]`): The arguments.

    Returns:
        `str`: what the command behind it says.
    """
    return find_command(argv, COMMANDS, __package__, "dhrd rationales").after_interrupt(argv[1:])
