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


def evaluate_rows(own: TrainArguments, trainer: DualHeadTrainer, dev: datasets.Dataset) -> dict[str, float]:
    """Evaluate, and write the predictions, in one pass over the rows.

    Args:
        own ([`TrainArguments`]): `predictions` is the file, which appears whole or not at all.
        trainer ([`DualHeadTrainer`]): It has the encoded rows as its `eval_dataset`.
        dev (`datasets.Dataset`): The rows themselves.

    Returns:
        `dict[str, float]`: what `trainer.evaluate()` returns.

    Raises:
        OSError, ValueError: if the file can't be written.
    """
    import torch

    from ..data.table_writing import write_rows

    order = list(range(len(dev)))
    if trainer.args.train_sampling_strategy == "group_by_length":
        lengths = trainer.eval_dataset["input_length"][:]
        order.sort(key=lambda row: -lengths[row])
    output = trainer.predict(trainer.eval_dataset.select(order), metric_key_prefix="eval")
    trainer.log(output.metrics)
    if trainer.is_world_process_zero():
        logits = torch.as_tensor(output.predictions).double()
        logits[order] = logits.clone()
        write_rows(own.predictions, _said(own, trainer, dev, logits))
    return output.metrics


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
