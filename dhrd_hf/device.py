"""Where a model goes, and what is said where it can't."""

from __future__ import annotations

from typing import TypeVar

import torch

Model = TypeVar("Model", bound=torch.nn.Module)


def put_on(model: Model, device: str | torch.device | None = None) -> Model:
    """Move a model to a device."""
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        return model.to(device)
    # A torch that is built without CUDA raises an AssertionError.
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"the model can't be put on device {str(device)!r}: {str(error).splitlines()[0]}") from error
