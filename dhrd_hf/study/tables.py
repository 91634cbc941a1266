"""The tables of a report: a study's numbers as people read them, and the plots of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from ..figures import Plot, Point, Series
from .metrics import OF_LOGITS, chance
from .statistics import Gain, Pair, Summary
from .table import baseline_of, distinct

DASH = "–"
# The options that a reader asks for first.
AXES = {
    "alpha": "Weight of the reasoning loss (alpha)",
    "train_size": "Training rows",
    "classifier_head": "Classification head",
}
_WORDS = {"cot_decoding": "CoT decoding", "macro_f1": "macro F1", "f1a": "F1a", "em": "exact match"}


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
    mean: int | None = None  # the row that is a mean of those above


# Numbers and names as people read them


def shown(value: Any) -> str:
    """A value as people read and type it."""
    if value is None or isinstance(value, bool):
        return "default" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) and abs(value) < 1e6 else str(value)


def words(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def options_text(config: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """Options in words, those that are known elsewhere left out."""
    kept = {name: it for name, it in config.items() if it is not None and name not in but}
    return ", ".join(f"{name} {shown(it)}" for name, it in kept.items())


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and no minus before a zero."""
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def gain_text(it: Gain | None, of: str = "gain", digits: int = 1) -> str:
    """A gain with its interval; relative ones are in percent."""
    if it is None or math.isnan(getattr(it, of)):
        return DASH
    value, low, high = (signed(value, 3 if it.metric in OF_LOGITS else digits) for value in _ends(it, of))
    return f"{value}{'' if of == 'gain' else '%'} [{low}, {high}]"


def _ends(it: Any, of: str) -> list[float]:
    between = "" if of in ("gain", "mean") else f"{of}_"
    return [getattr(it, name) for name in (of, f"{between}low", f"{between}high")]


def _score(it: Summary | None) -> str:
    return DASH if it is None else f"{100 * it.mean:.1f} ± {DASH if it.sd is None else f'{100 * it.sd:.1f}'}"


def _sizes(it: Pair) -> str:
    train, tested = sorted({row["train_rows"] for row in it.runs}), min(len(row["labels"]) for row in it.runs)
    return f"{DASH.join(f'{size:,}' for size in dict.fromkeys((train[0], train[-1])))} / {tested:,}"


def _chance(it: Pair) -> float:
    return chance(it.metric, it.base.rows[0]["labels"], it.base.rows[0]["groups"])


_GAIN, _OVER_POOLED = "gain, points [95%]", "against pooled, points [95%]"
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
    "relative gain [95%]": lambda it: gain_text(it.gain, of="relative"),
}


def _rows(columns: Sequence[str], pairs: Sequence[Pair], **more: Callable[[Pair], str]) -> list[list[str]]:
    return [[(more.get(name) or _COLUMNS[name])(it) for name in columns] for it in pairs]


def point(name: str, it: Any, of: str = "gain", seeds: int | None = None, scale: float = 1, **more: Any) -> Point:
    """A gain, a relative gain or a score as a point of a plot; of one seed the interval knows nothing of others."""
    return Point(name, *(scale * end for end in _ends(it, of)), note="(1 seed)" * (seeds == 1), **more)


def plots(form: str, title: str, label: str, series: Mapping[str, Sequence[Point]], **more: Any) -> list[Plot]:
    """A plot of the points that have an interval, by their setting, if there are any."""
    finite = {kind: [it for it in points if math.isfinite(it.high - it.low)] for kind, points in series.items()}
    drawn = [Series(title if form == "bars" else words(kind), kind, its) for kind, its in finite.items() if its]
    return [Plot(form, title, label, drawn, **more)] if drawn else []


# Pooled against the dual head


def main_table(main: Sequence[Pair], mean: Gain, usual: Mapping[str, Any], apart: Sequence[Pair] = ()) -> Table:
    whole, several = [*main, *apart], len(main) > 1
    columns = ["data", "rows (train / evaluation)", "seeds", "chance", "pooled", "dual head", _GAIN]
    columns.append("relative gain [95%]")
    rows = _rows(columns, whole)
    points = [point(it.data, it.gain, "relative", it.n_seeds) for it in whole]
    notes = _about(whole, usual)
    notes.append("Scores are means in % ± the standard deviation over seeds; gains are paired by seed and test item.")
    notes.append("Chance is one answer for all rows, the best one; for question accuracy a candidate at random.")
    for name, side in (("pooled", "pooled"), ("the dual head", "score")):
        sides = [(it.data, getattr(it, side), _chance(it)) for it in whole]
        down = [it for it, score, level in sides if score.low <= level <= score.high]
        notes += told(f"The interval of {name} reaches down to chance on {{}}.", down)
        below = [it for it, score, level in sides if score.high < level]
        notes += told(f"The interval of {name} lies below chance on {{}}.", below)
    zero = [it.data for it in whole if it.gain.baseline_score == 0]
    notes += told("Over a baseline of 0 (in {}) there is no relative gain, nor a mean with it.", zero)
    where = "Below the mean, and not in it" if several else f"Beside {main[0].data}, of which the headline is"
    notes += told(f"{where}: {{}}.", [it.data for it in apart])
    title = "Relative gain of the dual head over pooled, by data set"
    if several:
        averages = [f"{100 * it:.1f}" for it in (mean.baseline_score, mean.score)]
        name, gains = f"mean of {len(main)}", [gain_text(mean), gain_text(mean, of="relative")]
        rows.insert(len(main), [name, "", "", "", *averages, *gains])
        points.insert(len(main), point(name, mean, "relative", kind="mean"))
        notes.append(f"Relative gain of the macro averages: {gain_text(mean, of='relative_of_means')}.")
        if len({it.n_seeds == 1 for it in main}) > 1:
            notes.append("In the mean's interval the seeds of sets with one differ as those of the other sets do.")
        title += "".join(told("; not in the mean: {}", [it.data for it in apart]))
    drawn = plots("forest", title, "relative gain over pooled, %", {"dual_head": points}, signed=True)
    place = len(main) if several else None
    return Table("main", "Pooled against dual head", columns, rows, notes, drawn, mean=place)


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
        data, points = pairs[0].data, []
        for it in pairs:
            name = words(it.group.setting)
            unlike |= any(side is not None and side.n_seeds != it.n_seeds for side in (base, dual))
            decoded += _decoded(it)
            if it.gain:
                points.append(point(name, it.gain, seeds=it.n_seeds, kind=it.group.setting))
                if it.gain.n_items < it.pooled.n_items:
                    few.append(f"{data}, {name} {it.gain.n_items} of {it.pooled.n_items}")
        drawn += plots("bars", data, "gain over pooled, points", {"dual_head": points}, signed=True)
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
                point(value(it), of_side, of, it.n_seeds, scale, x=number(it.config.get(axis)))
                for it in pairs
                if (of_side := getattr(it, side))
            ]
            for setting, (side, of, scale) in kinds.items()
        }
        drawn += plots("curve", pairs[0].data, series=series, joined=joined, **about)
    notes = _about(of_all, {**usual, axis: None})
    if any(it.config.get(axis) is None for it in of_all) and axis != "train_size":
        notes.append("Default is what dhrd train takes where the option is not given (dhrd train --help-all).")
    columns = ["data", name, "seeds", "pooled", "dual head", _GAIN]
    rows = _rows(columns, of_all, **{name: value})
    return Table(axis, AXES.get(axis, name.capitalize()), columns, rows, notes, drawn)


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


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


def told(text: str, names: Iterable[str], between: str = ", ") -> list[str]:
    """A note on names, if there are any."""
    said = between.join(filter(None, names))
    return [text.replace("{}", said)] if said else []


def _about(pairs: Sequence[Pair], known: Mapping[str, Any]) -> list[str]:
    """The options that are not known, by data set where they differ; the metric; where an interval is over items alone."""
    configs: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, None]] = {}
    for it in pairs:
        metrics.setdefault(it.metric, {})[it.data] = None
        its = {name: value for name, value in it.config.items() if name not in {*known, *it.unlike}}
        configs.setdefault(it.data, its)
    same = {name: its[0] for name, its in distinct(configs.values()).items() if len(its) == 1}
    notes = told("Options: {}.", [options_text(same)])
    for data, config in configs.items():
        notes += told(f"{data}: {{}}.", [options_text(config, same)])
    scores = []
    for metric, its in metrics.items():
        name = " and ".join(map(words, metric.split("+")))
        on = f" ({', '.join(its)})" if len(metrics) > 1 else ""
        scores.append(f"{'the mean of ' if '+' in metric else ''}{name}{on}")
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
    left_out = sum(it.left_out for it in pairs)
    if left_out:
        notes.append(f"On the seeds that all values have; cells of other seeds left out: {left_out}.")
    single = dict.fromkeys(it.data for it in pairs if it.n_seeds == 1)
    if single and all(it.n_seeds == 1 for it in pairs):
        return [*notes, "One seed: the intervals are over test items alone."]
    return notes + told("Where there is one seed (in {}) the interval is over test items alone.", single)
