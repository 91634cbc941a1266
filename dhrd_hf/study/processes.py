"""Processes of a study: one is run to its end, and none is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    peak_memory_mb: float | None


class Interrupted(BaseException):
    """The study ends: no failure of the run."""


class Processes:
    """The processes that a study has running, in several threads; [`~Processes.end`] ends them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._ended = False

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        log: Path,
        started: Callable[[int], None] = lambda _: None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a process to its end, its output in a file; it is ended with us."""
        package = str(Path(__file__).resolve().parents[2])  # for a checkout that is not installed
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with log.open("ab") as file:
            with self._lock:
                if self._ended:
                    raise Interrupted
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {}), "PYTHONPATH": path},
                    start_new_session=True,  # Ctrl-C is for us: we end it
                )
                self._running.add(process.pid)
            try:
                started(process.pid)
                ended = _wait(process)
            except BaseException:
                end_process(process.pid)
                process.wait()
                if self._ended:  # who ended it may have asked for its exit code before us
                    raise Interrupted from None
                raise
            finally:
                with self._lock:
                    self._running.discard(process.pid)
        if self._ended:
            raise Interrupted
        return ended

    def end(self) -> None:
        """End what runs, and let nothing more begin."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for pid in running:
            end_process(pid)

    def __reduce__(self) -> tuple[type, tuple]:
        return Processes, ()  # in another process none of them runs


def _wait(process: subprocess.Popen) -> Ended:
    if not hasattr(os, "wait4"):  # Windows
        return Ended(process.wait(), None)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kB elsewhere
    return Ended(process.returncode, round(usage.ru_maxrss / unit, 1))


def started_at(pid: int) -> float | None:
    """When a process was started: with its id, what tells it from one that gets the id later."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def is_alive(pid: int, started: float | None) -> bool:
    """Whether a process is there and runs, and is not another that got its id since."""
    import psutil

    now = started_at(pid)
    with suppress(psutil.Error):
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not looked
            return False
    # Its time of start moves with corrections of the clock.
    return now is not None and (started is None or abs(now - started) < 5)


def end_process(pid: int) -> None:
    """End a process and those that it started."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
