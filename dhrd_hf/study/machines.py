"""Where a study's runs are, and how many at a time: here, or on a Ray or Dask cluster, by joblib; their processes and locks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import psutil
from filelock import FileLock, Timeout

from ..files import write_whole

BACKENDS = ("local", "ray", "dask")
_LOOK = 0.5  # seconds, in which whoever only looks whether a run is free has given it back


@dataclass(frozen=True)
class Machines:
    """Where a study's runs are: each is a process, or several under `torchrun`, of its own."""

    backend: str = "local"  # one of `BACKENDS`
    address: str | None = None  # of the cluster; None: one is started here
    jobs: int = 1  # runs at a time
    gpus: int = 0  # of a run; 0: none is set apart
    processes: int = 1  # of a run
    free: Any = None  # a queue of the GPUs of this machine, as CUDA_VISIBLE_DEVICES names them, by the run

    @classmethod
    def of(cls, backend: str = "local", address: str | None = None, **asked: int | None) -> Machines:
        """What was asked for of `jobs`, `gpus` and `processes`, else what one would ask for: a GPU a run, a process a GPU."""
        jobs, gpus, processes = (asked.get(name) for name in ("jobs", "gpus", "processes"))
        _refuse(backend not in BACKENDS, f"--backend {backend} must be one of {', '.join(BACKENDS)}")
        is_local = backend == "local"
        _refuse(
            address is not None and is_local,
            f"--address {address} is of a cluster: add --backend ray or --backend dask",
        )
        for name, value, least in (("jobs", jobs, 1), ("gpus-per-run", gpus, 0), ("processes-per-run", processes, 1)):
            _refuse(value is not None and value < least, f"--{name} {value} must be {least} or more")
        said = "--gpus-per-run goes with this machine and Ray; Dask's workers have theirs from dask-cuda"
        _refuse(backend == "dask" and gpus, said)
        there = _gpus() if is_local else []
        gpus = (1 if len(there) > 1 else 0) if gpus is None else gpus
        processes, least = processes or max(gpus, 1), jobs or 1
        # A Dask cluster says itself how many.
        alone = not is_local and least < 2 and (backend == "ray" or address is None)
        _refuse(alone, f"--backend {backend} needs --jobs N, the runs at a time: 2 or more")
        if not is_local or not gpus:
            return cls(backend, address, least, gpus, processes)
        groups = [",".join(there[at : at + gpus]) for at in range(0, len(there) - gpus + 1, gpus)]
        said = (
            f"--gpus-per-run {gpus} with {least} runs at a time needs {gpus * least} GPUs, and there are {len(there)}"
        )
        _refuse(len(groups) < least, said)
        free: SimpleQueue[str] = SimpleQueue()
        for group in groups[: jobs or len(groups)]:
            free.put(group)
        return cls(jobs=jobs or len(groups), gpus=gpus, processes=processes, free=free)

    @contextmanager
    def devices(self) -> Iterator[dict[str, str]]:
        """What the environment of a run says besides: its GPUs, and its share of the cores where several compute on them."""
        own: dict[str, str] = {}
        several = self.jobs * self.processes if self.backend == "local" and not self.gpus else self.processes
        if several > 1 and "OMP_NUM_THREADS" not in os.environ:
            own["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // several, 1))
        if self.free is None:
            yield own
            return
        group = self.free.get()
        try:
            yield own | {"CUDA_VISIBLE_DEVICES": group}
        finally:
            self.free.put(group)

    def run(self, function: Callable[..., Any], calls: Iterable[tuple]) -> list[Any]:
        """Call a function with each of the arguments, so many at a time, and return what it returned."""
        import joblib

        # Here a thread a run: it waits for the run's own processes, and no run outlives the one that its lock names.
        with ExitStack() as stack:
            backend: Mapping[str, Any] = {"backend": "threading"}
            if self.backend != "local":
                backend = stack.enter_context({"ray": _ray, "dask": _dask}[self.backend](self))
            stack.enter_context(joblib.parallel_config(**backend, n_jobs=self.jobs))
            # A cluster is told of all runs at once: Ray asks for no more, once it has some.
            parallel = joblib.Parallel(batch_size=1, pre_dispatch="n_jobs" if self.backend == "local" else "all")
            return parallel(joblib.delayed(function)(*call) for call in calls)


def _refuse(wrong: Any, message: str) -> None:
    if wrong:
        raise ValueError(message)


@contextmanager
def _ray(machines: Machines) -> Iterator[Mapping[str, Any]]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise ImportError("--backend ray needs Ray: pip install 'dhrd-hf[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        here = {"num_cpus": machines.jobs, "include_dashboard": False} if machines.address is None else {}
        ray.init(address=machines.address, log_to_driver=True, **here)
    register_ray()
    try:
        yield {"backend": "ray", "ray_remote_args": {"num_cpus": 1, "num_gpus": machines.gpus}}
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _dask(machines: Machines) -> Iterator[Mapping[str, Any]]:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("--backend dask needs Dask: pip install 'dhrd-hf[dask]'") from None
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
        # Ctrl-C is for us: we end it.
        how = {"cwd": folder, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "start_new_session": True}
        with log.open("ab") as file:
            with self._lock:
                if self._ended:
                    raise Interrupted
                environment = {**os.environ, **(environment or {}), "PYTHONPATH": path}
                process = subprocess.Popen(command, stdout=file, env=environment, **how)
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
                left = json.loads(self._note.read_text())
                if left.get("child_started") is not None and left["machine"] == _machine():
                    end_process(left["child"], left["child_started"])
                # What runs on another machine, or was killed before it was noted, has the folder of its number to itself.
                self.number, self.taken_from = left["number"] + 1, f"process {left['pid']} on {left['host']}"
            us = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "number": self.number}
            write_whole(self._note, json.dumps(us))
        except BaseException:
            self._lock.release()
            raise
        return True

    def _acquired(self, seconds: float) -> bool:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            return bool(self._lock.acquire(timeout=seconds, poll_interval=0.02))
        return False

    def end_what_was_left(self) -> None:
        """End what a process of this machine, which was ended, has left running."""
        with suppress(OSError, ValueError):
            if json.loads(self._note.read_text())["machine"] == _machine() and self.take():
                self.release()

    def note_child(self, pid: int) -> None:
        """Say which process trains, so that whoever has the lock next can end it."""
        said = json.loads(self._note.read_text()) | {"child": pid, "child_started": None}
        with suppress(psutil.Error):
            said["child_started"] = psutil.Process(pid).create_time()
        write_whole(self._note, json.dumps(said))

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
