"""The tables of a report: a study's numbers as people read them, and the plots of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from ..figures import Plot, Point, Series
from ..pages.study import DASH, Table, number, options_text, shown, signed, told, words
from .groups import baseline_of, distinct, has_logits, tried
from .intervals import noise, seeds_for, sign_test, visible_gain
from .metrics import OF_LOGITS, SCORES, chance
from .results import Row, together
from .statistics import Gain, Mean, Pair, Summary, difference, gain_of

# The options that a reader asks for first.
AXES = {"alpha": "Weight of the reasoning loss (alpha)", "train_size": "Training rows"}
AXES |= {"classifier_head": "Classification head"}
_SCORES = ("accuracy", "macro F1", "less log loss", "less log loss, scaled", "less Brier score", "AUROC")
_SCORES = dict(zip(SCORES, (*_SCORES, "accuracy at 80% coverage"), strict=True))
_POINTS = 2  # the gain that the power is told of


def gain_text(it: Gain | None, of: str = "gain", digits: int = 1) -> str:
    """A gain with its interval; relative ones are in percent."""
    if it is None or math.isnan(getattr(it, of)):
        return DASH
    value, low, high = (signed(value, 3 if it.metric in OF_LOGITS else digits) for value in _ends(it, of))
    return f"{value}{'' if of == 'gain' else '%'} [{low}, {high}]"


def _ends(it: Gain | Summary, of: str) -> list[float]:
    between = "" if of in ("gain", "mean") else f"{of}_"
    return [getattr(it, name) for name in (of, f"{between}low", f"{between}high")]


def _score(it: Summary | None) -> str:
    return DASH if it is None else f"{100 * it.mean:.1f} ± {DASH if it.sd is None else f'{100 * it.sd:.1f}'}"


def _sizes(it: Pair) -> str:
    train, tested = {row["train_rows"] for row in it.runs}, min(len(row["labels"]) for row in it.runs)
    return f"{DASH.join(f'{size:,}' for size in sorted({min(train), max(train)}))} / {tested:,}"


def _chance(it: Pair) -> float:
    return chance(it.metric, it.base.rows[0]["labels"], it.base.rows[0]["groups"])


_GAIN, _OVER_POOLED, _RELATIVE = "gain, points [95%]", "against pooled, points [95%]", "relative gain [95%]"
_COLUMNS: dict[str, Callable[[Pair], str]] = {
    "data": lambda it: it.data,
    "setting": lambda it: words(it.one.setting),
    "rows (train / evaluation)": _sizes,
    "seeds": lambda it: str(it.n_seeds),
    "chance": lambda it: f"{100 * _chance(it):.1f}",
    "pooled": lambda it: _score(it.pooled),
    "dual head": lambda it: _score(it.score),
    "score": lambda it: _score(it.score if it.group else it.pooled),
    _GAIN: lambda it: gain_text(it.gain),
    _OVER_POOLED: lambda it: gain_text(it.gain),
    _RELATIVE: lambda it: gain_text(it.gain, of="relative"),
}


def _rows(columns: Iterable[str], pairs: Iterable[Pair], **more: Callable[[Pair], str]) -> list[list[str]]:
    return [[(more.get(name) or _COLUMNS[name])(it) for name in columns] for it in pairs]


def _point(
    name: str, it: Gain | Summary, of: str = "gain", seeds: int | None = None, scale: float = 1, **more: Any
) -> Point:
    """A gain, a relative gain or a score as a point of a plot; of one seed the interval knows nothing of others."""
    return Point(name, *(scale * end for end in _ends(it, of)), note="(1 seed)" * (seeds == 1), **more)


def _plots(form: str, title: str, label: str, series: Mapping[str, Sequence[Point]], **more: Any) -> list[Plot]:
    """A plot of the points that have an interval, by their setting, if there are any."""
    finite = {kind: [it for it in points if math.isfinite(it.high - it.low)] for kind, points in series.items()}
    drawn = [Series(title if form == "bars" else words(kind), kind, its) for kind, its in finite.items() if its]
    return [Plot(form, title, label, drawn, **more)] if drawn else []


# Pooled against the dual head: lines are data sets, and the mean of those that are in it


def _lines(main: Sequence[Pair], apart: Sequence[Pair] = ()) -> list[Pair | Mean]:
    return [*main, *([Mean(main)] if len(main) > 1 else []), *apart]


def main_table(main: Sequence[Pair], usual: Mapping[str, Any], apart: Sequence[Pair] = ()) -> Table:
    lines, whole, several = _lines(main, apart), [*main, *apart], len(main) > 1
    columns = ["data", "rows (train / evaluation)", "seeds", "chance", "pooled", "dual head", _GAIN, _RELATIVE]
    rows = _rows(columns, whole)
    notes = _about(whole, usual)
    notes.append("Scores are means in % ± the standard deviation over seeds; gains are paired by seed and test item.")
    notes.append("Chance is one answer for all rows, the best one; for question accuracy a candidate at random.")
    for name, side in (("pooled", "pooled"), ("the dual head", "score")):
        levels = [(it.data, getattr(it, side), _chance(it)) for it in whole]
        reached = [data for data, it, level in levels if it.low <= level <= it.high]
        notes += told(f"The interval of {name} reaches down to chance on {{}}.", reached)
        below = [data for data, it, level in levels if it.high < level]
        notes += told(f"The interval of {name} lies below chance on {{}}.", below)
    zero = [it.data for it in whole if it.gain.baseline_score == 0]
    notes += told("Over a baseline of 0 (in {}) there is no relative gain, nor a mean with it.", zero)
    where = "Below the mean, and not in it" if several else f"Beside {main[0].data}, of which the headline is"
    notes += told(f"{where}: {{}}.", [it.data for it in apart])
    title = "Relative gain of the dual head over pooled, by data set"
    if several:
        mean = lines[len(main)].gain
        averages = [f"{100 * it:.1f}" for it in (mean.baseline_score, mean.score)]
        gains = [gain_text(mean), gain_text(mean, of="relative")]
        rows.insert(len(main), [lines[len(main)].data, "", "", "", *averages, *gains])
        notes.append(f"Relative gain of the macro averages: {gain_text(mean, of='relative_of_means')}.")
        if len({it.n_seeds == 1 for it in main}) > 1:
            notes.append("In the mean's interval the seeds of sets with one differ as those of the other sets do.")
        title += "".join(told("; not in the mean: {}", [it.data for it in apart]))
    its = [(it.data, it.n_seeds, it.gain) for it in lines]
    drawn = _forest(title, "relative gain over pooled, %", its, "relative")
    return Table("main", "Pooled against dual head", columns, rows, notes, drawn, mean=len(main) if several else None)


def _forest(
    title: str, label: str, its: Iterable[tuple[str, int | None, Gain | None]], of: str = "gain"
) -> list[Plot]:
    """A plot of gains, each with its name and number of seeds, of a mean none."""
    points = [_point(name, it, of, seeds, kind=None if seeds else "mean") for name, seeds, it in its if it]
    return _plots("forest", title, label, {"dual_head": points}, signed=True)


def scores_table(main: Sequence[Pair], apart: Sequence[Pair] = ()) -> Table:
    """The gain by every score that the runs have, and how often one would have come from chance alone."""
    lines, problems, drawn, whole = _lines(main, apart), {}, [], [*main, *apart]
    columns = {"data": [*(it.data for it in lines), "p, signs of all pairs"]}
    columns["seeds"] = [*(f"{it.n_seeds or ''}" for it in lines), ""]
    for metric, name in _SCORES.items():
        gains = [_gain(it.pairs, metric, problems) for it in lines]
        if any(gains):
            own = [difference(*it.sides(metric), metric).mean(1) for it in main] if all(gains[: len(main)]) else []
            columns[f"{name} [95%]"] = [*map(gain_text, gains), _p(own) if own else DASH]
            if metric.endswith("log_loss"):
                its = [(it.data, it.n_seeds, gain) for it, gain in zip(lines, gains, strict=True)]
                drawn += _forest(f"{name.capitalize()}, by data set", "nats less than pooled", its)
    notes = ["Gains of the dual head over pooled: accuracy and macro F1 in points; of losses how much less there is."]
    test = "a permutation test, two-sided."
    notes.append(f"p is that of the mean gain if either sign of every pair of runs were as likely: {test}")
    if f"{_SCORES['scaled_log_loss']} [95%]" in columns:
        notes.append("Scaled: each half of the test items at the temperature that is best on the other half.")
    lacking = {it: sum(not has_logits(row) for row in it.runs) for it in whole}
    notes += [f"Not read: {problem}." for problem in problems]
    if not any(_gain([it], "brier", {}) for it in whole):
        without, runs = sum(lacking.values()), sum(len(it.runs) for it in whole)
        who = ["These runs" if without == runs else f"{without} of these {runs} runs"] if without else []
        notes += told("{} kept no logits, which the other scores (log loss, Brier, AUROC) are of.", who)
        notes += _losses_note(main)
    else:
        parts = {it: f" ({lacking[it]} of {len(it.runs)})" * (lacking[it] < len(it.runs)) for it in whole}
        names = [f"{it.data}{parts[it]}" for it in whole if lacking[it]]
        notes += told("Runs without logits, which the other scores are of: {}.", names)
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table("scores", "All scores", [*columns], rows, notes, drawn, mean=len(main) if len(main) > 1 else None)


def _gain(pairs: Sequence[Pair], metric: str, problems: dict[str, None], of: str = "eval") -> Gain | None:
    """None where it can't be measured; a problem is told."""
    found, problem = tried(gain_of, pairs, metric, of)
    problems |= {problem: None} if problem else {}
    return found if found and math.isfinite(found.gain) else None


def _p(differences: Sequence[np.ndarray]) -> str:
    value = sign_test(differences)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _losses_note(main: Sequence[Pair]) -> list[str]:
    losses = [[(row.get("metrics") or {}).get("classification_loss") for row in it.runs] for it in main]
    less = [theirs - ours for ours, theirs in (np.array(it, dtype=float).reshape(2, -1) for it in losses)]
    pairs = np.concatenate(less)
    if not np.isfinite(pairs).all():
        return []
    mean = np.mean([it.mean() for it in less])
    return [
        f"Their classification loss is lower with the dual head in {(pairs > 0).sum()} of {len(pairs)} pairs, in the mean by "
        f"{mean:.3f} (p {_p(less)}); part of that may be being less sure, which logits would tell."
    ]


def transfer_table(main: Sequence[Pair]) -> Table:
    """The same runs on further evaluation sets, which they were not trained for."""
    rows, drawn, metrics = [], [], SCORES[:4]
    for it in main:
        for name in dict.fromkeys(name for row in it.group.rows for name in row.get("eval_sets") or {}):
            gains = [_gain([it], metric, {}, name) for metric in metrics]
            if first := gains[0]:
                scores = [f"{100 * value:.1f}" for value in (first.baseline_score, first.score)]
                rows.append([it.data, name, str(it.n_seeds), f"{first.n_items:,}", *scores, *map(gain_text, gains)])
                drawn.append((f"{it.data}: {name}", it.n_seeds, first))
    columns = ["data", "tested on", "seeds", "rows", "pooled, %", "dual head, %"]
    columns += [f"{_SCORES[metric]} [95%]" for metric in metrics]
    drawn = _forest("Gain on further evaluation sets", "accuracy, points over pooled", drawn)
    said = "The runs of the first table on other evaluation sets; gains as there."
    return Table("transfer", "Transfer", columns, rows, [said], drawn)


def power_table(main: Sequence[Pair]) -> Table:
    """How small a gain this study could see, and how many seeds would see two points."""
    rows, needed = [], None
    for it in _lines([it for it in main if it.gain.n_items > 1]):
        found = noise([difference(*pair.sides()) for pair in it.pairs])
        if found.several.any():
            needed = seeds_for(found, _POINTS)
            rows.append(
                [it.data, f"{it.n_seeds or ''}", f"{visible_gain(found):.1f}", str(needed or "more test items")]
            )
    said = f"about {needed} seeds" if needed else "more test items: no number of seeds would do"
    what = main[0].data if len(main) == 1 else "the mean"
    notes = [f"To see a gain of {_POINTS} points on {what} you need {said}."]
    notes.append("Seen: in 80 of 100 such studies the 95% interval lies above 0. Both are estimates from few seeds.")
    columns = ["data", "seeds", "least gain seen, points", f"seeds for {_POINTS} points"]
    mean = len(rows) - 1 if len(main) > 1 else None
    return Table("power", "What this study could see", columns, rows, notes, mean=mean)


def training_table(main: Sequence[Pair]) -> Table:
    """What a training with the reasoning head takes beside the pooled one, on the same rows and machine."""
    rows, left_out = [], 0
    for it in main:
        pairs = zip(it.base.rows, it.group.rows, strict=True)
        pairs = [pair for pair in pairs if all(run.get("train_seconds") for run in pair)]
        timed = [pair for pair in pairs if not any(run.get("resumed") for run in pair)]
        left_out += len(pairs) - len(timed)
        if timed:
            measured = [*_ratios("train_seconds", timed), *_ratios("peak_memory_mb", timed)]
            rows.append([it.data, str(len(timed)), *measured])
    columns = ["data", "seeds", "pooled, s", "dual head, s", "ratio", "pooled, MB", "dual head, MB", "ratio"]
    notes = [
        "Training time, and peak memory of the whole process with its evaluation: means over seeds, of the ratios the "
        "median (lowest to highest). Inference is the same: the reasoning head is not part of it."
    ]
    if left_out:
        notes.append(f"Pairs left out because a run was resumed, of which the last part alone was timed: {left_out}.")
    return Table("training", "What training costs", columns, rows, notes)


def _ratios(name: str, pairs: Sequence[Sequence[Row]]) -> list[str]:
    sides = np.array([[run[name] for run in pair] for pair in pairs if all(run.get(name) for run in pair)])
    if not sides.size:
        return [DASH] * 3
    ratios = sides[:, 1] / sides[:, 0]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return [*(f"{it:,.0f}" for it in sides.mean(0)), f"{np.median(ratios):.2f}{spread}"]


# Settings and options


def settings_table(by_data: Sequence[Sequence[Pair]], usual: Mapping[str, Any]) -> Table:
    rows, drawn, few, decoded, unlike = [], [], [], [], False
    columns = ["data", "setting", "seeds", "score", _OVER_POOLED, "against dual head, points [95%]"]
    for pairs in by_data:
        dual = next((it for it in pairs if it.group.setting == "dual_head"), None)
        base = max((it for it in pairs if it.pooled), key=lambda it: it.n_seeds, default=None)
        bases = {it: baseline_of(it.group, [dual.group], "dual_head") for it in pairs if dual and it is not dual}
        over = {it: Pair(it.group, dual_head).gain for it, dual_head in bases.items() if dual_head}
        its = [*([Pair(None, base.base)] if base else []), *pairs]
        rows += _rows(columns, its, **{columns[-1]: lambda it, over=over: gain_text(over.get(it))})
        points = []
        for it in pairs:
            name = words(it.group.setting)
            unlike |= any(side is not None and side.n_seeds != it.n_seeds for side in (base, dual))
            decoded += _decoded(it)
            if it.gain:
                points.append(_point(name, it.gain, seeds=it.n_seeds, kind=it.group.setting))
                if it.gain.n_items < it.pooled.n_items:
                    few.append(f"{it.data}, {name} {it.gain.n_items} of {it.pooled.n_items}")
        drawn += _plots("bars", pairs[0].data, "gain over pooled, points", {"dual_head": points}, signed=True)
    notes = _about([it for pairs in by_data for it in pairs], usual)
    unlike = "where these differ, they are not those of the scores" if unlike else ""
    notes += told("Gains are on the seeds that both sides have: {}.", [unlike])
    notes += told("Tested on the first items alone, and compared on those: {}.", few, "; ") + decoded
    return Table("settings", "Ablations and controls", columns, rows, notes, drawn)


def _decoded(it: Pair) -> list[str]:
    """What became of decoded answers, where the runs know it."""
    runs = [row.get("metrics") or {} for row in it.group.rows]
    shares, tokens = ([run[name] for run in runs if name in run] for name in ("unreadable", "new_tokens"))
    if it.group.setting != "cot_decoding" or not shares or not tokens:
        return []
    lost = f"{100 * fmean(shares):.1f}% of the answers held no label"
    return [f"CoT decoding on {it.data}: {lost}; {fmean(tokens):.0f} tokens written a row."]


def axis_table(axis: str, by_data: Sequence[Sequence[Pair]], usual: Mapping[str, Any]) -> Table:
    """The dual head and pooled at each value of an option."""

    def value(it: Pair) -> str:
        given = it.config.get(axis)
        return "all" if axis == "train_size" and given is None else shown(given)

    name, of_all, drawn = words(axis), [it for pairs in by_data for it in pairs], []
    # A curve through values that are in an order, and no curve through names.
    joined = all(number(it.config.get(axis)) is not None for it in of_all if it.config.get(axis) != "auto")
    about = {"label": "gain over pooled, points", "x_label": name, "zero": True, "signed": True}
    kinds = {"dual_head": ("gain", "gain", 1)}
    if axis == "train_size":
        about = {"label": "score, %", "x_label": "training rows" + " (log scale)" * joined, "log": joined}
        kinds = {"pooled": ("pooled", "mean", 100), "dual_head": ("score", "mean", 100)}
    for pairs in by_data:
        series = {
            setting: [
                _point(value(it), of_side, of, it.n_seeds, scale, x=number(it.config.get(axis)))
                for it in pairs
                if (of_side := getattr(it, side))
            ]
            for setting, (side, of, scale) in kinds.items()
        }
        drawn += _plots("curve", pairs[0].data, series=series, joined=joined, **about)
    notes = _about(of_all, {**usual, axis: None})
    if any(it.config.get(axis) is None for it in of_all) and axis != "train_size":
        notes.append("Default is what dhrd train takes where the option is not given (dhrd train --help-all).")
    columns = ["data", name, "seeds", "pooled", "dual head", _GAIN]
    rows = _rows(columns, of_all, **{name: value})
    return Table(axis, AXES.get(axis, name.capitalize()), columns, rows, notes, drawn)


def options_table(tables: Sequence[Table]) -> Table:
    """Several tables of [`axis_table`] as one, for the options of which a reader wants no table each."""
    rows = [[row[0], table.columns[1], *row[1:]] for table in tables for row in table.rows]
    drawn = [replace(plot, title=f"{plot.title}: {plot.x_label}") for table in tables for plot in table.plots]
    of_all = [note for note in tables[0].notes if all(note in table.notes for table in tables)]
    apart = [(table.columns[1], [note for note in table.notes if note not in of_all]) for table in tables]
    notes = [f"For {name}: {' '.join(its)}" for name, its in apart if its] + of_all
    columns = ["data", "option", "value", *tables[0].columns[2:]]
    return Table("options", "Other options, one at a time", columns, rows, notes, drawn)


def others_tables(pairs: Sequence[Pair], usual: Mapping[str, Any]) -> list[Table]:
    """The runs that no other table has: first those that differ in several options and have their pooled runs."""
    paired = [it for it in pairs if it.gain]
    taken = {side.key() for it in paired for side in (it.group, it.base)}
    lone = [it for it in pairs if it.one.key() not in taken]
    columns = ["data", "setting", "options", "seeds"]
    found = []
    for name, title, its, more in (
        ("recipes", "Several options at once", paired, ["pooled", "score", _OVER_POOLED]),
        ("others", "All other cells", lone, ["score"]),
    ):
        rows = _rows([*columns, *more], its, options=lambda it: options_text(it.config, usual) or DASH)
        found += [Table(name, title, [*columns, *more], rows, _seeds(its), folded=name == "others")] if its else []
    return found


# What stands behind a table


def _about(pairs: Sequence[Pair], known: Mapping[str, Any]) -> list[str]:
    """The options that are not known, by data set where they differ; the metric; where an interval is over items alone."""
    configs: dict[str, dict[str, Any]] = {}
    for it in pairs:
        own = {name: value for name, value in it.config.items() if name not in {*known, *it.unlike}}
        configs.setdefault(it.data, own)
    same = {name: its[0] for name, its in distinct(configs.values()).items() if len(its) == 1}
    notes = told("Options: {}.", [options_text(same)])
    notes += [f"{data}: {text}." for data, it in configs.items() if (text := options_text(it, same))]
    metrics = together(dict.fromkeys((it.metric, it.data) for it in pairs), lambda it: it[0])
    scores = []
    for its in metrics:
        name = " and ".join(map(words, its[0][0].split("+")))
        on = f" ({', '.join(data for _, data in its)})" if len(metrics) > 1 else ""
        scores.append(f"{'the mean of ' if '+' in its[0][0] else ''}{name}{on}")
    return [*notes, f"The score is {'; '.join(scores)}.", *_seeds(pairs)]


def own_options(pairs: Sequence[Pair]) -> list[str]:
    """The options of which the sides of pairs have their own values."""
    found: dict[str, dict[str, str]] = {}
    for it in pairs:
        for name, (base, ours) in it.unlike.items():
            found.setdefault(name, {"pooled": f"{name} {shown(base)}"})[it.group.setting] = shown(ours)
    said = [", ".join(f"{setting} {value}" for setting, value in its.items()) for its in found.values()]
    return told("Each setting has its own options: {}.", said, "; ")


def _seeds(pairs: Sequence[Pair]) -> list[str]:
    notes = [*own_options(pairs), *(f"Not compared: {it.problem}." for it in pairs if it.problem)]
    few = dict.fromkeys(it.data for it in pairs if it.gain and it.gain.n_items == 1)
    notes += told("One test item (in {}) has no interval.", few)
    if left_out := sum(it.left_out for it in pairs):
        notes.append(f"On the seeds that all values have; cells of other seeds left out: {left_out}.")
    single = dict.fromkeys(it.data for it in pairs if it.n_seeds == 1)
    if single and all(it.n_seeds == 1 for it in pairs):
        return [*notes, "One seed: the intervals are over test items alone."]
    return notes + told("Where there is one seed (in {}) the interval is over test items alone.", single)
