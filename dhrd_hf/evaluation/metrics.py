"""Classification metrics that work offline: scikit-learn's, for the Trainer and the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_CONFIDENCE = 0.95
_IGNORED = -100  # as torch's cross entropy, and the Trainer's padding


def compute_metrics(prediction: Any, problem_type: str | None = None) -> dict[str, float]:
    """Accuracy and macro F1 of class logits, or the errors of a regression; for the Trainer's `compute_metrics`.

    Rows with the label -100 are not counted. In multi label a logit above 0 is a yes. Macro F1 is scikit-learn's: the mean
    over the classes that the rows have or that are predicted, so that a class of the model that is neither is not in it.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import compute_metrics
    >>> compute_metrics((np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), np.array([0, 1, 1])))
    {'accuracy': 0.6666666666666666, 'macro_f1': 0.6666666666666666}

    ```

    Args:
        prediction (`EvalPrediction` or `tuple[np.ndarray, np.ndarray]`): Logits `[rows, K]` and labels: ids `[rows]`, for
            multi label 0/1 `[rows, K]`, for regression numbers `[rows]` or `[rows, K]`.
        problem_type (`str`, *optional*): The model's `config.problem_type`, which [`DualHeadTrainer`] gives; by default as
            the shapes are: regression where there is one logit a row, multi label where labels are `[rows, K]`.

    Returns:
        `dict[str, float]`: `accuracy` and `macro_f1`, or `mse` and `mae`, over all targets.

    Raises:
        ValueError: if logits and labels differ in their number of rows, or labels are none of the problem type's.
    """
    from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error

    logits, labels = (np.asarray(values) for values in tuple(prediction)[:2])  # inputs and losses may follow
    if len(logits) != len(labels):
        raise ValueError(f"There are {len(logits)} rows of logits and {len(labels)} labels.")
    if problem_type is None:
        several = "multi_label_classification" if labels.ndim == 2 else "single_label_classification"
        problem_type = "regression" if logits.ndim == 1 or logits.shape[-1] == 1 else several
    if problem_type == "regression":
        targets, values = labels.reshape(len(labels), -1), logits.reshape(len(labels), -1)
        return {"mse": float(mean_squared_error(targets, values)), "mae": float(mean_absolute_error(targets, values))}
    if problem_type == "single_label_classification":
        logits, labels = logits[labels != _IGNORED], labels[labels != _IGNORED]
    if not len(labels):
        raise ValueError(f"There is no row with a label to measure: all labels are {_IGNORED}, or there are no rows.")
    if not (labels == np.round(labels)).all():
        raise ValueError(
            f"Labels of {problem_type} are whole numbers; for a regression say problem_type='regression'."
        )
    predicted = (logits > 0).astype(int) if problem_type.startswith("multi") else logits.argmax(-1)
    return {
        "accuracy": float(accuracy_score(labels.astype(int), predicted)),
        "macro_f1": macro_f1(labels.astype(int), predicted),
    }


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes; of multi label with one label that label's, where scikit-learn would see two classes."""
    from sklearn.metrics import f1_score

    if labels.ndim == 2 and labels.shape[-1] == 1:
        return float(f1_score(labels.reshape(-1), predicted.reshape(-1), zero_division=0))
    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def paired_change(before: Sequence[bool], after: Sequence[bool]) -> dict[str, float]:
    """The change of an accuracy on the same rows, with its 95% interval.

    Rows that are right, or wrong, both times say nothing of the change, so the interval is far narrower than that of two
    accuracies of different rows. Where no row changed it is still not empty: others might.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import paired_change
    >>> found = paired_change([True] * 65 + [False] * 96, [True] * 59 + [False] * 6 + [True] * 16 + [False] * 80)
    >>> {name: round(value, 4) for name, value in found.items()}
    {'change': 0.0621, 'low': 0.0054, 'high': 0.124}

    ```

    Args:
        before (`Sequence[bool]`): Whether each row was right before.
        after (`Sequence[bool]`): Whether it is right now.

    Returns:
        `dict[str, float]`: `change`, `low` and `high`, from -1 to 1.

    Raises:
        ValueError: if there are no rows, or not as many of both.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998), 891-908: the score interval.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    one, other = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(
            f"expected as many rows before as after, at least one: there are {one.shape} and {other.shape}"
        )
    rows, gained, lost = len(one), int((~one & other).sum()), int((one & ~other).sum())
    quantile, change = norm.ppf((1 + _CONFIDENCE) / 2), (gained - lost) / rows

    def score(delta: float) -> float:
        """How many standard errors the change is above delta; the variance is the likeliest where delta is true."""
        linear = (2 * rows - gained + lost) * delta - gained - lost
        both = math.sqrt(max(linear**2 + 8 * rows * lost * delta * (1 - delta), 0.0))
        lost_share = max((both - linear) / (4 * rows), 0.0)
        variance = rows * (2 * lost_share + delta * (1 - delta))
        return 0.0 if delta == change else rows * (change - delta) / math.sqrt(max(variance, 1e-12))

    def limit(end: float, sign: float) -> float:
        """Where the score has the quantile, between the change and an end of what is possible."""
        at_end = end * (1 - 1e-12)
        if change == end or sign * score(at_end) < quantile:
            return end
        return brentq(lambda delta: sign * score(delta) - quantile, at_end, change)

    return {"change": change, "low": limit(-1.0, 1.0), "high": limit(1.0, -1.0)}
