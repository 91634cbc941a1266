"""The encoded rows of a training: whether they fit the model, whether it keeps them apart, and the order of groups of a length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import torch
from torch import nn
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..data.inputs import positions_of, take_settings
from ..losses import IGNORE_INDEX
from ..modeling_dhrd import find_dual_head, logits_tolerance
from ..opening import evaluating

if TYPE_CHECKING:
    from ..configuration_dhrd import DHRDConfig


def check_inputs(dataset: Any, config: DHRDConfig, tokenizer: Any) -> None:
    """Raise on rows that are longer than the model; the config then says how their texts became x."""
    longest_row, longest_x = _longest(dataset)
    positions = positions_of(config)
    if None not in (longest_row, positions) and longest_row > positions:
        raise ValueError(
            f"The training set has rows of up to {longest_row} tokens, and the model {positions} positions: encode it with "
            f"DualHeadEncoder(tokenizer, model=model), or with max_length={positions}."
        )
    if tokenizer is not None:
        take_settings(config, tokenizer, longest_x)


def _longest(dataset: Any) -> tuple[int | None, int | None]:
    columns = getattr(dataset, "column_names", None) or []
    if "input_ids" not in columns or not hasattr(dataset, "with_format") or not hasattr(dataset, "num_rows"):
        return None, None
    names = [name for name in ("input_ids", "input_length") if name in columns]
    rows, inputs = [], []
    for part in dataset.select_columns(names).with_format("arrow").iter(10_000):
        rows.append(pc.max(pc.list_value_length(part["input_ids"])).as_py() or 0)
        if "input_length" in columns:
            inputs.append(pc.max(part["input_length"]).as_py())
    return max(rows, default=None), max(inputs, default=None)


def check_labels(dataset: Any, config: DHRDConfig, training: bool) -> None:
    """Raise on class ids that a model does not have, and on a training set with a single one."""
    features = getattr(dataset, "features", None) or {}
    dtype = getattr(features.get("labels"), "dtype", None)  # None of a list
    if config.num_labels == 1 or config.problem_type not in (None, "single_label_classification"):
        return
    if dtype is None or dtype.startswith("float") or not hasattr(dataset, "unique"):
        return
    what = "training" if training else "evaluation"
    if not dtype.startswith(("int", "uint")):
        raise ValueError(
            f"The {what} set's column 'labels' holds {dtype}, and the model takes class ids from 0 to "
            f"{config.num_labels - 1}: encode it with DualHeadEncoder(tokenizer, label2id=model.config.label2id)."
        )
    found = [label for label in dataset.unique("labels") if label != IGNORE_INDEX]
    wrong = [label for label in found if label is None or not 0 <= label < config.num_labels]
    if wrong:
        raise ValueError(
            f"The {what} set has label id {wrong[0]}; the model has {config.num_labels} labels: {config.id2label}. "
            "Encode it with label2id=model.config.label2id."
        )
    if training and len(found) < 2 and len(dataset) and config.beta > 0:
        have = f"have the label {config.id2label[found[0]]!r}" if found else "have no label (-100)"
        raise ValueError(
            f"All {len(dataset)} training rows {have}: there is nothing to learn. Check the label column, or sample rows "
            "of every class."
        )


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """transformers' groups of rows of like length, in an order that the seed and the epoch say, and nothing else."""

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; accelerate's data loaders do."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


@torch.no_grad()
def check_padding_free(model: nn.Module) -> None:
    """Raise where a model's states of a padding-free batch are not those of its rows alone.

    Whether they are depends on the family and on its attention implementation: ALiBi, recurrent layers and code that
    does not look at `position_ids` mix the rows. So it is tried, on two short rows.

    Example:

    ```python
    >>> from dhrd_hf.training import check_padding_free
    >>> check_padding_free(model)

    ```

    Args:
        model ([`DHRDForDualHeadClassification`], or a wrapper around one): The model, where it will run. In mixed
            precision call this under `autocast`, as it will run.

    Raises:
        ValueError: if the rows are mixed, or the family does not take a padding-free batch.
    """
    dual_head = find_dual_head(model)
    backbone, device = dual_head.model, dual_head.get_input_embeddings().weight.device
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, dual_head.config.vocab_size, (1, n), generator=generator) for n in (6, 9))
    bounds = torch.tensor([0, 6, 15], dtype=torch.int32, device=device)
    flat = {
        "input_ids": torch.cat([first, second], dim=1).to(device),
        "position_ids": torch.cat([torch.arange(6), torch.arange(9)])[None].to(device),
        **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), bounds),
        **dict.fromkeys(("max_length_q", "max_length_k"), 9),
    }
    try:
        with evaluating(dual_head):
            rows = [backbone(row.to(device), use_cache=False).last_hidden_state for row in (first, second)]
            alone, together = torch.cat(rows, 1), backbone(**flat, use_cache=False).last_hidden_state
        mixed = torch.is_autocast_enabled(device.type)
        off = (together - alone).abs().max().item() / max(1.0, alone.abs().max().item())
        allowed = logits_tolerance(torch.bfloat16 if mixed else alone.dtype)
        reason = None if off <= allowed else f"its states change by {off:.2g} of the largest, {allowed:.2g} allowed"
    except (TypeError, RuntimeError) as error:  # an argument or a dtype that its code does not take
        reason = str(error).strip().splitlines()[0]
    if reason is not None:
        attention = backbone.config._attn_implementation
        raise ValueError(
            f"{backbone.config.model_type} with {attention} attention does not keep the rows of a padding-free batch "
            f"apart ({reason}). Use DualHeadCollator(padding_free=False) with "
            "train_sampling_strategy='group_by_length', or another attn_implementation."
        )
