"""Two settings side by side: the scores of their common seeds on their common test items, as measured and resampled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .groups import Group, baseline_of, grouped, latest, varying_options
from .resampling import in_one_grouping, n_items, rows_in_common, seed_scores


@dataclass(frozen=True)
class Side:
    """The scores of a setting's seeds.

    Args:
        measured (`np.ndarray` `[seeds]`): In 0 to 1.
        drawn (`np.ndarray` `[resamples, seeds]`): The same under each draw of test items.
    """

    measured: np.ndarray
    drawn: np.ndarray

    @property
    def mean(self) -> float:
        """Of its seeds."""
        return float(self.measured.mean())


@dataclass(frozen=True)
class Pair:
    """A setting and its baseline on one data set.

    Args:
        data (`str`), setting (`str`), baseline (`str`): As in the table.
        options (`dict[str, Any]`), config (`dict[str, Any]`): As in [`~dhrd_hf.study.statistics.Summary`].
        n_items (`int`): Test items that both have.
        unpaired (`int`): Cells that were left out because the other side lacks their seed.
        ours ([`Side`]), theirs ([`Side`]): The setting's scores, and the baseline's.
    """

    data: str
    setting: str
    baseline: str
    options: dict[str, Any]
    config: dict[str, Any]
    n_items: int
    unpaired: int
    ours: Side
    theirs: Side

    @property
    def n_seeds(self) -> int:
        """Seeds that both have."""
        return len(self.ours.measured)

    def part(self, weight: float = 1.0, scale: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
        """`scale * (ours - weight * theirs)` of each seed; by default the gain in points.

        Args:
            weight (`float`, *optional*, defaults to 1.0), scale (`float`, *optional*, defaults to 100.0): As above.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: as measured `[seeds]`, and under each draw `[resamples, seeds]`.
        """
        measured = scale * (self.ours.measured - weight * self.theirs.measured)
        return measured, scale * (self.ours.drawn - weight * self.theirs.drawn)

    def relative(self) -> tuple[float, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The relative gain in percent.

        Returns:
            `tuple[float, np.ndarray, tuple[np.ndarray, np.ndarray]]`: it, it under each draw `[resamples]`, and its seeds'
            part to the first order, as of [`part`].
        """
        found = float(relative_gain(self.ours.mean, self.theirs.mean))
        drawn = relative_gain(self.ours.drawn.mean(1), self.theirs.drawn.mean(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return found, drawn, self.part(1 + found / 100, np.divide(100, self.theirs.mean))


def pair_of(group: Group, baseline: Group, varying: Sequence[str] = ()) -> Pair | None:
    """Two groups on the seeds that both have.

    Example:

    ```python
    >>> from dhrd_hf.study.pairs import pair_of
    >>> pair_of(dual_head, pooled).n_seeds  # doctest: +SKIP
    3

    ```

    Args:
        group ([`~dhrd_hf.study.groups.Group`]), baseline ([`~dhrd_hf.study.groups.Group`]): The two.
        varying (`Sequence[str]`, *optional*): Names for `options`.

    Returns:
        [`Pair`], or None where they have no seed in common.

    Raises:
        ValueError: if their rows differ in their test items or their metric.
    """
    seeds = set(group.seeds) & set(baseline.seeds)
    if not seeds:
        return None
    ours = group.only(seeds).rows
    cells = [*ours, *baseline.only(seeds).rows]
    rows, cells = rows_in_common(cells), in_one_grouping(cells)
    sides = cells[: len(ours)], cells[len(ours) :]
    config = group.named
    ours, theirs = (Side(seed_scores(it, rows, resampled=False)[0], seed_scores(it, rows)) for it in sides)
    return Pair(
        data=group.data,
        setting=group.setting,
        baseline=baseline.setting,
        options={name: config.get(name) for name in varying},
        config=config,
        n_items=n_items(cells[0], rows),
        unpaired=len(set(group.seeds) ^ set(baseline.seeds)),
        ours=ours,
        theirs=theirs,
    )


def pairs_of(rows: Iterable[Mapping[str, Any]], baseline: str) -> list[Pair]:
    """Each group of a table's cells beside its baseline.

    Example:

    ```python
    >>> from dhrd_hf.study.pairs import pairs_of
    >>> [(it.data, it.setting) for it in pairs_of(rows, "pooled")]  # doctest: +SKIP
    [('esnli', 'dual_head'), ('esnli', 'label_only')]

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): Of `results.jsonl`.
        baseline (`str`): The setting that the others are compared with.

    Returns:
        `list[Pair]`: in the order in which they first stand in the table; a group without its baseline is left out.

    Raises:
        ValueError: as [`pair_of`].
    """
    groups = grouped(latest(rows)[0])
    varying = varying_options(groups)
    bases = [(it, baseline_of(it, groups, baseline)) for it in groups if it.setting != baseline]
    return [pair_of(it, base, varying[it.data, it.setting]) for it, base in bases if base is not None]


def relative_gain(score: Any, baseline: Any) -> Any:
    """`(score - baseline) / baseline`, in percent.

    Example:

    ```python
    >>> from dhrd_hf.study.pairs import relative_gain
    >>> float(relative_gain(0.75, 0.5)), float(relative_gain(0.5, 0.0)), float(relative_gain(0.0, 0.0))
    (50.0, inf, 0.0)

    ```

    Args:
        score (`float` or `np.ndarray`), baseline (`float` or `np.ndarray`): In 0 to 1.

    Returns:
        `float` or `np.ndarray`: without a bound over a baseline of 0, and 0 where both are.

    Source: arXiv 2509.21487, Table 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * np.nan_to_num(np.divide(np.subtract(score, baseline), baseline), nan=0.0, posinf=np.inf)
