"""Where a study's runs are, and how many at a time: here, or on a Ray or Dask cluster, by joblib; their processes and locks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import joblib
import psutil
from filelock import FileLock, Timeout

from ..files import write_whole

_PACKAGES = {"local": "joblib", "ray": "ray", "dask": "distributed"}
_LOOK = 0.5  # seconds, in which whoever only looks whether a run is free has given it back


@dataclass(frozen=True)
class Machines:
    """Where a study's runs are: each is a process, or several under `torchrun`, of its own."""

    backend: str = "local"  # or "ray", or "dask"
    address: str | None = None  # of the cluster; None: one is started here
    jobs: int = 1  # runs at a time
    gpus: int = 0  # of a run; 0: none is set apart
    processes: int = 1  # of a run
    free: Any = None  # a queue of the GPUs of this machine, as CUDA_VISIBLE_DEVICES names them, by the run

    @classmethod
    def of(cls, backend: str = "local", address: str | None = None, **asked: int | None) -> Machines:
        """What was asked for of `jobs`, `gpus` and `processes`, else what one would ask for: a GPU a run, a process a GPU."""
        jobs, gpus, processes = (asked.get(name) for name in ("jobs", "gpus", "processes"))
        is_local, least = backend == "local", 1 if jobs is None else jobs
        there = _gpus() if is_local else []
        each = int(len(there) > 1) if gpus is None else gpus
        # A Dask cluster says itself how many.
        alone = not is_local and least < 2 and (backend == "ray" or address is None)
        theirs = "--gpus-per-run goes with this machine and Ray; Dask's workers have theirs from dask-cuda"
        too_many = f"--gpus-per-run {gpus} with {least} runs at a time needs {each * least} GPUs, and there are "
        for wrong, said in (
            (backend not in _PACKAGES, f"--backend {backend} must be one of {', '.join(_PACKAGES)}"),
            (address and is_local, f"--address {address} is of a cluster: add --backend ray or --backend dask"),
            (least < 1, f"--jobs {jobs} must be 1 or more"),
            (each < 0, f"--gpus-per-run {gpus} must be 0 or more"),
            (processes is not None and processes < 1, f"--processes-per-run {processes} must be 1 or more"),
            (backend == "dask" and each, theirs),
            (alone, f"--backend {backend} needs --jobs N, the runs at a time: 2 or more"),
            (is_local and each * least > len(there), f"{too_many}{len(there)}"),
        ):
            if wrong:
                raise ValueError(said)
        if find_spec(_PACKAGES[backend]) is None:
            raise ImportError(f"--backend {backend} needs {_PACKAGES[backend]}: pip install 'dhrd-hf[{backend}]'")
        own = range(0, len(there) - each + 1, each)[:jobs] if is_local and each else ()
        free: SimpleQueue[str] | None = SimpleQueue() if own else None
        for at in own:
            free.put(",".join(there[at : at + each]))
        return cls(backend, address, len(own) or least, each, processes or max(each, 1), free)

    @contextmanager
    def devices(self) -> Iterator[dict[str, str]]:
        """What the environment of a run says besides: its GPUs, and its share of the cores where several compute on them."""
        several = self.processes * (self.jobs if self.backend == "local" and not self.gpus else 1)
        shared = several > 1 and "OMP_NUM_THREADS" not in os.environ
        own = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // several, 1))} if shared else {}
        group = None if self.free is None else self.free.get()
        try:
            yield own if group is None else own | {"CUDA_VISIBLE_DEVICES": group}
        finally:
            if group is not None:
                self.free.put(group)

    def run(self, function: Callable[..., Any], calls: Iterable[tuple]) -> list[Any]:
        """Call a function with each of the arguments, so many at a time, and return what it returned."""
        # Here a thread a run: it waits for the run's own processes, and no run outlives the one that its lock names.
        # A cluster is told of all runs at once: Ray asks for no more, once it has some.
        opened, first = nullcontext({"backend": "threading"}), "n_jobs"
        if self.backend != "local":
            opened, first = {"ray": _ray, "dask": _dask}[self.backend](self), "all"
        with opened as backend, joblib.parallel_config(**backend, n_jobs=self.jobs):
            return joblib.Parallel(batch_size=1, pre_dispatch=first)(joblib.delayed(function)(*it) for it in calls)


@contextmanager
def _ray(machines: Machines) -> Iterator[Mapping[str, Any]]:
    import ray
    from ray.util.joblib import register_ray

    if ours := not ray.is_initialized():
        # "local": else Ray joins a cluster that somebody else has started on this machine, or that RAY_ADDRESS names.
        here = {"address": "local", "num_cpus": machines.jobs, "include_dashboard": False}
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # other work may have the cores
        ray.init(**(here if machines.address is None else {"address": machines.address}))
    register_ray()
    try:
        yield {"backend": "ray", "ray_remote_args": {"num_cpus": 1, "num_gpus": machines.gpus}}
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _dask(machines: Machines) -> Iterator[Mapping[str, Any]]:
    from distributed import Client

    here = {"n_workers": machines.jobs, "threads_per_worker": 1, "dashboard_address": None}
    with Client(machines.address) if machines.address else Client(**here) as client:
        yield {"backend": "dask", "client": client}


def _gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [it.strip() for it in named.split(",") if it.strip() and it.strip() != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    peak_memory_mb: float | None


class Interrupted(BaseException):
    """The study ends: no failure of the run."""


class Processes:
    """The processes that a study has running, in several threads; [`~Processes.end`] ends them all."""

    def __init__(self) -> None:
        self._lock, self._ended = threading.Lock(), False
        self._running: set[int] = set()

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
        # Ctrl-C is for us: we end it.
        how = {"cwd": folder, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "start_new_session": True}
        how["env"] = {**os.environ, **(environment or {}), "PYTHONPATH": path}
        with log.open("ab") as file, self._lock:
            if self._ended:
                raise Interrupted
            process = subprocess.Popen(command, stdout=file, **how)
            self._running.add(process.pid)
        try:
            started(process.pid)
            ended = _wait(process)
        except BaseException:
            end_process(process.pid)
            process.wait()
            if not self._ended:  # else who ended it may have asked for its exit code before us
                raise
        finally:
            self._running.discard(process.pid)
        if self._ended:
            raise Interrupted
        return ended

    def end(self) -> None:
        """End what runs, and let nothing more begin."""
        with self._lock:
            self._ended = True
        for pid in list(self._running):
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


def end_process(pid: int, started: float | None = None) -> None:
    """End a process and those that it started, if it is not another that got its id since it was started."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # A time of start moves with corrections of the clock; who is a zombie has ended, and its parent has not looked.
        ours = started is None or abs(process.create_time() - started) < 5
        if ours and process.status() != psutil.STATUS_ZOMBIE:
            family = [process, *process.children(recursive=True)]
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=10)


class RunLock:
    """The lock on a run in the study's folder, which the end of its process frees, and a note of what that has started."""

    number = 1  # of those that have had the run without giving it back
    taken_from: str | None = None

    def __init__(self, folder: Path, run: str):
        self._lock, self._note = FileLock(folder / "locks" / f"{run}.lock"), folder / "locks" / f"{run}.json"

    def is_free(self) -> bool:
        """Whether nobody has the lock just now."""
        with suppress(Timeout), self._lock.acquire(timeout=0):
            return True
        return False

    def take(self) -> bool:
        """Take the lock if nobody has it, and end what a killed process has left running."""
        try:
            self._lock.acquire(timeout=_LOOK, poll_interval=0.02)
        except Timeout:
            return False
        try:
            if self._note.exists():
                left = json.loads(self._note.read_text())
                if left.get("child_started") is not None and left["machine"] == _machine():
                    end_process(left["child"], left["child_started"])
                # What runs on another machine, or was killed before it was noted, has the folder of its number to itself.
                self.number, self.taken_from = left["number"] + 1, f"process {left['pid']} on {left['host']}"
            self._say()
        except BaseException:
            self._lock.release()
            raise
        return True

    def end_what_was_left(self) -> None:
        """End what a process of this machine, which was ended, has left running."""
        with suppress(OSError, ValueError):
            if json.loads(self._note.read_text())["machine"] == _machine() and self.take():
                self.release()

    def note_child(self, pid: int) -> None:
        """Say which process trains, so that whoever has the lock next can end it."""
        started = None
        with suppress(psutil.Error):
            started = psutil.Process(pid).create_time()
        self._say(child=pid, child_started=started)

    def _say(self, **more: Any) -> None:
        us = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "number": self.number}
        write_whole(self._note, json.dumps(us | more))

    def release(self) -> None:
        """Give the run back."""
        self._note.unlink(missing_ok=True)
        self._lock.release()


def _machine() -> str:
    """What tells this machine, since its start, from others that may have its name."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()  # not Linux
