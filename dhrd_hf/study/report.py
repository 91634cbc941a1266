"""What a study found: the one source of the numbers in its Markdown and on its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..figures import draw
from ..pages import style
from .comparisons import Comparison, axes, axis_comparisons, main_comparisons, settings_comparisons
from .measures import power_table, scores_table, throughput_table, training_table, transfer_table
from .options import hint
from .plan import Run, setting_names
from .statistics import Gain, difference, gain_of
from .table import OF_REASONING, Group, baseline_of, grouped, latest, meets, several_data, shown, unpaired
from .tables import (
    AXES,
    Table,
    axis_table,
    main_table,
    options_table,
    options_text,
    others_tables,
    relative_text,
    setting_name,
    settings_table,
)

BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "*": "\\*", "`": "\\`", "](": "]\\(", "\n": " "}
_OF_ROWS = ("study", "model", "data", "seed")


@dataclass(frozen=True)
class Report:
    """What a study found."""

    title: str
    headline: list[str]
    tables: list[Table]
    counts: str
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def build_report(
    rows: Iterable[Mapping[str, Any]],
    *,
    throughput: Mapping[str, Any] | None = None,
    where: Mapping[str, str] | None = None,
    not_in_mean: Sequence[str] = (),
    commands: Sequence[str] = (),
    planned: Sequence[Run] = (),
) -> Report:
    """Compare the runs of a study."""
    rows, where = list(rows), dict(where or {})
    kept, twice = _asked_for(rows, where)
    groups = grouped(kept)
    usual, options = _usual(groups), {name: it for name, it in where.items() if name.rstrip("!") not in _OF_ROWS}
    # Which are compared.
    candidates, apart = main_comparisons(groups, options), _known_data(not_in_mean, rows)
    if candidates and all(it.data in apart for it in candidates):
        raise ValueError(f"--not-in-mean {','.join(not_in_mean)} leaves no data set for the mean: name fewer")
    whole = [it for it in candidates if it.pair is not None]
    # One test item has no interval, and would leave the mean without one.
    single = {it.data for it in whole if it.gain.n_items == 1}
    apart |= single if {it.data for it in whole} - apart - single else set()
    main, beside = ([it for it in whole if (it.data in apart) == out] for out in (False, True))
    mean = gain_of([it.pair for it in main], options={}) if main else None
    by_setting = settings_comparisons(groups, options, _setting_order())
    by_axis = {name: found for name in axes(groups) if (found := axis_comparisons(groups, name, options))}
    # What stands in the tables.
    of_axes = [axis_table(name, found, usual) for name, found in by_axis.items()]
    minor = [it for it in of_axes if it.name not in AXES]
    found = [
        *([main_table(main, mean, usual, beside), scores_table(main, beside)] if main else []),
        transfer_table(whole),
        power_table(main) if main else None,
        settings_table(by_setting, usual) if by_setting else None,
        *(it for it in of_axes if it.name in AXES),
        options_table(minor) if minor else None,
        training_table(whole),
        throughput_table(throughput) if throughput is not None else None,
    ]
    tables = [it for it in found if it is not None]
    seen = [candidates, *by_setting.values(), *(its for found in by_axis.values() for its in found.values())]
    taken = {side.key() for its in seen for it in its for side in it.sides}
    of_others = others_tables([it for it in groups if it.key() not in taken], groups, usual)
    tables += of_others if tables else [replace(it, folded=False) for it in of_others]
    # What is told beside them. Also what this report leaves out was run.
    of_model = grouped(latest(row for row in rows if str(row.get("model")) == str(kept[0].get("model")))[0])
    notes = [f"Not compared: {it.problem}." for it in candidates if it.problem]
    mixed = several_data(groups)
    notes += [f"Other rows under the same name, which are never averaged: {', '.join(mixed)}."] if mixed else []
    notes += [*_not_run(of_model, throughput, planned, rows), *_facts(kept, usual)]
    done = sum(row["status"] == "done" for row in kept)
    counts = f"{done} cell{'s' * (done != 1)} done, {len(kept) - done} failed, {unpaired(groups)} without one to be paired with"
    counts += f"; {twice} stood twice, of which the later counts." if twice else "."
    return Report(", ".join(_values(kept, "study")), _headline(main, mean), tables, counts, notes, list(commands))


def report_markdown(report: Report) -> str:
    """A report as Markdown, for a README."""
    parts = [_escaped(" ".join(report.headline))]
    for table in report.tables:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        body = "\n".join("| " + " | ".join(map(_escaped, cells)) + " |" for cells in lines)
        body += f"\n\n{_escaped(' '.join(table.notes))}" if table.notes else ""
        title = _escaped(table.title)
        folded = f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
        parts.append(folded if table.folded else f"### {title}\n\n{body}")
    parts.append(_escaped(" ".join([report.counts, *report.notes])))
    parts += ["```bash\n" + "\n".join(report.commands) + "\n```"] if report.commands else []
    return "\n\n".join(parts) + "\n"


def report_page(report: Report) -> str:
    """A report as one HTML file with its plots in it, which needs no network and can be sent to anyone."""
    from jinja2 import Environment
    from markupsafe import Markup

    template = (Path(__file__).parents[1] / "pages" / "study.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True)
    # Plots escape their texts themselves.
    told = {
        "style": style(),
        "draw": lambda plot: Markup(draw(plot)),
        "words": ("setting", "option", "options", "way"),
    }
    return environment.from_string(template).render(report=report, **told)


def with_results(readme: str, markdown: str) -> str:
    r"""A README with what stands between its two marker comments replaced."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"expected one line {BEGIN} and below it one line {END}: what is between them is replaced")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    return f"{before}{BEGIN}\n\n{markdown.strip()}\n\n{END}{after}"


def _headline(main: Sequence[Comparison], mean: Gain | None) -> list[str]:
    if mean is None:
        return ["No pooled and dual-head cells share data, seed and options, so there is no gain to report."]
    if len(main) == 1:
        what = f"Relative gain of the dual head over pooled on {main[0].data}"
    else:
        what = f"Mean relative gain of the dual head over pooled on {len(main)} data sets"
    seeds = sorted({it.n_seeds for it in main}, reverse=True)
    over = "test items" if seeds == [1] else "seeds and test items"
    ahead, level, behind = _ahead_level_behind(main)
    pairs = f"Ahead in {ahead} of {ahead + level + behind} pairs of runs with the same data, options and seed, "
    pairs += f"level in {level}, behind in {behind}."
    if len(main) == 1:
        line = f"{what} ({_of_seeds(seeds[0])}): {relative_text(mean, 2)}, paired 95% interval over {over}."
        return [line, pairs] if seeds != [1] else [line]
    of_each = ", ".join(f"{_of_seeds(n)} on {sum(it.n_seeds == n for it in main)}" for n in seeds)
    if len(seeds) > 1 and seeds[-1] == 1:
        over = "test items, and over seeds where there are several"
    lines = [f"{what} ({of_each}): {relative_text(mean, 2)}, paired 95% interval over {over}."]
    sure = [it for it in main if it.n_seeds > 1]
    if sure:
        above, below = (sum(it.gain.low > 0 for it in sure), sum(it.gain.high < 0 for it in sure))
        of = "of them" if len(sure) == len(main) else f"of the {len(sure)} with several seeds"
        lines.append(f"The interval of the gain lies above zero on {above} {of}, below zero on {below}.")
    return [*lines, pairs]


def _ahead_level_behind(main: Sequence[Comparison]) -> tuple[int, int, int]:
    """In how many pairs of runs, of the same seed, a score is above, at and below its baseline's."""
    gains = np.concatenate([difference(*it.pair.sides()).mean(1) for it in main])
    # Equal shares of right answers may differ in their last digit.
    return int((gains > 1e-7).sum()), int((abs(gains) <= 1e-7).sum()), int((gains < -1e-7).sum())


def _of_seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"


def _not_run(groups: Sequence[Group], throughput: Any, planned: Sequence[Run], rows: Sequence[Any]) -> list[str]:
    """What nobody has looked at: whole questions, and the runs of the plan."""
    settings, varying = {it.setting for it in groups}, axes(groups)
    there = {
        "pooled against dual head": any(it.setting == "dual_head" and baseline_of(it, groups) for it in groups),
        **{setting_name(it): it in settings for it in _setting_order()},
        "several alphas": "alpha" in varying,
        "several train sizes": "train_size" in varying,
        "several heads": "classifier_head" in varying,
        "throughput": throughput is not None,
    }
    missing = [name for name, it in there.items() if not it]
    notes, ran = [f"Not run: {', '.join(missing)}."] if missing else [], {row["cell"] for row in rows}
    left: dict[str, Counter] = {}
    for run in planned:
        if run.id not in ran:
            left.setdefault(run.data, Counter())[setting_name(run.setting)] += 1
    if left:
        number = sum(its.total() for its in left.values())
        said = (f"{data} ({', '.join(f'{n} {name}' for name, n in its.items())})" for data, its in left.items())
        notes.append(f"Of the {len(planned)} cells of the plan {number} have not run yet: {', '.join(said)}.")
    return notes


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(row[name]) for row in rows if row.get(name)))


def _facts(kept: Sequence[Mapping[str, Any]], usual: Mapping[str, Any]) -> list[str]:
    """Where the numbers come from."""
    versions: dict[str, dict[str, None]] = {}
    for row in kept:
        for name, it in (row.get("versions") or {}).items():
            versions.setdefault(name, {})[str(it)] = None
    packages = ", ".join(f"{name} {' and '.join(its)}" for name, its in versions.items())
    whole = [row for row in kept if not row.get("resumed")]
    hours = sum((row.get("train_seconds") or 0) + (row.get("evaluate_seconds") or 0) for row in whole) / 3600
    without = f", without the {len(kept) - len(whole)} resumed, of which the last part alone was timed"
    studies, options, machines = _values(kept, "study"), options_text(usual), "; ".join(_values(kept, "machine"))
    told = {
        f"Cells of {len(studies)} studies: {', '.join(studies)}.": len(studies) > 1,
        f"Model {', '.join(_values(kept, 'model'))}{f'; all cells: {options}' if options else ''}.": True,
        f"{hours:.1f} hours of training and evaluation{without if len(whole) < len(kept) else ''}.": hours >= 0.1,
        f"Machine: {machines}.": machines,
        f"Versions: {packages}.": packages,
    }
    return [line for line, it in told.items() if it]


def _setting_order() -> list[str]:
    """The settings besides pooled and dual head; CoT decoding, another way to answer, after the ablations."""
    names = [it for it in setting_names() if it not in ("pooled", "dual_head")]
    return sorted(names, key=lambda it: it == "cot_decoding")


def _usual(groups: Sequence[Group]) -> dict[str, Any]:
    """The options that all runs have; of those that pooled runs lack, all others."""
    found = {}
    for name in dict.fromkeys(name for it in groups for name in it.config):
        others = [it for it in groups if name not in OF_REASONING or it.setting not in ("pooled", "cot_decoding")]
        values = {shown(it.config.get(name)): it.config.get(name) for it in (others or groups)[::-1]}
        if len(values) == 1:
            found[name] = next(iter(values.values()))
    return found


def _known_data(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Data sets that were named, each of which has runs."""
    known = list(dict.fromkeys(str(row["data"]) for row in rows))
    for name in names:
        if name not in known:
            raise ValueError(f"--not-in-mean {name}: there is no data set {name!r}{hint(name, known)}")
    return set(names)


def _asked_for(rows: list[dict[str, Any]], where: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """The latest of the study, model, data and seed that were asked for, and how many stood twice; of options only that they are there."""
    if not rows:
        raise ValueError("the table has no rows: there is nothing to report yet")
    named = dict.fromkeys(["alpha", "beta", "classifier_head", "train_size"])
    known = [*_OF_ROWS, *(named | dict.fromkeys(name for row in rows for name in row.get("options") or {}))]
    found = rows
    for name, typed in where.items():
        option = name.rstrip("!")
        if option not in known:
            raise ValueError(f"--where {name}={typed}: there is no {option!r}. There are {', '.join(known)}")
        has = [row for row in rows if option not in OF_REASONING or row["setting"] != "pooled"]
        values = [{**(row.get("options") or {}), **row}.get(option) for row in has]
        if not any(meets(it, name, typed) for it in values):
            there = ", ".join(dict.fromkeys(map(shown, values)))
            raise ValueError(f"--where {name}={typed}: no cell has it. There are {there}")
        if option in _OF_ROWS:
            found = [row for row in found if meets(row.get(option), name, typed)]
    if not found:
        raise ValueError(f"no cell has {' and '.join(f'{name}={typed}' for name, typed in where.items())}")
    kept, twice = latest(found)
    if all(row["status"] != "done" for row in kept):
        raise ValueError(f"all {len(kept)} cells failed, the first with: {kept[0].get('error') or 'no message'}")
    models = list(dict.fromkeys(str(row.get("model")) for row in kept))
    if len(models) > 1:
        several = f"{len(models)} models ({', '.join(models)})"
        raise ValueError(f"the table has results of {several}: say which with --where model={models[0]}")
    return kept, twice


def _escaped(text: str) -> str:
    """Text that is no markup in Markdown, with the bar that would end a column."""
    for sign, instead in _MARKUP.items():
        text = text.replace(sign, instead)
    return text
