"""How much of the label the rationales give away by their wording: a small classifier that sees nothing else."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from .matching import joined_groups
from .words import counted, units

if TYPE_CHECKING:
    import numpy as np

_FOLDS = 5
_TELLING = 10  # words shown for each label
_FEWEST_TEXTS_OF_A_TERM = 2


def label_probe(
    rationales: Sequence[str | None],
    labels: Sequence[str],
    *,
    texts: Sequence[str] | None = None,
    groups: Sequence[Hashable] | None = None,
    most_rows: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Cross-validated accuracy of logistic regression on TF-IDF of the rationale alone, of the text alone, and by
    majority."""
    import numpy as np

    kept = np.array([row for row, it in enumerate(rationales) if it and it.strip()], dtype=np.int64)
    counts = Counter(labels[row] for row in kept)
    nothing = {"rationale_only": None, "text_only": None, "majority": None, "rows": len(kept)}
    if counts:
        nothing["majority"] = max(counts.values()) / len(kept)
    if len(counts) < 2:
        return nothing | {"reason": f"a probe needs two labels, and there is {'one' if counts else 'none'}"}
    drawn = np.sort(np.random.default_rng(seed).permutation(kept)[:most_rows])
    target = np.array([str(labels[row]) for row in drawn])
    said = [rationales[row] for row in drawn]
    group = joined_groups(said, None if groups is None else [groups[row] for row in drawn])
    # A fold has to hold each label, from groups that are in no other fold.
    folds = min(_FOLDS, *(len(set(group[target == label])) for label in set(target)))
    if folds < 2:
        return nothing | {"reason": "a probe needs two rationales of each label"}
    terms, names = counted(said, _terms)
    found = nothing | {
        "rationale_only": _accuracy(terms, target, group, folds, seed),
        "text_only": None,
        "majority": max(Counter(target).values()) / len(drawn),
        "rows": len(drawn),
        "folds": folds,
        "telling": _telling(terms, names, target),
    }
    if texts is not None:
        of_texts, _ = counted((texts[row] for row in drawn), _terms)
        found["text_only"] = _accuracy(of_texts, target, group, folds, seed)
    if found["rationale_only"] is None:
        return found | {"reason": "a probe needs words, and there are none"}
    return found


def _terms(text: str) -> list[str]:
    words = units(text)
    return [*words, *(f"{one} {two}" for one, two in zip(words, words[1:], strict=False))]


def _fitted(terms: Any, target: np.ndarray) -> tuple[np.ndarray, Any] | None:
    """The terms that are no one text's alone, and the TF-IDF of them with a classifier behind; None where there are none."""
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    common = np.flatnonzero(np.bincount(terms.indices, minlength=terms.shape[1]) >= _FEWEST_TEXTS_OF_A_TERM)
    if not len(common):
        return None
    classifier = make_pipeline(TfidfTransformer(sublinear_tf=True), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one that has not fully converged is as good
        return common, classifier.fit(terms[:, common], target)


def _accuracy(terms: Any, target: np.ndarray, group: np.ndarray, folds: int, seed: int) -> float | None:
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    alone = len(set(group.tolist())) == len(group)
    split = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    right = np.zeros(len(target), dtype=bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few groups, folds need not be even
        parts = list(split.split(terms, target, group))
    for train, test in parts:
        if len(set(target[train])) < 2:
            right[test] = target[test] == target[train][0] if len(train) else False
            continue
        fitted = _fitted(terms[train], target[train])
        if fitted is None:
            return None
        common, classifier = fitted
        right[test] = classifier.predict(terms[test][:, common]) == target[test]
    return float(right.mean())


def _telling(terms: Any, names: Sequence[str], target: np.ndarray) -> dict[str, list[str]]:
    fitted = _fitted(terms, target)
    if fitted is None:
        return {}
    common, model = fitted[0], fitted[1][-1]
    weights = model.coef_ if len(model.classes_) > 2 else [-model.coef_[0], model.coef_[0]]
    return {
        str(label): [names[common[place]] for place in weight.argsort()[::-1][:_TELLING] if weight[place] > 0]
        for label, weight in zip(model.classes_, weights, strict=True)
    }
