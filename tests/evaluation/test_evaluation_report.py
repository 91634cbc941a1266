"""The verdict: intervals whose coverage is simulated, scikit-learn's measures, baselines, and labels in doubt."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from dhrd_hf.evaluation import baseline_answers, doubtful_labels, evaluation_report
from dhrd_hf.evaluation.baselines import COMMONEST, TFIDF, odd_rows

SHARES = np.array([[0.32, 0.05, 0.03], [0.06, 0.24, 0.05], [0.05, 0.05, 0.15]])  # of rows: true class, answer
THEIRS = 0.6  # of the rows another classifier agrees; else it says 0


def drawn(rng, rows):
    """Labels, logits that say an answer, and another classifier's answers, with known accuracies."""
    cells = rng.choice(9, rows, p=SHARES.reshape(-1))
    truth, said = cells // 3, cells % 3
    return np.eye(3)[said], truth, np.where(rng.random(rows) < THEIRS, said, 0)


def macro(shares):
    return np.mean(2 * np.diag(shares) / (shares.sum(0) + shares.sum(1)))


THEIR_SHARES = THEIRS * SHARES
THEIR_SHARES[:, 0] += (1 - THEIRS) * SHARES.sum(1)
TRUE = {
    "accuracy": np.trace(SHARES),
    "macro_f1": macro(SHARES),
    "accuracy_lead": np.trace(SHARES) - np.trace(THEIR_SHARES),
    "macro_f1_lead": macro(SHARES) - macro(THEIR_SHARES),
}


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, times = np.random.default_rng(0), 100
    held = dict.fromkeys(TRUE, 0)
    for _ in range(times):
        logits, truth, theirs = drawn(rng, 120)
        found = evaluation_report(logits, truth, others={"theirs": theirs})
        intervals = {**found["metrics"], **found["others"][0]}
        for name, true in TRUE.items():
            held[name] += intervals[name]["low"] <= true <= intervals[name]["high"]
    assert all(0.92 <= count / times <= 0.98 for count in held.values()), held  # too narrow, or too wide


def test_a_lead_knows_that_the_rows_are_the_same():
    logits, truth, theirs = drawn(np.random.default_rng(1), 300)
    found = evaluation_report(logits, truth, others={"theirs": theirs})
    (other,) = found["others"]

    def width(it):
        return it["high"] - it["low"]

    for name in ("accuracy", "macro_f1"):
        ours, lead = found["metrics"][name], other[f"{name}_lead"]
        assert lead["value"] == pytest.approx(ours["value"] - other["metrics"][name]["value"])
        assert width(lead) < 0.8 * np.hypot(width(ours), width(other["metrics"][name]))
    same = evaluation_report(logits, truth, others={"same": logits.argmax(-1)})["others"][0]
    assert same["accuracy_lead"]["low"] < 0 < same["accuracy_lead"]["high"] and width(same["macro_f1_lead"]) < 0.05


@pytest.mark.parametrize("several", [False, True])
def test_measures_are_scikit_learns(several):
    rng = np.random.default_rng(2)
    labels = (rng.random((90, 4)) > 0.6).astype(int) if several else rng.integers(0, 4, 90)
    logits = rng.normal(size=(90, 4)) + 1.5 * (labels - 0.5 if several else np.eye(4)[labels])
    logits[:, 3] = -9  # never said
    said = (logits > 0).astype(int) if several else logits.argmax(-1)
    found = evaluation_report(logits, labels, label_names=list("abcd"))
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = score(labels, said, average=None, zero_division=0)
        values = [it[name] if name == "f1" else (it[name] or {"value": 0})["value"] for it in found["classes"]]
        assert values == pytest.approx(expected)
    assert found["never_predicted"] == ["d"] and found["classes"][3]["precision"] is None
    assert found["metrics"]["macro_f1"]["value"] == pytest.approx(
        f1_score(labels, said, average="macro", zero_division=0)
    )
    if several:
        assert "confusion" not in found
    else:
        assert found["confusion"] == confusion_matrix(labels, said).tolist()
        assert [it["rows"] for it in found["classes"]] == np.bincount(labels).tolist()


def test_the_bootstrap_is_that_of_rows():
    logits, truth, _ = drawn(np.random.default_rng(3), 400)
    rng, said = np.random.default_rng(4), logits.argmax(-1)
    samples = [f1_score(truth[it], said[it], average="macro") for it in rng.integers(0, 400, (300, 400))]
    found = evaluation_report(logits, truth)["metrics"]["macro_f1"]
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(samples, [0.025, 0.975]), abs=0.015)


def test_rows_without_a_mistake_do_not_prove_that_there_are_none():
    truth = np.arange(40) % 2
    found = evaluation_report(np.eye(2)[truth], truth, others={"same": truth})
    assert all(0.8 < it["low"] < it["value"] == 1 for it in found["metrics"].values())
    assert found["others"][0]["accuracy_lead"]["low"] < 0 < found["others"][0]["accuracy_lead"]["high"]
    with pytest.raises(ValueError, match="answers of shape"):
        evaluation_report(np.eye(2)[truth], truth, others={"short": truth[:3]})


# Baselines and labels

TEXTS = [f"{first} {word} {last}" for first in "abcdefgh" for last in "stuvwxyz" for word in ("good", "bad")]
LABELS = np.array([word == "good" for text in TEXTS for word in text.split()[1:2]]).astype(int)


@pytest.mark.parametrize("script", ["latin", "without spaces"])
def test_a_linear_model_reads_what_words_say(script):
    texts = (
        TEXTS
        if script == "latin"
        else [it.replace(" ", "").replace("good", "很好").replace("bad", "不好") for it in TEXTS]
    )
    said = baseline_answers(texts[:100], LABELS[:100], texts[100:])
    assert (said[TFIDF] == LABELS[100:]).all()
    assert said[COMMONEST].tolist() == [int(LABELS[:100].mean() > 0.5)] * 28
    both = np.stack([LABELS, 1 - LABELS], 1)
    several = baseline_answers(texts[:100], both[:100], texts[100:])
    assert (several[TFIDF] == both[100:]).all() and several[COMMONEST].shape == (28, 2)


def test_baselines_are_of_labels_and_not_of_one_alone():
    assert list(baseline_answers(["a", "b"], [1, 1], ["c"])) == [COMMONEST]  # nothing to tell apart
    with pytest.raises(ValueError, match="2 texts and 1 labels"):
        baseline_answers(["a", "b"], [1], ["c"])


def test_labels_that_were_flipped_look_wrong():
    flipped = np.array([5, 40, 77, 100])
    labels = LABELS.copy()
    labels[flipped] = 1 - labels[flipped]
    found = doubtful_labels(TEXTS, labels)
    assert {it["row"] for it in found} == set(flipped.tolist())
    assert all(it["label"] == labels[it["row"]] and it["other"] == LABELS[it["row"]] for it in found)
    assert doubtful_labels(TEXTS, LABELS) == []
    assert doubtful_labels(TEXTS[:6], [0, 1] * 3) == []  # too few to say


def test_a_table_is_looked_at_before_it_is_trained_on():
    texts = ["It rains.", "it  RAINS.", "It snows.", "It snows.", "Sun."]
    found = odd_rows(texts, ["a", "a", "a", "b", "c"], ["sun.", "Fog."])
    assert found["repeated"] == 2 and found["contradicting"] == [[2, 3]] and found["leaked"] == [0]
    assert found["rare"] == {"a": 3, "b": 1, "c": 1}
