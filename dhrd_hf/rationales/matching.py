"""Whether rationales belong to their rows: each is matched back to its own text among texts of other rows.

No library does this. Near duplicates are found here too: datasketch is five times slower, and misses one in nine.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from .words import counted, numbered, units

if TYPE_CHECKING:
    import numpy as np

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
    from sklearn.feature_extraction.text import TfidfTransformer

    kept = [row for row, it in enumerate(rationales) if it and it.strip() and texts[row].strip()]
    nothing = {"verdict": None, "accuracy": None, "mismatched": [], "rows": len(kept)}
    group = joined_groups([texts[row] for row in kept], None if groups is None else [groups[row] for row in kept])
    distinct = int(group.max()) + 1 if kept else 0
    if distinct < _FEWEST_TEXTS:
        reason = f"matching needs {_FEWEST_TEXTS} rows of different text with a rationale, and there are {distinct}"
        return nothing | {"reason": reason}
    others = min(others, distinct - 1)
    counts, names = counted(chain((texts[row] for row in kept), (rationales[row] for row in kept)), _terms)
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
        moved, swapped = _swapped(of_rationales, of_texts, suspects, to_own, group)
        partly = unrelated >= _ALIGNED or swapped >= max(_FEWEST_SWAPPED, _SWAPPED * len(kept))
        verdict, mismatched = "aligned", moved
        if partly:
            # Then fitting the text of any other suspect, as well as most fit their own, is evidence enough.
            _, lost = _best(of_rationales[suspects], of_texts[suspects], group[suspects], group[suspects])
            fits = np.quantile(to_own[first], 0.1) if first.any() else 0.0
            clear = suspects[(lost > _BETTER * to_own[suspects]) & (lost >= fits)]
            verdict, mismatched = "partly shuffled", np.union1d(moved, clear)
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
    if text.isascii():
        return [word[:_STEM] for word in words]
    pairs = [one + two for one, two in zip(words, words[1:], strict=False) if _wide(one) and _wide(two)]
    return [word[:_STEM] for word in words if not _wide(word)] + pairs


def _wide(word: str) -> bool:
    return len(word) == 1 and ord(word) > 0x0DFF


def joined_groups(texts: Sequence[Hashable], groups: Sequence[Hashable] | None = None) -> np.ndarray:
    """Numbers from 0 of what belongs together: rows with one text or one group, over other rows too."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def places(values: Sequence[Hashable]) -> np.ndarray:
        numbers: dict[Hashable, int] = {}
        return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)

    one = places(texts)
    if groups is None or not len(one):
        return one
    # A graph with the texts and the groups as nodes, and an edge a row.
    two = places(groups) + one.max() + 1
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, two)), shape=(two.max() + 1,) * 2)
    return places(connected_components(graph, directed=False)[1][one].tolist())


def _strangers(group: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each row one of another group."""
    import numpy as np

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
    import numpy as np

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
    import numpy as np

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
    import numpy as np

    words, ends, _ = numbered(it or "" for it in rationales)
    kept = np.flatnonzero(np.diff(ends) >= min_words)
    if len(kept) < 2:
        return []

    def grams(place: int) -> frozenset[int]:
        its = words[ends[place] : ends[place + 1]].astype(np.int64)
        return frozenset([*its.tolist(), *(its[:-1] + 1 << 32 | its[1:]).tolist()])

    parent = list(range(len(ends) - 1))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for bucket in _buckets(words, ends, kept):
        # With the first and with the one before: enough to chain what is alike, and never quadratic.
        for before, place in zip(bucket, bucket[1:], strict=False):
            for other in {before, bucket[0]}:
                if root(place) == root(other) or (groups is not None and groups[place] == groups[other]):
                    continue
                one, two = grams(place), grams(other)
                common = len(one & two)
                if common >= similarity * (len(one) + len(two) - common):
                    parent[root(place)] = root(other)
    found: dict[int, list[int]] = {}
    for place in kept.tolist():
        found.setdefault(root(place), []).append(place)
    return sorted(sorted(rows) for rows in found.values() if len(rows) > 1)


def _buckets(words: np.ndarray, ends: np.ndarray, kept: np.ndarray) -> Iterator[list[int]]:
    """Rows whose signatures agree in a band."""
    import numpy as np

    generator = np.random.default_rng(0)
    factors = generator.integers(1, 1 << 63, (_BANDS, _ROWS, 2), dtype=np.uint64) | np.uint64(1)
    keys = np.zeros((_BANDS, len(kept)), dtype=np.uint64)
    for start in range(0, len(kept), 10 * _CHUNK):
        rows = kept[start : start + 10 * _CHUNK]
        sizes = np.diff(ends)[rows]
        starts = np.concatenate([[0], np.cumsum(2 * sizes - 1)])
        flat = np.empty(starts[-1], dtype=np.uint64)
        for place, row in zip(starts.tolist(), rows.tolist(), strict=False):
            its = words[ends[row] : ends[row + 1]]
            flat[place : place + len(its)] = its + 1
            flat[place + len(its) : place + 2 * len(its) - 1] = (its[:-1].astype(np.uint64) + 1 << 32) + its[1:] + 1
        for band, row in np.ndindex(_BANDS, _ROWS):
            factor, offset = factors[band, row]
            mixed = flat * factor + offset  # multiply and shift, twice: the low bits of a product are poor
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
            least = np.minimum.reduceat(mixed >> np.uint64(32), starts[:-1])
            part = keys[band, start : start + len(rows)]
            part[:] = part * np.uint64(0xBF58476D1CE4E5B9) + least
    for key in keys:
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order])) + 1
        yield from (kept[bucket].tolist() for bucket in np.split(order, edges) if len(bucket) > 1)
