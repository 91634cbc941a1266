"""Text files of rows: their encoding, their separator, and the place where each row begins.

CSV is read by Python's own `csv`, strictly: pyarrow and pandas take an open quote for the rest of the file, fill up or drop
what is ragged, and guess what a cell means. What is guessed here is how a file is written, never what a cell says, and told.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext, suppress
from contextvars import ContextVar
from itertools import chain, islice
from pathlib import Path
from typing import Any

SEPARATORS = {"csv": ",", "tsv": "\t"}
KINDS = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'"}
# What pandas writes for an empty cell, NaN, is an empty cell.
_JSON = json.JSONDecoder(parse_constant=lambda name: None if name == "NaN" else float(name))
_LONGEST_CELL = 2**31 - 1  # characters; the most that csv takes on every platform, whose own limit is 131,072
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_HEAD = 1 << 16  # bytes by which it is seen how a file is written
_SAMPLE = 50  # rows by which its separator is
_encoding: ContextVar[str | None] = ContextVar("encoding", default=None)
_told: ContextVar[Any] = ContextVar("told", default=None)


class TableError(ValueError):
    """A table cannot be read or written: the message says where, what was found and what was expected."""


def reading(encoding: str | None = None, say: Any = None) -> None:
    """Set for this process how text files that are not in UTF-8 are read, and who is told, once, how a file was."""
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise TableError(
                f"--encoding {encoding} is none that Python knows: say one such as cp1252, gb18030 or shift_jis"
            ) from None
    _encoding.set(encoding)
    if say is not None:
        seen: set[str] = set()
        _told.set(lambda line: None if line in seen or seen.add(line) else say(line))


def encoding_of_others() -> str | None:
    return _encoding.get()


def tell(line: str) -> None:
    say = _told.get()
    if say is not None:
        say(line)


# Lines


def _lines(where: str) -> Iterator[str]:
    """The lines of a text file, of which only a newline ends one; of an old Mac's a carriage return."""
    number = 0
    try:
        opened = gzip.open if where.lower().endswith(".gz") else open
        # Of standard input what is beneath its buffer, which would wait until it is full.
        stdin = nullcontext(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)) if where == "-" else None
        with stdin or opened(where, "rb") as raw:
            file = io.BufferedReader(raw, _HEAD)
            try:
                head = file.peek(_HEAD)
                codec = _codec(where, head)
                old_mac = b"\n" not in head and b"\r" in head
                if codec.startswith(("utf-16", "utf-32")):
                    text = io.TextIOWrapper(file, codec, newline="\r" if old_mac else "\n")
                    try:
                        for number, line in enumerate(text, 1):  # noqa: B007
                            yield line
                    finally:
                        text.detach()
                    return
                lines = io.BytesIO(file.read().replace(b"\r", b"\n")) if old_mac else file
                for number, line in enumerate(lines, 1):
                    yield line.decode("utf-8-sig" if number == 1 and codec == "utf-8" else codec)
            finally:
                file.detach()  # else it would close standard input
    except UnicodeDecodeError as error:
        raise TableError(_undecodable(where, number, error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{where}: can't be read past line {number}: {error}") from error


def _codec(where: str, head: bytes) -> str:
    """How a file is encoded: as its mark or its zeros say, else UTF-8, or where it is not that, as `--encoding` says."""
    marked = next((codec for mark, codec in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None:
        return "utf-8" if marked == "utf-8-sig" else marked
    # Text whose characters take two bytes has a zero beside each blank, letter and comma.
    if len(head) > 3 and head[1::2].count(0) > 0.4 * (len(head) // 2):
        return "utf-16-le"
    if len(head) > 3 and head[::2].count(0) > 0.4 * (len(head) // 2):
        return "utf-16-be"
    encoding = _encoding.get()
    return "utf-8" if encoding is None or (where != "-" and _is_utf8(where)) else encoding


def _is_utf8(where: str) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with (gzip.open if where.lower().endswith(".gz") else open)(where, "rb") as file:
        try:
            while part := file.read(1 << 20):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _undecodable(where: str, number: int, error: UnicodeDecodeError) -> str:
    """What to do about bytes that are no text in UTF-8, or in what the user said that they are in."""
    place = f"{where}, line {max(number, 1)}"
    if not error.encoding.startswith("utf-8") and not error.encoding.startswith("utf8"):
        return f"{place}: not {error.encoding} text ({error.reason}); name another encoding, or save the file as UTF-8"
    said = f"{place}: not UTF-8 text ({error.reason})"
    guess = _likely(bytes(error.object))
    if guess is None:
        return f"{said}; save the file as UTF-8, or name its encoding, such as --encoding cp1252"
    codec, text = guess
    return f"{said}. Read as {codec} it says {text!r}: if that is right add --encoding {codec}, else save the file as UTF-8"


def _likely(line: bytes) -> tuple[str, str] | None:
    """A legacy encoding in which a line is text, and the words around its first odd byte."""
    from charset_normalizer import from_bytes

    for codec in ("cp1252", *(str(it.encoding) for it in from_bytes(line))):
        with suppress(UnicodeDecodeError, LookupError):
            text = line.decode(codec)
            odd = next(place for place, it in enumerate(text) if ord(it) > 127)
            if codec != "cp1252" or all(
                it.isalpha() or it in "€–—‘’“”„…«»°§£ß©®¿¡·½¼¾²³" for it in text if ord(it) > 127
            ):
                around = text[max(0, odd - 20) : odd + 20].strip()
                return codec, around
    return None


# Rows


def numbered_rows(where: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a text file, each with the place where it begins, as errors name it."""
    return _csv_rows(where, kind) if kind in SEPARATORS else _json_rows(where, kind)


def _json_rows(where: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = ((number, line) for number, line in enumerate(_lines(where), 1) if line.strip())
    values: Iterable[tuple[str, Any, str]] = (
        (f"line {number}", _parse(line, where, number), line) for number, line in lines
    )
    if kind == "json":
        values = _json_values(where) or values
    for place, row, text in values:
        if not isinstance(row, dict):
            found = KINDS.get(type(row), "null")
            raise TableError(f"{where}, {place}: a row has to be a JSON object, and this is {found}")
        if kind == "json" and _is_columns(row):
            raise TableError(f"{where} is one object of columns: write a list of rows, or JSON Lines")
        if "\\ud" in text or "\\uD" in text:
            _check_characters(row, f"{where}, {place}")
        yield place, row


def _json_values(where: str) -> Iterable[tuple[str, Any, str]] | None:
    """The rows of a file that is one JSON value over several lines, a list or an object with one; None if it is lines."""
    first = list(islice((line for line in _lines(where) if line.strip()), 2))
    if not first:
        return None
    if not first[0].lstrip().startswith("["):
        with suppress(TableError):
            value = _parse(first[0], where, 1)
            if len(first) > 1 or not isinstance(value, dict) or _list_of_rows(value) is None:
                return None  # lines, or one row
    text = "".join(_lines(where))
    value = _parse(text, where, 1)
    if isinstance(value, dict):
        key = _list_of_rows(value)
        if key is None:
            return [("line 1", value, text)]
        tell(f"{where}: its rows are the list {key!r} of one object.")
        value = value[key]
    return ((f"item {number}", item, text) for number, item in enumerate(value, 1))


def _list_of_rows(value: dict[str, Any]) -> str | None:
    """The key of an object's one list of objects."""
    found = [
        key for key, it in value.items() if isinstance(it, list) and it and all(isinstance(row, dict) for row in it)
    ]
    return found[0] if len(found) == 1 else None


def _is_columns(row: dict[str, Any]) -> bool:
    """Whether an object is a whole table, column by column, as `to_dict("list")` and pandas' `to_json` write it."""
    columns = list(row.values())
    return any(
        all(isinstance(it, kind) for it in columns) and len({len(it) for it in columns}) == 1 for kind in (list, dict)
    )


def _check_characters(row: dict[str, Any], place: str) -> None:
    r"""Raise on half of a character, such as the `\ud83d` of an emoji that was cut in two: no file and no tokenizer takes it."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.start + 1]
        raise TableError(
            f"{place}: {half!r} is half of a character, as where an emoji was cut in two: remove it"
        ) from None


def _parse(text: str, where: str, line: int) -> Any:
    try:
        return _JSON.decode(text.rstrip())
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}"
        raise TableError(f"{where}, {place}: not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError:
        raise TableError(f"{where}, line {line}: lists or objects lie too deep in each other to be read") from None


def _csv_rows(where: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # One limit for all readers, looked up at each cell: it is raised and left so, never lowered under another's feet.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    lines = _lines(where)
    sample = list(islice(lines, 4 * _SAMPLE))
    delimiter = _separator(sample, SEPARATORS[kind])
    if delimiter != SEPARATORS[kind]:
        tell(f"{where}: {_SEPARATOR_NAMES[delimiter]} separate its fields.")
    reader = csv.reader(chain(sample, lines), delimiter=delimiter, strict=True)
    header, before = None, 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num  # a quoted cell may run over several lines
            if not cells:
                continue
            if header is None:
                header = header_of(cells, f"{where}, line {line}")
            elif len(cells) != len(header):
                found = f"{len(cells)} fields, and the header has {len(header)}: {', '.join(header)}"
                raise TableError(f'{where}, line {line}: {found}; put "..." around a field that holds a {delimiter!r}')
            else:
                yield f"line {line}", dict(zip(header, (cell or None for cell in cells), strict=True))
    except csv.Error as error:
        raise TableError(f"{where}, line {before + 1}: the row that begins here is not CSV: {error}") from error


def header_of(cells: Iterable[Any], place: str) -> list[str]:
    """The names of columns, each once; one without a name, such as the index that pandas writes, is called as pandas does."""
    header = [str(cell) if cell not in (None, "") else f"Unnamed: {number}" for number, cell in enumerate(cells)]
    if len(set(header)) < len(header):
        raise TableError(f"{place}: the header has one name twice: {', '.join(header)}")
    return header


def _separator(sample: list[str], usual: str) -> str:
    """What stands between the fields: the usual character, unless with another alone the first rows are all as wide as the header."""

    def widths(delimiter: str) -> list[int]:
        with suppress(csv.Error):
            rows = [cells for cells in islice(csv.reader(sample, delimiter=delimiter), _SAMPLE) if cells]
            return [len(cells) for cells in rows[: -1 if len(rows) > 2 else None]]  # the last may be cut off here
        return []

    def fits(delimiter: str) -> bool:
        found = widths(delimiter)
        return bool(found) and found[0] > 1 and len(set(found)) == 1

    if fits(usual):
        return usual
    return next((it for it in _SEPARATOR_NAMES if it != usual and fits(it)), usual)


# Workbooks


def workbook_rows(path: str, sheet: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a sheet of an .xlsx file, by default its first."""
    name = Path(path).name
    try:
        import openpyxl
    except ImportError:
        raise TableError(
            f"{path} is a workbook, which openpyxl reads: pip install 'dhrd-hf[excel]'. Or save it as CSV UTF-8"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # of zipfile, of openpyxl, of an XML parser
        raise TableError(f"{path} is not an .xlsx workbook that can be read: {error}") from error
    with closing(book):
        if sheet is not None and sheet not in book.sheetnames:
            raise TableError(f"no sheet {sheet!r} in {path}: choose one of {', '.join(book.sheetnames)}")
        chosen = book[sheet] if sheet is not None else book.worksheets[0]
        if sheet is None and len(book.sheetnames) > 1:
            tell(f"{name}: its first sheet, {chosen.title!r}, is read; {path}@{book.sheetnames[1]} would be the next.")
        header = None
        for number, cells in enumerate(chosen.iter_rows(values_only=True), 1):
            while cells and cells[-1] is None and (header is None or len(cells) > len(header)):
                cells = cells[:-1]  # cells that once had something, or have a colour
            if all(cell is None for cell in cells):
                continue
            if header is None:
                header = header_of(cells, f"{path}, row {number}")
            elif len(cells) > len(header):
                raise TableError(f"{path}, row {number}: {len(cells)} cells, and the header has {len(header)}")
            else:
                yield f"row {number}", dict(zip(header, [*cells, *[None] * (len(header) - len(cells))], strict=True))
