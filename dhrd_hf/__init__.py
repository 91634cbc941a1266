"""Dual-Head Reasoning Distillation for Hugging Face Transformers.

Source: Zhou et al. 2025, "Dual-Head Reasoning Distillation: Improving Classifier Accuracy with Train-Time-Only Reasoning",
arXiv 2509.21487.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from .configuration_dhrd import DHRDConfig
from .version import __version__

# Public name -> module. They are imported when first used, so that `import dhrd_hf` costs what transformers' auto
# classes cost.
_LAZY = {
    "AutoModelForDualHeadClassification": "auto",
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


class _ModelStandIn:
    """What transformers' auto classes hold until the first dual-head model is made: it imports and hands over."""

    config_class = DHRDConfig

    @classmethod
    def _model_class(cls) -> Any:
        from .modeling_dhrd import DHRDForDualHeadClassification

        for auto in (AutoModel, AutoModelForSequenceClassification):
            auto.register(DHRDConfig, DHRDForDualHeadClassification, exist_ok=True)
        return DHRDForDualHeadClassification

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._model_class().from_pretrained(*args, **kwargs)

    @classmethod
    def _from_config(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._model_class()._from_config(*args, **kwargs)


_ModelStandIn.__name__ = "DHRDForDualHeadClassification"  # pipelines look supported models up by this name

AutoConfig.register("dhrd", DHRDConfig)
for _auto in (AutoModel, AutoModelForSequenceClassification):
    _auto.register(DHRDConfig, _ModelStandIn)
