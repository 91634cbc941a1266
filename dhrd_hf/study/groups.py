"""The runs of a table in groups that differ by their seed alone, which of them are compared, and what they have on each test item."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..evaluation.logits import Logits, read_logits
from .metrics import OF_LOGITS, measured
from .plan import REASONING_OPTIONS, WEIGHTS
from .results import Row, together

# What a pooled run has not: it is paired with runs of any value of these.
OF_REASONING = ("alpha", "beta", *REASONING_OPTIONS)
NAMED = (*WEIGHTS, "train_size")
_OF_DATA = ("model", "rows_digest", "eval_rows")


class Group:
    """The runs of one data set and setting that differ by nothing but their seed; `alone`: its setting has no other options in the table."""

    def __init__(self, rows: Iterable[Row], alone: bool = False):
        self.rows, self.alone = sorted(rows, key=lambda row: row["seed"]), alone
        self.seeds, its = {row["seed"] for row in self.rows}, self.rows[0]
        self.data, self.setting, self.metric = its["data"], its["setting"], its["metric"]
        # What it is told apart by within a data set and setting, and of that the options.
        self.named = _named(its)
        self.config = {name: it for name, it in self.named.items() if name not in _OF_DATA}

    def key(self, *but: str) -> frozenset[tuple[str, Any]]:
        """What decides its runs, but some of it: equal in groups that differ by nothing else."""
        return _key(self.rows[0], "seed", *but)

    def only(self, seeds: Collection[int]) -> Group:
        return Group((row for row in self.rows if row["seed"] in seeds), self.alone)

    def varying(self, groups: Iterable[Group]) -> dict[str, Any]:
        """What tells the groups of its data set and setting apart, and its own values."""
        beside = (it.named for it in groups if (it.data, it.setting) == (self.data, self.setting))
        return {name: self.named.get(name) for name, its in distinct(beside).items() if len(its) > 1}


def distinct(options: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values that each option has among several, each once; where it is absent it is None."""
    several = list(options)
    names = dict.fromkeys(name for its in several for name in its)
    return {name: list({_hashable(its.get(name)): its.get(name) for its in several}.values()) for name in names}


def _key(row: Row, *but: str) -> frozenset[tuple[str, Any]]:
    its = {name: row[name] for name in ("data", "setting", "seed")} | _named(row)
    return frozenset((name, _hashable(it)) for name, it in its.items() if it is not None and name not in but)


def _named(row: Row) -> dict[str, Any]:
    return {name: row.get(name) for name in (*_OF_DATA, *NAMED)} | dict(row.get("options") or {})


def _hashable(value: Any) -> Hashable:
    """Options are what YAML has."""
    if isinstance(value, Mapping):
        return tuple((name, _hashable(it)) for name, it in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def latest(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """One row of each run, the last that was done, or that failed where none was; and how many done ones stood twice."""
    its = [(row, _key(row), _key(row, "eval_rows"), row["cell"], row["status"] == "done") for row in rows]
    frame = pd.DataFrame(its, columns=["row", "key", "run", "cell", "done"]).astype({"done": bool})
    frame["place"] = frame.groupby("key", sort=False).ngroup()
    done = frame[frame["done"]].drop_duplicates("key", keep="last")
    # A row that failed may not know its number of evaluation rows.
    failed = frame[~frame["done"] & ~frame["run"].isin(done["run"]) & ~frame["cell"].isin(done["cell"])]
    failed = failed.drop_duplicates("run", keep="last").drop_duplicates("cell", keep="last")
    # The last counts, where the first stands.
    kept = pd.concat([done, failed]).sort_values("place", kind="stable")
    return kept["row"].to_list(), int(frame["done"].sum()) - len(done)


def grouped(rows: Iterable[Row], table: Iterable[Row] | None = None) -> list[Group]:
    """The done rows in groups that differ by nothing but the seed; `table` is all of it, where the rows are some."""
    rows, options = list(rows), {}
    for row in rows if table is None else table:
        own = _key(row, "seed", "data", "rows_digest", "eval_rows", "train_size", "prompt")
        options.setdefault((row.get("model"), row["setting"]), set()).add(own)
    done = (row for row in rows if row["status"] == "done")
    return [
        Group(its, alone=len(options[its[0].get("model"), its[0]["setting"]]) == 1)
        for its in together(done, lambda row: _key(row, "seed"))
    ]


def baseline_of(group: Group, groups: Iterable[Group], setting: str = "pooled") -> Group | None:
    """The group that another is compared with: of several that with the most seeds of it."""

    def fit(it: Group) -> tuple[int, bool]:
        return len(it.seeds & group.seeds), it.named["eval_rows"] == group.named["eval_rows"]

    alike = (it for it in groups if it.setting == setting and it.seeds & group.seeds and comparable(group, it))
    return max(alike, key=fit, default=None)


def comparable(group: Group, baseline: Group) -> bool:
    """Whether two groups differ by the setting alone, or are of the same inputs, each with all the options that its setting has."""
    if group.alone and baseline.alone and group.data == baseline.data:
        inputs = ("model", "rows_digest", "train_size", "prompt")
        return all(group.named.get(it) == baseline.named.get(it) for it in inputs)
    return differ_by_setting(group, baseline)


def differ_by_setting(group: Group, other: Group) -> bool:
    """What a pooled run or a decoder has not does not count beside one, nor do the rows that each was tested on."""
    free = ("eval_rows", *OF_REASONING) if {group.setting, other.setting} & {"pooled", "cot_decoding"} else ()
    return group.key("setting", *free) == other.key("setting", *free)


# What runs have on each test item


def scored(rows: Sequence[Row], metric: str, of: str = "eval") -> np.ndarray | None:
    """What each test item of runs stands for `[runs, items]`, on the first rows that all have; None without logits for it."""
    logits = metric in OF_LOGITS
    answers = [_answers(row, of, logits) for row in rows]
    if any(it is None for it in answers):
        return None
    fewest = min(len(labels) for labels, _ in answers)
    groups_of = [row["groups"] if of == "eval" else None for row in rows]
    groups = max((its[:fewest] for its in groups_of if its is not None), key=len, default=None)
    found = []
    for row, (labels, said), own in zip(rows, answers, groups_of, strict=True):
        how = "in other groups of rows" if own is not None and own[:fewest] != groups else None
        if not np.array_equal(labels[:fewest], answers[0][0][:fewest]) or row["metric"] != rows[0]["metric"]:
            how = "on other rows or by another metric"
        if how is not None:
            ids = f"runs {rows[0]['cell']} and {row['cell']} of {row['data']}"
            raise ValueError(f"{ids} were tested {how}: they can't be compared")
        found.append(measured(metric, labels[:fewest], said[:fewest], groups)[1])
    return np.stack(found)


def _answers(row: Row, of: str, logits: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The labels of an evaluation set, and a run's logits or predictions of them."""
    if of == "eval" and not logits:
        return np.asarray(row["labels"]), np.asarray(row["predictions"])
    kept = row.get("logits") and kept_logits(Path(row.get("folder") or ".") / row["logits"]).get(of)
    if not kept:
        return None
    labels, values = kept
    if of == "eval" and not np.array_equal(labels, row["labels"]):
        raise ValueError(f"the logits of run {row['cell']} are not of its rows: {row['logits']}")
    return labels, values if logits else values.argmax(1)


def has_logits(row: Row) -> bool:
    """Whether a run kept logits, also such as can't be read."""
    kept, problem = tried(_answers, row, "eval", True)
    return kept is not None or problem is not None


def tried(do: Callable[..., Any], *args: Any) -> tuple[Any, str | None]:
    """What comes of it, or why nothing does: runs that can't be compared are told, and end no report."""
    try:
        return do(*args), None
    except ValueError as error:
        return None, str(error)


@cache
def kept_logits(path: Path) -> Logits:
    """The logits of a run; of none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        sets = read_logits(path)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} can't be read as a run's logits: {' '.join(str(error).split())}") from None
    for name, (_, values) in sets.items():
        if not np.isfinite(values.max(1)).all():  # -inf is that of a label which the run's model does not have
            raise ValueError(f"{path}: logits of {name} are no numbers")
    return sets
