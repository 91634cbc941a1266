"""Intervals of means over seeds and test items, whose noise adds up; the power to see a gain; the sign of all pairs.

A part is an array `[seeds, items]`: what each seed has on each item, of which the mean is the estimate. Seeds and items are
both drawn from more than were run, as readers and cases are in radiology, whose analysis of variance this is (Hillis 2007,
Statistics in Medicine 26:596). `examples/benchmarks/interval_coverage.py` measures what the intervals cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE, POWER = 0.95, 0.8
_MOST_SEEDS, _RESAMPLES = 1000, 9999


@dataclass(frozen=True)
class Noise:
    """Where the error of an estimate comes from."""

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

    def variances(self, n_seeds: np.ndarray | int | None = None) -> tuple[float, float, float, float]:
        """Of seeds and of items, each with its degrees of freedom; also as it would be with other numbers of seeds."""
        several, squares = self.several, self.weights**2
        if not several.any():
            return 0.0, (squares * self.of_items).sum(), 1.0, _freedom(squares * self.of_items, self.n_items - 1)
        planned = self.n_seeds if n_seeds is None else np.broadcast_to(n_seeds, self.n_seeds.shape)
        degrees = np.where(several, self.n_seeds - 1, 0)
        # What one seed can't tell is that of the other parts, weighed by their degrees of freedom; its items tell the rest.
        shares, alone = degrees / degrees.sum(), (squares / planned)[~several].sum()
        of_seeds = (np.where(several, squares / planned, 0) + alone * shares) * self.among_seeds
        of_items = squares * (self.of_items - np.where(several, 0, (shares * self.own).sum()))
        if n_seeds is not None:
            degrees = degrees * np.where(several, (planned - 1) / np.maximum(self.n_seeds - 1, 1), 0)
        freedom = _freedom(of_seeds[several], degrees[several], correction=0.5)
        return of_seeds.sum(), max(of_items.sum(), 0.0), freedom, _freedom(of_items, self.n_items - 1)


def noise(parts: Sequence[np.ndarray], weights: Sequence[float]) -> Noise:
    """The noise of the weighted sum of parts' means."""
    found = []
    for part in parts:
        seeds, items = part.shape
        of_item = part.mean(0).var(ddof=1)
        if seeds == 1:
            found.append((1, items, 0.0, 0.0, of_item / items))
            continue
        centred = part - part.mean(1, keepdims=True) - part.mean(0) + part.mean()
        own = (centred**2).sum() / (seeds - 1) / (items - 1)
        found.append((seeds, items, part.mean(1).var(ddof=1), own / items, max(of_item - own / seeds, 0.0) / items))
    return Noise(np.asarray(weights, float), *(np.array(it) for it in zip(*found, strict=True)))


def half_width(
    of_seeds: float, of_items: float, seeds_freedom: float, items_freedom: float, confidence: float = CONFIDENCE
) -> float:
    """Half the width of the interval of an estimate with two sources of noise."""
    from scipy.special import stdtrit  # t's quantiles

    total, tail = of_seeds + of_items, (1 + confidence) / 2
    if not total > 0:
        return 0.0
    freedom = total**2 / (of_seeds**2 / seeds_freedom + of_items**2 / items_freedom)
    large = stdtrit(seeds_freedom, tail) ** 2 * of_seeds + stdtrit(items_freedom, tail) ** 2 * of_items
    return float(np.sqrt(large / 3 + 2 / 3 * stdtrit(freedom, tail) ** 2 * total))


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
    of_these = _of_these_runs(parts, weights, confidence)
    half = max(half_width(*noise(parts, weights).variances(), confidence), 0.4**0.5 * of_these)
    return value, max(value - half, within[0]), min(value + half, within[1])


def power(of: Noise, gain: float, n_seeds: int | None = None, confidence: float = CONFIDENCE) -> float:
    """How often the interval would lie clear of 0, on the right side, if a gain were true, with a number of seeds."""
    from scipy.stats import nct

    variances = of.variances(n_seeds)
    total = variances[0] + variances[1]
    if not total > 0:
        return 1.0
    freedom = total**2 / (variances[0] ** 2 / variances[2] + variances[1] ** 2 / variances[3])
    error = np.sqrt(total)
    return float(nct.sf(half_width(*variances, confidence) / error, freedom, abs(gain) / error))


def seeds_for(of: Noise, gain: float, confidence: float = CONFIDENCE) -> int | None:
    """The least number of seeds, at least 2, that see a gain in 80 of 100 studies; None where no number would, or none is known."""
    if not of.several.any():
        return None
    return _least(lambda seeds: power(of, gain, seeds, confidence) >= POWER, 2, _MOST_SEEDS)


def visible_gain(of: Noise, confidence: float = CONFIDENCE) -> float:
    """The least gain that 80 of 100 studies of this size would see."""
    from scipy.optimize import brentq

    error = np.sqrt(sum(of.variances()[:2]))
    return (
        float(brentq(lambda gain: power(of, gain, None, confidence) - POWER, 0.0, 100 * error)) if error > 0 else 0.0
    )


def sign_test(differences: Sequence[np.ndarray]) -> float:
    """p of the mean over data sets of the mean over their pairs of runs, if each pair's sides were the same: all signs, or draws of them."""
    from scipy.stats import permutation_test

    weights = np.concatenate([np.full(len(its), 1 / len(its)) for its in differences])
    if len(weights) == 1:
        return 1.0
    signed = np.concatenate(differences) * weights
    result = permutation_test(
        (signed, np.zeros(len(signed))),
        lambda ours, theirs, axis: (ours - theirs).sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _of_these_runs(parts: Sequence[np.ndarray], weights: Sequence[float], confidence: float) -> float:
    """Half the width of the interval over test items alone, which says nothing of other seeds."""
    variances = [
        part.mean(0).var(ddof=1) / part.shape[1] * weight**2 for part, weight in zip(parts, weights, strict=True)
    ]
    items = np.array([part.shape[1] for part in parts])
    return half_width(0.0, sum(variances), 1.0, _freedom(np.array(variances), items - 1), confidence)


def _freedom(variances: np.ndarray, degrees: np.ndarray, correction: float = 0.0) -> float:
    """Satterthwaite's, which few degrees of freedom make too small: less so with a correction, as in Rust and Johnson 1992."""
    kept = (variances != 0) & (degrees > 0)
    if not kept.any():
        return float(max(np.min(degrees, initial=1.0), 1.0))
    variances, degrees = variances[kept], degrees[kept]
    found = variances.sum() ** 2 / (variances**2 / (degrees + correction)).sum() - correction
    return float(max(found, degrees.min()))


def _least(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
