"""The requests to a teacher and its replies on disk: a file of JSON lines that only grows, and that no kill can spoil.

A line with `sent` is written before a request is sent, one with `reply` (or `failed`: why it can't be used) when its
answer is there, and one with `void` where the request is known to have cost nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SYNC = 0.2  # seconds between two fsyncs: what a power failure may take; a kill takes nothing


class Journal:
    """Lines that are with the system when `append` returns, and on the disk soon after."""

    def __init__(self, path: Path):
        self.path = path
        self.error: OSError | None = None
        self.torn = self.unreadable = 0
        self._file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        try:
            self._lock()
            self._repair()
        except BaseException:
            self._file.close()
            raise
        self._size = self._file.seek(0, os.SEEK_END)
        self._reader: BinaryIO | None = None
        self._dirty, self._closing = False, threading.Event()
        self._thread = threading.Thread(target=self._sync, name="journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All that is there, in order, with the places of the lines."""
        self.unreadable, place = 0, 0
        with open(self.path, "rb") as file:
            for line in file:
                record = _parsed(line)
                if record is None:
                    self.unreadable += 1
                else:
                    yield place, record
                place += len(line)

    def read(self, place: int) -> dict[str, Any]:
        """The line that begins at a place."""
        if self._reader is None:
            self._reader = open(self.path, "rb")  # noqa: SIM115 (closed by `close`)
        self._reader.seek(place)
        return json.loads(self._reader.readline())

    def append(self, record: dict[str, Any]) -> int:
        """Write a line; its place."""
        if self.error is not None:
            raise self.error
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            write_all(self._file, line)
        except OSError as error:  # the disk is full, for one: a line that is half there was never there
            self.error = error
            with suppress(OSError):  # else the next run repairs it
                os.ftruncate(self._file.fileno(), self._size)
            raise
        self._dirty = True
        self._size += len(line)
        return self._size - len(line)

    def clear(self) -> None:
        """Forget all that is there."""
        self._file.truncate(0)
        self._size = 0

    def close(self) -> None:
        """Put what is left on the disk, and let go of the file."""
        self._closing.set()
        self._thread.join()
        self._to_disk()
        for file in (self._reader, self._file):
            if file is not None:
                file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is writing {self.path}: wait for it, or name another --output"
            ) from None

    def _repair(self) -> None:
        """Cut off a last line without its end."""
        size = self._file.seek(0, os.SEEK_END)
        whole, step = size, 1 << 16
        while whole > 0:
            begin = max(0, whole - step)
            self._file.seek(begin)
            end = self._file.read(whole - begin).rfind(b"\n")
            if end >= 0:
                whole = begin + end + 1
                break
            whole = begin
        if whole < size:
            self.torn = size - whole
            self._file.truncate(whole)

    def _sync(self) -> None:
        while not self._closing.wait(_SYNC):
            self._to_disk()

    def _to_disk(self) -> None:
        if self._dirty:
            self._dirty = False
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self.error = self.error or error


def write_all(file: BinaryIO, data: bytes) -> None:
    """Unbuffered, so that nothing waits in a buffer for a disk that is full."""
    while data:
        data = data[file.write(data) :]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
