"""The logits of evaluated rows in a Parquet file: `dhrd train --logits` writes it, and a study keeps one of each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import written_whole

Logits = dict[str, tuple[np.ndarray, np.ndarray]]  # label ids `[rows]` and logits `[rows, K]` of each evaluation set
_COLUMNS = {"set": pa.string(), "row": pa.int32(), "label": pa.int32(), "logits": pa.list_(pa.float32())}


def write_logits(path: str | Path, names: Sequence[str], sets: Mapping[str, tuple[Any, Any]]) -> None:
    """Write label ids and logits, with the labels' names in the metadata, whole or not at all."""
    schema = pa.schema(_COLUMNS, {"labels": json.dumps(list(names))})
    tables = [
        pa.table([[name] * len(labels), range(len(labels)), list(labels), logits.tolist()], schema=schema)
        for name, (labels, logits) in sets.items()
    ]
    with written_whole(path) as unfinished:
        pq.write_table(pa.concat_tables(tables), unfinished)


def read_logits(path: str | Path, names: Sequence[str] | None = None) -> Logits:
    """The logits of each set, a column a label in the order of the file, or of `names`: -inf of one that is not in it."""
    table = pq.read_table(path, columns=list(_COLUMNS))
    found = {}
    for name, its in table.to_pandas().sort_values("row").groupby("set", sort=False):
        found[str(name)] = its["label"].to_numpy(), np.stack(its["logits"].to_list()).astype(float)
    if names is None:
        return found
    theirs = json.loads(table.schema.metadata[b"labels"])
    if unknown := [name for name in theirs if name not in names]:
        raise ValueError(f"its model has a label {unknown[0]!r}, and the data have {', '.join(names)}")
    ids = np.array([names.index(name) for name in theirs])
    for name, (labels, logits) in found.items():
        ours = np.full((len(labels), len(names)), -np.inf)
        ours[:, ids] = logits
        found[name] = ids[labels], ours
    return found
