"""What scikit-learn says of rows without a language model: baselines to beat, labels in doubt, and what is odd in a table."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets

    from ..data import DualHeadEncoder
    from ..data.labels import Labels

COMMONEST, TFIDF = "commonest label", "TF-IDF, logistic regression"
_MOST_ROWS = 50_000  # that a linear model is trained on
_MOST_FOLDED = 10_000  # in all folds together
_FOLDS = 5
_FEW_ROWS = 5  # of a label
_MOST_NAMED = 5
_SPACES = 0.02  # of the characters; texts with fewer are in a script that writes none between words


def baseline_answers(train_texts: Sequence[str], train_labels: Any, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """What two classifiers say of texts that cost next to nothing: the commonest label, and TF-IDF with logistic regression.

    Words and pairs of words are counted, or groups of one to three characters where texts have no spaces. Of more than
    50,000 rows to train on so many are drawn, with a fixed seed.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import baseline_answers
    >>> said = baseline_answers(["good day", "good night", "bad day"], [1, 1, 0], ["a bad one", "a good one"])
    >>> {name: it.tolist() for name, it in said.items()}
    {'commonest label': [1, 1], 'TF-IDF, logistic regression': [0, 1]}

    ```

    Args:
        train_texts (`Sequence[str]`): Inputs of the rows that the classifier was trained on.
        train_labels (`np.ndarray`): Their class ids `[rows]`, or 0/1 `[rows, K]` for multi label.
        texts (`Sequence[str]`): Inputs to answer.

    Returns:
        `dict[str, np.ndarray]`: by name, answers in the form of the labels, for `others` of [`evaluation_report`].

    Raises:
        ValueError: if there are no rows, or not as many labels as texts.

    Source: scikit-learn `DummyClassifier`, `TfidfVectorizer`, `LogisticRegression`.
    """
    labels = np.asarray(train_labels).astype(int)
    if len(labels) != len(train_texts) or not len(labels):
        raise ValueError(f"There are {len(train_texts)} texts and {len(labels)} labels to train the baselines on.")
    rows, numbers = np.unique(labels, axis=0, return_counts=True)
    commonest = rows[numbers.argmax()]
    found = {COMMONEST: np.repeat(commonest[None], len(texts), axis=0)}
    model, kept = _linear_model(train_texts, labels.ndim == 2), some_rows(len(labels))
    if len(np.unique(labels[kept], axis=0)) > 1:
        found[TFIDF] = model.fit([train_texts[place] for place in kept], labels[kept]).predict(list(texts)).astype(int)
    return found


def some_rows(number: int, most: int = _MOST_ROWS) -> np.ndarray:
    """The numbers of all rows or, where they are too many for a linear model, of some that are drawn."""
    return np.sort(np.random.default_rng(0).permutation(number)[:most])


def _linear_model(texts: Sequence[str], several: bool = False) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    sample = "".join(texts[:1000])
    spaced = sum(map(str.isspace, sample)) >= _SPACES * len(sample)
    units = (
        {"ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"}
        if spaced
        else {"analyzer": "char", "ngram_range": (1, 3)}
    )
    classifier = LogisticRegression(C=10, max_iter=1000)
    return make_pipeline(
        TfidfVectorizer(sublinear_tf=True, max_features=200_000, **units),
        OneVsRestClassifier(classifier) if several else classifier,
    )


def doubtful_labels(texts: Sequence[str], labels: Any) -> list[dict[str, Any]]:
    """Rows whose label looks wrong: a linear model that was not trained on them is confident of another.

    Each row is judged by a model of the other four fifths of the texts. Its label is in doubt where the model's answer is
    another label, of which it is at least as sure as it is on average of the rows that have that label. These are rows to
    look at again, not rows to remove: what is hard looks wrong as well.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import doubtful_labels
    >>> texts = [f"{word} day {number}" for number in range(20) for word in ("good", "bad")]
    >>> found = doubtful_labels(texts, [1, 0] * 10 + [0, 0] + [1, 0] * 9)  # the eleventh good day is called bad
    >>> [(it["row"], it["label"], it["other"]) for it in found]
    [(20, 0, 1)]

    ```

    Args:
        texts (`Sequence[str]`): Inputs.
        labels (`np.ndarray`): Class ids `[rows]`. Labels of fewer than five rows are left out, and of more than
            10,000 rows so many are drawn.

    Returns:
        `list[dict]`: `row`, `label`, `other` (ids) and `probability` of the other, the most doubtful first. Empty where
        fewer than two labels have enough rows.

    Source: Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    labels = np.asarray(labels).astype(int)
    kept = some_rows(len(labels), _MOST_FOLDED)
    numbers = np.bincount(labels[kept])
    kept = kept[numbers[labels[kept]] >= _FEW_ROWS]
    ids, of = np.unique(labels[kept], return_inverse=True)
    used = [texts[place] for place in kept]
    groups = np.unique(used, return_inverse=True)[1]  # the same text is never on both sides
    if len(ids) < 2 or len(np.unique(groups)) < _FOLDS:
        return []
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():  # a label that a fold has no row of is never its answer
        warnings.simplefilter("ignore")
        shares = cross_val_predict(_linear_model(used), used, of, groups=groups, cv=folds, method="predict_proba")
    rows = np.arange(len(of))
    usual = np.array([shares[of == k, k].mean() for k in range(len(ids))])
    other = shares.argmax(1)
    doubted = np.flatnonzero((other != of) & (shares[rows, other] >= usual[other]))
    doubted = doubted[np.argsort(shares[doubted, of[doubted]] - shares[doubted, other[doubted]], kind="stable")]
    return [
        {
            "row": int(kept[it]),
            "label": int(ids[of[it]]),
            "other": int(ids[other[it]]),
            "probability": float(shares[it, other[it]]),
        }
        for it in doubted
    ]


def odd_rows(texts: Sequence[str], labels: Sequence[Any], others: Sequence[str] = ()) -> dict[str, Any]:
    """What is odd in a table before a model is trained on it: rare labels, repeated and contradicting texts, leaks."""
    rows: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        rows[" ".join(text.split()).casefold()].append(place)
    repeated = [places for places in rows.values() if len(places) > 1]
    said = [tuple(it) if isinstance(it, (list, np.ndarray)) else it for it in labels]
    counts = Counter(name for it in said for name in (it if isinstance(it, tuple) else (it,)))
    return {
        "rare": {name: count for name, count in counts.items() if count < 2 * _FEW_ROWS},
        "repeated": sum(len(places) - 1 for places in repeated),
        "contradicting": [places for places in repeated if len({said[place] for place in places}) > 1],
        "leaked": [place for place, text in enumerate(others) if " ".join(text.split()).casefold() in rows],
    }


def look_at_tables(
    encode: DualHeadEncoder,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    labels: Labels,
    say: Callable[[str], None],
) -> None:
    """Say what a run would be trained on, and warn of what is rarely meant."""
    from ..data.prompts import render_rows

    texts = list(render_rows(encode.prompt, train))
    others = [] if dev is None else list(render_rows(encode.prompt, dev))
    say(f"rows        {len(train)} to train on, {len(others)} to evaluate on")
    say(f"labels      {labels}")
    rows = encode.encode_dataset(train, say=lambda _: None)
    lengths = np.array(rows["input_length"][:])
    few, half, most = np.quantile(lengths, [0.05, 0.5, 0.95]).astype(int)
    say(f"length      inputs of {few} to {most} tokens (9 of 10), half below {half}, the longest {lengths.max()}")
    say(f"encoding    {encode.counts}")
    for line in encode.counts.advice:
        say(f"warning: {line}")
    cells = train[encode.label_column][:]
    found = odd_rows(texts, cells, others)
    if labels.problem_type != "regression" and found["rare"]:
        said = ", ".join(f"{name} {count}" for name, count in list(found["rare"].items())[:_MOST_NAMED])
        say(f"warning: labels with fewer than 10 rows can neither be learned nor measured well: {said}")
    if found["repeated"]:
        say(f"warning: {found['repeated']} training rows repeat the text of another (upper and lower case alike)")
    if found["contradicting"]:
        say(
            f"warning: {len(found['contradicting'])} texts have several labels: rows {_some_rows(found['contradicting'])}"
        )
    if found["leaked"]:
        say(
            f"warning: {len(found['leaked'])} of the {len(others)} evaluation rows have the text of a training row, which makes the "
            f"evaluation too good: rows {_some_rows([[it] for it in found['leaked']])}"
        )
    if labels.problem_type == "single_label_classification":
        ids = np.array(rows["labels"][:])
        doubts = doubtful_labels(texts, ids)
        say(
            f"doubtful    {len(doubts)} training rows have a label that looks wrong to a linear model{':' if doubts else ''}"
        )
        for it in doubts[:_MOST_NAMED]:
            label, other = labels.names[it["label"]], labels.names[it["other"]]
            said = f"{label}, looks like {other} ({it['probability']:.0%})  {texts[it['row']][:80]!r}"
            say(f"            row {it['row']}: {said}")
    say("\nNothing was trained. Leave --dry-run out to train.")


def _some_rows(groups: Sequence[Sequence[int]]) -> str:
    shown = "; ".join(", ".join(map(str, rows[:_MOST_NAMED])) for rows in groups[:_MOST_NAMED])
    return shown + " ..." * (len(groups) > _MOST_NAMED)
