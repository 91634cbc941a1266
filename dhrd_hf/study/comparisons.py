"""Which cells of a table are compared with which: a report's tables, before their numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from .groups import OF_REASONING, Group, baseline_of, comparable, meets, shown
from .resampling import rows_in_common, seed_scores
from .statistics import Gain, Summary, gain_over, summary_of


@dataclass(frozen=True)
class Comparison:
    """A group beside its pooled baseline; one of the two may be missing."""

    data: str
    config: dict[str, Any]
    group: Group | None
    base: Group | None
    score: Summary | None
    pooled: Summary | None
    gain: Gain | None
    left_out: int = 0

    @property
    def n_seeds(self) -> int:
        """Number of seeds behind it."""
        return len((self.group or self.base).rows)


def compared(group: Group | None, groups: Sequence[Group], base: Group | None = None) -> Comparison:
    """A group beside the pooled cells that share its data set, its seeds and the options that pooled cells have."""
    if group is not None and base is None:
        base = baseline_of(group, groups)
    gain = None
    if group is not None and base is not None:
        seeds = set(group.seeds) & set(base.seeds)
        if seeds:
            group, base = group.only(seeds), base.only(seeds)
            gain = _gain(group, base)
        else:
            base = None
    one = group or base
    return Comparison(one.data, one.config, group, base, _summary(group), _summary(base), gain)


def against(group: Group, reference: Group) -> Gain | None:
    """The gain of a group over one of another setting with the same options."""
    return _gain(group, reference) if comparable(group, reference) else None


def main_comparisons(groups: Sequence[Group], where: Mapping[str, str]) -> list[Comparison]:
    """Pooled against the dual head, once for each data set: the options with the most seeds that both have."""
    found = []
    for data in _data_sets(groups):
        duals = [it for it in groups if it.data == data and it.setting == "dual_head" and _fits(it, where)]
        pairs = {it: base for it in duals if (base := baseline_of(it, groups)) is not None}
        best = _first_most(pairs, lambda it, pairs=pairs: len(set(it.seeds) & set(pairs[it].seeds)))
        if best is not None:
            found.append(compared(best, groups))
    return found


def ahead_level_behind(found: Iterable[Comparison]) -> tuple[int, int, int]:
    """In how many pairs of runs, of the same seed, a group's score is above, at and below its baseline's."""
    gains: list[float] = []
    for it in found:
        rows = rows_in_common([*it.group.rows, *it.base.rows])
        ours, theirs = (seed_scores(side.rows, rows, resampled=False)[0] for side in (it.group, it.base))
        gains += (ours - theirs).tolist()
    # Equal shares of right answers may differ in their last digit.
    return sum(it > 1e-9 for it in gains), sum(abs(it) <= 1e-9 for it in gains), sum(it < -1e-9 for it in gains)


def settings_comparisons(
    groups: Sequence[Group], where: Mapping[str, str], order: Sequence[str]
) -> dict[str, list[Comparison]]:
    """For each data set with ablations, controls or CoT decoding: the dual head and these, with the same options."""
    found = {}
    for data in _data_sets(groups):
        families: dict[str, list[Group]] = {}
        decoded = []
        for group in groups:
            if group.data != data or group.setting == "pooled":
                continue
            if group.setting == "cot_decoding":  # its alpha and beta are its own
                decoded.append(group)
            elif _fits(group, where):
                families.setdefault(group.without(), []).append(group)
        families = {key: its for key, its in families.items() if any(it.setting != "dual_head" for it in its)}
        best = _first_most(families.values(), lambda its: (len(its), sum(len(it.rows) for it in its))) or []
        # Beside the ablations, or else beside the dual head, that were trained alike.
        alike = [it for it in decoded if not best or it.shared() == best[0].shared()]
        decoder = _first_most(alike, lambda it: len(it.rows))
        if decoder is not None and not best:
            duals = [it for it in groups if it.data == data and it.setting == "dual_head" and _fits(it, where)]
            dual = _first_most((it for it in duals if it.shared() == decoder.shared()), lambda it: len(it.rows))
            best = [dual] if dual is not None else []
        chosen = [*best, *filter(None, [decoder])]
        places = {name: place for place, name in enumerate(["dual_head", *order])}
        chosen.sort(key=lambda it: places.get(it.setting, len(places)))
        if any(it.setting != "dual_head" for it in chosen):
            found[data] = [compared(it, groups) for it in chosen]
    return found


def axes(groups: Sequence[Group]) -> list[str]:
    """The options of which a data set has several values with all else the same, in the order of a report."""
    names = dict.fromkeys(["alpha", "train_size", "classifier_head", *(name for it in groups for name in it.config)])
    return [name for name in names if any(_family(groups, data, name, {}) for data in _data_sets(groups))]


def axis_comparisons(groups: Sequence[Group], axis: str, where: Mapping[str, str]) -> dict[str, list[Comparison]]:
    """For each data set the dual head and pooled at each value of an option, all else the same."""
    found = {}
    for data in _data_sets(groups):
        family = _family(groups, data, axis, where)
        if family:
            rows = _side_by_side([it for it in family if it.setting != "pooled"], groups)
            taken = {it.base.key for it in rows if it.base is not None}
            if axis not in OF_REASONING:
                rows += [
                    compared(None, groups, base=it) for it in family if it.setting == "pooled" and it.key not in taken
                ]
            found[data] = sorted(rows, key=lambda it: _in_order(it.config.get(axis)))
    return found


def _fits(group: Group, where: Mapping[str, str], but: str | None = None) -> bool:
    """Whether the options of a group are those that were asked for; one of them may have any value."""
    conditions = ((name, name.rstrip("!"), typed) for name, typed in where.items())
    return all(option == but or meets(group.config.get(option), name, typed) for name, option, typed in conditions)


def _family(groups: Sequence[Group], data: str, axis: str, where: Mapping[str, str]) -> list[Group]:
    """The dual-head and pooled groups that differ by one option, with two values of it or more."""
    duals: dict[str, list[Group]] = {}
    for group in groups:
        if group.data == data and group.setting == "dual_head" and _fits(group, where, but=axis):
            duals.setdefault(group.without(axis), []).append(group)
    best = _first_most(duals.values(), lambda its: (len(its), sum(len(it.rows) for it in its))) or []
    beside = [
        it
        for it in groups
        if it.data == data and it.setting == "pooled" and best and it.shared(but=axis) == best[0].shared(but=axis)
    ]
    values = {shown(it.config.get(axis)) for it in (best if axis in OF_REASONING else [*best, *beside])}
    return [*best, *beside] if len(values) > 1 else []


def _side_by_side(family: Sequence[Group], groups: Sequence[Group]) -> list[Comparison]:
    """On the seeds that all have beside pooled: one seed may be better than another by more than one value of an option."""
    paired = []
    for group in family:
        base = baseline_of(group, groups)
        paired.append(set(group.seeds) & set(base.seeds) if base is not None else set(group.seeds))
    common = set.intersection(*paired) if paired else set()
    found = []
    for group, seeds in zip(family, paired, strict=True):
        it = compared(group.only(common or seeds), groups)
        found.append(replace(it, left_out=len(group.rows) - len(it.group.rows)))
    return found


def _in_order(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, shown(value))


def _data_sets(groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(it.data for it in groups))


def _first_most(candidates: Iterable[Any], size: Callable[[Any], Any]) -> Any:
    """The largest; of equal ones the first."""
    return max(candidates, key=size, default=None)


@lru_cache(maxsize=1024)  # the usual cells stand in many tables
def _summary(group: Group | None) -> Summary | None:
    return summary_of(group) if group is not None else None


@lru_cache(maxsize=1024)
def _gain(group: Group, base: Group) -> Gain | None:
    return gain_over(group, base)
