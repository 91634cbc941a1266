"""The dual-head model in transformers' auto classes, from the moment that they are imported.

Importing them takes seconds, which a command that only prints its help would spend for nothing. So where they are not
imported yet, their modules are registered with behind their own import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_CONFIG, _CONFIGS, _MODELS = (
    f"{__package__}.configuration_dhrd",
    *(f"transformers.models.auto.{it}_auto" for it in ("configuration", "modeling")),
)
_imported: set[str] = set()
_registered: set[str] = set()


def register() -> None:
    """Register with what of transformers is imported now, and with the rest when it is."""
    for name in (_CONFIGS, _MODELS, _CONFIG):
        if name in sys.modules:
            _imported.add(name)
        else:
            sys.meta_path.insert(0, _Behind(name))
    _register_imported()


def _register_imported() -> None:
    if _CONFIG in sys.modules and _CONFIG not in _imported:  # it is what imports transformers right now
        return
    for name in (_CONFIGS, _MODELS):
        if name not in _imported:
            continue
        from .configuration_dhrd import DHRDConfig

        if name in _registered:  # by that import, or before
            continue
        _registered.add(name)
        if name == _CONFIGS:
            sys.modules[name].AutoConfig.register("dhrd", DHRDConfig)
            continue
        for auto in ("AutoModel", "AutoModelForSequenceClassification"):
            getattr(sys.modules[name], auto).register(DHRDConfig, _stand_in(DHRDConfig))


def _stand_in(config: type) -> type:
    """What the auto classes hold until the first dual-head model is made: it imports the model's class and hands over."""

    class DHRDForDualHeadClassification:  # pipelines look supported models up by this name
        config_class = config

        @classmethod
        def _model_class(cls) -> Any:
            from transformers import AutoModel, AutoModelForSequenceClassification

            from .modeling_dhrd import DHRDForDualHeadClassification

            for auto in (AutoModel, AutoModelForSequenceClassification):
                auto.register(config, DHRDForDualHeadClassification, exist_ok=True)
            return DHRDForDualHeadClassification

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            return cls._model_class().from_pretrained(*args, **kwargs)

        @classmethod
        def _from_config(cls, *args: Any, **kwargs: Any) -> Any:
            return cls._model_class()._from_config(*args, **kwargs)

    return DHRDForDualHeadClassification


class _Behind:
    """Finds one module as Python does, and registers once it has been imported."""

    def __init__(self, name: str):
        self.name = name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _imported.add(self.name)
            _register_imported()

        spec.loader.exec_module = exec_module
        return spec
