"""The last evaluation of `dhrd train`, with what it said of each row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .predict import is_flat, prediction_columns

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

    from .. import DualHeadTrainer
    from .arguments import TrainArguments


def check_prediction_columns(own: TrainArguments) -> None:
    """Raise where a column of the predictions would have the name of one that they are to stand beside."""
    from ..evaluation import Prediction

    added = prediction_columns(Prediction(None, error="none"), [], None, is_flat(own.predictions))
    if own.label_column in added or own.label_column.startswith("probability_"):
        raise ValueError(
            f"--predictions would lose the labels, whose column {own.label_column!r} has the name of one of its own: "
            "rename the column."
        )


def evaluate_rows(trainer: DualHeadTrainer, rows: datasets.Dataset, prefix: str = "eval") -> tuple[dict, Tensor]:
    """Evaluate and predict in one pass over the encoded rows; the logits are in their order."""
    import torch

    order = list(range(len(rows)))
    if trainer.args.train_sampling_strategy == "group_by_length":
        lengths = rows["input_length"][:]
        order.sort(key=lambda row: -lengths[row])
    output = trainer.predict(rows.select(order), metric_key_prefix=prefix)
    trainer.log(output.metrics)
    logits = torch.as_tensor(output.predictions)
    logits[order] = logits.clone()
    return output.metrics, logits


def write_logits(path: str, trainer: DualHeadTrainer, found: Mapping[str, tuple[datasets.Dataset, Tensor]]) -> None:
    """Write the logits of evaluation sets, with the labels' names in the file's metadata, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..files import written_whole
    from ..modeling_dhrd import find_dual_head

    columns: dict[str, Any] = {"set": [], "row": [], "label": [], "logits": []}
    for name, (rows, logits) in found.items():
        columns["set"] += [name] * len(rows)
        columns["row"] += range(len(rows))
        columns["label"] += rows["labels"]
        columns["logits"] += logits.float().tolist()
    kinds = (pa.string(), pa.int32(), pa.int32(), pa.list_(pa.float32()))
    arrays = [pa.array(values, kind) for values, kind in zip(columns.values(), kinds, strict=True)]
    names = list(find_dual_head(trainer.model).config.id2label.values())
    with written_whole(path) as unfinished:
        pq.write_table(
            pa.table(arrays, list(columns)).replace_schema_metadata({"labels": json.dumps(names)}), unfinished
        )


def said_of_rows(
    own: TrainArguments, trainer: DualHeadTrainer, dev: datasets.Dataset, logits: Tensor
) -> Iterator[dict[str, Any]]:
    """A row's number or key, its label, and the columns that `dhrd predict` adds."""
    from ..data.joining import key_column
    from ..evaluation.prediction import read_logits
    from ..modeling_dhrd import find_dual_head

    config = find_dual_head(trainer.model).config
    regression = config.problem_type == "regression"
    names = [] if regression else list(config.id2label.values())
    key = key_column(dev.column_names)
    keys = range(len(dev)) if key is None else dev[key]
    flat = is_flat(own.predictions)
    for value, label, prediction in zip(
        keys, dev[own.label_column], read_logits(logits.double(), config), strict=True
    ):
        if regression and isinstance(label, str):
            label = float(label)
        yield {key or "row": value, own.label_column: label} | prediction_columns(prediction, names, None, flat)
