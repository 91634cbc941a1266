"""`load_classifier`: whatever was trained or exported, opened for prediction."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from ..adapters import merged
from ..auto import AutoModelForDualHeadClassification, load_config
from ..configuration_dhrd import DHRDConfig
from ..opening import check_finite, load_tokenizer, open_stock, put_on, readable_model


def load_classifier(
    name_or_path: str | os.PathLike, *, device: str | torch.device | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open an exported or stock classifier, a dual-head checkpoint or a run directory, for prediction.

    An adapter is merged into its base model, which predicts the same and faster. What [`export_engine`] wrote runs on
    its engine.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import load_classifier
    >>> model, tokenizer = load_classifier("runs/rte")
    >>> model.config.id2label
    {0: 'entailment', 1: 'not_entailment'}

    ```

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder.
        device (`str` or `torch.device`, *optional*): Where to put it; by default the accelerator if there is one, else
            the CPU. Leave it out together with `device_map`.
        kwargs (*optional*): What `from_pretrained` takes: `dtype`, `attn_implementation`, `device_map`, ...

    Returns:
        `tuple[PreTrainedModel, PreTrainedTokenizerBase]`: the model in eval mode, and its tokenizer.

    Raises:
        ValueError: if the checkpoint has no trained classification head, there is no such dtype or device, or an export for
            an engine is given options.
        FileNotFoundError: if there is no such checkpoint.
        OSError: if its weights are not whole.
        FloatingPointError: if they are not finite.
    """
    dtype = kwargs.get("dtype", "auto")
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype {dtype!r} is not one of torch's; say float32, bfloat16 or float16.")
    from ..export.engines import EngineClassifier, engine_of

    if engine_of(name_or_path) != "torch":
        if str(device or "cpu") != "cpu":
            raise ValueError(
                f"{name_or_path} is an export for another engine, which runs on the CPU, not on {device!r}."
            )
        options = {name: value for name, value in kwargs.items() if (name, value) != ("dtype", "auto")}
        if options:
            raise ValueError(
                f"{name_or_path} is an export for another engine, which runs as it was exported: leave "
                f"{', '.join(options)} out."
            )
        with readable_model(name_or_path):
            load_config(name_or_path)  # for its checks
            return EngineClassifier.from_pretrained(name_or_path), load_tokenizer(name_or_path)
    kwargs.setdefault("trust_remote_code", False)
    config = load_config(name_or_path, trust_remote_code=kwargs["trust_remote_code"])
    with readable_model(name_or_path):
        tokenizer = load_tokenizer(name_or_path, trust_remote_code=kwargs["trust_remote_code"])
        model = _open(name_or_path, config, kwargs)
    check_finite(model.named_parameters(), name_or_path)
    if device is not None or "device_map" not in kwargs:
        model = put_on(model, device)
    return model.eval(), tokenizer


def _open(name_or_path: str | os.PathLike, config: PreTrainedConfig, kwargs: dict) -> PreTrainedModel:
    if isinstance(config, DHRDConfig) and config.reasoning_head:
        model = AutoModelForDualHeadClassification.from_pretrained(name_or_path, **kwargs)
        return merged(model)
    if not isinstance(config, DHRDConfig) and find_adapter_config_file(os.fspath(name_or_path)) is not None:
        from ..export.verification import open_adapter

        return open_adapter(name_or_path, config, **kwargs).merge_and_unload()
    if not isinstance(config, DHRDConfig):
        _check_classifier(config, name_or_path)
    return open_stock(name_or_path, **kwargs)


def _check_classifier(config: Any, name_or_path: str | os.PathLike) -> None:
    architectures = config.architectures or []
    if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ValueError(
            f"{name_or_path} is a {', '.join(architectures)}, which has no classification head. Name a run directory "
            "of `dhrd train`, an export, or another sequence classifier."
        )


@contextlib.contextmanager
def on_engine(model: str, engine: str | None, say: Callable[[str], None]) -> Iterator[str]:
    """The folder that holds a model for an engine: its own, or an export that lasts as long as the context."""
    from ..export.engines import engine_of, export_engine

    made_for = engine_of(model)
    if engine in (None, made_for):
        yield model
        return
    if made_for != "torch":
        raise ValueError(
            f"{model} was exported for {made_for}: leave --engine {engine} out, or name the classifier it was made from."
        )
    with tempfile.TemporaryDirectory() as scratch, dense_folder(model) as dense:
        folder = str(Path(scratch) / engine)
        say(f"Exporting {model} for {engine} first; dhrd export --format {engine} would keep it.")
        export_engine(dense, folder, engine)
        yield folder


@contextlib.contextmanager
def dense_folder(model: str) -> Iterator[str]:
    """A stock classifier: the model itself or, while the context lasts, a dense export of it."""
    from .. import export_classifier
    from ..export.contract import CONTRACT

    trains = is_training_checkpoint(model)
    if not trains and find_adapter_config_file(model) is None:
        yield model
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "classifier"
        if trains:
            export_classifier(*open_run(model), folder)
        else:  # an exported adapter, whose base alone would be exported
            for part in load_classifier(model, device="cpu"):
                part.save_pretrained(folder)
            if (Path(model) / CONTRACT).is_file():  # its temperature, and its user's own texts
                shutil.copy(Path(model) / CONTRACT, folder)
        yield str(folder)


def open_run(model: str) -> tuple[Any, Any]:
    with readable_model(model):
        return AutoModelForDualHeadClassification.from_pretrained(model), load_tokenizer(model)


def is_training_checkpoint(model: str) -> bool:
    """Whether a model still has its reasoning head."""
    config = load_config(model)
    return isinstance(config, DHRDConfig) and config.reasoning_head
