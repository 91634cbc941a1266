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
    """The score of predictions.

    Example:

    ```python
    >>> from dhrd_hf.study.metrics import score
    >>> score("accuracy", [0, 1, 1, 0], [0, 1, 0, -1])
    0.5
    >>> score("question_accuracy", [0, 1, 1, 0], [0, 1, 0, 1], groups=[0, 0, 1, 1])
    0.5

    ```

    Args:
        metric (`str`): One of `METRICS`: `accuracy`; `macro_f1`, over the classes among labels and predictions;
            `macro_f1+accuracy` (CB), their mean; `question_accuracy` (COPA), the share of questions with all rows right;
            `f1a+em` (MultiRC), the mean of the F1 of label id 1 and the share of questions with all rows right.
        labels (`Sequence[int]`), predictions (`Sequence[int]`): Label ids; -1 is an answer that could not be read.
        groups (`Sequence[int]`, *optional*): The question of each row, numbered from 0.

    Returns:
        `float`: in 0 to 1.
    """
    of_row = None if groups is None else np.asarray(groups)
    weights = np.ones((1, len(labels) if groups is None else max(groups) + 1))
    return float(resampled_scores(metric, np.asarray(labels), np.asarray(predictions), of_row, weights)[0])


def chance(metric: str, labels: Sequence[int], groups: Sequence[int] | None = None) -> float:
    """The score of who does not read: the best that one label for all rows gets, or a random candidate of each question.

    Example:

    ```python
    >>> from dhrd_hf.study.metrics import chance
    >>> chance("accuracy", [0, 1, 1, 2]), chance("question_accuracy", [0, 1, 1, 0], groups=[0, 0, 1, 1])
    (0.5, 0.5)

    ```

    Args:
        metric (`str`), labels (`Sequence[int]`), groups (`Sequence[int]`, *optional*): As for [`score`].

    Returns:
        `float`: in 0 to 1.
    """
    if metric == "question_accuracy":
        sizes = np.bincount(groups)
        return float((1 / sizes).mean())
    return max(score(metric, labels, [label] * len(labels), groups) for label in set(labels))


def resampled_scores(
    metric: str, labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None, weights: np.ndarray
) -> np.ndarray:
    """The scores of predictions under each of several weightings of the test items.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.study.metrics import resampled_scores
    >>> labels, predictions = np.array([0, 1]), np.array([0, 0])
    >>> resampled_scores("accuracy", labels, predictions, None, np.array([[1.0, 1.0], [2.0, 0.0]])).tolist()
    [0.5, 1.0]

    ```

    Args:
        metric (`str`), labels (`np.ndarray` `[rows]`), predictions (`np.ndarray` `[rows]`): As for [`score`].
        groups (`np.ndarray` `[rows]`, *optional*): The item of each row, from 0 to items - 1; by default each is its own.
        weights (`np.ndarray` `[resamples, items]`): How often each item was drawn.

    Returns:
        `np.ndarray` `[resamples]`: the scores.
    """
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
