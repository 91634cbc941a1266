"""The terms of the training loss, summed from one log to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

TERMS = ("classification_loss", "reasoning_loss", "distillation_loss")


class TermLog(TrainerCallback):
    """What a training's log says beside `loss`: each term, averaged as it is, and alpha where it changes.

    It begins anew with each training, also after a start that `auto_find_batch_size` gave up.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.training.term_log import TermLog
    >>> terms = TermLog()
    >>> for step in range(2):  # of one micro-batch each
    ...     terms.add(torch.tensor(3.0), {"classification_loss": torch.tensor(1.0 + step)}, step)
    >>> terms.take(2, float)
    {'classification_loss': 1.5}

    ```

    Args:
        alpha (`float`, *optional*): The weight of the reasoning loss in the last step, where it is not the config's.
        evaluations (`int`): How often this training was evaluated for a search, as the Trainer counts it.
    """

    def __init__(self) -> None:
        self.on_train_begin()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Forget an earlier training."""
        self.alpha: float | None = None
        self.evaluations = 0
        self._sums: dict[str, Tensor] = {}
        self._from_step = 0

    def add(self, loss: Tensor, outputs: Any, step: int) -> None:
        """Take a micro-batch's terms in.

        Args:
            loss (`Tensor`): Its loss.
            outputs (`Mapping[str, Tensor]`): The model's outputs, or some of the terms by name.
            step (`int`): Optimiser steps that are done.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        # In float32: under FSDP outputs come in the dtype that it computes in, in which a sum of many steps stands still.
        terms = {name: outputs[name].detach().float().sum() for name in TERMS if outputs.get(name) is not None}
        if not torch.isfinite(loss).all():
            values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
            raise FloatingPointError(
                f"The loss is not finite after step {step}: {values}. Lower learning_rate, train in float32 or bf16 "
                "instead of fp16, or look for a broken row or class weight."
            )
        if not self._sums:
            self._from_step = step
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def take(self, step: int, over_ranks: Callable[[Tensor], float]) -> dict[str, float]:
        """The means over the steps since the last call.

        Args:
            step (`int`): Optimiser steps that are done.
            over_ranks (`Callable[[Tensor], float]`): Adds a sum up over the ranks.

        Returns:
            `dict[str, float]`: the terms by name, and `alpha`; nothing where no step was done.
        """
        steps = step - self._from_step
        if not self._sums or steps < 1:
            return {}
        found = {name: over_ranks(self._sums[name]) / steps for name in TERMS if name in self._sums}
        self._sums = {}
        return found if self.alpha is None else {**found, "alpha": self.alpha}
