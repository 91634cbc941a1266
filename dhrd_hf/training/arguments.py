"""Training arguments: transformers' own, with the paper's settings as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class DualHeadTrainingArguments(TrainingArguments):
    r"""`TrainingArguments` with the paper's optimiser settings as defaults; nothing is added or renamed.

    Example:

    ```python
    >>> from dhrd_hf import DualHeadTrainingArguments
    >>> args = DualHeadTrainingArguments(output_dir="out", per_device_train_batch_size=4)  # doctest: +SKIP
    >>> args.learning_rate, args.num_train_epochs, args.warmup_steps  # doctest: +SKIP
    (0.0002, 3.0, 5)

    ```

    Args:
        learning_rate (`float`, *optional*, defaults to 2e-4): The paper's, for LoRA; full fine-tuning wants less.
        weight_decay (`float`, *optional*, defaults to 0.01): The paper's.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): The paper's.
        warmup_steps (`float`, *optional*, defaults to 5): The paper's.
        num_train_epochs (`float`, *optional*, defaults to 3.0): The paper's.
        kwargs (*optional*): Everything else that `transformers.TrainingArguments` takes, with its defaults. The paper
            trained in bf16 with batches of 32 (per device 1, 32 accumulation steps).

    Source: Xu et al. 2025, arXiv 2509.21487, appendix E.5.
    """

    learning_rate: float = field(
        default=2e-4, metadata={"help": "Peak learning rate of AdamW (the paper's, for LoRA)."}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW (the paper's)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule (the paper's)."})
    warmup_steps: float = field(default=5, metadata={"help": "Steps of linear warm-up (the paper's)."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training rows (the paper's)."})
