"""From rows (text, label, rationale) to padded batches."""

from .collator import DualHeadCollator, input_only
from .encoding import DualHeadEncoder, EncodingCounts
from .inputs import ensure_pad_token

__all__ = ["DualHeadCollator", "DualHeadEncoder", "EncodingCounts", "ensure_pad_token", "input_only"]
