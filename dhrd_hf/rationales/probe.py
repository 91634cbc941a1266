"""How much of the label the rationales give away by their wording: a small classifier that sees nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

_FOLDS = 5
_TELLING = 10  # words shown for each label


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

    from .matching import _joined, _numbered

    kept = np.array([row for row, it in enumerate(rationales) if it and it.strip()], dtype=np.int64)
    counts = Counter(labels[row] for row in kept)
    nothing = {"rationale_only": None, "text_only": None, "majority": None, "rows": len(kept)}
    if counts:
        nothing["majority"] = max(counts.values()) / len(kept)
    if len(counts) < 2:
        return nothing | {"reason": f"a probe needs two labels, and there is {'one' if counts else 'none'}"}
    drawn = np.sort(np.random.default_rng(seed).permutation(kept)[:most_rows])
    target = np.array([str(labels[row]) for row in drawn])
    group = _numbered([rationales[row] for row in drawn])
    if groups is not None:
        group = _joined(group, _numbered([groups[row] for row in drawn]))
    # A fold has to hold each label, from groups that are in no other fold.
    per_label = min(len(set(group[target == label])) for label in set(target))
    folds = min(_FOLDS, per_label)
    if folds < 2:
        return nothing | {"reason": "a probe needs two rationales of each label"}
    said = [rationales[row] for row in drawn]
    found = nothing | {
        "rationale_only": _accuracy(said, target, group, folds, seed),
        "text_only": None if texts is None else _accuracy([texts[row] for row in drawn], target, group, folds, seed),
        "majority": max(Counter(target).values()) / len(drawn),
        "rows": len(drawn),
        "folds": folds,
        "telling": _telling(said, target),
    }
    if found["rationale_only"] is None:
        return found | {"reason": "a probe needs words, and there are none"}
    return found


def _pipeline() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from .languages import units

    def terms(text: str) -> list[str]:
        words = units(text)
        return words + [f"{one} {two}" for one, two in zip(words, words[1:], strict=False)]

    return make_pipeline(
        TfidfVectorizer(analyzer=terms, sublinear_tf=True, min_df=2), LogisticRegression(max_iter=200)
    )


def _accuracy(texts: Sequence[str], target: Any, group: Any, folds: int, seed: int) -> float | None:
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    alone = len(set(group.tolist())) == len(group)
    split = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    right = np.zeros(len(target), dtype=bool)
    texts = np.array(texts, dtype=object)
    with warnings.catch_warnings():
        # A probe that has not fully converged is as good; and of few groups, folds need not be even.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        for train, test in split.split(texts, target, group):
            if len(set(target[train])) < 2:
                right[test] = target[test] == target[train][0] if len(train) else False
                continue
            try:
                right[test] = _pipeline().fit(texts[train], target[train]).predict(texts[test]) == target[test]
            except ValueError:  # an empty vocabulary
                return None
    return float(right.mean())


def _telling(texts: Sequence[str], target: Any) -> dict[str, list[str]]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = _pipeline().fit(texts, target)
        except ValueError:
            return {}
    names, model = fitted[0].get_feature_names_out(), fitted[-1]
    weights = model.coef_ if len(model.classes_) > 2 else [-model.coef_[0], model.coef_[0]]
    return {
        str(label): [str(names[place]) for place in weight.argsort()[::-1][:_TELLING] if weight[place] > 0]
        for label, weight in zip(model.classes_, weights, strict=True)
    }
