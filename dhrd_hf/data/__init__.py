"""From rows (text, label, rationale) to padded batches."""

from .collator import DualHeadCollator, ensure_pad_token, input_only
from .encoding import DualHeadEncoder, EncodingCounts

__all__ = ["DualHeadCollator", "DualHeadEncoder", "EncodingCounts", "ensure_pad_token", "input_only"]
