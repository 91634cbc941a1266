"""From which probability on a classifier is to be trusted: thresholds for a precision, a recall or an accuracy, and sets of labels.

What is promised holds of new rows like these: the lower end of its 95% interval reaches what was asked for, and the interval
knows how many thresholds were looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from scipy.stats import beta, binomtest

from .calibration import checked_logits

_TAIL = 0.025  # below a two-sided interval of 95%
_STEP = 0.7  # a threshold that is looked at accepts so many of the rows of the one before it
_FEWEST = 10  # rows that say anything of how many would do
_MOST_ROWS = 10_000_000  # that are ever asked for


def fit_thresholds(
    logits: Any, labels: Any, *, precision: float | None = None, recall: float | None = None
) -> list[float | None]:
    """For each class a threshold on its probability from which on a precision, or a recall, is promised.

    Each class is judged alone, as "this one or not". For a precision some thresholds are looked at, each of which accepts
    0.7 times the rows of the one before; of those whose Clopper-Pearson interval reaches the precision the lowest is taken,
    which leaves out the fewest rows. The intervals are of 95% for all that are looked at together (Bonferroni), so that on
    new rows a promise is broken in fewer than one of twenty calibrations. For a recall it is the highest threshold whose
    interval, that of a quantile, reaches it. Use a split that is neither trained nor tested on, and the calibrated logits.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import fit_thresholds
    >>> probability = np.linspace(0.01, 0.99, 200)  # of class 1, of which the rows above 0.4 are
    >>> logits, labels = np.log(np.stack([1 - probability, probability], -1)), (probability > 0.4).astype(int)
    >>> [None if it is None else round(it, 2) for it in fit_thresholds(logits, labels, precision=0.9)]
    [0.66, 0.51]

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray`): Class ids `[rows]`, or 0/1 `[rows, K]` for multi label, whose probability is the sigmoid.
        precision, recall (`float`, *optional*): What to reach, above 0 and at most 1; one of the two.

    Returns:
        `list[float | None]`: K thresholds: a class is accepted where its probability is at least that. None for a class
        for which none can be promised with these rows; [`rows_that_would_do`] says how many would.

    Raises:
        ValueError: if not one of `precision` and `recall` is given or it is out of range, or as [`calibration_metrics`].

    Source: C. Clopper and E. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934), 404-413; scipy `beta`.
    """
    return [threshold for threshold, _ in _promises(logits, labels, precision, recall)]


def rows_that_would_do(
    logits: Any, labels: Any, *, precision: float | None = None, recall: float | None = None
) -> list[int | None]:
    """For each class, about how many rows like these would promise it a threshold.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import rows_that_would_do
    >>> rows_that_would_do(np.array([[2.0, 0.0], [0.0, 2.0]] * 5), np.array([0, 1] * 5), recall=0.9)
    [72, 72]

    ```

    Args:
        logits, labels, precision, recall: As for [`fit_thresholds`].

    Returns:
        `list[int | None]`: a number of rows of all classes; None where no number would do, since at none of the thresholds
        the rows have more than what is asked for.

    Raises:
        ValueError: as [`fit_thresholds`].
    """
    return [rows for _, rows in _promises(logits, labels, precision, recall)]


def _promises(
    logits: Any, labels: Any, precision: float | None, recall: float | None
) -> list[tuple[float | None, int | None]]:
    if (precision is None) == (recall is None):
        raise ValueError("Give a precision or a recall to reach, and not both.")
    check_target(precision=precision, recall=recall)
    found = []
    for probability, is_class in zip(*_one_against_rest(logits, labels), strict=True):
        if recall is None:
            found.append(_promised(probability, is_class, precision))
        else:
            found.append(_promised_recall(probability, is_class, recall))
    return found


def _promised(score: np.ndarray, hit: np.ndarray, target: float) -> tuple[float | None, int | None]:
    """The lowest threshold on a score from which on a share of hits is promised, and how many rows would do."""
    rows = len(score)
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(hit[order])
    wanted = [rows]
    while wanted[-1] * _STEP >= _FEWEST:
        wanted.append(int(wanted[-1] * _STEP))
    # Rows strictly above the next one, which by that are an independent sample of what is above it.
    sizes = {rows if size == rows else int(np.searchsorted(-score, -score[size])) for size in wanted}
    sizes = np.array(sorted(sizes - {0}, reverse=True))
    least = math.log(_TAIL) / math.log(target) if target < 1 else math.inf
    looked = sizes[sizes >= min(least, rows)]  # fewer rows could not promise it if all were hits
    good = hits[looked - 1]
    promised = np.flatnonzero(_lower_end(good, looked, _TAIL / max(len(looked), 1)) >= target)
    if len(promised):
        size = looked[promised[0]]
        return float((score[size - 1] + (score[size] if size < rows else 0.0)) / 2), rows
    shares = (hits[sizes - 1] + 0.5) / (sizes + 1)  # ten of ten are not all
    more = min(_rows_for(it, target, _TAIL / len(sizes)) * rows / size for it, size in zip(shares, sizes, strict=True))
    return None, (math.ceil(more) if more < _MOST_ROWS else None)


def _lower_end(hits: Any, rows: Any, tail: float) -> np.ndarray:
    return np.where(np.asarray(hits) > 0, beta.ppf(tail, np.maximum(hits, 1e-9), np.subtract(rows, hits) + 1), 0.0)


def _rows_for(share: float, target: float, tail: float) -> float:
    """How many rows with that share of hits have an interval that reaches the target."""
    if share <= target:
        return math.inf
    low, high = 1.0, 2.0
    while _lower_end(share * high, high, tail) < target:
        low, high = high, 2 * high
        if high > _MOST_ROWS:
            return math.inf
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if _lower_end(share * middle, middle, tail) >= target else (middle, high)
    return high


def _promised_recall(score: np.ndarray, is_class: np.ndarray, target: float) -> tuple[float | None, int | None]:
    own = np.sort(score[is_class])
    least = math.inf if target == 1 else math.ceil(math.log(_TAIL) / math.log(target))
    needed = math.ceil(least * len(score) / len(own)) if len(own) and target < 1 else None
    if len(own) < least:
        return None, needed
    ranks = np.arange(1, len(own) + 1)  # the share of the class below its r-th row is Beta(r, n - r + 1)
    rank = np.flatnonzero(beta.ppf(1 - _TAIL, ranks, len(own) - ranks + 1) <= 1 - target)[-1]
    return float((own[rank] + score[score < own[rank]].max(initial=0.0)) / 2), len(score)


def check_target(**targets: float | None) -> None:
    """Raise on a precision, a recall or another share that nothing could have."""
    for name, value in targets.items():
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"{name}={value} must be above 0 and at most 1.")


def threshold_report(logits: Any, labels: Any, thresholds: Sequence[float | None]) -> list[dict[str, float | None]]:
    """What thresholds do on rows: of each class the precision, the recall and the rows that it is accepted for.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import threshold_report
    >>> threshold_report(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 0]), [0.5, None])[1]["recall"] is None
    True

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`), labels (`np.ndarray`): As for [`fit_thresholds`].
        thresholds (`Sequence[float | None]` of length K): From [`fit_thresholds`].

    Returns:
        `list[dict]`: for each class `threshold`, `precision` and `recall` with the ends of their 95% intervals
        (`precision_low`, ...), and `rows`; None where there is nothing to count.

    Raises:
        ValueError: as [`calibration_metrics`], or if there are not K thresholds.
    """
    probabilities, is_class = _one_against_rest(logits, labels)
    if len(thresholds) != len(probabilities):
        raise ValueError(f"There are {len(thresholds)} thresholds for {len(probabilities)} classes.")
    report = []
    for threshold, probability, truth in zip(thresholds, probabilities, is_class, strict=True):
        accepted = np.zeros_like(truth) if threshold is None else probability >= threshold
        hits = int((accepted & truth).sum())
        found: dict[str, float | None] = {"threshold": threshold}
        for name, rows in (("precision", int(accepted.sum())), ("recall", int(truth.sum()))):
            it = share_interval(hits, rows) if rows else dict.fromkeys(("value", "low", "high"))
            found |= {name: it["value"], f"{name}_low": it["low"], f"{name}_high": it["high"]}
        report.append({**found, "rows": int(accepted.sum())})
    return report


def share_interval(hits: int, rows: int) -> dict[str, float]:
    interval = binomtest(hits, rows).proportion_ci(0.95, method="exact")
    return {"value": hits / rows, "low": float(interval.low), "high": float(interval.high)}


def fit_abstention(logits: Any, labels: Any, accuracy: float) -> tuple[float | None, int | None]:
    """The lowest confidence from which on an accuracy is promised, so that the fewest rows are left unanswered.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import fit_abstention
    >>> fit_abstention(np.array([[2.0, 0.0]] * 8), np.zeros(8, int), 0.9)[1]  # how many rows would do
    179

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray` of shape `[rows]`): Class ids.
        accuracy (`float`): What the rows that are answered are to reach, above 0 and at most 1.

    Returns:
        `tuple[float | None, int | None]`: the threshold on the largest probability, None where none can be promised; and
        about how many rows would do, None where no number would.

    Raises:
        ValueError: for multi label, or as [`fit_thresholds`].

    Source: Geifman and El-Yaniv 2017, arXiv 1705.08500, with the thresholds and intervals of [`fit_thresholds`].
    """
    check_target(accuracy=accuracy)
    shares, labels = _single(logits, labels)
    return _promised(shares.max(-1), shares.argmax(-1) == labels, accuracy)


def abstention_report(logits: Any, labels: Any, threshold: float) -> dict[str, Any]:
    """What a classifier that abstains below a confidence does on rows: its coverage and its accuracy, with 95% intervals."""
    shares, labels = _single(logits, labels)
    answered = shares.max(-1) >= threshold
    right, rows = int((shares.argmax(-1) == labels)[answered].sum()), int(answered.sum())
    return {
        "rows": len(labels),
        "answered": rows,
        "coverage": share_interval(rows, len(labels)),
        "accuracy": share_interval(right, rows) if rows else None,
    }


def fit_label_sets(logits: Any, labels: Any, coverage: float) -> float | None:
    """The probability from which on labels belong to a row's set, so that the sets hold the right one so often.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import fit_label_sets
    >>> logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]))
    >>> round(fit_label_sets(logits, np.zeros(4, int), 0.6), 2)  # the third of four: ceil(5 * 0.6)
    0.7

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray` of shape `[rows]`): Class ids.
        coverage (`float`): Share of new rows whose set is to hold their label, above 0 and below 1.

    Returns:
        `float | None`: the threshold; None where there are fewer than `coverage / (1 - coverage)` rows.

    Raises:
        ValueError: for multi label, or a share out of range.

    Source: split conformal prediction; Sadinle, Lei, Wasserman 2019, "Least Ambiguous Set-Valued Classifiers with Bounded
    Error Levels".
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage} must be above 0 and below 1.")
    shares, labels = _single(logits, labels)
    of_truth = np.sort(shares[np.arange(len(labels)), labels])[::-1]
    rank = math.ceil((len(labels) + 1) * coverage - 1e-9)
    return float(of_truth[rank - 1]) if rank <= len(labels) else None


def label_set_report(logits: Any, labels: Any, threshold: float) -> dict[str, Any]:
    """What sets of labels are on rows that did not fit them: how often they hold the right one, and how large they are."""
    shares, labels = _single(logits, labels)
    inside = shares >= threshold
    sizes = inside.sum(-1)
    return {
        "rows": len(labels),
        "coverage": share_interval(int(inside[np.arange(len(labels)), labels].sum()), len(labels)),
        "mean_size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
        "single": float((sizes == 1).mean()),
    }


def _single(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = checked_logits(logits, labels)
    if labels.ndim == 2:
        raise ValueError("Abstaining and sets of labels are for one label a row, and these have several.")
    return softmax(logits.astype(np.float64), axis=-1), labels.astype(int)


def _one_against_rest(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of each class its probability in every row, and which rows are of it: both `[K, rows]`."""
    logits, labels = checked_logits(logits, labels)
    logits = logits.astype(np.float64)
    if labels.ndim == 2:
        return expit(logits).T, labels.T == 1
    return softmax(logits, axis=-1).T, labels == np.arange(logits.shape[-1])[:, None]
