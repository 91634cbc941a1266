"""What a table of cells says: means over seeds, and gains over a baseline with paired bootstrap intervals."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .resampling import CONFIDENCE, interval, n_items, resampled_means, seed_scores
from .settings import REASONING_OPTIONS

__all__ = ["CONFIDENCE", "Gain", "Summary", "mean_relative_gain", "paired_gains", "summarise"]


@dataclass(frozen=True)
class Summary:
    """The scores of one setting on one data set, over its seeds.

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import Summary
    >>> Summary("cb", "pooled", {}, metric="accuracy", n_seeds=1, n_items=56, mean=0.7, sd=None, low=0.57, high=0.82).over
    'items'

    ```

    Args:
        data (`str`), setting (`str`): As in the table.
        options (`dict[str, Any]`): Of `config` what varies among the table's rows of this data set and setting.
        config (`dict[str, Any]`): `alpha`, `beta`, `classifier_head`, `train_size` and every other option.
        metric (`str`): Name of the score.
        n_seeds (`int`), n_items (`int`): Number of seeds, and of test items (questions, where the metric counts those).
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

    @property
    def over(self) -> str:
        """What the interval is over: "seeds and items", or "items" where there is one seed."""
        return _over(self.n_seeds)


@dataclass(frozen=True)
class Gain:
    """How much better a setting is than the baseline, on one data set or on the mean of several.

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import Gain
    >>> gain = Gain("cb", "dual_head", {}, baseline="pooled", n_seeds=3, n_items=56, score=0.75, baseline_score=0.7,
    ...             gain=5.0, low=1.0, high=9.0, relative=7.1, relative_low=1.4, relative_high=13.2)
    >>> gain.over
    'seeds and items'

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

    @property
    def over(self) -> str:
        """What the intervals are over: "seeds and items", or "items" where there is one seed."""
        return _over(self.n_seeds)


def summarise(rows: Iterable[Mapping[str, Any]]) -> list[Summary]:
    """Mean, standard deviation over seeds and 95% interval of each setting on each data set.

    The interval is that of the percentiles of a bootstrap over seeds and test items at once: each resample draws S - 1
    of S seeds and all items with replacement, one draw of items for all seeds (Owen 2007, the pigeonhole bootstrap; Rao and
    Wu 1988 for S - 1, without which the spread of three seeds would count for a third too little).

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
    groups = _groups(rows)
    varying = _varying(groups)
    found = []
    for (data, setting, _), cells in groups.items():
        items = min(n_items(row) for row in cells)
        (resampled,) = resampled_means(data, [cells], items)
        scores = np.array([row["score"] for row in cells])
        low, high = interval(resampled)
        config = _config(cells[0])
        found.append(
            Summary(
                data=data,
                setting=setting,
                options={name: config.get(name) for name in varying[data, setting]},
                metric=cells[0]["metric"],
                n_seeds=len(cells),
                n_items=items,
                mean=float(scores.mean()),
                sd=float(scores.std(ddof=1)) if len(scores) > 1 else None,
                low=low,
                high=high,
                config=config,
            )
        )
    return found


def paired_gains(rows: Iterable[Mapping[str, Any]], baseline: str = "pooled") -> list[Gain]:
    """The gain of each setting over the baseline on each data set, with paired 95% intervals.

    Cells are paired that share data set, train size, seed and options; with the baseline `pooled` options of the
    reasoning loss (alpha and its schedule, the span, ...) do not count, as it has none. Each bootstrap resample draws the
    same seeds and the same test items for both settings. Where the setting was tested on fewer items than the baseline
    (CoT decoding is slow), both are scored on those, the first of the others.

    Example:

    ```python
    >>> from dhrd_hf.study.statistics import paired_gains
    >>> row = {"cell": "a", "status": "done", "data": "cb", "setting": "pooled", "alpha": 0.0, "beta": 1.0,
    ...        "classifier_head": "linear", "train_size": 100, "seed": 0, "options": {}, "metric": "accuracy",
    ...        "score": 0.5, "labels": [0, 1, 1, 0], "predictions": [0, 1, 0, 1], "groups": None}
    >>> other = {**row, "cell": "b", "setting": "dual_head", "alpha": 1.0, "score": 0.75, "predictions": [0, 1, 0, 0]}
    >>> it = paired_gains([row, other])[0]
    >>> it.setting, it.gain, it.relative, it.low, it.over
    ('dual_head', 25.0, 50.0, 0.0, 'items')

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
    return [pair.gain() for pair in _pairs(rows, baseline)]


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
        for pair in _pairs(rows, baseline)
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


# Groups of rows


def _config(row: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: row.get(name) for name in ("model", "alpha", "beta", "classifier_head", "train_size")}
    return named | dict(row.get("options") or {})


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, default=str)


def _groups(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """The done rows that differ by nothing but their seed, by data set, setting and the rest."""
    groups: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["status"] == "done":
            groups[row["data"], row["setting"], _key(_config(row))][row["seed"]] = row
    return {place: [cells[seed] for seed in sorted(cells)] for place, cells in groups.items()}


def _varying(groups: Mapping[tuple[str, str, str], Sequence[Mapping[str, Any]]]) -> dict[tuple[str, str], list[str]]:
    """For each data set and setting the names of the options of which there are several values."""
    configs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for (data, setting, _), cells in groups.items():
        configs[data, setting].append(_config(cells[0]))
    return {
        place: [
            name
            for name in dict.fromkeys(name for config in its for name in config)
            if len({_key({name: config.get(name)}) for config in its}) > 1
        ]
        for place, its in configs.items()
    }


# Pairs


@dataclass(frozen=True)
class _Pair:
    data: str
    setting: str
    baseline: str
    options: dict[str, Any]
    config: dict[str, Any]
    n_seeds: int
    n_items: int
    unpaired: int
    score: float
    baseline_score: float
    scores: np.ndarray  # [resamples]
    baseline_scores: np.ndarray  # [resamples]

    def gain(self) -> Gain:
        difference = interval(100 * (self.scores - self.baseline_scores))
        relative = interval(_relative(self.scores, self.baseline_scores))
        return Gain(
            data=self.data,
            setting=self.setting,
            options=self.options,
            baseline=self.baseline,
            n_seeds=self.n_seeds,
            n_items=self.n_items,
            score=self.score,
            baseline_score=self.baseline_score,
            gain=100 * (self.score - self.baseline_score),
            low=difference[0],
            high=difference[1],
            relative=float(_relative(self.score, self.baseline_score)),
            relative_low=relative[0],
            relative_high=relative[1],
            unpaired=self.unpaired,
            config=self.config,
        )


def _pairs(rows: Iterable[Mapping[str, Any]], baseline: str) -> list[_Pair]:
    groups = _groups(rows)
    varying = _varying(groups)
    base: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for (data, setting, _), cells in groups.items():
        if setting == baseline:
            base[data, _pair_key(_config(cells[0]), baseline)] = {row["seed"]: row for row in cells}
    found = []
    for (data, setting, _), cells in groups.items():
        if setting == baseline:
            continue
        config = _config(cells[0])
        others = base.get((data, _pair_key(config, baseline)), {})
        ours = {row["seed"]: row for row in cells}
        seeds = sorted(set(ours) & set(others))
        if not seeds:
            continue
        sides = [[ours[seed] for seed in seeds], [others[seed] for seed in seeds]]
        items = min(n_items(row) for side in sides for row in side)
        scores, baseline_scores = resampled_means(data, sides, items)
        exact = [float(seed_scores(side, items, np.ones((1, items))).mean()) for side in sides]
        found.append(
            _Pair(
                data=data,
                setting=setting,
                baseline=baseline,
                options={name: config.get(name) for name in varying[data, setting]},
                config=config,
                n_seeds=len(seeds),
                n_items=items,
                unpaired=len(set(ours) ^ set(others)),
                score=exact[0],
                baseline_score=exact[1],
                scores=scores,
                baseline_scores=baseline_scores,
            )
        )
    return found


def _pair_key(config: Mapping[str, Any], baseline: str) -> str:
    left_out = {"alpha", "beta", *REASONING_OPTIONS} if baseline == "pooled" else set()
    return _key({name: value for name, value in config.items() if name not in left_out})


def _mean_of(pairs: Sequence[_Pair], options: dict[str, Any]) -> Gain:
    scores, baselines = (np.array([getattr(pair, name) for pair in pairs]) for name in ("scores", "baseline_scores"))
    score, baseline = (float(np.mean([getattr(pair, name) for pair in pairs])) for name in ("score", "baseline_score"))
    difference = interval(100 * (scores - baselines).mean(0))
    relative = interval(_relative(scores, baselines).mean(0))
    of_means = interval(_relative(scores.mean(0), baselines.mean(0)))
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
        low=difference[0],
        high=difference[1],
        relative=float(np.mean([_relative(pair.score, pair.baseline_score) for pair in pairs])),
        relative_low=relative[0],
        relative_high=relative[1],
        unpaired=sum(pair.unpaired for pair in pairs),
        relative_of_means=float(_relative(score, baseline)),
        relative_of_means_low=of_means[0],
        relative_of_means_high=of_means[1],
    )


def _relative(score: Any, baseline: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * np.nan_to_num(np.divide(np.subtract(score, baseline), baseline), nan=0.0, posinf=np.inf)


def _over(seeds: int) -> str:
    return "seeds and items" if seeds > 1 else "items"
