"""Dual-Head Reasoning Distillation for Hugging Face Transformers.

Source: Zhou et al. 2025, "Dual-Head Reasoning Distillation: Improving Classifier Accuracy with Train-Time-Only Reasoning",
arXiv 2509.21487.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import registration
from .version import __version__

# Public name -> module. They are imported when first used: `import dhrd_hf` imports neither torch nor transformers.
_LAZY = {
    "AutoModelForDualHeadClassification": "auto",
    "DHRDConfig": "configuration_dhrd",
    "DHRDForDualHeadClassification": "modeling_dhrd",
    "DHRDOutput": "modeling_dhrd",
    "DualHeadClassifier": "estimator",
    "DualHeadEncoder": "data",
    "DualHeadCollator": "data",
    "DualHeadTrainer": "training",
    "DualHeadTrainingArguments": "training",
    "export_classifier": "export",
    "init_classifier_from_label_words": "label_words",
    "push_classifier": "export",
}

__all__ = [
    "AutoModelForDualHeadClassification",
    "DHRDConfig",
    "DHRDForDualHeadClassification",
    "DHRDOutput",
    "DualHeadClassifier",
    "DualHeadCollator",
    "DualHeadEncoder",
    "DualHeadTrainer",
    "DualHeadTrainingArguments",
    "__version__",
    "export_classifier",
    "init_classifier_from_label_words",
    "push_classifier",
]

if TYPE_CHECKING:
    from .auto import AutoModelForDualHeadClassification
    from .configuration_dhrd import DHRDConfig
    from .data import DualHeadCollator, DualHeadEncoder
    from .estimator import DualHeadClassifier
    from .export import export_classifier, push_classifier
    from .label_words import init_classifier_from_label_words
    from .modeling_dhrd import DHRDForDualHeadClassification, DHRDOutput
    from .training import DualHeadTrainer, DualHeadTrainingArguments


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


registration.register()
