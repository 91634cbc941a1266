"""Where a model goes, and what is said where it can't."""

from __future__ import annotations

from typing import TypeVar

import torch

Model = TypeVar("Model", bound=torch.nn.Module)


def put_on(model: Model, device: str | torch.device | None = None) -> Model:
    """Move a model to a device.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.device import put_on
    >>> put_on(torch.nn.Linear(2, 2), "cpu").weight.device
    device(type='cpu')

    ```

    Args:
        model (`nn.Module`): The model, moved in place.
        device (`str` or `torch.device`, *optional*): By default the accelerator if there is one, else the CPU.

    Returns:
        `nn.Module`: the model.

    Raises:
        ValueError: if there is no such device, or no room on it.
    """
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        return model.to(device)
    # A torch that is built without CUDA raises an AssertionError.
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"the model can't be put on device {str(device)!r}: {str(error).splitlines()[0]}") from error
