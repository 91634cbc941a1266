"""`verify_export`: an export held against its own contract, on whatever engine it was written for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerBase
from transformers.utils import logging

from ..config_check import check_config
from ..configuration_dhrd import ADAPTER_CONFIG_FOLDER
from ..data.inputs import known_limit
from ..files import load_tokenizer, readable_model
from ..modeling_dhrd import check_loaded
from .contract import CONTRACT, Contract
from .engines import EngineClassifier, engine_of
from .replay import Replay, replay

logger = logging.get_logger(__name__)


def verify_export(folder: str | os.PathLike, tolerance: float | None = None) -> Replay:
    """Open an export as a stranger does and replay the golden texts of its contract.

    The texts are tokenised by the folder's own tokenizer with `truncation=True`; their ids have to be the golden ones. Their
    logits are computed in padded batches, and some alone. What config and tokenizer say has to be what the contract says.

    Example:

    ```python
    >>> from dhrd_hf.export import verify_export
    >>> verify_export("my-classifier").faults()  # doctest: +SKIP
    []

    ```

    Args:
        folder (`str` or `os.PathLike`): What [`export_classifier`] or [`export_engine`] wrote: a dense or mlp classifier, an
            adapter, or an export for ONNX Runtime or OpenVINO, in float32 or int8.
        tolerance (`float`, *optional*): The largest difference of a logit that passes. By default 1e-4 of the largest logit
            (5e-2 in 16 and 8 bits), or half as much again as the export was off when it was written.

    Returns:
        [`~dhrd_hf.export.replay.Replay`]: what differs.

    Raises:
        FileNotFoundError: if there is no such folder, or no contract in it.
        ValueError, OSError: if the contract or the classifier can't be read.

    Source: transformers `pipelines/text_classification.py`, which tokenises, pads and pools in this way.
    """
    contract = Contract.read(folder)
    with readable_model(folder):
        model, tokenizer = open_export(folder)
    found = replay(model, tokenizer, contract, tolerance)
    return replace(found, remarks=[*_disagreements(model.config, tokenizer, contract)])


def check_contract(folder: str | os.PathLike) -> None:
    """Raise where an export is not what its contract says; where an adapter's base or an engine is missing, the log says so."""
    try:
        faults = verify_export(folder).faults()
    except (OSError, ImportError) as error:
        if isinstance(error, OSError) and not (Path(folder) / "adapter_config.json").is_file():
            raise
        logger.warning(f"The golden texts were not replayed: {error}")
        return
    if faults:
        raise ValueError(f"{folder} is not what its {CONTRACT} says: {'; '.join(faults)}. Export it anew.")


def open_export(folder: str | os.PathLike) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The classifier of an export's folder as it stands there, and its tokenizer."""
    return _opened(folder), load_tokenizer(folder)


def _opened(folder: str | os.PathLike) -> nn.Module:
    if engine_of(folder) != "torch":
        return EngineClassifier.from_pretrained(folder)
    if (Path(folder) / "adapter_config.json").is_file():
        config = AutoConfig.from_pretrained(Path(folder) / ADAPTER_CONFIG_FOLDER, trust_remote_code=False)
        return open_adapter(folder, config)
    loading = {"output_loading_info": True, "ignore_mismatched_sizes": True, "trust_remote_code": False}
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto", **loading)
    check_loaded({**info, "unexpected_keys": ()}, folder)
    return model


def open_adapter(folder: str | os.PathLike, config: Any, **kwargs: Any) -> nn.Module:
    """An exported adapter on the stock classifier of its base model."""
    from peft import PeftConfig, PeftModel

    adapter = PeftConfig.from_pretrained(folder)
    base = adapter.base_model_name_or_path
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            base, revision=adapter.revision, config=config, **{"dtype": "auto", "trust_remote_code": False, **kwargs}
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{folder} is an adapter of {base}, which can't be opened here: {reason}") from error
    return PeftModel.from_pretrained(model, folder)


def _disagreements(config: Any, tokenizer: PreTrainedTokenizerBase, contract: Contract) -> Iterator[str]:
    """What config and tokenizer say, where the contract says another thing, or nothing could be meant."""
    try:
        check_config(config, "the folder")
    except ValueError as error:
        yield str(error)
    pairs = {
        "labels": ([config.id2label.get(index) for index in range(config.num_labels)], contract.labels),
        "the input limit": (known_limit(tokenizer), contract.max_length),
        "the truncation side": (tokenizer.truncation_side, contract.truncation_side),
        "the padding side": (tokenizer.padding_side, contract.padding_side),
        "the pad token's id": (config.get_text_config().pad_token_id, contract.pad_token_id),
        "the prompt": (getattr(config, "prompt_template", None), contract.prompt_template),
        "thresholds": (getattr(config, "label_thresholds", None), contract.thresholds),
    }
    if config.problem_type is not None:
        pairs["the problem type"] = (config.problem_type, contract.problem_type)
    for name, (found, expected) in pairs.items():
        if found != expected:
            yield f"{name}: {found!r} in the folder, {expected!r} in the contract"
