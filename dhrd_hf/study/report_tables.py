"""The tables of a report: a study's numbers as people read them, and the plots of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from .comparisons import Comparison, against, compared
from .figures import Plot, Point, Series
from .intervals import seeds_for, sign_test, visible_gain
from .metrics import OF_LOGITS, SCORES, chance
from .runs import Group, n_rows, shown
from .statistics import Gain, Pair, Summary, difference, gain_of, noise_of

DASH = "–"
_INTERVAL = "[95%]"
# The options that a reader asks for first.
AXES = {
    "alpha": "Weight of the reasoning loss (alpha)",
    "train_size": "Training rows",
    "classifier_head": "Classification head",
}


_SCORE_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "log_loss": "less log loss",
    "scaled_log_loss": "less log loss, scaled",
    "brier": "less Brier score",
    "auroc": "AUROC",
}
_TRANSFER = ("accuracy", "macro_f1", "log_loss", "scaled_log_loss")
_POINTS = 2  # the gain that the power is told of


@dataclass(frozen=True)
class Table:
    """A table of the report, and the plots that show it."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    folded: bool = False
    mean: int | None = None


def main_table(
    main: Sequence[Comparison], mean: Gain, usual: Mapping[str, Any], apart: Sequence[Comparison] = ()
) -> Table:
    """Pooled against the dual head, a row for each data set and one for their mean."""
    whole = [*main, *apart]
    rows = [
        [it.data, _sizes(it), str(it.n_seeds), f"{100 * _chance(it):.1f}", score_text(it.pooled), score_text(it.score)]
        + [gain_text(it.gain), relative_text(it.gain)]
        for it in whole
    ]
    points = [
        Point(it.data, it.gain.relative, it.gain.relative_low, it.gain.relative_high, note=_seeds_mark(it))
        for it in whole
    ]
    notes = _about(whole, usual)
    notes.append("Scores are means in % ± the standard deviation over seeds; gains are paired by seed and test item.")
    notes.append("Chance is one answer for all rows, the best one; for question accuracy a candidate at random.")
    for name, side in (("pooled", "pooled"), ("the dual head", "score")):
        sides = [(it.data, getattr(it, side), _chance(it)) for it in whole]
        for what, data in (
            ("reaches down to chance", [it for it, score, level in sides if score.low <= level <= score.high]),
            ("lies below chance", [it for it, score, level in sides if score.high < level]),
        ):
            notes += [f"The interval of {name} {what} on {', '.join(data)}."] if data else []
    zero = [it.data for it in whole if it.gain.baseline_score == 0]
    if zero:
        notes.append(f"Over a baseline of 0 (in {', '.join(zero)}) there is no relative gain, nor a mean with it.")
    if apart:
        where = (
            "Below the mean, and not in it" if len(main) > 1 else f"Beside {main[0].data}, of which the headline is"
        )
        notes.append(f"{where}: {', '.join(it.data for it in apart)}.")
    if len(main) > 1:
        averages = [f"{100 * it:.1f}" for it in (mean.baseline_score, mean.score)]
        name = f"mean of {len(main)}"
        rows.insert(len(main), [name, "", "", "", *averages, gain_text(mean), relative_text(mean)])
        points.insert(len(main), Point(name, mean.relative, mean.relative_low, mean.relative_high, kind="mean"))
        low, high = signed(mean.relative_of_means_low), signed(mean.relative_of_means_high)
        notes.append(f"Relative gain of the macro averages: {signed(mean.relative_of_means)}% [{low}, {high}].")
        if len({it.n_seeds == 1 for it in main}) > 1:
            notes.append("In the mean's interval the seeds of sets with one differ as those of the other sets do.")
    columns = ["data", "rows (train / evaluation)", "seeds", "chance", "pooled", "dual head"]
    columns += [f"gain, points {_INTERVAL}", f"relative gain {_INTERVAL}"]
    finite = [it for it in points if math.isfinite(it.high - it.low)]
    title = "Relative gain of the dual head over pooled, by data set"
    title += f"; not in the mean: {', '.join(it.data for it in apart)}" if apart and len(main) > 1 else ""
    series = [Series("dual head", "dual_head", finite)]
    plots = [Plot("forest", title, "relative gain over pooled, %", series, signed=True)] if finite else []
    place = len(main) if len(main) > 1 else None
    return Table("main", "Pooled against dual head", columns, rows, notes, plots, mean=place)


def scores_table(main: Sequence[Comparison], apart: Sequence[Comparison] = ()) -> Table:
    """The gain by every score that the runs have, and how often one would have come from chance alone."""
    whole = [(it.data, [it.pair], it.n_seeds) for it in (*main, *apart)]
    if len(main) > 1:
        whole.insert(len(main), (f"mean of {len(main)}", [it.pair for it in main], None))
    gains = {metric: [_gain(pairs, metric) for _, pairs, _ in whole] for metric in SCORES}
    gains = {metric: its for metric, its in gains.items() if any(it is not None for it in its)}
    rows = [
        [
            name,
            "" if seeds is None else str(seeds),
            *(gain_text(its[place], _digits(metric)) for metric, its in gains.items()),
        ]
        for place, (name, _, seeds) in enumerate(whole)
    ]
    tests = [_p_value([it.pair for it in main], metric) for metric in gains]
    rows.append(["p, signs of all pairs", "", *(DASH if it is None else _probability(it) for it in tests)])
    columns = ["data", "seeds", *(f"{_SCORE_NAMES[metric]} {_INTERVAL}" for metric in gains)]
    notes = ["Gains of the dual head over pooled: accuracy and macro F1 in points; of losses how much less there is."]
    notes.append(
        "p is that of the mean gain if either sign of every pair of runs were as likely: a permutation test, two-sided."
    )
    if "scaled_log_loss" in gains:
        notes.append("Scaled: each half of the test items at the temperature that is best on the other half.")
    unkept = [
        name
        for place, (name, _, seeds) in enumerate(whole)
        if seeds and gains.get("log_loss", [None] * (place + 1))[place] is None
    ]
    if len(unkept) == len(main) + len(apart):
        notes.append("These runs kept no logits, which the other scores (log loss, Brier, AUROC) are of.")
    elif unkept:
        notes.append(f"Runs without logits, which the other scores are of: {', '.join(unkept)}.")
    plots = []
    for metric in ("log_loss", "scaled_log_loss"):
        points = [
            Point(
                name, it.gain, it.low, it.high, kind="mean" if seeds is None else None, note="(1 seed)" * (seeds == 1)
            )
            for (name, _, seeds), it in zip(whole, gains.get(metric, []), strict=False)
            if it is not None and math.isfinite(it.high - it.low)
        ]
        if points:
            label = f"less {_SCORE_NAMES[metric].removeprefix('less ')}, by data set"
            plots.append(
                Plot(
                    "forest",
                    label.capitalize(),
                    "nats less than pooled",
                    [Series("dual head", "dual_head", points)],
                    signed=True,
                )
            )
    place = len(main) if len(main) > 1 else None
    return Table("scores", "All scores", columns, rows, notes, plots, mean=place)


def power_table(main: Sequence[Comparison]) -> Table | None:
    """How small a gain this study could see, and how many seeds would see two points."""
    whole = [(it.data, [it.pair], str(it.n_seeds)) for it in main]
    if len(main) > 1:
        whole.append((f"mean of {len(main)}", [it.pair for it in main], ""))
    rows, needed = [], None
    for name, pairs, seeds in whole:
        noise = noise_of(pairs)
        if not noise.several.any() or noise.n_items.min() < 2:
            continue
        needed = seeds_for(noise, _POINTS)
        rows.append([name, seeds, f"{visible_gain(noise):.1f}", str(needed) if needed else "more test items"])
    if not rows:
        return None
    what = "on the mean" if len(main) > 1 else f"on {main[0].data}"
    said = f"about {needed} seeds" if needed else "more test items: no number of seeds would do"
    notes = [f"To see a gain of {_POINTS} points {what} you need {said}."]
    notes.append(
        "Seen: in 80 of 100 such studies the 95% interval lies above zero. Both are estimates from few seeds."
    )
    columns = ["data", "seeds", "least gain seen, points", f"seeds for {_POINTS} points"]
    return Table(
        "power", "What this study could see", columns, rows, notes, mean=len(rows) - 1 if len(main) > 1 else None
    )


def transfer_table(main: Sequence[Comparison]) -> Table | None:
    """The same runs on further evaluation sets, which they were not trained for."""
    rows, points = [], []
    for it in main:
        for name in dict.fromkeys(
            name for row in it.group.rows for name in row.get("eval_sets") or {} if name != "eval"
        ):
            gains = {metric: _gain([it.pair], metric, name) for metric in _TRANSFER}
            first = gains["accuracy"]
            if first is None:
                continue
            scores = [f"{100 * value:.1f}" for value in (first.baseline_score, first.score)]
            its = [gain_text(gain, _digits(metric)) for metric, gain in gains.items()]
            rows.append([it.data, name, str(it.n_seeds), f"{first.n_items:,}", *scores, *its])
            if math.isfinite(first.high - first.low):
                points.append(Point(f"{it.data}: {name}", first.gain, first.low, first.high, note=_seeds_mark(it)))
    if not rows:
        return None
    columns = ["data", "tested on", "seeds", "rows", "pooled, %", "dual head, %"]
    columns += [f"{_SCORE_NAMES[metric]} {_INTERVAL}" for metric in _TRANSFER]
    series = [Series("dual head", "dual_head", points)]
    plots = [Plot("forest", "Gain on further evaluation sets", "accuracy, points over pooled", series, signed=True)]
    notes = ["The runs of the first table on other evaluation sets; gains as there."]
    return Table("transfer", "Transfer", columns, rows, notes, plots if points else [])


def settings_table(by_setting: Mapping[str, Sequence[Comparison]], usual: Mapping[str, Any]) -> Table:
    """The ablations and controls of each data set, against pooled and against the dual head."""
    rows, plots, few, decoded, unlike = [], [], [], [], False
    for data, found in by_setting.items():
        dual = next((it for it in found if it.group.setting == "dual_head"), None)
        base = max((it for it in found if it.pooled is not None), key=lambda it: it.n_seeds, default=None)
        if base is not None:
            rows.append([data, "pooled", str(base.n_seeds), score_text(base.pooled), DASH, DASH])
        for it in found:
            setting = setting_name(it.group.setting)
            over_dual = against(it.group, dual.group) if dual is not None and it is not dual else None
            rows.append(
                [data, setting, str(it.n_seeds), score_text(it.score), gain_text(it.gain), gain_text(over_dual)]
            )
            unlike |= any(side is not None and side.n_seeds != it.n_seeds for side in (base, dual))
            decoded += _decoded(it)
            if it.gain is not None and it.gain.n_items < it.pooled.n_items:
                few.append(f"{data}, {setting} {it.gain.n_items} of {it.pooled.n_items}")
        points = [
            replace(_gain_point(setting_name(it.group.setting), it), kind=it.group.setting)
            for it in found
            if it.gain is not None
        ]
        if points:
            label = "gain over pooled, points"
            plots.append(Plot("bars", data, label, [Series(data, "dual_head", points)], signed=True))
    notes = _about([it for found in by_setting.values() for it in found], usual)
    if unlike:
        notes.append(
            "Gains are on the seeds that both sides have: where these differ, they are not those of the scores."
        )
    if few:
        notes.append(f"Tested on the first items alone, and compared on those: {'; '.join(few)}.")
    notes += decoded
    columns = ["data", "setting", "seeds", "score", f"against pooled, points {_INTERVAL}"]
    columns.append(f"against dual head, points {_INTERVAL}")
    return Table("settings", "Ablations and controls", columns, rows, notes, plots)


def axis_table(axis: str, by_data: Mapping[str, Sequence[Comparison]], usual: Mapping[str, Any]) -> Table:
    """Pooled and the dual head at each value of an option."""
    name = axis.replace("_", " ")
    of_all = [it for found in by_data.values() for it in found]
    rows = [
        [it.data, _value(axis, it), str(it.n_seeds), score_text(it.pooled), score_text(it.score), gain_text(it.gain)]
        for it in of_all
    ]
    # A curve through values that are in an order, and no curve through names.
    joined = all(_number(it.config.get(axis)) is not None for it in of_all if it.config.get(axis) != "auto")
    plots = []
    for data, found in by_data.items():
        if axis == "train_size":
            sides = {"pooled": [it.pooled for it in found], "dual_head": [it.score for it in found]}
            series = [
                Series(setting_name(setting), setting, points)
                for setting, its in sides.items()
                if (
                    points := [_score_point(axis, at, it) for at, it in zip(found, its, strict=True) if it is not None]
                )
            ]
            x_label = "training rows (log scale)" if joined else "training rows"
            plots.append(Plot("curve", data, "score, %", series, x_label, joined=joined, log=joined))
        else:
            points = [
                replace(_gain_point(_value(axis, it), it), x=_number(it.config.get(axis)))
                for it in found
                if it.gain is not None
            ]
            if points:
                series, label = [Series("dual head", "dual_head", points)], "gain over pooled, points"
                plots.append(Plot("curve", data, label, series, name, zero=True, joined=joined, signed=True))
    columns = ["data", name, "seeds", "pooled", "dual head", f"gain, points {_INTERVAL}"]
    title, notes = AXES.get(axis, name.capitalize()), _about(of_all, {**usual, axis: None})
    if any(it.config.get(axis) is None for it in of_all) and axis != "train_size":
        notes.append("Default is what dhrd train takes where the option is not given (dhrd train --help-all).")
    return Table(axis, title, columns, rows, notes, plots)


def options_table(tables: Sequence[Table]) -> Table:
    """Several tables of [`axis_table`] as one, for the options of which a reader wants no table each."""
    rows = [[row[0], table.columns[1], *row[1:]] for table in tables for row in table.rows]
    plots = [replace(plot, title=f"{plot.title}: {plot.x_label}") for table in tables for plot in table.plots]
    of_all = [note for note in tables[0].notes if all(note in table.notes for table in tables)]
    apart = [(table.columns[1], [note for note in table.notes if note not in of_all]) for table in tables]
    notes = [f"For {name}: {' '.join(its)}" for name, its in apart if its] + of_all
    columns = ["data", "option", "value", *tables[0].columns[2:]]
    return Table("options", "Other options, one at a time", columns, rows, notes, plots)


def others_tables(others: Sequence[Group], groups: Sequence[Group], usual: Mapping[str, Any]) -> list[Table]:
    """The cells that no other table has: first those that differ in several options and have their pooled cells."""
    duals = [group for group in others if group.setting != "pooled"]
    paired = [(group, it) for group in duals if (it := compared(group, groups)).gain is not None]
    bases = {it.base.key for _, it in paired}
    lone = [group for group in others if group.key not in bases | {group.key for group, _ in paired}]
    columns = ["data", "setting", "options", "seeds"]

    def options(group: Group) -> str:
        return options_text({name: value for name, value in group.config.items() if name not in usual}) or DASH

    tables = []
    if paired:
        rows = [
            [group.data, setting_name(group.setting), options(group), str(it.n_seeds)]
            + [score_text(it.pooled), score_text(it.score), gain_text(it.gain)]
            for group, it in paired
        ]
        its = [*columns, "pooled", "score", f"against pooled, points {_INTERVAL}"]
        notes = _seeds_note([it for _, it in paired])
        tables.append(Table("recipes", "Several options at once", its, rows, notes))
    if lone:
        found = [compared(None, groups, base=it) if it.setting == "pooled" else compared(it, groups) for it in lone]
        rows = [
            [
                group.data,
                setting_name(group.setting),
                options(group),
                str(it.n_seeds),
                score_text(it.score or it.pooled),
            ]
            for group, it in zip(lone, found, strict=True)
        ]
        tables.append(Table("others", "All other cells", [*columns, "score"], rows, _seeds_note(found), folded=True))
    return tables


def _sizes(it: Comparison) -> str:
    cells = [row for side in (it.group, it.base) for row in side.rows]
    train = sorted({row["train_rows"] for row in cells})
    return f"{DASH.join(f'{size:,}' for size in dict.fromkeys((train[0], train[-1])))} / {n_rows(cells):,}"


def _chance(it: Comparison) -> float:
    row = it.base.rows[0]
    return chance(row["metric"], row["labels"], row["groups"])


def _value(axis: str, it: Comparison) -> str:
    value = it.config.get(axis)
    return "all" if axis == "train_size" and value is None else shown(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _score_point(axis: str, at: Comparison, it: Summary) -> Point:
    x = _number(at.config.get(axis))
    return Point(_value(axis, at), 100 * it.mean, 100 * it.low, 100 * it.high, x, note=_seeds_mark(at))


def _gain_point(name: str, it: Comparison) -> Point:
    return Point(name, it.gain.gain, it.gain.low, it.gain.high, note=_seeds_mark(it))


def _seeds_mark(it: Comparison) -> str:
    """Where the interval knows nothing of other seeds."""
    return "(1 seed)" if it.n_seeds == 1 else ""


# Numbers and names as people read them


def score_text(it: Summary | None) -> str:
    """A mean and its deviation over seeds, in percent."""
    if it is None:
        return DASH
    return f"{100 * it.mean:.1f} ± {DASH if it.sd is None else f'{100 * it.sd:.1f}'}"


def gain_text(it: Gain | None, digits: int = 1) -> str:
    """A gain with its interval."""
    return DASH if it is None else f"{signed(it.gain, digits)} [{signed(it.low, digits)}, {signed(it.high, digits)}]"


def relative_text(it: Gain, digits: int = 1) -> str:
    """A relative gain with its interval."""
    if math.isnan(it.relative):
        return DASH
    low, high = signed(it.relative_low, digits), signed(it.relative_high, digits)
    return f"{signed(it.relative, digits)}% [{low}, {high}]"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and no minus before a zero."""
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def setting_name(setting: str) -> str:
    """A setting in words."""
    return {"cot_decoding": "CoT decoding"}.get(setting, setting.replace("_", " "))


def options_text(config: Mapping[str, Any]) -> str:
    """Options in words."""
    return ", ".join(f"{name} {shown(it)}" for name, it in config.items() if it is not None)


def metric_name(metric: str) -> str:
    """A metric in words."""
    words = {"macro_f1": "macro F1", "f1a": "F1a", "em": "exact match"}
    parts = [words.get(part, part.replace("_", " ")) for part in metric.split("+")]
    return f"the mean of {' and '.join(parts)}" if len(parts) > 1 else parts[0]


def _digits(metric: str) -> int:
    return 3 if metric in OF_LOGITS else 1


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _gain(pairs: Sequence[Pair], metric: str, of: str = "eval") -> Gain | None:
    """None where it can't be measured."""
    try:
        found = gain_of(pairs, metric, of=of)
    except ValueError:  # logits of other rows
        return None
    return None if found is None or math.isnan(found.gain) else found


def _p_value(pairs: Sequence[Pair], metric: str) -> float | None:
    sides = [pair.sides(metric) for pair in pairs]
    if any(it is None for it in sides):
        return None
    return sign_test([difference(*it, metric).mean(1) for it in sides])


# What stands behind a table


def _about(found: Sequence[Comparison], known: Mapping[str, Any]) -> list[str]:
    """The options that are not known, by data set where they differ; the metric; where an interval is over items alone."""
    configs: dict[str, dict[str, Any]] = {}
    for it in found:
        # CoT decoding has weights of its own.
        if it.group is None or it.group.setting != "cot_decoding" or it.data not in configs:
            configs.setdefault(it.data, {name: value for name, value in it.config.items() if name not in known})
    names = list(dict.fromkeys(name for config in configs.values() for name in config))
    first = next(iter(configs.values()))
    same = {name: first.get(name) for name in names if len({shown(it.get(name)) for it in configs.values()}) == 1}
    notes = [f"Options: {text}." for text in [options_text(same)] if text]
    for data, config in configs.items():
        text = options_text({name: value for name, value in config.items() if name not in same})
        notes += [f"{data}: {text}."] if text else []
    metrics: dict[str, dict[str, None]] = {}
    for it in found:
        metrics.setdefault((it.score or it.pooled).metric, {})[it.data] = None
    if len(metrics) == 1:
        notes.append(f"The score is {metric_name(*metrics)}.")
    else:
        said = (f"{metric_name(name)} ({', '.join(its)})" for name, its in metrics.items())
        notes.append(f"The score is {'; '.join(said)}.")
    return notes + _seeds_note(found)


def _decoded(it: Comparison) -> list[str]:
    """What became of decoded answers, where the cells know it."""
    cells = [row.get("metrics") or {} for row in it.group.rows]
    shares, tokens = ([cell[name] for cell in cells if name in cell] for name in ("unreadable", "new_tokens"))
    if it.group.setting != "cot_decoding" or not shares or not tokens:
        return []
    return [
        f"CoT decoding on {it.data}: {100 * fmean(shares):.1f}% of the answers held no label; "
        f"{fmean(tokens):.0f} tokens written a row."
    ]


def _seeds_note(found: Sequence[Comparison]) -> list[str]:
    notes = [f"Not compared: {it.problem}." for it in found if it.problem]
    few = list(dict.fromkeys(it.data for it in found if it.gain is not None and it.gain.n_items == 1))
    notes += [f"One test item (in {', '.join(few)}) has no interval."] if few else []
    left_out = sum(it.left_out for it in found)
    if left_out:
        notes.append(f"On the seeds that all values have; cells of other seeds left out: {left_out}.")
    single = list(dict.fromkeys(it.data for it in found if it.n_seeds == 1))
    if single and all(it.n_seeds == 1 for it in found):
        notes.append("One seed: the intervals are over test items alone.")
    elif single:
        notes.append(f"Where there is one seed (in {', '.join(single)}) the interval is over test items alone.")
    return notes
