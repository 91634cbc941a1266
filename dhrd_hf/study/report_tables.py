"""The tables of a report: a study's numbers as text, and the plots of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .comparisons import Comparison, Group, against, compared, shown
from .figures import Plot, Point, Series
from .statistics import CONFIDENCE, Gain, Summary

DASH = "–"
_INTERVAL = "[95%]"
# The options that a reader asks for first.
AXES = {
    "alpha": "Weight of the reasoning loss (alpha)",
    "train_size": "Training rows",
    "classifier_head": "Classification head",
}
_ENGINES = {
    "torch": "pooled",
    "pipeline": "exported, pipeline",
    "onnx": "exported, ONNX Runtime",
    "openvino": "exported, OpenVINO",
    "cot": "CoT decoding",
}


@dataclass(frozen=True)
class Table:
    """A table of the report, and the plots that show it.

    Args:
        name (`str`): `main`, `settings`, the option that varies, `others` or `throughput`.
        title (`str`): For its heading.
        columns (`list[str]`), rows (`list[list[str]]`): Its cells as text, the columns' first.
        notes (`list[str]`): What stands behind it, a sentence each.
        plots (`list[Plot]`): On the page.
        folded (`bool`): Whether it is shown only to who asks for it.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    folded: bool = False


def main_table(main: Sequence[Comparison], mean: Gain, usual: Mapping[str, Any]) -> Table:
    """Pooled against the dual head, a row for each data set and one for their mean.

    Args:
        main (`Sequence[Comparison]`): From [`~dhrd_hf.study.comparisons.main_comparisons`], one at least.
        mean ([`~dhrd_hf.study.statistics.Gain`]): The mean over them.
        usual (`Mapping[str, Any]`): Options that all cells have, which need no mention.

    Returns:
        [`Table`]: with a forest plot.
    """
    rows = [
        [it.data, _sizes(it), str(it.n_seeds), score(it.pooled), score(it.score), gain(it.gain), relative(it.gain)]
        for it in main
    ]
    points = [Point(it.data, it.gain.relative, it.gain.relative_low, it.gain.relative_high) for it in main]
    notes = _about(main, usual)
    notes.append("Scores are means in % ± the standard deviation over seeds; gains are paired by seed and test item.")
    if len(main) > 1:
        rows.append([f"mean of {len(main)}", "", "", "", "", gain(mean), relative(mean)])
        points.append(Point(rows[-1][0], mean.relative, mean.relative_low, mean.relative_high, kind="mean"))
        low, high = signed(mean.relative_of_means_low), signed(mean.relative_of_means_high)
        notes.append(f"Relative gain of the macro averages: {signed(mean.relative_of_means)}% [{low}, {high}].")
    columns = ["data", "rows (train / test)", "seeds", "pooled", "dual head", f"gain, points {_INTERVAL}"]
    finite = [it for it in points if math.isfinite(it.high - it.low)]
    title = "Relative gain of the dual head over pooled, by data set"
    series = [Series("dual head", "dual_head", finite)]
    plot = Plot("forest", title, "relative gain over pooled, %", series, signed=True)
    plots = [plot] if finite else []
    return Table("main", "Pooled against dual head", [*columns, f"relative gain {_INTERVAL}"], rows, notes, plots)


def settings_table(by_setting: Mapping[str, Sequence[Comparison]], usual: Mapping[str, Any]) -> Table:
    """The ablations and controls of each data set, against pooled and against the dual head.

    Args:
        by_setting (`Mapping[str, Sequence[Comparison]]`): From [`~dhrd_hf.study.comparisons.settings_comparisons`].
        usual (`Mapping[str, Any]`): As for [`main_table`].

    Returns:
        [`Table`]: with bars for each data set.
    """
    rows, plots, few = [], [], []
    for data, found in by_setting.items():
        dual = next((it for it in found if it.group.setting == "dual_head"), None)
        base = max((it for it in found if it.pooled is not None), key=lambda it: it.n_seeds, default=None)
        if base is not None:
            rows.append([data, "pooled", str(base.n_seeds), score(base.pooled), DASH, DASH])
        for it in found:
            setting = setting_name(it.group.setting)
            over_dual = against(it.group, dual.group) if dual is not None and it is not dual else None
            rows.append([data, setting, str(it.n_seeds), score(it.score), gain(it.gain), gain(over_dual)])
            if it.gain is not None and it.gain.n_items < it.pooled.n_items:
                few.append(f"{data}, {setting} {it.gain.n_items} of {it.pooled.n_items}")
        points = [
            Point(setting_name(it.group.setting), it.gain.gain, it.gain.low, it.gain.high, kind=it.group.setting)
            for it in found
            if it.gain is not None
        ]
        if points:
            label = "gain over pooled, points"
            plots.append(Plot("bars", data, label, [Series(data, "dual_head", points)], signed=True))
    notes = _about([it for found in by_setting.values() for it in found], usual)
    if few:
        notes.append(f"Tested on the first items alone, and compared on those: {'; '.join(few)}.")
    columns = ["data", "setting", "seeds", "score", f"against pooled, points {_INTERVAL}"]
    columns.append(f"against dual head, points {_INTERVAL}")
    return Table("settings", "Ablations and controls", columns, rows, notes, plots)


def axis_table(axis: str, by_data: Mapping[str, Sequence[Comparison]], usual: Mapping[str, Any]) -> Table:
    """Pooled and the dual head at each value of an option.

    Args:
        axis (`str`): The option.
        by_data (`Mapping[str, Sequence[Comparison]]`): From [`~dhrd_hf.study.comparisons.axis_comparisons`].
        usual (`Mapping[str, Any]`): As for [`main_table`].

    Returns:
        [`Table`]: with a curve for each data set: of scores over train sizes, else of gains.
    """
    name = axis.replace("_", " ")
    of_all = [it for found in by_data.values() for it in found]
    rows = [
        [it.data, _value(axis, it), str(it.n_seeds), score(it.pooled), score(it.score), gain(it.gain)] for it in of_all
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
                Point(_value(axis, it), it.gain.gain, it.gain.low, it.gain.high, _number(it.config.get(axis)))
                for it in found
                if it.gain is not None
            ]
            if points:
                series, label = [Series("dual head", "dual_head", points)], "gain over pooled, points"
                plots.append(Plot("curve", data, label, series, name, zero=True, joined=joined, signed=True))
    columns = ["data", name, "seeds", "pooled", "dual head", f"gain, points {_INTERVAL}"]
    title = AXES.get(axis, name.capitalize())
    return Table(axis, title, columns, rows, _about(of_all, {**usual, axis: None}), plots)


def options_table(tables: Sequence[Table]) -> Table:
    """Several tables of [`axis_table`] as one, for the options of which a reader wants no table each.

    Args:
        tables (`Sequence[Table]`): One at least.

    Returns:
        [`Table`]: with their plots.
    """
    rows = [[row[0], table.columns[1], *row[1:]] for table in tables for row in table.rows]
    plots = [replace(plot, title=f"{plot.title}: {plot.x_label}") for table in tables for plot in table.plots]
    of_all = [note for note in tables[0].notes if all(note in table.notes for table in tables)]
    apart = [(table.columns[1], [note for note in table.notes if note not in of_all]) for table in tables]
    notes = [f"For {name}: {' '.join(its)}" for name, its in apart if its] + of_all
    columns = ["data", "option", "value", *tables[0].columns[2:]]
    return Table("options", "Other options, one at a time", columns, rows, notes, plots)


def others_table(others: Sequence[Group], groups: Sequence[Group], usual: Mapping[str, Any]) -> Table:
    """The cells that no other table has.

    Args:
        others (`Sequence[Group]`): Their groups, one at least.
        groups (`Sequence[Group]`): All groups of the table.
        usual (`Mapping[str, Any]`): As for [`main_table`].

    Returns:
        [`Table`]: folded.
    """
    rows, found = [], []
    for group in others:
        it = compared(None, groups, base=group) if group.setting == "pooled" else compared(group, groups)
        text = options_text({name: value for name, value in group.config.items() if name not in usual}) or DASH
        one = it.score or it.pooled
        rows.append([group.data, setting_name(group.setting), text, str(it.n_seeds), score(one), gain(it.gain)])
        found.append(it)
    columns = ["data", "setting", "options", "seeds", "score", f"against pooled, points {_INTERVAL}"]
    return Table("others", f"All other cells ({len(rows)} kinds)", columns, rows, _seeds_note(found), folded=True)


def throughput_table(measured: Mapping[str, Any]) -> Table:
    """Queries a second of the ways to run a classifier.

    Args:
        measured (`Mapping[str, Any]`): What `dhrd bench throughput --output` wrote.

    Returns:
        [`Table`]: with a plot of accuracy against speed, where accuracy was measured.

    Raises:
        ValueError: if it is not such a file, or nothing was measured.
    """
    its = measured.get("rows")
    if not its or not all(isinstance(it, Mapping) and {"engine", "samples_per_second"} <= it.keys() for it in its):
        raise ValueError("the throughput has no rows: name the file that dhrd bench throughput --output wrote")
    order = its[0].get("sorted")
    its = [it for it in its if it.get("sorted") == order]
    fastest: dict[str, Mapping[str, Any]] = {}
    rows = []
    for it in its:
        name = _ENGINES.get(it["engine"], it["engine"])
        if it["samples_per_second"] > fastest.get(name, it)["samples_per_second"] or name not in fastest:
            fastest[name] = it
        found = _accuracy(it)
        accuracy = DASH if found is None else f"{found[0]:.1f} [{found[1]:.1f}, {found[2]:.1f}]"
        speed = f"{_speed(it['samples_per_second'])} ({_speed(it['low'])} to {_speed(it['high'])})"
        rows.append([name, str(it["batch_size"]), speed, _ratio(it), accuracy, f"{it['rows']:,}"])
    points = {
        name: Point(name, *found, x=it["samples_per_second"])
        for name, it in fastest.items()
        if (found := _accuracy(it)) is not None
    }
    kinds = {name: engine for engine, name in _ENGINES.items()} | {
        "pooled": "dual_head",
        "CoT decoding": "cot_decoding",
    }
    series = [Series(name, kinds.get(name, "other"), [point]) for name, point in points.items()]
    rounds = f"medians of {measured.get('rounds')} rounds (slowest to fastest)"
    notes = [
        f"{measured.get('model')} on {measured.get('data')}; {rounds}, rows {'sorted by length' if order else 'as given'}."
    ]
    if not measured.get("complete", True):
        notes.append(f"It was interrupted: {measured.get('repeats')} rounds were asked for.")
    decoded = fastest.get(_ENGINES["cot"], {})
    if decoded.get("new_tokens_per_row") is not None:
        unreadable = f"{decoded['unreadable']} of {decoded['rows']} answers held no label"
        notes.append(f"CoT decoding wrote {decoded['new_tokens_per_row']:.0f} tokens a row; {unreadable}.")
    notes += [f"Machine: {measured['machine']}."] if measured.get("machine") else []
    plots = []
    if series:
        title = "Accuracy against speed, each way with its fastest batch size"
        plots.append(Plot("scatter", title, "accuracy, %", series, "queries a second (log scale)"))
    columns = ["way", "batch size", "queries a second", "speed / pooled", f"accuracy, % {_INTERVAL}", "rows"]
    return Table("throughput", "Throughput", columns, rows, notes, plots)


# Numbers as text


def score(it: Summary | None) -> str:
    """A mean and its deviation over seeds, in percent.

    Args:
        it ([`~dhrd_hf.study.statistics.Summary`], *optional*): The score.

    Returns:
        `str`: such as `70.1 ± 1.2`; with one seed the deviation is a dash, and all of it where there is no score.
    """
    if it is None:
        return DASH
    return f"{100 * it.mean:.1f} ± {DASH if it.sd is None else f'{100 * it.sd:.1f}'}"


def gain(it: Gain | None) -> str:
    """A gain in points with its interval.

    Args:
        it ([`~dhrd_hf.study.statistics.Gain`], *optional*): The gain.

    Returns:
        `str`: such as `+1.2 [-0.3, +2.7]`, or a dash.
    """
    return DASH if it is None else f"{signed(it.gain)} [{signed(it.low)}, {signed(it.high)}]"


def relative(it: Gain, digits: int = 1) -> str:
    """A relative gain with its interval.

    Args:
        it ([`~dhrd_hf.study.statistics.Gain`]): The gain.
        digits (`int`, *optional*, defaults to 1): Behind the point.

    Returns:
        `str`: such as `+1.2% [-0.3, +2.7]`.
    """
    low, high = signed(it.relative_low, digits), signed(it.relative_high, digits)
    return f"{signed(it.relative, digits)}% [{low}, {high}]"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and no minus before a zero.

    Args:
        value (`float`): The number.
        digits (`int`, *optional*, defaults to 1): Behind the point.

    Returns:
        `str`: such as `+1.2`; a dash for what is not a number.
    """
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def setting_name(setting: str) -> str:
    """A setting in words.

    Args:
        setting (`str`): As in the table.

    Returns:
        `str`: such as `dual head`.
    """
    return {"cot_decoding": "CoT decoding"}.get(setting, setting.replace("_", " "))


def options_text(config: Mapping[str, Any]) -> str:
    """Options in words.

    Args:
        config (`Mapping[str, Any]`): Names and values; None is one that was not set.

    Returns:
        `str`: such as `alpha 0.5, lora true`.
    """
    return ", ".join(f"{name} {shown(it)}" for name, it in config.items() if it is not None)


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(it: Mapping[str, Any]) -> str:
    if it.get("ratio") is None or it["engine"] == "torch":
        return DASH
    middle, low, high = (it[name] for name in ("ratio", "ratio_low", "ratio_high"))
    if middle < 0.1:  # 1/96 is read more easily than 0.0104
        return f"1/{1 / middle:.0f} (1/{1 / low:.0f} to 1/{1 / high:.0f})"
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _accuracy(it: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Accuracy in percent with Wilson's interval."""
    from scipy.stats import binomtest

    if it.get("accuracy") is None:
        return None
    found = binomtest(round(it["accuracy"] * it["rows"]), it["rows"]).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * it["accuracy"], 100 * float(found.low), 100 * float(found.high)


def _sizes(it: Comparison) -> str:
    train = sorted({row["train_rows"] for side in (it.group, it.base) for row in side.rows})
    return f"{DASH.join(f'{size:,}' for size in dict.fromkeys((train[0], train[-1])))} / {it.gain.n_items:,}"


def _value(axis: str, it: Comparison) -> str:
    value = it.config.get(axis)
    return "all" if axis == "train_size" and value is None else shown(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _score_point(axis: str, at: Comparison, it: Summary) -> Point:
    return Point(_value(axis, at), 100 * it.mean, 100 * it.low, 100 * it.high, _number(at.config.get(axis)))


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


def metric_name(metric: str) -> str:
    """A metric in words.

    Args:
        metric (`str`): One of [`~dhrd_hf.study.metrics.METRICS`].

    Returns:
        `str`: such as `the mean of macro F1 and accuracy`.
    """
    words = {"macro_f1": "macro F1", "f1a": "F1a", "em": "exact match"}
    parts = [words.get(part, part.replace("_", " ")) for part in metric.split("+")]
    return f"the mean of {' and '.join(parts)}" if len(parts) > 1 else parts[0]


def _seeds_note(found: Sequence[Comparison]) -> list[str]:
    single = list(dict.fromkeys(it.data for it in found if it.n_seeds == 1))
    if not single:
        return []
    if all(it.n_seeds == 1 for it in found):
        return ["One seed: the intervals are over test items alone."]
    return [f"Where there is one seed (in {', '.join(single)}) the interval is over test items alone."]
