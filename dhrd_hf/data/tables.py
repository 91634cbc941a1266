"""Tables of rows in: what `dhrd train`, `dhrd evaluate` and `dhrd predict` read.

JSON Lines and CSV are not read by `datasets`: an error has to name the file and the line, and pandas, beneath `datasets`, reads
the cells "NA" and "None" as nulls, the labels 0 and 1 beside an empty cell as 0.0 and 1.0, and fills up a line that has too
few fields. Parquet, saved folders and the Hub are left to `datasets`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files import ALIKE, near_path
from .label_names import check_missing, is_missing
from .text_tables import KINDS, SEPARATORS, TableError, encoding_of_others, numbered_rows, tell, workbook_rows

if TYPE_CHECKING:
    import datasets

_SOURCES = (
    "a .jsonl, .json, .csv or .tsv file (also .gz), a .parquet or .xlsx file, a folder written by save_to_disk, "
    "or a Hub data set as user/name, user/name:config or user/name@split"
)
FILE_NAME = re.compile(r"\.(?:(jsonl|json|csv|tsv)(\.gz)?|(parquet|xlsx))$", re.IGNORECASE)
_HUB = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(?::(?P<name>[^@:]+))?(?:@(?P<split>.+))?")
SPLIT_FILE = "split.json"  # in a run's folder: which rows of its table it was not trained on
_OTHER_BOOKS = re.compile(r"\.(xls|xlsm|xlsb|ods|numbers)$", re.IGNORECASE)
# Columns that are often called otherwise, and what then.
_USUAL = {
    "label": "target class category gold sentiment intent topic label_text rating answer y",
    "text": "sentence review content body comment message document question title tweet",
}
_PART = 10_000  # rows of CSV in memory at a time
_PEEKED = 1000  # rows of JSON by whose keys columns are known
_LABELS_SEEN = 20_000  # rows whose labels are looked at before anything heavy is imported


class _Source(NamedTuple):
    kind: str  # "jsonl", "json", "csv", "tsv", "parquet", "xlsx", "folder", "split" or "hub"
    where: str
    split: str | None
    name: str | None


def load_table(source: str | Path, *, split: str | None = None, name: str | None = None) -> datasets.Dataset:
    """Read a whole table into a `datasets.Dataset`.

    A key that a JSON row lacks, and an empty CSV cell, is None. A number says in a prompt what it says there when
    [`iter_rows`] reads it. So a CSV column is made of numbers if all its cells are numbers as Python writes them, and of
    text otherwise: "NA", "None" and "007" stay text, and so does a column with 12.50 in it, or with 3000 beside 12.5. A
    JSON column of whole numbers and others, too, is text: "3000" and "12.5".
    """
    import datasets

    found = _locate(source, split, name)
    if found.kind == "split":
        return _open_split(found)
    if found.kind in ("folder", "hub"):
        dataset = _open_dataset(found)
    elif found.kind == "parquet":
        _open_parquet(found.where)  # the error of this is one line; that of from_parquet is not
        try:
            dataset = datasets.Dataset.from_parquet(found.where)
        except datasets.exceptions.DatasetGenerationError as error:
            raise TableError(f"{found.where} has a page that can't be read: {error.__cause__ or error}") from error
    else:
        known = None
        if found.where != "-":  # else `datasets` would copy the whole table to know it again
            with open(found.where, "rb") as file:
                digest = hashlib.file_digest(file, "blake2b").hexdigest()
            known = datasets.fingerprint.Hasher.hash([digest, found.kind, found.split, encoding_of_others()])
        table = _csv_table(found) if found.kind in SEPARATORS else _arrow_table(found)
        dataset = datasets.Dataset(table, fingerprint=known)
    if len(dataset) == 0:
        raise TableError(f"{found.where} holds no rows")
    return dataset


def iter_rows(source: str | Path, *, split: str | None = None, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a table in order, a small batch of them in memory at a time."""
    found = _locate(source, split, name)
    if found.kind == "split":
        rows = _open_split(found)
    elif found.kind in ("folder", "hub"):
        rows = _open_dataset(found, streaming=True)
    elif found.kind == "parquet":
        rows = _parquet_rows(_open_parquet(found.where), found.where)
    else:
        rows = (row for _, row in _numbered_rows(found))
    return _not_empty(rows, found.where)


def _not_empty(rows: Iterable[Any], where: str) -> Iterator[Any]:
    row = None
    for row in rows:
        yield row
    if row is None:
        raise TableError(f"{where} holds no rows")


def check_columns(column_names: Iterable[str], needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Check that a table has the columns that are needed, each under one spelling only."""

    def fold(name: str) -> str:
        return re.sub(r"^(label|rationale)s$", r"\1", re.sub(r"[\s_-]", "", name.casefold()))

    names, needed, optional = list(column_names), list(needed), list(optional)
    missing = []
    for want in needed + optional:
        alike = [name for name in names if name not in needed + optional and fold(name) == fold(want)]
        if want in names and alike:
            raise TableError(f"columns {want!r} and {alike[0]!r} are spelt almost alike: rename or remove one of them")
        if want not in names and (want in needed or alike):
            near = alike or difflib.get_close_matches(want, names, n=1, cutoff=ALIKE)
            usual = [name for name in names if name.casefold() in _USUAL.get(want, "").split()]
            option = "--label-column {}" if want == "label" else "--prompt '{{{}}}'"
            said = f"{usual[0]!r} ({option.format(usual[0])})" if usual else ""
            hint = f": did you mean {repr(near[0]) if near else said}?" if near or usual else "."
            missing.append(f"no column {want!r}{hint}")
    if missing:
        raise TableError(f"{' And '.join(missing)} The table has: {', '.join(map(repr, names)) or 'no columns'}")


def peek_columns(source: str | Path) -> tuple[list[str], bool] | None:
    """The columns of a table by its beginning, and whether that is all of them; None of what can't be read in a moment."""
    found = _locate(source, None, None)
    if found.kind == "hub" or str(source) == "-":
        return None
    if found.kind == "split":
        return peek_columns(json.loads((Path(found.where) / SPLIT_FILE).read_text("utf-8"))["table"])
    if found.kind == "folder":
        features = next(iter(sorted(Path(found.where).glob("**/dataset_info.json"))), None)
        return None if features is None else (list(json.loads(features.read_text("utf-8"))["features"]), True)
    if found.kind == "parquet":
        return _open_parquet(found.where).schema_arrow.names, True
    rows = [row for _, row in islice(_not_empty(_numbered_rows(found), found.where), _PEEKED)]
    return list(dict.fromkeys(name for row in rows for name in row)), found.kind in SEPARATORS or len(rows) < _PEEKED


def check_table(source: str, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise on a table that is not there or whose beginning lacks a column; several ranks agree on that later, and say it once."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or (found := peek_columns(source)) is None:
        return
    names, all_of_them = found
    needed = list(needed)
    seen = needed if all_of_them else [name for name in needed if name in names]
    try:
        check_columns(names, seen, optional if all_of_them else ())
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def check_labelled(source: str, column: str) -> None:
    """Raise on a file of which one of the first rows has no label, and say how many have none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or not FILE_NAME.search(source):
        return
    rows = (row.get(column) for row in iter_rows(source))
    first = list(map(is_missing, islice(rows, _LABELS_SEEN)))
    if any(first):
        lacks = [*first, *map(is_missing, rows)]
        missing = [number for number, it in enumerate(lacks) if it]
        check_missing(missing, len(lacks), f"{source}, column {column!r}", False, tell)


def table_name(source: str | Path) -> str:
    """The name of a table, for others to read: of a file or a folder its last part, of a Hub data set all of it."""
    found = _locate(source, None, None)
    where = found.where if found.kind == "hub" else Path(found.where).resolve().name
    return f"{where}{f':{found.name}' if found.name else ''}{f'@{found.split}' if found.split else ''}"


def same_table(one: str | Path, other: str | Path) -> bool:
    """Whether two sources are one table, however they are spelt; the rows are not read."""
    sources = [_locate(source, None, None) for source in (one, other)]
    here = [it if it.kind == "hub" else it._replace(where=str(Path(it.where).resolve())) for it in sources]
    return here[0] == here[1]


def _locate(source: str | Path, split: str | None, name: str | None) -> _Source:
    text = str(source)
    if text == "-":
        return _Source("jsonl", "-", None, None)
    path = Path(text).expanduser()
    if not path.exists() and "@" in text and Path(text.rpartition("@")[0]).expanduser().exists():
        text, _, split = text.rpartition("@")
        path = Path(text).expanduser()
    file = FILE_NAME.search(path.name)
    if path.is_dir():
        if (path / SPLIT_FILE).is_file():
            if split not in ("train", "eval"):
                whose = f"{path}@train, trained on, and {path}@eval, held out"
                raise TableError(f"{path} is a run, whose rows are {whose}")
            return _Source("split", str(path), split, None)
        if not any((path / marker).exists() for marker in ("state.json", "dataset_dict.json")):
            raise TableError(f"{path} is a folder that save_to_disk did not write: name one of the files in it")
        return _Source("folder", str(path), split, None)
    if path.exists():
        if _OTHER_BOOKS.search(path.name):
            raise TableError(f"can't read {path}: save it as .xlsx, or as CSV UTF-8")
        if not file:
            raise TableError(f"can't read {path}: expected {_SOURCES}")
        if file[3] and file[3].lower() == "xlsx" and not name:
            return _Source("xlsx", str(path), split, None)
        if split or name:
            raise TableError(f"{path} is one file, which has no split or configuration: leave {split or name!r} out")
        return _Source((file[1] or file[3]).lower(), str(path), None, None)
    hub = _HUB.fullmatch(text)
    if hub and not file and not text.startswith("."):
        return _Source("hub", hub["path"], split or hub["split"], name or hub["name"])
    raise TableError(f"no such file or folder: {path}{near_path(path)} A table is {_SOURCES}")


def _open_split(found: _Source) -> datasets.Dataset:
    from .splits import open_split

    return open_split(found.where, str(found.split))


def _open_dataset(found: _Source, streaming: bool = False) -> datasets.Dataset | datasets.IterableDataset:
    import datasets

    where, folder = found.where, found.kind == "folder"
    hub = {"name": found.name, "split": found.split, "streaming": streaming}
    try:
        opened = datasets.load_from_disk(where) if folder else datasets.load_dataset(where, **hub)
    # The Hub fails in many ways (network, access, unknown name, broken files), with as many exception classes.
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        what = "is a folder that" if folder else "is no file or folder here, and as a Hub data set it"
        raise TableError(f"{where} {what} can't be read: {reason}") from error
    if isinstance(opened, dict):  # DatasetDict and IterableDatasetDict
        chosen = found.split or (next(iter(opened)) if len(opened) == 1 else None)
        if chosen not in opened:
            what = f"no split {chosen!r} in {where}" if chosen else f"{where} has several splits"
            raise TableError(f"{what}: choose one of {', '.join(opened)}, as in {where}@{next(iter(opened))}")
        return opened[chosen]
    if folder and found.split:
        raise TableError(f"{where} is one data set, which has no splits: leave {found.split!r} out")
    return opened


def _open_parquet(where: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(where)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{where} is not a Parquet file that can be read: {error}") from error
    if file.metadata.num_rows == 0:  # which Dataset.from_parquet can't read
        raise TableError(f"{where} holds no rows")
    return file


def _parquet_rows(file: Any, where: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    row = 0
    try:
        for batch in file.iter_batches(batch_size=1000):
            yield from batch.to_pylist()
            row += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{where} has a page that can't be read, behind row {row}: {error}") from error


def _numbered_rows(found: _Source) -> Iterator[tuple[str, dict[str, Any]]]:
    if found.kind == "xlsx":
        return workbook_rows(found.where, found.split)
    return numbered_rows(found.where, found.kind)


def _checked_rows(found: _Source) -> Iterator[dict[str, Any]]:
    """The rows of a file, each of whose columns is of one kind."""
    seen: dict[str, tuple[str, str]] = {}  # column: the kind of its first value, and where that stands
    for place, row in _numbered_rows(found):
        for column, value in row.items():
            kind = KINDS.get(type(value))
            first, where = seen.setdefault(column, (kind, place)) if kind else (None, place)
            if kind != first:
                raise TableError(f"{found.where}, {place}: column {column!r} is {kind} here, and {first} on {where}")
        yield row


def _arrow_table(found: _Source) -> Any:
    """A file of rows whose types are its own; the type of a column is known when all rows were read."""
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    rows = _checked_rows(found)
    kinds: dict[str, set[type]] = defaultdict(set)

    def parts() -> Iterator[Any]:
        while part := list(islice(rows, _PART)):
            names = dict.fromkeys(name for row in part for name in row)
            columns = {name: [row.get(name) for row in part] for name in names}
            for name, cells in columns.items():
                kinds[name].update(here := set(map(type, cells)))
                with _of_one_type(found, name):
                    arrays[name] = pa.array(_as_text(cells) if {int, float} <= here else cells)
            yield pa.table({name: arrays[name] for name in names})

    tables = _mapped(parts())
    for name in dict.fromkeys(name for table in tables for name in table.column_names):
        with _of_one_type(found, name):
            schemas = [pa.schema([table.schema.field(name)]) for table in tables if name in table.column_names]
            mixed = {int, float} <= kinds[name]
            kind = pa.string() if mixed else pa.unify_schemas(schemas, promote_options="permissive").field(name).type
            chunks = []
            for table in tables:
                array = table[name] if name in table.column_names else pa.chunked_array([pa.nulls(len(table))])
                if array.type != kind:
                    cells = array.to_pylist()
                    array = pa.chunked_array([pa.array(_as_text(cells) if mixed else cells, kind)])
                chunks += array.chunks
            arrays[name] = pa.chunked_array(chunks, kind)
    return pa.table(arrays)


@contextmanager
def _of_one_type(found: _Source, column: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise TableError(f"{found.where}: column {column!r} can't be made into one type: {error}") from error


def _as_text(cells: list[Any]) -> list[str | None]:
    """The numbers of a JSON column with whole ones among others, which as floats would read "3000.0"."""
    return [None if cell is None else str(cell) for cell in cells]


def _csv_table(found: _Source) -> Any:
    import pyarrow as pa

    rows = (row for _, row in _numbered_rows(found))

    def parts() -> Iterator[Any]:
        while part := list(islice(rows, _PART)):
            yield pa.table({name: pa.array([row[name] for row in part], pa.string()) for name in part[0]})

    tables = _mapped(parts())
    table = pa.concat_tables(tables) if tables else pa.table({})
    return pa.table({name: _csv_numbers(table[name]) for name in table.column_names})


def _mapped(parts: Iterator[Any]) -> list[Any]:
    """Tables of any number: one is in memory, more are in a file of Arrow's that no name is left of."""
    import datasets
    import pyarrow as pa

    head = list(islice(parts, 2))
    if len(head) < 2:
        return head
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".arrow", dir=folder)
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as file:
            for part in chain(head, parts):
                with pa.ipc.new_stream(file, part.schema) as writer:
                    writer.write_table(part)
        file, found = pa.memory_map(name), []
        while file.tell() < file.size():
            found.append(pa.ipc.open_stream(file).read_all())
        return found
    finally:
        with suppress(OSError):  # Windows removes no file that is mapped
            os.unlink(name)


def _csv_numbers(array: Any) -> Any:
    """A CSV column as numbers, if each of them is written in Python as its cell is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def match(form: str) -> bool:
        return pc.all(pc.match_substring_regex(array, form)).as_py()

    if array.null_count == len(array):
        return pa.nulls(len(array))
    if match(r"^(0|-?[1-9]\d{0,17})$"):
        return array.cast(pa.int64())
    # The form comes first: "nan" and "inf" are words, though Python reads and writes them as numbers.
    if match(r"^-?\d+(\.\d+)?(e[+-]\d+)?$") and all(
        cell is None or str(float(cell)) == cell for part in array.chunks for cell in part.to_pylist()
    ):
        return array.cast(pa.float64())
    return array
