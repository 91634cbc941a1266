"""What a table of runs says: means over seeds, and paired gains over a baseline, with intervals over seeds and test items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from .groups import OF_REASONING, Group, baseline_of, differ_by_setting, grouped, latest, scored, tried
from .intervals import interval
from .metrics import LOSSES, METRICS
from .results import Row, together


@dataclass(frozen=True)
class Summary:
    """The scores of one setting on one data set, over its seeds.

    Example:

    ```python
    >>> from dhrd_hf.study import Summary
    >>> Summary("cb", "pooled", {}, metric="accuracy", n_seeds=1, n_items=56, mean=0.7, sd=None, low=0.57, high=0.82).mean
    0.7

    ```

    Args:
        data, setting, metric (`str`): As in the table.
        options (`dict[str, Any]`): Of `config` what varies among the table's rows of this data set and setting.
        n_seeds, n_items (`int`): Number of seeds, and of test items (groups of rows, where the table has them).
        mean, low, high (`float`): Of the scores, in 0 to 1, and its 95% interval, NaN where there is one test item.
        sd (`float`, *optional*): Standard deviation over the seeds (n - 1), None where there is one seed.
        config (`dict[str, Any]`): Every option; the model, and `rows_digest` and `eval_rows`, which tell data of one name apart.
    """

    data: str
    setting: str
    options: dict[str, Any]
    metric: str
    n_seeds: int
    n_items: int
    mean: float
    sd: float | None
    low: float
    high: float
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gain:
    """How much better a setting is than the baseline, on one data set or on the mean of several.

    Example:

    ```python
    >>> from dhrd_hf.study import Gain
    >>> gain = Gain("cb", "dual_head", {}, baseline="pooled", n_seeds=3, n_items=56, score=0.75, baseline_score=0.7,
    ...             gain=5.0, low=1.0, high=9.0, relative=7.1, relative_low=1.4, relative_high=13.2)
    >>> gain.gain, gain.low, gain.high
    (5.0, 1.0, 9.0)

    ```

    Args:
        data (`str` or `list[str]`): The data set; for a mean over data sets their names.
        setting, baseline (`str`): What is compared with what.
        options, config (`dict[str, Any]`): As [`Summary`].
        n_seeds (`int`): Seeds that both have; for a mean the fewest of a data set.
        n_items (`int`): Test items that both have; for a mean their sum.
        score, baseline_score (`float`): Mean scores over those seeds and items, in 0 to 1.
        gain, low, high (`float`): Their difference in percentage points, of a loss how much less of it there is, and its 95%
            interval, NaN where there is one test item.
        relative, relative_low, relative_high (`float`): `(score - baseline) / baseline` in percent, and its 95% interval; for
            a mean over data sets the mean of theirs. NaN over a baseline of 0.
        unpaired (`int`): Runs that were left out because the other side lacks their seed.
        relative_of_means, relative_of_means_low, relative_of_means_high (`float`, *optional*): For a mean over data sets, the
            relative gain of the macro averages, as the paper's Table 1 has it.
        metric (`str`): What is gained: a score of the table, or one of its logits.
    """

    data: str | list[str]
    setting: str
    options: dict[str, Any]
    baseline: str
    n_seeds: int
    n_items: int
    score: float
    baseline_score: float
    gain: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    unpaired: int = 0
    relative_of_means: float | None = None
    relative_of_means_low: float | None = None
    relative_of_means_high: float | None = None
    metric: str = "accuracy"
    config: dict[str, Any] = field(default_factory=dict)


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Mean, standard deviation over seeds and 95% interval of each setting on each data set.

    The interval is over test items, and over seeds where there are several: see [`~dhrd_hf.study.intervals`].

    Example:

    ```python
    >>> from dhrd_hf.study import summarise
    >>> row = {"cell": "a", "status": "done", "data": "cb", "setting": "pooled", "seed": 0, "metric": "accuracy",
    ...        "score": 0.75, "labels": [0, 1, 1, 0], "predictions": [0, 1, 0, 0], "groups": None}
    >>> it = summarise([row, {**row, "cell": "b", "seed": 1, "score": 0.5, "predictions": [0, 0, 0, 0]}])[0]
    >>> it.n_seeds, it.mean, round(it.sd, 4), it.low < it.mean < it.high
    (2, 0.625, 0.1768, True)

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): Rows of `results.jsonl`; of a run that stands twice the last counts, and
            failed ones are passed over.

    Returns:
        `list[Summary]`: in the order in which they first stand in the table.

    Raises:
        ValueError: if the rows of a setting differ in their test items or their metric.
    """
    groups = grouped(latest(rows)[0])
    return [summary_of(group, groups) for group in groups]


def paired_gains(rows: Iterable[Row], baseline: str = "pooled", metric: str | None = None) -> list[Gain]:
    """The gain of each setting over the baseline on each data set, with paired 95% intervals.

    Runs are paired that share data set, train size, seed and options; with the baseline `pooled` options of the reasoning
    loss (alpha and its schedule, the span, ...) do not count, as it has none. Where the table has one set of options of
    either setting, as of sides that each train at their own best, they are paired though these differ. Items and seeds are those of the differences.
    Where the setting was tested on fewer items than the baseline (CoT decoding is slow), both are scored on those, the first
    of the others.

    Example:

    ```python
    >>> from dhrd_hf.study import paired_gains
    >>> row = {"cell": "a", "status": "done", "data": "cb", "setting": "pooled", "alpha": 0.0, "seed": 0, "score": 0.5,
    ...        "metric": "accuracy", "labels": [0, 1, 1, 0], "predictions": [0, 1, 0, 1], "groups": None}
    >>> other = {**row, "cell": "b", "setting": "dual_head", "alpha": 1.0, "score": 0.75, "predictions": [0, 1, 0, 0]}
    >>> it = paired_gains([row, other])[0]
    >>> it.setting, it.gain, it.relative, round(it.low, 1)  # one item of four: 25 points, and the interval of one in four
    ('dual_head', 25.0, 50.0, -54.6)

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): As for [`summarise`].
        baseline (`str`, *optional*, defaults to `"pooled"`): The setting that the others are compared with.
        metric (`str`, *optional*): Another score than the table's: `"accuracy"`, `"macro_f1"`, or of the runs' logits
            `"log_loss"`, `"scaled_log_loss"` (each half of the items at the temperature that is best on the other),
            `"brier"`, `"auroc"`.

    Returns:
        `list[Gain]`: in the order in which the settings first stand in the table; a setting of which no run has its
        baseline, or which has no logits that the score is of, is left out.

    Raises:
        ValueError: as [`summarise`].
    """
    groups = grouped(latest(rows)[0])
    pairs = [Pair(it, baseline_of(it, groups, baseline)) for it in groups if it.setting != baseline]
    gains = [(pair.group, gain_of([pair], metric)) for pair in pairs if pair.base]
    return [replace(gain, options=group.varying(groups)) for group, gain in gains if gain]


def mean_relative_gain(
    rows: Iterable[Row],
    setting: str = "dual_head",
    options: Mapping[str, Any] | None = None,
    baseline: str = "pooled",
) -> Gain | None:
    """The mean over data sets of a setting's gain over the baseline, with its 95% interval.

    Data sets weigh the same, as in the paper's average. They are not resampled: the interval is for these data sets.

    Example:

    ```python
    >>> from dhrd_hf.study import mean_relative_gain
    >>> gain = mean_relative_gain(rows, "dual_head", {"alpha": 1.0})  # doctest: +SKIP
    >>> f"{gain.relative:+.2f}% [{gain.relative_low:+.2f}, {gain.relative_high:+.2f}] on {len(gain.data)} data sets"
    ... # doctest: +SKIP
    '+2.10% [+0.40, +3.90] on 12 data sets'

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): As for [`summarise`].
        setting (`str`, *optional*, defaults to `"dual_head"`): The setting.
        options (`Mapping[str, Any]`, *optional*): Values that the runs shall have: `alpha`, `train_size`, or another
            option. Needed where a data set has runs of the setting with several.
        baseline (`str`, *optional*, defaults to `"pooled"`): As for [`paired_gains`].

    Returns:
        [`Gain`], or None where no run of the setting has its baseline.

    Raises:
        ValueError: as [`summarise`], or if the options leave several groups of runs of a data set.
    """
    groups, options = grouped(latest(rows)[0]), dict(options or {})
    fit = [it for it in groups if it.setting == setting]
    fit = [it for it in fit if all(it.named.get(name) == value for name, value in options.items())]
    pairs = [pair for it in fit if (pair := Pair(it, baseline_of(it, groups, baseline))).base]
    for its in together(pairs, lambda pair: pair.data):
        if len(its) > 1:
            several, group = f"{its[0].data} has {len(its)} kinds of {setting} runs", its[0].group
            names = list(group.varying(groups))
            which = f"say which in options, such as {{{names[0]!r}: {group.named.get(names[0])!r}}}"
            raise ValueError(f"{several}, which differ in {', '.join(names)}: {which}")
    return gain_of(pairs, options=options) if pairs else None


class Pair:
    """A group beside its baseline, on the seeds that both have; one of the two may be missing."""

    def __init__(self, group: Group | None, base: Group | None, left_out: int = 0):
        self.unpaired, self.left_out = 0, left_out
        if group and base:
            seeds = group.seeds & base.seeds
            self.unpaired = len(group.seeds ^ base.seeds)
            group, base = group.only(seeds), base.only(seeds)
        self.group, self.base, self.one = group, base, group or base
        self.data, self.metric, self.config = self.one.data, self.one.metric, self.one.config
        self.n_seeds, self.runs = len(self.one.rows), [row for it in (group, base) if it for row in it.rows]
        self.pairs = [self]

    @cached_property
    def unlike(self) -> dict[str, tuple[Any, Any]]:
        """The options of which each side has its own, but those of the reasoning loss: the baseline's first."""
        if self.group is None or self.base is None or differ_by_setting(self.group, self.base):
            return {}
        names = [name for name in {**self.base.config, **self.group.config} if name not in OF_REASONING]
        sides = {name: (self.base.config.get(name), self.group.config.get(name)) for name in names}
        return {name: its for name, its in sides.items() if its[0] != its[1]}

    def sides(self, metric: str | None = None, of: str = "eval") -> tuple[np.ndarray, np.ndarray] | None:
        """What each test item scores for each seed of both; by default by the metric of the table."""
        found = scored(self.runs, metric or self.metric, of)
        return None if found is None else (found[: self.n_seeds], found[self.n_seeds :])

    @cached_property
    def problem(self) -> str | None:
        """Why its runs can't be compared."""
        return tried(scored, self.runs, self.metric)[1]

    @cached_property
    def gain(self) -> Gain | None:  # by the metric of the table
        return gain_of([self]) if self.group and self.base and not self.problem else None

    @cached_property
    def score(self) -> Summary | None:
        return tried(summary_of, self.group)[0] if self.group else None

    @cached_property
    def pooled(self) -> Summary | None:
        return tried(summary_of, self.base)[0] if self.base else None


class Mean:
    """Several pairs of which the gains are averaged, as a line of a table beside them."""

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs, self.data, self.n_seeds = pairs, f"mean of {len(pairs)}", None
        self.gain = gain_of(pairs, options={})


def summary_of(group: Group, among: Sequence[Group] = ()) -> Summary:
    part = scored(group.rows, group.metric)
    sd = float(part.mean(1).std(ddof=1)) if len(part) > 1 else None
    value, low, high = interval([part], within=(0.0, 1.0))
    what = group.data, group.setting, group.varying(among), group.metric
    return Summary(*what, *part.shape, value, sd, low, high, group.named)


def gain_of(
    pairs: Sequence[Pair], metric: str | None = None, of: str = "eval", options: Mapping[str, Any] | None = None
) -> Gain | None:
    """The gain of one pair, or with options the mean of several; None where one has no logits that the metric is of."""
    sides = [pair.sides(metric, of) for pair in pairs]
    if any(it is None for it in sides):
        return None
    group, is_mean, metric = pairs[0].group, options is not None, metric or pairs[0].metric
    points = (-100.0, 100.0) if metric in METRICS else (-math.inf, math.inf)
    gain = interval([difference(*its, metric) for its in sides], within=points)
    means = [float(np.mean([side.mean() for side in its])) for its in zip(*sides, strict=True)]
    relative, of_means = (
        interval([ratio(*its, *its_means) for its in sides], within=(-100.0, math.inf)) for its_means in ((), means)
    )
    data = [pair.data for pair in pairs] if is_mean else group.data
    sizes = min(len(ours) for ours, _ in sides), sum(ours.shape[1] for ours, _ in sides)
    counted = sum(pair.unpaired for pair in pairs), *(of_means if is_mean else (None,) * 3)
    what = data, group.setting, dict(options or {}), pairs[0].base.setting
    return Gain(*what, *sizes, *means, *gain, *relative, *counted, metric, {} if len(pairs) > 1 else group.named)


def difference(ours: np.ndarray, theirs: np.ndarray, metric: str = "accuracy") -> np.ndarray:
    """The gain in points, or how much less loss there is, as a part of an interval."""
    return theirs - ours if metric in LOSSES else (ours - theirs) * (100 if metric in METRICS else 1)


def ratio(
    ours: np.ndarray, theirs: np.ndarray, score: float | None = None, baseline: float | None = None
) -> np.ndarray:
    """The relative gain in percent as a part of an interval, to first order; also of means of which these are a part."""
    score, baseline = ours.mean() if score is None else score, theirs.mean() if baseline is None else baseline
    if baseline == 0:
        return np.full_like(ours, np.nan)
    return 100 * ((ours - score / baseline * theirs) / baseline + score / baseline - 1)
