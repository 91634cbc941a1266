"""Rationales that are already there: a file of them, joined to a table's rows by key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .label_names import is_missing, label_names
from .labels import named_rows
from .prompts import rationale_text
from .tables import FILE_NAME, check_columns, iter_rows, load_table

# Where no key is named, it is the first of these that a table has.
KEY_COLUMNS = ("id", "key", "idx")
_WHOLE = re.compile(r"(-?\d+)\.0")
_NAMED = 3  # of many keys at fault, as many are named


@dataclass(frozen=True)
class JoinCounts:
    rows: int = 0
    rationales: int = 0
    joined: int = 0
    unused: int = 0
    empty: int = 0
    replaced: int = 0

    def __str__(self) -> str:
        said = (
            f"{self.joined} of {self.rows} rows have a rationale, {self.rows - self.joined} have none; "
            f"{self.unused} of {self.rationales} rationales belong to no row"
        )
        said += f", {self.empty} are empty" if self.empty else ""
        return said + (f"; {self.replaced} rows lost a rationale that they had" if self.replaced else "")


class NamedRows:
    """A table's rows, streamed in order as often as they are wanted, with the names of a `ClassLabel`.

    A text file says what its labels are called; a saved folder, a Parquet file and a Hub data set may hold ids, and the
    names beside them. Standard input is held in memory.
    """

    def __init__(self, source: str | Path, label_column: str = "label"):
        self._source, self._rows = source, None
        file = FILE_NAME.search(str(source))
        if str(source) == "-":
            self._rows = list(iter_rows(source))
        elif file is None or file[1] is None or Path(source).expanduser().is_dir():
            self._rows = named_rows(load_table(source), label_column)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter_rows(self._source) if self._rows is None else iter(self._rows)


def join_rationales(
    rows: Iterable[Mapping[str, Any]],
    rationales: str | Path | Iterable[Mapping[str, Any]],
    key: str | None = None,
    rationale_key: str | None = None,
    *,
    rationale_column: str = "rationale",
    label_column: str = "label",
) -> tuple[list[dict[str, Any]], JoinCounts]:
    """Give each row of a table the rationale that has its key."""
    where = str(rationales) if isinstance(rationales, (str, Path)) else "the rationale file"
    is_file = isinstance(rationales, (str, Path))
    source = NamedRows(rationales, label_column) if is_file else named_rows(rationales, label_column)
    theirs = [dict(row) for row in source]
    table = [dict(row) for row in named_rows(rows, label_column)]
    columns = _columns(table)
    if key is not None:
        check_columns(columns, [key])
    name = key or key_column(columns)
    their_name = _rationale_key(theirs, where, key, rationale_key, rationale_column)
    if their_name is None:  # as many rows as the table has, in its order
        if len(theirs) != len(table):
            raise ValueError(
                f"{where} has no column of keys to join by ({', '.join(KEY_COLUMNS)}), and {len(theirs)} rows, where the table "
                f"has {len(table)}: name the key with --key. It has: {', '.join(map(repr, _columns(theirs)))}"
            )
        name = None
    found = _by_key(theirs, where, their_name)
    keys = [_key(row, number, name, "the table") for number, row in enumerate(table)]
    _check_once(keys, f"{name!r} of the table")
    matched = [found.get(key) for key in keys]
    hits = sum(it is not None for it in matched)
    if not hits:
        raise ValueError(
            f"{where} belongs to another data set: 0 of its {len(found)} keys (such as {next(iter(found), None)!r}) match "
            f"the {len(keys)} keys of the table (such as {keys[0] if keys else None!r}, from {name or 'the row number'!r})."
        )
    _check_labels(table, matched, keys, label_column, where)
    joined, replaced = 0, 0
    for row, its in zip(table, matched, strict=True):
        rationale = _text(its, rationale_column)
        replaced += _text(row, rationale_column) not in (None, rationale)
        joined += rationale is not None
        row[rationale_column] = rationale
    empty = sum(_text(its, rationale_column) is None for its in found.values())
    return table, JoinCounts(len(table), len(found), joined, len(found) - hits, empty, replaced)


def key_column(column_names: Iterable[str]) -> str | None:
    names = set(column_names)
    return next((name for name in KEY_COLUMNS if name in names), None)


def comparable(value: Any) -> str:
    """A key or a label as text that is the same wherever it was written."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _rationale_key(
    rows: list[dict[str, Any]], where: str, key: str | None, rationale_key: str | None, rationale_column: str
) -> str | None:
    """The column of a rationale file that its rows are joined by, or None for their number."""
    columns = _columns(rows)
    check_columns(columns, [name for name in (rationale_key, rationale_column) if name])
    if key is not None and rationale_key is None and key not in columns and key_column(columns) is None:
        check_columns(columns, [key])
    return rationale_key or (key if key in columns else key_column(columns))


def _by_key(rows: list[dict[str, Any]], where: str, name: str | None) -> dict[str, dict[str, Any]]:
    keys = [_key(row, number, name, where) for number, row in enumerate(rows)]
    _check_once(keys, f"{name!r} of {where}", "; several rationales of a row: choose by dhrd rationales select first")
    return dict(zip(keys, rows, strict=True))


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _key(row: Mapping[str, Any], number: int, name: str | None, where: str) -> str:
    if name is None:
        return str(number)
    value = row.get(name)
    if value is None or value == "" or value != value:
        raise ValueError(f"row {number} of {where} has no {name!r} to join by")
    return comparable(value)


def _check_once(keys: list[str], what: str, hint: str = "") -> None:
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        # A set's add returns None: what is left are the keys that were there already.
        twice = list(dict.fromkeys(key for key in keys if key in seen or seen.add(key)))
        some = ", ".join(map(repr, twice[:_NAMED])) + (", ..." if len(twice) > _NAMED else "")
        raise ValueError(f"{what}: {len(twice)} keys stand more than once, such as {some}{hint}")


def _check_labels(
    table: list[dict[str, Any]], matched: list[dict[str, Any] | None], keys: list[str], column: str, where: str
) -> None:
    pairs = [
        (key, row.get(column), its.get(column)) for key, row, its in zip(keys, table, matched, strict=True) if its
    ]
    both = [(key, ours, theirs) for key, ours, theirs in pairs if not (is_missing(ours) or is_missing(theirs))]
    apart = [
        f"{key!r} ({ours!r} and {theirs!r})"
        for key, ours, theirs in both
        if sorted(label_names(ours)) != sorted(label_names(theirs))
    ]
    if apart:
        raise ValueError(
            f"{len(apart)} of {len(both)} labels differ between the table and {where}: "
            f"{', '.join(apart[:_NAMED])}{', ...' if len(apart) > _NAMED else ''}"
        )


def _text(row: Mapping[str, Any] | None, column: str) -> str | None:
    """A rationale that says something, or None."""
    value = row.get(column) if row else None
    return value if rationale_text(value, f"a rationale, column {column!r},") else None
