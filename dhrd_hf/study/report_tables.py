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
from .table import Group, n_rows, shown

DASH = "–"
_GAIN = "gain, points [95%]"
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


def main_table(
    main: Sequence[Comparison], mean: Gain, usual: Mapping[str, Any], apart: Sequence[Comparison] = ()
) -> Table:
    """Pooled against the dual head, a row for each data set and one for their mean."""
    whole, several = [*main, *apart], len(main) > 1
    columns = {"data": _data, "rows (train / evaluation)": _sizes, "seeds": _seeds}
    columns |= {
        "chance": lambda it: f"{100 * _chance(it):.1f}",
        "pooled": _pooled,
        "dual head": _score,
        _GAIN: _gained,
    }
    columns |= {"relative gain [95%]": lambda it: relative_text(it.gain)}
    rows = _rows(columns, whole)
    points = [_point(it.data, it, "relative") for it in whole]
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
        points.insert(len(main), Point(name, mean.relative, mean.relative_low, mean.relative_high, kind="mean"))
        low, high = signed(mean.relative_of_means_low), signed(mean.relative_of_means_high)
        notes.append(f"Relative gain of the macro averages: {signed(mean.relative_of_means)}% [{low}, {high}].")
        if len({it.n_seeds == 1 for it in main}) > 1:
            notes.append("In the mean's interval the seeds of sets with one differ as those of the other sets do.")
        title += "".join(_told("; not in the mean: {}", [it.data for it in apart]))
    plots = forest(title, "relative gain over pooled, %", points)
    return Table(
        "main", "Pooled against dual head", [*columns], rows, notes, plots, mean=len(main) if several else None
    )


def forest(title: str, label: str, points: Sequence[Point]) -> list[Plot]:
    """A forest of the points that have an interval, if there are any."""
    finite = [it for it in points if math.isfinite(it.high - it.low)]
    return [Plot("forest", title, label, [Series("dual head", "dual_head", finite)], signed=True)] if finite else []


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
            texts = [_score(it), _gained(it), gain_text(over_dual)]
            rows.append([data, _setting(it), _seeds(it), *texts])
            unlike |= any(side is not None and side.n_seeds != it.n_seeds for side in (base, dual))
            decoded += _decoded(it)
            if it.gain is not None and it.gain.n_items < it.pooled.n_items:
                few.append(f"{data}, {_setting(it)} {it.gain.n_items} of {it.pooled.n_items}")
        points = [replace(_point(_setting(it), it), kind=it.group.setting) for it in found if it.gain is not None]
        if points:
            series = [Series(data, "dual_head", points)]
            plots.append(Plot("bars", data, "gain over pooled, points", series, signed=True))
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
    name = axis.replace("_", " ")
    of_all = [it for found in by_data.values() for it in found]
    columns = {"data": _data, name: lambda it: _value(axis, it), "seeds": _seeds}
    columns |= {"pooled": _pooled, "dual head": _score, _GAIN: _gained}
    # A curve through values that are in an order, and no curve through names.
    joined = all(_number(it.config.get(axis)) is not None for it in of_all if it.config.get(axis) != "auto")
    plots = []
    for data, found in by_data.items():
        kinds = {"dual_head": "gain"}
        about = {"label": "gain over pooled, points", "x_label": name, "zero": True, "signed": True}
        if axis == "train_size":
            kinds = {"pooled": "pooled", "dual_head": "score"}
            about = {"label": "score, %", "x_label": "training rows" + " (log scale)" * joined, "log": joined}
        series = []
        for setting, kind in kinds.items():
            its = [it for it in found if getattr(it, kind) is not None]
            points = [replace(_point(_value(axis, it), it, kind), x=_number(it.config.get(axis))) for it in its]
            series += [Series(setting_name(setting), setting, points)] if points else []
        plots += [Plot("curve", data, series=series, joined=joined, **about)] if series else []
    title, notes = AXES.get(axis, name.capitalize()), _about(of_all, {**usual, axis: None})
    if any(it.config.get(axis) is None for it in of_all) and axis != "train_size":
        notes.append("Default is what dhrd train takes where the option is not given (dhrd train --help-all).")
    return Table(axis, title, [*columns], _rows(columns, of_all), notes, plots)


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
    paired = [it for group in duals if (it := compared(group, groups)).gain is not None]
    taken = {side.key for it in paired for side in (it.base, it.group)}
    lone = [
        compared(*((None, groups, it) if it.setting == "pooled" else (it, groups)))
        for it in others
        if it.key not in taken
    ]

    def options(it: Comparison) -> str:
        return options_text({name: value for name, value in it.config.items() if name not in usual}) or DASH

    columns = {"data": _data, "setting": _setting, "options": options, "seeds": _seeds}
    full = {**columns, "pooled": _pooled, "score": _score, "against pooled, points [95%]": _gained}
    columns["score"] = lambda it: score_text(it.score or it.pooled)
    tables = [Table("recipes", "Several options at once", [*full], _rows(full, paired), _seeds_note(paired))]
    tables.append(Table("others", "All other cells", [*columns], _rows(columns, lone), _seeds_note(lone), folded=True))
    return [it for it in tables if it.rows]


# Cells of a table


def _rows(columns: Mapping[str, Callable[[Comparison], str]], found: Sequence[Comparison]) -> list[list[str]]:
    return [[text(it) for text in columns.values()] for it in found]


def _data(it: Comparison) -> str:
    return it.data


def _setting(it: Comparison) -> str:
    return setting_name(it.one.setting)


def _seeds(it: Comparison) -> str:
    return str(it.n_seeds)


def _pooled(it: Comparison) -> str:
    return score_text(it.pooled)


def _score(it: Comparison) -> str:
    return score_text(it.score)


def _gained(it: Comparison) -> str:
    return gain_text(it.gain)


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


def _point(name: str, it: Comparison, kind: str = "gain") -> Point:
    """A gain, a relative gain, or the score of a side, as a point of a plot."""
    note = "(1 seed)" if it.n_seeds == 1 else ""  # where the interval knows nothing of other seeds
    if kind == "gain":
        return Point(name, it.gain.gain, it.gain.low, it.gain.high, note=note)
    if kind == "relative":
        return Point(name, it.gain.relative, it.gain.relative_low, it.gain.relative_high, note=note)
    side = getattr(it, kind)
    return Point(name, 100 * side.mean, 100 * side.low, 100 * side.high, note=note)


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
        metrics.setdefault(it.one.rows[0]["metric"], {})[it.data] = None
    if len(metrics) == 1:
        notes.append(f"The score is {metric_name(*metrics)}.")
    else:
        said = (f"{metric_name(name)} ({', '.join(its)})" for name, its in metrics.items())
        notes.append(f"The score is {'; '.join(said)}.")
    return notes + _seeds_note(found)


def _told(text: str, names: Sequence[str], between: str = ", ") -> list[str]:
    return [text.format(between.join(names))] if names else []


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
