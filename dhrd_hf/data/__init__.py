"""From rows (text, label, rationale) to padded batches."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module, imported when first used: who reads a table needs no tokenizer, and no torch beneath it.
_LAZY = {
    "DualHeadCollator": "collator",
    "DualHeadEncoder": "encoding",
    "EncodingCounts": "counts",
    "ensure_pad_token": "inputs",
    "input_only": "collator",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
