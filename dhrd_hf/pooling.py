"""Which token of a row is pooled: the stock sequence classifiers' rule, on x alone.

This file can be shipped with a checkpoint as its remote code, so it imports nothing of this package.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pooled_positions(
    hidden: Tensor,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    input_length: Tensor | None = None,
    pad_token_id: int | None = None,
) -> Tensor:
    """The place of each row's pooled token `[B]`: x's rightmost one whose id is not the pad token's.

    Absent `input_length`, the whole row is x; without token ids there is no pad detection; the attention mask says where a
    row starts, unless it has another form (4D). That x is not empty is looked at on a CPU alone: elsewhere the look would
    wait for the device. Source: transformers `modeling_layers.py::GenericForSequenceClassification`.
    """
    batch, length = hidden.shape[:2]
    device = hidden.device
    if pad_token_id is None and batch != 1:
        raise ValueError(
            "The model has no pad token, so a batch of several rows cannot be pooled. "
            "Set one: model.config.pad_token_id = tokenizer.pad_token_id"
        )
    index = torch.arange(length, device=device)
    if input_length is None:
        in_x = torch.ones(batch, length, dtype=torch.bool, device=device)
    else:
        start = _row_starts(batch, input_ids, attention_mask, pad_token_id).to(device)
        input_length = input_length.to(device).reshape(-1, 1)
        if input_length.device.type == "cpu" and bool((input_length < 1).any()):
            raise ValueError(f"input_length must be 1 or more in every row, found {input_length.flatten().tolist()}.")
        in_x = (index >= start) & (index < start + input_length)
    if pad_token_id is not None and input_ids is not None:
        in_x = in_x & (input_ids.to(device) != pad_token_id)
    return (index * in_x).argmax(-1)


def pooled_in_flat(
    hidden: Tensor,
    cu_seq_lens: Tensor,
    input_ids: Tensor | None = None,
    input_length: Tensor | None = None,
    pad_token_id: int | None = None,
) -> Tensor:
    """The place `[B]` of each row's pooled token in a padding-free batch `[1, T, H]`, whose row i is `cu_seq_lens[i]` to `[i + 1]`."""
    bounds = cu_seq_lens.to(hidden.device).long()
    start, end = bounds[:-1, None], bounds[1:, None]
    if input_length is not None:
        end = start + input_length.to(hidden.device).reshape(-1, 1)
    index = torch.arange(hidden.shape[1], device=hidden.device)
    in_x = (index >= start) & (index < end)  # [B, T]
    if pad_token_id is not None and input_ids is not None:
        in_x = in_x & (input_ids.to(hidden.device) != pad_token_id)
    return torch.where(in_x, index, start).amax(-1)


def _row_starts(
    batch: int, input_ids: Tensor | None, attention_mask: Tensor | None, pad_token_id: int | None
) -> Tensor:
    """Number `[B, 1]` of left padding tokens in each row."""
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
        return attention_mask.long().argmax(-1, keepdim=True)
    if input_ids is not None and pad_token_id is not None and bool((input_ids[:, 0] == pad_token_id).any()):
        raise ValueError(
            "A row starts with the pad token, and input_length came without an attention_mask of shape [B, L]: padding and "
            "text cannot be told apart. Pass the one that the tokenizer or collator made, or pad on the right."
        )
    return torch.zeros(batch, 1, dtype=torch.long)
