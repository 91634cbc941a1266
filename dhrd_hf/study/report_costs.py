"""The tables of a report that say what the dual head costs in training, and what it saves against decoding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ..figures import Plot, Point, Series
from .comparisons import Comparison
from .intervals import CONFIDENCE
from .report_tables import DASH, Table

# Engines of `dhrd bench`: what a reader calls them, and their kind in a plot.
_WAYS = {
    "torch": ("classification head", "dual_head"),
    "pipeline": ("exported, pipeline", "pipeline"),
    "onnx": ("exported, ONNX Runtime", "onnx"),
    "openvino": ("exported, OpenVINO", "openvino"),
    "cot": ("CoT decoding", "cot_decoding"),
}


def read_throughput(path: str | Path) -> dict[str, Any]:
    """A measurement of `dhrd bench`."""
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


def training_table(main: Sequence[Comparison]) -> Table | None:
    """What a training with the reasoning head takes beside the pooled one, on the same rows and machine."""
    rows, left_out = [], 0
    for it in main:
        pairs = list(zip(it.base.rows, it.group.rows, strict=True))
        pairs = [pair for pair in pairs if all(cell.get("train_seconds") for cell in pair)]
        timed = [pair for pair in pairs if not any(cell.get("resumed") for cell in pair)]
        left_out += len(pairs) - len(timed)
        if timed:
            measured = [pair for pair in timed if all(cell.get("peak_memory_mb") for cell in pair)]
            rows.append(
                [it.data, str(len(timed)), *_sides(timed, "train_seconds"), *_sides(measured, "peak_memory_mb")]
            )
    if not rows:
        return None
    columns = ["data", "seeds", "pooled, s", "dual head, s", "ratio", "pooled, MB", "dual head, MB", "ratio"]
    notes = [
        "Training time, and peak memory of the whole process with its evaluation: means over seeds, of the ratios the "
        "median (lowest to highest). Inference is the same: the reasoning head is not part of it."
    ]
    if left_out:
        notes.append(f"Pairs left out because a run was resumed, of which the last part alone was timed: {left_out}.")
    return Table("training", "What training costs", columns, rows, notes)


def _sides(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], name: str) -> list[str]:
    if not pairs:
        return [DASH] * 3
    pooled, dual = ([pair[place][name] for pair in pairs] for place in (0, 1))
    ratios = [ours / theirs for ours, theirs in zip(dual, pooled, strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return [f"{fmean(pooled):,.0f}", f"{fmean(dual):,.0f}", f"{median(ratios):.2f}{spread}"]


def throughput_table(measured: Mapping[str, Any]) -> Table:
    """Queries a second of the ways to run a classifier."""
    order = measured["rows"][0].get("sorted")
    shown = [it for it in measured["rows"] if it.get("sorted") == order]
    rows = []
    fastest: dict[str, Mapping[str, Any]] = {}
    for it in shown:
        name, _ = _WAYS.get(it["engine"], (it["engine"], ""))
        speed = f"{_speed(it['samples_per_second'])} ({_speed(it['low'])} to {_speed(it['high'])})"
        accuracy = _accuracy(it)
        said = DASH if accuracy is None else f"{accuracy.value:.1f} [{accuracy.low:.1f}, {accuracy.high:.1f}]"
        rows.append([name, str(it["batch_size"]), speed, _ratio(it), said, f"{it['rows']:,}"])
        best = fastest.setdefault(it["engine"], it)
        fastest[it["engine"]] = max(best, it, key=lambda one: one["samples_per_second"])
    series = [
        Series(*_WAYS.get(engine, (engine, "other")), [point])
        for engine, it in fastest.items()
        if (point := _accuracy(it)) is not None
    ]
    title = "Accuracy against speed, each way with its fastest batch size"
    plots = [Plot("scatter", title, "accuracy, %", series, "queries a second (log scale)")] if series else []
    columns = ["way", "batch size", "queries a second", "speed / head", "accuracy, % [95%]", "rows"]
    return Table("throughput", "Throughput", columns, rows, _notes(measured, shown, fastest.get("cot")), plots)


def _notes(
    measured: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], decoded: Mapping[str, Any] | None
) -> list[str]:
    rounds = f"medians of {measured.get('rounds')} rounds (slowest to fastest)"
    how = "sorted by length" if shown[0].get("sorted") else "as given"
    notes = [f"{measured.get('model')} on {measured.get('data')}; {rounds}, rows {how}."]
    runs: dict[str, dict[str, None]] = {}
    for it in shown:
        if it.get("dtype"):
            where = f"{it['dtype']} on {it.get('device')}, {it.get('threads')} threads"
            runs.setdefault(where, {})[_WAYS.get(it["engine"], (it["engine"],))[0]] = None
    if len(runs) == 1:
        notes.append(f"All in {next(iter(runs))}.")
    elif runs:
        notes.append("; ".join(f"{', '.join(names)}: {where}" for where, names in runs.items()) + ".")
    if not measured.get("complete", True):
        notes.append(f"It was interrupted: {measured.get('repeats')} rounds were asked for.")
    if decoded and decoded.get("new_tokens_per_row") is not None:
        unreadable = f"{decoded['unreadable']} of {decoded['rows']} answers held no label"
        notes.append(f"CoT decoding wrote {decoded['new_tokens_per_row']:.0f} tokens a row; {unreadable}.")
    sizes = list(dict.fromkeys(it["rows"] for it in shown))
    if any(it.get("accuracy") is not None for it in shown):
        said = f"Accuracy is of the first {' or '.join(map(str, sizes))} rows"
        said += ": compare intervals, not numbers" if len(sizes) > 1 else ""
        notes.append(f"{said}. These are of single rows, and too narrow where rows belong together.")
    whole = [_WAYS.get(it["engine"], (it["engine"],))[0] for it in shown if it.get("tokenization") == "included"]
    if whole:
        notes.append(f"Tokenisation is part of {', '.join(dict.fromkeys(whole))}, and apart from the others.")
    return [*notes, *([f"Machine: {measured['machine']}."] if measured.get("machine") else [])]


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(it: Mapping[str, Any]) -> str:
    if it.get("ratio") is None or it["engine"] == "torch":
        return DASH
    middle, low, high = (it[name] for name in ("ratio", "ratio_low", "ratio_high"))
    if middle < 0.1:  # 1/96 is read more easily than 0.0104
        return f"1/{1 / middle:.0f} (1/{1 / low:.0f} to 1/{1 / high:.0f})"
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _accuracy(it: Mapping[str, Any]) -> Point | None:
    """Accuracy in percent with Wilson's interval, at its speed."""
    from scipy.stats import binomtest

    if it.get("accuracy") is None:
        return None
    found = binomtest(round(it["accuracy"] * it["rows"]), it["rows"]).proportion_ci(CONFIDENCE, method="wilson")
    name = f"batches of {it['batch_size']}"
    return Point(name, 100 * it["accuracy"], 100 * found.low, 100 * found.high, x=it["samples_per_second"])
