"""A stock Trainer with the dual-head objective."""

from .arguments import DualHeadTrainingArguments
from .trainer import DualHeadTrainer

__all__ = ["DualHeadTrainer", "DualHeadTrainingArguments"]
