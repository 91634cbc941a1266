"""What a study found: which of its runs are compared, and the one source of the numbers in its Markdown and on its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from ..pages.study import Report, number, options_text, shown, told, words
from ..pages.throughput import throughput_table
from . import tables
from .groups import (
    NAMED,
    OF_REASONING,
    Group,
    baseline_of,
    comparable,
    differ_by_setting,
    distinct,
    grouped,
    latest,
)
from .options import hint
from .plan import SETTINGS, Run
from .results import Row, together
from .statistics import Gain, Pair, difference, gain_of
from .tables import AXES, gain_text, own_options

_OF_ROWS = ("study", "model", "data", "seed")


def build_report(
    rows: Iterable[Row],
    *,
    throughput: Mapping[str, Any] | None = None,
    where: Mapping[str, str] | None = None,
    not_in_mean: Sequence[str] = (),
    commands: Sequence[str] = (),
    planned: Sequence[Run] = (),
) -> Report:
    rows, where = list(rows), dict(where or {})
    kept, twice = _asked_for(rows, where)
    studies = _values(kept, "study")
    groups = grouped(kept, [row for row in rows if row["study"] in studies])
    usual, options = _usual(groups), {name: it for name, it in where.items() if name.rstrip("!") not in _OF_ROWS}
    # Which are compared.
    by_data, apart = together(groups, lambda it: it.data), set(not_in_mean)
    candidates = [it for here in by_data if (it := _main_pair(here, options))]
    known = list(dict.fromkeys(str(row["data"]) for row in rows))
    for name in not_in_mean:
        if name not in known:
            raise ValueError(f"--not-in-mean {name}: there is no data set {name!r}{hint(name, known)}")
    if candidates and all(it.data in apart for it in candidates):
        raise ValueError(f"--not-in-mean {','.join(not_in_mean)} leaves no data set for the mean: name fewer")
    whole = [it for it in candidates if it.gain]
    # One test item has no interval, and would leave the mean without one.
    single = {it.data for it in whole if it.gain.n_items == 1}
    apart |= single if {it.data for it in whole} - apart - single else set()
    main, beside = ([it for it in whole if (it.data in apart) == out] for out in (False, True))
    mean = gain_of(main, options={}) if main else None
    by_setting = [its for here in by_data if (its := _by_setting(here, options))]
    by_axis = _axes(by_data, options)
    seen = [candidates, *by_setting, *chain(*by_axis.values())]
    taken = {side.key() for pairs in seen for it in pairs for side in (it.group, it.base) if side}
    others = [_paired(it, groups) for it in groups if it.key() not in taken]
    # What stands in the tables.
    of_axes = {name: tables.axis_table(name, found, usual) for name, found in by_axis.items()}
    minor = [it for name, it in of_axes.items() if name not in AXES]
    found = [
        *([tables.main_table(main, usual, beside), tables.scores_table(main, beside)] if main else []),
        tables.transfer_table(whole),
        tables.power_table(main),
        *([tables.settings_table(by_setting, usual)] if by_setting else []),
        *(of_axes[name] for name in AXES if name in of_axes),
        *([tables.options_table(minor)] if minor else []),
        tables.training_table(whole),
        *([throughput_table(throughput)] if throughput is not None else []),
    ]
    found = [it for it in found if it.rows]
    found += [replace(it, folded=bool(found) and it.folded) for it in tables.others_tables(others, usual)]
    # What is told beside them.
    notes = [f"Not compared: {it.problem}." for it in candidates if it.problem]
    notes += told("Other rows under the same name, which are never averaged: {}.", several_data(groups))
    # Also what this report leaves out was run.
    of_model = [row for row in rows if str(row.get("model")) == str(kept[0].get("model"))]
    notes += [*_not_run(grouped(latest(of_model)[0]), throughput), *_left(planned, rows), *_facts(kept, usual)]
    done = sum(row["status"] == "done" for row in kept)
    counts = f"{done} cell{'s' * (done != 1)} done, {len(kept) - done} failed, {unpaired(groups)} without one to be paired with"
    counts += f"; {twice} stood twice, of which the later counts." if twice else "."
    return Report(", ".join(studies), _headline(main, mean), found, counts, notes, list(commands))


# Which runs are reported, and which are compared


def _asked_for(rows: list[Row], where: Mapping[str, str]) -> tuple[list[Row], int]:
    """The latest of the study, model, data and seed that were asked for, and how many stood twice; of options only that they are there."""
    if not rows:
        raise ValueError("the table has no rows: there is nothing to report yet")
    options = dict.fromkeys([*NAMED, *(name for row in rows for name in row.get("options") or {})])
    known, found = [*_OF_ROWS, *options], rows
    for name, typed in where.items():
        option, asked = name.rstrip("!"), f"--where {name}={typed}"
        if option not in known:
            raise ValueError(f"{asked}: there is no {option!r}. There are {', '.join(known)}")
        has = [row for row in rows if option not in OF_REASONING or row["setting"] != "pooled"]
        values = [{**(row.get("options") or {}), **row}.get(option) for row in has]
        if not any(meets(it, name, typed) for it in values):
            raise ValueError(f"{asked}: no cell has it. There are {', '.join(dict.fromkeys(map(shown, values)))}")
        if option in _OF_ROWS:
            found = [row for row in found if meets(row.get(option), name, typed)]
    if not found:
        raise ValueError(f"no cell has {' and '.join(f'{name}={typed}' for name, typed in where.items())}")
    kept, twice = latest(found)
    if all(row["status"] != "done" for row in kept):
        raise ValueError(f"all {len(kept)} cells failed, the first with: {kept[0].get('error') or 'no message'}")
    models = _values(kept, "model")
    if len(models) > 1:
        several = f"{len(models)} models ({', '.join(models)})"
        raise ValueError(f"the table has results of {several}: say which with --where model={models[0]}")
    return kept, twice


def meets(value: Any, name: str, typed: str) -> bool:
    """Whether a value of the table is one that was asked for."""

    def same(one: str) -> bool:
        try:
            return shown(value) == one or (not isinstance(value, bool) and float(value) == float(one))
        except (TypeError, ValueError):
            return False

    return any(map(same, (typed, *typed.split(",")))) != name.endswith("!")


def _fits(group: Group, where: Mapping[str, str], but: str | None = None) -> bool:
    """Whether the options of a group are those that were asked for; one of them, and those it can't have, may have any value."""
    asked = [(name.rstrip("!"), name, typed) for name, typed in where.items()]
    free = (but, *(OF_REASONING if group.setting == "pooled" else ()))
    return all(option in free or meets(group.config.get(option), name, typed) for option, name, typed in asked)


def _paired(group: Group, here: Sequence[Group], left_out: int = 0, where: Mapping[str, str] | None = None) -> Pair:
    """A group beside the pooled runs of its data set that share its seeds and, unless each side has its own, its options."""
    if group.setting == "pooled":
        return Pair(None, group)
    found = Pair(group, baseline_of(group, here), left_out)
    return found if not found.unlike or _fits(found.base, where or {}) else Pair(group, None, left_out)


def _largest(its: Iterable[list[Group]]) -> list[Group]:
    """The most groups, of these with the most runs, of equal ones the first."""
    return max(its, key=lambda groups: (len(groups), sum(len(it.rows) for it in groups)), default=[])


def _main_pair(here: Sequence[Group], where: Mapping[str, str]) -> Pair | None:
    """Pooled against the dual head on a data set: the options with the most seeds that both have."""
    duals = [_paired(it, here, where=where) for it in here if it.setting == "dual_head" and _fits(it, where)]
    return max((it for it in duals if it.base), key=lambda it: it.n_seeds, default=None)


def _by_setting(here: Sequence[Group], where: Mapping[str, str]) -> list[Pair]:
    """Where a data set has ablations, controls or CoT decoding: the dual head and these, with the same options."""
    trained = [it for it in here if it.setting not in ("pooled", "cot_decoding") and _fits(it, where)]
    alike = together(trained, lambda it: it.key("setting"))
    best = _largest(its for its in alike if any(it.setting != "dual_head" for it in its))
    # Its alpha and beta are its own; beside the ablations, or else beside the dual head, that were trained alike.
    decoded = [it for it in here if it.setting == "cot_decoding" and (not best or differ_by_setting(it, best[0]))]
    decoder = _largest([it] for it in decoded)
    if decoder and not best:
        best = _largest([it] for it in trained if differ_by_setting(it, decoder[0]))
    order = {name: place for place, name in enumerate(SETTINGS)}
    chosen = sorted([*best, *decoder], key=lambda it: order.get(it.setting, len(order)))
    return [_paired(it, here, where=where) for it in chosen] if {it.setting for it in chosen} - {"dual_head"} else []


def _axes(by_data: Sequence[Sequence[Group]], where: Mapping[str, str]) -> dict[str, list[list[Pair]]]:
    """The options of which a data set has several values with all else the same, in the order of a report, and its pairs."""
    names = dict.fromkeys([*AXES, *(name for here in by_data for it in here for name in it.config)])
    found = {name: [its for here in by_data if (its := _by_axis(here, name, where))] for name in names}
    return {name: by_data for name, by_data in found.items() if by_data}


def _by_axis(here: Sequence[Group], axis: str, where: Mapping[str, str]) -> list[Pair]:
    """The dual head and pooled on a data set at each value of an option, all else the same."""

    def in_order(it: Pair) -> tuple[bool, float, str]:
        value = number(it.config.get(axis))
        return value is None, value or 0.0, shown(it.config.get(axis)) if value is None else ""

    family = _family(here, axis, where)
    # On the seeds that all have beside pooled: one seed may be better than another by more than one value of an option.
    seeds = {it: _paired(it, here).one.seeds for it in family if it.setting != "pooled"}
    common = set.intersection(*seeds.values()) if seeds else set()
    kept = {it: it.only(common or own) for it, own in seeds.items()}
    pairs = [_paired(some, here, left_out=len(it.rows) - len(some.rows)) for it, some in kept.items()]
    taken = {it.base.key() for it in pairs if it.base}
    if axis not in OF_REASONING:
        pairs += [Pair(None, it) for it in family if it.setting == "pooled" and it.key() not in taken]
    return sorted(pairs, key=in_order)


def _family(here: Sequence[Group], axis: str, where: Mapping[str, str]) -> list[Group]:
    """The dual-head and pooled groups of a data set that differ by one option, with two values of it or more."""
    duals = [it for it in here if it.setting == "dual_head" and _fits(it, where, but=axis)]
    best, but = _largest(together(duals, lambda it: it.key(axis))), (axis, "setting", "eval_rows", *OF_REASONING)
    beside = [it for it in here if best and it.setting == "pooled" and it.key(*but) == best[0].key(*but)]
    # What each side has of its own is no axis.
    if best and all(_paired(it, here).unlike for it in best):
        return []
    values = {shown(it.config.get(axis)) for it in (best if axis in OF_REASONING else [*best, *beside])}
    return [*best, *beside] if len(values) > 1 else []


# What is said beside the tables


def _headline(main: Sequence[Pair], mean: Gain | None) -> list[str]:
    if mean is None:
        return ["No pooled and dual-head cells share data, seed and options, so there is no gain to report."]
    gains = np.concatenate([difference(*it.sides()).mean(1) for it in main])
    # Equal shares of right answers may differ in their last digit.
    ahead, behind = (gains > 1e-7).sum(), (gains < -1e-7).sum()
    same = "data and seed" if any(it.unlike for it in main) else "data, options and seed"
    pairs = f"Ahead in {ahead} of {len(gains)} pairs of runs with the same {same}, "
    pairs += f"level in {len(gains) - ahead - behind}, behind in {behind}."
    counts = Counter(it.n_seeds for it in main)
    most, fewest = max(counts), min(counts)
    over = "test items" if most == 1 else "seeds and test items"
    if fewest == 1 < most:
        over = "test items, and over seeds where there are several"
    seeds = {n: f"{n} seed{'s' * (n != 1)}" for n in sorted(counts, reverse=True)}
    what, of_each = f"Relative gain of the dual head over pooled on {main[0].data}", seeds[most]
    if len(main) > 1:
        what = f"Mean relative gain of the dual head over pooled on {len(main)} data sets"
        of_each = ", ".join(f"{text} on {counts[n]}" for n, text in seeds.items())
    lines = [f"{what} ({of_each}): {gain_text(mean, 'relative', 2)}, paired 95% interval over {over}."]
    lines += own_options(main)
    sure = [it.gain for it in main if it.n_seeds > 1]
    if sure and len(main) > 1:
        above, below = sum(it.low > 0 for it in sure), sum(it.high < 0 for it in sure)
        of = "of them" if len(sure) == len(main) else f"of the {len(sure)} with several seeds"
        lines.append(f"The interval of the gain lies above zero on {above} {of}, below zero on {below}.")
    return [*lines, pairs] if len(gains) > 1 else lines


def unpaired(groups: Sequence[Group]) -> int:
    """How many runs have no partner: pooled ones beside which nothing was run, others without their pooled one."""
    left = 0
    for it in groups:
        others = (other for other in groups if (other.setting == "pooled") != (it.setting == "pooled"))
        left += len(it.seeds.difference(*(other.seeds for other in others if comparable(it, other))))
    return left


def several_data(groups: Sequence[Group]) -> list[str]:
    """Names under which there are several data; answers are decoded of fewer rows of the same."""
    digests = {(it.data, it.named["rows_digest"]) for it in groups}
    sizes = {(it.data, it.named["eval_rows"]) for it in groups if it.setting != "cot_decoding"}
    several = [name for its in (digests, sizes) for name, n in Counter(data for data, _ in its).items() if n > 1]
    return [name for name in dict.fromkeys(it.data for it in groups) if name in several]


def _not_run(groups: Sequence[Group], throughput: Any) -> list[str]:
    settings, varying = {it.setting for it in groups}, _axes(together(groups, lambda it: it.data), {})
    there = {
        "pooled against dual head": any(it.setting == "dual_head" and baseline_of(it, groups) for it in groups),
        **{words(it): it in settings for it in SETTINGS[2:]},
        "several alphas": "alpha" in varying,
        "several train sizes": "train_size" in varying,
        "several heads": "classifier_head" in varying,
        "throughput": throughput is not None,
    }
    return told("Not run: {}.", [name for name, it in there.items() if not it])


def _left(planned: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    ran = {row["cell"] for row in rows}
    left = Counter((run.data, words(run.setting)) for run in planned if run.id not in ran)
    by_data = together(left.items(), lambda it: it[0][0])
    said = [f"{its[0][0][0]} ({', '.join(f'{n} {name}' for (_, name), n in its)})" for its in by_data]
    return told(f"Of the {len(planned)} cells of the plan {left.total()} have not run yet: {{}}.", said)


def _values(rows: Sequence[Row], name: str) -> list[str]:
    return list(dict.fromkeys(str(row[name]) for row in rows if row.get(name)))


def _facts(kept: Sequence[Row], usual: Mapping[str, Any]) -> list[str]:
    frame = pd.DataFrame([row.get("versions") or {} for row in kept])
    versions = [f"{name} {' and '.join(map(str, its.dropna().unique()))}" for name, its in frame.items()]
    whole = [row for row in kept if not row.get("resumed")]
    hours = sum((row.get(f"{part}_seconds") or 0) / 3600 for row in whole for part in ("train", "evaluate"))
    without = f", without the {len(kept) - len(whole)} resumed, of which the last part alone was timed"
    studies, options = _values(kept, "study"), options_text(usual)
    notes = told(f"Cells of {len(studies)} studies: {{}}.", studies if len(studies) > 1 else [])
    notes.append(f"Model {', '.join(_values(kept, 'model'))}{f'; all cells: {options}' if options else ''}.")
    if hours >= 0.1:
        notes.append(f"{hours:.1f} hours of training and evaluation{without if len(whole) < len(kept) else ''}.")
    notes += told("Machine: {}.", _values(kept, "machine"), "; ")
    return notes + told("Versions: {}.", versions)


def _usual(groups: Sequence[Group]) -> dict[str, Any]:
    """The options that all runs have; of those that pooled runs lack, all others."""
    values = distinct(it.config for it in groups)
    trained = distinct(it.config for it in groups if it.setting not in ("pooled", "cot_decoding"))
    values |= {name: its for name, its in trained.items() if name in OF_REASONING}
    return {name: its[0] for name, its in values.items() if len(its) == 1}
