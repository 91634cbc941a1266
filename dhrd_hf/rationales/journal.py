"""The replies of a teacher on disk: a file of JSON lines that only grows, and that a kill at any moment can't spoil."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Journal:
    """Raw replies, appended and fsynced by a thread of its own, so that the disk never holds up the requests."""

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
        self._tail: BinaryIO | None = None
        self._reader: BinaryIO | None = None
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All that is on disk, in order."""
        self.unreadable, offset = 0, 0
        with open(self.path, "rb") as file:
            for line in file:
                record = _parsed(line)
                if record is None:
                    self.unreadable += 1
                else:
                    yield offset, record
                offset += len(line)

    def read(self, offset: int) -> dict[str, Any]:
        """The line that begins at a place."""
        if self._reader is None:
            self._reader = open(self.path, "rb")  # noqa: SIM115 (closed by `close`)
        self._reader.seek(offset)
        return json.loads(self._reader.readline())

    def follow(self, output: Path) -> None:
        """Append to a second file as well, from now on: what `append` gets as `row`, once the reply is on disk."""
        self._tail = open(output, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)

    def append(
        self,
        record: dict[str, Any],
        row: str | None = None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        """Write a line; returns at once."""
        if self.error is not None:
            raise self.error
        self._queue.put((json.dumps(record, ensure_ascii=False).encode() + b"\n", row, done))

    def clear(self) -> None:
        """Forget all that is there, before anything is appended."""
        self._file.truncate(0)
        self._size = 0

    def drain(self) -> None:
        """Write what is left; nothing can be appended any more. An error of the disk is left in `error`."""
        self._queue.put(None)
        self._thread.join()

    def close(self) -> None:
        """Write what is left, and let go of the file."""
        self.drain()
        for file in (self._tail, self._reader, self._file):
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

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            group, last = [item], False
            while not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    last = True
                    break
                group.append(item)
            try:
                self._write_group(group)
            except OSError as error:  # the disk is full, for one
                self.error = error
                self._take_back()
                return
            if last:
                return

    def _write_group(self, group: list) -> None:
        _write_whole(self._file, b"".join(line for line, *_ in group))
        places = []
        for line, *_ in group:
            places.append(self._size)
            self._size += len(line)
        rows = "".join(row for _, row, _ in group if row is not None)
        try:
            if self._tail is not None and rows:
                _write_whole(self._tail, rows.encode())
        finally:
            for place, (_, _, done) in zip(places, group, strict=True):
                if done is not None:
                    done(place)

    def _take_back(self) -> None:
        """Leave only whole lines: a reply that is half on disk was never there."""
        with suppress(OSError):  # else the next run repairs it
            os.ftruncate(self._file.fileno(), self._size)


def _write_whole(file: BinaryIO, data: bytes) -> None:
    """Unbuffered, so that nothing waits in a buffer for a disk that is full."""
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
