"""Tables of rows out: what `dhrd predict`, the rationales' commands and a study write, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..files import strict_json, unfinished_beside
from .tables import FILE_NAME
from .text_tables import SEPARATORS, TableError

to_json = partial(
    strict_json, ensure_ascii=False, default=lambda it: it.tolist() if hasattr(it, "tolist") else str(it)
)
_ROW_GROUP, _CELLS = 10_000, 2_000_000  # rows, or cells, held in memory until they are written to a Parquet file


def write_rows(path: str | Path, rows: Iterable[dict[str, Any]], columns: list[str] | None = None) -> int:
    """Write rows as they come to a file that appears whole or not at all, and return how many there were."""
    if str(path) == "-":
        return _write_json(sys.stdout, rows, columns)
    path, kind, compressed = _target(path)
    unfinished = unfinished_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            count = _write_parquet(unfinished, rows, columns)
        else:
            write = _write_json if kind == "jsonl" else partial(_write_csv, delimiter=SEPARATORS[kind])
            with (gzip.open if compressed else open)(unfinished, "wt", encoding="utf-8", newline="") as file:
                count = write(file, rows, columns)
        os.replace(unfinished, path)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        where = "" if error.filename == str(unfinished) else f" ({error.filename})"
        raise TableError(f"can't write {path}: {error.strerror}{where}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return count


def is_flat(path: str) -> bool:
    """Whether a file of rows holds no objects."""
    return path.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".parquet"))


def check_target(path: str | Path, *others: str | Path | None) -> None:
    """Check that [`write_rows`] knows the kind of a file and would not replace another, before there are rows to
    write."""
    if str(path) != "-":
        _target(path)
        check_file(path, *others)


def check_file(path: str | Path, *others: str | Path | None) -> None:
    """Check that a file of any kind would replace no folder and no other file, before there is something to write."""
    if Path(path).expanduser().is_dir():
        raise TableError(f"{path} is a folder: name a file, such as {Path(path) / 'out.json'}")
    for other in others:
        if other is not None and same_file(path, other):
            raise TableError(f"can't write {path}: it is {other} itself, which would be lost. Name another file")


def same_file(one: str | Path, other: str | Path) -> bool:
    first, second = (Path(it).expanduser().resolve() for it in (one, other))
    return first == second or (first.exists() and second.exists() and first.samefile(second))


def _target(path: str | Path) -> tuple[Path, str, bool]:
    path = Path(path).expanduser()
    match = FILE_NAME.search(path.name)
    kind = match and (match[1] or match[3]).lower()
    if kind not in ("jsonl", "csv", "tsv", "parquet") or path.is_dir():
        raise TableError(f"can't write {path}: expected a file .jsonl, .csv, .tsv (also .gz) or .parquet")
    return path, kind, match[2] is not None


def _aligned(rows: Iterable[dict[str, Any]], columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """Rows that all have the same columns: those named, or those of the first row."""
    header = None if columns is None else dict.fromkeys(columns)
    for number, row in enumerate(rows):
        header = dict.fromkeys(row) if header is None else header
        extra = [] if columns is not None else [key for key in row if key not in header]
        if extra:
            raise TableError(f"Row {number} has {extra[0]!r}, which the first row lacks: write .jsonl")
        yield {column: row.get(column) for column in header}


def _write_json(file: Any, rows: Iterable[dict[str, Any]], columns: list[str] | None) -> int:
    chosen = rows if columns is None else _aligned(rows, columns)
    return sum(1 for row in chosen if file.write(to_json(row) + "\n"))


def _write_csv(file: Any, rows: Iterable[dict[str, Any]], columns: list[str] | None, delimiter: str) -> int:
    writer, count = csv.writer(file, delimiter=delimiter, lineterminator="\n"), 0
    for count, row in enumerate(_aligned(rows, columns), 1):
        if count == 1:
            writer.writerow(row)
        nested = {key: to_json(cell) for key, cell in row.items() if isinstance(cell, (list, dict))}
        writer.writerow((row | nested).values())
    if not count and columns:
        writer.writerow(columns)
    return count


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]], columns: list[str] | None) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    aligned, count = _aligned(rows, columns), 0
    batch = list(islice(aligned, 1))
    rows_at_once = max(1, min(_ROW_GROUP, _CELLS // max(1, len(batch[0]) if batch else 1)))
    batch += islice(aligned, rows_at_once - 1)
    table = _typed(batch, 0) if batch else pa.table({column: [] for column in columns or []})
    with pq.ParquetWriter(path, table.schema) as writer:
        while batch:
            writer.write_table(table)
            count += len(batch)
            batch = list(islice(aligned, rows_at_once))
            if batch:
                table = _typed(batch, count, table.schema)
    return count


def _typed(batch: list[dict[str, Any]], count: int, schema: Any = None) -> Any:
    """Rows that come after `count` others as an Arrow table: of the types that they have, and of those of a schema."""
    import pyarrow as pa

    arrays = {}
    for column in batch[0]:
        values = [row[column] for row in batch]
        kinds = {type(value) for value in values} - {type(None)}
        try:
            # Arrow would write true as 1.0, and a time as its day.
            if len(kinds) > 1 and kinds & {bool, date}:
                raise TypeError(f"found {' and '.join(sorted(kind.__name__ for kind in kinds))}")
            array = pa.array(values)
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            said = " ".join(str(error).split())
            place = f"rows {count + 1} to {count + len(batch)}: column {column!r}"
            raise TableError(f"{place} can't be made into one type ({said}): write .jsonl") from error
        kept = array.type if schema is None else schema.field(column).type
        try:
            if not _fits(array.type, kept):
                raise TypeError(f"{array.type}, and before {kept}")
            arrays[column] = array if array.type == kept else pa.array(values, kept)
        except (ValueError, TypeError, OverflowError) as error:
            said = f"{column!r}: {' '.join(str(error).split())}"
            raise TableError(f"after row {count} a column changes its type ({said}): write .jsonl") from error
    return pa.table(arrays)


def _fits(type_: Any, kept: Any) -> bool:
    """Whether Arrow can write what is of one type as another, and drops or rounds nothing where it doesn't refuse."""
    from pyarrow import types

    if types.is_list(type_) and types.is_list(kept):
        return _fits(type_.value_type, kept.value_type)
    if types.is_struct(type_) and types.is_struct(kept):
        known = {field.name: field.type for field in kept}
        return all(field.name in known and _fits(field.type, known[field.name]) for field in type_)
    return (
        type_ == kept
        or types.is_null(type_)
        or (types.is_integer(type_) and (types.is_integer(kept) or types.is_floating(kept)))
        or (types.is_floating(type_) and types.is_floating(kept) and type_.bit_width <= kept.bit_width)
        or (types.is_decimal(type_) and types.is_decimal(kept))
    )
