"""`DualHeadClassifier` in scikit-learn's tools, on a tiny model."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from dhrd_hf import DualHeadClassifier
from dhrd_hf.cli import main

FAST = {"max_steps": 8, "per_device_train_batch_size": 8, "use_cpu": True, "learning_rate": 5e-3, "max_length": 128}


@pytest.fixture(scope="module")
def texts(rows):
    return [row["text"] for row in rows]


@pytest.fixture(scope="module")
def labels(rows):
    return [row["label"] for row in rows]


@pytest.fixture(scope="module")
def new(lm_dir_of):
    return lambda **options: DualHeadClassifier(**{"model": str(lm_dir_of("llama")), **FAST, **options})


@pytest.fixture(scope="module")
def fitted(new, rows, texts, labels):
    return new().fit(texts, labels, rationales=[row["rationale"] for row in rows])


def test_it_is_dhrd_train_and_its_stock_export(fitted, lm_dir_of, rows, texts, labels, tmp_path):
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"--{name.replace('_', '-')}={value}" for name, value in FAST.items()]
    given = [
        "--model",
        str(lm_dir_of("llama")),
        "--train-data",
        str(table),
        *options,
        "--output-dir",
        str(tmp_path / "run"),
    ]
    assert main(["train", *given, "--eval-split", "0", "--export", str(tmp_path / "by-command")]) == 0
    fitted.export(tmp_path / "exported")
    found = fitted.predict_proba(texts)
    for folder in ("by-command", "exported"):
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder)
        stock = pipeline(
            "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(tmp_path / folder)
        )
        for text, row in zip(texts[:5], found, strict=False):
            expected = {it["label"]: it["score"] for it in stock(text, top_k=None)}
            assert [expected[name] for name in fitted.classes_] == pytest.approx(row, abs=1e-4)
    assert fitted.classes_.tolist() == sorted(set(labels))
    assert found.sum(1) == pytest.approx(1)
    assert fitted.predict(texts).tolist() == [fitted.classes_[index] for index in found.argmax(1)]
    assert fitted.score(texts, labels) == np.mean(fitted.predict(texts) == np.array(labels))
    with pytest.raises(FileExistsError, match="not an empty folder"):
        fitted.export(tmp_path / "exported")


def test_rationales_teach(new, fitted, texts, labels):
    without = new().fit(texts, labels)
    assert np.abs(without.predict_proba(texts) - fitted.predict_proba(texts)).max() > 1e-3


def test_clones_pickles_and_parameters(fitted, texts):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "classes_")
    assert copy.set_params(alpha=0.5, model="other").get_params()["alpha"] == 0.5
    assert copy.model == "other" and "alpha" not in fitted.get_params()
    assert "max_steps=8" in repr(fitted)
    kept = pickle.dumps(fitted)
    np.testing.assert_allclose(pickle.loads(kept).predict_proba(texts), fitted.predict_proba(texts), atol=1e-6)
    with pytest.raises(NotFittedError):
        copy.predict(texts)


def test_it_works_in_scikit_learns_tools(new, texts, labels):
    few = {"max_steps": 1}
    scores = cross_val_score(new(**few), texts, labels, cv=2)
    assert len(scores) == 2 and ((scores >= 0) & (scores <= 1)).all()
    search = GridSearchCV(new(**few), {"alpha": [0.0, 1.0]}, cv=2, error_score="raise").fit(texts, labels)
    assert {it["alpha"] for it in search.cv_results_["params"]} == {0.0, 1.0}
    steps = make_pipeline(FunctionTransformer(lambda texts: [text.lower() for text in texts]), new(**few))
    assert len(steps.fit(texts, labels).predict(texts)) == len(texts)


@pytest.mark.parametrize("values", [[3, 1, 2], [True, False, True], ["no", "yes", "no"]])
def test_labels_of_several_kinds_come_back_as_they_were(new, rows, labels, values):
    of = dict(zip(sorted(set(labels)), values, strict=True))
    given = np.array([of[label] for label in labels])
    table = pd.DataFrame({"said": [row["text"] for row in rows]})
    found = new(prompt="{said}", max_steps=1).fit(table, given).predict(table)
    assert found.dtype == given.dtype and set(found.tolist()) <= set(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"X": ["a text"]}, "There are 1 texts and 24 y"),
        ({"X": "one text"}, "put one text in a list"),
        ({"X": [[1.0]] * 24}, r"X\[0\] must be a text"),
        ({"y": ["same"] * 24}, "one class"),
        ({"rationales": ["why"]}, "24 texts and 1 rationales"),
        ({"X": [" "] * 24}, "text is empty"),
    ],
)
def test_what_can_not_be_learned_is_said(new, texts, labels, change, said):
    with pytest.raises(ValueError, match=said):
        new(max_steps=1).fit(**{"X": texts, "y": labels, **change})


@pytest.mark.parametrize(
    ("options", "said"),
    [({"learning_rat": 1}, "did you mean 'learning_rate'"), ({"output_dir": "x"}, "is what fit or export is given")],
)
def test_names_that_are_no_options(options, said):
    with pytest.raises(ValueError, match=said):
        DualHeadClassifier(**options)


# Those of scikit-learn's checks that fit no array of numbers. The others do, or are of sample weights, of several outputs or of
# no parameters by keyword; the two tests below are what they check, with texts.
@pytest.mark.parametrize(
    "name",
    [
        *(
            "estimator_cloneable",
            "estimator_repr",
            "estimator_tags_renamed",
            "estimators_unfitted",
            "fit1d",
            "set_params",
        ),
        *("get_params_invariance", "mixin_order", "parameters_default_constructible"),
        *(
            "supervised_y_no_nan",
            "valid_tag_types",
            "non_transformer_estimators_n_iter",
            "n_features_in_after_fitting",
        ),
    ],
)
def test_scikit_learns_own_checks_that_suit_texts(new, name):
    getattr(estimator_checks, f"check_{name}")("DualHeadClassifier", new())


def test_fitting_again_gives_the_same_and_leaves_its_arguments_alone(new, texts, labels):
    estimator, given = new(max_steps=2), (list(texts), list(labels))
    first = estimator.fit(*given).predict_proba(texts)
    assert estimator.get_params() == new(max_steps=2).get_params() and given == (texts, labels)
    np.testing.assert_allclose(estimator.fit(*given).predict_proba(texts), first, atol=1e-6)


def test_a_prediction_depends_on_its_row_alone(fitted, texts):
    found = fitted.predict_proba(texts)
    np.testing.assert_allclose(fitted.predict_proba(texts[::-1])[::-1], found, atol=1e-5)
    np.testing.assert_allclose(fitted.predict_proba(texts[3:4])[0], found[3], atol=1e-5)
    assert fitted.predict_proba([]).shape == (0, 3) and len(fitted.predict([])) == 0
