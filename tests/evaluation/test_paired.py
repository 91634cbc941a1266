"""The interval of a change on the same rows: published values, a naive reference, and its coverage."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, multinomial

from dhrd_hf.evaluation import paired_change


def change_of(both, lost, gained, neither):
    before = [True] * (both + lost) + [False] * (gained + neither)
    return paired_change(before, [True] * both + [False] * lost + [True] * gained + [False] * neither)


@pytest.mark.parametrize(
    ("counts", "change", "low", "high"),
    [
        # Complete response before and after a therapy (Cavo et al., 2012), as the R package contingencytables tests it,
        # with the sign turned: -0.0621 (-0.1240 to -0.0054) there.
        ((65 - 6, 6, 16, 80), 0.0621, 0.0054, 0.1240),
        # All pairs alike: the score is delta * sqrt(n / (|delta| (1 + |delta|) - ...)), whose limit is z^2 / (n + z^2).
        ((10, 0, 0, 0), 0.0, -(1.959964**2) / (10 + 1.959964**2), 1.959964**2 / (10 + 1.959964**2)),
        ((500, 0, 0, 100), 0.0, -(1.959964**2) / (600 + 1.959964**2), 1.959964**2 / (600 + 1.959964**2)),
    ],
)
def test_known_values(counts, change, low, high):
    found = change_of(*counts)
    assert (found["change"], found["low"], found["high"]) == pytest.approx((change, low, high), abs=6e-5)


def naive_score(rows, gained, lost, delta):
    """The score at delta, the nuisance share found by maximising the likelihood on its whole range."""

    def loss(lost_share):
        shares = (lost_share + delta, lost_share, 1 - 2 * lost_share - delta)
        counts = (gained, lost, rows - gained - lost)
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    share = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return ((gained - lost) / rows - delta) / math.sqrt((2 * share + delta - delta**2) / rows)


@pytest.mark.parametrize("counts", [(59, 6, 16, 80), (1, 7, 1, 12), (30, 3, 0, 7), (3, 9, 2, 1), (0, 5, 9, 0)])
def test_both_ends_have_the_quantile_as_their_score(counts):
    _, lost, gained, _ = counts
    found = change_of(*counts)
    for name, score in (("low", 1.959964), ("high", -1.959964)):
        assert naive_score(sum(counts), gained, lost, found[name]) == pytest.approx(score, abs=2e-3)


@pytest.mark.parametrize(("rows", "lost", "gained"), [(30, 0.1, 0.1), (30, 0.2, 0.05), (60, 0.05, 0.1)])
def test_it_holds_the_truth_as_often_as_it_says(rows, lost, gained):
    """Exactly, over every table of so many rows."""
    covered = 0.0
    for count_lost in range(rows + 1):
        for count_gained in range(rows + 1 - count_lost):
            counts = (count_lost, count_gained, rows - count_lost - count_gained)
            probability = multinomial.pmf(counts, rows, (lost, gained, 1 - lost - gained))
            if probability > 1e-7:
                found = change_of(0, count_lost, count_gained, counts[2])
                covered += probability * (found["low"] <= gained - lost <= found["high"])
    assert 0.93 < covered < 0.98


def test_it_is_narrower_than_two_intervals_of_different_rows_and_never_empty():
    found = change_of(800, 5, 7, 188)
    unpaired = 1.96 * math.sqrt(2 * 0.81 * 0.19 / 1000)
    assert 0.4 * unpaired > (found["high"] - found["low"]) / 2 > 0.1 * unpaired
    for counts in ((0, 0, 0, 4), (0, 4, 0, 0), (0, 0, 4, 0), (0, 1, 0, 0), (5, 1, 0, 0)):
        found = change_of(*counts)
        assert -1 <= found["low"] < found["high"] <= 1 and found["low"] <= found["change"] <= found["high"]
    # The sign test of scipy agrees on which changes are beyond chance.
    assert binom.cdf(1, 12, 0.5) < 0.025 and change_of(50, 1, 11, 38)["low"] > 0
    assert binom.cdf(4, 12, 0.5) > 0.025 and change_of(50, 4, 8, 38)["low"] < 0


def test_rows_that_do_not_fit_are_an_error():
    for before, after in (([], []), ([True], [True, False]), (np.ones((2, 2)), np.ones((2, 2)))):
        with pytest.raises(ValueError, match="expected as many rows before as after"):
            paired_change(before, after)
