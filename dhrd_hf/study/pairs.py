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
    """The scores of a setting's seeds."""

    measured: np.ndarray
    drawn: np.ndarray

    @property
    def mean(self) -> float:
        """Of its seeds."""
        return float(self.measured.mean())


@dataclass(frozen=True)
class Pair:
    """A setting and its baseline on one data set."""

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
        """`scale * (ours - weight * theirs)` of each seed; by default the gain in points."""
        measured = scale * (self.ours.measured - weight * self.theirs.measured)
        return measured, scale * (self.ours.drawn - weight * self.theirs.drawn)

    def relative(self) -> tuple[float, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The relative gain in percent."""
        found = float(relative_gain(self.ours.mean, self.theirs.mean))
        drawn = relative_gain(self.ours.drawn.mean(1), self.theirs.drawn.mean(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return found, drawn, self.part(1 + found / 100, np.divide(100, self.theirs.mean))


def pair_of(group: Group, baseline: Group, varying: Sequence[str] = ()) -> Pair | None:
    """Two groups on the seeds that both have."""
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
    """Each group of a table's cells beside its baseline."""
    groups = grouped(latest(rows)[0])
    varying = varying_options(groups)
    bases = [(it, baseline_of(it, groups, baseline)) for it in groups if it.setting != baseline]
    return [pair_of(it, base, varying[it.data, it.setting]) for it, base in bases if base is not None]


def relative_gain(score: Any, baseline: Any) -> Any:
    """`(score - baseline) / baseline`, in percent."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * np.nan_to_num(np.divide(np.subtract(score, baseline), baseline), nan=0.0, posinf=np.inf)
