"""Which cells of a table are compared with which: a report's tables, before their numbers are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .settings import REASONING_OPTIONS
from .statistics import Gain, Summary, paired_gains, summarise

# What a pooled cell has not: it is paired with cells of any value of these.
OF_REASONING = ("alpha", "beta", *REASONING_OPTIONS)
_OF_ROWS = ("study", "model", "data", "seed")
_NAMED = ("alpha", "beta", "classifier_head", "train_size")


@dataclass(frozen=True, eq=False)  # by identity, for the caches below
class Group:
    """The cells of one data set and setting that differ by nothing but their seed.

    Args:
        data (`str`), setting (`str`): As in the table.
        config (`dict[str, Any]`): `alpha`, `beta`, `classifier_head`, `train_size` and every option that was set.
        rows (`list[dict[str, Any]]`): Done rows, by seed.
    """

    data: str
    setting: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """The seeds of its cells."""
        return [row["seed"] for row in self.rows]

    @property
    def key(self) -> str:
        """Tells it from all other groups."""
        return json.dumps([self.data, self.setting, self.config], sort_keys=True, default=str)

    def shared(self, but: str | None = None) -> str:
        """What a cell and the pooled cell beside it have in common, as a key.

        Args:
            but (`str`, *optional*): An option that is left out.

        Returns:
            `str`: equal for cells that can be compared.
        """
        return _key(self.config, {*OF_REASONING, but})

    def without(self, option: str) -> str:
        """Its options but one, as a key.

        Args:
            option (`str`): The one.

        Returns:
            `str`: equal for cells that differ by this option alone.
        """
        return _key(self.config, {option})

    def only(self, seeds: Iterable[int]) -> Group:
        """The cells of some seeds.

        Args:
            seeds (`Iterable[int]`): The seeds.

        Returns:
            [`Group`]: itself, if that is all of them.
        """
        kept = set(seeds)
        if kept >= set(self.seeds):
            return self
        return Group(self.data, self.setting, self.config, [row for row in self.rows if row["seed"] in kept])


@dataclass(frozen=True)
class Comparison:
    """A group beside its pooled baseline; one of the two may be missing.

    Args:
        data (`str`): The data set.
        config (`dict[str, Any]`): Of the group, or of the pooled cells where it is missing.
        group ([`Group`], *optional*), base ([`Group`], *optional*): Where both are there, their common seeds alone.
        score ([`Summary`], *optional*), pooled ([`Summary`], *optional*): Their scores.
        gain ([`Gain`], *optional*): Of the group over its baseline.
    """

    data: str
    config: dict[str, Any]
    group: Group | None
    base: Group | None
    score: Summary | None
    pooled: Summary | None
    gain: Gain | None

    @property
    def n_seeds(self) -> int:
        """Number of seeds behind it."""
        return len((self.group or self.base).rows)


def latest(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """One row of each cell: the last that was done, or that failed where none was done.

    Example:

    ```python
    >>> from dhrd_hf.study.comparisons import latest
    >>> cell = {"cell": "a", "model": "m", "data": "cb", "setting": "pooled", "seed": 0, "options": {}, "status": "done"}
    >>> kept, twice = latest([cell, {**cell, "score": 0.5}, {**cell, "status": "failed"}])
    >>> [row["score"] for row in kept], twice
    ([0.5], 1)

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): Of one table or several, in their order.

    Returns:
        `tuple[list[dict], int]`: the rows, and how many done rows were passed over for a later one of the same cell, by its
        id or by all that it says of itself.
    """
    found: dict[str, dict[str, Any]] = {}
    twice = 0
    for row in rows:
        said = {name: row.get(name) for name in ("model", "data", "setting", "seed")}
        key = json.dumps([said, _config(row)], sort_keys=True, default=str)
        before = found.get(key)
        if before is not None and row["status"] == "done" and before["status"] == "done":
            twice += 1
        if before is None or row["status"] == "done" or before["status"] != "done":
            found[key] = dict(row)
    return list(found.values()), twice


def grouped(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """The done rows in groups that differ by nothing but the seed.

    Args:
        rows (`Iterable[Mapping[str, Any]]`): From [`latest`].

    Returns:
        `list[Group]`: in the order in which they first stand in the table.
    """
    groups: dict[str, Group] = {}
    for row in rows:
        if row["status"] == "done":
            group = Group(row["data"], row["setting"], _config(row), [])
            groups.setdefault(group.key, group).rows.append(dict(row))
    for group in groups.values():
        group.rows.sort(key=lambda row: row["seed"])
    return list(groups.values())


def unpaired(groups: Sequence[Group]) -> int:
    """How many cells have no partner: pooled ones beside which nothing was run, others without their pooled one.

    Args:
        groups (`Sequence[Group]`): From [`grouped`].

    Returns:
        `int`: the number of cells.
    """
    sides: dict[bool, set[tuple[str, str, int]]] = {True: set(), False: set()}
    for group in groups:
        sides[group.setting == "pooled"].update((group.data, group.shared(), seed) for seed in group.seeds)
    return sum(
        (group.data, group.shared(), seed) not in sides[group.setting != "pooled"]
        for group in groups
        for seed in group.seeds
    )


def compared(group: Group | None, groups: Sequence[Group], base: Group | None = None) -> Comparison:
    """A group beside the pooled cells that share its data set, its seeds and the options that pooled cells have.

    Args:
        group ([`Group`] or `None`): The group; None for pooled cells alone.
        groups (`Sequence[Group]`): All of the table.
        base ([`Group`], *optional*): The pooled cells; by default those that fit.

    Returns:
        [`Comparison`]: over the seeds that both have; where they have none in common, without the pooled side.

    Raises:
        ValueError: as [`~dhrd_hf.study.statistics.summarise`].
    """
    if group is not None and base is None:
        fits = (it for it in groups if it.setting == "pooled" and it.data == group.data)
        base = next((it for it in fits if it.shared() == group.shared()), None)
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
    """The gain of a group over one of another setting with the same options.

    Args:
        group ([`Group`]), reference ([`Group`]): The two.

    Returns:
        [`Gain`], or None where they have no seed in common or differ in more than the setting.

    Raises:
        ValueError: as [`~dhrd_hf.study.statistics.paired_gains`].
    """
    return _gain(group, reference)


def main_comparisons(groups: Sequence[Group], where: Mapping[str, str]) -> list[Comparison]:
    """Pooled against the dual head, once for each data set: the options with the most seeds that both have.

    Args:
        groups (`Sequence[Group]`): From [`grouped`].
        where (`Mapping[str, str]`): Values that options must have, as typed.

    Returns:
        `list[Comparison]`: in the order of the table; data sets without a pair are left out.

    Raises:
        ValueError: as [`compared`].
    """
    found = []
    for data in _data_sets(groups):
        pooled = [it for it in groups if it.data == data and it.setting == "pooled"]
        duals = [it for it in groups if it.data == data and it.setting == "dual_head" and fits(it, where)]

        def pairs(group: Group, pooled: Sequence[Group] = pooled) -> int:
            return max(
                (len(set(it.seeds) & set(group.seeds)) for it in pooled if it.shared() == group.shared()), default=0
            )

        best = _first_most(duals, pairs)
        if best is not None and pairs(best):
            found.append(compared(best, groups))
    return found


def settings_comparisons(
    groups: Sequence[Group], where: Mapping[str, str], order: Sequence[str]
) -> dict[str, list[Comparison]]:
    """For each data set with ablations, controls or CoT decoding: the dual head and these, with the same options.

    Args:
        groups (`Sequence[Group]`), where (`Mapping[str, str]`): As for [`main_comparisons`].
        order (`Sequence[str]`): The settings in the order in which they shall stand; others follow.

    Returns:
        `dict[str, list[Comparison]]`: by data set; the dual head first if it is there. Of several options those with the
        most settings, then the most cells.

    Raises:
        ValueError: as [`compared`].
    """
    found = {}
    for data in _data_sets(groups):
        families: dict[str, list[Group]] = {}
        decoded = []
        for group in groups:
            if group.data != data or group.setting == "pooled":
                continue
            if group.setting == "cot_decoding":  # its alpha and beta are its own
                decoded.append(group)
            elif fits(group, where):
                families.setdefault(_key(group.config, set()), []).append(group)
        families = {key: its for key, its in families.items() if any(it.setting != "dual_head" for it in its)}
        best = _first_most(families.values(), lambda its: (len(its), sum(len(it.rows) for it in its))) or []
        # Beside the ablations, or else beside the dual head, that were trained alike.
        alike = [it for it in decoded if not best or it.shared() == best[0].shared()]
        decoder = _first_most(alike, lambda it: len(it.rows))
        if decoder is not None and not best:
            duals = [it for it in groups if it.data == data and it.setting == "dual_head" and fits(it, where)]
            dual = _first_most((it for it in duals if it.shared() == decoder.shared()), lambda it: len(it.rows))
            best = [dual] if dual is not None else []
        chosen = [*best, *filter(None, [decoder])]
        places = {name: place for place, name in enumerate(["dual_head", *order])}
        chosen.sort(key=lambda it: places.get(it.setting, len(places)))
        if any(it.setting != "dual_head" for it in chosen):
            found[data] = [compared(it, groups) for it in chosen]
    return found


def axes(groups: Sequence[Group]) -> list[str]:
    """The options of which a data set has several values with all else the same, in the order of a report.

    Args:
        groups (`Sequence[Group]`): From [`grouped`].

    Returns:
        `list[str]`: alpha, train size and head first.
    """
    names = dict.fromkeys(["alpha", "train_size", "classifier_head", *(name for it in groups for name in it.config)])
    return [name for name in names if any(_family(groups, data, name, {}) for data in _data_sets(groups))]


def axis_comparisons(groups: Sequence[Group], axis: str, where: Mapping[str, str]) -> dict[str, list[Comparison]]:
    """For each data set the dual head and pooled at each value of an option, all else the same.

    Args:
        groups (`Sequence[Group]`), where (`Mapping[str, str]`): As for [`main_comparisons`]; of the axis itself all values.
        axis (`str`): The option.

    Returns:
        `dict[str, list[Comparison]]`: by data set, numbers first and in their order; only data sets with several values. Of
        several sets of other options that with the most values, then the most cells.

    Raises:
        ValueError: as [`compared`].
    """
    found = {}
    for data in _data_sets(groups):
        family = _family(groups, data, axis, where)
        if family:
            rows = [compared(it, groups) for it in family if it.setting != "pooled"]
            taken = {it.base.key for it in rows if it.base is not None}
            if axis not in OF_REASONING:
                rows += [
                    compared(None, groups, base=it) for it in family if it.setting == "pooled" and it.key not in taken
                ]
            found[data] = sorted(rows, key=lambda it: _in_order(it.config.get(axis)))
    return found


def fits(group: Group, where: Mapping[str, str], but: str | None = None) -> bool:
    """Whether the options of a group are those that were asked for.

    Args:
        group ([`Group`]): The group.
        where (`Mapping[str, str]`): Values as typed.
        but (`str`, *optional*): An option that may have any.

    Returns:
        `bool`: whether they are.
    """
    return all(name == but or same_value(group.config.get(name), value) for name, value in where.items())


def same_value(value: Any, typed: str) -> bool:
    """Whether a value of the table is what somebody typed.

    Example:

    ```python
    >>> from dhrd_hf.study.comparisons import same_value
    >>> same_value(2e-4, "0.0002"), same_value(True, "true"), same_value(None, "default"), same_value("auto", "1")
    (True, True, True, False)

    ```

    Args:
        value: Of the table; None is an option that was not set, the default.
        typed (`str`): As typed.

    Returns:
        `bool`: whether it is.
    """
    if shown(value) == typed:
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(typed)
    except (TypeError, ValueError):
        return False


def shown(value: Any) -> str:
    """A value as people read and type it.

    Args:
        value: Of an option; None is one that was not set.

    Returns:
        `str`: the text.
    """
    if value is None:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) and abs(value) < 1e6 else str(value)


def _family(groups: Sequence[Group], data: str, axis: str, where: Mapping[str, str]) -> list[Group]:
    """The dual-head and pooled groups that differ by one option, with two values of it or more."""
    duals: dict[str, list[Group]] = {}
    for group in groups:
        if group.data == data and group.setting == "dual_head" and fits(group, where, but=axis):
            duals.setdefault(group.without(axis), []).append(group)
    best = _first_most(duals.values(), lambda its: (len(its), sum(len(it.rows) for it in its))) or []
    beside = [
        it
        for it in groups
        if it.data == data and it.setting == "pooled" and best and it.shared(but=axis) == best[0].shared(but=axis)
    ]
    values = {shown(it.config.get(axis)) for it in (best if axis in OF_REASONING else [*best, *beside])}
    return [*best, *beside] if len(values) > 1 else []


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
    return summarise(group.rows)[0] if group is not None else None


@lru_cache(maxsize=1024)
def _gain(group: Group, base: Group) -> Gain | None:
    return next(iter(paired_gains([*base.rows, *group.rows], baseline=base.setting)), None)


def _config(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in _NAMED} | dict(row.get("options") or {})


def _key(config: Mapping[str, Any], but: set[str | None]) -> str:
    return json.dumps({name: it for name, it in config.items() if name not in but}, sort_keys=True, default=str)
