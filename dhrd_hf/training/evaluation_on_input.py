"""Evaluation as the classifier is deployed: on x alone, its loss computed once from the class logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from ..data import input_only
from ..modeling_dhrd import find_dual_head
from .rows import check_labels


def _of_inputs(collate: Callable[[list], dict], features: list) -> dict:
    """A batch of x alone, as the model is deployed."""
    return collate([input_only(feature) for feature in features])


@contextmanager
def _replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes with other values, while the context lasts."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


class EvaluationOnInputMixin:
    """What makes a `Trainer` evaluate and predict on x alone, in the rows' order; for [`DualHeadTrainer`]."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batches of x alone, in the order of the rows: metrics may look at what else the data set has of them."""
        with self._collating_input_only(), self._in_order():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Batches of x alone, in the order of the rows: `predict` returns them as the batches come."""
        with self._collating_input_only(), self._in_order():
            return super().get_test_dataloader(test_dataset)

    def _in_order(self) -> AbstractContextManager:
        strategy = self.args.train_sampling_strategy
        if strategy == "group_by_length":  # transformers would shuffle these rows as well
            strategy = "random"
        # To drop the last rows is for training: here each counts.
        return _replaced(self.args, train_sampling_strategy=strategy, dataloader_drop_last=False)

    def _collating_input_only(self) -> AbstractContextManager:
        return _replaced(self, data_collator=partial(_of_inputs, self.data_collator))

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> EvalLoopOutput:
        """Run over a data set; the loss is computed once, over all rows, from the class logits."""
        with self._keeping_rows() as rows, self._telling_the_problem_type():
            output = super().evaluation_loop(dataloader, description, False, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix") or (args[1] if len(args) > 1 else "eval")
        if rows and f"{prefix}_loss" in output.metrics:
            dual_head = find_dual_head(self.model)
            logits, labels = (torch.cat(parts) for parts in zip(*rows, strict=True))
            wrong = len(logits) - int(logits.reshape(len(logits), -1).isfinite().all(-1).sum())
            if wrong:
                raise FloatingPointError(
                    f"{wrong} of {len(logits)} evaluation rows have logits that are not finite: the training has diverged. "
                    "Take an earlier checkpoint, or lower the learning rate."
                )
            loss = dual_head.classification_loss(logits, labels).item()
            output.metrics[f"{prefix}_loss"] = dual_head.config.beta * loss
            output.metrics[f"{prefix}_classification_loss"] = loss
        return output

    def _telling_the_problem_type(self) -> AbstractContextManager:
        """Metrics that take a `problem_type`, such as ours, are given the model's."""
        metrics = self.compute_metrics
        if metrics is not None and "problem_type" in inspect.signature(metrics).parameters:
            metrics = partial(metrics, problem_type=find_dual_head(self.model).config.problem_type)
        return _replaced(self, compute_metrics=metrics)

    @contextmanager
    def _keeping_rows(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """The class logits and labels of all ranks, batch by batch, whatever the metrics are given of them."""
        own, rows = self.preprocess_logits_for_metrics, []

        def keep(logits: Any, labels: Tensor | None) -> Any:
            if labels is not None:
                first = logits[0] if isinstance(logits, (tuple, list)) else logits
                rows.append(tuple(each.cpu() for each in self.gather_function((first, labels))))
            return logits if own is None else own(logits, labels)

        with _replaced(self, preprocess_logits_for_metrics=keep):
            yield rows

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        for part in dataset.values() if isinstance(dataset, dict) else (dataset,):
            check_labels(part, find_dual_head(self.model).config, training=False)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def evaluate_rows(self, rows: Any, prefix: str = "eval", log: bool = True) -> tuple[dict[str, float], Tensor]:
        """Evaluate and predict in one pass over encoded rows; the logits are in their order."""
        order = list(range(len(rows)))
        if self.args.train_sampling_strategy == "group_by_length":
            lengths = rows["input_length"][:]
            order.sort(key=lambda row: -lengths[row])
        output = self.predict(rows.select(order), metric_key_prefix=prefix)
        logits = torch.as_tensor(output.predictions)
        logits[order] = logits.clone()
        if log:
            self.log(output.metrics)
        return output.metrics, logits
