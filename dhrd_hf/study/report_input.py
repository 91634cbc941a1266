"""What a report is made of, read from files: tables of results, and a measurement of throughput."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .metrics import GROUPED, METRICS, score

_OF_EVERY_ROW = ("study", "cell", "status", "model", "data", "setting", "seed")
_OF_DONE_ROWS = ("metric", "score", "labels", "predictions", "groups", "train_rows")


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


def read_throughput(path: str | Path) -> dict[str, Any]:
    """A measurement of `dhrd bench throughput`."""
    path = Path(path).expanduser()
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): name what dhrd bench throughput --output wrote") from None
    its = found.get("rows") if isinstance(found, dict) else None
    needed = {"engine", "batch_size", "samples_per_second", "low", "high", "rows"}
    if not isinstance(its, list) or not its or not all(isinstance(it, dict) and needed <= it.keys() for it in its):
        raise ValueError(f"{path} holds no measured throughput: name what dhrd bench throughput --output wrote")
    return found


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
            # A cell that is being written, or was when its process was killed.
            if number == lines[-1][0] and not data.endswith(b"\n"):
                say(f"{path}: its last line is only half there and is left out.")
                continue
            raise ValueError(f"{path}, line {number} is not a row of a study: {error}") from None
        done = isinstance(row, dict) and row.get("status") == "done"
        missing = [
            name for name in _OF_EVERY_ROW + _OF_DONE_ROWS * done if not isinstance(row, dict) or name not in row
        ]
        if missing:
            raise ValueError(f"{path}, line {number} is not a row of a study: it lacks {', '.join(missing)}")
        wrong = _wrong(row)
        if wrong is not None:
            raise ValueError(f"{path}, line {number} (cell {row['cell']}) {wrong}: it is not what dhrd study wrote")
        rows.append(row)
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
