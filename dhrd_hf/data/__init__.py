"""From rows (text, label, rationale) to padded batches."""

from .. import lazily

# Public name -> module: who reads a table needs no tokenizer, and no torch beneath it.
_LAZY = {
    "DualHeadCollator": "collator",
    "DualHeadEncoder": "encoding",
    "EncodingCounts": "counts",
    "ensure_pad_token": "inputs",
    "input_only": "collator",
}
__all__ = list(_LAZY)
__getattr__, __dir__ = lazily(__name__, _LAZY)
