"""The logits of a run's evaluation rows: read as `dhrd train` wrote them, kept with the study's ids, and scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import written_whole
from .metrics import score
from .plan import MAIN_SET

if TYPE_CHECKING:
    import numpy as np

    from .data import RunRows


def read_logits(path: Path, rows: RunRows) -> dict[str, np.ndarray]:
    """The logits of each set, a column a label in the order of the study's ids; -inf of one that the run did not have."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = json.loads(table.schema.metadata[b"labels"])
    unknown = [name for name in names if name not in rows.names]
    if unknown:
        raise ValueError(f"its model has a label {unknown[0]!r}, and the data have {', '.join(rows.names)}")
    columns = [rows.names.index(name) for name in names]
    of_set = np.array(table["set"].to_pylist())
    given = np.array(table["logits"].to_pylist(), dtype=np.float32).reshape(len(of_set), -1)  # [rows, labels]
    labels = np.array([names[label] for label in table["label"].to_pylist()])
    found = {}
    for name, expected in _labels(rows).items():
        there = of_set == name
        if labels[there].tolist() != expected:
            raise ValueError(f"its {there.sum()} logits are not those of the {len(expected)} rows of {name!r}")
        found[name] = np.full((len(expected), len(rows.names)), -np.inf, dtype=np.float32)
        found[name][:, columns] = given[there]
        if np.isnan(found[name]).any():
            raise ValueError(f"its logits of {name!r} are no numbers: the training has diverged")
    return found


def keep_logits(run: str, folder: Path, logits: Mapping[str, np.ndarray], rows: RunRows) -> str:
    """Write a run's logits as a Parquet file beside the table, whole or not at all; its name as seen from there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = {name: place for place, name in enumerate(rows.names)}
    labels = _labels(rows)
    columns = {
        "set": pa.array([name for name in logits for _ in labels[name]], pa.string()),
        "row": pa.array([row for name in logits for row in range(len(labels[name]))], pa.int32()),
        "label": pa.array([ids[label] for name in logits for label in labels[name]], pa.int32()),
        "logits": pa.array([row.tolist() for of_set in logits.values() for row in of_set], pa.list_(pa.float32())),
    }
    with written_whole(folder / "logits" / f"{run}.parquet") as unfinished:
        pq.write_table(pa.table(columns).replace_schema_metadata({"labels": json.dumps(rows.names)}), unfinished)
    return f"logits/{run}.parquet"


def eval_sets(logits: Mapping[str, np.ndarray], rows: RunRows) -> dict[str, Any]:
    """Of each further evaluation set its number of rows and its metrics."""
    import numpy as np

    found = {}
    for name, said in rows.more_labels.items() if logits else ():
        labels = np.array([rows.names.index(label) for label in said])
        of_set = logits[name].astype(np.float64)
        predictions = of_set.argmax(1)
        best = of_set.max(1)
        log_total = best + np.log(np.exp(of_set - best[:, None]).sum(1))
        metrics = {part: score(part, labels, predictions) for part in ("accuracy", "macro_f1")}
        metrics["loss"] = float((log_total - of_set[np.arange(len(labels)), labels]).mean())
        found[name] = {"rows": len(labels), "metrics": metrics}
    return found


def _labels(rows: RunRows) -> dict[str, list[str]]:
    return {MAIN_SET: rows.labels, **rows.more_labels}
