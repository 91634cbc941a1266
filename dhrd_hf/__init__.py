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

# Module: its public names. They are imported when first used: `import dhrd_hf` imports neither torch nor transformers.
_LAZY = {
    "auto": "AutoModelForDualHeadClassification",
    "configuration_dhrd": "DHRDConfig",
    "modeling_dhrd": "DHRDForDualHeadClassification DHRDOutput",
    "estimator": "DualHeadClassifier",
    "data": "DualHeadEncoder DualHeadCollator",
    "training": "DualHeadTrainer DualHeadTrainingArguments",
    "export": "export_classifier push_classifier",
    "training.label_words": "init_classifier_from_label_words",
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


def lazily(
    package: str, names_of: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose public names are imported when first used; by module."""
    module_of = {name: module for module, names in names_of.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{module_of[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(module_of), get, lambda: sorted({*vars(sys.modules[package]), *module_of})


_, __getattr__, __dir__ = lazily(__name__, _LAZY)

registration.register()
