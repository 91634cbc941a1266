"""Intervals of means over seeds and test items, and what a study of some size would see.

A part of an interval is an array `[seeds, items]`: what each seed has on each item, of which the mean is the estimate. Seeds and
items are both drawn from more than were run, as readers and cases are in radiology, whose analysis of variance this is (Hillis 2007,
Statistics in Medicine 26:596). `examples/benchmarks/interval_coverage.py` measures what the intervals cover.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are imported when they are used

CONFIDENCE, POWER = 0.95, 0.8
_MOST_SEEDS, _RESAMPLES = 1000, 9999


@dataclass(frozen=True)
class Noise:
    """Where the error of a mean of parts comes from, for each of them."""

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
        several, squares = self.several, np.full(len(self.n_seeds), 1 / len(self.n_seeds)) ** 2
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


def noise(parts: Sequence[np.ndarray]) -> Noise:
    found = []
    for part in parts:
        seeds, items = part.shape
        of_item, among, own = part.mean(0).var(ddof=1), 0.0, 0.0
        if seeds > 1:
            centred = part - part.mean(1, keepdims=True) - part.mean(0) + part.mean()
            among, own = part.mean(1).var(ddof=1), (centred**2).sum() / (seeds - 1) / (items - 1)
        found.append((seeds, items, among, own / items, max(of_item - own / seeds, 0.0) / items))
    return Noise(*(np.array(it) for it in zip(*found, strict=True)))


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
    parts: Sequence[np.ndarray], within: tuple[float, float] = (-np.inf, np.inf), confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """The mean of parts' means, and its interval over seeds and items."""
    value = float(sum(1 / len(parts) * part.mean() for part in parts))
    if not all(np.isfinite(part).all() and part.shape[1] > 1 for part in parts):
        return value, np.nan, np.nan
    # Seeds that happen to be alike make no narrow interval: of the variance over test items alone two fifths are the least.
    # With all of it 2 seeds would cover 99 of 100.
    of_these_runs = [part.mean(0, keepdims=True) for part in parts]
    half, least = (_error(noise(its).variances(), confidence)[1] for its in (parts, of_these_runs))
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
