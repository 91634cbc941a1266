"""A pilot: a small study of one's own rows, and its verdict on whether rationales are worth buying for them."""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..data.joining import KEY_COLUMNS, join_rationales
from ..data.prompts import rationale_text
from ..data.table_writing import write_rows
from ..data.tables import load_table
from ..files import write_whole
from ..pages.study import Table, signed
from .data import keep_digests, single_labels
from .groups import scored
from .intervals import interval, noise, seeds_for, visible_gain
from .plan import Study, study_of
from .results import read_results, together
from .run import runs_folder
from .statistics import difference

_MOST_TEST, _MOST_VALIDATION, _LEAST = 2000, 300, 20  # rows
_STEPS = 6  # that the first estimate is made of
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
class Plan:
    """The runs of a pilot: written as a study's file, and run as any study."""

    folder: Path
    model: str
    train: dict[str, Any]
    columns: dict[str, str]
    rows: int
    more_rows: int | None  # None: there are too few labelled rows, and the curve is of half of the rows
    epochs: int
    equal_epochs: int | None = None

    @property
    def sides(self) -> dict[str, dict[str, Any]]:
        """What is run for each seed, by data set, setting, number of training rows and epochs."""

        def side(setting: str, epochs: int = self.epochs, data: str = "rows", size: int | None = None) -> dict:
            return {"setting": setting, "num_train_epochs": epochs, "data": data, "train_size": size}

        sides = {"rationales": side("dual_head"), "pooled": side("pooled"), "shuffled": side("shuffled_rationale")}
        if self.equal_epochs is not None:
            sides["equal_seconds"] = side("pooled", self.equal_epochs)
        if self.more_rows is not None:
            return sides | {"more": side("pooled", data="more-rows")}
        half = self.rows // 2
        return sides | {"half_rationales": side("dual_head", size=half), "half": side("pooled", size=half)}

    def study(self, seeds: int, only: Sequence[str] = ()) -> Study:
        """Write the study's file, whole or not at all, and read it."""
        sides = [its for side, its in self.sides.items() if not only or side in only]
        blocks = [{"seed": seed, **its} for seed in range(seeds) for its in sides]  # each seed whole before the next
        return self._written(self.folder, blocks, "validation")

    def timing(self) -> Study:
        """A study of a few steps of both objectives, which the first estimate is made of."""
        of_timing = {"max_steps": _STEPS, "data": "rows", "seed": 0}
        return self._written(self.folder / "timing", [{**of_timing, "setting": ["dual_head", "pooled"]}])

    def _written(self, folder: Path, blocks: list[dict[str, Any]], *parts: str) -> Study:
        beside = os.path.relpath(self.folder / "tables", folder)
        tables = {part: Path(beside, f"{part}.jsonl").as_posix() for part in ("train", "test", "more", "validation")}
        spec = {"eval": tables["test"], **{part: tables[part] for part in parts}, **self.columns}
        data = {"rows": {"train": tables["train"], **spec}}
        data |= {"more-rows": {"train": tables["more"], **spec}} if self.more_rows is not None else {}
        content = {"name": "pilot", "model": self.model, "data": data, "train": self.train, "grid": blocks}
        found = study_of(content, "dhrd pilot", folder)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
        write_whole(folder / "study.yaml", text)
        return found

    def two(self, study: Study, folder: Path) -> list[Mapping[str, Any]]:
        """The rows of rationales and of the pooled side with the first seed, which times are read from."""
        rows = {row["cell"]: row for row in read_results([folder / "results.jsonl"])}
        found = [rows[run.id] for run in study.runs if run.seed == 0]
        for row in (row for row in found if row["status"] != "done"):
            where = runs_folder(folder) / row["cell"] / "log.txt"
            raise ValueError(f"{row['setting']} failed: {row['error']} (see {where})")
        return found

    def seconds(self, rationales: Mapping[str, Any], pooled: Mapping[str, Any]) -> dict[str, float]:
        """How long each side takes with one seed, from a row of each of two settings."""

        def of(its: Mapping[str, Any]) -> float:
            row = pooled if its["setting"] == "pooled" else rationales
            size = self.more_rows if its["data"] == "more-rows" else its["train_size"] or self.rows
            of_epoch = size / row["train_samples_per_second"]
            return row["seconds"] - row["train_seconds"] + its["num_train_epochs"] * of_epoch

        return {side: of(its) for side, its in self.sides.items()}

    def with_equal_epochs(self, rationales: Mapping[str, Any], pooled: Mapping[str, Any]) -> Plan:
        """With the epochs that the pooled side does while rationales do theirs, by a row of each."""
        ratio = pooled["train_samples_per_second"] / rationales["train_samples_per_second"]
        return replace(self, equal_epochs=max(self.epochs, math.ceil(self.epochs * ratio - 1e-9)))

    def by_side(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
        """The done rows of a table by side and seed."""
        found: dict[str, dict[int, Mapping[str, Any]]] = {side: {} for side in self.sides}
        for row in rows:
            told = {"num_train_epochs": row["options"].get("num_train_epochs"), **row}
            for side, its in self.sides.items() if row["status"] == "done" else ():
                if all(told[name] == value for name, value in its.items()):
                    found[side][row["seed"]] = row
        return found


def write_tables(
    folder: Path,
    source: str,
    rationales: str | None,
    eval_source: str | None,
    columns: Mapping[str, str],
    drop_unlabelled: bool,
    say: Callable[[str], None],
) -> tuple[int, int | None]:
    """Write the rows to train on, to choose the best epoch by and to test on, and the first with other labelled ones; how many to train on."""
    label, rationale = columns["label_column"], columns["rationale_column"]

    def read(source: str) -> list[dict[str, Any]]:
        return single_labels(load_table(source), label, source, drop_unlabelled, say)[0].to_list()

    rows = read(source)
    if rationales is not None:
        rows, counts = join_rationales(rows, rationales, rationale_column=rationale, label_column=label)
        say(f"{rationales}: {counts}")
    has = [rationale_text(row.get(rationale)) is not None for row in rows]
    # Rows of a group, or alike in all but these, are on one side.
    apart = (label, rationale, *KEY_COLUMNS)
    alike = [row.get("group") or {name: it for name, it in row.items() if name not in apart} for row in rows]
    members = together(range(len(rows)), lambda row: json.dumps(alike[row], default=str))
    drawn = [members[number] for number in np.random.default_rng(0).permutation(len(members))]
    sizes = {"test": min(_MOST_TEST, int(0.3 * len(rows)))} if eval_source is None else {}
    sizes["validation"] = min(_MOST_VALIDATION, max(_LEAST, int(0.15 * sum(has))))
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "more": [], "validation": []}
    parts["test"] = [] if eval_source is None else read(eval_source)
    # To test and to choose by first those without a rationale: the others are dear.
    for places in sorted(drawn, key=lambda places: any(has[place] for place in places)):
        part = next((name for name, size in sizes.items() if len(parts[name]) < size), None)
        for place in places:
            parts[part or ("train" if has[place] else "more")].append(rows[place])
    number = len(parts["train"])
    for name in ("train", "test"):
        if len(parts[name]) < _LEAST:
            raise ValueError(
                f"{source} has {len(rows)} rows, {sum(has)} of them with a rationale, which leaves {len(parts[name])} to "
                f"{name} on, and {_LEAST} are the least: a hundred rationales do to start; --eval-data names rows to test on"
            )
    known = {row[label] for row in parts["train"]}
    for name in ("test", "validation"):
        if strange := sorted({row[label] for row in parts[name]} - known):
            said = f"no row to train on with a rationale has the label {strange[0]!r}, which {name} rows have"
            raise ValueError(said)
        parts[name] = [{column: it for column, it in row.items() if column != rationale} for row in parts[name]]
    others = parts["more"][:number]
    more = number + len(others) if len(others) >= number / 4 else None
    parts["more"] = parts["train"] + others
    keep_digests(folder / "tables" / "digests.json", parts)
    for name, its in parts.items():
        write_rows(folder / "tables" / f"{name}.jsonl", its)
    say(
        f"{number} rows with a rationale to train on, {len(parts['validation'])} to choose the best epoch by, "
        f"{len(parts['test'])} to test on; pooled also on {more or number // 2} rows"
    )
    return number, more


def price_of(*tables: str | None) -> float | None:
    """What a rationale cost, by the manifest that `dhrd rationales generate` leaves beside its file."""
    for table in filter(None, tables):
        try:
            manifest = json.loads(Path(table).expanduser().with_suffix(".manifest.json").read_text(encoding="utf-8"))
            cost, number = manifest["usage"]["cost"], manifest["counts"]["accepted"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if cost and number:
            return cost / number
    return None


# The verdict


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
