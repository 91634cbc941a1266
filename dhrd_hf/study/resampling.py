"""The bootstrap of a study: seeds and test items drawn at once, the same draws for every setting."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .metrics import resampled_scores

CONFIDENCE = 0.95
_RESAMPLES, _RESAMPLES_AT_ONCE = 2000, 250


def n_items(row: Mapping[str, Any]) -> int:
    """Number of test items of a row of the table.

    Args:
        row (`Mapping[str, Any]`): The row.

    Returns:
        `int`: questions where the metric counts those, else rows.
    """
    return len(row["labels"]) if row["groups"] is None else len(set(row["groups"]))


def resampled_means(data: str, sides: Sequence[Sequence[Mapping[str, Any]]], items: int) -> np.ndarray:
    """Mean scores over seeds in each resample, which is one draw of seeds and items for all sides.

    Args:
        data (`str`): The data set: the draws are always the same for one, and independent from one to the next.
        sides (`Sequence[Sequence[Mapping[str, Any]]]`): For each side the rows of its seeds, in one order of the seeds.
        items (`int`): Number of test items, the first of each row.

    Returns:
        `np.ndarray` `[sides, resamples]`: the means.

    Raises:
        ValueError: if the rows were tested on other items or by another metric, or there are fewer than two items.
    """
    _check_comparable([row for side in sides for row in side])
    of_seeds, of_items = _draws(data, len(sides[0]), items)
    return np.stack([(seed_scores(side, items, of_items) * of_seeds).sum(1) for side in sides])


@lru_cache(maxsize=4)  # a report asks for the same ones again and again, and they take most of its time
def _draws(data: str, seeds: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """The share of each seed `[resamples, seeds]` and how often each item `[resamples, items]` is drawn: all one has to know.

    The statistic given to scipy are these counts, so that one draw serves every setting of the data set. Of S seeds
    S - 1 are drawn: their mean then varies by s^2 / S, where S of S would vary by (S - 1) / S of it, a third too little
    at S = 3 (Rao and Wu 1988). Of the items, of which there are many, all are.
    """
    from scipy.stats import bootstrap

    if items < 2:
        raise ValueError(f"{data} was tested on {items} item: an interval needs two or more")
    sizes = [seeds, items] if seeds > 1 else [items]  # of one seed there is nothing to draw

    def counts(*drawn: np.ndarray, axis: int) -> np.ndarray:
        *of_seeds, of_items = drawn
        kept = [*(it[:, 1:] for it in of_seeds), of_items]  # S - 1 of the S seeds drawn
        return np.concatenate([_counts(it, size) for it, size in zip(kept, sizes, strict=True)], axis=1).T

    result = bootstrap(
        tuple(map(np.arange, sizes)),
        counts,
        vectorized=True,
        paired=False,  # seeds and items are drawn apart
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        method="percentile",
        # Of the name: independent from one data set to the next, and always the same.
        rng=np.random.default_rng(zlib.crc32(data.encode())),
    )
    found = result.bootstrap_distribution.T
    of_seeds = found[:, :seeds] / (seeds - 1) if seeds > 1 else np.ones((1, 1))
    return of_seeds, np.ascontiguousarray(found[:, -items:])


def _counts(draws: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` numbers is among those of each row: `[R, n]` to `[R, size]`."""
    shifted = draws + size * np.arange(len(draws))[:, None]
    return np.bincount(shifted.ravel(), minlength=size * len(draws)).reshape(len(draws), size).astype(float)


def seed_scores(rows: Sequence[Mapping[str, Any]], items: int, weights: np.ndarray) -> np.ndarray:
    """Scores on the first items under weights of them.

    Args:
        rows (`Sequence[Mapping[str, Any]]`): The rows of the seeds.
        items (`int`): Number of items.
        weights (`np.ndarray` `[resamples, items]`): How often each item was drawn.

    Returns:
        `np.ndarray` `[resamples, seeds]`: the scores.
    """
    found = []
    for row in rows:
        groups = None if row["groups"] is None else np.array(row["groups"])
        rows_kept = items if groups is None else int((groups < items).sum())  # groups are numbered as they come
        labels, predictions = (np.array(row[name][:rows_kept]) for name in ("labels", "predictions"))
        of_row = None if groups is None else groups[:rows_kept]
        found.append(resampled_scores(row["metric"], labels, predictions, of_row, weights))
    return np.stack(found, axis=1)


def _check_comparable(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows must have been tested on the same items, at least on those that are compared."""
    fewest = min(len(row["labels"]) for row in rows)
    for row in rows[1:]:
        if row["labels"][:fewest] != rows[0]["labels"][:fewest] or row["metric"] != rows[0]["metric"]:
            raise ValueError(
                f"cells {rows[0]['cell']} and {row['cell']} of {row['data']} were tested on other rows or by another "
                "metric: they can't be compared"
            )


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The percentile interval of what was resampled.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.study.resampling import interval
    >>> interval(np.arange(1000.0))
    (24.0, 974.0)

    ```

    Args:
        resampled (`np.ndarray` `[resamples]`): The values.

    Returns:
        `tuple[float, float]`: its lower and upper end.
    """
    tail = 100 * (1 - CONFIDENCE) / 2
    # No interpolation: a relative gain over a baseline of 0 has no bound.
    low, high = np.percentile(resampled, [tail, 100 - tail], method="closest_observation")
    return float(low), float(high)
