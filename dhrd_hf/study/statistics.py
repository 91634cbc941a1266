"""What a table of cells says: means over seeds, and gains over a baseline with paired bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .groups import Group, grouped, latest, varying_options
from .pairs import Pair, pair_of, pairs_of, relative_gain
from .resampling import CONFIDENCE, in_one_grouping, interval, n_items, rows_in_common, seed_scores

_POINTS, _RELATIVE = (-100.0, 100.0), (-100.0, math.inf)

__all__ = [
    "CONFIDENCE",
    "Gain",
    "Summary",
    "gain_over",
    "mean_relative_gain",
    "paired_gains",
    "summarise",
    "summary_of",
]


@dataclass(frozen=True)
class Summary:
    """The scores of one setting on one data set, over its seeds.

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import Summary
    >>> Summary("cb", "pooled", {}, metric="accuracy", n_seeds=1, n_items=56, mean=0.7, sd=None, low=0.57, high=0.82).mean
    0.7

    ```

    Args:
        data (`str`), setting (`str`): As in the table.
        options (`dict[str, Any]`): Of `config` what varies among the table's rows of this data set and setting.
        config (`dict[str, Any]`): `alpha`, `beta`, `classifier_head`, `train_size` and every other option; the model, and
            `rows_digest` and `eval_rows`, which tell data of one name apart.
        metric (`str`): Name of the score.
        n_seeds (`int`), n_items (`int`): Number of seeds, and of test items (groups of rows, where the table has them).
        mean (`float`): Of the scores, in 0 to 1.
        sd (`float`, *optional*): Standard deviation over the seeds (n - 1), None where there is one seed.
        low (`float`), high (`float`): 95% interval of the mean.
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
    >>> from dhrd_hf.study.statistics import Gain
    >>> gain = Gain("cb", "dual_head", {}, baseline="pooled", n_seeds=3, n_items=56, score=0.75, baseline_score=0.7,
    ...             gain=5.0, low=1.0, high=9.0, relative=7.1, relative_low=1.4, relative_high=13.2)
    >>> gain.gain, gain.low, gain.high
    (5.0, 1.0, 9.0)

    ```

    Args:
        data (`str` or `list[str]`): The data set; for a mean over data sets their names.
        setting (`str`), baseline (`str`): What is compared with what.
        options (`dict[str, Any]`), config (`dict[str, Any]`): As [`Summary`].
        n_seeds (`int`): Seeds that both have; for a mean the fewest of a data set.
        n_items (`int`): Test items that both have; for a mean their sum.
        unpaired (`int`): Cells that were left out because the other side lacks their seed.
        score (`float`), baseline_score (`float`): Mean scores over those seeds and items, in 0 to 1.
        gain (`float`), low (`float`), high (`float`): Their difference in percentage points, and its 95% interval.
        relative (`float`), relative_low (`float`), relative_high (`float`): `(score - baseline) / baseline` in percent,
            and its 95% interval; for a mean over data sets the mean of theirs.
        relative_of_means (`float`, *optional*), relative_of_means_low, relative_of_means_high: For a mean over data sets,
            the relative gain of the macro averages, as the paper's Table 1 has it.
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
    config: dict[str, Any] = field(default_factory=dict)


def summarise(rows: Iterable[Mapping[str, Any]]) -> list[Summary]:
    """Mean, standard deviation over seeds and 95% interval of each setting on each data set.

    The interval is that of a bootstrap over test items, widened by what seeds add where there are several: see
    [`~dhrd_hf.study.resampling.interval`].

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import summarise
    >>> row = {"cell": "a", "status": "done", "data": "cb", "setting": "pooled", "alpha": 0.0, "beta": 1.0,
    ...        "classifier_head": "linear", "train_size": 100, "seed": 0, "options": {}, "metric": "accuracy",
    ...        "score": 0.75, "labels": [0, 1, 1, 0], "predictions": [0, 1, 0, 0], "groups": None}
    >>> other = {**row, "cell": "b", "seed": 1, "score": 0.5, "predictions": [0, 0, 0, 0]}
    >>> it = summarise([row, other])[0]
    >>> it.n_seeds, it.mean, round(it.sd, 4), it.low < it.mean < it.high
    (2, 0.625, 0.1768, True)

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): Rows of `results.jsonl`; of a cell that stands twice the last counts, and
            failed cells are passed over.

    Returns:
        `list[Summary]`: in the order in which they first stand in the table.

    Raises:
        ValueError: if the rows of a setting differ in their test items or their metric.
    """
    groups = grouped(latest(rows)[0])
    varying = varying_options(groups)
    return [summary_of(group, varying[group.data, group.setting]) for group in groups]


def summary_of(group: Group, varying: Sequence[str] = ()) -> Summary:
    """The scores of one group, as [`summarise`] has them."""
    rows, cells = rows_in_common(group.rows), in_one_grouping(group.rows)
    scores, drawn = seed_scores(cells, rows, resampled=False)[0], seed_scores(cells, rows)
    low, high = interval(scores.mean(), drawn.mean(1), [(scores, drawn)], within=(0.0, 1.0))
    config = group.named
    return Summary(
        data=group.data,
        setting=group.setting,
        options={name: config.get(name) for name in varying},
        metric=group.rows[0]["metric"],
        n_seeds=len(scores),
        n_items=n_items(cells[0], rows),
        mean=float(scores.mean()),
        sd=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        low=low,
        high=high,
        config=config,
    )


def paired_gains(rows: Iterable[Mapping[str, Any]], baseline: str = "pooled") -> list[Gain]:
    """The gain of each setting over the baseline on each data set, with paired 95% intervals.

    Cells are paired that share data set, train size, seed and options; with the baseline `pooled` options of the
    reasoning loss (alpha and its schedule, the span, ...) do not count, as it has none. Each bootstrap resample draws the
    same test items for both settings and all seeds, and what seeds add is of their differences. Where the setting was
    tested on fewer items than the baseline (CoT decoding is slow), both are scored on those, the first of the others.

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import paired_gains
    >>> row = {"cell": "a", "status": "done", "data": "cb", "setting": "pooled", "alpha": 0.0, "beta": 1.0,
    ...        "classifier_head": "linear", "train_size": 100, "seed": 0, "options": {}, "metric": "accuracy",
    ...        "score": 0.5, "labels": [0, 1, 1, 0], "predictions": [0, 1, 0, 1], "groups": None}
    >>> other = {**row, "cell": "b", "setting": "dual_head", "alpha": 1.0, "score": 0.75, "predictions": [0, 1, 0, 0]}
    >>> it = paired_gains([row, other])[0]
    >>> it.setting, it.gain, it.relative, it.low
    ('dual_head', 25.0, 50.0, 0.0)

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): As for [`summarise`].
        baseline (`str`, *optional*, defaults to `"pooled"`): The setting that the others are compared with.

    Returns:
        `list[Gain]`: in the order in which the settings first stand in the table; a setting of which no cell has its
        baseline is left out (count them by [`summarise`]).

    Raises:
        ValueError: as [`summarise`].
    """
    return [_gain(pair) for pair in pairs_of(rows, baseline)]


def gain_over(group: Group, baseline: Group) -> Gain | None:
    """The gain of one group over another on the seeds that both have."""
    pair = pair_of(group, baseline)
    return None if pair is None else _gain(pair)


def mean_relative_gain(
    rows: Iterable[Mapping[str, Any]],
    setting: str = "dual_head",
    options: Mapping[str, Any] | None = None,
    baseline: str = "pooled",
) -> Gain | None:
    """The mean over data sets of a setting's gain over the baseline, with its 95% interval.

    Data sets weigh the same, as in the paper's average. They are not resampled: the interval is for these data sets.

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import mean_relative_gain
    >>> gain = mean_relative_gain(rows, "dual_head", {"alpha": 1.0})  # doctest: +SKIP
    >>> f"{gain.relative:+.2f}% [{gain.relative_low:+.2f}, {gain.relative_high:+.2f}] on {len(gain.data)} data sets"
    ... # doctest: +SKIP
    '+2.10% [+0.40, +3.90] on 12 data sets'

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): As for [`summarise`].
        setting (`str`, *optional*, defaults to `"dual_head"`): The setting.
        options (`Mapping[str, Any]`, *optional*): Values that the cells shall have: `alpha`, `train_size`, or another
            option. Needed where a data set has cells of the setting with several.
        baseline (`str`, *optional*, defaults to `"pooled"`): As for [`paired_gains`].

    Returns:
        [`Gain`], or None where no cell of the setting has its baseline.

    Raises:
        ValueError: as [`summarise`], or if the options leave several groups of cells of a data set.
    """
    options = dict(options or {})
    pairs = [
        pair
        for pair in pairs_of(rows, baseline)
        if pair.setting == setting and all(pair.config.get(name) == value for name, value in options.items())
    ]
    names = [pair.data for pair in pairs]
    for name in names:
        if names.count(name) > 1:
            several = sorted({key for pair in pairs if pair.data == name for key in pair.options})
            raise ValueError(
                f"{name} has {names.count(name)} kinds of {setting} cells, which differ in {', '.join(several)}: "
                f"say which in options, such as {{{several[0]!r}: {pairs[names.index(name)].config.get(several[0])!r}}}"
            )
    return _mean_of(pairs, options) if pairs else None


def _gain(pair: Pair) -> Gain:
    points, drawn = pair.part()
    low, high = interval(float(points.mean()), drawn.mean(1), [(points, drawn)], _POINTS)
    found, resampled, part = pair.relative()
    relative_low, relative_high = interval(found, resampled, [part], _RELATIVE)
    return Gain(
        data=pair.data,
        setting=pair.setting,
        options=pair.options,
        baseline=pair.baseline,
        n_seeds=pair.n_seeds,
        n_items=pair.n_items,
        score=pair.ours.mean,
        baseline_score=pair.theirs.mean,
        gain=float(points.mean()),
        low=low,
        high=high,
        relative=found,
        relative_low=relative_low,
        relative_high=relative_high,
        unpaired=pair.unpaired,
        config=pair.config,
    )


def _mean_of(pairs: Sequence[Pair], options: dict[str, Any]) -> Gain:
    score, baseline = (float(np.mean([getattr(pair, side).mean for pair in pairs])) for side in ("ours", "theirs"))
    gains = [pair.part() for pair in pairs]
    low, high = interval(
        100 * (score - baseline), np.mean([drawn.mean(1) for _, drawn in gains], axis=0), gains, _POINTS
    )
    relatives, drawn, parts = zip(*(pair.relative() for pair in pairs), strict=True)
    relative = float(np.mean(relatives))
    relative_low, relative_high = interval(relative, np.mean(drawn, axis=0), parts, _RELATIVE)
    of_means = float(relative_gain(score, baseline))
    ours, theirs = (
        np.mean([getattr(pair, side).drawn.mean(1) for pair in pairs], axis=0) for side in ("ours", "theirs")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [pair.part(1 + of_means / 100, np.divide(100, baseline)) for pair in pairs]
    of_means_low, of_means_high = interval(of_means, relative_gain(ours, theirs), parts, _RELATIVE)
    return Gain(
        data=[pair.data for pair in pairs],
        setting=pairs[0].setting,
        options=options,
        baseline=pairs[0].baseline,
        n_seeds=min(pair.n_seeds for pair in pairs),
        n_items=sum(pair.n_items for pair in pairs),
        score=score,
        baseline_score=baseline,
        gain=100 * (score - baseline),
        low=low,
        high=high,
        relative=relative,
        relative_low=relative_low,
        relative_high=relative_high,
        unpaired=sum(pair.unpaired for pair in pairs),
        relative_of_means=of_means,
        relative_of_means_low=of_means_low,
        relative_of_means_high=of_means_high,
    )
