"""The demonstration data set of the quickstart: synthetic, made here from word lists, with nothing to download.

Each row states a few facts and a claim. Whether the claim holds takes two or three of the facts together, and the
rationale is those steps in words. Every passage is built first, the same way for all three labels, and its claim drawn
from it afterwards, so that neither the facts nor any single word of the row tells the label.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import datasets

SYNTHETIC_LABELS = ("entailed", "contradicted", "unknown")
# Buckets, out of five, of the hash of a row's facts.
_SPLITS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
_NAMES = ["Ann", "Ben", "Dan", "Emma", "Jack", "Jane", "Kate", "Luke", "Mark", "Mary", "Nick", "Paul", "Rose", "Tom"]
_RELATIONS = ["taller", "older", "faster", "stronger", "richer"]
_TRADES = ["baker", "boxer", "dancer", "doctor", "driver", "farmer", "hunter", "lawyer", "nurse", "pilot", "poet"]
_THINGS = ["ball", "book", "coin", "cup", "hat", "key", "knife", "map", "pen", "phone", "ring", "watch"]
_CONTAINERS = ["bag", "basket", "bin", "box", "bucket", "case", "chest", "crate", "drawer", "jar", "pot", "trunk"]
_ROOMS = ["attic", "barn", "cellar", "garage", "garden", "hall", "kitchen", "library", "office", "tower"]


class _Row(NamedTuple):
    facts: list[str]
    claim: str
    rationale: str


def synthetic_rules(split: str, n: int, seed: int = 0) -> datasets.Dataset:
    """Make `n` rows of facts, a claim, its label and the reasoning steps between them: a synthetic data set.

    There are three families of facts: who is taller than whom, what lies in which room, and which rule holds for whom.
    The labels are "entailed", "contradicted" and "unknown": every nine rows hold each family with each label once. The
    same arguments give the same rows on every machine, a larger `n` only adds rows, and no facts occur in two splits,
    whatever the seeds.

    Example:
        >>> row = synthetic_rules("train", n=3)[0]
        >>> sorted(row)
        ['label', 'rationale', 'text']

    Args:
        split: "train", "validation" or "test".
        n: the number of rows.
        seed: another seed draws other rows of the same split.

    Raises:
        ValueError: there is no such split, or `n` is below 1.
    """
    import datasets

    if split not in _SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(_SPLITS)}")
    if n < 1:
        raise ValueError(f"n is {n}: ask for 1 row or more")
    rows = _rows(split, random.Random(seed))
    return datasets.Dataset.from_list([next(rows) for _ in range(n)])


def _rows(split: str, rng: random.Random) -> Iterator[dict[str, str]]:
    seen = set()
    families = (_order, _place, _rule)
    while True:
        for family, label in _shuffled([*product(families, SYNTHETIC_LABELS)], rng):
            text = None
            while text is None or text in seen:
                row = family(label, rng)
                # The split hangs on the facts alone: in whatever order, and whatever is claimed about them.
                digest = hashlib.sha256(" ".join(sorted(row.facts)).encode()).digest()
                if int.from_bytes(digest, "big") % 5 in _SPLITS[split]:
                    text = f"Facts: {' '.join(_shuffled(row.facts, rng))} Claim: {row.claim}"
            seen.add(text)
            yield {"text": text, "label": label, "rationale": row.rationale}


def _shuffled(items: Sequence[Any], rng: random.Random) -> list[Any]:
    # Python promises the same numbers for ever from `random()` only, not from `shuffle` and `sample`.
    return sorted(items, key=lambda _: rng.random())


def _pick(items: Sequence[Any], rng: random.Random) -> Any:
    return items[int(rng.random() * len(items))]


def _order(label: str, rng: random.Random) -> _Row:
    """Two chains of people, of three and three or four and two: two people compare if they are in one chain."""
    than = f"is {_pick(_RELATIONS, rng)} than"
    names, cut = _shuffled(_NAMES, rng)[:6], _pick((3, 4), rng)
    chain, other = names[:cut], names[cut:]
    top, bottom = _pick([(i, j) for i in range(len(chain)) for j in range(i + 2, len(chain))], rng)
    steps = [f"{high} {than} {low}" for high, low in pairwise(chain[top : bottom + 1])]
    high, low = chain[top], chain[bottom]
    end = f"so {high} {than} {low}"
    upwards = label == "contradicted"
    if label == "unknown":
        # One of the two is exchanged for the one who stands likewise in the other chain.
        if _pick((True, False), rng):
            low = stranger = other[-1]
        else:
            high = stranger = other[0]
        end = f"nothing links {stranger} to them"
        upwards = _pick((True, False), rng)
    return _Row(
        facts=[f"{high} {than} {low}." for line in (chain, other) for high, low in pairwise(line)],
        claim=f"{low} {than} {high}." if upwards else f"{high} {than} {low}.",
        rationale=f"{', '.join([*steps, end])}.",
    )


def _place(label: str, rng: random.Random) -> _Row:
    """Two things in containers, of which one stands in a known room; another container stands in another room."""
    thing, lost = _shuffled(_THINGS, rng)[:2]
    box, closed, empty = _shuffled(_CONTAINERS, rng)[:3]
    room, elsewhere = _shuffled(_ROOMS, rng)[:2]
    claimed = {"entailed": room, "contradicted": elsewhere, "unknown": _pick((room, elsewhere), rng)}[label]
    if label == "unknown":
        rationale = f"The {lost} is in the {closed}, nothing says where the {closed} is."
    else:
        end = f", not in the {elsewhere}" if label == "contradicted" else ""
        rationale = f"The {thing} is in the {box}, the {box} is in the {room}, so the {thing} is in the {room}{end}."
    inside = ((thing, box), (box, room), (lost, closed), (empty, elsewhere))
    return _Row(
        facts=[f"The {inner} is in the {outer}." for inner, outer in inside],
        claim=f"The {lost if label == 'unknown' else thing} is in the {claimed}.",
        rationale=rationale,
    )


def _rule(label: str, rng: random.Random) -> _Row:
    """Three people of three trades: a rule makes one a member of a group, another keeps one out, the third is free."""
    people = dict(zip(SYNTHETIC_LABELS, _shuffled(_NAMES, rng), strict=False))
    *trades, group, between = _shuffled(_TRADES, rng)[:5]
    trade = dict(zip(SYNTHETIC_LABELS, trades, strict=True))
    # In one passage of two, one of the three takes a step more: from the trade to another group, and on from there.
    longer = _pick((*SYNTHETIC_LABELS, None, None, None), rng)
    detour = longer and f"every {trade[longer]} is a {between}"
    last = {key: between if key == longer else trade[key] for key in trade}
    rules = {
        "entailed": f"every {last['entailed']} is a {group}",
        "contradicted": f"no {last['contradicted']} is a {group}",
    }
    stated = [*rules.values(), detour] if detour else rules.values()

    person = people[label]
    gap = f"nothing says whether a {last[label]} is a {group}"
    end = {"entailed": f"so {person} is a {group}", "contradicted": f"so {person} is not a {group}", "unknown": None}
    steps = [f"{person} is a {trade[label]}", detour if label == longer else None, rules.get(label, gap), end[label]]
    return _Row(
        facts=[f"{people[key]} is a {trade[key]}." for key in people] + [f"{rule.capitalize()}." for rule in stated],
        claim=f"{person} is a {group}.",
        rationale=f"{', '.join(filter(None, steps))}.",
    )
