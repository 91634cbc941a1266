"""`dhrd rationales`: finds the command behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..parsing import CommandGroup

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


class _Group(CommandGroup):
    """Commands of which all but one share a module."""

    def _find(self, argv: Sequence[str]) -> Any:
        from . import tables

        return tables.COMMANDS.get("".join(argv[:1])) or super()._find(argv)


_GROUP = _Group(
    "dhrd rationales", COMMANDS, __package__, "Rationales: write them, check them, choose among them.", _EXAMPLES
)
run, after_interrupt = _GROUP.run, _GROUP.after_interrupt
