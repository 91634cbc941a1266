"""A stock Trainer with the dual-head objective."""

from .alpha import ALPHA_SCHEDULES, GradientBalance, scheduled_alpha
from .arguments import DualHeadTrainingArguments
from .lora import add_lora
from .padding_free import check_padding_free
from .soft_targets import Teacher
from .trainer import DualHeadTrainer

__all__ = [
    "ALPHA_SCHEDULES",
    "DualHeadTrainer",
    "DualHeadTrainingArguments",
    "GradientBalance",
    "Teacher",
    "add_lora",
    "check_padding_free",
    "scheduled_alpha",
]
