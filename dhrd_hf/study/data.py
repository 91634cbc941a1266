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

import numpy as np

from ..files import strict_json, write_whole
from .metrics import GROUPED
from .plan import MAIN_SET, VALIDATION, DataSet, Run, Study, ablation_of, digest, file_name

if TYPE_CHECKING:
    import datasets

_EVAL_SEED = 0  # the evaluation rows are the same for all runs
_FEW_GROUPS = 20  # of fewer the bootstrap's intervals are too narrow (Cameron, Gelbach and Miller 2008)


@dataclass(frozen=True)
class RunRows:
    """Where a run's rows are, and what its score needs to know of them."""

    train: Path
    eval: Path
    train_rows: int = 0
    labels: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: list[int] | None = None
    more_eval: dict[str, Path] = field(default_factory=dict)
    more_labels: dict[str, list[str]] = field(default_factory=dict)
    validation: Path | None = None

    @property
    def all_labels(self) -> dict[str, list[str]]:
        """The labels of each evaluation set."""
        return {MAIN_SET: self.labels, **self.more_labels}


@dataclass(frozen=True)
class _Tables:
    """A data set of which the training rows without a rationale are out, if rationales are named."""

    train: datasets.Dataset
    eval: datasets.Dataset
    more: dict[str, datasets.Dataset]
    groups: list[Any] | None  # of the evaluation rows
    names: list[str]
    columns: dict[str, str]

    def labels(self, rows: datasets.Dataset) -> list[str]:
        return rows[self.columns["label_column"]][:]


class StudyData:
    """The data sets of a study, each read once, when its first run needs it."""

    def __init__(self, study: Study, folder: Path, say: Callable[[str], None] | None = None):
        self.study = study
        self.folder = folder / "data"
        self.say = say or (lambda line: print(line, file=sys.stderr))
        self._tables: dict[str, _Tables] = {}
        self._told: set[tuple[str, int]] = set()
        self._written: set[Path] = set()  # or found to be as this call would have written them

    def check(self) -> None:
        """Check that the tables of all data sets are there, before the first run."""
        from ..data.tables import table_name

        for data in self.study.data.values():
            named = [data.spec[part] for part in ("train", "rationales", "validation") if part in data.spec]
            for table in (*named, *data.eval_sets.values()) if "superglue" not in data.spec else ():
                try:
                    table_name(self._path(table))
                except ValueError as error:
                    raise ValueError(f"data {data.name!r}: {error}") from None

    def of(self, run: Run) -> RunRows:
        """The rows of a run, written if no run before had them."""
        data, planned = self.study.data[run.data], self.files(run)
        if data.name not in self._tables:
            self._tables[data.name] = self._read(data)
        tables = self._tables[data.name]
        chosen = eval_rows(len(tables.eval), tables.groups if data.metric in GROUPED else None, self._eval_size(run))
        dev, more = tables.eval.select(chosen), {}
        self._write(planned.eval, dev)
        for name, path in planned.more_eval.items():
            more[name] = tables.more[name].select(eval_rows(len(tables.more[name]), None, self.study.eval_size))
            self._write(path, more[name])
        if planned.validation is not None:
            self._write(planned.validation, tables.more[VALIDATION])
        return replace(
            planned,
            train_rows=self._train(run, tables, planned.train),
            labels=tables.labels(dev),
            names=tables.names,
            groups=None if tables.groups is None else numbered(tables.groups[row] for row in chosen),
            more_labels={name: tables.labels(rows) for name, rows in more.items()},
        )

    def files(self, run: Run) -> RunRows:
        """Where the rows of a run are, or will be: nothing is read or written."""
        data, size, kind = self.study.data[run.data], self._eval_size(run) or "all", ablation_of(run.setting)
        named = "" if kind in ("consistent", "rationale_after_label") else f"-{kind}"
        folder, decoded = self.folder / data.folder_name, run.setting == "cot_decoding"
        others = [name for name in data.eval_sets if name != MAIN_SET and not decoded]
        return RunRows(
            train=folder / f"train-{run.train_size or 'all'}-seed{run.seed}{named}.jsonl",
            eval=folder / f"eval-{size}.jsonl",
            more_eval={name: folder / f"eval-{file_name(name)}-{size}.jsonl" for name in others},
            validation=folder / "validation.jsonl" if "validation" in data.spec and not decoded else None,
        )

    def _eval_size(self, run: Run) -> int | None:
        sizes = [self.study.eval_size, self.study.cot_eval_size if run.setting == "cot_decoding" else None]
        return min((it for it in sizes if it is not None), default=None)

    def _train(self, run: Run, tables: _Tables, path: Path) -> int:
        size = len(tables.train) if run.train_size is None else min(run.train_size, len(tables.train))
        if run.train_size is not None and size < run.train_size and (run.data, run.train_size) not in self._told:
            self._told.add((run.data, run.train_size))
            said = f"{run.data} has {size} training rows, not the {run.train_size} that were asked for: all are used"
            self.say(said)
        if path not in self._written:
            from ..data.ablations import ablate

            kind = ablation_of(run.setting)
            rows = tables.train.select(train_rows(len(tables.train), size, run.seed))
            if tables.columns["rationale_column"] in rows.column_names:
                rows = ablate(rows, kind, run.seed, **tables.columns)
            elif kind != "consistent":
                said = f"{run.data} has no rationales, which {run.setting} would change: name them in data"
                raise ValueError(said)
            self._write(path, rows)
        return size

    def _write(self, path: Path, rows: datasets.Dataset) -> None:
        """Write rows, or see that those of an earlier call are the same: runs are compared row by row."""
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

    def _read(self, data: DataSet) -> _Tables:
        from ..data.joining import join_rationales
        from ..data.labels import read_labels
        from ..data.tables import check_columns, load_table

        spec = data.spec
        columns = {name: spec.get(name, name.removesuffix("_column")) for name in ("label_column", "rationale_column")}
        label_column, rationale_column = columns.values()
        if "superglue" in spec:
            tables, rationales = self._superglue(spec)
        else:
            rationales = None if "rationales" not in spec else self._path(spec["rationales"])
            sources = {"train": spec["train"], **data.eval_sets}
            sources |= {VALIDATION: spec["validation"]} if "validation" in spec else {}
            tables, of_groups = {}, spec.get("group_column")
            for name, source in sources.items():
                tables[name] = load_table(self._path(source))
                needed = [label_column, *([of_groups] if of_groups is not None and name == MAIN_SET else [])]
                try:
                    check_columns(tables[name].column_names, needed, [rationale_column])
                except ValueError as error:
                    raise ValueError(f"{source}: {error}") from None
            if rationales is not None:
                train = tables["train"]
                joined, counts = join_rationales(train.to_list(), rationales, **columns)
                self.say(f"{data.name}: {counts}")
                train = train.remove_columns([rationale_column] if rationale_column in train.column_names else [])
                tables["train"] = train.add_column(rationale_column, [row[rationale_column] for row in joined])
        options, found = {"drop_unlabelled": spec.get("drop_unlabelled", False), "say": self.say}, {}
        for name, table in tables.items():
            where = f"{data.name}, {name}"
            try:
                tables[name], found[name] = read_labels(
                    table, label_column, spec.get("problem_type"), where=where, **options
                )
            except ValueError as error:
                raise ValueError(f"{error} A study is of one label a row.") from None
            if found[name].problem_type != "single_label_classification":
                raise ValueError(f"{where}, is {found[name].problem_type}: a study is of one label a row.")
        found["train"].check(found[MAIN_SET], f"{data.name}, {MAIN_SET},", "train")
        train, dev = tables.pop("train"), tables.pop(MAIN_SET)
        if rationales is not None:
            said = [row for row, text in enumerate(train[rationale_column]) if str(text or "").strip()]
            if len(said) < len(train):
                without = f"{len(train) - len(said)} of {len(train)} training rows have no rationale"
                self.say(f"{data.name}: {without}: left out")
            train = train.select(said)
        if len(train) == 0:
            raise ValueError(f"{data.name} has no training rows with a rationale")
        # Each seed, size and setting draws its own rows of the tables, which are to be those of earlier runs.
        digests = {"train": train, "eval": dev, **{f"eval {name}": table for name, table in tables.items()}}
        digests = {name: digest(table.to_list()) for name, table in digests.items()}
        kept = self.folder / data.folder_name / "tables.json"
        if not kept.exists():
            write_whole(kept, strict_json(digests))
        elif json.loads(kept.read_text()) != digests:
            raise _changed(kept.parent)
        names = found["train"].names
        more = {name: _in_our_labels(data, name, table, label_column, names) for name, table in tables.items()}
        return _Tables(train, dev, more, self._groups(data, dev), names, columns)

    def _groups(self, data: DataSet, dev: datasets.Dataset) -> list[Any] | None:
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

    def _superglue(self, spec: dict[str, Any]) -> tuple[dict[str, datasets.Dataset], Any]:
        from ..data.superglue import load_superglue

        source = self._path(spec.get("source", "super_glue"))
        rationales = None if "rationales" not in spec else self._path(spec["rationales"])
        if (Path(source) / "superglue").is_dir():
            beside = Path(source) / "superglue_rationales"
            rationales = str(beside) if rationales is None and beside.is_dir() else rationales
            source = str(Path(source) / "superglue")
        train = load_superglue(spec["superglue"], "train", source, rationales)
        return {"train": train, MAIN_SET: load_superglue(spec["superglue"], "validation", source)}, rationales

    def _path(self, source: str) -> str:
        """A path of the YAML file, which is taken from its folder; a Hub name stays."""
        beside = self.study.folder / Path(source).expanduser()
        split_of = source.rpartition("@")[0]
        of_folder = bool(split_of) and (self.study.folder / split_of).is_dir()
        return str(beside) if beside.exists() or of_folder or "." in Path(source).name else source


def _in_our_labels(
    data: DataSet, name: str, table: datasets.Dataset, column: str, names: Sequence[str]
) -> datasets.Dataset:
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


def _changed(path: Path) -> ValueError:
    return ValueError(
        f"{path} has other rows than its data gives now, which has changed since runs were done on it: "
        "put the data back, or name another --output-dir"
    )


def train_rows(rows: int, size: int, seed: int) -> list[int]:
    """The first rows of a permutation that the seed draws: a smaller size is inside a larger one."""
    return np.random.default_rng(seed).permutation(rows)[:size].tolist()


def eval_rows(rows: int, groups: Sequence[Any] | None, size: int | None) -> list[int]:
    """The evaluation rows, always the same ones: whole groups, as many as fit, a smaller size inside a larger one."""
    of_row = np.arange(rows) if groups is None else np.array(numbered(groups))
    members = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    chosen: list[int] = []
    for group in np.random.default_rng(_EVAL_SEED).permutation(len(members)):
        if chosen and size is not None and len(chosen) + len(members[group]) > size:
            break
        chosen += members[group].tolist()
    return chosen


def numbered(groups: Iterable[Any]) -> list[int]:
    """Groups numbered from 0 in the order in which they come."""
    number: dict[Any, int] = {}
    return [number.setdefault(group, len(number)) for group in groups]
