"""A stock Trainer with the dual-head objective."""

from .arguments import DualHeadTrainingArguments
from .lora import add_lora
from .padding_free import check_padding_free
from .trainer import DualHeadTrainer

__all__ = ["DualHeadTrainer", "DualHeadTrainingArguments", "add_lora", "check_padding_free"]
