"""Rationales: a teacher writes them, checks and an audit say what they are worth, and the good ones are chosen."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module, imported when first used: an audit wants no model, and a choice no audit.
_LAZY = {
    "LabelledTable": "labelled",
    "Sampling": "teacher",
    "TeacherPrompt": "prompt",
    "audit_rationales": "audit",
    "check_rationale": "checks",
    "filter_rationales": "filter",
    "generate_rationales": "generate",
    "open_teacher": "teacher",
    "select_best": "select",
    "shorten": "filter",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
