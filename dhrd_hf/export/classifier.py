"""`export_classifier`: the same weights without `lm_head`, as the family's own sequence classifier."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.utils import logging

from ..modeling_dhrd import DHRDForDualHeadClassification, check_loaded, find_dual_head

logger = logging.get_logger(__name__)

# How far the logits of what was written may be from the model's, relative to the largest of them (at least 1). In
# float32 only the order of sums differs, and a merged adapter's rounding; the others round each weight they merge.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_COARSE_TOLERANCE = 5e-2


def export_classifier(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | os.PathLike,
    format: str = "dense",
    *,
    overwrite: bool = False,
    max_shard_size: int | str = "5GB",
) -> Path:
    r"""Write the classifier as a stock checkpoint, which loads without this package and has no reasoning head.

    What was written is loaded as a stranger would load it and its logits are compared with the model's, on padded
    batches and alone; a folder that differs is not left behind. The caller's model is not changed: an adapter is merged
    on a copy.

    Example:

    ```python
    >>> from dhrd_hf import export_classifier
    >>> export_classifier(trainer.model, tokenizer, "my-classifier")  # doctest: +SKIP
    >>> from transformers import pipeline  # elsewhere, without dhrd_hf
    >>> pipeline("text-classification", "my-classifier")("It rains. So: It is wet.")  # doctest: +SKIP

    ```

    Args:
        model ([`DHRDForDualHeadClassification`], or a `PeftModel` around one): The model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer, with a pad token; its `model_max_length` is set to
            `model.config.max_input_length` in the export where that is known, so `truncation=True` cuts as in training.
        output_dir (`str` or `os.PathLike`): The folder to write; it must not exist or be empty.
        format (`str`, *optional*, defaults to `"dense"`): `"dense"`: all weights of the stock classifier.
        overwrite (`bool`, *optional*, defaults to `False`): Replace the folder if it holds something.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): As in `save_pretrained`.

    Returns:
        `Path`: the folder: config (labels, pad token, problem type, architecture, and `prompt_template` where the
        model's config has one), safetensors, tokenizer.

    Raises:
        FileExistsError: if the folder holds something and `overwrite` is off.
        TypeError: if the model has not two heads.
        ValueError: if the tokenizer has no pad token or another than the model, or the written classifier differs.

    Source: transformers `modeling_layers.py::GenericForSequenceClassification`.
    """
    if format != "dense":
        raise ValueError(f"format={format!r} is not known; write format='dense'.")
    dual_head = find_dual_head(model)
    pad_token_id = _checked_pad_token(dual_head, tokenizer)
    with _whole_folder(output_dir, overwrite) as folder:
        stock = _stock_classifier(_merged(model, dual_head), pad_token_id)
        stock.save_pretrained(folder, max_shard_size=max_shard_size)
        _save_tokenizer(tokenizer, dual_head.config.max_input_length, folder)
        del stock
        _compare(dual_head, folder, pad_token_id)
    return Path(output_dir)


def _checked_pad_token(dual_head: DHRDForDualHeadClassification, tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "The tokenizer has no pad token, so batches could not be padded. "
            "Set the one of training: tokenizer.pad_token = tokenizer.eos_token"
        )
    pooled_by = dual_head.config.pad_token_id
    if pooled_by is not None and pooled_by != tokenizer.pad_token_id:
        raise ValueError(
            f"The model pools by pad token id {pooled_by}, but the tokenizer pads with id {tokenizer.pad_token_id} "
            f"({tokenizer.pad_token!r}). Give the tokenizer of training."
        )
    return tokenizer.pad_token_id


@contextlib.contextmanager
def _whole_folder(output_dir: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which becomes `output_dir` at the end, or leaves no trace."""
    target = Path(output_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())) and not overwrite:
        raise FileExistsError(
            f"{target} exists and is not an empty folder. Name another, or pass overwrite=True (--overwrite)."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _merged(model: nn.Module, dual_head: DHRDForDualHeadClassification) -> DHRDForDualHeadClassification:
    """The dual-head model with an adapter's weights added in, on a copy where there is one."""
    if hasattr(model, "merge_and_unload"):
        return copy.deepcopy(model).merge_and_unload()
    return dual_head


def _stock_classifier(dual_head: DHRDForDualHeadClassification, pad_token_id: int) -> PreTrainedModel:
    """The family's sequence classifier around the model's own tensors; nothing is copied."""
    config = _stock_config(dual_head, pad_token_id)
    stock_class = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with torch.device("meta"):
        stock = stock_class(config)
    names = {"model": stock.base_model_prefix, "score": "score"}
    tensors = {}
    for name, tensor in dual_head.state_dict().items():
        first, _, rest = name.partition(".")
        if first in names:
            tensors[f"{names[first]}.{rest}"] = tensor
    stock.load_state_dict(tensors, strict=True, assign=True)
    return stock


def _stock_config(dual_head: DHRDForDualHeadClassification, pad_token_id: int) -> PreTrainedConfig:
    own = dual_head.config
    config = copy.deepcopy(own.backbone_config)
    config.id2label, config.label2id = dict(own.id2label), dict(own.label2id)
    config.problem_type = own.problem_type
    config.get_text_config().pad_token_id = pad_token_id
    config.dtype = dual_head.score.weight.dtype
    if own.prompt_template is not None:
        config.prompt_template = own.prompt_template
    return config


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, max_input_length: int | None, folder: Path) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    if max_input_length is not None:
        tokenizer.model_max_length = max_input_length
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def _compare(dual_head: DHRDForDualHeadClassification, folder: Path, pad_token_id: int) -> None:
    """Raise where the checkpoint, loaded as stock, does not give the model's logits."""
    device, dtype = dual_head.score.weight.device, dual_head.score.weight.dtype
    attention = dual_head.model.config._attn_implementation
    stock, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention, output_loading_info=True
    )
    check_loaded(info, "the export")
    stock.to(device)
    was_training = dual_head.training
    dual_head.eval()
    try:
        for batch in _probes(dual_head.config.vocab_size, pad_token_id):
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            expected, found = dual_head(**batch).logits.float(), stock(**batch).logits.float()
            allowed = _TOLERANCE.get(dtype, _COARSE_TOLERANCE) * max(1.0, expected.abs().max().item())
            off = (expected - found).abs().max().item()
            if not off <= allowed:
                raise ValueError(
                    f"The exported classifier's logits differ from the model's by {off:.2g} (allowed {allowed:.2g}); "
                    f"nothing was written. Please report it with the model type, {dual_head.model.config.model_type!r}."
                )
    finally:
        dual_head.train(was_training)


def _probes(vocab_size: int, pad_token_id: int) -> Iterator[dict[str, Tensor]]:
    """A few inputs: rows of several lengths, right and left padded in one batch, and each alone."""
    generator = torch.Generator().manual_seed(0)
    lengths = (1, 5, 17)
    ids = torch.randint(0, vocab_size, (len(lengths), max(lengths)), generator=generator)
    ids = torch.where(ids == pad_token_id, (ids + 1) % vocab_size, ids)  # [3, 17]
    index = torch.arange(max(lengths))
    right = index < torch.tensor(lengths)[:, None]
    for mask in (right, right.flip(-1)):
        yield {"input_ids": torch.where(mask, ids, pad_token_id), "attention_mask": mask.long()}
    for row, length in zip(ids, lengths, strict=True):
        yield {"input_ids": row[None, :length], "attention_mask": torch.ones(1, length, dtype=torch.long)}
