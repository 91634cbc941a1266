"""Thresholds: what is promised is kept on new rows, and what can't be promised is not."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from dhrd_hf.evaluation import fit_abstention, fit_label_sets, fit_thresholds, rows_that_would_do, threshold_report
from dhrd_hf.evaluation.thresholds import abstention_report, label_set_report


def logits_of(probability):
    """Logits of two classes, of which the second has a probability."""
    return np.log(np.stack([1 - probability, probability], -1))


def kept(target, true, rows, rng, times=120):
    """How often a precision is promised, and how often the promise is broken, where the precision is the same above all thresholds."""
    made = 0
    for _ in range(times):
        probability = rng.uniform(0.01, 0.99, rows)
        found = fit_thresholds(logits_of(probability), (rng.random(rows) < true).astype(int), precision=target)
        made += found[1] is not None
    return made / times


def test_a_promise_is_broken_in_fewer_than_one_of_twenty():
    rng = np.random.default_rng(0)
    broken = kept(0.8, 0.7999, 300, rng)  # a hair below: each promise is wrong
    assert broken <= 0.05, broken
    # And yet promises are made: a naive reading of the best threshold would have been wrong nearly always.
    assert kept(0.8, 0.9, 300, rng) > 0.9
    naive = [max((y[: n + 1].mean() for n in range(9, 300)), default=0) for y in (rng.random((50, 300)) < 0.7999)]
    assert np.mean(np.array(naive) >= 0.8) > 0.8


def test_a_threshold_is_the_lowest_that_can_be_promised():
    rng = np.random.default_rng(1)
    probability = rng.uniform(size=2000)
    labels = (rng.random(2000) < probability).astype(int)
    found = fit_thresholds(logits_of(probability), labels, precision=0.8)[1]
    accepted = probability >= found
    interval = binomtest(int(labels[accepted].sum()), int(accepted.sum())).proportion_ci(0.95, method="exact")
    assert interval.low >= 0.8 and abs(probability - found).min() > 0
    wider = probability >= np.sort(probability)[::-1][int(accepted.sum() / 0.6)]
    assert binomtest(int(labels[wider].sum()), int(wider.sum())).proportion_ci(0.95, method="exact").low < 0.8
    report = threshold_report(logits_of(probability), labels, [None, found])[1]
    assert (report["precision_low"], report["precision_high"]) == pytest.approx((interval.low, interval.high))
    assert report["rows"] == accepted.sum() and report["recall_low"] < report["recall"] < report["recall_high"]


def test_too_few_rows_are_said_with_how_many_would_do():
    rng = np.random.default_rng(2)

    def drawn(rows):
        probability = rng.uniform(size=rows)
        return logits_of(probability), (rng.random(rows) < np.where(probability > 0.5, 0.97, 0.1)).astype(int)

    logits, labels = drawn(60)
    assert fit_thresholds(logits, labels, precision=0.9)[1] is None
    needed = rows_that_would_do(logits, labels, precision=0.9)[1]
    assert 60 < needed < 2000
    reached = [fit_thresholds(*drawn(3 * needed), precision=0.9)[1] is not None for _ in range(20)]
    assert np.mean(reached) > 0.7
    hopeless = logits_of(np.linspace(0.1, 0.9, 50)), np.arange(50) % 2
    assert rows_that_would_do(*hopeless, precision=0.99)[1] is None
    assert fit_thresholds(*hopeless, precision=1.0) == [None, None]  # which no number of rows can show


def test_a_recall_is_promised_as_a_quantile_is():
    rng, broken, times = np.random.default_rng(3), 0, 400
    for _ in range(times):
        probability = rng.uniform(size=150)
        found = fit_thresholds(logits_of(probability), np.ones(150, int), recall=0.8)
        broken += found[1] > 0.2  # the recall of a threshold t is 1 - t here
        assert found[0] is None and found[1] > 0.05  # the first class has no row
    assert 0.002 < broken / times <= 0.05
    least = math.ceil(math.log(0.025) / math.log(0.9))
    assert fit_thresholds(logits_of(np.linspace(0.1, 0.9, least - 1)), np.ones(least - 1, int), recall=0.9)[1] is None
    assert fit_thresholds(logits_of(np.linspace(0.1, 0.9, least)), np.ones(least, int), recall=0.9)[1] is not None


def test_abstaining_keeps_the_accuracy_on_other_rows():
    rng, broken = np.random.default_rng(4), 0

    def drawn(rows):
        logits = rng.normal(size=(rows, 3)) * 2
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return logits, (shares.cumsum(-1) < rng.random((rows, 1))).sum(-1)

    others = drawn(20_000)
    for _ in range(40):
        threshold, needed = fit_abstention(*drawn(600), 0.85)
        assert (threshold is None) == (needed != 600)
        if threshold is not None:
            told = abstention_report(*others, threshold)
            broken += told["accuracy"]["value"] < 0.85
            assert told["coverage"]["value"] == pytest.approx(told["answered"] / 20_000)
    assert broken <= 2
    assert fit_abstention(*drawn(600), 0.2)[0] < 0.34  # nothing needs to be left out
    assert abstention_report(*others, 1.1)["accuracy"] is None
    with pytest.raises(ValueError, match="one label a row"):
        fit_abstention(np.zeros((3, 2)), np.array([[0, 1], [1, 1], [0, 0]]), 0.9)


def test_label_sets_hold_the_right_label_as_often_as_they_say():
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(100):
        logits = rng.normal(size=(120, 4))  # of labels that they know nothing about
        labels = rng.integers(0, 4, 120)
        threshold = fit_label_sets(logits[:60], labels[:60], 0.8)
        told = label_set_report(logits[60:], labels[60:], threshold)
        covered.append(told["coverage"]["value"])
        assert 0 <= told["empty"] + told["single"] <= 1 and 1 <= told["mean_size"] <= 4
    # Exchangeable rows: at least 0.8, and at most 1 / 61 above it.
    assert 0.785 < np.mean(covered) < 0.83
    assert fit_label_sets(np.zeros((8, 2)), np.zeros(8, int), 0.9) is None  # nine would do
    assert fit_label_sets(np.zeros((9, 2)), np.zeros(9, int), 0.9) is not None


def test_what_is_asked_for_must_be_one_share():
    with pytest.raises(ValueError, match="a precision or a recall"):
        fit_thresholds(np.zeros((2, 2)), np.array([0, 1]))
    with pytest.raises(ValueError, match="precision=1.5 must be above 0 and at most 1"):
        fit_thresholds(np.zeros((2, 2)), np.array([0, 1]), precision=1.5)
    with pytest.raises(ValueError, match="coverage=1 must be above 0 and below 1"):
        fit_label_sets(np.zeros((2, 2)), np.array([0, 1]), 1)


def test_multi_label_thresholds_are_on_the_sigmoid():
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(300, 2))
    labels = (logits + 0.3 * rng.normal(size=logits.shape) > 0).astype(int)
    found = fit_thresholds(logits, labels, recall=0.9)
    sigmoid = 1 / (1 + np.exp(-logits))
    for k, threshold in enumerate(found):
        assert ((sigmoid[:, k] >= threshold) & (labels[:, k] == 1)).sum() / labels[:, k].sum() >= 0.9
