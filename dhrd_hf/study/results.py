"""The table of a study, `results.jsonl`: it grows by whole lines, from several processes at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..files import strict_json


class ResultsTable:
    """The rows of a study's runs, in the order in which they were completed."""

    def __init__(self, path: str | Path, study: str, say: Callable[[str], None] = lambda _: None):
        self.path = Path(path)
        self.study = study
        self.say = say
        # Replaced as one, for several threads read: the rows, and the bytes that they are in, to the end of a line.
        self._known: tuple[list[dict[str, Any]], int] = [], 0

    def read(self) -> list[dict[str, Any]]:
        """The rows that are whole."""
        rows, read_to = self._known
        rows = list(rows)
        if self.path.exists():
            with open(self.path, "rb") as file:
                file.seek(read_to)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            for line in whole.splitlines():
                rows.append(self._row(line, len(rows) + 1))
            self._known = rows, read_to + len(whole)
        return list(rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        line = (strict_json(row, ensure_ascii=False) + "\n").encode()
        with self._lock():
            self._repair()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                written = 0
                try:
                    while written < len(line):
                        written += os.write(descriptor, line[written:])
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    def repair(self) -> None:
        """Take a half-written last line away, and tell; its run is run again."""
        with self._lock():
            self._repair()

    def _repair(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb+") as file:
            text = file.read()
            whole = text.rfind(b"\n") + 1
            if whole == len(text):
                return
            try:
                json.loads(text[whole:])
                file.write(b"\n")  # all of the row is there
            except ValueError:
                file.truncate(whole)
                self.say(
                    f"{self.path}: its last line was half-written ({len(text) - whole} bytes) and is taken away: "
                    "its run is run again"
                )

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} is not a row of a study: {error}") from None
        if not isinstance(row, dict) or not {"study", "cell", "status"} <= row.keys():
            raise ValueError(f"{self.path}, line {number} is not a row of a study: it lacks study, cell or status")
        if row["study"] != self.study:
            raise ValueError(
                f"{self.path} is the table of the study {row['study']!r}, and this one is {self.study!r}: "
                "name another --output-dir"
            )
        return row
