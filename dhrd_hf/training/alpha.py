"""The weight of the reasoning loss over a run: a schedule, or the balance of the two losses' gradients."""

from __future__ import annotations

import math
import random

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..modeling_dhrd import find_dual_head
from .options import ALPHA_SCHEDULES

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
            half a cosine; `"step"`: `alpha` before `step_at`, then `alpha_end`; `"auto"`: see [`GradientBalance`].
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
    if schedule in ("constant", "auto"):  # the balance of gradients is no function of the step
        return alpha
    if schedule == "step":
        return alpha if step < step_at * max_steps else alpha_end
    share = progress if schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return alpha + (alpha_end - alpha) * share


class ReasoningWeightMixin:
    """What a `Trainer` knows of the reasoning loss's weight at each step; for [`DualHeadTrainer`]."""

    @property
    def _schedule(self) -> str:
        return getattr(self.args, "alpha_schedule", "constant")

    @property
    def _share(self) -> float:
        return getattr(self.args, "reasoning_share", 1.0)

    def _check_weight(self) -> None:
        """Fit to the weights of the losses, which may have been changed in the config since."""
        config = find_dual_head(self.model).config
        config._check_objective()
        if config.alpha == 0 and self._schedule in ("linear", "cosine", "step") and self.args.alpha_end > 0:
            raise ValueError(
                f"alpha=0 is the pooled baseline, which would never follow alpha_schedule={self._schedule!r} to "
                f"alpha_end={self.args.alpha_end}: start at a small number, such as alpha=0.01, or leave alpha_end out."
            )
        if self._share < 1 and self.teacher is not None:
            raise ValueError("A teacher's soft targets are at each step: leave reasoning_share out.")
        if self._share < 1 and self._lm_head_is_waited_for():
            raise ValueError(
                "Several processes wait for the LM head's gradients at each step: train LoRA adapters, freeze the LM head, "
                "or leave reasoning_share out."
            )
        self.remove_callback(GradientBalance)
        if self._schedule == "auto" and config.alpha > 0:
            self.add_callback(GradientBalance())

    def _alpha(self) -> float | None:
        """The weight for this optimiser step; `None` where the model's own is right."""
        alpha = find_dual_head(self.model).config.alpha
        if self._schedule == "constant" or alpha == 0:
            return None
        if self._schedule == "auto":  # looked up each time: a resumed Trainer may replace its callbacks
            balances = (it for it in self.callback_handler.callbacks if isinstance(it, GradientBalance))
            return next(balances).alpha
        args, state = self.args, self.state
        end = (args.alpha_end, self._schedule, args.alpha_step_at)
        return scheduled_alpha(state.global_step, state.max_steps, alpha, *end)

    def _reads_x_alone(self) -> bool:
        """Whether no loss in training is over the tokens of s."""
        return find_dual_head(self.model).config.alpha == 0 and self.teacher is None

    def _step_has_reasoning(self) -> bool:
        """Whether this optimiser step has a reasoning loss: else it sees x alone, and costs what pooled costs."""
        if self.teacher is not None or self._reads_x_alone() or self._lm_head_is_waited_for():
            return True  # what is there is needed
        drawn = self._share == 1 or random.Random(f"{self.args.seed} {self.state.global_step}").random() < self._share
        return drawn and self._alpha() != 0

    def _lm_head_is_waited_for(self) -> bool:
        """Whether DDP expects gradients of the LM head at each step."""
        return self.args.world_size > 1 and any(it.requires_grad for it in self._reasoning_parameters())

    def _reasoning_parameters(self) -> list[nn.Parameter]:
        """Those of the LM head alone: as a tied one it is the embeddings, which every step uses."""
        dual_head = find_dual_head(self.model)
        used = {id(parameter) for parameter in dual_head.get_input_embeddings().parameters()}
        head = () if dual_head.lm_head is None else dual_head.lm_head.parameters()
        return [parameter for parameter in head if id(parameter) not in used]


class GradientBalance(TrainerCallback, ExportableState):
    r"""`alpha_schedule="auto"`: the weight at which both losses pull equally hard at the last hidden states that they share.

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
        """Keep the squared norm of a micro-batch's weighted gradient."""
        self._recorded[name].append(gradient.detach().float().square().sum().cpu())

    def finish_step(self, device: torch.device | str = "cpu") -> None:
        """Take the step that was recorded into the running means."""
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
        self.finish_step(args.device)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        find_dual_head(kwargs["model"]).on_shared_gradient = None
