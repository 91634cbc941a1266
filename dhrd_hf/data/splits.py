"""Rows held out of a training table where no others are there to evaluate on, and remembered beside the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_whole
from .prompts import input_columns, input_or_empty
from .tables import SPLIT_FILE, load_table
from .text_tables import TableError, reading

if TYPE_CHECKING:
    import datasets

DEFAULT_SPLIT = 0.2
LEAST_ROWS = 50  # of a table that is split unasked
_SEED = 0  # one for all: runs that differ in their seed are to be compared on the same rows
_BINS = 5  # of numbers to predict, whose quantiles are alike on both sides


def held_out(
    table: datasets.Dataset,
    share: float,
    prompt: str,
    label_column: str,
    group_column: str | None = None,
    regression: bool = False,
) -> np.ndarray:
    """The numbers of the rows to hold out: of each label about the same share, no text and no group on both sides."""
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    texts = text_digests(table, prompt)
    units = _units(texts, None if group_column is None else table[group_column][:])
    strata = _strata(table[label_column][:], regression)
    count = int(units.max()) + 1
    if group_column is not None:
        folds = max(2, round(1 / share))
        if count < folds:
            raise ValueError(
                f"--group-column {group_column}: the rows are {count} groups, too few to hold out {share:g} of them. Name other "
                "rows with --eval-data, or write --eval-split 0."
            )
        folded = StratifiedGroupKFold(folds, shuffle=True, random_state=_SEED)
        return np.sort(next(folded.split(strata, strata, units))[1])
    first = np.zeros(count, dtype=int)
    first[units[::-1]] = np.arange(len(units))[::-1]  # the first row of each text
    of_unit = strata[first]
    rare = np.bincount(of_unit)[of_unit] < 2  # what there is one of is trained on
    rows = np.flatnonzero(~rare)
    size = max(1, round(share * count))
    kinds = len(np.unique(of_unit[rows]))
    if len(rows) <= size:
        raise ValueError("Too few rows to hold some out: name others with --eval-data, or write --eval-split 0.")
    alike = of_unit[rows] if kinds <= min(size, len(rows) - size) else None  # else a label has no row on one side
    chosen = train_test_split(rows, test_size=size, random_state=_SEED, stratify=alike)[1]
    return np.flatnonzero(np.isin(units, chosen))


def text_digests(table: datasets.Dataset, prompt: str) -> np.ndarray:
    """A number for each row's text, equal where the texts are; read a part at a time."""
    found = np.empty(len(table), dtype=np.uint64)
    place = 0
    for part in table.select_columns(input_columns(prompt)).with_format(None).iter(batch_size=1000):
        for values in zip(*part.values(), strict=True):
            try:
                text = input_or_empty(prompt, dict(zip(part, values, strict=True)))
            except ValueError:  # said, with its row, where the rows are encoded
                text = ""
            found[place] = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            place += 1
    return found


def _units(texts: np.ndarray, groups: Sequence[Any] | None) -> np.ndarray:
    """The number of what is held out as one: the rows of one text, and with groups those that share a text or a group."""
    _, units = np.unique(texts, return_inverse=True)
    if groups is None:
        return units
    _, of_group = np.unique([str(it) for it in groups], return_inverse=True)
    return np.unique(joined(units, of_group), return_inverse=True)[1]


def joined(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The numbers of what belongs together: rows that share one of two numbers, over other rows too."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph with both kinds of numbers as nodes, and an edge a row.
    two = two + one.max() + 1
    graph = coo_array((np.ones(len(one)), (one, two)), shape=(two.max() + 1,) * 2)
    return connected_components(graph, directed=False)[1][one]


def _strata(cells: Sequence[Any], regression: bool) -> np.ndarray:
    """The number of what is to be alike on both sides: a row's label, its labels, or its number's place among all."""
    if regression:
        numbers = np.asarray([cell[0] if isinstance(cell, list) else cell for cell in cells], dtype=float)
        return np.searchsorted(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]), numbers)
    return np.unique([json.dumps(cell) for cell in cells], return_inverse=True)[1]


def split_note(table: datasets.Dataset, chosen: np.ndarray, where: str, group_column: str | None) -> str:
    groups = f", no group of {group_column!r} on both sides" if group_column else ""
    return (
        f"{len(chosen)} of {len(table)} rows of {where} are held out to evaluate on, of each label its share, no text on both "
        f"sides{groups}: --eval-data TABLE names other rows, --eval-split 0 trains on all"
    )


def write_split(
    folder: str | Path, source: str, encoding: str | None, table: datasets.Dataset, prompt: str, chosen: Sequence[int]
) -> None:
    """Remember beside a run which rows of its table it was not trained on."""
    where = Path(source).expanduser()
    kept = {
        "table": str(where.resolve()) if where.exists() else source,
        "encoding": encoding,
        "prompt": prompt,
        "digest": _digest(table, prompt),
        "eval": [int(it) for it in chosen],
    }
    write_whole(Path(folder) / SPLIT_FILE, json.dumps(kept) + "\n")


def open_split(folder: str | Path, part: str) -> datasets.Dataset:
    """The rows of a run's table that it was evaluated on, or trained on."""
    kept = json.loads((Path(folder) / SPLIT_FILE).read_text(encoding="utf-8"))
    if kept["encoding"] is not None:
        reading(kept["encoding"])
    table = load_table(kept["table"])
    if _digest(table, kept["prompt"]) != kept["digest"]:
        raise TableError(
            f"{kept['table']} has changed since {folder} was trained: its {part} rows are not known any more. Name a table."
        )
    if part == "eval":
        return table.select(kept["eval"])
    return table.select(np.setdiff1d(np.arange(len(table)), kept["eval"]))


def _digest(table: datasets.Dataset, prompt: str) -> str:
    return hashlib.blake2b(text_digests(table, prompt).tobytes(), digest_size=8).hexdigest()
