"""The export of a head that no stock decoder has: a classifier that carries its own modelling code."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..modeling_dhrd import DHRDForDualHeadClassification, DHRDForSequenceClassification
from .portable import widen_config


def write_with_code(
    dual_head: DHRDForDualHeadClassification,
    pad_token_id: int,
    temperature: float,
    max_shard_size: int | str,
    folder: Path,
) -> PreTrainedModel:
    """Write the model without its reasoning head, with the code that opens it, and open what was written."""
    config = copy.deepcopy(dual_head.config)
    config.reasoning_head = False
    config.pad_token_id = pad_token_id
    config.dtype = next(dual_head.score.parameters()).dtype
    with torch.device("meta"):
        classifier = DHRDForSequenceClassification(config)
    tensors = {name: tensor for name, tensor in dual_head.state_dict().items() if not name.startswith("lm_head.")}
    for name in ("score.out_proj.weight", "score.out_proj.bias"):
        tensors[name] = tensors[name] / temperature
    classifier.load_state_dict(tensors, strict=True, assign=True)
    classifier.save_pretrained(folder, max_shard_size=max_shard_size)
    widen_config(folder)
    return DHRDForSequenceClassification.from_pretrained(
        folder, dtype=config.dtype, attn_implementation=dual_head.model.config._attn_implementation
    )
