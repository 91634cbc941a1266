"""The scores of a study's cells from label ids alone, also under weights: what a bootstrap resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Where there are two, the score is their mean (SuperGLUE, section 3).
METRICS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "macro_f1": ("macro_f1",),
    "macro_f1+accuracy": ("macro_f1", "accuracy"),
    "question_accuracy": ("question_accuracy",),
    "f1a": ("f1a",),
    "f1a+em": ("f1a", "question_accuracy"),
}
GROUPED = ("question_accuracy", "f1a+em")  # these count questions
TASK_METRICS = {"cb": "macro_f1+accuracy", "copa": "question_accuracy", "multirc": "f1a+em"}


def score(
    metric: str, labels: Sequence[int], predictions: Sequence[int], groups: Sequence[int] | None = None
) -> float:
    """The score of predictions."""
    of_row = None if groups is None else np.asarray(groups)
    weights = np.ones((1, len(labels) if groups is None else max(groups) + 1))
    return float(resampled_scores(metric, np.asarray(labels), np.asarray(predictions), of_row, weights)[0])


def chance(metric: str, labels: Sequence[int], groups: Sequence[int] | None = None) -> float:
    """The score of who does not read."""
    if metric == "question_accuracy":
        sizes = np.bincount(groups)
        return float((1 / sizes).mean())
    return max(score(metric, labels, [label] * len(labels), groups) for label in set(labels))


def resampled_scores(
    metric: str, labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None, weights: np.ndarray
) -> np.ndarray:
    """The scores of predictions under each of several weightings of the test items."""
    parts = [_PARTS[part](labels, predictions, groups, weights) for part in METRICS[metric]]
    return np.mean(parts, axis=0)


def _of_rows(groups: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    return weights if groups is None else weights[:, groups]  # [R, rows]


def _accuracy(labels: Any, predictions: Any, groups: Any, weights: Any) -> np.ndarray:
    of_rows = _of_rows(groups, weights)
    return of_rows @ (labels == predictions).astype(float) / of_rows.sum(1)


def _question_accuracy(labels: Any, predictions: Any, groups: Any, weights: Any) -> np.ndarray:
    wrong = np.bincount(groups, labels != predictions, minlength=weights.shape[1])
    return weights @ (wrong == 0).astype(float) / weights.sum(1)


def _f1(said: np.ndarray, gold: np.ndarray, of_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F1 under each weighting (0 where it is undefined), and whether the class was there at all."""
    both, either = of_rows @ (said & gold).astype(float), of_rows @ (said.astype(float) + gold)
    return np.divide(2 * both, either, out=np.zeros(len(of_rows)), where=either > 0), either > 0


def _macro_f1(labels: Any, predictions: Any, groups: Any, weights: Any) -> np.ndarray:
    # As scikit-learn: classes that are neither among the labels nor predicted are left out of the mean.
    of_rows = _of_rows(groups, weights)
    classes = [label for label in np.unique(np.concatenate([labels, predictions])) if label >= 0]
    parts = [_f1(predictions == label, labels == label, of_rows) for label in classes]
    values, there = (np.array(part) for part in zip(*parts, strict=True))
    return values.sum(0) / np.maximum(there.sum(0), 1)


def _f1a(labels: Any, predictions: Any, groups: Any, weights: Any) -> np.ndarray:
    return _f1(predictions == 1, labels == 1, _of_rows(groups, weights))[0]


_PARTS = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "question_accuracy": _question_accuracy,
    "f1a": _f1a,
}
