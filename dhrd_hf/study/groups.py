"""The cells of a table in groups that differ by nothing but the seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .settings import REASONING_OPTIONS

# What a pooled cell has not: it is paired with cells of any value of these.
OF_REASONING = ("alpha", "beta", *REASONING_OPTIONS)
_NAMED = ("alpha", "beta", "classifier_head", "train_size")


@dataclass(frozen=True, eq=False)  # by identity, so that it can be a cache's key
class Group:
    """The cells of one data set and setting that differ by nothing but their seed."""

    data: str
    setting: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    model: str | None = None
    rows_digest: str | None = None
    eval_rows: int | None = None

    @property
    def seeds(self) -> list[int]:
        """The seeds of its cells."""
        return [row["seed"] for row in self.rows]

    @property
    def named(self) -> dict[str, Any]:
        """The model, what the data are made of and its options: what it is told apart by within a data set and setting."""
        return {"model": self.model, "rows_digest": self.rows_digest, "eval_rows": self.eval_rows, **self.config}

    @property
    def key(self) -> str:
        """Tells it from all other groups."""
        return json.dumps([self.data, self.setting, self.named], sort_keys=True, default=str)

    def shared(self, but: str | None = None) -> str:
        """What a cell and the pooled cell beside it have in common, as a key."""
        return _key({**self.config, "rows_digest": self.rows_digest}, {*OF_REASONING, but})

    def without(self, option: str | None = None) -> str:
        """Its data's rows and its options but one, as a key."""
        return _key({**self.config, "rows_digest": self.rows_digest, "eval_rows": self.eval_rows}, {option})

    def only(self, seeds: Iterable[int]) -> Group:
        """The cells of some seeds."""
        kept = set(seeds)
        if kept >= set(self.seeds):
            return self
        return replace(self, rows=[row for row in self.rows if row["seed"] in kept])


def latest(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """One row of each cell: the last that was done, or that failed where none was done."""
    # By cell, and in it by the number of evaluation rows, which a row that failed may not know.
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    twice = 0
    for row in rows:
        said = {name: row.get(name) for name in ("model", "data", "rows_digest", "setting", "seed")}
        its = found.setdefault(json.dumps([said, _config(row)], sort_keys=True, default=str), {})
        if row["status"] == "done":
            its.pop("failed", None)
            twice += row.get("eval_rows") in its
            its[row.get("eval_rows")] = dict(row)
        elif its.keys() <= {"failed"}:
            its["failed"] = dict(row)
    kept = [row for its in found.values() for row in its.values()]
    # The id is of all that decides a cell: a row that failed is also that of a later one which records more of it.
    done = {row["cell"] for row in kept if row["status"] == "done"}
    failed = {row["cell"]: row for row in kept if row["status"] != "done"}
    kept = [it for it in kept if it["status"] == "done" or (it["cell"] not in done and it is failed[it["cell"]])]
    return kept, twice


def grouped(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """The done rows in groups that differ by nothing but the seed."""
    groups: dict[str, Group] = {}
    for row in rows:
        if row["status"] == "done":
            of_data = (row.get(name) for name in ("model", "rows_digest", "eval_rows"))
            group = Group(row["data"], row["setting"], _config(row), [], *of_data)
            groups.setdefault(group.key, group).rows.append(dict(row))
    for group in groups.values():
        group.rows.sort(key=lambda row: row["seed"])
    return list(groups.values())


def several_data(groups: Iterable[Group]) -> list[str]:
    """Names under which there are several data."""
    digests: dict[str, set[str | None]] = defaultdict(set)
    sizes: dict[str, set[int | None]] = defaultdict(set)
    for group in groups:
        digests[group.data].add(group.rows_digest)
        if group.setting != "cot_decoding":
            sizes[group.data].add(group.eval_rows)
    return [name for name, its in digests.items() if len(its) > 1 or len(sizes[name]) > 1]


def varying_options(groups: Iterable[Group]) -> dict[tuple[str, str], list[str]]:
    """What tells the groups of one data set and setting apart."""
    configs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        configs[group.data, group.setting].append(group.named)
    return {
        place: [
            name
            for name in dict.fromkeys(name for config in its for name in config)
            if len({json.dumps(config.get(name), default=str) for config in its}) > 1
        ]
        for place, its in configs.items()
    }


def comparable(group: Group, baseline: Group) -> bool:
    """Whether two groups differ by the setting alone."""
    if (group.model, group.data) != (baseline.model, baseline.data):
        return False
    if {group.setting, baseline.setting} & {"pooled", "cot_decoding"}:
        return group.shared() == baseline.shared()
    return group.without() == baseline.without()


def baseline_of(group: Group, groups: Iterable[Group], setting: str = "pooled") -> Group | None:
    """The group that another is compared with."""
    fit = [it for it in groups if it.setting == setting and comparable(group, it)]
    best = max(
        fit, key=lambda it: (len(set(it.seeds) & set(group.seeds)), it.eval_rows == group.eval_rows), default=None
    )
    return best if best is not None and set(best.seeds) & set(group.seeds) else None


def unpaired(groups: Sequence[Group]) -> int:
    """How many cells have no partner: pooled ones beside which nothing was run, others without their pooled one."""
    sides: dict[bool, set[tuple[str, str, int]]] = {True: set(), False: set()}
    for group in groups:
        sides[group.setting == "pooled"].update((group.data, group.shared(), seed) for seed in group.seeds)
    return sum(
        (group.data, group.shared(), seed) not in sides[group.setting != "pooled"]
        for group in groups
        for seed in group.seeds
    )


def meets(value: Any, name: str, typed: str) -> bool:
    """Whether a value of the table is one that was asked for."""
    return any(_same(value, one) for one in (typed, *typed.split(","))) != name.endswith("!")


def shown(value: Any) -> str:
    """A value as people read and type it."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) and abs(value) < 1e6 else str(value)


def _same(value: Any, typed: str) -> bool:
    if shown(value) == typed:
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(typed)
    except (TypeError, ValueError):
        return False


def _config(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in _NAMED} | dict(row.get("options") or {})


def _key(config: Mapping[str, Any], but: set[str | None]) -> str:
    return json.dumps({name: it for name, it in config.items() if name not in but}, sort_keys=True, default=str)
