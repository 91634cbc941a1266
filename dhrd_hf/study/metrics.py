"""The scores of a study's runs, how much each test item moves them, and the intervals of their means.

A part of an interval is an array `[seeds, items]`: what each seed has on each item, of which the mean is the estimate. Seeds and
items are both drawn from more than were run, as readers and cases are in radiology, whose analysis of variance this is (Hillis 2007,
Statistics in Medicine 26:596). `examples/benchmarks/interval_coverage.py` measures what the intervals cover.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are used

CONFIDENCE, POWER = 0.95, 0.8
_MOST_SEEDS, _RESAMPLES = 1000, 9999
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


def score(metric: str, labels: Any, predictions: Any, groups: Any = None, logits: np.ndarray | None = None) -> float:
    return measured(metric, labels, predictions, groups, logits)[0]


def chance(metric: str, labels: Sequence[int], groups: Sequence[int] | None = None) -> float:
    """The score of who does not read."""
    if metric == "question_accuracy":
        return float((1 / np.bincount(groups)).mean())
    return max(score(metric, labels, [label] * len(labels), groups) for label in set(labels))


def measured(
    metric: str, labels: Any, predictions: Any, groups: Any = None, logits: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """A score, and for each item (row, or group of rows) the score that it stands for: their mean is the score."""
    labels = np.asarray(labels)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    said = np.asarray(predictions) if logits is None else logits
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


# Intervals


@dataclass(frozen=True)
class Noise:
    """Where the error of an estimate comes from, for each of its parts."""

    weights: np.ndarray
    n_seeds: np.ndarray
    n_items: np.ndarray
    among_seeds: np.ndarray  # 0 where there is one seed
    own: np.ndarray
    of_items: np.ndarray  # the variance of the mean that more seeds take nothing from

    @property
    def several(self) -> np.ndarray:
        """Which parts have seeds to compare."""
        return self.n_seeds > 1

    def variances(self, n_seeds: int | None = None) -> tuple[float, float, float, float]:
        """Of seeds and of items, each with its degrees of freedom; also as it would be with another number of seeds."""
        several, squares = self.several, self.weights**2
        if not several.any():
            return 0.0, (squares * self.of_items).sum(), 1.0, _freedom(squares * self.of_items, self.n_items - 1)
        planned = self.n_seeds if n_seeds is None else np.full(self.n_seeds.shape, n_seeds)
        degrees = np.where(several, self.n_seeds - 1, 0)
        # What one seed can't tell is that of the other parts, weighed by their degrees of freedom; its items tell the rest.
        shares, alone = degrees / degrees.sum(), (squares / planned)[~several].sum()
        of_seeds = (np.where(several, squares / planned, 0) + alone * shares) * self.among_seeds
        of_items = squares * (self.of_items - np.where(several, 0, (shares * self.own).sum()))
        freedom = _freedom(of_seeds[several], (planned - 1)[several], correction=0.5)
        return of_seeds.sum(), max(of_items.sum(), 0.0), freedom, _freedom(of_items, self.n_items - 1)


def noise(parts: Sequence[np.ndarray], weights: Sequence[float]) -> Noise:
    found = []
    for part in parts:
        seeds, items = part.shape
        of_item, among, own = part.mean(0).var(ddof=1), 0.0, 0.0
        if seeds > 1:
            centred = part - part.mean(1, keepdims=True) - part.mean(0) + part.mean()
            among, own = part.mean(1).var(ddof=1), (centred**2).sum() / (seeds - 1) / (items - 1)
        found.append((seeds, items, among, own / items, max(of_item - own / seeds, 0.0) / items))
    return Noise(np.asarray(weights, float), *(np.array(it) for it in zip(*found, strict=True)))


def _error(variances: tuple[float, float, float, float], confidence: float) -> tuple[float, float, float]:
    """The standard error of an estimate with two sources of noise, half the width of its interval, and degrees of freedom."""
    stdtrit = scipy.special.stdtrit  # t's quantiles
    (of_seeds, of_items, seeds_freedom, items_freedom), tail = variances, (1 + confidence) / 2
    total = of_seeds + of_items
    if not total > 0:
        return 0.0, 0.0, 1.0
    freedom = total**2 / (of_seeds**2 / seeds_freedom + of_items**2 / items_freedom)
    large = stdtrit(seeds_freedom, tail) ** 2 * of_seeds + stdtrit(items_freedom, tail) ** 2 * of_items
    return np.sqrt(total), float(np.sqrt(large / 3 + 2 / 3 * stdtrit(freedom, tail) ** 2 * total)), freedom


def interval(
    parts: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    within: tuple[float, float] = (-np.inf, np.inf),
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float]:
    """The mean of parts' means, or their weighted sum, and its interval over seeds and items."""
    weights = np.full(len(parts), 1 / len(parts)) if weights is None else weights
    value = float(sum(weight * part.mean() for weight, part in zip(weights, parts, strict=True)))
    if not all(np.isfinite(part).all() and part.shape[1] > 1 for part in parts):
        return value, np.nan, np.nan
    # Seeds that happen to be alike make no narrow interval: of the variance over test items alone two fifths are the least.
    # With all of it 2 seeds would cover 99 of 100.
    of_these_runs = noise([part.mean(0, keepdims=True) for part in parts], weights)
    half, least = (_error(it.variances(), confidence)[1] for it in (noise(parts, weights), of_these_runs))
    half = max(half, 0.4**0.5 * least)
    return value, max(value - half, within[0]), min(value + half, within[1])


def power(of: Noise, gain: float, n_seeds: int | None = None, confidence: float = CONFIDENCE) -> float:
    """How often the interval would lie clear of 0, on the right side, if a gain were true, with a number of seeds."""
    error, half, freedom = _error(of.variances(n_seeds), confidence)
    return float(scipy.stats.nct.sf(half / error, freedom, abs(gain) / error)) if error > 0 else 1.0


def seeds_for(of: Noise, gain: float, confidence: float = CONFIDENCE) -> int | None:
    """The least number of seeds, at least 2, that see a gain in 80 of 100 studies; None where no number would, or none is known."""

    def seen(seeds: int) -> bool:
        return power(of, gain, seeds, confidence) >= POWER

    if not of.several.any() or not seen(_MOST_SEEDS):
        return None
    return 2 + bisect_left(range(2, _MOST_SEEDS), True, key=seen)


def visible_gain(of: Noise, confidence: float = CONFIDENCE) -> float:
    """The least gain that 80 of 100 studies of this size would see."""
    most = 100 * np.sqrt(sum(of.variances()[:2]))
    if not most > 0:
        return 0.0
    return float(scipy.optimize.brentq(lambda gain: power(of, gain, None, confidence) - POWER, 0.0, most))


def sign_test(differences: Sequence[np.ndarray]) -> float:
    """p of the mean over data sets of the mean over their pairs of runs, if each pair's sides were the same: all signs, or draws of them."""
    signed = np.concatenate([its * (1 / len(its)) for its in differences])
    if len(signed) == 1:
        return 1.0
    how = {"permutation_type": "samples", "n_resamples": _RESAMPLES, "rng": np.random.default_rng(0)}
    return float(scipy.stats.permutation_test((signed,), np.sum, vectorized=True, **how).pvalue)


def _freedom(variances: np.ndarray, degrees: np.ndarray, correction: float = 0.0) -> float:
    """Satterthwaite's, which few degrees of freedom make too small: less so with a correction, as in Rust and Johnson 1992."""
    kept = (variances != 0) & (degrees > 0)
    if not kept.any():
        return float(max(np.min(degrees, initial=1.0), 1.0))
    variances, degrees = variances[kept], degrees[kept]
    found = variances.sum() ** 2 / (variances**2 / (degrees + correction)).sum() - correction
    return float(max(found, degrees.min()))
