"""Models whose weights are not plain floating-point numbers, under an adapter."""

from __future__ import annotations

import torch
from torch import nn


def is_quantised(model: nn.Module) -> bool:
    """Whether some weights of a model are not plain floating-point numbers, so that it can't be exported whole.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.quantised import is_quantised
    >>> is_quantised(torch.nn.Linear(2, 2))
    False

    ```

    Args:
        model (`nn.Module`): The model.

    Returns:
        `bool`: as said.
    """
    weights = (*model.parameters(), *model.buffers())
    return bool(getattr(model, "is_quantized", False)) or any(w.dtype in (torch.uint8, torch.int8) for w in weights)


def state_for_adapter(model: nn.Module) -> dict[str, torch.Tensor]:
    """What `state_dict` holds of a model's adapters, without asking the layers for their state.

    bitsandbytes 0.50.2 repacks its 4-bit layers when they are evaluated on a CPU with AVX512-BF16, and back when they are
    asked for their state; then the scales are wrong, and so is whatever is computed from there on.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.quantised import state_for_adapter
    >>> sorted(state_for_adapter(torch.nn.Linear(2, 2)))
    ['bias', 'weight']

    ```

    Args:
        model (`nn.Module`): The model.

    Returns:
        `dict[str, Tensor]`: its parameters and buffers, not copied.
    """
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
