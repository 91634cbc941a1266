"""Timing side by side, in turns, so that a drift of the machine meets all alike; and what does not fit into its memory."""

from __future__ import annotations

import gc
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "datasets", "numpy", "onnxruntime", "openvino")


def turns(names: Iterable[str], index: int) -> list[str]:
    """The order of one round: over as many rounds as there are names, each comes once at each place."""
    order = list(names)
    cycle, first = divmod(index, len(order) or 1)
    return (order[first:] + order[:first])[:: -1 if cycle % 2 else 1]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def machine() -> str:
    """The machine in one line: its processor, its cores and threads, and its accelerators."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = f"{os.cpu_count()}" if usable == os.cpu_count() else f"{usable} of {os.cpu_count()}"
    said = [f"{_processor()} ({platform.machine()})", f"{cores} cores", f"{torch.get_num_threads()} torch threads"]
    if torch.cuda.is_available():
        said.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    elif torch.accelerator.is_available():
        said.append(f"{torch.accelerator.device_count()} x {torch.accelerator.current_accelerator().type}")
    return ", ".join(said)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a model says and how fast, as far as they are installed."""
    from .. import __version__

    found = {"python": platform.python_version(), "dhrd_hf": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's name; `platform.processor` does not know it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware") and value.strip():
                return value.strip()
    return platform.processor() or "unknown processor"


# Of torch on any device (CUDA, HIP, MPS, XPU, CPU, cuBLAS), ONNX Runtime, OpenVINO, numpy and Linux.
_SHORT = re.compile(
    r"out of memory|not enough memory|(?:can't|cannot|could not|failed to|unable to) allocate|bad[ _]alloc"
    r"|_ALLOC_FAILED|exceeded max size of memory|\bMemoryError\b",
    re.IGNORECASE,
)


def out_of_memory(error: Exception) -> str | None:
    """Why something did not fit, if that is what an error says."""
    said = str(error).strip()
    first = said.splitlines()[0][:200] if said else type(error).__name__
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _SHORT.search(said):
        return f"it does not fit into memory ({first})"
    return None


def free_memory() -> None:
    """Give back what nothing refers to any more; to be called when the error that left it is gone, with its frames."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
