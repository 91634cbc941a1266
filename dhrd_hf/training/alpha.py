"""The weight of the reasoning loss over a run: a schedule, or the balance of the two losses' gradients."""

from __future__ import annotations

import math

import torch
from accelerate.utils import reduce
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..modeling_dhrd import find_dual_head

ALPHA_SCHEDULES = ("constant", "linear", "cosine", "step")

# Share of the old value in the running means of the squared gradient norms.
_DECAY = 0.9


def scheduled_alpha(
    step: int, max_steps: int, alpha: float, alpha_end: float = 0.0, schedule: str = "constant", step_at: float = 0.5
) -> float:
    """Weight of the reasoning loss at an optimiser step: `alpha` at the first, `alpha_end` at the last.

    Example:

    ```python
    >>> from dhrd_hf.training import scheduled_alpha
    >>> [scheduled_alpha(step, 5, alpha=1.0, alpha_end=0.0, schedule="linear") for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]

    ```

    Args:
        step (`int`): Number of optimiser steps before this one.
        max_steps (`int`): Number of optimiser steps of the run.
        alpha (`float`): Weight at the first step.
        alpha_end (`float`, *optional*, defaults to 0.0): Weight at the last step.
        schedule (`str`, *optional*, defaults to `"constant"`): `"constant"`: `alpha` throughout; `"linear"`; `"cosine"`:
            half a cosine; `"step"`: `alpha` before `step_at`, then `alpha_end`.
        step_at (`float`, *optional*, defaults to 0.5): Share of the steps that the first value of `"step"` lasts.

    Returns:
        `float`: the weight.

    Raises:
        ValueError: on an unknown schedule, a negative or infinite weight, or a share outside `[0, 1]`.
    """
    if schedule not in ALPHA_SCHEDULES:
        raise ValueError(f"alpha_schedule={schedule!r} is not one of {', '.join(ALPHA_SCHEDULES)}.")
    if not 0 <= alpha_end < math.inf:
        raise ValueError(f"alpha_end={alpha_end} must be 0 or greater, and finite.")
    if not 0 <= step_at <= 1:
        raise ValueError(f"alpha_step_at={step_at} must be in 0 to 1: a share of the training steps.")
    progress = step / max(1, max_steps - 1)
    if schedule == "constant":
        return alpha
    if schedule == "step":
        return alpha if step < step_at * max_steps else alpha_end
    share = progress if schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return alpha + (alpha_end - alpha) * share


class GradientBalance(TrainerCallback, ExportableState):
    r"""`alpha="auto"`: the weight at which both losses pull equally hard at the last hidden states that they share.

    At each optimiser step the squared norms of the two gradients are summed over micro-batches and ranks, so the weight
    does not depend on how a batch is split. The next step's weight is the ratio of their running means,
    `alpha = sqrt(mean ||d(beta L_cls)/dh||^2 / mean ||d L_reason/dh||^2)`. The norms come from the backward pass itself
    and cost a sum of squares. The first step has 1, the paper's weight. As the classifier fits its rows, its gradient and
    the weight fall. What is remembered is saved with each checkpoint, so a resumed run goes on exactly.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.training import GradientBalance
    >>> balance = GradientBalance()
    >>> balance.alpha
    1.0
    >>> balance.record("classification_loss", torch.tensor([3.0, 4.0]))
    >>> balance.record("reasoning_loss", torch.tensor([0.0, 10.0]))  # of alpha * L_reason
    >>> balance.finish_step()
    >>> balance.alpha
    0.5

    ```

    Source: balancing by gradient norms follows Chen et al. 2018 (GradNorm, arXiv 1711.02257), which learns the weights;
        here they are solved for, at the shared activations. arXiv 2509.21487 names the sensitivity to alpha as a limit.
    """

    def __init__(self) -> None:
        self.classification = 0.0
        self.reasoning = 0.0
        self._recorded: dict[str, list[Tensor]] = {"classification_loss": [], "reasoning_loss": []}

    @property
    def alpha(self) -> float:
        """Weight of the reasoning loss for the step to come."""
        if not (self.classification > 0 and self.reasoning > 0):
            return 1.0
        return math.sqrt(self.classification / self.reasoning)

    def record(self, name: str, gradient: Tensor) -> None:
        """Keep the squared norm of a micro-batch's weighted gradient.

        Args:
            name (`str`): `"classification_loss"` or `"reasoning_loss"`.
            gradient (`Tensor`): Gradient of that loss, times its weight, at the hidden states.
        """
        self._recorded[name].append(gradient.detach().float().square().sum().cpu())

    def finish_step(self, device: torch.device | str = "cpu") -> None:
        """Take the step that was recorded into the running means.

        Args:
            device (`torch.device`, *optional*, defaults to the CPU): Where ranks exchange tensors.
        """
        sums = torch.stack([torch.stack([torch.zeros(()), *values]).sum() for values in self._recorded.values()])
        self._forget()
        classification, reasoning = reduce(sums.to(device), "sum").tolist()
        reasoning /= self.alpha**2
        if not (classification > 0 and reasoning > 0 and math.isfinite(classification + reasoning)):
            return  # a step without a target of one kind, or one that a loss scaler will skip
        decay = _DECAY if self.classification else 0.0
        self.classification = decay * self.classification + (1 - decay) * classification
        self.reasoning = decay * self.reasoning + (1 - decay) * reasoning

    def _forget(self) -> None:
        for values in self._recorded.values():
            values.clear()

    def state(self) -> dict:
        """What a checkpoint keeps.

        Returns:
            `dict`: the running means.
        """
        return {"args": {}, "attributes": {"classification": self.classification, "reasoning": self.reasoning}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Listen to the model's gradients, and go on from a checkpoint's means or start anew."""
        find_dual_head(kwargs["model"]).on_shared_gradient = self.record
        kept = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        attributes = kept["attributes"] if kept else {"classification": 0.0, "reasoning": 0.0}
        self.classification, self.reasoning = attributes["classification"], attributes["reasoning"]
        self._forget()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the next step's weight."""
        self.finish_step(args.device)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Leave the model as it was."""
        find_dual_head(kwargs["model"]).on_shared_gradient = None
