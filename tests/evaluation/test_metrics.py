import numpy as np
import pytest
import sklearn.metrics as oracle
from scipy.special import expit

from dhrd_hf.evaluation import calibration_metrics, compute_metrics


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def test_single_label_equals_scikit_learn(draw):
    logits, labels = draw.normal(size=(200, 4)), draw.integers(0, 3, 200)  # one label is never right
    found = compute_metrics((logits, labels))
    assert found == {
        "accuracy": pytest.approx(oracle.accuracy_score(labels, logits.argmax(-1))),
        "macro_f1": pytest.approx(oracle.f1_score(labels, logits.argmax(-1), average="macro")),
    }
    assert 0.1 < found["accuracy"] < 0.5


def test_multi_label_equals_scikit_learn(draw):
    logits, labels = draw.normal(size=(200, 3)), draw.integers(0, 2, (200, 3)).astype(float)
    yes = 1 / (1 + np.exp(-logits)) > 0.5
    assert compute_metrics((logits, labels)) == {
        "accuracy": pytest.approx(oracle.accuracy_score(labels, yes)),
        "macro_f1": pytest.approx(oracle.f1_score(labels, yes, average="macro")),
    }


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_regression_equals_scikit_learn(draw, shape):
    values, labels = draw.normal(size=shape), draw.normal(size=50)
    assert compute_metrics((values, labels)) == {
        "mse": pytest.approx(oracle.mean_squared_error(labels, values.reshape(-1))),
        "mae": pytest.approx(oracle.mean_absolute_error(labels, values.reshape(-1))),
    }


def test_metrics_go_by_the_problem_type_and_never_by_the_values(draw):
    values, targets = draw.normal(size=(50, 3)), draw.integers(0, 2, (50, 3)).astype(float)
    for labels in (targets, targets + 0.5):  # whole or not
        assert compute_metrics((values, labels), "regression") == {
            "mse": pytest.approx(oracle.mean_squared_error(labels, values)),
            "mae": pytest.approx(oracle.mean_absolute_error(labels, values)),
        }
    assert compute_metrics((values, targets), "multi_label_classification") == compute_metrics((values, targets))
    one = draw.normal(size=(50, 1))
    assert compute_metrics((one, targets[:, :1]), "multi_label_classification")["accuracy"] == pytest.approx(
        oracle.accuracy_score(targets[:, :1], one > 0)
    )
    for kind in (None, "multi_label_classification"):
        with pytest.raises(ValueError, match="whole numbers; for a regression say problem_type='regression'"):
            compute_metrics((values, targets + 0.5), kind)


def test_rows_without_a_label_are_not_counted(draw):
    logits, labels = draw.normal(size=(200, 4)), draw.integers(0, 4, 200)
    labels[::3] = -100
    kept = labels != -100
    assert compute_metrics((logits, labels)) == compute_metrics((logits[kept], labels[kept]))
    assert compute_metrics((logits, labels))["accuracy"] == pytest.approx(
        oracle.accuracy_score(labels[kept], logits[kept].argmax(-1))
    )


def test_a_class_that_is_neither_there_nor_predicted_is_not_in_macro_f1():
    logits = np.array([[3.0, 0, 0], [0, 3.0, 0], [3.0, 0, 0], [0, 3.0, 0]])
    found = compute_metrics((logits, np.array([0, 1, 1, 1])))
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    logits[0] = [0, 0, 3.0]  # predicted, and never there
    assert compute_metrics((logits, np.array([0, 1, 1, 1])))["macro_f1"] == pytest.approx((0 + 0 + 4 / 5) / 3)


def test_a_trainers_prediction_is_read(draw):
    from transformers import EvalPrediction

    logits, labels = draw.normal(size=(20, 2)), draw.integers(0, 2, 20)
    for more in ({}, {"inputs": logits}, {"inputs": logits, "losses": logits[:, 0]}):
        assert compute_metrics(EvalPrediction(logits, labels, **more)) == compute_metrics((logits, labels))


def test_rows_that_do_not_match_are_named():
    with pytest.raises(ValueError, match="3 rows of logits and 2 labels"):
        compute_metrics((np.zeros((3, 2)), np.zeros(2, int)))


def test_one_label_of_multi_label_is_measured_by_itself():
    logits, labels = np.array([[2.0], [-1.0], [3.0], [-2.0]]), np.array([[1], [1], [0], [0]])
    found = compute_metrics((logits, labels), "multi_label_classification")
    assert found == {"accuracy": 0.5, "macro_f1": 0.5}
    labels[:] = [[0], [0], [0], [1]]
    assert compute_metrics((logits, labels), "multi_label_classification") == {"accuracy": 0.25, "macro_f1": 0.0}
    assert calibration_metrics(logits, labels)["nll"] == pytest.approx(
        oracle.log_loss(labels[:, 0], expit(logits[:, 0]))
    )


def test_rows_that_all_have_no_label_are_an_error():
    with pytest.raises(ValueError, match="no row with a label to measure: all labels are -100"):
        compute_metrics((np.zeros((2, 3)), np.array([-100, -100])))
