"""The bootstrap of a study: test items drawn with replacement, and intervals that say what seeds add to them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .metrics import resampled_scores

CONFIDENCE = 0.95
_RESAMPLES, _RESAMPLES_AT_ONCE = 2000, 250


def rows_in_common(cells: Sequence[Mapping[str, Any]]) -> int:
    """Number of test rows that cells have in common, the first of each: decoding is slow, and takes fewer."""
    fewest = min(len(cell["labels"]) for cell in cells)
    first = cells[0]
    for cell in cells[1:]:
        if (cell["metric"], cell["labels"][:fewest]) != (first["metric"], first["labels"][:fewest]):
            raise _not_alike(first, cell, "on other rows or by another metric")
    of_groups = [cell for cell in cells if cell["groups"] is not None]
    for cell in of_groups[1:]:
        if cell["groups"][:fewest] != of_groups[0]["groups"][:fewest]:
            raise _not_alike(of_groups[0], cell, "in other groups of rows")
    return fewest


def in_one_grouping(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Cells of the same test rows, of which those without groups have the others'."""
    groups = max((cell["groups"] for cell in cells if cell["groups"] is not None), key=len, default=None)
    return [
        cell if groups is None or cell["groups"] is not None else {**cell, "groups": groups[: len(cell["labels"])]}
        for cell in cells
    ]


def _not_alike(one: Mapping[str, Any], other: Mapping[str, Any], how: str) -> ValueError:
    return ValueError(
        f"cells {one['cell']} and {other['cell']} of {other['data']} were tested {how}: they can't be compared"
    )


def n_items(cell: Mapping[str, Any], rows: int) -> int:
    """Number of test items among the first rows of a cell: of groups of rows that belong together, else of rows."""
    return rows if cell["groups"] is None else len(set(cell["groups"][:rows]))


def seed_scores(cells: Sequence[Mapping[str, Any]], rows: int, resampled: bool = True) -> np.ndarray:
    """The scores of the cells of several seeds, under each draw of test items or as they were measured."""
    items = n_items(cells[0], rows)
    weights = _draws(cells[0]["data"], items) if resampled else np.ones((1, items))
    found = []
    for cell in cells:
        labels, predictions = (np.array(cell[name][:rows]) for name in ("labels", "predictions"))
        groups = None if cell["groups"] is None else np.array(cell["groups"][:rows])
        found.append(resampled_scores(cell["metric"], labels, predictions, groups, weights))
    return np.stack(found, axis=1)


@lru_cache(maxsize=4)  # a report asks for the same ones again and again, and they take most of its time
def _draws(data: str, items: int) -> np.ndarray:
    """How often each item is in each resample `[resamples, items]`: all that one has to know of a draw."""
    from scipy.stats import bootstrap

    if items < 2:
        raise ValueError(f"{data} was tested on {items} item: an interval needs two or more")
    result = bootstrap(
        (np.arange(items),),
        lambda drawn, axis: _counts(drawn, items).T,  # the statistic: one draw then serves every setting
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        method="percentile",
        # Of the name: independent from one data set to the next, and always the same.
        rng=np.random.default_rng(zlib.crc32(data.encode())),
    )
    return np.ascontiguousarray(result.bootstrap_distribution.T)


def _counts(draws: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` numbers is among those of each row: `[R, n]` to `[R, size]`."""
    shifted = draws + size * np.arange(len(draws))[:, None]
    return np.bincount(shifted.ravel(), minlength=size * len(draws)).reshape(len(draws), size).astype(float)


def interval(
    estimate: float,
    resampled: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    r"""The 95% interval of a mean over seeds, or of the mean over data sets of such means, over seeds and items."""
    from scipy.stats import norm, t

    tail = (1 - CONFIDENCE) / 2
    # No interpolation: a relative gain over a baseline of 0 has no bound.
    low, high = np.percentile(resampled, [100 * tail, 100 * (1 - tail)], method="closest_observation")
    several = [(its, drawn) for its, drawn in parts if len(its) > 1]
    finite = np.isfinite(estimate) and np.isfinite(resampled).all() and all(np.isfinite(it).all() for it, _ in several)
    if several and finite:
        of_items, of_seeds, squares = resampled.var(), 0.0, 0.0
        for its, drawn in several:
            seeds = len(its)
            spread = its.var(ddof=1) / seeds  # with each seed's own noise on the items
            noise = (drawn.var(0).mean() - drawn.mean(1).var()) / (seeds - 1)
            of_seeds += max(0.0, spread - noise) / len(parts) ** 2
            squares += (spread / len(parts) ** 2) ** 2 / (seeds - 1)
        if squares == 0:  # seeds alike
            return float(low), float(high)
        variance = of_items + of_seeds
        wider = t.ppf(1 - tail, variance**2 / squares) * np.sqrt(variance)
        if of_items > 0:
            wider /= norm.ppf(1 - tail) * np.sqrt(of_items)
            low, high = estimate - wider * (estimate - low), estimate + wider * (high - estimate)
        else:  # all items alike
            low, high = estimate - wider, estimate + wider
    return max(float(low), within[0]), min(float(high), within[1])
