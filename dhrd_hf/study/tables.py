"""The tables of a report: a study's numbers as people read them, and the plots of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from ..figures import Plot, Point, Series
from .comparisons import Comparison, against, compared
from .metrics import chance
from .statistics import Gain, Summary
from .table import Group, shown

DASH = "–"
# The options that a reader asks for first.
AXES = {
    "alpha": "Weight of the reasoning loss (alpha)",
    "train_size": "Training rows",
    "classifier_head": "Classification head",
}


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
    value, low, high = (signed(value, digits) for value in (it.relative, it.relative_low, it.relative_high))
    return DASH if math.isnan(it.relative) else f"{value}% [{low}, {high}]"


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


def _sizes(it: Comparison) -> str:
    runs = [row for side in it.sides for row in side.rows]
    train, tested = sorted({row["train_rows"] for row in runs}), min(len(row["labels"]) for row in runs)
    return f"{DASH.join(f'{size:,}' for size in dict.fromkeys((train[0], train[-1])))} / {tested:,}"


def _chance(it: Comparison) -> float:
    row = it.base.rows[0]
    return chance(row["metric"], row["labels"], row["groups"])


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


_GAIN = "gain, points [95%]"
_COLUMNS: dict[str, Callable[[Comparison], str]] = {
    "data": lambda it: it.data,
    "setting": lambda it: setting_name(it.one.setting),
    "rows (train / evaluation)": _sizes,
    "seeds": lambda it: str(it.n_seeds),
    "chance": lambda it: f"{100 * _chance(it):.1f}",
    "pooled": lambda it: score_text(it.pooled),
    "dual head": lambda it: score_text(it.score),
    "score": lambda it: score_text(it.score),
    _GAIN: lambda it: gain_text(it.gain),
    "against pooled, points [95%]": lambda it: gain_text(it.gain),
    "relative gain [95%]": lambda it: relative_text(it.gain),
}


def _rows(columns: Sequence[str], found: Sequence[Comparison], **more: Callable[[Comparison], str]) -> list[list[str]]:
    return [[{**_COLUMNS, **more}[name](it) for name in columns] for it in found]


def point(name: str, it: Any, of: str = "gain", scale: float = 1, seeds: int | None = None, **more: Any) -> Point:
    """A gain, a relative gain or a score as a point of a plot; of one seed the interval knows nothing of others."""
    ends = ("low", "high") if of in ("gain", "mean") else (f"{of}_low", f"{of}_high")
    return Point(name, *(scale * getattr(it, one) for one in (of, *ends)), note="(1 seed)" * (seeds == 1), **more)


def series(name: str, kind: str, points: Sequence[Point]) -> list[Series]:
    """The points that have an interval, if there are any."""
    finite = [it for it in points if math.isfinite(it.high - it.low)]
    return [Series(name, kind, finite)] if finite else []


def forest(title: str, label: str, points: Sequence[Point]) -> list[Plot]:
    """A forest of the points that have an interval, if there are any."""
    return [Plot("forest", title, label, [it], signed=True) for it in series("dual head", "dual_head", points)]


# Pooled against the dual head


def main_table(
    main: Sequence[Comparison], mean: Gain, usual: Mapping[str, Any], apart: Sequence[Comparison] = ()
) -> Table:
    """Pooled against the dual head, a row for each data set and one for their mean."""
    whole, several = [*main, *apart], len(main) > 1
    columns = ["data", "rows (train / evaluation)", "seeds", "chance", "pooled", "dual head", _GAIN]
    columns.append("relative gain [95%]")
    rows = _rows(columns, whole)
    points = [point(it.data, it.gain, "relative", seeds=it.n_seeds) for it in whole]
    notes = _about(whole, usual)
    notes.append("Scores are means in % ± the standard deviation over seeds; gains are paired by seed and test item.")
    notes.append("Chance is one answer for all rows, the best one; for question accuracy a candidate at random.")
    for name, side in (("pooled", "pooled"), ("the dual head", "score")):
        sides = [(it.data, getattr(it, side), _chance(it)) for it in whole]
        down = [it for it, score, level in sides if score.low <= level <= score.high]
        below = [it for it, score, level in sides if score.high < level]
        notes += _told(f"The interval of {name} reaches down to chance on {{}}.", down)
        notes += _told(f"The interval of {name} lies below chance on {{}}.", below)
    zero = [it.data for it in whole if it.gain.baseline_score == 0]
    notes += _told("Over a baseline of 0 (in {}) there is no relative gain, nor a mean with it.", zero)
    where = "Below the mean, and not in it" if several else f"Beside {main[0].data}, of which the headline is"
    notes += _told(f"{where}: {{}}.", [it.data for it in apart])
    title = "Relative gain of the dual head over pooled, by data set"
    if several:
        averages = [f"{100 * it:.1f}" for it in (mean.baseline_score, mean.score)]
        name = f"mean of {len(main)}"
        rows.insert(len(main), [name, "", "", "", *averages, gain_text(mean), relative_text(mean)])
        points.insert(len(main), point(name, mean, "relative", kind="mean"))
        low, high = signed(mean.relative_of_means_low), signed(mean.relative_of_means_high)
        notes.append(f"Relative gain of the macro averages: {signed(mean.relative_of_means)}% [{low}, {high}].")
        if len({it.n_seeds == 1 for it in main}) > 1:
            notes.append("In the mean's interval the seeds of sets with one differ as those of the other sets do.")
        title += "".join(_told("; not in the mean: {}", [it.data for it in apart]))
    plots, place = forest(title, "relative gain over pooled, %", points), len(main) if several else None
    return Table("main", "Pooled against dual head", columns, rows, notes, plots, mean=place)


# Settings and options


def settings_table(by_setting: Mapping[str, Sequence[Comparison]], usual: Mapping[str, Any]) -> Table:
    """The ablations and controls of each data set, against pooled and against the dual head."""
    rows, plots, few, decoded, unlike = [], [], [], [], False
    for data, found in by_setting.items():
        dual = next((it for it in found if it.group.setting == "dual_head"), None)
        base = max((it for it in found if it.pooled is not None), key=lambda it: it.n_seeds, default=None)
        if base is not None:
            rows.append([data, "pooled", str(base.n_seeds), score_text(base.pooled), DASH, DASH])
        for it in found:
            over_dual = against(it.group, dual.group) if dual is not None and it is not dual else None
            name = setting_name(it.group.setting)
            rows.append([data, name, str(it.n_seeds), score_text(it.score), gain_text(it.gain), gain_text(over_dual)])
            unlike |= any(side is not None and side.n_seeds != it.n_seeds for side in (base, dual))
            decoded += _decoded(it)
            if it.gain is not None and it.gain.n_items < it.pooled.n_items:
                few.append(f"{data}, {name} {it.gain.n_items} of {it.pooled.n_items}")
        points = [
            point(setting_name(it.group.setting), it.gain, seeds=it.n_seeds, kind=it.group.setting)
            for it in found
            if it.gain is not None
        ]
        its = series(data, "dual_head", points)
        plots += [Plot("bars", data, "gain over pooled, points", its, signed=True)] if its else []
    notes = _about([it for found in by_setting.values() for it in found], usual)
    if unlike:
        notes.append(
            "Gains are on the seeds that both sides have: where these differ, they are not those of the scores."
        )
    notes += _told("Tested on the first items alone, and compared on those: {}.", few, "; ") + decoded
    columns = ["data", "setting", "seeds", "score", "against pooled, points [95%]", "against dual head, points [95%]"]
    return Table("settings", "Ablations and controls", columns, rows, notes, plots)


def axis_table(axis: str, by_data: Mapping[str, Sequence[Comparison]], usual: Mapping[str, Any]) -> Table:
    """Pooled and the dual head at each value of an option."""

    def value(it: Comparison) -> str:
        given = it.config.get(axis)
        return "all" if axis == "train_size" and given is None else shown(given)

    name, of_all, plots = axis.replace("_", " "), [it for found in by_data.values() for it in found], []
    # A curve through values that are in an order, and no curve through names.
    joined = all(_number(it.config.get(axis)) is not None for it in of_all if it.config.get(axis) != "auto")
    kinds = {"dual_head": ("gain", "gain", 1)}
    about = {"label": "gain over pooled, points", "x_label": name, "zero": True, "signed": True}
    if axis == "train_size":
        kinds = {"pooled": ("pooled", "mean", 100), "dual_head": ("score", "mean", 100)}
        about = {"label": "score, %", "x_label": "training rows" + " (log scale)" * joined, "log": joined}
    for data, found in by_data.items():
        curves = []
        for setting, (side, of, scale) in kinds.items():
            its = [(value(it), getattr(it, side), it.n_seeds, _number(it.config.get(axis))) for it in found]
            points = [point(text, it, of, scale, seeds, x=x) for text, it, seeds, x in its if it is not None]
            curves += series(setting_name(setting), setting, points)
        plots += [Plot("curve", data, series=curves, joined=joined, **about)] if curves else []
    title, notes = AXES.get(axis, name.capitalize()), _about(of_all, {**usual, axis: None})
    if any(it.config.get(axis) is None for it in of_all) and axis != "train_size":
        notes.append("Default is what dhrd train takes where the option is not given (dhrd train --help-all).")
    columns = ["data", name, "seeds", "pooled", "dual head", _GAIN]
    return Table(axis, title, columns, _rows(columns, of_all, **{name: value}), notes, plots)


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
    """The runs that no other table has: first those that differ in several options and have their pooled runs."""
    paired = [it for group in others if group.setting != "pooled" if (it := compared(group, groups)).gain is not None]
    taken = {side.key() for it in paired for side in it.sides}
    lone = [it for it in others if it.key() not in taken]
    lone = [compared(None, groups, it) if it.setting == "pooled" else compared(it, groups) for it in lone]

    def options(it: Comparison) -> str:
        return options_text({name: value for name, value in it.config.items() if name not in usual}) or DASH

    columns = ["data", "setting", "options", "seeds"]
    full, short = [*columns, "pooled", "score", "against pooled, points [95%]"], [*columns, "score"]
    rows = _rows(full, paired, options=options)
    tables = [Table("recipes", "Several options at once", full, rows, _seeds_note(paired))]
    rows = _rows(short, lone, options=options, score=lambda it: score_text(it.score or it.pooled))
    tables.append(Table("others", "All other cells", short, rows, _seeds_note(lone), folded=True))
    return [it for it in tables if it.rows]


# What stands behind a table


def _about(found: Sequence[Comparison], known: Mapping[str, Any]) -> list[str]:
    """The options that are not known, by data set where they differ; the metric; where an interval is over items alone."""
    configs: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, None]] = {}
    for it in found:
        metrics.setdefault(it.metric, {})[it.data] = None
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
    of_data = {name: f" ({', '.join(its)})" if len(metrics) > 1 else "" for name, its in metrics.items()}
    notes.append(f"The score is {'; '.join(f'{metric_name(name)}{its}' for name, its in of_data.items())}.")
    return notes + _seeds_note(found)


def _told(text: str, names: Sequence[str], between: str = ", ") -> list[str]:
    return [text.format(between.join(names))] if names else []


def _decoded(it: Comparison) -> list[str]:
    """What became of decoded answers, where the runs know it."""
    runs = [row.get("metrics") or {} for row in it.group.rows]
    shares, tokens = ([run[name] for run in runs if name in run] for name in ("unreadable", "new_tokens"))
    if it.group.setting != "cot_decoding" or not shares or not tokens:
        return []
    lost, written = f"{100 * fmean(shares):.1f}%", f"{fmean(tokens):.0f}"
    return [f"CoT decoding on {it.data}: {lost} of the answers held no label; {written} tokens written a row."]


def _seeds_note(found: Sequence[Comparison]) -> list[str]:
    notes = [f"Not compared: {it.problem}." for it in found if it.problem]
    few = dict.fromkeys(it.data for it in found if it.gain is not None and it.gain.n_items == 1)
    notes += _told("One test item (in {}) has no interval.", [*few])
    left_out = sum(it.left_out for it in found)
    if left_out:
        notes.append(f"On the seeds that all values have; cells of other seeds left out: {left_out}.")
    single = list(dict.fromkeys(it.data for it in found if it.n_seeds == 1))
    if single and all(it.n_seeds == 1 for it in found):
        notes.append("One seed: the intervals are over test items alone.")
    elif single:
        notes.append(f"Where there is one seed (in {', '.join(single)}) the interval is over test items alone.")
    return notes
