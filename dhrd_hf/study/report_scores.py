"""The tables of a report that look past its own metric: all scores, further evaluation sets, and what the study could see."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..figures import Point
from .comparisons import Comparison
from .intervals import seeds_for, sign_test, visible_gain
from .metrics import OF_LOGITS, SCORES
from .report_tables import DASH, Table, forest, gain_text
from .statistics import Gain, Pair, difference, gain_of, noise_of

_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "log_loss": "less log loss",
    "scaled_log_loss": "less log loss, scaled",
    "brier": "less Brier score",
    "auroc": "AUROC",
}
_PLOTTED = ("log_loss", "scaled_log_loss")
_TRANSFER = ("accuracy", "macro_f1", *_PLOTTED)
_POINTS = 2  # the gain that the power is told of


def scores_table(main: Sequence[Comparison], apart: Sequence[Comparison] = ()) -> Table:
    """The gain by every score that the runs have, and how often one would have come from chance alone."""
    whole, problems = _with_mean(main, apart), {}
    gains = {metric: [_gain(pairs, metric, problems) for _, pairs, _ in whole] for metric in SCORES}
    gains = {metric: its for metric, its in gains.items() if any(it is not None for it in its)}
    texts = zip(*([_text(metric, it) for it in its] for metric, its in gains.items()), strict=True)
    rows = [[name, seeds, *its] for (name, _, seeds), its in zip(whole, texts, strict=True)]
    tests = [_signs(main, metric) if all(its[: len(main)]) else DASH for metric, its in gains.items()]
    rows.append(["p, signs of all pairs", "", *tests])
    notes = ["Gains of the dual head over pooled: accuracy and macro F1 in points; of losses how much less there is."]
    notes.append(
        "p is that of the mean gain if either sign of every pair of runs were as likely: a permutation test, two-sided."
    )
    if "scaled_log_loss" in gains:
        notes.append("Scaled: each half of the test items at the temperature that is best on the other half.")
    without = [it.data for it in (*main, *apart) if _gain([it.pair], "brier", problems) is None]
    notes += [f"Not read: {problem}." for problem in problems]
    if len(without) == len(main) + len(apart):
        notes.append("These runs kept no logits, which the other scores (log loss, Brier, AUROC) are of.")
        notes += _losses_note(main)
    elif without:
        notes.append(f"Runs without logits, which the other scores are of: {', '.join(without)}.")
    plots = []
    for metric in _PLOTTED:
        points = [
            _point(name, it, seeds) for (name, _, seeds), it in zip(whole, gains.get(metric, []), strict=False) if it
        ]
        plots += forest(f"{_NAMES[metric].capitalize()}, by data set", "nats less than pooled", points)
    columns = ["data", "seeds", *(f"{_NAMES[metric]} [95%]" for metric in gains)]
    return Table("scores", "All scores", columns, rows, notes, plots, mean=len(main) if len(main) > 1 else None)


def transfer_table(main: Sequence[Comparison]) -> Table | None:
    """The same runs on further evaluation sets, which they were not trained for."""
    rows, points = [], []
    for it in main:
        for name in dict.fromkeys(name for row in it.group.rows for name in row.get("eval_sets") or {}):
            gains = {metric: _gain([it.pair], metric, {}, name) for metric in _TRANSFER}
            first = gains["accuracy"]
            if first is not None:
                scores = [f"{100 * value:.1f}" for value in (first.baseline_score, first.score)]
                texts = [_text(metric, gain) for metric, gain in gains.items()]
                rows.append([it.data, name, str(it.n_seeds), f"{first.n_items:,}", *scores, *texts])
                points.append(_point(f"{it.data}: {name}", first, str(it.n_seeds)))
    if not rows:
        return None
    columns = ["data", "tested on", "seeds", "rows", "pooled, %", "dual head, %"]
    columns += [f"{_NAMES[metric]} [95%]" for metric in _TRANSFER]
    plots = forest("Gain on further evaluation sets", "accuracy, points over pooled", points)
    notes = ["The runs of the first table on other evaluation sets; gains as there."]
    return Table("transfer", "Transfer", columns, rows, notes, plots)


def power_table(main: Sequence[Comparison]) -> Table | None:
    """How small a gain this study could see, and how many seeds would see two points."""
    rows, needed = [], None
    for name, pairs, seeds in _with_mean([it for it in main if it.gain.n_items > 1]):
        noise = noise_of(pairs)
        if noise.several.any():
            needed = seeds_for(noise, _POINTS)
            rows.append([name, seeds, f"{visible_gain(noise):.1f}", str(needed) if needed else "more test items"])
    if not rows:
        return None
    said = f"about {needed} seeds" if needed else "more test items: no number of seeds would do"
    what = rows[-1][0] if len(main) == 1 else "the mean"
    notes = [f"To see a gain of {_POINTS} points on {what} you need {said}."]
    notes.append("Seen: in 80 of 100 such studies the 95% interval lies above 0. Both are estimates from few seeds.")
    columns = ["data", "seeds", "least gain seen, points", f"seeds for {_POINTS} points"]
    place = len(rows) - 1 if len(main) > 1 else None
    return Table("power", "What this study could see", columns, rows, notes, mean=place)


def _with_mean(main: Sequence[Comparison], apart: Sequence[Comparison] = ()) -> list[tuple[str, list[Pair], str]]:
    """Data sets, and the mean of those that are in it: a name, pairs, and the number of seeds, of the mean none."""
    found = [(it.data, [it.pair], str(it.n_seeds)) for it in (*main, *apart)]
    if len(main) > 1:
        found.insert(len(main), (f"mean of {len(main)}", [it.pair for it in main], ""))
    return found


def _gain(pairs: Sequence[Pair], metric: str, problems: dict[str, None], of: str = "eval") -> Gain | None:
    """None where it can't be measured; a problem is told."""
    try:
        found = gain_of(pairs, metric, of=of)
    except ValueError as error:
        problems[str(error)] = None
        return None
    return found if found is not None and math.isfinite(found.gain) else None


def _text(metric: str, it: Gain | None) -> str:
    return gain_text(it, 3 if metric in OF_LOGITS else 1)


def _point(name: str, it: Gain, seeds: str) -> Point:
    return Point(name, it.gain, it.low, it.high, kind=None if seeds else "mean", note="(1 seed)" * (seeds == "1"))


def _signs(main: Sequence[Comparison], metric: str) -> str:
    return _p([difference(*it.pair.sides(metric), metric).mean(1) for it in main])


def _p(differences: Sequence[np.ndarray]) -> str:
    value = sign_test(differences)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _losses_note(main: Sequence[Comparison]) -> list[str]:
    """The classification losses that runs were evaluated with."""
    less = []
    for it in main:
        sides = [
            [(row.get("metrics") or {}).get("classification_loss") for row in side.rows]
            for side in (it.base, it.group)
        ]
        less.append(np.subtract(*np.array(sides, dtype=float)))
    pairs = np.concatenate(less)
    if not np.isfinite(pairs).all():
        return []
    return [
        f"Their classification loss is lower with the dual head in {(pairs > 0).sum()} of {len(pairs)} pairs, in the mean by "
        f"{np.mean([it.mean() for it in less]):.3f} (p {_p(less)}); part of that may be being less sure, which logits would tell."
    ]
