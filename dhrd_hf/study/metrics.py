"""The scores of a study's runs, and how much each test item moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are used

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
# Of every run, whatever its table's metric is; from the log loss on they are of its logits, and the losses are better low.
SCORES = ("accuracy", "macro_f1", "log_loss", "scaled_log_loss", "brier", "auroc", "accuracy_at_80")
OF_LOGITS, LOSSES = SCORES[2:], SCORES[2:5]
_TEMPERATURES = (0.05, 20.0)
_COVERAGE = 0.8  # share of the rows that a classifier that may abstain answers


def score(metric: str, labels: Any, said: Any, groups: Any = None) -> float:
    return measured(metric, labels, said, groups)[0]


def chance(metric: str, labels: Sequence[int], groups: Sequence[int] | None = None) -> float:
    """The score of who does not read."""
    if metric == "question_accuracy":
        return float((1 / np.bincount(groups)).mean())
    return max(score(metric, labels, [label] * len(labels), groups) for label in set(labels))


def measured(metric: str, labels: Any, said: Any, groups: Any = None) -> tuple[float, np.ndarray]:
    """A score of predictions, or of logits, and for each item (row, or group of rows) what it stands for: their mean is the score."""
    labels, said = np.asarray(labels), np.asarray(said)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    values, shares = zip(*(_PARTS[part](labels, said, group) for part in METRICS.get(metric, (metric,))), strict=True)
    value, share = float(np.mean(values)), np.mean(shares, axis=0)
    if len(share) == len(labels):  # of rows
        share = np.bincount(group, share)
    return value, value + len(share) * share


# Each: the value, and what each row, or else each group, adds to it beside the others: these add up to 0.


def _mean(values: np.ndarray) -> tuple[float, np.ndarray]:
    if not np.isfinite(values).all():  # a loss: the model does not have the right label
        return np.inf, np.full(len(values), np.nan)
    return values.mean(), (values - values.mean()) / len(values)


def _question_accuracy(labels: Any, said: Any, group: Any) -> tuple[float, np.ndarray]:
    value, shares = _mean((np.bincount(group, labels != said) == 0).astype(float))
    return value, shares[group] / np.bincount(group)[group]


def _f1a(labels: Any, said: Any, group: Any, label: int = 1) -> tuple[float, np.ndarray]:
    both = ((said == label) & (labels == label)).astype(float)
    either = (said == label).astype(float) + (labels == label)
    whole = max(either.sum(), 1.0)  # undefined: 0
    value = 2 * both.sum() / whole
    return value, (2 * both - value * either) / whole


def _macro_f1(labels: Any, said: Any, group: Any) -> tuple[float, np.ndarray]:
    # As scikit-learn: classes that are neither among the labels nor predicted are left out of the mean.
    classes = [label for label in np.unique([labels, said]) if label >= 0]
    values, shares = zip(*(_f1a(labels, said, group, label) for label in classes), strict=True)
    return np.mean(values), np.mean(shares, axis=0)


def _losses(labels: np.ndarray, logits: np.ndarray, temperature: Any = 1.0) -> np.ndarray:
    return -scipy.special.log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]


def _scaled_log_loss(labels: Any, logits: Any, group: Any) -> tuple[float, np.ndarray]:
    """Each half of the items at the temperature that is best on the other: being less sure is no gain here."""
    if not np.isfinite(_losses(labels, logits)).all():
        return _mean(_losses(labels, logits))
    half = (np.random.default_rng(0).permutation(group.max() + 1) % 2)[group]
    best, bounds = np.ones(2), np.log(_TEMPERATURES)
    for part in np.unique(half):

        def loss(log: float, rows: np.ndarray = half == part) -> float:
            return _losses(labels[rows], logits[rows], np.exp(log)).mean()

        # The tolerance is of the logarithm; the loss is flat there.
        found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
        best[1 - part] = np.exp(found.x)
    return _mean(_losses(labels, logits, best[half][:, None]))


def _auroc(labels: Any, logits: Any, group: Any) -> tuple[float, np.ndarray]:
    """Each class against the rest, and their mean; no number where there is one class."""
    rankdata, shares, values = scipy.stats.rankdata, np.zeros(len(labels)), []
    for label, probabilities in enumerate(scipy.special.softmax(logits, axis=1).T):
        ours = labels == label
        if ours.all() or not ours.any():
            continue
        beaten = rankdata(probabilities)  # of the other side's rows, how many each is above, of equal ones half
        for side in (ours, ~ours):
            beaten[side] = (beaten[side] - rankdata(probabilities[side])) / (~side).sum()
        beaten[~ours] = 1 - beaten[~ours]
        values.append(beaten[ours].mean())
        shares += (beaten - values[-1]) / np.where(ours, ours.sum(), (~ours).sum())
    return (np.mean(values), shares / len(values)) if values else (np.nan, np.full(len(labels), np.nan))


def _accuracy_at_80(labels: Any, logits: Any, group: Any) -> tuple[float, np.ndarray]:
    """Accuracy on the rows of which the classifier is surest; a row may also move another over the threshold."""
    order = np.argsort(-scipy.special.softmax(logits, axis=1).max(1), kind="stable")
    right = (logits.argmax(1) == labels)[order].astype(float)
    count, number = len(order), max(1, round(_COVERAGE * len(order)))
    value, near = right[:number].mean(), max(1, count // 10)
    at_threshold = right[max(0, number - near) : number + near].mean()
    kept = np.arange(count) < number
    shares = np.empty(count)
    shares[order] = (kept * (right - value) + (at_threshold - value) * (number / count - kept)) / number
    return value, shares


_PARTS = {
    "accuracy": lambda labels, said, group: _mean((labels == said).astype(float)),
    "macro_f1": _macro_f1,
    "question_accuracy": _question_accuracy,
    "f1a": _f1a,
    "log_loss": lambda labels, logits, group: _mean(_losses(labels, logits)),
    "scaled_log_loss": _scaled_log_loss,
    "brier": lambda labels, logits, group: _mean(
        ((scipy.special.softmax(logits, axis=1) - np.eye(logits.shape[1])[labels]) ** 2).sum(1)
    ),
    "auroc": _auroc,
    "accuracy_at_80": _accuracy_at_80,
}
