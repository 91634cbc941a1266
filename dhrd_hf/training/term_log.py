"""The terms of the training loss, summed from one log to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

TERMS = ("classification_loss", "reasoning_loss", "distillation_loss")


class TermLog(TrainerCallback):
    """What a training's log says beside `loss`: each term, averaged as it is, and alpha where it changes."""

    def __init__(self) -> None:
        self.on_train_begin()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Forget an earlier training."""
        self.alpha: float | None = None
        self.evaluations = 0
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, set[int]] = {}  # of a term: not every step has a reasoning loss

    def add(self, loss: Tensor, outputs: Any, step: int) -> None:
        """Take a micro-batch's terms in."""
        # In float32: under FSDP outputs come in the dtype that it computes in, in which a sum of many steps stands still.
        terms = {name: outputs[name].detach().float().sum() for name in TERMS if outputs.get(name) is not None}
        if not torch.isfinite(loss).all():
            values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
            raise FloatingPointError(
                f"The loss is not finite after step {step}: {values}. Lower learning_rate, train in float32 or bf16 "
                "instead of fp16, or look for a broken row or class weight."
            )
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._steps.setdefault(name, set()).add(step)

    def take(self, over_ranks: Callable[[Tensor], float]) -> dict[str, float]:
        """The means over the steps since the last call that had a term."""
        found = {name: over_ranks(self._sums[name]) / len(self._steps[name]) for name in TERMS if name in self._sums}
        self._sums, self._steps = {}, {}
        return found if self.alpha is None or not found else {**found, "alpha": self.alpha}
