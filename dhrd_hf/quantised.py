"""Models whose weights are not plain floating-point numbers, under an adapter."""

from __future__ import annotations

import torch
from torch import nn


def is_quantised(model: nn.Module) -> bool:
    """Whether some weights of a model are not plain floating-point numbers, so that it can't be exported whole."""
    weights = (*model.parameters(), *model.buffers())
    return bool(getattr(model, "is_quantized", False)) or any(w.dtype in (torch.uint8, torch.int8) for w in weights)


def state_for_adapter(model: nn.Module) -> dict[str, torch.Tensor]:
    """What `state_dict` holds of a model's adapters, without asking the layers for their state."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
