"""Near duplicates: rationales made from one template, found without comparing each with each.

MinHash signatures of a text's words and word pairs, banded so that alike texts share a bucket, then compared exactly.

Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", chapter 3.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from .languages import units

_BANDS, _ROWS = 24, 3  # texts of similarity 0.5 share a bucket with 96%, of 0.6 with 99.7%


def near_duplicates(
    rationales: Sequence[str | None],
    *,
    groups: Sequence[Hashable] | None = None,
    similarity: float = 0.6,
    min_words: int = 4,
) -> list[list[int]]:
    """Groups of rows whose rationales are the same but for a word or two."""
    import numpy as np

    grams, kept = [], []
    numbers: dict[str, int] = {}  # and not hash(), which is another in each process
    for row, rationale in enumerate(rationales):
        words = [numbers.setdefault(word, len(numbers) + 1) for word in units(rationale or "")]
        if len(words) >= min_words:
            pairs = (one << 32 | two for one, two in zip(words, words[1:], strict=False))
            grams.append(frozenset([*words, *pairs]))
            kept.append(row)
    if len(kept) < 2:
        return []
    buckets = _buckets(grams, np)
    parent = list(range(len(kept)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for bucket in buckets:
        # With the first and with the one before: enough to chain what is alike, and never quadratic.
        for before, place in zip(bucket, bucket[1:], strict=False):
            for other in {before, bucket[0]}:
                if root(place) == root(other) or (groups is not None and groups[kept[place]] == groups[kept[other]]):
                    continue
                one, two = grams[place], grams[other]
                common = len(one & two)
                if common >= similarity * (len(one) + len(two) - common):
                    parent[root(place)] = root(other)
    found: dict[int, list[int]] = {}
    for place, row in enumerate(kept):
        found.setdefault(root(place), []).append(row)
    return sorted(sorted(rows) for rows in found.values() if len(rows) > 1)


def _buckets(grams: list[frozenset[int]], np: Any) -> Iterator[list[int]]:
    """Places whose signatures agree in a band."""
    generator = np.random.default_rng(0)
    sizes = np.array([len(it) for it in grams])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.fromiter((gram for it in grams for gram in it), dtype=np.uint64, count=sizes.sum())
    for _ in range(_BANDS):
        key = np.zeros(len(grams), dtype=np.uint64)
        for _ in range(_ROWS):
            factor, offset = (np.uint64(it) | np.uint64(1) for it in generator.integers(1, 1 << 63, 2))
            mixed = flat * factor + offset  # multiply and shift, twice: the low bits of a product are poor
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
            key = key * np.uint64(0xBF58476D1CE4E5B9) + np.minimum.reduceat(mixed >> np.uint64(32), starts)
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order])) + 1
        yield from (bucket.tolist() for bucket in np.split(order, edges) if len(bucket) > 1)
