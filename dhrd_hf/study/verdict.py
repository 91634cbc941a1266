"""Whether rationales are worth buying: the verdict of a pilot's runs, and what it rests on."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..pages.study import Table, signed
from .groups import scored
from .intervals import interval, noise, seeds_for, visible_gain
from .pilot import Plan
from .statistics import difference

CONTROLS = {
    "pooled": "pooled, its best epoch",
    "equal_seconds": "pooled, as many seconds",
    "shuffled": "shuffled rationales",
}
MEASURES = {"accuracy": "accuracy", "log_loss": "less log loss", "scaled_log_loss": "less log loss, scaled"}
# Of two measures either may say buy, each at half of 5%; and any of three controls do not buy.
CONFIDENCE = 0.975
_EQUAL, _LEARNING = 0.9, 0.02
_Ends = tuple[float, float, float]


@dataclass(frozen=True)
class Verdict:
    """What a pilot ends with; `verdict` is `buy`, `do not buy` or `cannot tell`, gains are in points or nats `(gain, low, high)`."""

    verdict: str
    why: str
    gains: dict[str, dict[str, _Ends]]
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
    """Decide, as `dhrd pilot --help` has it, from what rationales gain over each control: `[seeds, rows]` by measure."""
    gains = {control: {name: _gain(name, part) for name, part in its.items()} for control, its in parts.items()}
    shape = next(iter(parts.values()))["accuracy"].shape
    found = Verdict("cannot tell", "", gains, *shape, worth)
    if min(shape) < 2:
        return replace(found, why=f"{shape[0]} seeds on {shape[1]} test rows say nothing of others")
    noises = [noise([_padded(its["accuracy"])]) for its in parts.values()]
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

    def worse(name: str) -> str:
        return ", ".join(CONTROLS[control] for control, its in gains.items() if its[name][2] < 0)

    control = min(gains, key=lambda it: gains[it]["accuracy"][2])
    most = gains[control]["accuracy"][2]
    if most < worth:
        why = f"over {CONTROLS[control]} the gain in accuracy is at most {most:.1f} points, and {worth:g} are worth having"
        return replace(found, verdict="do not buy", why=why)
    by = ["accuracy"] * (clear("accuracy") and not worse("log_loss"))
    by += ["log loss"] * (clear("log_loss", "scaled_log_loss") and not worse("accuracy"))
    if by and not doubts:
        return replace(found, verdict="buy", why=f"rationales gain in {' and '.join(by)} over every control")
    if by:
        return replace(found, why=f"rationales are ahead, but {'; '.join(doubts)}")
    unclear = [CONTROLS[control] for control, its in gains.items() if not its["accuracy"][1] > 0]
    why = f"the gain in accuracy over {', '.join(unclear)} may be none, and may be {worth:g} points or more"
    for name, other in (("accuracy", "log_loss"), ("log_loss", "accuracy")):
        if clear(name) and worse(other):
            why = f"rationales gain {MEASURES[name]}, and are worse in {other.replace('_', ' ')} than {worse(other)}"
    if clear("log_loss") and not clear("scaled_log_loss"):
        why += "; log loss is lower, and may be no lower than by a temperature (dhrd calibrate)"
    return replace(found, why=why)


def _gain(measure: str, part: np.ndarray) -> _Ends:
    """A gain and its interval; of accuracy within what there can be, and no point where no row differs."""
    if measure != "accuracy":
        return interval([part], confidence=CONFIDENCE)
    return part.mean().item(), *interval([_padded(part)], within=(-100.0, 100.0), confidence=CONFIDENCE)[1:]


def _padded(points: np.ndarray) -> np.ndarray:
    """With two rows more, one right for each side: few that differ tell little (Bonett and Price 2012, on pairs)."""
    return np.pad(points, ((0, 0), (1, 1)), constant_values=((0, 0), (100.0, -100.0)))


def rows_saved(ours: np.ndarray, base: np.ndarray, more: np.ndarray, rows: int, more_rows: int) -> dict[str, Any]:
    """How many labelled rows rationales stand for: where the line of the pooled side through `rows` and `more_rows`, on a log scale, has their score."""
    slope, gain = more - base, ours - base
    found = {"rows": rows, "more_rows": more_rows, "low": None, "saved": None, "high": None}
    if len(ours) < 2 or not interval([slope])[1] > 0:
        return found | {"said": f"pooled gains nothing clear from {rows} to {more_rows} rows, so it can't be told"}

    def at(share: float) -> int:
        return round(rows * (more_rows / rows) ** min(max(share, 0.0), 1.0)) - rows

    def ends(percent: int) -> tuple[float, float]:
        return interval([gain - percent / 100 * slope])[1:]

    share = gain.mean() / slope.mean()
    # Fieller's interval: the shares of the way at which the difference may be none; beyond `more_rows` nothing is said.
    first = bisect_left(range(101), True, key=lambda it: ends(it)[0] <= 0)
    last = bisect_left(range(101), True, key=lambda it: ends(it)[1] < 0) - 1
    low, best, high = at(first / 100), at(share), None if last == 100 else at(last / 100)
    said = f"{'at least ' if share > 1 else ''}{best} [{low}, {high if high is not None else f'at least {at(1.0)}'}]"
    return found | {"low": low, "saved": best, "high": high, "said": f"{said}, for {rows} with rationales"}


def verdict_of(plan: Plan, rows: Sequence[Mapping[str, Any]], worth: float, price: float | None) -> Verdict | None:
    """The verdict of a pilot's done runs; None where no seed has all sides yet."""
    sides = plan.by_side(rows)

    def shared(*names: str) -> list[int]:
        return sorted(set.intersection(*(set(sides[side]) for side in names)))

    def scores(measure: str, *of: str) -> np.ndarray:
        """What each test row scores `[sides, seeds, rows]`."""
        found = scored([sides[side][seed] for side in of for seed in seeds], measure)
        if found is None:
            raise ValueError(f"{plan.folder / 'logits'} lacks the logits of a run, which its log loss is of")
        return found.reshape(len(of), len(seeds), -1)

    compared = ("rationales", *CONTROLS)
    if not (seeds := shared(*compared)):
        return None
    parts = {it: {name: difference(*scores(name, "rationales", it), name) for name in MEASURES} for it in CONTROLS}
    ours, theirs = (sum(sides[it][seed]["train_seconds"] for seed in seeds) for it in ("rationales", "equal_seconds"))
    epochs = {it: [sides[it][seed]["epoch_metrics"] for seed in seeds] for it in compared}
    losses = {it: [[told["classification_loss"] for told in run] for run in runs] for it, runs in epochs.items()}
    doubts, share = [], theirs / ours
    if share < _EQUAL:
        doubts.append(f"pooled had {share:.0%} of their seconds: other work took turns with the runs")
    falling = [1.0 if len(it) < 2 else 1 - it[-1] / max(min(it[:-1]), 1e-9) for it in losses["equal_seconds"]]
    if np.mean(falling) > _LEARNING:
        more = f"more epochs (--num-train-epochs {2 * plan.epochs})"
        doubts.append(f"pooled was still learning in its last epoch: {more}")
    found = judge(parts, worth=worth, doubts=doubts)
    best = [f"{side} {', '.join(str(np.argmin(it) + 1) for it in its if it)}" for side, its in losses.items()]
    notes = [
        f"Pooled at equal seconds: {plan.equal_epochs} epochs to {plan.epochs}, {share:.2f} times the seconds.",
        f"Best epochs: {'; '.join(best)}.",
    ]
    curve, rows_of = ("rationales", "pooled", "more"), (plan.rows, plan.more_rows)
    if plan.more_rows is None:
        curve, rows_of = ("half_rationales", "half", "pooled"), (plan.rows // 2, plan.rows)
    seeds, better = shared(*curve), {"accuracy": 1, "log_loss": -1}
    saved = {it: rows_saved(*(sign * scores(it, *curve)), *rows_of) for it, sign in better.items() if seeds}
    return replace(found, notes=notes, saved=saved, cost=cost_of(found, plan.rows, price))


def cost_of(verdict: Verdict, rows: int, price: float | None) -> dict[str, Any] | None:
    """What the rationales cost, and a point of accuracy over the better pooled side, with its interval; None is no number."""
    if price is None:
        return None
    gain, low, high = map(min, *(verdict.gains[it]["accuracy"] for it in ("pooled", "equal_seconds")))
    total = price * rows
    points = {name: total / it if it > 0 else None for name, it in (("a_point", gain), ("low", high), ("high", low))}
    return {"per_rationale": price, "rationales": rows, "total": total, **points}


def gains_table(verdict: Verdict) -> Table:
    rows = []
    for control, its in verdict.gains.items():
        texts = [[signed(end, 1 if name == "accuracy" else 3) for end in its[name]] for name in MEASURES]
        rows.append([CONTROLS[control], *(f"{gain} [{low}, {high}]" for gain, low, high in texts)])
    columns = ["gain of rationales over", *(f"{it} [97.5%]" for it in MEASURES.values())]
    return Table("verdict", "Are rationales worth buying here?", columns, rows, verdict.notes)


def said(verdict: Verdict) -> list[str]:
    it = verdict
    lines = [f"Verdict: {it.verdict}. {it.why[:1].upper()}{it.why[1:]}."]
    if it.visible_points is not None:
        seen = f"a gain of {it.visible_points:.1f} points over a control is seen in 80 of 100."
        lines.append(f"With {it.seeds} seeds and {it.test_rows} test rows {seen}")
        more = f"{it.test_rows_needed} test rows" if it.seeds_needed is None else f"{it.seeds_needed} seeds"
        if it.verdict == "cannot tell":
            lines.append(f"To tell a gain of {it.to_tell:.2g} points from none takes about {more}.")
    if it.cost is not None:
        a_point, low, high = (it.cost[name] for name in ("a_point", "low", "high"))
        ends = "" if low is None else f" [{low:.3g}, {'no end' if high is None else format(high, '.3g')}]"
        costs = "no point was gained" if a_point is None else f"a point costs {a_point:.3g}{ends}"
        lines.append(f"The {it.cost['rationales']} rationales cost {it.cost['total']:.4g}: {costs}.")
    for name, its in it.saved.items():
        lines.append(f"Labelled rows saved, by {name.replace('_', ' ')}: {its['said']}.")
    return lines
