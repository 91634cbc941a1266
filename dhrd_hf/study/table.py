"""The table of a study, `results.jsonl`: it grows by whole lines, is read and checked, and its runs are put in groups."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock

from ..files import strict_json
from .metrics import GROUPED, METRICS, score
from .plan import REASONING_OPTIONS, WEIGHTS

# What a pooled run has not: it is paired with runs of any value of these.
OF_REASONING = ("alpha", "beta", *REASONING_OPTIONS)
NAMED = (*WEIGHTS, "train_size")
_OF_DATA = ("model", "rows_digest", "eval_rows")

_NEEDED = ("study", "cell", "status")
_OF_EVERY_ROW = (*_NEEDED, "model", "data", "setting", "seed")
_OF_DONE_ROWS = (*_OF_EVERY_ROW, "metric", "score", "labels", "predictions", "groups", "train_rows")
Row = Mapping[str, Any]
_Any = TypeVar("_Any")


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass


class ResultsTable:
    """The rows of a study's runs, in the order in which they were completed, by several processes at once."""

    def __init__(self, path: str | Path, study: str, say: Callable[[str], None] = _silent):
        self.path, self.study, self.say = Path(path), study, say

    def read(self) -> list[Row]:
        found = _rows(self.path, self.path.read_bytes()) if self.path.exists() else []
        for row in found:
            if row["study"] != self.study:
                its = f"{self.path} is the table of the study {row['study']!r}, and this one is {self.study!r}"
                raise ValueError(f"{its}: name another --output-dir")
        return found

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, whole or not at all."""
        left = (strict_json(row, ensure_ascii=False) + "\n").encode()
        with self._lock():
            self._repair()
            with open(self.path, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise

    def repair(self) -> None:
        """Take a half-written last line away, and tell; its run is run again."""
        with self._lock():
            self._repair()

    def _repair(self) -> None:
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text.rfind(b"\n") + 1
        if whole == len(text):
            return
        try:
            json.loads(text[whole:])
            with open(self.path, "ab") as file:
                file.write(b"\n")  # all of the row is there
        except ValueError:
            os.truncate(self.path, whole)
            said = f"its last line was half-written ({len(text) - whole} bytes) and is taken away"
            self.say(f"{self.path}: {said}: its run is run again")

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))


def read_results(paths: Sequence[str | Path], say: Callable[[str], None] = _silent) -> list[Row]:
    """The rows of one results table or several, each checked; a last line that is half there is told and left out."""
    rows: list[Row] = []
    for path in (Path(it).expanduser() for it in paths):
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise ValueError(f"{path} {what}: name a results.jsonl, which dhrd study writes into its --output-dir")
        data = path.read_bytes()
        try:
            data = gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} can't be unpacked: {error}") from None
        found = [{**row, "folder": str(path.parent)} for row in _rows(path, data, say, checked=True)]
        if not found:
            raise ValueError(f"{path} has no rows yet: there is nothing to report")
        studies = list(dict.fromkeys(str(row["study"]) for row in found))
        if len(studies) > 1:
            several = f"{len(studies)} studies ({', '.join(studies)})"
            say(f"{path} has cells of {several}: --where study={studies[0]} takes one.")
        rows += found
    return rows


def _rows(path: Path, data: bytes, say: Callable[[str], None] = _silent, checked: bool = False) -> list[Row]:
    """The rows of a table; those to report have all columns, and nothing wrong in them."""
    found, lines = [], data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            # Without its end: a run that is being written, or was when its process was killed.
            if number == len(lines):
                say(f"{path}: its last line is only half there and is left out.")
                break
            raise ValueError(f"{where} is not a row of a study: {error}") from None
        its = row if isinstance(row, dict) else {}
        needed = _OF_DONE_ROWS if its.get("status") == "done" else _OF_EVERY_ROW
        missing = [name for name in (needed if checked else _NEEDED) if name not in its]
        if missing:
            raise ValueError(f"{where} is not a row of a study: it lacks {', '.join(missing)}")
        wrong = _wrong(row) if checked else None
        if wrong:
            raise ValueError(f"{where} (cell {row['cell']}) {wrong}: it is not what dhrd study wrote")
        found.append(row)
    return found


def _wrong(row: Row) -> str | None:
    """What is wrong with a row that has all columns, in words: whoever reports it would report a wrong number."""
    if row["status"] != "done":
        return None if row["status"] == "failed" else f"has the status {row['status']!r}, and not done or failed"
    if row["metric"] not in METRICS:
        return f"has the metric {row['metric']!r}, and not one of {', '.join(METRICS)}"
    lists = {name: row[name] for name in ("labels", "predictions", "groups")}
    if lists["groups"] is None:
        del lists["groups"]
    for name, its in lists.items():
        if not isinstance(its, list) or not all(isinstance(it, int) for it in its):
            return f"has {name} that are not a list of whole numbers"
        if len(its) != len(row["labels"]):
            return f"has {len(its)} {name} of {len(row['labels'])} rows"
    if not row["labels"]:
        return "has no labels"
    if row["metric"] in GROUPED and row["groups"] is None:
        return f"has no groups, which {row['metric']} is of"
    own = score(row["metric"], **lists)
    if not isinstance(row["score"], (int, float)) or not abs(own - row["score"]) <= 1e-9:  # nor NaN
        return f"has the score {row['score']}, and its predictions have {own:.6f}"
    return None


# Groups


def together(its: Iterable[_Any], key: Callable[[_Any], Hashable]) -> list[list[_Any]]:
    """What has one key, in the order of the first of each."""
    found: dict[Hashable, list[_Any]] = {}
    for it in its:
        found.setdefault(key(it), []).append(it)
    return list(found.values())


class Group:
    """The runs of one data set and setting that differ by nothing but their seed; `alone`: its setting has no other options in the table."""

    def __init__(self, rows: Iterable[Row], alone: bool = False):
        self.rows, self.alone = sorted(rows, key=lambda row: row["seed"]), alone
        self.seeds, its = [row["seed"] for row in self.rows], self.rows[0]
        self.data, self.setting, self.metric = its["data"], its["setting"], its["metric"]
        # What it is told apart by within a data set and setting, and of that the options.
        self.named = _named(its)
        self.config = {name: it for name, it in self.named.items() if name not in _OF_DATA}
        # What it has in common with the pooled runs beside it.
        self.shared = self.key("setting", "eval_rows", *OF_REASONING)

    def key(self, *but: str) -> frozenset[tuple[str, Any]]:
        """What decides its runs, but some of it: equal in groups that differ by nothing else."""
        return _key(self.rows[0], "seed", *but)

    def only(self, seeds: Collection[int]) -> Group:
        return Group((row for row in self.rows if row["seed"] in seeds), self.alone)

    def varying(self, groups: Sequence[Group]) -> dict[str, Any]:
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


def _hashable(value: Any) -> Any:
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
    rows = list(rows)
    options: dict[tuple, set[Hashable]] = {}
    for row in rows if table is None else table:
        its = options.setdefault((row.get("model"), row["setting"]), set())
        its.add(_key(row, "seed", "data", "rows_digest", "eval_rows", "train_size", "prompt"))
    done = (row for row in rows if row["status"] == "done")
    groups = [Group(its) for its in together(done, lambda row: _key(row, "seed"))]
    for it in groups:
        it.alone = len(options[it.named["model"], it.setting]) == 1
    return groups


def baseline_of(group: Group, groups: Iterable[Group], setting: str = "pooled") -> Group | None:
    """The group that another is compared with: of several that with the most seeds of it."""

    def fit(it: Group) -> tuple[int, bool]:
        return len({*it.seeds} & {*group.seeds}), it.named["eval_rows"] == group.named["eval_rows"]

    alike = (it for it in groups if it.setting == setting and comparable(group, it))
    return max((it for it in alike if fit(it)[0]), key=fit, default=None)


def comparable(group: Group, baseline: Group) -> bool:
    """Whether two groups differ by the setting alone, or are of the same inputs, each with all the options that its setting has."""
    inputs = ("model", "rows_digest", "train_size", "prompt")
    alike = group.data == baseline.data and all(group.named.get(it) == baseline.named.get(it) for it in inputs)
    return (alike and group.alone and baseline.alone) or differ_by_setting(group, baseline)


def differ_by_setting(group: Group, baseline: Group) -> bool:
    if {group.setting, baseline.setting} & {"pooled", "cot_decoding"}:
        return group.shared == baseline.shared
    return group.key("setting") == baseline.key("setting")
