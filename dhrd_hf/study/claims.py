"""Who runs which cell: claims in a folder that several processes and machines share."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import end_process, is_alive, started_at

STALE_AFTER = 600.0  # seconds without a heartbeat, after which a claim of another machine is taken over
_BEAT = 20.0


@dataclass
class Claim:
    """One process's right to run one cell, kept fresh by a thread until it is released."""

    path: Path
    number: int
    token: str
    taken_from: str | None = None

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            with suppress(OSError):  # a disk that is away for a moment
                os.utime(self.path)

    def note_child(self, pid: int) -> None:
        """Say which process trains, so that whoever takes over can end it."""
        said = json.loads(self.path.read_text())
        _write(self.path, said | {"child": pid, "child_started": started_at(pid)})

    def holds(self) -> bool:
        """Whether nobody has taken it over in the meantime."""
        return self._is_ours() and not _path(self.path.parent, _cell(self.path), self.number + 1).exists()

    def release(self) -> None:
        """Give the cell back."""
        self._stop.set()
        self._thread.join()
        if not self._is_ours():  # whoever took it over has ended since, and a third may have it by now
            return
        for old in _files(self.path.parent, _cell(self.path)):
            if int(old.suffix[1:]) <= self.number:
                old.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        try:
            return json.loads(self.path.read_text()).get("token") == self.token
        except (OSError, ValueError):
            return False


class Claims:
    """The claims on a study's cells."""

    def __init__(self, folder: Path, stale_after: float = STALE_AFTER):
        self.folder = folder
        self.stale_after = stale_after

    def take(self, cell: str) -> Claim | None:
        """Claim a cell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = _files(self.folder, cell)
        if not files:
            return self._create(cell, 1, None)
        last = files[-1]
        try:
            # A process creates its claim and fills it in two steps: an empty one is a moment old, or its process died.
            text, age = last.read_text(), self._now() - last.stat().st_mtime
        except FileNotFoundError:  # released just now
            return None
        try:
            holder = json.loads(text)
        except ValueError:
            holder = {}
        if not self._gone(holder, age):
            return None
        claim = self._create(cell, int(last.suffix[1:]) + 1, holder)
        if claim is not None:
            self._end_child(holder)
        return claim

    def _end_child(self, holder: dict[str, Any]) -> None:
        """End the training run of a runner that was killed, before another of its cell starts."""
        child = holder.get("child")
        if child is not None and holder["machine"] == _machine() and is_alive(child, holder["child_started"]):
            end_process(child)

    def _gone(self, holder: dict[str, Any], age: float) -> bool:
        if holder.get("machine") == _machine():
            return not is_alive(holder["pid"], holder["started"])
        return age > self.stale_after

    def _now(self) -> float:
        """The time by the clock of the folder's disk, which stamps the heartbeats: machines' clocks may differ."""
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".now-") as file:
            return os.stat(file.name).st_mtime

    def _create(self, cell: str, number: int, holder: dict[str, Any] | None) -> Claim | None:
        path = _path(self.folder, cell, number)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            return None
        us = {"host": socket.gethostname(), "machine": _machine(), "token": uuid.uuid4().hex}
        _write(path, us | {"pid": os.getpid(), "started": started_at(os.getpid())})
        if holder is None:
            return Claim(path, number, us["token"])
        unknown = "a process that did not say who it was"
        return Claim(path, number, us["token"], f"process {holder['pid']} on {holder['host']}" if holder else unknown)


def _path(folder: Path, cell: str, number: int) -> Path:
    return folder / f"{cell}.{number}"


def _cell(path: Path) -> str:
    return path.name.rpartition(".")[0]


def _files(folder: Path, cell: str) -> list[Path]:
    return sorted(
        (path for path in folder.glob(f"{cell}.*") if path.suffix[1:].isdigit()), key=lambda path: int(path.suffix[1:])
    )


def _write(path: Path, said: dict[str, Any]) -> None:
    with open(path, "r+") as file:
        file.write(json.dumps(said))
        file.truncate()


def _machine() -> str:
    """What tells this machine, since its start, from others that may have its name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"
