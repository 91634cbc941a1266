"""Whether rationales belong to their rows: each is matched back to its own text among texts of other rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from .languages import units

_STEM = 5  # letters of a word that count: "entails" and "entailed" match, in every language that puts endings behind
_FEWEST_TEXTS = 10
# Shares of rationales that fit their own text no better than any other: measured on 19 sets (e-SNLI, SuperGLUE, ...), aligned
# ones are at 0.00 to 0.12, half shuffled ones at 0.25 to 0.56, and shuffled ones at 0.86 and above.
_ALIGNED, _SHUFFLED = 0.2, 0.7
_QUANTILES = (0.3, 0.5, 0.7, 0.8, 0.9)
_BETTER = 2.0  # times as similar as its own text, until another one is evidence
_CHUNK = 1000
_MOST_IN_COMMON = 1000  # texts: a word in more of them is not looked up in a search of the whole table


def match_rationales(
    texts: Sequence[str],
    rationales: Sequence[str | None],
    *,
    groups: Sequence[Hashable] | None = None,
    others: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """Match each rationale back to its own text among those of other rows, by the rare words that they share."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    kept = [row for row, it in enumerate(rationales) if it and it.strip() and texts[row].strip()]
    nothing = {"verdict": None, "accuracy": None, "mismatched": [], "rows": len(kept)}
    own = _numbered([texts[row] for row in kept])
    group = own if groups is None else _joined(own, _numbered([groups[row] for row in kept]))
    distinct = int(group.max()) + 1 if kept else 0
    if distinct < _FEWEST_TEXTS:
        reason = f"matching needs {_FEWEST_TEXTS} rows of different text with a rationale, and there are {distinct}"
        return nothing | {"reason": reason}
    others = min(others, distinct - 1)
    said = [rationales[row] for row in kept]
    vectorizer = TfidfVectorizer(analyzer=_terms, sublinear_tf=True, dtype=np.float32)
    try:
        vectorizer.fit([*(texts[row] for row in kept), *said])
    except ValueError:
        return nothing | {"reason": "matching needs words, and there are none"}
    of_texts, of_rationales = vectorizer.transform([texts[row] for row in kept]), vectorizer.transform(said)

    def similarity(places: np.ndarray) -> np.ndarray:
        return np.asarray(of_rationales.multiply(of_texts[places]).sum(1)).ravel()

    generator = np.random.default_rng(seed)
    to_own = similarity(np.arange(len(kept)))
    to_others = np.empty((len(kept), others), dtype=np.float32)
    for draw in range(others):
        to_others[:, draw] = similarity(_strangers(group, generator))
    # Ties are drawn by lot: a rationale that shares no word with any text is not matched.
    lot = generator.random(to_others.shape, dtype=np.float32) * 1e-6
    first = (to_others + lot).max(1) < to_own + generator.random(len(kept)) * 1e-6
    # The share p of unrelated rows has to explain all rows that are no more similar than a stranger: p * F_other(s) is at
    # most F_own(s) at each similarity s.
    cuts = np.quantile(to_others, _QUANTILES)
    unrelated = min(1.0, min(float((to_own <= cut).mean() / (to_others <= cut).mean()) for cut in cuts))
    verdict = "aligned" if unrelated < _ALIGNED else "shuffled" if unrelated > _SHUFFLED else "partly shuffled"
    if verdict == "shuffled":
        mismatched = np.flatnonzero(~first)
    else:
        suspects = np.flatnonzero(~first)
        # A text that has lost its own rationale is a suspect too: fitting one of those is better evidence than fitting any.
        lost = _best_elsewhere(of_rationales, of_texts, suspects, suspects, group)
        any_text = _best_elsewhere(of_rationales, of_texts, suspects, np.arange(len(kept)), group)
        fits, fits_well = np.quantile(to_own[first], (0.1, 0.5)) if first.any() else (0.0, 0.0)
        better = _BETTER * to_own[suspects]
        mismatched = suspects[((lost > better) & (lost >= fits)) | ((any_text > better) & (any_text >= fits_well))]
    return {
        "verdict": verdict,
        "accuracy": float(first.mean()),
        "chance": 1 / (others + 1),
        "unrelated": unrelated,
        "mismatched": [kept[place] for place in mismatched.tolist()],
        "rows": len(kept),
        "others": others,
    }


def _terms(text: str) -> list[str]:
    """The beginnings of a text's words, and the pairs of what is written without spaces."""
    words = units(text)
    pairs = [one + two for one, two in zip(words, words[1:], strict=False) if _wide(one) and _wide(two)]
    return [word[:_STEM] for word in words if not _wide(word)] + pairs


def _wide(word: str) -> bool:
    return len(word) == 1 and ord(word) > 0x0DFF


def _numbered(values: Sequence[Hashable]) -> Any:
    """Equal values under one number, from 0."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _joined(one: Any, two: Any) -> Any:
    """The components of rows that are equal in either."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Rows are joined through their texts and groups: a graph with the two kinds as nodes, and an edge a row.
    nodes = int(one.max(initial=0)) + int(two.max(initial=0)) + 2
    edges = (one, two + int(one.max(initial=0)) + 1)
    graph = coo_array((np.ones(len(one), dtype=np.int8), edges), shape=(nodes, nodes))
    return _numbered(connected_components(graph, directed=False)[1][one].tolist()) if len(one) else one


def _strangers(group: Any, generator: Any) -> Any:
    """For each row one of another group."""
    import numpy as np

    places = generator.integers(0, len(group), len(group))
    for _ in range(50):
        same = np.flatnonzero(group[places] == group)
        if not len(same):
            break
        places[same] = generator.integers(0, len(group), len(same))
    return places


def _best_elsewhere(rationales: Any, texts: Any, suspects: Any, candidates: Any, group: Any) -> Any:
    """For each suspect its greatest similarity to a candidate's text of another group."""
    import numpy as np

    found = np.zeros(len(suspects), dtype=np.float32)
    texts = texts[candidates]
    # A common word would make the product long, and says little of where a rationale belongs.
    rare = np.flatnonzero(np.diff(texts.tocsc().indptr) <= _MOST_IN_COMMON)
    wanted, transposed = rationales[suspects][:, rare], texts[:, rare].T.tocsr()
    for start in range(0, len(suspects), _CHUNK):
        product = (wanted[start : start + _CHUNK] @ transposed).tocoo()
        rows, columns = product.coords
        strange = group[candidates[columns]] != group[suspects[start + rows]]
        np.maximum.at(found, start + rows[strange], product.data[strange])
    return found
