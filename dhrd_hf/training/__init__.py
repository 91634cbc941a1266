"""A stock Trainer with the dual-head objective."""

from .. import lazily

# By module: the options of a training are read without torch.
_NAMES_OF = {
    "lora": "add_lora",
    "options": "ALPHA_SCHEDULES",
    "rows": "check_padding_free",
    "trainer": "DualHeadTrainer",
    "arguments": "DualHeadTrainingArguments",
    "alpha": "GradientBalance scheduled_alpha",
    "soft_targets": "Teacher",
}
__all__, __getattr__, __dir__ = lazily(__name__, _NAMES_OF)
