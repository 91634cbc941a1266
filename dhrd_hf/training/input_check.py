"""Whether the encoded rows fit the model, and what their encoder did, before anything is trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from ..data.inputs import positions_of, take_settings

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
    """Most tokens of a row, and of its x."""
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
