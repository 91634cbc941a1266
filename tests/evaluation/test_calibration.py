"""Calibration measures and the temperature, against scikit-learn and naive sums."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from dhrd_hf.evaluation import calibration_metrics, fit_temperature, reliability


@pytest.fixture(scope="module")
def sample():
    """Logits that are too sure by a factor of three, with labels drawn from the right probabilities."""
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(4000, 3)) * 1.5
    labels = np.array([rng.choice(3, p=row) for row in softmax(honest, axis=-1)])
    return honest * 3.0, labels


def test_the_measures_are_the_naive_sums(sample):
    logits, labels = sample
    probabilities, bins = softmax(logits, axis=-1), 10
    naive = brier = nll = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [i for i, row in enumerate(probabilities) if low < row.max() <= high]
        if inside:
            accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            naive += len(inside) / len(labels) * abs(accuracy - np.mean([probabilities[i].max() for i in inside]))
    for row, label in zip(probabilities, labels, strict=True):
        brier += sum((p - (k == label)) ** 2 for k, p in enumerate(row)) / len(labels)
        nll -= np.log(row[label]) / len(labels)
    found = calibration_metrics(logits, labels, bins=bins)
    assert found["expected_calibration_error"] == pytest.approx(naive, rel=1e-9)
    assert found["brier_score"] == pytest.approx(brier, rel=1e-9)
    assert found["nll"] == pytest.approx(nll, rel=1e-9)
    curve = reliability(logits, labels, bins)
    assert sum(point["rows"] for point in curve) == len(labels)
    assert all(0 < point["confidence"] <= 1 and 0 <= point["accuracy"] <= 1 for point in curve)


class _Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return x.argmax(-1)


def test_the_temperature_is_scikit_learns(sample):
    logits, labels = sample
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(3.0, rel=0.1)  # what they were multiplied by
    fitted = CalibratedClassifierCV(FrozenEstimator(_Logits().fit(logits, labels)), method="temperature")
    theirs = fitted.fit(logits, labels).predict_proba(logits)
    np.testing.assert_allclose(softmax(logits / temperature, axis=-1), theirs, atol=1e-3)
    before, after = calibration_metrics(logits, labels), calibration_metrics(logits / temperature, labels)
    assert after["nll"] < before["nll"] and after["brier_score"] < before["brier_score"]
    assert after["expected_calibration_error"] < 0.2 * before["expected_calibration_error"]
    for near in (temperature * 0.99, temperature * 1.01):
        worse = -log_softmax(logits / near, axis=-1)[np.arange(len(labels)), labels].mean()
        assert worse > after["nll"]


def test_multi_label_is_a_yes_or_no_for_each(sample):
    rng = np.random.default_rng(1)
    honest = rng.normal(size=(1500, 2))
    labels = (rng.random(honest.shape) < 1 / (1 + np.exp(-honest))).astype(float)
    logits = honest * 2.5
    assert fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.15)
    yes = 1 / (1 + np.exp(-logits.reshape(-1)))
    found = calibration_metrics(logits, labels)
    assert found["nll"] == pytest.approx(log_loss(labels.reshape(-1), yes), rel=1e-9)
    assert found["brier_score"] == pytest.approx(2 * brier_score_loss(labels.reshape(-1), yes), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "match"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "a label a row"),
        (np.zeros((3, 2)), np.zeros(2, int), "a label a row"),
        (np.zeros((3, 1)), np.zeros(3), "regression"),
        (np.zeros((3, 2)), np.array([[0.5, 1], [2, -3], [1, 0]]), "regression"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "label id 2 is out of range"),
        (np.zeros((3, 2)), np.zeros((3, 3)), "Multi label"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, match):
    for measure in (calibration_metrics, fit_temperature):
        with pytest.raises(ValueError, match=match):
            measure(logits, labels)


def test_a_split_that_says_nothing_is_refused():
    logits = np.array([[2.0, 0.0], [3.0, 0.0]])
    with pytest.raises(ValueError, match="All 2 rows .* one label"):
        fit_temperature(logits, np.array([0, 0]))
    with pytest.raises(ValueError, match="of 2 rows 100% are right"):
        fit_temperature(np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([0, 1]))
    with pytest.raises(ValueError, match="of 2 rows 0% are right"):
        fit_temperature(np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([1, 0]))
