"""A stock Trainer with the dual-head objective."""

from .. import lazily

# Public name -> module: the options of a training are read without torch.
_LAZY = {
    "add_lora": "lora",
    "ALPHA_SCHEDULES": "options",
    "check_padding_free": "rows",
    "DualHeadTrainer": "trainer",
    "DualHeadTrainingArguments": "arguments",
    "GradientBalance": "alpha",
    "scheduled_alpha": "alpha",
    "Teacher": "soft_targets",
}
__all__ = list(_LAZY)
__getattr__, __dir__ = lazily(__name__, _LAZY)
