"""From rows (text, label, rationale) to padded batches."""

from .collator import DualHeadCollator, input_only
from .counts import EncodingCounts
from .encoding import DualHeadEncoder
from .inputs import ensure_pad_token

__all__ = ["DualHeadCollator", "DualHeadEncoder", "EncodingCounts", "ensure_pad_token", "input_only"]
