"""Whether rationales are worth buying: the verdict of a pilot's runs, and what it rests on."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .metrics import interval, noise, seeds_for, visible_gain
from .pilot import Plan
from .statistics import difference, scored
from .tables import Table

__all__ = ["Verdict", "judge"]

CONTROLS = {
    "label_only": "label only, its best epoch",
    "equal_seconds": "label only, as many seconds",
    "shuffled": "shuffled rationales",
}
MEASURES = {"accuracy": "accuracy", "log_loss": "less log loss", "scaled_log_loss": "less log loss, scaled"}
# Of two measures either may say buy, each at half of 5%; and any of three controls do not buy.
CONFIDENCE = 0.975
_EQUAL, _LEARNING = 0.9, 0.02


@dataclass(frozen=True)
class Verdict:
    """What a pilot ends with; `verdict` is `buy`, `do not buy` or `cannot tell`, gains are in points or nats `(gain, low, high)`."""

    verdict: str
    why: str
    gains: dict[str, dict[str, tuple[float, float, float]]]
    seeds: int
    test_rows: int
    worth: float
    visible_points: float | None = None  # the least gain that 80 of 100 such pilots would see over every control
    to_tell: float | None = None  # points: `worth`, or half of what could be seen where that is less
    seeds_needed: int | None = None  # that would tell these from none in 80 of 100; None: no number would
    test_rows_needed: int | None = None
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def judge(parts: Mapping[str, Mapping[str, np.ndarray]], *, worth: float = 1.0, doubts: Sequence[str] = ()) -> Verdict:
    """Decide from paired gains whether rationales are worth buying.

    Buy: in one measure, accuracy or log loss, the interval of the gain lies above zero over every control: label only at its
    best epoch, label only trained for as many seconds, and shuffled rationales; in the other measure it lies below zero over
    none. For log loss it must also do so with each half of the rows at the temperature that is best on the other half, which
    costs nothing. Do not buy, which goes first: over one of the controls the interval of the gain in accuracy ends below the
    smallest gain worth having. Cannot tell: all else, fewer than two seeds, and a "buy" in which the controls had less than
    their due. Intervals are of 97.5%, over seeds and test rows: two measures may say buy, and three controls do not buy, so of
    100 pilots without a gain at most 5 say buy, and of 100 with a gain worth having at most 5 say do not buy.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.study.verdict import judge
    >>> draw = np.random.default_rng(0)
    >>> better = {"accuracy": draw.normal(6, 40, (5, 2000)), "log_loss": draw.normal(0.1, 0.5, (5, 2000))}
    >>> better["scaled_log_loss"] = better["log_loss"]
    >>> judge({"label_only": better, "equal_seconds": better, "shuffled": better}).verdict
    'buy'

    ```

    Args:
        parts (`Mapping[str, Mapping[str, np.ndarray]]`): For each control (`label_only`, `equal_seconds`, `shuffled`) and
            measure (`accuracy` in points; `log_loss` and `scaled_log_loss`, nats less) what rationales gain `[seeds, rows]`.
        worth (`float`, *optional*, defaults to 1.0): The smallest gain worth having, in points of accuracy.
        doubts (`Sequence[str]`, *optional*): Why a "buy" would not be fair to the controls.

    Returns:
        [`Verdict`]: the verdict, with the gains and what could have been seen; not yet what it costs or saves.
    """
    gains = {
        control: {name: (float(part.mean()), *_interval(name, part)) for name, part in its.items()}
        for control, its in parts.items()
    }
    shape = next(iter(parts.values()))["accuracy"].shape
    found = Verdict("cannot tell", "", gains, *shape, worth)
    if min(shape) < 2:
        return replace(found, why=f"{shape[0]} seeds on {shape[1]} test rows say nothing of others")
    noises = [noise([_padded(its["accuracy"])], [1.0]) for its in parts.values()]
    visible = max(visible_gain(it, CONFIDENCE) for it in noises)
    target = worth if visible > worth > 0 else max(worth, visible) / 2
    needed = [seeds_for(it, target, CONFIDENCE) for it in noises]
    found = replace(found, visible_points=visible, to_tell=target)
    if None not in needed:
        found = replace(found, seeds_needed=max(needed))
    else:  # half of the error's variance for the rows: z of 97.5% and of 80% are 2.24 and 0.84
        rows = max(2 * it.of_items.sum() * it.n_items.max() for it in noises)
        found = replace(found, test_rows_needed=math.ceil(rows * (3.08 / target) ** 2))

    def clear(*names: str) -> bool:
        return all(its[name][1] > 0 for its in gains.values() for name in names)

    def worse(name: str) -> list[str]:
        return [CONTROLS[control] for control, its in gains.items() if its[name][2] < 0]

    short = {control: its["accuracy"][2] for control, its in gains.items() if its["accuracy"][2] < worth}
    if short:
        control = min(short, key=short.get)
        why = f"over {CONTROLS[control]} the gain in accuracy is at most {short[control]:.1f} points, and {worth:g} are worth having"
        return replace(found, verdict="do not buy", why=why)
    by = [
        name.replace("_", " ")
        for name, needs, other in (
            ("accuracy", ("accuracy",), "log_loss"),
            ("log_loss", ("log_loss", "scaled_log_loss"), "accuracy"),
        )
        if clear(*needs) and not worse(other)
    ]
    if by and not doubts:
        return replace(found, verdict="buy", why=f"rationales gain in {' and '.join(by)} over every control")
    if by:
        return replace(found, why=f"rationales are ahead, but {'; '.join(doubts)}")
    unclear = [CONTROLS[control] for control, its in gains.items() if not its["accuracy"][1] > 0]
    why = f"the gain in accuracy over {', '.join(unclear)} may be none, and may be {worth:g} points or more"
    for name, other in (("accuracy", "log_loss"), ("log_loss", "accuracy")):
        if clear(name) and worse(other):
            why = f"rationales gain {MEASURES[name]}, and are worse in {other.replace('_', ' ')} than {', '.join(worse(other))}"
    if clear("log_loss") and not clear("scaled_log_loss"):
        why += "; log loss is lower, and may be no lower than by a temperature (dhrd calibrate)"
    return replace(found, why=why)


def _interval(measure: str, part: np.ndarray) -> tuple[float, float]:
    """The interval of a gain; of accuracy within what there can be, and no point where no row differs."""
    of_accuracy = measure == "accuracy"
    within = (-100.0, 100.0) if of_accuracy else (-math.inf, math.inf)
    return interval([_padded(part) if of_accuracy else part], within=within, confidence=CONFIDENCE)[1:]


def _padded(points: np.ndarray) -> np.ndarray:
    """With two rows more, one right for each side: few that differ tell little (Bonett and Price 2012, on pairs)."""
    return np.pad(points, ((0, 0), (1, 1)), constant_values=((0, 0), (100.0, -100.0)))


def rows_saved(ours: np.ndarray, base: np.ndarray, more: np.ndarray, rows: int, more_rows: int) -> dict[str, Any]:
    """How many labelled rows rationales stand for: where the line of label only through `rows` and `more_rows`, on a log scale, has their score.

    The interval holds the shares of the way between the two at which the difference may be none (Fieller's, by the same
    intervals); beyond `more_rows` nothing is said.
    """
    slope, gain = more - base, ours - base
    steps = np.linspace(0, 1, 101)
    found = {"rows": rows, "more_rows": more_rows, "low": None, "saved": None, "high": None}
    if len(ours) < 2 or not interval([slope])[1] > 0:
        return found | {"said": f"label only gains nothing clear from {rows} to {more_rows} rows, so it can't be told"}

    def at(share: float) -> int:
        return round(rows * (more_rows / rows) ** share) - rows

    def ends(share: float) -> tuple[float, float]:
        return interval([gain - share * slope])[1:]

    share, steps = gain.mean() / slope.mean(), np.linspace(0, 1, 101).tolist()
    first = bisect_left(steps, True, key=lambda it: ends(it)[0] <= 0)
    last = bisect_left(steps, True, key=lambda it: ends(it)[1] < 0) - 1
    low, best = at(steps[min(first, 100)]), at(min(max(share, 0.0), 1.0))
    high = None if last == 100 else at(steps[max(last, 0)])
    said = f"{'at least ' if share > 1 else ''}{best} [{low}, {high if high is not None else f'at least {at(1.0)}'}]"
    return found | {"low": low, "saved": best, "high": high, "said": f"{said}, for {rows} with rationales"}


def verdict_of(plan: Plan, rows: Sequence[Mapping[str, Any]], worth: float, price: float | None) -> Verdict | None:
    """The verdict of a pilot's done runs; None where no seed has all sides yet."""
    sides = plan.by_side(rows)
    seeds = sorted(set.intersection(*(set(sides[side]) for side in ("rationales", *CONTROLS))))
    if not seeds:
        return None

    def scores(measure: str, seeds: Sequence[int], *of: str) -> np.ndarray:
        """What each test row scores `[sides, seeds, rows]`."""
        found = scored([sides[side][seed] for side in of for seed in seeds], measure)
        if found is None:
            raise ValueError(f"{plan.folder / 'logits'} lacks the logits of a run, which its log loss is of")
        return found.reshape(len(of), len(seeds), -1)

    parts = {
        control: {it: difference(*scores(it, seeds, "rationales", control), it) for it in MEASURES}
        for control in CONTROLS
    }
    trained = {
        side: [sides[side][seed]["train_seconds"] for seed in seeds] for side in ("rationales", "equal_seconds")
    }
    share = sum(trained["equal_seconds"]) / sum(trained["rationales"])
    losses = {
        side: [[it["classification_loss"] for it in sides[side][seed]["epoch_metrics"]] for seed in seeds]
        for side in ("rationales", *CONTROLS)
    }
    doubts = []
    if share < _EQUAL:
        doubts.append(f"label only had {share:.0%} of their seconds: other work took turns with the runs")
    falling = [1.0 if len(it) < 2 else 1 - it[-1] / max(min(it[:-1]), 1e-9) for it in losses["equal_seconds"]]
    if np.mean(falling) > _LEARNING:
        doubts.append(
            f"label only was still learning in its last epoch: more epochs (--num-train-epochs {2 * plan.epochs})"
        )
    found = judge(parts, worth=worth, doubts=doubts)
    best = {side: [int(np.argmin(it)) + 1 for it in its if it] for side, its in losses.items()}
    notes = [
        f"Label only at equal seconds: {plan.equal_epochs} epochs to {plan.epochs}, {share:.2f} times the seconds."
    ]
    notes.append("Best epochs: " + "; ".join(f"{side} {', '.join(map(str, its))}" for side, its in best.items()) + ".")
    curve, rows_of = ("rationales", "label_only", "more"), (plan.rows, plan.more_rows)
    if plan.more_rows is None:
        curve, rows_of = ("half_rationales", "half", "label_only"), (plan.rows // 2, plan.rows)
    seeds = sorted(set.intersection(*(set(sides[side]) for side in curve)))
    better = {"accuracy": 1, "log_loss": -1}
    saved = {it: rows_saved(*(sign * scores(it, seeds, *curve)), *rows_of) for it, sign in better.items() if seeds}
    return replace(found, notes=notes, saved=saved, cost=cost_of(found, plan.rows, price))


def cost_of(verdict: Verdict, rows: int, price: float | None) -> dict[str, Any] | None:
    """What the rationales cost, and a point of accuracy over the better label only, with its interval; None is no number."""
    if price is None:
        return None
    gain, low, high = (
        min(verdict.gains[it]["accuracy"][at] for it in ("label_only", "equal_seconds")) for at in range(3)
    )
    total = price * rows
    points = {name: total / it if it > 0 else None for name, it in (("a_point", gain), ("low", high), ("high", low))}
    return {"per_rationale": price, "rationales": rows, "total": total, **points}


def gains_table(verdict: Verdict) -> Table:
    """The gains as a table of the report."""

    def text(gain: float, low: float, high: float, digits: int) -> str:
        return f"{gain:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"

    rows = [
        [CONTROLS[control], *(text(*its[name], 1 if name == "accuracy" else 3) for name in MEASURES)]
        for control, its in verdict.gains.items()
    ]
    columns = ["gain of rationales over", *(f"{it} [97.5%]" for it in MEASURES.values())]
    return Table("verdict", "Are rationales worth buying here?", columns, rows, verdict.notes)


def said(verdict: Verdict) -> list[str]:
    """The verdict in sentences."""
    it = verdict
    lines = [f"Verdict: {it.verdict}. {it.why[:1].upper()}{it.why[1:]}."]
    if it.visible_points is not None:
        line = f"With {it.seeds} seeds and {it.test_rows} test rows a gain of {it.visible_points:.1f} points over a control is seen"
        lines.append(f"{line} in 80 of 100.")
        more = f"{it.test_rows_needed} test rows" if it.seeds_needed is None else f"{it.seeds_needed} seeds"
        if it.verdict == "cannot tell":
            lines.append(f"To tell a gain of {it.to_tell:.2g} points from none takes about {more}.")
    if it.cost is not None:
        total = f"The {it.cost['rationales']} rationales cost {it.cost['total']:.4g}"
        low, high = (it.cost[name] for name in ("low", "high"))
        ends = f" [{low:.3g}, {'no end' if high is None else format(high, '.3g')}]" if low is not None else ""
        a_point = it.cost["a_point"]
        lines.append(f"{total}: {'no point was gained' if a_point is None else f'a point costs {a_point:.3g}{ends}'}.")
    for name, its in it.saved.items():
        lines.append(f"Labelled rows saved, by {name.replace('_', ' ')}: {its['said']}.")
    return lines
