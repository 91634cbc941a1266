"""What `dhrd export` and `dhrd predict` share of the engines: a model on its way from training to one of them."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# As in dhrd_hf.export, which imports torch: --help should not.
ENGINES = ("onnx", "openvino")


@contextlib.contextmanager
def on_engine(model: str, engine: str | None) -> Iterator[str]:
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
        print(f"Exporting {model} for {engine} first; dhrd export --format {engine} would keep it.", file=sys.stderr)
        export_engine(dense, folder, engine)
        yield folder


@contextlib.contextmanager
def dense_folder(model: str) -> Iterator[str]:
    """A stock classifier: the model itself or, while the context lasts, a dense export of it."""
    from transformers.utils import find_adapter_config_file

    from .. import export_classifier
    from ..evaluation import load_classifier
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
    """The dual-head model of a run directory, and its tokenizer."""
    from .. import AutoModelForDualHeadClassification
    from ..files import load_tokenizer, readable_model

    with readable_model(model):
        return AutoModelForDualHeadClassification.from_pretrained(model), load_tokenizer(model)


def is_training_checkpoint(model: str) -> bool:
    """Whether a model still has its reasoning head."""
    from ..auto import load_config
    from ..configuration_dhrd import DHRDConfig

    config = load_config(model)
    return isinstance(config, DHRDConfig) and config.reasoning_head
