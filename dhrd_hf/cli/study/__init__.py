"""`dhrd study`: a study file is run, `report` reports what it found."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from .. import parsing


def run(argv: Sequence[str]) -> int:
    """Run a study, or report one."""
    command, rest = _command(argv)
    return command.run(rest)


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C."""
    command, rest = _command(argv)
    return parsing.after_interrupt(command, rest)


def _command(argv: Sequence[str]) -> tuple[ModuleType, Sequence[str]]:
    """The module that these arguments are for, and what it is given; a file named report is ./report."""
    if argv and argv[0] == "report":
        from . import report

        return report, argv[1:]

    from . import runner

    return runner, argv
