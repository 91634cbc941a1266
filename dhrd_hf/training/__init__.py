"""A stock Trainer with the dual-head objective."""

from .arguments import DualHeadTrainingArguments
from .lora import add_lora
from .trainer import DualHeadTrainer

__all__ = ["DualHeadTrainer", "DualHeadTrainingArguments", "add_lora"]
