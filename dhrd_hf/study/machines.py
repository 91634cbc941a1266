"""Where a study's runs are, and how many at a time: on this machine, or on a Ray or Dask cluster, by joblib."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

BACKENDS = ("local", "ray", "dask")


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
    def of(
        cls,
        backend: str = "local",
        address: str | None = None,
        jobs: int | None = None,
        gpus: int | None = None,
        processes: int | None = None,
    ) -> Machines:
        """What was asked for, and in its absence what one would ask for: a GPU a run, and a process a GPU."""
        if backend not in BACKENDS:
            raise ValueError(f"--backend {backend} must be one of {', '.join(BACKENDS)}")
        if address is not None and backend == "local":
            raise ValueError(f"--address {address} is of a cluster: add --backend ray or --backend dask")
        for name, value, least in (("jobs", jobs, 1), ("gpus-per-run", gpus, 0), ("processes-per-run", processes, 1)):
            if value is not None and value < least:
                raise ValueError(f"--{name} {value} must be {least} or more")
        if backend == "dask" and gpus:
            raise ValueError(
                "--gpus-per-run goes with this machine and Ray; Dask's workers have theirs from dask-cuda"
            )
        there = _gpus() if backend == "local" else []
        if gpus is None:
            gpus = 1 if len(there) > 1 else 0
        processes = processes or max(gpus, 1)
        if backend != "local":
            if (jobs or 1) < 2 and (backend == "ray" or address is None):  # a Dask cluster says itself how many
                raise ValueError(f"--backend {backend} needs --jobs N, the runs at a time: 2 or more")
            return cls(backend, address, jobs or 1, gpus, processes)
        if not gpus:
            return cls(jobs=jobs or 1, processes=processes)
        groups = [",".join(there[at : at + gpus]) for at in range(0, len(there) - gpus + 1, gpus)]
        if len(groups) < (jobs or 1):
            raise ValueError(
                f"--gpus-per-run {gpus} with {jobs or 1} runs at a time needs {gpus * (jobs or 1)} GPUs, and there are "
                f"{len(there)}"
            )
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
            backend = {"backend": "threading"}
            if self.backend != "local":
                backend = stack.enter_context(_ray(self) if self.backend == "ray" else _dask(self))
            stack.enter_context(joblib.parallel_config(**backend, n_jobs=self.jobs))
            # A cluster is told of all runs at once: Ray asks for no more, once it has some.
            parallel = joblib.Parallel(batch_size=1, pre_dispatch="n_jobs" if self.backend == "local" else "all")
            return parallel(joblib.delayed(function)(*call) for call in calls)


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
