"""How much memory this process has taken, and whether an error says that there was not enough."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import torch

_MIB = 2**20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Of torch on any device (CUDA, HIP, MPS, XPU, CPU, cuBLAS), ONNX Runtime, OpenVINO, numpy and Linux.
_SHORT = re.compile(
    r"out of memory|not enough memory|(?:can't|cannot|could not|failed to|unable to) allocate|bad[ _]alloc"
    r"|_ALLOC_FAILED|exceeded max size of memory|\bMemoryError\b",
    re.IGNORECASE,
)


class PeakMemory:
    """Memory of a process above what it had when this was made, in MiB."""

    def __init__(self, device: torch.device):
        self.device = device
        self._before = 0.0
        self._before = self.now()

    def now(self) -> float:
        """What is taken now."""
        if self.device.type == "cuda":
            taken = torch.cuda.memory_allocated(self.device) / _MIB
        else:
            taken = _of_status("VmRSS") or _greatest()
        return taken - self._before

    def reset(self) -> None:
        """Count the peak from here on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _RESET.exists():
            _RESET.write_text("5")  # man 5 proc_pid_clear_refs: VmHWM becomes what is resident now

    def peak(self) -> float:
        """What was taken at most since [`~PeakMemory.reset`]."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _MIB - self._before
        return (_of_status("VmHWM") or _greatest()) - self._before


def _of_status(name: str) -> float | None:
    """A size that Linux gives of this process, in MiB."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return None


def _greatest() -> float:
    import resource

    # In bytes on macOS, in KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MIB if sys.platform == "darwin" else 1024)


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
