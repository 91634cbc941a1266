"""`verify_export`: an export held against its own contract, on whatever engine it was written for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from ..auto import load_config
from ..opening import load_tokenizer, open_stock, readable_model
from .contract import CONTRACT, Contract, contract_of
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
    >>> verify_export("my-classifier").faults()
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
        tokenizer, model = load_tokenizer(folder), _opened(folder)
    found = replay(model, tokenizer, contract, tolerance)
    return replace(found, remarks=[*_disagreements(folder, model, tokenizer, contract)])


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


def _opened(folder: str | os.PathLike) -> nn.Module:
    config = load_config(folder)
    if engine_of(folder) != "torch":
        return EngineClassifier.from_pretrained(folder)
    if (Path(folder) / "adapter_config.json").is_file():
        return open_adapter(folder, config)
    return open_stock(folder, dtype="auto")


def open_adapter(folder: str | os.PathLike, config: Any, **kwargs: Any) -> nn.Module:
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


# What is not read off the folder, or is measured on it.
_NOT_COMPARED = {"golden", "measured", "format_version", "written_by"}


def _disagreements(folder: str | os.PathLike, model: nn.Module, tokenizer: Any, contract: Contract) -> Iterator[str]:
    """What the folder's config and tokenizer say, where the contract says another thing, or nothing could be meant."""
    if tokenizer.chat_template is not None:
        yield "the folder has a chat template, into which CrossEncoder puts every text: remove it"
    if tokenizer.pad_token_id is None:
        yield "the tokenizer has no pad token"
        return
    config, engine = model.config, engine_of(folder)
    if config.get_text_config().pad_token_id != contract.pad_token_id:
        found = config.get_text_config().pad_token_id
        yield f"the model's pad_token_id: {found!r} in the folder, {contract.pad_token_id!r} in the contract"
    now = contract_of(
        config,
        tokenizer,
        contract.golden,
        **({} if engine == "torch" else {"pooled_token": contract.pooled_token}),  # a graph does not say it
        temperature=contract.temperature,
        thresholds=getattr(config, "label_thresholds", None),
        engine=engine,
        dtype=str(model.dtype).removeprefix("torch."),
    )
    for name in (it.name for it in fields(Contract) if it.name not in _NOT_COMPARED):
        found, expected = getattr(now, name), getattr(contract, name)
        if found != expected:
            yield f"{name}: {found!r} in the folder, {expected!r} in the contract"
