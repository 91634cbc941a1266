"""A pilot: a small study of one's own rows, which `verdict` ends."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..data.joining import KEY_COLUMNS, join_rationales
from ..data.prompts import rationale_text
from ..data.table_writing import write_rows
from ..data.tables import load_table
from ..files import write_whole
from .data import keep_digests, single_labels
from .plan import Study, study_of
from .results import read_results, together
from .run import runs_folder

_MOST_TEST, _MOST_VALIDATION, _LEAST = 2000, 300, 20  # rows
_STEPS = 6  # that the first estimate is made of


@dataclass(frozen=True)
class Plan:
    """The runs of a pilot: written as a study's file, and run as any study."""

    folder: Path
    model: str
    train: dict[str, Any]
    columns: dict[str, str]
    rows: int
    more_rows: int | None  # None: there are too few labelled rows, and the curve is of half of the rows
    epochs: int
    equal_epochs: int | None = None

    @property
    def sides(self) -> dict[str, dict[str, Any]]:
        """What is run for each seed, by data set, setting, number of training rows and epochs."""

        def side(setting: str, epochs: int = self.epochs, data: str = "rows", size: int | None = None) -> dict:
            return {"setting": setting, "num_train_epochs": epochs, "data": data, "train_size": size}

        sides = {"rationales": side("dual_head"), "pooled": side("pooled"), "shuffled": side("shuffled_rationale")}
        if self.equal_epochs is not None:
            sides["equal_seconds"] = side("pooled", self.equal_epochs)
        if self.more_rows is not None:
            return sides | {"more": side("pooled", data="more-rows")}
        half = self.rows // 2
        return sides | {"half_rationales": side("dual_head", size=half), "half": side("pooled", size=half)}

    def study(self, seeds: int, only: Sequence[str] = ()) -> Study:
        """Write the study's file, whole or not at all, and read it."""
        sides = [its for side, its in self.sides.items() if not only or side in only]
        blocks = [{"seed": seed, **its} for seed in range(seeds) for its in sides]  # each seed whole before the next
        return self._written(self.folder, blocks, "validation")

    def timing(self) -> Study:
        """A study of a few steps of both objectives, which the first estimate is made of."""
        of_timing = {"max_steps": _STEPS, "data": "rows", "seed": 0}
        return self._written(self.folder / "timing", [{**of_timing, "setting": ["dual_head", "pooled"]}])

    def _written(self, folder: Path, blocks: list[dict[str, Any]], *parts: str) -> Study:
        beside = os.path.relpath(self.folder / "tables", folder)
        tables = {part: Path(beside, f"{part}.jsonl").as_posix() for part in ("train", "test", "more", "validation")}
        spec = {"eval": tables["test"], **{part: tables[part] for part in parts}, **self.columns}
        data = {"rows": {"train": tables["train"], **spec}}
        data |= {"more-rows": {"train": tables["more"], **spec}} if self.more_rows is not None else {}
        content = {"name": "pilot", "model": self.model, "data": data, "train": self.train, "grid": blocks}
        found = study_of(content, "dhrd pilot", folder)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
        write_whole(folder / "study.yaml", text)
        return found

    def two(self, study: Study, folder: Path) -> list[Mapping[str, Any]]:
        """The rows of rationales and of the pooled side with the first seed, which times are read from."""
        rows = {row["cell"]: row for row in read_results([folder / "results.jsonl"])}
        found = [rows[run.id] for run in study.runs if run.seed == 0]
        for row in (row for row in found if row["status"] != "done"):
            where = runs_folder(folder) / row["cell"] / "log.txt"
            raise ValueError(f"{row['setting']} failed: {row['error']} (see {where})")
        return found

    def seconds(self, rationales: Mapping[str, Any], pooled: Mapping[str, Any]) -> dict[str, float]:
        """How long each side takes with one seed, from a row of each of two settings."""

        def of(its: Mapping[str, Any]) -> float:
            row = pooled if its["setting"] == "pooled" else rationales
            size = self.more_rows if its["data"] == "more-rows" else its["train_size"] or self.rows
            of_epoch = size / row["train_samples_per_second"]
            return row["seconds"] - row["train_seconds"] + its["num_train_epochs"] * of_epoch

        return {side: of(its) for side, its in self.sides.items()}

    def with_equal_epochs(self, rationales: Mapping[str, Any], pooled: Mapping[str, Any]) -> Plan:
        """With the epochs that the pooled side does while rationales do theirs, by a row of each."""
        ratio = pooled["train_samples_per_second"] / rationales["train_samples_per_second"]
        return replace(self, equal_epochs=max(self.epochs, math.ceil(self.epochs * ratio - 1e-9)))

    def by_side(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
        """The done rows of a table by side and seed."""
        found: dict[str, dict[int, Mapping[str, Any]]] = {side: {} for side in self.sides}
        for row in rows:
            told = {"num_train_epochs": row["options"].get("num_train_epochs"), **row}
            for side, its in self.sides.items() if row["status"] == "done" else ():
                if all(told[name] == value for name, value in its.items()):
                    found[side][row["seed"]] = row
        return found


def write_tables(
    folder: Path,
    source: str,
    rationales: str | None,
    eval_source: str | None,
    columns: Mapping[str, str],
    drop_unlabelled: bool,
    say: Callable[[str], None],
) -> tuple[int, int | None]:
    """Write the rows to train on, to choose the best epoch by and to test on, and the first with other labelled ones; how many to train on."""
    label, rationale = columns["label_column"], columns["rationale_column"]

    def read(source: str) -> list[dict[str, Any]]:
        return single_labels(load_table(source), label, source, drop_unlabelled, say)[0].to_list()

    rows = read(source)
    if rationales is not None:
        rows, counts = join_rationales(rows, rationales, rationale_column=rationale, label_column=label)
        say(f"{rationales}: {counts}")
    has = [rationale_text(row.get(rationale)) is not None for row in rows]
    # Rows of a group, or alike in all but these, are on one side.
    apart = (label, rationale, *KEY_COLUMNS)
    alike = [row.get("group") or {name: it for name, it in row.items() if name not in apart} for row in rows]
    members = together(range(len(rows)), lambda row: json.dumps(alike[row], default=str))
    drawn = [members[number] for number in np.random.default_rng(0).permutation(len(members))]
    sizes = {"test": min(_MOST_TEST, int(0.3 * len(rows)))} if eval_source is None else {}
    sizes["validation"] = min(_MOST_VALIDATION, max(_LEAST, int(0.15 * sum(has))))
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "more": [], "validation": []}
    parts["test"] = [] if eval_source is None else read(eval_source)
    # To test and to choose by first those without a rationale: the others are dear.
    for places in sorted(drawn, key=lambda places: any(has[place] for place in places)):
        part = next((name for name, size in sizes.items() if len(parts[name]) < size), None)
        for place in places:
            parts[part or ("train" if has[place] else "more")].append(rows[place])
    number = len(parts["train"])
    for name in ("train", "test"):
        if len(parts[name]) < _LEAST:
            raise ValueError(
                f"{source} has {len(rows)} rows, {sum(has)} of them with a rationale, which leaves {len(parts[name])} to "
                f"{name} on, and {_LEAST} are the least: a hundred rationales do to start; --eval-data names rows to test on"
            )
    known = {row[label] for row in parts["train"]}
    for name in ("test", "validation"):
        if strange := sorted({row[label] for row in parts[name]} - known):
            said = f"no row to train on with a rationale has the label {strange[0]!r}, which {name} rows have"
            raise ValueError(said)
        parts[name] = [{column: it for column, it in row.items() if column != rationale} for row in parts[name]]
    others = parts["more"][:number]
    more = number + len(others) if len(others) >= number / 4 else None
    parts["more"] = parts["train"] + others
    keep_digests(folder / "tables" / "digests.json", parts)
    for name, its in parts.items():
        write_rows(folder / "tables" / f"{name}.jsonl", its)
    say(
        f"{number} rows with a rationale to train on, {len(parts['validation'])} to choose the best epoch by, "
        f"{len(parts['test'])} to test on; pooled also on {more or number // 2} rows"
    )
    return number, more


def price_of(*tables: str | None) -> float | None:
    """What a rationale cost, by the manifest that `dhrd rationales generate` leaves beside its file."""
    for table in filter(None, tables):
        try:
            manifest = json.loads(Path(table).expanduser().with_suffix(".manifest.json").read_text(encoding="utf-8"))
            cost, number = manifest["usage"]["cost"], manifest["counts"]["accepted"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if cost and number:
            return cost / number
    return None
