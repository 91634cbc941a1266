"""The table of a study, `results.jsonl`: it grows by whole lines, is read and checked, and its runs are put in groups."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..files import strict_json
from .metrics import GROUPED, METRICS, score
from .plan import REASONING_OPTIONS

# What a pooled run has not: it is paired with runs of any value of these.
OF_REASONING = ("alpha", "beta", *REASONING_OPTIONS)
_NAMED = ("alpha", "beta", "classifier_head", "train_size")
_OF_DATA = ("model", "rows_digest", "eval_rows")
_NEEDED = ("study", "cell", "status")
_OF_EVERY_ROW = (*_NEEDED, "model", "data", "setting", "seed")
_OF_DONE_ROWS = ("metric", "score", "labels", "predictions", "groups", "train_rows")
Row = dict[str, Any]


def _silent(line: str) -> None:
    pass


class ResultsTable:
    """The rows of a study's runs, in the order in which they were completed, by several processes at once."""

    def __init__(self, path: str | Path, study: str, say: Callable[[str], None] = _silent):
        self.path, self.study, self.say = Path(path), study, say

    def read(self) -> list[Row]:
        """The rows that are whole."""
        found = list(_rows(self.path, self.path.read_bytes())) if self.path.exists() else []
        for _, row in found:
            if row["study"] != self.study:
                raise ValueError(
                    f"{self.path} is the table of the study {row['study']!r}, and this one is {self.study!r}: "
                    "name another --output-dir"
                )
        return [row for _, row in found]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, whole or not at all."""
        line = (strict_json(row, ensure_ascii=False) + "\n").encode()
        with self._lock():
            self._repair()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            size, written = os.fstat(descriptor).st_size, 0
            try:
                while written < len(line):
                    written += os.write(descriptor, line[written:])
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
            finally:
                os.close(descriptor)

    def repair(self) -> None:
        """Take a half-written last line away, and tell; its run is run again."""
        with self._lock():
            self._repair()

    def _repair(self) -> None:
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text.rfind(b"\n") + 1
        if whole == len(text):
            return
        with open(self.path, "rb+") as file:
            try:
                json.loads(text[whole:])
                file.seek(0, os.SEEK_END)
                file.write(b"\n")  # all of the row is there
            except ValueError:
                file.truncate(whole)
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
        if path.suffix == ".gz":
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{path} can't be unpacked: {error}") from None
        found = []
        for number, row in _rows(path, data, _OF_EVERY_ROW, _OF_DONE_ROWS, say):
            wrong = _wrong(row)
            if wrong is not None:
                raise ValueError(
                    f"{path}, line {number} (cell {row['cell']}) {wrong}: it is not what dhrd study wrote"
                )
            found.append({**row, "folder": str(path.parent)})
        if not found:
            raise ValueError(f"{path} has no rows yet: there is nothing to report")
        studies = list(dict.fromkeys(str(row["study"]) for row in found))
        if len(studies) > 1:
            several = f"{len(studies)} studies ({', '.join(studies)})"
            say(f"{path} has cells of {several}: --where study={studies[0]} takes one.")
        rows += found
    return rows


def _rows(
    path: Path,
    data: bytes,
    needed: Collection[str] = _NEEDED,
    of_done: Collection[str] = (),
    say: Callable[[str], None] = _silent,
) -> Iterator[tuple[int, Row]]:
    """The rows of a table and the numbers of their lines."""
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            # A run that is being written, or was when its process was killed.
            if number == lines[-1][0] and not data.endswith(b"\n"):
                say(f"{path}: its last line is only half there and is left out.")
                return
            raise ValueError(f"{path}, line {number} is not a row of a study: {error}") from None
        its = row if isinstance(row, dict) else {}
        missing = [name for name in (*needed, *(of_done if its.get("status") == "done" else ())) if name not in its]
        if missing:
            raise ValueError(f"{path}, line {number} is not a row of a study: it lacks {', '.join(missing)}")
        yield number, row


def _wrong(row: Row) -> str | None:
    """What is wrong with a row that has all columns, in words: whoever reports it would report a wrong number."""
    if row["status"] not in ("done", "failed"):
        return f"has the status {row['status']!r}, and not done or failed"
    if row["status"] == "failed":
        return None
    if row["metric"] not in METRICS:
        return f"has the metric {row['metric']!r}, and not one of {', '.join(METRICS)}"
    labels, predictions, groups = (row[name] for name in ("labels", "predictions", "groups"))
    for name in ("labels", "predictions", *(("groups",) if groups is not None else ())):
        if not isinstance(row[name], list) or not all(isinstance(it, int) for it in row[name]):
            return f"has {name} that are not a list of whole numbers"
        if len(row[name]) != len(labels):
            return f"has {len(row[name])} {name} of {len(labels)} rows"
    if not labels:
        return "has no labels"
    if row["metric"] in GROUPED and groups is None:
        return f"has no groups, which {row['metric']} is of"
    own = score(row["metric"], labels, predictions, groups)
    if not isinstance(row["score"], (int, float)) or not abs(own - row["score"]) <= 1e-9:  # nor NaN
        return f"has the score {row['score']}, and its predictions have {own:.6f}"
    return None


# Groups


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one data set and setting that differ by nothing but their seed."""

    first: Row
    rows: list[Row]

    def key(self, *but: str) -> frozenset[tuple[str, Any]]:
        """What decides its runs, but some of it: equal in groups that differ by nothing else."""
        return _key(self.first, "seed", *but)

    @cached_property
    def shared(self) -> frozenset[tuple[str, Any]]:
        """What it has in common with the pooled runs beside it."""
        return self.key("setting", "eval_rows", *OF_REASONING)

    @property
    def data(self) -> str:
        return self.first["data"]

    @property
    def setting(self) -> str:
        return self.first["setting"]

    @cached_property
    def config(self) -> Row:
        """Its options."""
        return _config(self.first)

    @property
    def named(self) -> Row:
        """The model, what the data are made of and its options: what it is told apart by within a data set and setting."""
        return {name: self.first.get(name) for name in _OF_DATA} | self.config

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs."""
        return [row["seed"] for row in self.rows]

    def only(self, seeds: Iterable[int]) -> Group:
        """The runs of some seeds."""
        kept = set(seeds)
        return replace(self, rows=[row for row in self.rows if row["seed"] in kept])


def latest(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Row], int]:
    """One row of each run, the last that was done, or that failed where none was; and how many done ones stood twice."""
    rows, first, done, failed = [dict(row) for row in rows], {}, {}, {}
    for place, row in enumerate(rows):
        first.setdefault(_key(row), place)
        if row["status"] == "done":
            done[_key(row)] = row
    # A row that failed may not know its number of evaluation rows.
    runs, ids = {_key(row, "eval_rows") for row in done.values()}, {row["cell"] for row in done.values()}
    for row in rows:
        run = _key(row, "eval_rows")
        if row["status"] != "done" and run not in runs and row["cell"] not in ids:
            failed.pop(run, None)
            failed[run] = row
    last = [*done.values(), *{row["cell"]: row for row in failed.values()}.values()]
    # The last counts, where the first stands.
    kept = sorted(last, key=lambda row: first[_key(row)])
    return kept, sum(row["status"] == "done" for row in rows) - len(done)


def grouped(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """The done rows in groups that differ by nothing but the seed."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        if row["status"] == "done":
            found.setdefault(_key(row, "seed"), []).append(dict(row))
    return [Group(its[0], sorted(its, key=lambda row: row["seed"])) for its in found.values()]


def comparable(group: Group, baseline: Group) -> bool:
    """Whether two groups differ by the setting alone."""
    if {group.setting, baseline.setting} & {"pooled", "cot_decoding"}:
        return group.shared == baseline.shared
    return group.key("setting") == baseline.key("setting")


def baseline_of(group: Group, groups: Iterable[Group], setting: str = "pooled") -> Group | None:
    """The group that another is compared with: of several that with the most seeds of it."""

    def fit(it: Group) -> tuple[int, bool]:
        return len(set(it.seeds) & set(group.seeds)), it.named["eval_rows"] == group.named["eval_rows"]

    best = max((it for it in groups if it.setting == setting and comparable(group, it)), key=fit, default=None)
    return best if best is not None and set(best.seeds) & set(group.seeds) else None


def unpaired(groups: Sequence[Group]) -> int:
    """How many runs have no partner: pooled ones beside which nothing was run, others without their pooled one."""
    sides = {(it.setting == "pooled", it.shared, seed) for it in groups for seed in it.seeds}
    return sum((it.setting != "pooled", it.shared, seed) not in sides for it in groups for seed in it.seeds)


def several_data(groups: Sequence[Group]) -> list[str]:
    """Names under which there are several data."""
    digests = {(it.data, it.named["rows_digest"]) for it in groups}
    sizes = {(it.data, it.named["eval_rows"]) for it in groups if it.setting != "cot_decoding"}
    names = dict.fromkeys(it.data for it in groups)
    return [name for name in names if any([data for data, _ in its].count(name) > 1 for its in (digests, sizes))]


def varying_options(groups: Sequence[Group]) -> dict[tuple[str, str], list[str]]:
    """What tells the groups of one data set and setting apart."""
    names = dict.fromkeys(name for it in groups for name in it.named)
    places: dict[tuple[str, str], list[Row]] = {}
    for it in groups:
        places.setdefault((it.data, it.setting), []).append(it.named)
    return {
        place: [name for name in names if len({_hashable(it.get(name)) for it in its}) > 1]
        for place, its in places.items()
    }


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


def _config(row: Mapping[str, Any]) -> Row:
    return {name: row.get(name) for name in _NAMED} | dict(row.get("options") or {})


def _key(row: Mapping[str, Any], *but: str) -> frozenset[tuple[str, Any]]:
    its = {name: row.get(name) for name in ("data", "setting", "seed", *_OF_DATA)} | _config(row)
    return frozenset((name, _hashable(it)) for name, it in its.items() if it is not None and name not in but)


def _hashable(value: Any) -> Any:
    """Options are what YAML has."""
    if isinstance(value, Mapping):
        return tuple((name, _hashable(it)) for name, it in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
