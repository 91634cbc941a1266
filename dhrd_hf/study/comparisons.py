"""Which runs of a table are compared with which: a report's tables, before their numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .statistics import Gain, Pair, Summary, gain_of, scored, summary_of
from .table import OF_REASONING, Group, baseline_of, comparable, meets, shown


@dataclass(frozen=True)
class Comparison:
    """A group beside its pooled baseline on the seeds that both have; one of the two may be missing."""

    group: Group | None
    base: Group | None
    problem: str | None = None
    left_out: int = 0

    @property
    def one(self) -> Group:
        return self.group or self.base

    @property
    def data(self) -> str:
        return self.one.data

    @property
    def config(self) -> dict[str, Any]:
        return self.one.config

    @property
    def metric(self) -> str:
        return self.one.first["metric"]

    @property
    def n_seeds(self) -> int:
        return len(self.one.rows)

    @property
    def sides(self) -> list[Group]:
        return [side for side in (self.group, self.base) if side is not None]

    @property
    def pair(self) -> Pair | None:
        return Pair(self.group, self.base) if len(self.sides) == 2 and not self.problem else None

    @cached_property
    def score(self) -> Summary | None:
        return _summary(self.group)

    @cached_property
    def pooled(self) -> Summary | None:
        return _summary(self.base)

    @cached_property
    def gain(self) -> Gain | None:
        return gain_of([self.pair]) if self.pair else None


def _summary(group: Group | None) -> Summary | None:
    try:
        return summary_of(group) if group else None
    except ValueError:  # told as a problem
        return None


def compared(group: Group | None, groups: Sequence[Group], base: Group | None = None) -> Comparison:
    """A group beside the pooled runs that share its data set, its seeds and the options that pooled runs have."""
    if group is not None:
        base = base or baseline_of(group, groups)
    if group is not None and base is not None:
        pair = Pair(group, base)
        group, base = (pair.group, pair.base) if pair.group.rows else (group, None)
    found = Comparison(group, base)
    try:
        scored([row for side in found.sides for row in side.rows], found.metric)
    except ValueError as error:
        return replace(found, problem=str(error))
    return found


def against(group: Group, reference: Group) -> Gain | None:
    """The gain of a group over one of another setting with the same options, on the seeds that both have."""
    if not comparable(group, reference) or not set(group.seeds) & set(reference.seeds):
        return None
    try:
        return gain_of([Pair(group, reference)])
    except ValueError:  # told where it is compared with pooled
        return None


def main_comparisons(groups: Sequence[Group], where: Mapping[str, str]) -> list[Comparison]:
    """Pooled against the dual head, once for each data set: the options with the most seeds that both have."""
    found = []
    for here in _by_data(groups):
        bases = [(it, base) for it in _duals(here, where) if (base := baseline_of(it, groups)) is not None]
        best = _first_most(bases, lambda its: len(set(its[0].seeds) & set(its[1].seeds)))
        found += [compared(best[0], groups)] if best is not None else []
    return found


def settings_comparisons(
    groups: Sequence[Group], where: Mapping[str, str], order: Sequence[str]
) -> dict[str, list[Comparison]]:
    """For each data set with ablations, controls or CoT decoding: the dual head and these, with the same options."""
    found = {}
    places = {name: place for place, name in enumerate(["dual_head", *order])}
    for here in _by_data(groups):
        decoded = [it for it in here if it.setting == "cot_decoding"]  # its alpha and beta are its own
        trained = [it for it in here if it.setting not in ("pooled", "cot_decoding") and _fits(it, where)]
        alike = _together(trained, lambda it: it.key("setting"))
        best = _largest([its for its in alike if any(it.setting != "dual_head" for it in its)])
        # Beside the ablations, or else beside the dual head, that were trained alike.
        beside = [it for it in decoded if not best or it.shared == best[0].shared]
        decoder = _first_most(beside, lambda it: len(it.rows))
        if decoder is not None and not best:
            duals = [it for it in _duals(here, where) if it.shared == decoder.shared]
            best = [it for it in [_first_most(duals, lambda it: len(it.rows))] if it is not None]
        chosen = [*best, *([decoder] if decoder is not None else [])]
        chosen.sort(key=lambda it: places.get(it.setting, len(places)))
        if any(it.setting != "dual_head" for it in chosen):
            found[here[0].data] = [compared(it, groups) for it in chosen]
    return found


def axes(groups: Sequence[Group]) -> list[str]:
    """The options of which a data set has several values with all else the same, in the order of a report."""
    names = dict.fromkeys(["alpha", "train_size", "classifier_head", *(name for it in groups for name in it.config)])
    return [name for name in names if any(_family(its, name, {}) for its in _by_data(groups))]


def axis_comparisons(groups: Sequence[Group], axis: str, where: Mapping[str, str]) -> dict[str, list[Comparison]]:
    """For each data set the dual head and pooled at each value of an option, all else the same."""
    found = {}
    for here in _by_data(groups):
        family = _family(here, axis, where)
        rows = _side_by_side([it for it in family if it.setting != "pooled"], groups)
        taken = {it.base.key() for it in rows if it.base is not None}
        pooled = [it for it in family if it.setting == "pooled" and it.key() not in taken]
        rows += [compared(None, groups, it) for it in pooled if axis not in OF_REASONING]
        if rows:
            found[here[0].data] = sorted(rows, key=lambda it: _in_order(it.config.get(axis)))
    return found


def _fits(group: Group, where: Mapping[str, str], but: str | None = None) -> bool:
    """Whether the options of a group are those that were asked for; one of them may have any value."""
    conditions = ((name, name.rstrip("!"), typed) for name, typed in where.items())
    return all(option == but or meets(group.config.get(option), name, typed) for name, option, typed in conditions)


def _duals(groups: Sequence[Group], where: Mapping[str, str], but: str | None = None) -> list[Group]:
    return [it for it in groups if it.setting == "dual_head" and _fits(it, where, but)]


def _family(groups: Sequence[Group], axis: str, where: Mapping[str, str]) -> list[Group]:
    """The dual-head and pooled groups of a data set that differ by one option, with two values of it or more."""
    if len({shown(it.config.get(axis)) for it in groups}) < 2:
        return []
    best, beside = _largest(_together(_duals(groups, where, but=axis), lambda it: it.key(axis))), []
    if best:
        but = (axis, "setting", "eval_rows", *OF_REASONING)
        beside = [it for it in groups if it.setting == "pooled" and it.key(*but) == best[0].key(*but)]
    values = {shown(it.config.get(axis)) for it in (best if axis in OF_REASONING else [*best, *beside])}
    return [*best, *beside] if len(values) > 1 else []


def _side_by_side(family: Sequence[Group], groups: Sequence[Group]) -> list[Comparison]:
    """On the seeds that all have beside pooled: one seed may be better than another by more than one value of an option."""
    bases = [baseline_of(it, groups) for it in family]
    paired = [
        set(it.seeds) & set(it.seeds if base is None else base.seeds) for it, base in zip(family, bases, strict=True)
    ]
    common = set.intersection(*paired) if paired else set()
    found = []
    for group, seeds in zip(family, paired, strict=True):
        it = compared(group.only(common or seeds), groups)
        found.append(replace(it, left_out=len(group.rows) - len(it.group.rows)))
    return found


def _in_order(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, shown(value))


def _by_data(groups: Iterable[Group]) -> list[list[Group]]:
    return _together(groups, lambda it: it.data)


def _together(groups: Iterable[Group], key: Callable[[Group], Hashable]) -> list[list[Group]]:
    found: dict[Hashable, list[Group]] = {}
    for group in groups:
        found.setdefault(key(group), []).append(group)
    return list(found.values())


def _largest(its: Sequence[list[Group]]) -> list[Group]:
    return _first_most(its, lambda groups: (len(groups), sum(len(it.rows) for it in groups))) or []


def _first_most(candidates: Iterable[Any], size: Callable[[Any], Any]) -> Any:
    """The largest; of equal ones the first."""
    return max(candidates, key=size, default=None)
