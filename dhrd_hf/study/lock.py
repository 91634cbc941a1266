"""Who has a run: a lock in the study's folder, which its process's end frees, and what that process has started."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import write_whole
from .processes import end_process, is_alive, started_at

_LOOK = 0.5  # seconds, in which whoever only looks whether a run is free has given it back


class RunLock:
    """The lock on a run."""

    number = 1  # of those that have had the run without giving it back
    taken_from: str | None = None

    def __init__(self, folder: Path, run: str):
        self._lock = FileLock(folder / "locks" / f"{run}.lock")
        self._note = folder / "locks" / f"{run}.json"

    def is_free(self) -> bool:
        """Whether nobody has the lock just now."""
        if not self._acquired(0):
            return False
        self._lock.release()
        return True

    def take(self) -> bool:
        """Take the lock if nobody has it, and end what a killed process has left running."""
        if not self._acquired(_LOOK):
            return False
        try:
            if self._note.exists():
                self._take_over()
            us = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "number": self.number}
            write_whole(self._note, json.dumps(us))
        except BaseException:
            self._lock.release()
            raise
        return True

    def _acquired(self, seconds: float) -> bool:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=seconds, poll_interval=0.02)
        except Timeout:
            return False
        return True

    def end_what_was_left(self) -> None:
        """End what a process of this machine, which was ended, has left running."""
        with suppress(OSError, ValueError):
            if json.loads(self._note.read_text())["machine"] == _machine() and self.take():
                self.release()

    def _take_over(self) -> None:
        left = json.loads(self._note.read_text())
        child = left.get("child")
        if child is not None and left["machine"] == _machine() and is_alive(child, left["child_started"]):
            end_process(child)
        # What runs on another machine, or was killed before it was noted, has the folder of its number to itself.
        self.number = left["number"] + 1
        self.taken_from = f"process {left['pid']} on {left['host']}"

    def note_child(self, pid: int) -> None:
        """Say which process trains, so that whoever has the lock next can end it."""
        said = json.loads(self._note.read_text())
        write_whole(self._note, json.dumps(said | {"child": pid, "child_started": started_at(pid)}))

    def release(self) -> None:
        """Give the run back."""
        self._note.unlink(missing_ok=True)
        self._lock.release()


def _machine() -> str:
    """What tells this machine, since its start, from others that may have its name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()
