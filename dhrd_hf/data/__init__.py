"""From rows (text, label, rationale) to padded batches."""

from .. import lazily

# By module: who reads a table needs no tokenizer, and no torch beneath it.
_NAMES_OF = {
    "collator": "DualHeadCollator input_only",
    "encoding": "DualHeadEncoder",
    "counts": "EncodingCounts",
    "inputs": "ensure_pad_token",
}
__all__, __getattr__, __dir__ = lazily(__name__, _NAMES_OF)
