"""The last evaluation of `dhrd train`, with what it said of each row."""

from __future__ import annotations

from collections.abc import Iterator
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


def evaluate_rows(
    own: TrainArguments, trainer: DualHeadTrainer, dev: datasets.Dataset
) -> tuple[dict[str, float], Iterator[dict[str, Any]] | None]:
    """Evaluate and predict in one pass over the rows."""
    import torch

    order = list(range(len(dev)))
    if trainer.args.train_sampling_strategy == "group_by_length":
        lengths = trainer.eval_dataset["input_length"][:]
        order.sort(key=lambda row: -lengths[row])
    output = trainer.predict(trainer.eval_dataset.select(order), metric_key_prefix="eval")
    trainer.log(output.metrics)
    if not trainer.is_world_process_zero():
        return output.metrics, None
    logits = torch.as_tensor(output.predictions).double()
    logits[order] = logits.clone()
    return output.metrics, _said(own, trainer, dev, logits)


def _said(
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
    for value, label, prediction in zip(keys, dev[own.label_column], read_logits(logits, config), strict=True):
        if regression and isinstance(label, str):
            label = float(label)
        yield {key or "row": value, own.label_column: label} | prediction_columns(prediction, names, None, flat)
