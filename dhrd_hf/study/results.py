"""The table of a study, `results.jsonl`: it grows by whole lines, and is read and checked."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from ..files import strict_json
from .metrics import GROUPED, METRICS, score

_NEEDED = ("study", "cell", "status")
_OF_EVERY_ROW = (*_NEEDED, "model", "data", "setting", "seed")
_OF_DONE_ROWS = (*_OF_EVERY_ROW, "metric", "score", "labels", "predictions", "groups", "train_rows")
Row = Mapping[str, Any]
_Any = TypeVar("_Any")


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass


class ResultsTable:
    """The rows of a study's runs, in the order in which they were completed, by several processes at once."""

    def __init__(self, path: str | Path, study: str, say: Callable[[str], None] = _silent):
        self.path, self.study, self.say = Path(path), study, say

    def read(self) -> list[Row]:
        found = _rows(self.path, self.path.read_bytes()) if self.path.exists() else []
        for row in found:
            if row["study"] != self.study:
                its = f"{self.path} is the table of the study {row['study']!r}, and this one is {self.study!r}"
                raise ValueError(f"{its}: name another --output-dir")
        return found

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, whole or not at all."""
        line = (strict_json(row, ensure_ascii=False) + "\n").encode()
        with self._lock():
            self._repair()
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with open(self.path, "ab") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, size)
                raise

    def repair(self) -> None:
        """Take a half-written last line away, and tell; its run is run again."""
        with self._lock():
            self._repair()

    def _repair(self) -> None:
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text.rfind(b"\n") + 1
        if whole == len(text):
            return
        try:
            json.loads(text[whole:])
            with open(self.path, "ab") as file:
                file.write(b"\n")  # all of the row is there
        except ValueError:
            os.truncate(self.path, whole)
            said = f"its last line was half-written ({len(text) - whole} bytes) and is taken away"
            self.say(f"{self.path}: {said}: its run is run again")

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))


def read_results(paths: Sequence[str | Path], say: Callable[[str], None] = _silent) -> list[Row]:
    """The rows of one results table or several, each checked; a last line that is half there is told and left out."""
    rows: list[Row] = []
    for path in (Path(it).expanduser() for it in paths):
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise ValueError(f"{path} {what}: name a results.jsonl, which dhrd study writes into its --output-dir")
        data = path.read_bytes()
        try:
            data = gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} can't be unpacked: {error}") from None
        found = [{**row, "folder": str(path.parent)} for row in _rows(path, data, say, checked=True)]
        if not found:
            raise ValueError(f"{path} has no rows yet: there is nothing to report")
        studies = list(dict.fromkeys(str(row["study"]) for row in found))
        if len(studies) > 1:
            several = f"{len(studies)} studies ({', '.join(studies)})"
            say(f"{path} has cells of {several}: --where study={studies[0]} takes one.")
        rows += found
    return rows


def _rows(path: Path, data: bytes, say: Callable[[str], None] = _silent, checked: bool = False) -> list[Row]:
    """The rows of a table; those to report have all columns, and nothing wrong in them."""
    found, lines = [], data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            # Without its end: a run that is being written, or was when its process was killed.
            if number == len(lines):
                say(f"{path}: its last line is only half there and is left out.")
                break
            raise ValueError(f"{where} is not a row of a study: {error}") from None
        its = row if isinstance(row, dict) else {}
        needed = _OF_DONE_ROWS if its.get("status") == "done" else _OF_EVERY_ROW
        missing = [name for name in (needed if checked else _NEEDED) if name not in its]
        if missing:
            raise ValueError(f"{where} is not a row of a study: it lacks {', '.join(missing)}")
        wrong = _wrong(row) if checked else None
        if wrong:
            raise ValueError(f"{where} (cell {row['cell']}) {wrong}: it is not what dhrd study wrote")
        found.append(row)
    return found


def _wrong(row: Row) -> str | None:
    """What is wrong with a row that has all columns, in words: whoever reports it would report a wrong number."""
    if row["status"] != "done":
        return None if row["status"] == "failed" else f"has the status {row['status']!r}, and not done or failed"
    if row["metric"] not in METRICS:
        return f"has the metric {row['metric']!r}, and not one of {', '.join(METRICS)}"
    lists = {name: row[name] for name in ("labels", "predictions", "groups")}
    if lists["groups"] is None:
        del lists["groups"]
    for name, its in lists.items():
        if not isinstance(its, list) or not all(isinstance(it, int) for it in its):
            return f"has {name} that are not a list of whole numbers"
        if len(its) != len(row["labels"]):
            return f"has {len(its)} {name} of {len(row['labels'])} rows"
    if not row["labels"]:
        return "has no labels"
    if row["metric"] in GROUPED and row["groups"] is None:
        return f"has no groups, which {row['metric']} is of"
    own = score(row["metric"], row["labels"], row["predictions"], row["groups"])
    if not isinstance(row["score"], (int, float)) or not abs(own - row["score"]) <= 1e-9:  # nor NaN
        return f"has the score {row['score']}, and its predictions have {own:.6f}"
    return None


def together(its: Iterable[_Any], key: Callable[[_Any], Hashable]) -> list[list[_Any]]:
    """What has one key, in the order of the first of each."""
    found: dict[Hashable, list[_Any]] = {}
    for it in its:
        found.setdefault(key(it), []).append(it)
    return list(found.values())
