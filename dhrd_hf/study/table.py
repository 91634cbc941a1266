"""The runs of a study: read from its tables, the last of each kept, in groups that differ by nothing but the seed."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .metrics import GROUPED, METRICS, OF_LOGITS, measured, score
from .settings import REASONING_OPTIONS

# What a pooled run has not: it is paired with runs of any value of these.
OF_REASONING = ("alpha", "beta", *REASONING_OPTIONS)
_NAMED = ("alpha", "beta", "classifier_head", "train_size")
_OF_DATA = ("model", "rows_digest", "eval_rows")
_OF_EVERY_ROW = ("study", "cell", "status", "model", "data", "setting", "seed")
_OF_DONE_ROWS = ("metric", "score", "labels", "predictions", "groups", "train_rows")


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one data set and setting that differ by nothing but their seed."""

    key: int
    shared: int  # what it has in common with the pooled runs beside it
    alike: int  # and with the other settings' runs
    data: str
    setting: str
    config: dict[str, Any]
    of_data: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs."""
        return [row["seed"] for row in self.rows]

    @property
    def named(self) -> dict[str, Any]:
        """The model, what the data are made of and its options: what it is told apart by within a data set and setting."""
        return {**self.of_data, **self.config}

    def only(self, seeds: Iterable[int]) -> Group:
        """The runs of some seeds."""
        kept = set(seeds)
        return replace(self, rows=[row for row in self.rows if row["seed"] in kept])


def latest(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """One row of each run, the last that was done, or that failed where none was; and how many done ones stood twice."""
    rows = [dict(row) for row in rows]
    if not rows:
        return [], 0
    frame, done = _frame(rows), pd.Series([row["status"] == "done" for row in rows])
    # A row that failed may not know its number of evaluation rows.
    frame["run"] = _ids(frame, set(frame) - {"eval_rows"})
    frame["whole"] = _ids(frame, {"run", "eval_rows"})
    frame["cell"] = [row["cell"] for row in rows]
    # The last counts, where the first stands.
    first = frame.reset_index().groupby("whole")["index"].transform("min")
    last = done & ~frame[done].duplicated("whole", keep="last").reindex(frame.index, fill_value=True)
    failed = frame[~done & ~frame["run"].isin(frame.loc[done, "run"]) & ~frame["cell"].isin(frame.loc[last, "cell"])]
    failed = failed.drop_duplicates("run", keep="last").drop_duplicates("cell", keep="last")
    kept = first[last | frame.index.isin(failed.index)].sort_values(kind="stable").index
    return [rows[place] for place in kept], int(done.sum() - last.sum())


def grouped(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """The done rows in groups that differ by nothing but the seed."""
    rows = [dict(row) for row in rows if row["status"] == "done"]
    if not rows:
        return []
    frame = _frame(rows)
    keys = _ids(frame, set(frame) - {"seed"})
    shared = _ids(frame, set(frame) - {"seed", "setting", "eval_rows", *OF_REASONING})
    alike = _ids(frame, set(frame) - {"seed", "setting"})
    found = []
    for key, places in frame.groupby(keys).groups.items():
        its = [rows[place] for place in places]
        first, config = its[0], _config(its[0])
        of_data = {name: first.get(name) for name in _OF_DATA}
        its.sort(key=lambda row: row["seed"])
        ids = (int(key), int(shared[places[0]]), int(alike[places[0]]))
        found.append(Group(*ids, first["data"], first["setting"], config, of_data, its))
    return found


def families(groups: Sequence[Group], but: Collection[str | None] = ()) -> list[int]:
    """Which groups have the same setting, data and options but some, as a number of each."""
    numbers: dict[frozenset[Any], int] = {}
    kept = ({**_decisive(it.rows[0]), "seed": None} for it in groups)
    keys = (
        frozenset((name, _hashable(it)) for name, it in its.items() if it is not None and name not in but)
        for its in kept
    )
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def comparable(group: Group, baseline: Group) -> bool:
    """Whether two groups differ by the setting alone."""
    if {group.setting, baseline.setting} & {"pooled", "cot_decoding"}:
        return group.shared == baseline.shared
    return group.alike == baseline.alike


def baseline_of(group: Group, groups: Iterable[Group], setting: str = "pooled") -> Group | None:
    """The group that another is compared with: of several that with the most seeds of it."""

    def fit(it: Group) -> tuple[int, bool]:
        return len(set(it.seeds) & set(group.seeds)), it.of_data["eval_rows"] == group.of_data["eval_rows"]

    best = max((it for it in groups if it.setting == setting and comparable(group, it)), key=fit, default=None)
    return best if best is not None and set(best.seeds) & set(group.seeds) else None


def unpaired(groups: Sequence[Group]) -> int:
    """How many runs have no partner: pooled ones beside which nothing was run, others without their pooled one."""
    sides: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for group in groups:
        sides[group.setting == "pooled"].update((group.shared, seed) for seed in group.seeds)
    return sum((it.shared, seed) not in sides[it.setting != "pooled"] for it in groups for seed in it.seeds)


def several_data(groups: Iterable[Group]) -> list[str]:
    """Names under which there are several data."""
    frame = pd.DataFrame([{"data": it.data, "setting": it.setting, **it.of_data} for it in groups], dtype=object)
    sizes = frame[frame["setting"] != "cot_decoding"].groupby("data")["eval_rows"].nunique(dropna=False)
    digests = frame.groupby("data", sort=False)["rows_digest"].nunique(dropna=False)
    return [name for name, number in digests.items() if number > 1 or sizes.get(name, 0) > 1]


def varying_options(groups: Sequence[Group]) -> dict[tuple[str, str], list[str]]:
    """What tells the groups of one data set and setting apart."""
    frame = _frame([{**group.rows[0], "seed": None} for group in groups])
    return {
        place: [name for name in frame if its[name].nunique() > 1] for place, its in frame.groupby(["data", "setting"])
    }


# Rows of evaluation: what each item of several runs scores


def scored(rows: Sequence[Mapping[str, Any]], metric: str, of: str = "eval") -> np.ndarray | None:
    """What each test item of runs stands for `[runs, items]`, on the first rows that all have; None without logits for it."""
    answers = [_answers(row, of, logits=metric in OF_LOGITS) for row in rows]
    if any(it is None for it in answers):
        return None
    fewest = min(len(labels) for labels, _ in answers)
    grouped_by = [row["groups"] if of == "eval" else None for row in rows]
    groups = max((its for its in grouped_by if its is not None), key=len, default=None)
    for row, (labels, _), own in zip(rows, answers, grouped_by, strict=True):
        if not np.array_equal(labels[:fewest], answers[0][0][:fewest]) or row["metric"] != rows[0]["metric"]:
            raise _not_alike(rows[0], row, "on other rows or by another metric")
        if own is not None and own[:fewest] != groups[:fewest]:
            raise _not_alike(rows[0], row, "in other groups of rows")
    logits, groups = metric in OF_LOGITS, groups and groups[:fewest]
    its = [
        (labels[:fewest], None, groups, said[:fewest]) if logits else (labels[:fewest], said[:fewest], groups)
        for labels, said in answers
    ]
    return np.stack([measured(metric, *it)[1] for it in its])


def n_rows(rows: Sequence[Mapping[str, Any]]) -> int:
    """Number of test rows that runs have in common, the first of each: decoding is slow, and takes fewer."""
    return min(len(row["labels"]) for row in rows)


def _not_alike(one: Mapping[str, Any], other: Mapping[str, Any], how: str) -> ValueError:
    return ValueError(
        f"runs {one['cell']} and {other['cell']} of {other['data']} were tested {how}: they can't be compared"
    )


def _answers(row: Mapping[str, Any], of: str, logits: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The labels of an evaluation set, and a run's logits or predictions of them."""
    if of == "eval" and not logits:
        return np.asarray(row["labels"]), np.asarray(row["predictions"])
    if not row.get("logits"):
        return None
    found = read_logits(Path(row.get("folder") or ".") / row["logits"]).get(of)
    if found is None:
        return None
    labels, values = found
    if of == "eval" and not np.array_equal(labels, row["labels"]):
        raise ValueError(f"the logits of run {row['cell']} are not of its rows: {row['logits']}")
    return labels, values if logits else values.argmax(1)


@cache
def read_logits(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels `[rows]` and logits `[rows, K]` of each evaluation set in a run's Parquet; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        frame = pd.read_parquet(path, columns=["set", "row", "label", "logits"]).sort_values("row")
        sets = {
            str(name): (its["label"].to_numpy(), np.stack(its["logits"].to_list()).astype(float))
            for name, its in frame.groupby("set", sort=False)
        }
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} can't be read as a run's logits: {' '.join(str(error).split())}") from None
    for name, (_, values) in sets.items():
        if not np.isfinite(values.max(1)).all():  # -inf is that of a label which the run's model does not have
            raise ValueError(f"{path}: logits of {name} are no numbers")
    return sets


# Reading


def read_results(paths: Sequence[str | Path], say: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """The rows of one results table or several."""
    rows = []
    for path in map(Path, paths):
        found = _rows(path.expanduser(), say)
        if not found:
            raise ValueError(f"{path} has no rows yet: there is nothing to report")
        studies = list(dict.fromkeys(str(row["study"]) for row in found))
        if len(studies) > 1:
            say(
                f"{path} has cells of {len(studies)} studies ({', '.join(studies)}): --where study={studies[0]} takes one."
            )
        rows += found
    return rows


def _rows(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise ValueError(f"{path} {what}: name a results.jsonl, which dhrd study writes into its --output-dir")
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} can't be unpacked: {error}") from None
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    rows = []
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            # A run that is being written, or was when its process was killed.
            if number == lines[-1][0] and not data.endswith(b"\n"):
                say(f"{path}: its last line is only half there and is left out.")
                continue
            raise ValueError(f"{path}, line {number} is not a row of a study: {error}") from None
        its = row if isinstance(row, dict) else {}
        needed = _OF_EVERY_ROW + _OF_DONE_ROWS * (its.get("status") == "done")
        missing = [name for name in needed if name not in its]
        if missing:
            raise ValueError(f"{path}, line {number} is not a row of a study: it lacks {', '.join(missing)}")
        wrong = _wrong(row)
        if wrong is not None:
            raise ValueError(f"{path}, line {number} (cell {row['cell']}) {wrong}: it is not what dhrd study wrote")
        rows.append({**row, "folder": str(path.parent)})
    return rows


def _wrong(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row that has all columns, in words: whoever reports it would report a wrong number."""
    if row["status"] not in ("done", "failed"):
        return f"has the status {row['status']!r}, and not done or failed"
    if row["status"] == "failed":
        return None
    if row["metric"] not in METRICS:
        return f"has the metric {row['metric']!r}, and not one of {', '.join(METRICS)}"
    labels, predictions, groups = (row[name] for name in ("labels", "predictions", "groups"))
    for name, ids in (("labels", labels), ("predictions", predictions), ("groups", groups)):
        whole = isinstance(ids, list) and all(isinstance(it, int) for it in ids)
        if not whole and not (name == "groups" and ids is None):
            return f"has {name} that are not a list of whole numbers"
        if whole and len(ids) != len(labels):
            return f"has {len(ids)} {name} of {len(labels)} rows"
    if not labels:
        return "has no labels"
    if row["metric"] in GROUPED and groups is None:
        return f"has no groups, which {row['metric']} is of"
    own = score(row["metric"], labels, predictions, groups)
    if not isinstance(row["score"], (int, float)) or not abs(own - row["score"]) <= 1e-9:  # nor NaN
        return f"has the score {row['score']}, and its predictions have {own:.6f}"
    return None


# Values


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


def _decisive(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("data", "setting", "seed", *_OF_DATA)} | _config(row)


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What decides a run, a column each."""
    told = [_decisive(row) for row in rows]
    names = dict.fromkeys(name for row in told for name in row)
    return pd.DataFrame({name: pd.Series([_hashable(it.get(name)) for it in told], dtype=object) for name in names})


def _ids(frame: pd.DataFrame, columns: Collection[str]) -> pd.Series:
    """The same number for rows that have the same values, counted as they come."""
    return frame.groupby([name for name in frame if name in columns], sort=False).ngroup()


def _hashable(value: Any) -> Any:
    """Options are what YAML has."""
    if value is None:
        return ()  # which pandas does not take for a missing value
    if isinstance(value, Mapping):
        return tuple((name, _hashable(it)) for name, it in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
