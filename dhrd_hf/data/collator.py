"""One padded batch out of encoded rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithFlattening, PreTrainedTokenizerBase
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from .inputs import ensure_pad_token
from .label_names import plain

# Columns of rows whose soft targets a teacher's cache holds.
SOFT_TARGETS = ("teacher_log_probs", "teacher_ids")


def padded_inputs(rows: Sequence[list[int]], pad: int, side: str) -> dict[str, torch.Tensor]:
    tensors = [torch.tensor(ids) for ids in rows]
    mask = pad_sequence([torch.ones_like(ids) for ids in tensors], True, 0, side)
    return {"input_ids": pad_sequence(tensors, True, pad, side), "attention_mask": mask}


def input_only(feature: Mapping[str, Any]) -> dict[str, Any]:
    """An encoded row without its suffix: x alone, as a deployed classifier sees it.

    Example:

    ```python
    >>> from dhrd_hf.data import input_only
    >>> input_only({"input_ids": [5, 6, 7, 8], "input_length": 2, "reasoning_targets": [5, 6, 7, 8], "labels": 1})
    {'input_ids': [5, 6], 'labels': 1}

    ```

    Args:
        feature (`Mapping[str, Any]`): A row as [`DualHeadEncoder`] makes it; one without `input_length` is x already.

    Returns:
        `dict[str, Any]`: the row, its sequences cut to `input_length`, without `input_length`, `reasoning_targets` and
        a teacher's soft targets.
    """
    length = feature.get("input_length")
    of_suffix = ("input_length", "reasoning_targets", *SOFT_TARGETS)
    row = {name: value for name, value in feature.items() if name not in of_suffix}
    if length is not None:
        for name in ("input_ids", "attention_mask"):
            if name in row:
                row[name] = row[name][: int(length)]
    return row


def input_only_batch(batch: Mapping[str, Any], pad_token_id: int) -> dict[str, Any]:
    """A collated batch without the suffixes, as [`DualHeadCollator`] makes it of rows that are [`input_only`], right padded."""
    lengths = batch.get("input_length")
    rest = {name: value for name, value in batch.items() if name not in ("input_length", "reasoning_targets")}
    if lengths is None:
        return rest
    lengths = lengths.to(batch["input_ids"].device)
    place = torch.arange(int(lengths.max()), device=lengths.device)
    in_x = place < lengths[:, None]  # [B, longest x]
    if (bounds := batch.get("cu_seq_lens_q")) is not None:
        taken = (bounds[:-1].to(lengths)[:, None] + place)[in_x]
        bounds = torch.cat([bounds[:1], lengths.cumsum(0).to(bounds)])
        flat = {name: batch[name][:, taken] for name in ("input_ids", "position_ids")}
        longest = type(batch["max_length_q"])(lengths.max())
        sizes = dict.fromkeys(("max_length_q", "max_length_k"), longest)
        return rest | flat | dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), bounds) | sizes
    starts = batch["attention_mask"].long().argmax(1)  # where a row is padded on the left
    taken = (starts[:, None] + place).clamp(max=batch["input_ids"].shape[1] - 1)
    ids = batch["input_ids"].gather(1, taken).where(in_x, pad_token_id)
    return rest | {"input_ids": ids, "attention_mask": in_x.to(batch["attention_mask"])}


@dataclass
class DualHeadCollator:
    r"""Encoded rows as one batch: padded on the tokenizer's padding side, or without any padding.

    With `padding_free=True` the rows lie one after the other in a single row of T tokens, as transformers'
    `DataCollatorWithFlattening` makes it; positions start again at each, and nothing predicts a row's first token. The
    attention has to honour the boundaries: flash attention skips what lies across them, sdpa and flex attention mask it
    (correct, but sdpa computes it). [`DualHeadTrainer`] tries the model before it trains, and refuses one that mixes rows.

    Example:

    ```python
    >>> from dhrd_hf import DualHeadCollator
    >>> collate = DualHeadCollator(tokenizer)
    >>> batch = collate(
    ...     [
    ...         {"input_ids": [5, 6, 7], "input_length": 2, "reasoning_targets": [5, 6, 7], "labels": 1},
    ...         {"input_ids": [8], "input_length": 1, "reasoning_targets": [8], "labels": 0},
    ...     ]
    ... )
    >>> {name: values.tolist() for name, values in batch.items()}  # pad token 0, right padding
    {'input_ids': [[5, 6, 7], [8, 0, 0]], 'attention_mask': [[1, 1, 1], [1, 0, 0]],
     'reasoning_targets': [[5, 6, 7], [8, -100, -100]], 'input_length': [2, 1], 'labels': [1, 0]}

    ```

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Gives pad token and padding side. Without a pad token its eos token becomes one ([`ensure_pad_token`]).
        pad_to_multiple_of (`int`, *optional*): Pad the length to a multiple of this.
        padding_free (`bool`, *optional*, defaults to `False`): One row of concatenated sequences.

    Returns:
        `dict[str, Tensor]`: `input_ids`, `attention_mask` `[B, L]`; and where the rows have them `input_length` `[B]`,
        `reasoning_targets` `[B, L]` (-100 in the padding) and `labels` (`[B]` ids or floats, `[B, K]` floats). Padding
        free: `input_ids`, `position_ids` and `reasoning_targets` `[1, T]`, no mask, and the boundaries as flash attention
        takes them: `cu_seq_lens_q`, `cu_seq_lens_k` `[B + 1]` and the integers `max_length_q`, `max_length_k`. Rows of a
        teacher's cache: `teacher_log_probs` `[N, k + 1]` and `teacher_ids` `[N, k]` of the batch's N targets, row by row.

    Raises:
        ValueError: if there are no rows, a row is empty or has a suffix and no `input_length`, only some rows have a field, or `pad_to_multiple_of` is given
            for batches without padding.
    """

    tokenizer: PreTrainedTokenizerBase
    pad_to_multiple_of: int | None = None
    padding_free: bool = False

    def __post_init__(self) -> None:
        if self.padding_free and self.pad_to_multiple_of is not None:
            raise ValueError("A padding-free batch is not padded: leave pad_to_multiple_of out.")
        ensure_pad_token(self.tokenizer)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        if not features:
            raise ValueError("There are no rows to collate.")
        given = set(features[0])
        for index, feature in enumerate(features):
            if set(feature) != given:
                raise ValueError(f"Rows of one batch differ in their fields: {sorted(given)} and {sorted(feature)}.")
            _check_row(feature, index)
        batch = self._flattened(features) if self.padding_free else self._padded(features)
        if "input_length" in given:
            batch["input_length"] = torch.tensor([int(feature["input_length"]) for feature in features])
        if "labels" in given:
            batch["labels"] = torch.tensor([plain(feature["labels"]) for feature in features])
        if SOFT_TARGETS[0] in given:
            batch |= _soft_targets(features)
        return batch

    def _padded(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        names = [name for name in ("input_ids", "attention_mask") if name in features[0]]
        sequences = [{name: _ids(feature[name]) for name in names} for feature in features]
        padded = pad_without_fast_tokenizer_warning(
            self.tokenizer, sequences, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"
        )
        batch = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
        if "reasoning_targets" in features[0]:
            targets = [_ids(feature["reasoning_targets"]) for feature in features]
            batch["reasoning_targets"] = self._pad_targets(targets, padded["input_ids"].shape[1])
        return batch

    @staticmethod
    def _flattened(features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if any(not all(_ids(feature.get("attention_mask", (1,)))) for feature in features):
            raise ValueError("A row has padding already (zeros in its attention_mask): encode it without.")
        targets = [feature.get("reasoning_targets", feature["input_ids"]) for feature in features]
        sequences = [
            {"input_ids": _ids(feature["input_ids"]), "labels": _ids(target)}
            for feature, target in zip(features, targets, strict=True)
        ]
        batch = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(sequences, return_tensors="pt")
        targets = batch.pop("labels")
        if "reasoning_targets" in features[0]:
            batch["reasoning_targets"] = targets
        return batch

    def _pad_targets(self, rows: list[list[int]], length: int) -> torch.Tensor:
        targets = torch.full((len(rows), length), -100)  # [B, L]
        for index, row in enumerate(rows):
            start = length - len(row) if self.tokenizer.padding_side == "left" else 0
            targets[index, start : start + len(row)] = torch.tensor(row)
            if start:
                targets[index, start] = -100  # of a row's first token, which padding would predict here
        return targets


def _soft_targets(features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """A teacher's distributions at the targets of all rows, one after the other: `[N, k + 1]` and `[N, k]`."""
    number = sum(target != -100 for feature in features for target in _ids(feature["reasoning_targets"])[1:])
    flat = {name: np.concatenate([feature[name] for feature in features]) for name in SOFT_TARGETS}
    return {name: torch.from_numpy(values).reshape(number, -1 if number else 0) for name, values in flat.items()}


def _check_row(feature: Mapping[str, Any], index: int) -> None:
    length = len(feature["input_ids"])
    if length == 0:
        raise ValueError(f"Row {index} of the batch has no tokens.")
    if "reasoning_targets" in feature and "input_length" not in feature:
        raise ValueError(
            f"Row {index} of the batch has reasoning_targets and no input_length: the pooled token would be the suffix's, "
            "which holds the answer. Keep the column input_length of DualHeadEncoder, or give x alone (input_only)."
        )
    if "input_length" in feature and not 1 <= int(feature["input_length"]) <= length:
        raise ValueError(f"Row {index} of the batch: input_length {feature['input_length']} is not in 1 to {length}.")
    if "reasoning_targets" in feature and len(feature["reasoning_targets"]) != length:
        raise ValueError(
            f"Row {index} of the batch has {length} input_ids and {len(feature['reasoning_targets'])} reasoning_targets."
        )


def _ids(values: Any) -> list[int]:
    return list(plain(values))
