"""Whether an error says that there was not enough memory, and giving back what is free."""

from __future__ import annotations

import gc
import re

import torch

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
