"""SuperGLUE's metrics as `evaluate.Metric` classes of this package: `evaluate.load` would ask the Hub for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

import datasets
import evaluate
import numpy as np

from ..data.superglue import SUPERGLUE_LABELS
from ..files import did_you_mean

if TYPE_CHECKING:
    from transformers import EvalPrediction

# Where a task has two, they are averaged first (SuperGLUE, section 3).
SUPERGLUE_METRICS: dict[str, tuple[str, ...]] = {
    "boolq": ("accuracy",),
    "cb": ("macro_f1", "accuracy"),
    "copa": ("accuracy",),
    "multirc": ("f1a", "em"),
    "rte": ("accuracy",),
    "wic": ("accuracy",),
    "wsc": ("accuracy",),
}
_SUPERGLUE = """@article{wang2019superglue,
  title={SuperGLUE: A Stickier Benchmark for General-Purpose Language Understanding Systems},
  author={Wang, Alex and others}, journal={arXiv:1905.00537}, year={2019}
}"""
# What a column may hold; of several types the first is taken that fits the first row.
_TYPES = {"label": ("int64", "string"), "group": ("string", "int64"), "score": ("float64",)}


class _Metric(evaluate.Metric):
    """What the metrics share: the types of their columns, and that the rows are kept in memory."""

    _columns: Mapping[str, str]  # name: a key of _TYPES

    def __init__(self, *args: Any, num_process: int = 1, keep_in_memory: bool | None = None, **kwargs: Any):
        # In memory, unless several processes have to share their rows by files.
        keep = num_process == 1 if keep_in_memory is None else keep_in_memory
        super().__init__(*args, num_process=num_process, keep_in_memory=keep, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        kinds = dict.fromkeys(self._columns.values())
        choices = [dict(zip(kinds, types, strict=True)) for types in product(*(_TYPES[kind] for kind in kinds))]
        return evaluate.MetricInfo(
            description=(self.__doc__ or "").partition("\n")[0],
            citation=_SUPERGLUE,
            features=[
                datasets.Features({name: datasets.Value(types[kind]) for name, kind in self._columns.items()})
                for types in choices
            ],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add rows, as `evaluate.Metric` does; none at all are an error of their own."""
        if predictions is not None and len(predictions) == 0:
            raise ValueError("there are no rows to score")
        super().add_batch(predictions=predictions, references=references, **kwargs)


class Accuracy(_Metric):
    """Share of the rows whose label is right."""

    _columns = {"predictions": "label", "references": "label"}

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(list(references), list(predictions)))}


class CommitmentBank(_Metric):
    """CB's two metrics: F1 averaged over the classes, and accuracy."""

    _columns = Accuracy._columns

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score

        predictions, references = list(predictions), list(references)
        return {
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
            "accuracy": float(accuracy_score(references, predictions)),
        }


class MultiRC(_Metric):
    """MultiRC's two metrics: F1 of `Yes` over all answers, and the share of questions with every answer right."""

    _columns = {"predictions": "label", "references": "label", "groups": "group"}

    def _compute(
        self, predictions: Sequence[Any], references: Sequence[Any], groups: Sequence[Any]
    ) -> dict[str, float]:
        from sklearn.metrics import f1_score

        said, gold = _is_yes(predictions), _is_yes(references)
        right: dict[Any, bool] = defaultdict(lambda: True)
        for group, one, other in zip(groups, said, gold, strict=True):
            right[group] &= one == other
        return {"f1a": float(f1_score(gold, said, zero_division=0)), "em": fmean(right.values())}


class COPA(_Metric):
    """COPA cast as two candidates a question: of each the logit of Yes less that of No, and whether it is right."""

    _columns = {"predictions": "score", "references": "label", "groups": "group"}

    def _compute(
        self, predictions: Sequence[Any], references: Sequence[Any], groups: Sequence[Any]
    ) -> dict[str, float]:
        scores, gold = np.asarray(predictions, dtype=float), _is_yes(references)
        rows: dict[Any, list[int]] = defaultdict(list)
        for row, group in enumerate(groups):
            rows[group].append(row)
        won = []
        for group, places in rows.items():
            right = [row for row in places if gold[row]]
            if len(right) != 1:
                raise ValueError(
                    f"question {group!r} has {len(right)} right candidates among {len(places)}, expected 1"
                )
            best = [row for row in places if scores[row] == scores[places].max()]
            won.append((right[0] in best) / len(best))
        return {"accuracy": fmean(won), "row_accuracy": float(((scores > 0) == gold).mean())}


_OF_TASK = {"cb": CommitmentBank, "copa": COPA, "multirc": MultiRC}


def superglue_metrics(
    task: str, dataset: datasets.Dataset, label2id: Mapping[str, int] | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for the Trainer that gives a SuperGLUE task's own metrics.

    It takes logits and label ids in the order of the evaluated rows of [`~dhrd_hf.data.superglue.load_superglue`], which say
    what belongs to one question.
    """
    _check_tasks([task])
    names = SUPERGLUE_LABELS[task]
    label2id = dict(label2id or {name: place for place, name in enumerate(names)})
    if set(label2id) != set(names):
        raise ValueError(f"the labels of {task} are {', '.join(names)}, and the model's are {', '.join(label2id)}")
    groups = dataset["group"][:]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = (np.asarray(values) for values in tuple(prediction)[:2])  # inputs and losses may follow
        if len(logits) != len(groups):
            raise ValueError(f"there are {len(logits)} rows of logits, and {len(groups)} rows of {task} were expected")
        if task not in ("copa", "multirc"):
            metric = _OF_TASK.get(task, Accuracy)()
            return metric.compute(predictions=logits.argmax(-1), references=labels)
        margin = logits[:, label2id["Yes"]] - logits[:, label2id["No"]]
        said = margin if task == "copa" else (margin > 0).astype(int)
        gold = (labels == label2id["Yes"]).astype(int)
        return _OF_TASK[task]().compute(predictions=said, references=gold, groups=groups)

    return compute


def superglue_average(results: Mapping[str, Mapping[str, float]]) -> float:
    """The macro average over the seven tasks, after averaging the two metrics of CB and of MultiRC."""
    _check_tasks(results)
    missing = [task for task in SUPERGLUE_METRICS if task not in results]
    missing += [
        f"{task}'s {metric}"
        for task, metrics in SUPERGLUE_METRICS.items()
        for metric in metrics
        if task in results and metric not in results[task]
    ]
    if missing:
        raise ValueError(f"the average is over seven tasks, and the results lack {', '.join(missing)}")
    return fmean(fmean(results[task][metric] for metric in metrics) for task, metrics in SUPERGLUE_METRICS.items())


def _check_tasks(tasks: Mapping[str, Any] | Sequence[str]) -> None:
    for task in tasks:
        if task not in SUPERGLUE_METRICS:
            near = did_you_mean(task, SUPERGLUE_METRICS, quote="'") or "."
            raise ValueError(f"no task {task!r}{near} The seven are {', '.join(SUPERGLUE_METRICS)}")


def _is_yes(values: Sequence[Any]) -> np.ndarray:
    known = {0: False, 1: True, "No": False, "Yes": True}
    wrong = next((value for value in values if value not in known), None)
    if wrong is not None:
        raise ValueError(f"a label {wrong!r}: expected 0 or 1, or 'No' or 'Yes'")
    return np.array([known[value] for value in values])
