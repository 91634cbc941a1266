"""SuperGLUE's metrics against scikit-learn, cases worked by hand, and brute force; no network."""

import math
import socket

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import EvalPrediction

from dhrd_hf.data.superglue import SUPERGLUE_LABELS
from dhrd_hf.evaluation.superglue_metrics import (
    COPA,
    SUPERGLUE_METRICS,
    Accuracy,
    CommitmentBank,
    MultiRC,
    superglue_average,
    superglue_metrics,
)

CB = SUPERGLUE_LABELS["cb"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a metric asked the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("seed", range(5))
def test_as_scikit_learn_by_id_and_by_name(seed):
    rng = np.random.default_rng(seed)
    said, gold = rng.integers(0, 3, (2, 40))
    # Classes that are said and not there, and there and not said.
    gold[gold == seed % 3] = (seed + 1) % 3
    accuracy, macro = accuracy_score(gold, said), f1_score(gold, said, average="macro", zero_division=0)
    for predictions, references in ((said, gold), ([CB[i] for i in said], [CB[i] for i in gold])):
        assert Accuracy().compute(predictions=predictions, references=references) == {"accuracy": accuracy}
        found = CommitmentBank().compute(predictions=predictions, references=references)
        assert found == pytest.approx({"accuracy": accuracy, "macro_f1": macro})


def test_macro_f1_by_hand():
    # entailment: 1 of 2 said, 1 of 1 there: 2/3. contradiction: 1 of 1, 1 of 2: 2/3. neutral: never right: 0.
    said = ["entailment", "entailment", "contradiction", "contradiction", "neutral"]
    gold = ["entailment", "neutral", "contradiction", "neutral", "contradiction"]
    found = CommitmentBank().compute(predictions=said, references=gold)
    first, second = 2 * (1 / 2) * 1 / (3 / 2), 2 * (1 / 2) * (1 / 2) / 1
    assert found == pytest.approx({"macro_f1": (first + second + 0) / 3, "accuracy": 2 / 5})


def test_multirc_by_hand():
    # q1 all right, q2 one false Yes, q3 one missed Yes, q4 no Yes at all and none said: EM 2 of 4.
    gold = [1, 0, 0, 1, 1, 0, 0]
    said = [1, 0, 1, 1, 0, 0, 0]
    groups = ["q1", "q1", "q2", "q2", "q3", "q4", "q4"]
    found = MultiRC().compute(predictions=said, references=gold, groups=groups)
    assert found == pytest.approx({"em": 2 / 4, "f1a": 2 * 2 / (3 + 3)})  # 2 hits, 3 said, 3 there
    order = [4, 0, 5, 2, 6, 1, 3]  # the answers of a question need not stand together
    shuffled = [[column[i] for i in order] for column in (said, gold, groups)]
    names = [["No", "Yes"][label] for label in shuffled[0]], [["No", "Yes"][label] for label in shuffled[1]]
    assert MultiRC().compute(predictions=names[0], references=names[1], groups=shuffled[2]) == pytest.approx(found)


@pytest.mark.parametrize("seed", range(5))
def test_multirc_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    said, gold, groups = rng.integers(0, 2, 60), rng.integers(0, 2, 60), rng.integers(0, 15, 60)
    right = [all(said[groups == group] == gold[groups == group]) for group in set(groups.tolist())]
    found = MultiRC().compute(predictions=said, references=gold, groups=groups)
    assert found == pytest.approx({"f1a": f1_score(gold, said), "em": sum(right) / len(right)})


def test_copa_by_question_and_by_row():
    # a is won though both are below 0, b is lost though one row is right, c is a tie.
    scores = [-1.0, -2.0, 0.5, 1.0, 0.25, 0.25]
    gold, groups = [1, 0, 1, 0, 0, 1], ["a", "a", "b", "b", "c", "c"]
    found = COPA().compute(predictions=scores, references=gold, groups=groups)
    assert found == pytest.approx({"accuracy": (1 + 0 + 0.5) / 3, "row_accuracy": 3 / 6})
    with pytest.raises(ValueError, match="question 'b' has 2 right candidates among 2"):
        COPA().compute(predictions=scores, references=[1, 0, 1, 1, 0, 1], groups=groups)


def test_rows_may_come_in_batches_and_a_metric_may_be_used_again():
    metric = MultiRC()
    metric.add_batch(predictions=[1, 0], references=[1, 1], groups=["a", "a"])
    metric.add(prediction=1, reference=1, groups="b")
    once = metric.compute()
    assert once["em"] == 0.5
    assert metric.compute(predictions=[1, 0, 1], references=[1, 1, 1], groups=["a", "a", "b"]) == once


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": [], "references": [], "groups": []}, "no rows to score"),
        ({"predictions": [1], "references": [1, 0], "groups": ["a"]}, "Mismatch in the number"),
        ({"predictions": [1], "references": [1]}, "missing.*groups"),
        ({"predictions": [1], "references": [2], "groups": ["a"]}, "a label 2: expected 0 or 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiRC().compute(**arguments)


def test_for_the_trainer():
    groups = Dataset.from_dict({"group": ["a", "a", "b", "b"]})
    logits = np.array([[3.0, 1.0], [3.0, 0.5], [0.0, 1.0], [0.0, 2.0]])
    gold = np.array([1, 0, 1, 1])
    said = logits.argmax(-1)
    compute = superglue_metrics("multirc", groups)
    assert compute(EvalPrediction(logits, gold)) == pytest.approx({"f1a": f1_score(gold, said), "em": 0.5})
    with_more = EvalPrediction(logits, gold, inputs=logits, losses=logits[:, 0])  # by include_for_metrics
    assert compute(with_more) == compute(EvalPrediction(logits, gold))
    # A model that numbers its labels otherwise.
    flipped = superglue_metrics("multirc", groups, {"Yes": 0, "No": 1})
    assert flipped(EvalPrediction(logits[:, ::-1], 1 - gold)) == compute(EvalPrediction(logits, gold))
    copa = superglue_metrics("copa", groups)(EvalPrediction(logits, np.array([1, 0, 0, 1])))
    assert copa == pytest.approx({"accuracy": 1.0, "row_accuracy": 2 / 4})
    for task in ("boolq", "rte", "wic", "wsc"):
        assert superglue_metrics(task, groups)((logits, gold)) == {"accuracy": accuracy_score(gold, said)}
    three = np.hstack([logits, np.full((4, 1), 2.5)])
    found = superglue_metrics("cb", groups)((three, np.array([0, 1, 2, 2])))
    assert set(found) == set(SUPERGLUE_METRICS["cb"])
    assert found["accuracy"] == 0.75
    with pytest.raises(ValueError, match="3 rows of logits, and 4 rows of copa"):
        superglue_metrics("copa", groups)((logits[:3], gold[:3]))
    with pytest.raises(ValueError, match="labels of multirc are No, Yes, and the model's are false, true"):
        superglue_metrics("multirc", groups, {"false": 0, "true": 1})
    with pytest.raises(ValueError, match="did you mean 'multirc'"):
        superglue_metrics("multrc", groups)


def test_the_average_is_over_tasks_not_over_metrics():
    results = {task: {"accuracy": 0.1 * n} for n, task in enumerate(("boolq", "copa", "rte", "wic", "wsc"), 1)}
    results["cb"] = {"macro_f1": 0.2, "accuracy": 0.9}
    results["multirc"] = {"f1a": 0.4, "em": 0.1}
    results["copa"]["row_accuracy"] = 0.0  # stands beside, and does not count
    assert math.isclose(superglue_average(results), (0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.55 + 0.25) / 7)
    del results["wic"], results["cb"]["accuracy"]
    with pytest.raises(ValueError, match="lack wic, cb's accuracy"):
        superglue_average(results)
    with pytest.raises(ValueError, match="no task 'record'"):
        superglue_average({"record": {"accuracy": 0.5}})
