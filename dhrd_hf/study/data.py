"""The rows of a run: drawn once, written once, shared by all runs that have them."""

from __future__ import annotations

import filecmp
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..files import strict_json, write_whole
from .metrics import GROUPED
from .plan import MAIN_SET, VALIDATION, DataSet, Run, Study, digest, file_name
from .settings import ablation_of

if TYPE_CHECKING:
    import datasets

_EVAL_SEED = 0  # the evaluation rows are the same for all cells
_FEW_GROUPS = 20  # of fewer the bootstrap's intervals are too narrow (Cameron, Gelbach and Miller 2008)


@dataclass(frozen=True)
class RunRows:
    """Where a cell's rows are, and what its score needs to know of them."""

    train: Path
    eval: Path
    train_rows: int
    labels: list[str]
    names: list[str]
    groups: list[int] | None
    more_eval: dict[str, Path] = field(default_factory=dict)
    more_labels: dict[str, list[str]] = field(default_factory=dict)
    validation: Path | None = None


@dataclass(frozen=True)
class _Tables:
    """A data set of which the training rows without a rationale are out, if rationales are named."""

    train: datasets.Dataset
    eval: datasets.Dataset
    more: dict[str, datasets.Dataset]
    groups: list[Any] | None  # of the evaluation rows
    names: list[str]
    label_column: str
    rationale_column: str


class StudyData:
    """The data sets of a study, each read once, when its first cell needs it."""

    def __init__(self, study: Study, folder: Path, say: Callable[[str], None] | None = None):
        self.study = study
        self.folder = folder / "data"
        self.say = say or (lambda line: print(line, file=sys.stderr))
        self._tables: dict[str, _Tables] = {}
        self._told: set[tuple[str, int]] = set()
        self._written: set[Path] = set()  # or found to be as this call would have written them

    def check(self) -> None:
        """Check that the tables of all data sets are there, before the first cell runs."""
        from ..data.tables import table_name

        for data in self.study.data.values():
            if "superglue" in data.spec:
                continue
            named = [data.spec[part] for part in ("train", "rationales", "validation") if part in data.spec]
            for table in (*named, *data.eval_sets.values()):
                try:
                    table_name(self._path(table))
                except ValueError as error:
                    raise ValueError(f"data {data.name!r}: {error}") from None

    def of(self, cell: Run) -> RunRows:
        """The rows of a cell, written if no cell before had them."""
        tables = self._of(self.study.data[cell.data])
        planned = self.files(cell)
        questions = tables.groups if self.study.data[cell.data].metric in GROUPED else None
        chosen = eval_rows(len(tables.eval), questions, self._eval_size(cell))
        dev = tables.eval.select(chosen)
        more = {
            name: tables.more[name].select(eval_rows(len(tables.more[name]), None, self.study.eval_size))
            for name in planned.more_eval
        }
        for path, rows in ((planned.eval, dev), *((path, more[name]) for name, path in planned.more_eval.items())):
            self._write(path, rows)
        if planned.validation is not None:
            self._write(planned.validation, tables.more[VALIDATION])
        return replace(
            planned,
            train_rows=self._train(cell, tables, planned.train),
            labels=dev[tables.label_column][:],
            names=tables.names,
            groups=None if tables.groups is None else numbered(tables.groups[row] for row in chosen),
            more_labels={name: rows[tables.label_column][:] for name, rows in more.items()},
        )

    def files(self, cell: Run) -> RunRows:
        """Where the rows of a cell are, or will be: nothing is read or written."""
        data, size = self.study.data[cell.data], self._eval_size(cell) or "all"
        kind = ablation_of(cell.setting)
        named = "" if kind in ("consistent", "rationale_after_label") else f"-{kind}"
        folder = self.folder / data.folder_name
        others = [name for name in data.eval_sets if name != MAIN_SET and cell.setting != "cot_decoding"]
        return RunRows(
            train=folder / f"train-{cell.train_size or 'all'}-seed{cell.seed}{named}.jsonl",
            eval=folder / f"eval-{size}.jsonl",
            train_rows=0,
            labels=[],
            names=[],
            groups=None,
            more_eval={name: folder / f"eval-{file_name(name)}-{size}.jsonl" for name in others},
            validation=folder / "validation.jsonl"
            if "validation" in data.spec and cell.setting != "cot_decoding"
            else None,
        )

    def _eval_size(self, cell: Run) -> int | None:
        size = self.study.eval_size
        if cell.setting == "cot_decoding" and self.study.cot_eval_size is not None:
            size = min(self.study.cot_eval_size, size or self.study.cot_eval_size)
        return size

    def _train(self, cell: Run, tables: _Tables, path: Path) -> int:
        size = len(tables.train) if cell.train_size is None else min(cell.train_size, len(tables.train))
        if cell.train_size is not None and size < cell.train_size and (cell.data, cell.train_size) not in self._told:
            self._told.add((cell.data, cell.train_size))
            self.say(
                f"{cell.data} has {size} training rows, not the {cell.train_size} that were asked for: all are used"
            )
        if path not in self._written:
            from ..data.ablations import ablate

            kind = ablation_of(cell.setting)
            rows = tables.train.select(train_rows(len(tables.train), size, cell.seed))
            columns = {"label_column": tables.label_column, "rationale_column": tables.rationale_column}
            if tables.rationale_column in rows.column_names:
                rows = ablate(rows, kind, cell.seed, **columns)
            elif kind != "consistent":
                raise ValueError(
                    f"{cell.data} has no rationales, which {cell.setting} would change: name them in data"
                )
            self._write(path, rows)
        return size

    def _write(self, path: Path, rows: datasets.Dataset) -> None:
        """Write rows, or see that those of an earlier call are the same: cells are compared row by row."""
        from ..data.table_writing import write_rows

        if path in self._written:
            return
        if path.exists():
            with TemporaryDirectory() as folder:
                again = Path(folder) / path.name
                write_rows(again, rows)
                if not filecmp.cmp(path, again, shallow=False):
                    raise _changed(path)
        else:
            write_rows(path, rows)
        self._written.add(path)

    def _of(self, data: DataSet) -> _Tables:
        if data.name not in self._tables:
            self._tables[data.name] = self._read(data)
        return self._tables[data.name]

    def _read(self, data: DataSet) -> _Tables:
        from ..data.joining import join_rationales
        from ..data.labels import read_labels
        from ..data.tables import check_columns, load_table

        spec = data.spec
        columns = {"label_column": spec.get("label_column", "label")}
        columns["rationale_column"] = spec.get("rationale_column", "rationale")
        label_column, rationale_column = columns.values()
        more: dict[str, datasets.Dataset] = {}
        if "superglue" in spec:
            train, dev, rationales = self._superglue(spec)
        else:
            train = load_table(self._path(spec["train"]))
            sources = data.eval_sets | ({VALIDATION: spec["validation"]} if "validation" in spec else {})
            more = {name: load_table(self._path(source)) for name, source in sources.items()}
            dev = more[MAIN_SET]
            rationales = None if "rationales" not in spec else self._path(spec["rationales"])
            of_groups = spec.get("group_column")
            for source, table in ((spec["train"], train), *((sources[name], it) for name, it in more.items())):
                needed = [label_column, *([of_groups] if of_groups is not None and table is dev else [])]
                try:
                    check_columns(table.column_names, needed, [rationale_column])
                except ValueError as error:
                    raise ValueError(f"{source}: {error}") from None
            del more[MAIN_SET]
            if rationales is not None:
                joined, counts = join_rationales(train.to_list(), rationales, **columns)
                self.say(f"{data.name}: {counts}")
                if rationale_column in train.column_names:
                    train = train.remove_columns(rationale_column)
                train = train.add_column(rationale_column, [row[rationale_column] for row in joined])
        options = {"drop_unlabelled": spec.get("drop_unlabelled", False), "say": self.say}
        found: dict[str, Any] = {}
        for name, table in {"train": train, MAIN_SET: dev, **more}.items():
            try:
                found[name] = read_labels(
                    table, label_column, spec.get("problem_type"), where=f"{data.name}, {name}", **options
                )
            except ValueError as error:
                raise ValueError(f"{error} A study is of one label a row.") from None
            if found[name][1].problem_type != "single_label_classification":
                raise ValueError(
                    f"{data.name}, {name}, is {found[name][1].problem_type}: a study is of one label a row."
                )
        (train, labels), (dev, of_dev) = found.pop("train"), found.pop(MAIN_SET)
        labels.check(of_dev, f"{data.name}, {MAIN_SET},", "train")
        more = {name: table for name, (table, _) in found.items()}
        if rationales is not None:
            said = [row for row, text in enumerate(train[rationale_column]) if str(text or "").strip()]
            if len(said) < len(train):
                self.say(
                    f"{data.name}: {len(train) - len(said)} of {len(train)} training rows have no rationale: left out"
                )
            train = train.select(said)
        if len(train) == 0:
            raise ValueError(f"{data.name} has no training rows with a rationale")
        names = labels.names
        of_tables = {"train": digest(train.to_list()), "eval": digest(dev.to_list())}
        of_tables |= {f"eval {name}": digest(table.to_list()) for name, table in more.items()}
        _check_unchanged(self.folder / data.folder_name / "tables.json", of_tables)
        more = {name: _in_our_labels(data, name, table, label_column, names) for name, table in more.items()}
        return _Tables(train, dev, more, self._groups(data, dev), names, label_column, rationale_column)

    def _groups(self, data: DataSet, dev: datasets.Dataset) -> list[Any] | None:
        """The group of each evaluation row, of which a row without one is one; told where it makes a difference."""
        column = data.spec.get("group_column", "group")
        if column is None or column not in dev.column_names:
            return None
        of_questions = data.metric in GROUPED
        groups = [place if group is None else f"group {group}" for place, group in enumerate(dev[column])]
        if len(set(groups)) == 1 and not of_questions:
            self.say(
                f"{data.name}: all of its evaluation rows are of one group ({column!r}): intervals will draw rows"
            )
            return None
        chosen = eval_rows(len(dev), groups if of_questions else None, self.study.eval_size)
        drawn = len({groups[row] for row in chosen})
        if drawn < len(chosen):
            said = (
                f"{data.name}: intervals will draw its {drawn} groups of rows ({column!r}), not its {len(chosen)} rows"
            )
            if drawn < _FEW_GROUPS:
                said += f". Of fewer than {_FEW_GROUPS} groups intervals are too narrow"
                if "superglue" not in data.spec:
                    said += "; if rows of a group are no more alike than others, write group_column: null"
            self.say(said)
        return groups

    def _superglue(self, spec: dict[str, Any]) -> tuple[datasets.Dataset, datasets.Dataset, Any]:
        from ..data.superglue import load_superglue

        source = self._path(spec.get("source", "super_glue"))
        rationales = None if "rationales" not in spec else self._path(spec["rationales"])
        if (Path(source) / "superglue").is_dir():
            beside = Path(source) / "superglue_rationales"
            rationales = str(beside) if rationales is None and beside.is_dir() else rationales
            source = str(Path(source) / "superglue")
        train = load_superglue(spec["superglue"], "train", source, rationales)
        return train, load_superglue(spec["superglue"], "validation", source), rationales

    def _path(self, source: str) -> str:
        """A path of the YAML file, which is taken from its folder; a Hub name stays."""
        beside = self.study.folder / Path(source).expanduser()
        split_of = source.rpartition("@")[0]
        is_local = (
            beside.exists() or (split_of and (self.study.folder / split_of).is_dir()) or "." in Path(source).name
        )
        return str(beside) if is_local else source


def _check_unchanged(path: Path, found: dict[str, str]) -> None:
    """See that a data set's tables are those of earlier cells: each seed, size and setting draws its own rows of them."""
    if not path.exists():
        write_whole(path, strict_json(found))
    elif json.loads(path.read_text()) != found:
        raise _changed(path.parent)


def _in_our_labels(
    data: DataSet, name: str, table: datasets.Dataset, column: str, names: Sequence[str]
) -> datasets.Dataset:
    """A further evaluation set with its labels by the names that the training rows have for them."""
    given, ours = table[column][:], data.in_ours(name)
    absent = sorted(set(ours) - set(given))
    unknown = sorted({ours.get(label, label) for label in given} - set(names))
    if absent or unknown:
        found = (
            f"no label {absent[0]!r}, which label_map has"
            if absent
            else f"a label {unknown[0]!r}, which is not theirs"
        )
        raise ValueError(
            f"{data.name}: evaluation set {name!r} has {found}: label_map says what each of its labels "
            f"({', '.join(sorted(set(given)))}) is among those of the training rows ({', '.join(names)})"
        )
    if all(ours.get(label, label) == label for label in given):
        return table
    kept = [place for place, it in enumerate(table.column_names) if it == column][0]
    renamed = table.remove_columns(column).add_column(column, [ours.get(label, label) for label in given])
    order = renamed.column_names[:-1]
    return renamed.select_columns([*order[:kept], column, *order[kept:]])


def _changed(path: Path) -> ValueError:
    return ValueError(
        f"{path} has other rows than its data gives now, which has changed since cells were run on it: "
        "put the data back, or name another --output-dir"
    )


def train_rows(rows: int, size: int, seed: int) -> list[int]:
    """The first rows of a permutation that the seed draws: a smaller size is inside a larger one."""
    import numpy as np

    return np.random.default_rng(seed).permutation(rows)[:size].tolist()


def eval_rows(rows: int, groups: Sequence[Any] | None, size: int | None) -> list[int]:
    """The evaluation rows, always the same ones: whole groups, as many as fit, a smaller size inside a larger one."""
    import numpy as np

    of_row = list(range(rows)) if groups is None else numbered(groups)
    members: list[list[int]] = [[] for _ in range(max(of_row) + 1)]
    for row, group in enumerate(of_row):
        members[group].append(row)
    chosen: list[int] = []
    for group in np.random.default_rng(_EVAL_SEED).permutation(len(members)):
        if chosen and size is not None and len(chosen) + len(members[group]) > size:
            break
        chosen += members[group]
    return chosen


def numbered(groups: Iterable[Any]) -> list[int]:
    """Groups numbered from 0 in the order in which they come."""
    number: dict[Any, int] = {}
    return [number.setdefault(group, len(number)) for group in groups]
