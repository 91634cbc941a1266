"""The tables of a report that look past its own score: all scores, further sets, what could be seen, and what it costs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.verdict import wilson_interval
from ..figures import Plot, Point, Series
from ..pages import ratio_text
from .metrics import SCORES, seeds_for, sign_test, visible_gain
from .statistics import Gain, Pair, difference, gain_of, has_logits, noise_of
from .table import Row
from .tables import DASH, Table, gain_text, plots, point, told

_SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1", "log_loss": "less log loss"}
_SCORES |= {"scaled_log_loss": "less log loss, scaled", "brier": "less Brier score"}
_SCORES |= {"auroc": "AUROC", "accuracy_at_80": "accuracy at 80% coverage"}
_TRANSFER = SCORES[:4]
_POINTS = 2  # the gain that the power is told of
# Engines of `dhrd bench`: what a reader calls them, and their kind in a plot.
_WAYS = {
    "torch": ("classification head", "dual_head"),
    "pipeline": ("exported, pipeline", "pipeline"),
    "onnx": ("exported, ONNX Runtime", "onnx"),
    "openvino": ("exported, OpenVINO", "openvino"),
    "cot": ("CoT decoding", "cot_decoding"),
}


def scores_table(main: Sequence[Pair], apart: Sequence[Pair] = ()) -> Table:
    """The gain by every score that the runs have, and how often one would have come from chance alone."""
    lines, problems, drawn = _with_mean(main, apart), {}, []
    columns = {"data": [*(name for name, _, _ in lines), "p, signs of all pairs"]}
    columns["seeds"] = [*(f"{seeds or ''}" for _, _, seeds in lines), ""]
    for metric, name in _SCORES.items():
        gains = [_gain(pairs, metric, problems) for _, pairs, _ in lines]
        if not any(gains):
            continue
        pairs = [difference(*it.sides(metric), metric).mean(1) for it in main] if all(gains[: len(main)]) else []
        columns[f"{name} [95%]"] = [*map(gain_text, gains), _p(pairs) if pairs else DASH]
        if metric.endswith("log_loss"):
            its = [(it, gain) for it, gain in zip(lines, gains, strict=True) if gain]
            points = [point(name, it, seeds=seeds, kind=None if seeds else "mean") for (name, _, seeds), it in its]
            title = f"{name.capitalize()}, by data set"
            drawn += plots("forest", title, "nats less than pooled", {"dual_head": points}, signed=True)
    notes = ["Gains of the dual head over pooled: accuracy and macro F1 in points; of losses how much less there is."]
    test = "a permutation test, two-sided."
    notes.append(f"p is that of the mean gain if either sign of every pair of runs were as likely: {test}")
    if f"{_SCORES['scaled_log_loss']} [95%]" in columns:
        notes.append("Scaled: each half of the test items at the temperature that is best on the other half.")
    whole = [*main, *apart]
    lacking = {it: sum(not has_logits(row) for row in it.runs) for it in whole}
    notes += [f"Not read: {problem}." for problem in problems]
    if not any(_gain([it], "brier", problems) for it in whole):
        without, runs = sum(lacking.values()), sum(len(it.runs) for it in whole)
        who = ["These runs" if without == runs else f"{without} of these {runs} runs"] if without else []
        notes += told("{} kept no logits, which the other scores (log loss, Brier, AUROC) are of.", who)
        notes += _losses_note(main)
    else:
        parts = {it: f" ({lacking[it]} of {len(it.runs)})" * (lacking[it] < len(it.runs)) for it in whole}
        names = [f"{it.data}{parts[it]}" for it in whole if lacking[it]]
        notes += told("Runs without logits, which the other scores are of: {}.", names)
    rows, place = [list(row) for row in zip(*columns.values(), strict=True)], len(main) if len(main) > 1 else None
    return Table("scores", "All scores", [*columns], rows, notes, drawn, mean=place)


def transfer_table(main: Sequence[Pair]) -> Table:
    """The same runs on further evaluation sets, which they were not trained for."""
    rows, points = [], []
    for it in main:
        for name in dict.fromkeys(name for row in it.group.rows for name in row.get("eval_sets") or {}):
            gains = {metric: _gain([it], metric, {}, name) for metric in _TRANSFER}
            first = gains["accuracy"]
            if first:
                scores = [f"{100 * value:.1f}" for value in (first.baseline_score, first.score)]
                rows.append([it.data, name, str(it.n_seeds), f"{first.n_items:,}", *scores])
                rows[-1] += map(gain_text, gains.values())
                points.append(point(f"{it.data}: {name}", first, seeds=it.n_seeds))
    columns = ["data", "tested on", "seeds", "rows", "pooled, %", "dual head, %"]
    columns += [f"{_SCORES[metric]} [95%]" for metric in _TRANSFER]
    title, label = "Gain on further evaluation sets", "accuracy, points over pooled"
    drawn = plots("forest", title, label, {"dual_head": points}, signed=True)
    notes = ["The runs of the first table on other evaluation sets; gains as there."]
    return Table("transfer", "Transfer", columns, rows, notes, drawn)


def power_table(main: Sequence[Pair]) -> Table:
    """How small a gain this study could see, and how many seeds would see two points."""
    rows, needed = [], None
    for name, pairs, seeds in _with_mean([it for it in main if it.gain.n_items > 1]):
        noise = noise_of(pairs)
        if noise.several.any():
            needed = seeds_for(noise, _POINTS)
            rows.append([name, f"{seeds or ''}", f"{visible_gain(noise):.1f}", str(needed or "more test items")])
    said = f"about {needed} seeds" if needed else "more test items: no number of seeds would do"
    what = main[0].data if len(main) == 1 else "the mean"
    notes = [f"To see a gain of {_POINTS} points on {what} you need {said}."]
    notes.append("Seen: in 80 of 100 such studies the 95% interval lies above 0. Both are estimates from few seeds.")
    columns = ["data", "seeds", "least gain seen, points", f"seeds for {_POINTS} points"]
    place = len(rows) - 1 if len(main) > 1 else None
    return Table("power", "What this study could see", columns, rows, notes, mean=place)


def _with_mean(main: Sequence[Pair], apart: Sequence[Pair] = ()) -> list[tuple[str, list[Pair], int | None]]:
    """Data sets, and the mean of those that are in it: a name, pairs, and the number of seeds, of the mean none."""
    found: list[tuple[str, list[Pair], int | None]] = [(it.data, [it], it.n_seeds) for it in (*main, *apart)]
    if len(main) > 1:
        found.insert(len(main), (f"mean of {len(main)}", list(main), None))
    return found


def _gain(pairs: Sequence[Pair], metric: str, problems: dict[str, None], of: str = "eval") -> Gain | None:
    """None where it can't be measured; a problem is told."""
    try:
        found = gain_of(pairs, metric, of)
    except ValueError as error:
        problems[str(error)] = None
        return None
    return found if found and math.isfinite(found.gain) else None


def _p(differences: Sequence[np.ndarray]) -> str:
    value = sign_test(differences)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _losses_note(main: Sequence[Pair]) -> list[str]:
    less = []
    for it in main:
        losses = [(row.get("metrics") or {}).get("classification_loss") for row in it.runs]
        ours, theirs = np.array(losses, dtype=float).reshape(2, -1)
        less.append(theirs - ours)
    pairs = np.concatenate(less)
    if not np.isfinite(pairs).all():
        return []
    mean = np.mean([it.mean() for it in less])
    return [
        f"Their classification loss is lower with the dual head in {(pairs > 0).sum()} of {len(pairs)} pairs, in the mean by "
        f"{mean:.3f} (p {_p(less)}); part of that may be being less sure, which logits would tell."
    ]


# Costs


def training_table(main: Sequence[Pair]) -> Table:
    """What a training with the reasoning head takes beside the pooled one, on the same rows and machine."""
    rows, left_out = [], 0
    for it in main:
        pairs = _with("train_seconds", zip(it.base.rows, it.group.rows, strict=True))
        timed = [pair for pair in pairs if not any(run.get("resumed") for run in pair)]
        left_out += len(pairs) - len(timed)
        if timed:
            rows.append([it.data, str(len(timed))])
            for name in ("train_seconds", "peak_memory_mb"):
                sides = np.array([[run[name] for run in pair] for pair in _with(name, timed)])
                if not sides.size:
                    rows[-1] += [DASH] * 3
                    continue
                ratios = sides[:, 1] / sides[:, 0]
                spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
                rows[-1] += [f"{it:,.0f}" for it in sides.mean(0)] + [f"{np.median(ratios):.2f}{spread}"]
    columns = ["data", "seeds", "pooled, s", "dual head, s", "ratio", "pooled, MB", "dual head, MB", "ratio"]
    notes = [
        "Training time, and peak memory of the whole process with its evaluation: means over seeds, of the ratios the "
        "median (lowest to highest). Inference is the same: the reasoning head is not part of it."
    ]
    if left_out:
        notes.append(f"Pairs left out because a run was resumed, of which the last part alone was timed: {left_out}.")
    return Table("training", "What training costs", columns, rows, notes)


def _with(name: str, pairs: Iterable[Sequence[Row]]) -> list[Sequence[Row]]:
    return [pair for pair in pairs if all(run.get(name) for run in pair)]


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
    order = measured["rows"][0].get("sorted")
    its = [it for it in measured["rows"] if it.get("sorted") == order]
    rows, fastest, runs, whole = [], {}, {}, {}
    for it in its:
        way = _way(it)[0]
        speeds = [it[name] for name in ("samples_per_second", "low", "high")]
        speeds = [f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" for speed in speeds]
        accuracy = _accuracy(it)
        said = DASH if accuracy is None else f"{accuracy.value:.1f} [{accuracy.low:.1f}, {accuracy.high:.1f}]"
        speed = f"{speeds[0]} ({speeds[1]} to {speeds[2]})"
        rows.append([way, str(it["batch_size"]), speed, _ratio(it), said, f"{it['rows']:,}"])
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
    notes += told("Tokenisation is part of {}, and apart from the others.", [*whole])
    notes += [f"Machine: {measured['machine']}."] if measured.get("machine") else []
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
