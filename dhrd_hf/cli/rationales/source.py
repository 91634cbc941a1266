"""What the commands that choose rationales share: a table that is read as often as needed, and its options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def add_table_options(parser: argparse.ArgumentParser, prompt: bool = True) -> None:
    """Add the table, the file to write and the names of the columns."""
    parser.add_argument(
        "data", metavar="FILE", help="the table with the rationales; - is JSON Lines on standard input"
    )
    parser.add_argument("--output", required=True, metavar="OUT", help="the file to write; - is standard output")
    parser.add_argument("--rationale-column", default="rationale", metavar="NAME", help="default: rationale")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="default: label")
    if prompt:
        parser.add_argument(
            "--prompt",
            metavar="TEMPLATE",
            help=r"the text over a row's columns, such as '{premise}\n{hypothesis}'; default: {text}",
        )
        parser.add_argument("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")


class Source:
    """A table, read once to see its columns and labels, and then streamed as often as wanted."""

    def __init__(self, where: str, needed: Iterable[str], label_column: str = "label"):
        from ...data.joining import NamedRows
        from ...data.label_names import label_names
        from ...data.tables import check_columns

        self._rows = NamedRows(where, label_column)
        columns: dict[str, None] = {}
        self.count, self.multi_label, names = 0, False, set()
        for row in self:
            columns.update(dict.fromkeys(row))
            self.count += 1
            names.update(label_names(row.get(label_column)))
            self.multi_label = self.multi_label or isinstance(row.get(label_column), list)
        self.columns: Sequence[str] = list(columns)
        self.labels: Sequence[str] = sorted(names)
        check_columns(self.columns, needed)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return self.count


def write_table(output: str, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> int:
    """Write rows with all the columns that any of them has."""
    from ...data.table_writing import is_flat, write_rows

    return write_rows(output, rows, list(dict.fromkeys(columns)) if is_flat(output) else None)
