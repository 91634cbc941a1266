"""What the rationales of a table say together: whether they belong to their rows, which are alike, what gives the label away.

Each is matched back to its own text among texts of other rows, which no library does. Near duplicates are found here too:
datasketch is five times slower, and misses one in nine.
"""

from __future__ import annotations

import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..data.splits import joined
from .words import units

_STEM = 5  # letters of a word that count: "entails" and "entailed" match, in every language that puts endings behind
_FEWEST_TEXTS = 10
# Shares of rationales that fit their own text no better than any other: measured on 19 sets (e-SNLI, SuperGLUE, ...), aligned
# ones are at 0.00 to 0.12, half shuffled ones at 0.25 to 0.56, and shuffled ones at 0.86 and above.
_ALIGNED, _SHUFFLED = 0.2, 0.7
# Share of rationales that have changed places with others, see `_swapped`: on the same sets at most 0.002 where none has,
# and at least 0.011 where one of twenty has.
_SWAPPED, _FEWEST_SWAPPED = 0.006, 3
_QUANTILES = (0.3, 0.5, 0.7, 0.8, 0.9)
_BETTER = 2.0  # times as similar as its own text, until another one is evidence
_CHUNK = 1000
_MOST_IN_COMMON = 1000  # texts: a word in more of them is not looked up in a search of the whole table
_BANDS, _ROWS = 24, 3  # texts of similarity 0.5 share a bucket with 96%, of 0.6 with 99.7%
_FOLDS = 5
_TELLING = 10  # words shown for each label
_FEWEST_TEXTS_OF_A_TERM = 2


def match_rationales(
    texts: Sequence[str] | None,
    rationales: Sequence[str | None],
    *,
    groups: Sequence[Hashable] | None = None,
    others: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """Match each rationale back to its own text among those of other rows, by the rare words that they share."""
    from sklearn.feature_extraction.text import TfidfTransformer

    nothing: dict[str, Any] = {"verdict": None, "accuracy": None, "mismatched": []}
    if texts is None:
        return nothing | {"reason": "matching needs the rows' texts"}
    kept = [row for row, it in enumerate(rationales) if it and it.strip() and texts[row].strip()]
    nothing["rows"] = len(kept)
    group = joined_groups([texts[row] for row in kept], None if groups is None else [groups[row] for row in kept])
    distinct = int(group.max()) + 1 if kept else 0
    if distinct < _FEWEST_TEXTS:
        reason = f"matching needs {_FEWEST_TEXTS} rows of different text with a rationale, and there are {distinct}"
        return nothing | {"reason": reason}
    others = min(others, distinct - 1)
    counts, names = counted(chain((texts[row] for row in kept), (rationales[row] for row in kept)), _stems)
    if not names:
        return nothing | {"reason": "matching needs words, and there are none"}
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    del counts
    of_texts, of_rationales = weights[: len(kept)], weights[len(kept) :]
    del weights

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
    suspects = np.flatnonzero(~first)
    if unrelated > _SHUFFLED:
        verdict, mismatched = "shuffled", suspects
    else:
        verdict = "aligned"
        mismatched, swapped = _swapped(of_rationales, of_texts, suspects, to_own, group)
        if unrelated >= _ALIGNED or swapped >= max(_FEWEST_SWAPPED, _SWAPPED * len(kept)):
            verdict = "partly shuffled"
            # Then fitting the text of any other suspect, as well as most fit their own, is evidence enough.
            _, lost = _best(of_rationales[suspects], of_texts[suspects], group[suspects], group[suspects])
            fits = np.quantile(to_own[first], 0.1) if first.any() else 0.0
            clear = suspects[(lost > _BETTER * to_own[suspects]) & (lost >= fits)]
            mismatched = np.union1d(mismatched, clear)
    return {
        "verdict": verdict,
        "accuracy": float(first.mean()),
        "chance": 1 / (others + 1),
        "unrelated": unrelated,
        "mismatched": [kept[place] for place in mismatched.tolist()],
        "rows": len(kept),
        "others": others,
    }


def numbered(
    texts: Iterable[str], terms: Callable[[str], Iterable[str]] = units
) -> tuple[np.ndarray, np.ndarray, list]:
    """The terms of all texts as numbers in one row, where each text begins and ends in it, and what the numbers mean."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    flat, ends = array("i"), [0]
    for text in texts:
        flat.extend([numbers[term] for term in terms(text)])
        ends.append(len(flat))
    return np.frombuffer(flat, dtype=np.int32) if flat else np.empty(0, np.int32), np.array(ends), list(numbers)


def counted(texts: Iterable[str], terms: Callable[[str], Iterable[str]] = units) -> tuple[Any, list[str]]:
    """How often each term stands in each text, as a sparse matrix of texts and terms, and the terms."""
    from scipy.sparse import csr_matrix

    flat, ends, names = numbered(texts, terms)
    counts = csr_matrix((np.ones(len(flat), np.float32), flat, ends), shape=(len(ends) - 1, len(names)), copy=True)
    counts.sum_duplicates()
    return counts, names


def _stems(text: str) -> list[str]:
    """The beginnings of a text's words, and the pairs of what is written without spaces."""
    words = units(text)
    if text.isascii():
        return [word[:_STEM] for word in words]
    wide = [len(word) == 1 and ord(word) > 0x0DFF for word in words]
    pairs = [one + two for one, two, *both in zip(words, words[1:], wide, wide[1:], strict=False) if all(both)]
    return [word[:_STEM] for word, it in zip(words, wide, strict=True) if not it] + pairs


def joined_groups(texts: Sequence[Hashable], groups: Sequence[Hashable] | None = None) -> np.ndarray:
    """Numbers from 0 of what belongs together: rows with one text or one group, over other rows too."""

    def places(values: Sequence[Hashable]) -> np.ndarray:
        numbers: dict[Hashable, int] = {}
        return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)

    one = places(texts)
    if groups is None or not len(one):
        return one
    return places(joined(one, places(groups)).tolist())


def _strangers(group: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each row one of another group."""
    places = generator.integers(0, len(group), len(group))
    for _ in range(50):
        same = np.flatnonzero(group[places] == group)
        if not len(same):
            break
        places[same] = generator.integers(0, len(group), len(same))
    return places


def _swapped(
    rationales: Any, texts: Any, suspects: np.ndarray, to_own: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, int]:
    """The rows whose rationale belongs to another text, and how many of those texts have lost theirs to another in turn.

    A rationale belongs to another text if it fits that one much better than its own, better than any other, and better
    than any other rationale does. By chance some do, in a set where nothing moved; but there the text that it fits has its
    own rationale still.
    """
    # A common word would make the products long, and says little of where a rationale belongs.
    rare = np.flatnonzero(np.bincount(texts.indices, minlength=texts.shape[1]) <= _MOST_IN_COMMON)
    texts, rationales = texts[:, rare], rationales[:, rare]
    target, fit = _best(rationales[suspects], texts, group[suspects], group)
    better = fit > _BETTER * to_own[suspects]
    moved, target, fit = suspects[better], target[better], fit[better]
    best, best_fit = _best(texts[target], rationales)
    mutual = (fit >= best_fit - 1e-6) | (group[best] == group[moved])
    moved, target = moved[mutual], target[mutual]
    return moved, int(np.isin(group[target], group[moved]).sum())


def _best(
    wanted: Any, among: Any, own: np.ndarray | None = None, group: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each row of a matrix the most similar one of another, of another group, and how similar it is."""
    place, most = np.zeros(wanted.shape[0], dtype=np.int64), np.zeros(wanted.shape[0], dtype=np.float32)
    transposed = among.T.tocsr()
    for start in range(0, wanted.shape[0], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        product = wanted[chunk] @ transposed
        if own is not None:
            rows = np.repeat(own[chunk], np.diff(product.indptr))
            product.data[group[product.indices] == rows] = 0
        place[chunk], most[chunk] = np.asarray(product.argmax(1)).ravel(), product.max(1).toarray().ravel()
    return place, most


def near_duplicates(
    rationales: Sequence[str | None],
    *,
    groups: Sequence[Hashable] | None = None,
    similarity: float = 0.6,
    min_words: int = 4,
) -> list[list[int]]:
    """Groups of rows whose rationales are the same but for a word or two, found without comparing each with each.

    MinHash signatures of a text's words and word pairs, banded so that alike texts share a bucket, then compared exactly.

    Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
    Datasets", chapter 3.
    """
    from scipy.cluster.hierarchy import DisjointSet

    words, ends, _ = numbered(it or "" for it in rationales)
    sizes = np.diff(ends)
    kept = np.flatnonzero(sizes >= min_words)
    if len(kept) < 2:
        return []
    words = words[np.repeat(sizes >= min_words, sizes)]
    ends = np.concatenate([[0], np.cumsum(sizes[kept])])

    def grams(place: int) -> frozenset[int]:
        return frozenset(_grams(words, ends[place : place + 2]).ravel().tolist())

    alike = DisjointSet(range(len(kept)))
    for bucket in _buckets(words, ends):
        # With the first and with the one before: enough to chain what is alike, and never quadratic.
        for before, place in zip(bucket, bucket[1:], strict=False):
            for other in {before, bucket[0]}:
                if alike.connected(place, other) or (groups and groups[kept[place]] == groups[kept[other]]):
                    continue
                one, two = grams(place), grams(other)
                common = len(one & two)
                if common >= similarity * (len(one) + len(two) - common):
                    alike.merge(place, other)
    return sorted(sorted(kept[list(its)].tolist()) for its in alike.subsets() if len(its) > 1)


def _grams(words: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Words, and pairs of words, as numbers `[2, words]`; a row's last word, which begins no pair, stands twice."""
    ones = words[ends[0] : ends[-1]].astype(np.uint64) + np.uint64(1)
    grams = np.stack([ones, ones << np.uint64(32)])
    grams[1, :-1] |= ones[1:]
    last = ends[1:] - ends[0] - 1
    grams[1, last] = ones[last]
    return grams


def _buckets(words: np.ndarray, ends: np.ndarray) -> Iterator[list[int]]:
    """Rows whose signatures agree in a band."""
    generator = np.random.default_rng(0)
    factors = generator.integers(1, 1 << 63, (_BANDS, _ROWS, 2), dtype=np.uint64) | np.uint64(1)
    keys = np.zeros((_BANDS, len(ends) - 1), dtype=np.uint64)
    for start in range(0, len(ends) - 1, 10 * _CHUNK):
        its = ends[start : start + 10 * _CHUNK + 1]
        grams = _grams(words, its)
        for band, row in np.ndindex(_BANDS, _ROWS):
            factor, offset = factors[band, row]
            mixed = grams * factor + offset  # multiply and shift, twice: the low bits of a product are poor
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
            least = np.minimum.reduceat((mixed >> np.uint64(32)).min(0), its[:-1] - its[0])
            part = keys[band, start : start + len(least)]
            part[:] = part * np.uint64(0xBF58476D1CE4E5B9) + least
    for key in keys:
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order], prepend=~key[order[0]], append=~key[order[-1]]))
        for bucket in np.flatnonzero(np.diff(edges) > 1):
            yield order[edges[bucket] : edges[bucket + 1]].tolist()


def label_probe(
    rationales: Sequence[str | None],
    labels: Sequence[str | None],
    *,
    texts: Sequence[str] | None = None,
    groups: Sequence[Hashable] | None = None,
    most_rows: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """How much of the label the wording gives away: cross-validated accuracy of logistic regression on TF-IDF of the
    rationale alone, of the text alone, and by majority."""
    named = [row for row, label in enumerate(labels) if label is not None]
    kept = np.array([row for row in named if (rationales[row] or "").strip()], dtype=np.int64)
    counts = Counter(labels[row] for row in kept)
    found = {"rationale_only": None, "text_only": None, "majority": None, "rows": len(kept)}
    if counts:
        found["majority"] = max(counts.values()) / len(kept)
    if len(counts) < 2:
        return found | {"reason": f"a probe needs two labels, and there is {'one' if counts else 'none'}"}
    drawn = np.sort(np.random.default_rng(seed).permutation(kept)[:most_rows])
    target = np.array([str(labels[row]) for row in drawn])
    said = [rationales[row] for row in drawn]
    group = joined_groups(said, None if groups is None else [groups[row] for row in drawn])
    # A fold has to hold each label, from groups that are in no other fold.
    folds = min(_FOLDS, *(len(set(group[target == label])) for label in set(target)))
    if folds < 2:
        return found | {"reason": "a probe needs two rationales of each label"}
    terms, names = counted(said, _words_and_pairs)
    found |= {
        "rationale_only": _accuracy(terms, target, group, folds, seed),
        "majority": max(Counter(target).values()) / len(drawn),
        "rows": len(drawn),
        "folds": folds,
        "telling": _telling(terms, names, target),
    }
    if texts is not None:
        of_texts, _ = counted((texts[row] for row in drawn), _words_and_pairs)
        found["text_only"] = _accuracy(of_texts, target, group, folds, seed)
    nothing = {"reason": "a probe needs words, and there are none"}
    return found | (nothing if found["rationale_only"] is None else {})


def _words_and_pairs(text: str) -> list[str]:
    words = units(text)
    return [*words, *map(" ".join, zip(words, words[1:], strict=False))]


def _fitted(terms: Any, target: np.ndarray) -> tuple[np.ndarray, Any] | None:
    """The terms that are no one text's alone, and the TF-IDF of them with a classifier behind; None where there are none."""
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
