"""What intervals cover and what power is, in draws of which the truth is known; and the analysis of variance by its formulas."""

import itertools

import numpy as np
import pytest
from scipy.stats import f_oneway, permutation_test, t, ttest_1samp

from dhrd_hf.study.intervals import interval, noise, power, seeds_for, sign_test, visible_gain

TRUTH = 0.03


def gains(draw, seeds, between_seeds, items=100, shared=0.2):
    """Of each seed on each item: an item's own for all seeds, a seed's for all items, and what each has on each."""
    found = TRUTH + draw.normal(0, shared, items) + draw.normal(0, between_seeds, (seeds, 1))
    return found + draw.normal(0, 0.4, (seeds, items))


def coverage(seeds, between_seeds, trials, shared=0.2):
    draw, held = np.random.default_rng(0), 0
    for _ in range(trials):
        _, low, high = interval([gains(draw, number, between_seeds, shared=shared) for number in seeds])
        held += low <= TRUTH <= high
    return held / trials


@pytest.mark.parametrize("between_seeds", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_of_a_data_set_covers_92_to_98_of_100(seeds, between_seeds):
    assert 0.92 <= coverage([seeds], between_seeds, 1000) <= 0.98


@pytest.mark.parametrize("between_seeds", [0.0, 0.2])
@pytest.mark.parametrize(
    "seeds", [[2] * 6, [3] * 6, [5] * 6, [1, 3] * 3, [1, 1, 2], [1] * 4], ids=lambda its: "-".join(map(str, its))
)
def test_the_interval_of_a_mean_covers_92_to_98_of_100_also_where_sets_have_one_seed(seeds, between_seeds):
    if set(seeds) == {1}:  # over items alone, which is of these runs
        between_seeds = 0.0
    assert 0.92 <= coverage(seeds, between_seeds, 600) <= 0.98


def test_seeds_and_items_that_add_up_have_the_noise_of_the_formulas():
    """Rows' and columns' mean squares, as scipy's one-way analysis has them."""
    draw = np.random.default_rng(0)
    part = draw.normal(size=(4, 30)) + draw.normal(size=30)
    found = noise([part])
    rows, columns = part - part.mean(0), part - part.mean(1, keepdims=True)
    residual = ((rows - rows.mean(1, keepdims=True)) ** 2).sum() / 3 / 29
    between = columns.mean(0).var(ddof=1) * 4  # the items' mean square
    assert found.own[0] == pytest.approx(residual / 30)
    assert found.of_items[0] == pytest.approx((between - residual) / 4 / 30)
    assert found.among_seeds[0] == pytest.approx(part.mean(1).var(ddof=1))
    within = ((part - part.mean(0)) ** 2).sum() / (30 * 3)
    assert f_oneway(*part.T).statistic == pytest.approx(between / within)
    # The variance of the mean, as Hillis (2007) has it: all mean squares over the number of scores.
    seeds = 30 * part.mean(1).var(ddof=1)
    of_seeds, of_items, freedom, _ = found.variances()
    assert of_seeds + of_items == pytest.approx((seeds + between - residual) / 120) and freedom == pytest.approx(3)


def test_an_interval_of_one_source_of_noise_is_scipys():
    draw = np.random.default_rng(0)
    for part in (draw.normal(size=(1, 20)), np.repeat(draw.normal(size=(4, 1)), 20, axis=1)):
        own = ttest_1samp(part.ravel() if len(part) == 1 else part[:, 0], 0).confidence_interval()
        assert interval([part])[1:] == pytest.approx((own.low, own.high))
    same = np.full((3, 20), 0.25)
    assert interval([same]) == (0.25, 0.25, 0.25)


def test_seeds_that_happen_to_be_alike_make_no_far_narrower_interval():
    """Two seeds of one mean that are right on other items: what the items alone tell is kept."""
    part = np.random.default_rng(0).normal(size=(2, 100))
    part -= part.mean(1, keepdims=True)
    _, low, high = interval([part])
    own = ttest_1samp(part.mean(0), 0).confidence_interval()
    assert high - low == pytest.approx(0.4**0.5 * (own.high - own.low))


def test_the_width_is_a_third_of_each_sources_own_and_two_of_both_together():
    part = gains(np.random.default_rng(0), 3, 0.2)
    of_seeds, of_items, few, many = noise([part]).variances()
    whole = (of_seeds + of_items) ** 2 / (of_seeds**2 / few + of_items**2 / many)
    own = t.ppf(0.975, few) ** 2 * of_seeds + t.ppf(0.975, many) ** 2 * of_items
    both = t.ppf(0.975, whole) ** 2 * (of_seeds + of_items)
    _, low, high = interval([part])
    assert (high - low) / 2 == pytest.approx(np.sqrt(own / 3 + 2 * both / 3))


def test_items_that_tell_less_than_seeds_add_take_no_noise_away():
    """Of a set with one seed as much is taken off as seeds add on each item, which may be more than it has."""
    draw = np.random.default_rng(4)
    loud, calm = draw.normal(size=(3, 50)), 0.01 * draw.normal(size=(1, 80))
    of_seeds, of_items, _, freedom = noise([loud, calm]).variances()
    assert of_seeds > 0 and of_items == 0 and freedom == 49


def test_what_is_impossible_is_in_no_interval_and_one_item_has_none():
    part = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert interval([part], within=(0.0, 1.0))[1:] == (0.0, 1.0)
    value, low, high = interval([part[:, :1]])
    assert value == 0.5 and np.isnan([low, high]).all()
    assert np.isnan(interval([part, np.full((2, 2), np.nan)])[1:]).all()


def test_the_seeds_of_sets_with_one_are_those_of_the_others():
    draw = np.random.default_rng(0)
    several, one = gains(draw, 3, 0.2), gains(draw, 1, 0.2)
    found = noise([several, one])
    of_seeds, of_items, freedom, _ = found.variances()
    among, own = several.mean(1).var(ddof=1), found.own[0]
    assert of_seeds == pytest.approx((among / 3 + among) / 4) and freedom == pytest.approx(2)
    assert of_items == pytest.approx((found.of_items[0] + one.var(ddof=1) / 100 - own) / 4)
    # Weighed by their degrees of freedom where there are several.
    fifth = gains(draw, 5, 0.2)
    of_seeds = noise([several, fifth, one]).variances()[0]
    others = among, fifth.mean(1).var(ddof=1)
    assert 9 * of_seeds == pytest.approx(others[0] / 3 + others[1] / 5 + (2 * others[0] + 4 * others[1]) / 6)


@pytest.mark.parametrize("sets", [1, 3])
def test_with_the_seeds_that_are_said_80_of_100_studies_see_the_gain(sets):
    draw = np.random.default_rng(1)
    pilot = [gains(draw, 60, 0.12, items=400) for _ in range(sets)]  # so many that their noise is known
    of = noise(pilot)
    gain = 0.1
    needed = seeds_for(of, gain)
    assert power(of, gain, needed - 1) < 0.8 <= power(of, gain, needed)
    seen = []
    for _ in range(500):
        parts = [gains(draw, needed, 0.12, items=400) - TRUTH + gain for _ in range(sets)]
        seen.append(interval(parts)[1] > 0)
    assert np.mean(seen) == pytest.approx(power(of, gain, needed), abs=0.06) and 0.74 <= np.mean(seen) <= 0.93


def test_the_number_of_seeds_is_the_least():
    of = noise([gains(np.random.default_rng(0), 5, 0.12, items=400)])
    for gain in np.linspace(0.05, 0.4, 15):
        needed = seeds_for(of, gain)
        assert needed == next(seeds for seeds in itertools.count(2) if power(of, gain, seeds) >= 0.8)


def test_degrees_of_freedom_of_several_sets():
    """Satterthwaite's with half a degree more for each set, and less for their sum: of equal ones 1.5 S - 0.5."""
    part = gains(np.random.default_rng(0), 2, 0.2)
    for sets in (1, 2, 6):
        assert noise([part] * sets).variances()[2] == pytest.approx(1.5 * sets - 0.5)
    items = noise([part[:1]] * 3).variances()[3]
    assert items == pytest.approx(3 * 99)


def test_power_of_a_study_as_it_is():
    of = noise([gains(np.random.default_rng(0), 4, 0.1)])
    seen = visible_gain(of)
    assert power(of, seen) == pytest.approx(0.8) == power(of, -seen)
    assert power(of, 0.0) < 0.05 and power(of, 2 * seen) > 0.95
    more = [power(of, seen, seeds) for seeds in (2, 4, 8, 16)]
    assert more == sorted(more) and more[1] == pytest.approx(0.8)


def test_no_number_of_seeds_takes_away_what_the_items_add():
    draw = np.random.default_rng(0)
    wide = noise([gains(draw, 3, 0.1, items=20, shared=1.0)])
    assert seeds_for(wide, 0.1) is None and seeds_for(noise([gains(draw, 1, 0.1)]), 1.0) is None
    same = noise([np.zeros((3, 10))])
    assert seeds_for(same, 0.1) == 2 and visible_gain(same) == 0


def test_the_sign_test_is_of_every_sign_of_every_pair():
    its = [np.array([1.0, 2.0, -0.5]), np.array([0.5, 0.25])]
    weighed = np.concatenate([its[0] / 3, its[1] / 2])
    sums = [abs((np.array(signs) * weighed).sum()) for signs in itertools.product((-1, 1), repeat=5)]
    assert sign_test(its) == pytest.approx(np.mean(np.array(sums) >= abs(weighed.sum()) - 1e-12))
    assert sign_test([np.array([1.0])]) == 1.0
    # Of one data set it is scipy's test of paired samples.
    draw = np.random.default_rng(0).normal(0.5, 1, 9)
    own = permutation_test((draw, 0 * draw), lambda a, b: np.mean(a - b), permutation_type="samples")
    assert sign_test([draw]) == pytest.approx(own.pvalue)
    many = np.random.default_rng(0).normal(0, 1, 40)
    assert sign_test([many]) == sign_test([many]) > 0.05 > sign_test([many + 1])
