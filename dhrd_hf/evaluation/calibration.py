"""How sure a classifier is against how often it is right, and the temperature that brings the two together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

# Temperatures outside are what a split that is too small or too easy asks for, not what a classifier needs.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_NUMBERS_AT_ONCE = 4_000_000  # of logits, in float64


def calibration_metrics(logits: Any, labels: Any, bins: int = 15) -> dict[str, float]:
    """Expected calibration error, Brier score and negative log-likelihood of class logits.

    Multi label counts each label of a row as a yes-or-no question of its own.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import calibration_metrics
    >>> found = calibration_metrics(np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'expected_calibration_error': 0.214, 'brier_score': 0.536, 'nll': 0.794}

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray`): Class ids `[rows]`, or 0/1 `[rows, K]` for multi label.
        bins (`int`, *optional*, defaults to 15): Bins of equal width over the confidence, from 0 to 1.

    Returns:
        `dict[str, float]`: `expected_calibration_error` (mean distance of confidence and accuracy over the bins, weighted
        by their rows), `brier_score` (mean squared distance of all K probabilities, 0 to 2) and `nll` (in nats).

    Raises:
        ValueError: if logits and labels do not fit each other, or there are no rows.

    Source: Guo et al. 2017, arXiv 1706.04599, eq. 3; scikit-learn `brier_score_loss` and `log_loss` are the other two.
    """
    curve, brier, nll, count = reliability(logits, labels, bins), 0.0, 0.0, 0
    for block, ids in _questions(logits, labels):
        shares, rows = log_softmax(block, axis=-1), np.arange(len(ids))
        nll -= shares[rows, ids].sum()
        np.exp(shares, out=shares)
        # Of (p - 1)^2 for the true class and p^2 for the others.
        brier += np.einsum("ij,ij->", shares, shares) + (1 - 2 * shares[rows, ids]).sum()
        count += len(ids)
    return {
        "expected_calibration_error": float(
            sum(row["rows"] * abs(row["accuracy"] - row["confidence"]) for row in curve) / count
        ),
        "brier_score": float(brier / count),
        "nll": float(nll / count),
    }


def reliability(logits: Any, labels: Any, bins: int = 15) -> list[dict[str, float]]:
    """The points of a reliability diagram: in each bin of confidence, how sure the classifier was and how often right.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import reliability
    >>> reliability(np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1]), bins=10)[0]["rows"]
    3

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): As for [`calibration_metrics`].
        labels (`np.ndarray`): As for [`calibration_metrics`].
        bins (`int`, *optional*, defaults to 15): As for [`calibration_metrics`].

    Returns:
        `list[dict[str, float]]`: `confidence`, `accuracy` and `rows` of each bin that has any.

    Raises:
        ValueError: as [`calibration_metrics`].
    """
    rows = np.zeros(bins, dtype=int)
    sums = {"confidence": np.zeros(bins), "accuracy": np.zeros(bins)}
    for block, ids in _questions(logits, labels):
        right = block.argmax(-1) == ids
        confidence = softmax(block, axis=-1).max(-1)
        # A confidence on an edge belongs to the bin below it, as in the paper's (a, b].
        bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        rows += np.bincount(bin_of, minlength=bins)
        sums["confidence"] += np.bincount(bin_of, confidence, bins)
        sums["accuracy"] += np.bincount(bin_of, right, bins)
    return [
        {**{name: float(total[index] / rows[index]) for name, total in sums.items()}, "rows": int(rows[index])}
        for index in np.flatnonzero(rows)
    ]


def fit_temperature(logits: Any, labels: Any) -> float:
    """The temperature T for which the softmax of `logits / T` has the least negative log-likelihood.

    Fit it on a split that is neither trained nor tested on. Divided by T the logits keep their order, so no predicted
    label changes; [`export_classifier`] divides the head's weights by it.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import fit_temperature
    >>> sure = np.array([[4.0, 0.0]] * 10)  # always at 98%, right in 8 of 10
    >>> round(fit_temperature(sure, np.array([0] * 8 + [1] * 2)), 2)  # 4 / T = log(8 / 2)
    2.89

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray`): Class ids `[rows]`, or 0/1 `[rows, K]` for multi label (of which T changes no sign either).

    Returns:
        `float`: T; above 1 where the classifier is too sure.

    Raises:
        ValueError: if logits and labels do not fit each other, all labels are the same, or the best T is beyond 0.05 to
            20, as where every row is right.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = checked_logits(logits, labels)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"All {len(labels)} rows of the calibration split have one label: a temperature can't be fitted. "
            "Use a split with rows of every class."
        )

    def nll(log_temperature: float) -> float:
        return -sum(
            log_softmax(block / np.exp(log_temperature), axis=-1)[np.arange(len(ids)), ids].sum()
            for block, ids in _questions(logits, labels)
        ) / float(labels.size)

    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    best = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x
    right = sum((block.argmax(-1) == ids).sum() for block, ids in _questions(logits, labels)) / labels.size
    if right == 1 or not low + 0.01 < best < high - 0.01:
        raise ValueError(
            f"No temperature from {MIN_TEMPERATURE} to {MAX_TEMPERATURE} is best: of {len(labels)} rows {right:.0%} "
            "are right. Use a larger split, on which the classifier is wrong at times and right at times."
        )
    return float(np.exp(best))


def _questions(logits: Any, labels: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits `[n, K]` in float64 and class ids `[n]`, a share of the rows at a time: the classes may be thousands."""
    logits, labels = checked_logits(logits, labels)
    step = max(1, _NUMBERS_AT_ONCE // logits.shape[-1])
    for start in range(0, len(labels), step):
        block = logits[start : start + step].astype(np.float64)
        ids = labels[start : start + step].astype(int)
        if labels.ndim == 2:
            block, ids = np.stack([np.zeros(block.size), block.reshape(-1)], axis=-1), ids.reshape(-1)
        yield block, ids


def checked_logits(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, or an error where they do not fit each other."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or len(logits) != len(labels) or len(labels) == 0:
        raise ValueError(f"Logits must be [rows, K] with a label a row: found {logits.shape} and {labels.shape}.")
    if labels.ndim == 2 and labels.shape != logits.shape:
        raise ValueError(f"Multi label wants 0/1 labels [rows, K]: found {logits.shape} and {labels.shape}.")
    if not np.isin(labels, (0, 1)).all() if labels.ndim == 2 else logits.shape[-1] == 1:
        raise ValueError("A regression has no probabilities to calibrate.")
    if labels.ndim == 2:
        return logits, labels
    wrong = labels[(labels < 0) | (labels >= logits.shape[-1])]
    if len(wrong):
        raise ValueError(f"label id {wrong[0]} is out of range: there are {logits.shape[-1]} labels.")
    return logits, labels
