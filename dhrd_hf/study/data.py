"""The rows of a run: drawn once, written once, shared by all runs that have them."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..data.ablations import ablate
from ..data.joining import join_rationales
from ..data.labels import Labels, read_labels
from ..data.superglue import load_superglue
from ..data.table_writing import write_rows
from ..data.tables import check_columns, load_table, table_name
from ..files import strict_json, write_whole
from .metrics import GROUPED
from .plan import MAIN_SET, VALIDATION, DataSet, Run, Study, ablation_of, digest, file_name
from .results import to_stderr, together

if TYPE_CHECKING:
    from datasets import Dataset

_EVAL_SEED = 0  # the evaluation rows are the same for all runs
_FEW_GROUPS = 20  # of fewer the bootstrap's intervals are too narrow (Cameron, Gelbach and Miller 2008)


@dataclass(frozen=True)
class RunRows:
    """Where a run's rows are, and what its score needs to know of them."""

    train: Path
    eval: dict[str, Path]  # of each evaluation set, the main one first; so its labels
    validation: Path | None = None
    train_rows: int = 0
    labels: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    groups: list[int] | None = None


class StudyData:
    """The data sets of a study, each read once, when its first run needs it."""

    def __init__(self, study: Study, folder: Path, say: Callable[[str], None] = to_stderr):
        self.study, self.folder, self.say = study, folder / "data", cache(say)  # each line is told once
        self._tables = cache(self._read)
        self._written: set[Path] = set()  # or found to be as this call would have written them

    def check(self) -> None:
        """Check that the tables of all data sets are there, before the first run."""
        for data in (it for it in self.study.data.values() if "superglue" not in it.spec):
            for table in filter(None, [*_sources(data).values(), data.spec.get("rationales")]):
                try:
                    table_name(self._path(table))
                except ValueError as error:
                    raise ValueError(f"data {data.name!r}: {error}") from None

    def of(self, run: Run) -> RunRows:
        """The rows of a run, written if no run before had them."""
        files, (tables, groups, names, columns) = self.files(run), self._tables(run.data)
        whole = groups if self.study.data[run.data].metric in GROUPED else None
        chosen = eval_rows(len(tables[MAIN_SET]), whole, self._eval_size(run))
        labels = {}
        for name, path in files.eval.items():
            rows = chosen if name == MAIN_SET else eval_rows(len(tables[name]), None, self.study.eval_size)
            drawn = tables[name].select(rows)
            self._write(path, drawn)
            labels[name] = drawn[columns["label_column"]][:]
        if files.validation is not None:
            self._write(files.validation, tables[VALIDATION])
        size = self._train(run, tables["train"], columns, files.train)
        numbers = None if groups is None else pd.factorize(pd.Series([groups[row] for row in chosen]))[0].tolist()
        return replace(files, train_rows=size, labels=labels, names=names, groups=numbers)

    def files(self, run: Run) -> RunRows:
        """Where the rows of a run are, or will be: nothing is read or written."""
        data, size, kind = self.study.data[run.data], self._eval_size(run) or "all", ablation_of(run.setting)
        named = "" if kind in ("consistent", "rationale_after_label") else f"-{kind}"
        folder, decoded = self.folder / data.folder_name, run.setting == "cot_decoding"
        sets = [name for name in data.eval_sets if name == MAIN_SET or not decoded]
        names = {name: "eval" if name == MAIN_SET else f"eval-{file_name(name)}" for name in sets}
        return RunRows(
            train=folder / f"train-{run.train_size or 'all'}-seed{run.seed}{named}.jsonl",
            eval={name: folder / f"{it}-{size}.jsonl" for name, it in names.items()},
            validation=folder / "validation.jsonl" if "validation" in data.spec and not decoded else None,
        )

    def _eval_size(self, run: Run) -> int | None:
        sizes = self.study.eval_size, self.study.cot_eval_size if run.setting == "cot_decoding" else None
        return min((it for it in sizes if it is not None), default=None)

    def _train(self, run: Run, table: Dataset, columns: dict[str, str], path: Path) -> int:
        size = min(run.train_size or len(table), len(table))
        if size < (run.train_size or 0):
            asked = f"not the {run.train_size} that were asked for: all are used"
            self.say(f"{run.data} has {size} training rows, {asked}")
        if path not in self._written:
            # A smaller size is inside a larger one.
            rows = table.select(np.random.default_rng(run.seed).permutation(len(table))[:size].tolist())
            kind = ablation_of(run.setting)
            if columns["rationale_column"] in rows.column_names:
                rows = ablate(rows, kind, run.seed, **columns)
            elif kind != "consistent":
                lacking = f"{run.data} has no rationales, which {run.setting} would change"
                raise ValueError(f"{lacking}: name them in data")
            self._write(path, rows)
        return size

    def _write(self, path: Path, rows: Dataset) -> None:
        """Write rows, or see that those of an earlier call are the same: runs are compared row by row."""
        if path in self._written:
            return
        if path.exists():
            with TemporaryDirectory() as folder:
                write_rows(again := Path(folder) / path.name, rows)
                if not filecmp.cmp(path, again, shallow=False):
                    raise _changed(path)
        else:
            write_rows(path, rows)
        self._written.add(path)

    def _read(self, name: str) -> tuple[dict[str, Dataset], list[Any] | None, list[str], dict[str, str]]:
        """The tables by name, those to train on without rows that lack a named rationale; groups of evaluation rows, labels, columns."""
        data = self.study.data[name]
        spec = data.spec
        columns = {name: spec.get(name, name.removesuffix("_column")) for name in ("label_column", "rationale_column")}
        label, rationale = columns.values()
        rationales = None if "rationales" not in spec else self._path(spec["rationales"])
        if "superglue" in spec:
            tables, rationales = self._superglue(spec, rationales)
        else:
            tables, grouped = {}, [] if spec.get("group_column") is None else [spec["group_column"]]
            for name, source in _sources(data).items():
                tables[name] = load_table(self._path(source))
                needed = [label, *(grouped if name == MAIN_SET else [])]
                try:
                    check_columns(tables[name].column_names, needed, [rationale])
                except ValueError as error:
                    raise ValueError(f"{source}: {error}") from None
            if rationales is not None:
                train = tables["train"]
                joined, counts = join_rationales(train.to_list(), rationales, **columns)
                self.say(f"{data.name}: {counts}")
                train = train.remove_columns([rationale] if rationale in train.column_names else [])
                tables["train"] = train.add_column(rationale, [row[rationale] for row in joined])
        found = {}
        for name in tables:
            how = spec.get("drop_unlabelled", False), self.say, spec.get("problem_type")
            tables[name], found[name] = single_labels(tables[name], label, f"{data.name}, {name}", *how)
        found["train"].check(found[MAIN_SET], f"{data.name}, {MAIN_SET},", "train")
        if rationales is not None:
            said = [row for row, text in enumerate(tables["train"][rationale]) if str(text or "").strip()]
            if len(said) < (rows := len(tables["train"])):
                self.say(f"{data.name}: {rows - len(said)} of {rows} training rows have no rationale: left out")
            tables["train"] = tables["train"].select(said)
        if len(tables["train"]) == 0:
            raise ValueError(f"{data.name} has no training rows with a rationale")
        # Each seed, size and setting draws its own rows of the tables, which are to be those of earlier runs.
        named = {name: name if name in ("train", MAIN_SET) else f"eval {name}" for name in tables}
        by_name = {named[name]: table.to_list() for name, table in tables.items()}
        keep_digests(self.folder / data.folder_name / "tables.json", by_name)
        for name in tables.keys() - {"train", MAIN_SET}:
            tables[name] = _in_our_labels(data, name, tables[name], label, found["train"].names)
        return tables, self._groups(data, tables[MAIN_SET]), found["train"].names, columns

    def _groups(self, data: DataSet, dev: Dataset) -> list[Any] | None:
        """The group of each evaluation row, of which a row without one is one; told where it makes a difference."""
        column = data.spec.get("group_column", "group")
        if column is None or column not in dev.column_names:
            return None
        of_questions = data.metric in GROUPED
        groups = [place if group is None else f"group {group}" for place, group in enumerate(dev[column])]
        if len(set(groups)) == 1 and not of_questions:
            all_of = f"all of its evaluation rows are of one group ({column!r}): intervals will draw rows"
            self.say(f"{data.name}: {all_of}")
            return None
        chosen = eval_rows(len(dev), groups if of_questions else None, self.study.eval_size)
        drawn = len({groups[row] for row in chosen})
        if drawn < len(chosen):
            said = f"intervals will draw its {drawn} groups of rows ({column!r}), not its {len(chosen)} rows"
            if drawn < _FEW_GROUPS:
                said += f". Of fewer than {_FEW_GROUPS} groups intervals are too narrow"
                alike = "; if rows of a group are no more alike than others, write group_column: null"
                said += "" if "superglue" in data.spec else alike
            self.say(f"{data.name}: {said}")
        return groups

    def _superglue(self, spec: dict[str, Any], rationales: str | None) -> tuple[dict[str, Dataset], str | None]:
        source = Path(self._path(spec.get("source", "super_glue")))
        if (source / "superglue").is_dir():
            beside, source = source / "superglue_rationales", source / "superglue"
            rationales = str(beside) if rationales is None and beside.is_dir() else rationales
        train = load_superglue(spec["superglue"], "train", str(source), rationales)
        return {"train": train, MAIN_SET: load_superglue(spec["superglue"], "validation", str(source))}, rationales

    def _path(self, source: str) -> str:
        """A path of the YAML file, which is taken from its folder; a Hub name stays."""
        beside = self.study.folder / Path(source).expanduser()
        split_of = source.rpartition("@")[0]
        of_folder = bool(split_of) and (self.study.folder / split_of).is_dir()
        return str(beside) if beside.exists() or of_folder or "." in Path(source).name else source


def _sources(data: DataSet) -> dict[str, str]:
    """The tables that a data set names, by what they are for."""
    validation = {VALIDATION: data.spec["validation"]} if "validation" in data.spec else {}
    return {"train": data.spec["train"], **data.eval_sets, **validation}


def _in_our_labels(data: DataSet, name: str, table: Dataset, column: str, names: Sequence[str]) -> Dataset:
    """A further evaluation set with its labels by the names that the training rows have for them."""
    ours, given = data.spec.get("label_map", {}).get(name, {}), table[column][:]
    renamed = [ours.get(label, label) for label in given]
    absent, unknown = sorted(set(ours) - set(given)), sorted(set(renamed) - set(names))
    if absent or unknown:
        odd = f"no label {absent[0]!r}, which label_map has" if absent else ""
        odd = odd or f"a label {unknown[0]!r}, which is not theirs"
        raise ValueError(
            f"{data.name}: evaluation set {name!r} has {odd}: label_map says what each of its labels "
            f"({', '.join(sorted(set(given)))}) is among those of the training rows ({', '.join(names)})"
        )
    order = table.column_names
    return table.remove_columns(column).add_column(column, renamed).select_columns(order) if ours else table


def single_labels(
    table: Dataset, column: str, where: str, drop: bool, say: Callable[[str], None], kind: str | None = None
) -> tuple[Dataset, Labels]:
    """A table with the names of its labels, of which a row has one."""
    try:
        table, labels = read_labels(table, column, kind, drop_unlabelled=drop, where=where, say=say)
    except ValueError as error:
        raise ValueError(f"{error} A study is of one label a row.") from None
    if labels.problem_type != "single_label_classification":
        raise ValueError(f"{where}, is {labels.problem_type}: a study is of one label a row.")
    return table, labels


def keep_digests(path: Path, tables: Mapping[str, list[Any]]) -> None:
    """Note which rows there are; raise where earlier runs had others."""
    digests = {name: digest(rows) for name, rows in tables.items()}
    if not path.exists():
        write_whole(path, strict_json(digests))
    elif json.loads(path.read_text()) != digests:
        raise _changed(path.parent)


def _changed(path: Path) -> ValueError:
    return ValueError(
        f"{path} has other rows than its data gives now, which has changed since runs were done on it: "
        "put the data back, or name another --output-dir"
    )


def eval_rows(rows: int, groups: Sequence[Any] | None, size: int | None) -> list[int]:
    """The evaluation rows, always the same ones: whole groups, as many as fit, a smaller size inside a larger one."""
    members = together(range(rows), lambda row: row if groups is None else groups[row])
    chosen: list[int] = []
    for group in np.random.default_rng(_EVAL_SEED).permutation(len(members)):
        if chosen and size is not None and len(chosen) + len(members[group]) > size:
            break
        chosen += members[group]
    return chosen
