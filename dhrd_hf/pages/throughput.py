"""What `dhrd bench` measured, as a table of a report with its plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.verdict import wilson_interval
from ..figures import Plot, Point, Series
from . import ratio_text
from .study import DASH, Table, told

# Engines: what a reader calls them, and their kind in a plot.
_WAYS = {
    "torch": ("classification head", "dual_head"),
    "pipeline": ("exported, pipeline", "pipeline"),
    "onnx": ("exported, ONNX Runtime", "onnx"),
    "openvino": ("exported, OpenVINO", "openvino"),
    "cot": ("CoT decoding", "cot_decoding"),
}


def read_throughput(path: str | Path) -> dict[str, Any]:
    path = Path(path).expanduser()
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): name what dhrd bench --output wrote") from None
    its = found.get("rows") if isinstance(found, dict) else None
    needed = {"engine", "batch_size", "samples_per_second", "low", "high", "rows"}
    if not isinstance(its, list) or not its or not all(isinstance(it, dict) and needed <= it.keys() for it in its):
        raise ValueError(f"{path} holds no measured throughput: name what dhrd bench --output wrote")
    return found


def throughput_table(measured: Mapping[str, Any]) -> Table:
    """The rows in the order of the first, and of each way the fastest batch size in the plot."""
    order = measured["rows"][0].get("sorted")
    its = [it for it in measured["rows"] if it.get("sorted") == order]
    rows, fastest, runs, whole = [], {}, {}, {}
    for it in its:
        way, accuracy = _way(it)[0], _accuracy(it)
        speeds = [it[name] for name in ("samples_per_second", "low", "high")]
        speed, low, high = (f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" for speed in speeds)
        said = DASH if accuracy is None else f"{accuracy.value:.1f} [{accuracy.low:.1f}, {accuracy.high:.1f}]"
        rows.append([way, str(it["batch_size"]), f"{speed} ({low} to {high})", _ratio(it), said, f"{it['rows']:,}"])
        fastest[it["engine"]] = max(fastest.get(it["engine"], it), it, key=lambda one: one["samples_per_second"])
        if it.get("dtype"):
            runs.setdefault(f"{it['dtype']} on {it.get('device')}, {it.get('threads')} threads", {})[way] = None
        if it.get("tokenization") == "included":
            whole[way] = None
    rounds = f"medians of {measured.get('rounds')} rounds (slowest to fastest)"
    how = "sorted by length" if order else "as given"
    notes = [f"{measured.get('model')} on {measured.get('data')}; {rounds}, rows {how}."]
    if len(runs) == 1:
        notes.append(f"All in {next(iter(runs))}.")
    elif runs:
        notes.append("; ".join(f"{', '.join(names)}: {where}" for where, names in runs.items()) + ".")
    if not measured.get("complete", True):
        notes.append(f"It was interrupted: {measured.get('repeats')} rounds were asked for.")
    decoded = fastest.get("cot", {})
    if decoded.get("new_tokens_per_row") is not None:
        unreadable = f"{decoded['unreadable']} of {decoded['rows']} answers held no label"
        notes.append(f"CoT decoding wrote {decoded['new_tokens_per_row']:.0f} tokens a row; {unreadable}.")
    sizes = dict.fromkeys(str(it["rows"]) for it in its)
    if any(it.get("accuracy") is not None for it in its):
        said = f"Accuracy is of the first {' or '.join(sizes)} rows{': compare intervals, not numbers' * (len(sizes) > 1)}"
        notes.append(f"{said}. These are of single rows, and too narrow where rows belong together.")
    notes += told("Tokenisation is part of {}, and apart from the others.", whole)
    notes += told("Machine: {}.", [measured.get("machine")])
    series = [Series(*_way(it), [point]) for it in fastest.values() if (point := _accuracy(it))]
    title = "Accuracy against speed, each way with its fastest batch size"
    drawn = [Plot("scatter", title, "accuracy, %", series, "queries a second (log scale)")] if series else []
    columns = ["way", "batch size", "queries a second", "speed / head", "accuracy, % [95%]", "rows"]
    return Table("throughput", "Throughput", columns, rows, notes, drawn)


def _way(it: Mapping[str, Any]) -> tuple[str, str]:
    return _WAYS.get(it["engine"], (it["engine"], "other"))


def _ratio(it: Mapping[str, Any]) -> str:
    if it.get("ratio") is None or it["engine"] == "torch":
        return DASH
    its = [it[name] for name in ("ratio", "ratio_low", "ratio_high")]
    middle, low, high = (ratio_text(value, beside=its[0]) for value in its)
    return f"{middle} ({low} to {high})"


def _accuracy(it: Mapping[str, Any]) -> Point | None:
    """Accuracy in percent with Wilson's interval, at its speed."""
    if it.get("accuracy") is None:
        return None
    right = wilson_interval(np.arange(it["rows"]) < round(it["accuracy"] * it["rows"]))
    values = (100 * right[end] for end in ("value", "low", "high"))
    return Point(f"batches of {it['batch_size']}", *values, x=it["samples_per_second"])
