"""Opening models and tokenizers: what is said where one is not there, not whole, or not what a reader of it takes."""

from __future__ import annotations

import json
import os
import timeit
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .data.label_names import PROBLEM_TYPES
from .files import near_path

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

Model = TypeVar("Model", bound="torch.nn.Module")

_SAID = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)
_LONGEST_REASON = 300
_SLOW = 3.0  # times float32's seconds
# Where a model says what it is: itself, an exported adapter, another adapter.
_CONFIGS = ("config.json", "config/config.json", "adapter_config.json")


def no_such_model(name: str, reason: object) -> str:
    """What is wrong with a name that is neither a folder here nor a model on the Hub."""
    near = near_path(Path(name), () if "/" in name else ("smollm2",))
    here = f"{near} And as" if near.endswith("?") else ", and as"
    return f"{name} is no folder here{here} a Hub model it can't be read: {reason}"


def check_model_name(model: str) -> None:
    """Raise on what is neither a folder here nor a model on the Hub, which is asked once."""
    path = Path(model).expanduser()
    if not path.exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise FileNotFoundError(f"no such folder: {model}{near_path(path)}")
    if path.is_file():
        raise FileNotFoundError(f"{model} is a file: name the folder of a model.")
    if path.exists() or model == "smollm2":
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    try:
        if any(isinstance(try_to_load_from_cache(model, name), str) for name in _CONFIGS):
            return
        if constants.HF_HUB_OFFLINE:
            raise OSError("it is not among the models that were downloaded, and HF_HUB_OFFLINE is set")
        HfApi().model_info(model, timeout=10)
    # The Hub fails in many ways, with as many exception classes.
    except Exception as error:
        raise FileNotFoundError(no_such_model(model, " ".join(str(error).split())[:_LONGEST_REASON])) from error


def local_config(model: str) -> dict[str, str] | None:
    """The prompt and the label column that the config of a model names, where the model is a folder here."""
    for name in _CONFIGS[:2]:
        with suppress(OSError, ValueError, AttributeError):
            found = json.loads((Path(model).expanduser() / name).read_text(encoding="utf-8"))
            # What is not as it should be is said where the model is opened.
            known = {it: found.get(it) for it in ("prompt_template", "label_column")}
            return {it: value for it, value in known.items() if isinstance(value, str)}
    return None


@contextmanager
def readable_model(name: str | os.PathLike) -> Iterator[None]:
    """Say in a line, where a model or its tokenizer is opened, which is not whole or not what a reader of it takes."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(
            f"the weights of {name} can't be read ({error}): download them again; a Git LFS pointer wants git lfs pull"
        ) from error
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":
            raise ValueError(
                f"{name} has weights in a pickle that may run code where it is opened, which is refused: save them as safetensors."
            ) from error
        if type(error) is ValueError and str(name) not in str(error):
            raise ValueError(f"{name}: {error}") from error
        if (
            isinstance(error, _SAID)
            and not isinstance(error, json.JSONDecodeError)
            or type(error).__name__ == "OutOfMemoryError"
            or "keyword argument" in str(error)
        ):
            raise
        # Whatever a value of a file, which should have been another, made libraries trip over.
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ValueError(
            f"{name} can't be opened ({type(error).__name__}: {reason}): one of its files is damaged or holds what it should "
            "not. Download or export it again."
        ) from error


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], source: str | os.PathLike) -> None:
    """Raise where the weights of a model hold NaN or infinities."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.element_size() > 1 and tensor.device.type != "meta":
            finite = tensor.isfinite()
            if not finite.all():
                wrong = tensor.numel() - int(finite.sum())
                raise FloatingPointError(
                    f"{source} has a tensor {name} of which {wrong} of {tensor.numel()} numbers are not finite: what it would "
                    "say means nothing. Take an earlier checkpoint, or train with a lower learning rate."
                )


@contextmanager
def without_its_code(name: str | os.PathLike) -> Iterator[None]:
    """Say in a line that what is loaded comes with code of its own, where `trust_remote_code=False` keeps it from running."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code=True" not in str(error):
            raise
        raise ValueError(
            f"{name} comes with code of its own (auto_map in its config), which is not run. Name a model whose type "
            "transformers knows, or read that code and open it in Python with trust_remote_code=True."
        ) from error


def load_tokenizer(name: str | os.PathLike, **kwargs: Any) -> Any:
    """A tokenizer as `AutoTokenizer` opens it; code that comes with it is run with `trust_remote_code=True` alone."""
    from transformers import AutoTokenizer

    with readable_model(name), without_its_code(name):
        tokenizer = AutoTokenizer.from_pretrained(name, **{"trust_remote_code": False, **kwargs})
        limit = tokenizer.model_max_length
        if limit is not None and (isinstance(limit, bool | str) or not limit > 0):
            raise ValueError(f"{name} has a tokenizer whose model_max_length is {limit!r}, not a number above 0.")
        return tokenizer


@cache
def times_slower(dtype: torch.dtype | None, device: torch.device) -> float | None:
    """How much slower than in float32 a processor multiplies in 16 bits without instructions for them; None: it is not.

    torch computes in software then and says nothing; a product is timed in both.
    """
    import torch

    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return None
    ratio = _product_seconds(dtype) / _product_seconds(torch.float32)
    return ratio if ratio > _SLOW else None


def _product_seconds(dtype: torch.dtype) -> float:
    import torch

    one = torch.ones(256, 256, dtype=dtype)
    return min(timeit.repeat(lambda: one @ one, number=1, repeat=3))


def put_on(model: Model, device: str | torch.device | None = None) -> Model:
    """The model on a device; by default on the accelerator where there is one."""
    import torch
    from transformers.utils import logging

    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        model = model.to(device)
    # A torch that is built without CUDA raises an AssertionError.
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"the model can't be put on device {str(device)!r}: {str(error).splitlines()[0]}") from error
    dtype = next((it.dtype for it in model.parameters()), None)
    if ratio := times_slower(dtype, torch.device(device)):
        logging.get_logger(__name__).warning(
            f"The model is in {str(dtype).removeprefix('torch.')}, in which this processor multiplies {ratio:.0f} times slower "
            "than in float32: open it with dtype float32."
        )
    return model


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """A model in evaluation mode, and afterwards as it was."""
    if not any(module.training for module in model.modules()):  # setting it takes longer than a small batch does
        yield
        return
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def open_stock(name: str | os.PathLike, **kwargs: Any) -> Any:
    """A sequence classifier whose weights are all there."""
    from transformers import AutoModelForSequenceClassification

    from .modeling_dhrd import check_loaded

    # Mismatched sizes would be an error of transformers with a table in its log; `check_loaded` says it in a line.
    kwargs = {"ignore_mismatched_sizes": True, "trust_remote_code": False, **kwargs}
    model, info = AutoModelForSequenceClassification.from_pretrained(name, output_loading_info=True, **kwargs)
    # Weights that are missing would be random; those left over, such as a pretraining head's, do no harm.
    check_loaded({**info, "unexpected_keys": ()}, name)
    return model


# What the values of a saved config should be: transformers reads them from the file as they are


# By which a calibrated classifier is judged: what each label needs, what an answer needs, what a label of a set needs.
THRESHOLDS = ("label_thresholds", "abstention_threshold", "label_set_threshold")


def check_config(config: PreTrainedConfig, name: str | os.PathLike) -> None:
    """Raise on a value that something would trip over later, or that would have the labels mean other ones."""
    for key, value, expected in _faults(config):
        raise ValueError(f"{name}: {key} in its config should be {expected}, and is {str(value)[:200]}.")


def _faults(config: PreTrainedConfig) -> Iterator[tuple[str, Any, str]]:
    """The names of values that should be others, with what is there and what should be."""
    labels, architectures = config.id2label or {}, config.architectures or []
    if not isinstance(architectures, list):
        yield "architectures", architectures, "a list of names"
    if config.model_type == "dhrd" and config.backbone_config is None:
        yield "backbone_config", None, "the config of the language model"
    elif config.model_type == "dhrd" or "ForSequenceClassification" in str(architectures):
        text_config, named = config.get_text_config(), [labels.get(index) for index in range(len(labels))]
        if not all(isinstance(it, str) for it in named) or len(set(named)) < len(named):
            yield "id2label", labels, f"{len(labels)} names, each another, for the ids from 0 on"
        elif config.label2id != (fitting := {label: index for index, label in enumerate(named)}):
            yield "label2id", config.label2id, f"{fitting}, as id2label has it"
        pad, tokens = text_config.pad_token_id, getattr(text_config, "vocab_size", None)
        if isinstance(pad, int) and isinstance(tokens, int) and pad >= tokens:
            yield "pad_token_id", pad, f"one of its {tokens} tokens"
    for key in ("prompt_template", "suffix_template"):
        if not isinstance(value := getattr(config, key, None), str | None):
            yield key, value, "a text"
    limit, kind = getattr(config, "max_input_length", None), config.problem_type
    if limit is not None and (type(limit) is not int or limit < 1):
        yield "max_input_length", limit, "a whole number above 0"
    if kind is not None and kind not in PROBLEM_TYPES:
        yield "problem_type", kind, f"one of {', '.join(PROBLEM_TYPES)}"
    given, *others = (getattr(config, key, None) for key in THRESHOLDS)
    if given is not None and not (
        isinstance(given, dict) and all(it in labels.values() and _is_share(share) for it, share in given.items())
    ):
        yield "label_thresholds", given, "some of its labels, each with a number from 0 to 1"
    for key, share in zip(THRESHOLDS[1:], others, strict=True):
        if share is not None and not _is_share(share):
            yield key, share, "a number from 0 to 1"


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1
