"""Training arguments: transformers' own, with the settings that won in our study as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from .alpha import scheduled_alpha
from .options import ALPHA_SCHEDULES


@dataclass
class DualHeadTrainingArguments(TrainingArguments):
    r"""`TrainingArguments` with defaults for LoRA on a small model and a few hundred rows, and the schedule of the reasoning loss.

    The defaults are what the study in docs/results.md was run with; `examples/paper.yaml` has the paper's, for models of 3B and more.

    Example:

    ```python
    >>> from dhrd_hf import DualHeadTrainingArguments
    >>> args = DualHeadTrainingArguments(output_dir="out", per_device_train_batch_size=4)
    >>> args.learning_rate, args.num_train_epochs, args.warmup_steps
    (0.0005, 6.0, 5)

    ```

    Args:
        learning_rate (`float`, *optional*, defaults to 5e-4): For LoRA on a small model. Full fine-tuning wants less, and so may
            a large model: the paper took 2e-4.
        weight_decay (`float`, *optional*, defaults to 0.01): The paper's.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): The paper's.
        warmup_steps (`float`, *optional*, defaults to 5): The paper's.
        num_train_epochs (`float`, *optional*, defaults to 6.0): The paper took 3.
        alpha_schedule (`str`, *optional*, defaults to `"constant"`): How the weight of the reasoning loss goes from the
            model's `config.alpha`, at the first optimiser step, to `alpha_end`, at the last: `"constant"` (stays),
            `"linear"`, `"cosine"`, `"step"`; or `"auto"`, at each step as hard as the classification loss
            ([`GradientBalance`]). It starts above 0: alpha = 0 is the pooled baseline. See
            [`scheduled_alpha`].
        alpha_end (`float`, *optional*, defaults to 0.0): Weight at the end of a schedule.
        alpha_step_at (`float`, *optional*, defaults to 0.5): Share of the steps before `"step"` changes the weight.
        reasoning_share (`float`, *optional*, defaults to 1.0): Share of the optimiser steps that have the reasoning loss, drawn
            by the seed; at the others only x is read, which costs what the pooled baseline's steps cost.
        classifier_learning_rate (`float`, *optional*): Peak learning rate of the classification head; by default it is
            `learning_rate`.
        distillation_weight (`float`, *optional*, defaults to 0.0): Weight of the soft targets of [`DualHeadTrainer`]'s
            teacher.
        temperature (`float`, *optional*, defaults to 1.0): Temperature T of the teacher's and the student's
            distributions; the divergence counts times T squared, as is usual.
        kwargs (*optional*): Everything else that `transformers.TrainingArguments` takes, with its defaults. The paper
            trained in bf16 with batches of 32 (per device 1, 32 accumulation steps).

    Raises:
        ValueError: on an unknown schedule, a share out of its range, a negative or infinite `alpha_end`,
            `classifier_learning_rate` or `distillation_weight`, or a `temperature` that is not above 0.

    Source: `examples/benchmarks/results/smollm2.jsonl`; Zhou et al. 2025, arXiv 2509.21487, appendix E.5; schedules are among its
    future work.
    """

    learning_rate: float = field(
        default=5e-4, metadata={"help": "Peak learning rate of AdamW, for LoRA on a small model (the paper's: 2e-4)."}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW (the paper's)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule (the paper's)."})
    warmup_steps: float = field(default=5, metadata={"help": "Steps of linear warm-up (the paper's)."})
    num_train_epochs: float = field(default=6.0, metadata={"help": "Passes over the training rows (the paper's: 3)."})
    alpha_schedule: str = field(
        default="constant",
        metadata={"help": "Weight of the reasoning loss over the steps, to alpha_end.", "choices": ALPHA_SCHEDULES},
    )
    alpha_end: float = field(default=0.0, metadata={"help": "Weight of the reasoning loss at the schedule's end."})
    alpha_step_at: float = field(
        default=0.5, metadata={"help": "Share of the steps before the schedule 'step' changes the weight."}
    )
    reasoning_share: float = field(
        default=1.0,
        metadata={"help": "Share of the steps with the reasoning loss; the others cost what pooled costs."},
    )
    classifier_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the classification head [learning_rate]."}
    )

    distillation_weight: float = field(default=0.0, metadata={"help": "Weight of a teacher's soft targets."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the soft targets."})

    def __post_init__(self) -> None:
        super().__post_init__()
        scheduled_alpha(0, 1, 1.0, self.alpha_end, self.alpha_schedule, self.alpha_step_at)  # raises on a wrong one
        if not 0 < self.reasoning_share <= 1:
            raise ValueError(
                f"reasoning_share={self.reasoning_share} must be above 0 and at most 1; alpha=0 is the pooled baseline."
            )
        if self.classifier_learning_rate is not None and not 0 <= self.classifier_learning_rate < math.inf:
            raise ValueError(f"classifier_learning_rate={self.classifier_learning_rate} must be 0 or greater.")
        if not 0 <= self.distillation_weight < math.inf:
            raise ValueError(f"distillation_weight={self.distillation_weight} must be 0 or greater.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be above 0.")
