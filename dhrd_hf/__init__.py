"""Dual-Head Reasoning Distillation for Hugging Face Transformers.

Source: Zhou et al. 2025, "Dual-Head Reasoning Distillation: Improving Classifier Accuracy with Train-Time-Only Reasoning",
arXiv 2509.21487.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import registration

__version__ = "0.1.1"

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
    "init_classifier_from_label_words": "training.label_words",
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
    from .modeling_dhrd import DHRDForDualHeadClassification, DHRDOutput
    from .training import DualHeadTrainer, DualHeadTrainingArguments
    from .training.label_words import init_classifier_from_label_words


def lazily(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names come from modules that are imported when first used."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{modules[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *modules})


__getattr__, __dir__ = lazily(__name__, _LAZY)

registration.register()
