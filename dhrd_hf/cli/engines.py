"""What `dhrd export` and `dhrd predict` share of the engines: a model on its way from training to one of them."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# As in dhrd_hf.export, which imports torch: --help should not.
ENGINES = ("onnx", "openvino")


@contextlib.contextmanager
def on_engine(model: str, engine: str | None) -> Iterator[str]:
    """The folder that holds a model for an engine: its own, or an export that lasts as long as the context.

    Args:
        model (`str`): Run directory, export or Hub id of a classifier.
        engine (`str`, *optional*): `"torch"`, `"onnx"` or `"openvino"`; by default what the model is for.

    Returns:
        `Iterator[str]`: the folder, or the Hub id.

    Raises:
        ValueError: if the model was exported for another engine, or as [`export_engine`].
        ModuleNotFoundError: if the engine is not installed.
    """
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
    """A stock classifier: the model itself, or the dense export of a training checkpoint while the context lasts.

    Args:
        model (`str`): Run directory, export or Hub id of a classifier.

    Returns:
        `Iterator[str]`: the folder, or the Hub id.

    Raises:
        ValueError, OSError: as [`export_classifier`].
    """
    from transformers import AutoTokenizer

    from .. import AutoModelForDualHeadClassification, export_classifier

    if not is_training_checkpoint(model):
        yield model
        return
    with tempfile.TemporaryDirectory() as scratch:
        trained = AutoModelForDualHeadClassification.from_pretrained(model)
        yield str(export_classifier(trained, AutoTokenizer.from_pretrained(model), Path(scratch) / "classifier"))


def is_training_checkpoint(model: str) -> bool:
    """Whether a model still has its reasoning head.

    Args:
        model (`str`): Run directory, export or Hub id.

    Returns:
        `bool`: what the config says.

    Raises:
        OSError: if there is no such model.
    """
    from ..auto import load_config
    from ..configuration_dhrd import DHRDConfig

    config = load_config(model)
    return isinstance(config, DHRDConfig) and config.reasoning_head
