"""How much memory a process has taken."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_MIB = 2**20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
