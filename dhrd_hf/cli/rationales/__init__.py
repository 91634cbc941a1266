"""`dhrd rationales`: finds the command behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import parsing
from ..parsing import commands_parser, find_command

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
    argv = list(argv) or ["--help"]
    if argv[0].startswith("-"):
        about = "Rationales: write them, check them, choose among them."
        commands_parser("dhrd rationales", COMMANDS, about, _EXAMPLES).parse_args(argv)
    return _find(argv).run(argv[1:])


def after_interrupt(argv: Sequence[str]) -> str:
    return parsing.after_interrupt(_find(argv), argv[1:])


def _find(argv: Sequence[str]) -> Any:
    """All commands but one are in one module."""
    from . import tables

    return tables.COMMANDS.get(argv[0]) or find_command(argv, COMMANDS, __package__, "dhrd rationales")
