"""What a study's 95% intervals cover of gains that are known, since the runs are drawn: between 92 and 98 of 100.

    python examples/benchmarks/interval_coverage.py [--quick]

A run's logits are the right class's strength, what its data set's items have for all runs and for those of its setting, its
seed's strength and leaning to classes, and noise of its own. Seeds differ by nothing, by about as much as items do, or by far
more; there are 100, 300 or 1,000 test items (`--quick`: 150), and accuracies from .55 to .9. Of each line: the share over
all of these, and the lowest and highest of one.
"""

from __future__ import annotations

import argparse
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm, qmc

from dhrd_hf.study.intervals import interval
from dhrd_hf.study.metrics import OF_LOGITS, SCORES, measured
from dhrd_hf.study.statistics import difference, ratio

SEEDS = {"2 seeds": (2,), "3 seeds": (3,), "5 seeds": (5,), "mixed seeds": (1, 3)}
SETS = 6
MANY_SEEDS, MANY_ITEMS, ENOUGH_ITEMS = 32, 16000, 4000


@dataclass(frozen=True)
class Truth:
    """Two settings on a data set: how strong each is, and how far its seeds differ."""

    strengths: tuple[float, float]
    between_seeds: float
    classes: int = 3

    def runs(self, draw: np.random.Generator, seeds: np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels `[items]` and logits `[2, seeds, items, classes]`, of normal numbers `[seeds, 2 * (1 + classes)]`."""
        labels = draw.integers(0, self.classes, items)
        of_seed = self.between_seeds * seeds.T.reshape(2, 1 + self.classes, -1)
        strength = np.array(self.strengths)[:, None] + of_seed[:, 0]
        noise = draw.normal(size=(items, self.classes)) + 0.4 * draw.normal(size=(2, 1, items, self.classes))
        noise = noise + 0.4 * draw.normal(size=(2, len(seeds), items, self.classes))
        leaning = of_seed[:, 1:].transpose(0, 2, 1)[:, :, None]
        return labels, strength[..., None, None] * np.eye(self.classes)[labels] + leaning + noise


def sides(labels: np.ndarray, logits: np.ndarray, score: str) -> tuple[np.ndarray, np.ndarray]:
    """What each of the two settings has on each item, `[seeds, items]`; what is a mean over items for all runs at once."""
    if score == "accuracy":
        ours, theirs = (logits.argmax(-1) == labels).astype(float)
    elif score == "log_loss":
        ours, theirs = logsumexp(logits, axis=-1) - np.take_along_axis(
            logits, labels[None, None, :, None], axis=-1
        ).squeeze(-1)
    else:
        ours, theirs = (
            np.stack([measured(score, labels, it if score in OF_LOGITS else it.argmax(-1))[1] for it in side])
            for side in logits
        )
    return ours, theirs


def true_scores(of: tuple[Truth, str], items: int) -> tuple[float, float]:
    """The mean scores of the two settings over many seeds, spread evenly, and items."""
    truth, score = of
    even = qmc.LatinHypercube(2 * (1 + truth.classes), rng=np.random.default_rng(2)).random(MANY_SEEDS)
    ours, theirs = sides(*truth.runs(np.random.default_rng(1), norm.ppf(even), items), score)
    return float(ours.mean()), float(theirs.mean())


@dataclass(frozen=True)
class Condition:
    """What is drawn again and again: data sets, whose numbers of seeds take turns, and their true scores."""

    truths: tuple[Truth, ...]
    seeds: tuple[int, ...]
    items: int
    trials: int
    known: dict[tuple[Truth, str], tuple[float, float]]

    @property
    def scores(self) -> tuple[str, ...]:
        """Of a mean over data sets one that is a share, and one that is not."""
        return SCORES if len(self.truths) == 1 else ("accuracy", "log_loss")


def covered(of: Condition) -> dict[str, float]:
    """How many of the intervals of each kind hold the truth."""
    draw = np.random.default_rng([of.items, *of.seeds, round(100 * of.truths[0].between_seeds)])
    held: dict[str, list[bool]] = {}
    for _ in range(of.trials):
        drawn = [
            truth.runs(draw, draw.normal(size=(number, 2 * (1 + truth.classes))), of.items)
            for truth, number in zip(of.truths, itertools.cycle(of.seeds), strict=False)
        ]
        for score in of.scores:
            found = [sides(*it, score) for it in drawn]
            true = [tuple(map(np.array, of.known[truth, score])) for truth in of.truths]
            kinds = {
                f"gain, {score}": ([difference(*it, score) for it in found], [difference(*it, score) for it in true])
            }
            if score == "accuracy":
                kinds["relative gain"] = [ratio(*it) for it in found], [ratio(*it) for it in true]
                kinds["score"] = [ours for ours, _ in found], [ours for ours, _ in true]
                if len(of.truths) > 1:
                    means, whole = np.mean([[it.mean() for it in its] for its in found], 0), np.mean(true, 0)
                    parts = [ratio(*it, *means) for it in found]
                    kinds["relative gain of the means"] = parts, [ratio(*map(np.array, whole))]
            for name, (parts, value) in kinds.items():
                _, low, high = interval(parts)
                held.setdefault(name, []).append(bool(low <= np.mean(value) <= high))
    return {name: float(np.mean(its)) for name, its in held.items()}


def main() -> None:
    """Print what each kind of interval covers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer trials, one number of items (under a minute)")
    quick = parser.parse_args().quick
    sizes, strengths, trials = ((150,), (1.2,), 100) if quick else ((100, 300, 1000), (0.7, 1.2, 2.4), 200)
    grid = [*itertools.product((0.0, 0.3, 1.0), sizes, strengths)]
    lines = [(name, sets) for name, sets in itertools.product(SEEDS, (1, SETS)) if len(SEEDS[name]) <= sets]
    known: dict[tuple[Truth, str], tuple[float, float]] = {}
    conditions = {}
    for name, sets in lines:  # of one data set there are no mixed seeds
        for between, items, strength in grid:
            truths = tuple(Truth((strength + 0.2 + 0.1 * place, strength), between) for place in range(sets))
            conditions.setdefault((name, sets), []).append(Condition(truths, SEEDS[name], items, trials, known))
    needed = {
        (truth, score): None for its in conditions.values() for it in its for truth in it.truths for score in it.scores
    }
    true = partial(true_scores, items=ENOUGH_ITEMS if quick else MANY_ITEMS)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        known.update(zip(needed, pool.map(true, needed), strict=True))
        for (name, sets), its in conditions.items():
            found = list(pool.map(covered, its))
            what = "of a data set" if sets == 1 else f"of the mean over {sets} data sets"
            for kind in found[0]:
                shares = [it[kind] for it in found]
                spread = f"({min(shares):.3f} to {max(shares):.3f})"
                print(f"coverage 0.95 {what}, {kind}, {name}: {np.mean(shares):.3f} {spread}", flush=True)


if __name__ == "__main__":
    main()
