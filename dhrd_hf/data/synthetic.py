"""The demonstration data set of the quickstart: synthetic, made here from word lists, with nothing to download.

Each row says of two visitors whether they have a ticket and a bag, and asks where one of them goes. A visitor without a
ticket goes to the shop; one with a ticket and a bag to the desk, to leave the bag; one with a ticket alone to the gate.
The rationale is those steps in words. The other visitor always goes elsewhere, so the words of a row leave two labels
open: which fact belongs to whom must be read.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

SYNTHETIC_LABELS = ("gate", "desk", "shop")
# Buckets, out of five, of the hash of a row's facts.
_SPLITS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
_NAMES = ["Ann", "Anna", "Ben", "Dan", "Emma", "Eva", "Jack", "Jane", "Kate", "Leo"]
_NAMES += ["Lucy", "Luke", "Mark", "Mary", "Max", "Nick", "Paul", "Rose", "Sam", "Tom"]


def synthetic_visits(split: str, n: int, seed: int = 0) -> datasets.Dataset:
    """Make `n` rows of facts, a question, its label and the reasoning steps between them: a synthetic data set."""
    import datasets

    if split not in _SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(_SPLITS)}")
    if not 1 <= n <= 600:
        raise ValueError(f"n is {n}: ask for 1 to 600 rows")
    rows = _rows(split, random.Random(seed))
    return datasets.Dataset.from_list([next(rows) for _ in range(n)])


def _rows(split: str, rng: random.Random) -> Iterator[dict[str, str]]:
    seen = set()
    while True:
        for label in _shuffled(SYNTHETIC_LABELS, rng):
            text = None
            while text is None or text in seen:
                person, other = _shuffled(_NAMES, rng)[:2]
                elsewhere = _pick([place for place in SYNTHETIC_LABELS if place != label], rng)
                facts = [_fact(person, label, rng), _fact(other, elsewhere, rng)]
                # The split hangs on the facts alone: in whatever order, and whoever is asked about.
                digest = hashlib.sha256(" ".join(sorted(facts)).encode()).digest()
                if int.from_bytes(digest, "big") % 5 in _SPLITS[split]:
                    text = f"{' '.join(_shuffled(facts, rng))} Where does {person} go?"
            seen.add(text)
            yield {"text": text, "label": label, "rationale": _rationale(person, label)}


def _fact(person: str, place: str, rng: random.Random) -> str:
    ticket = "no" if place == "shop" else "a"
    bag = {"gate": "no", "desk": "a", "shop": _pick(("no", "a"), rng)}[place]
    return f"{person} has {ticket} ticket and {bag} bag."


def _rationale(person: str, place: str) -> str:
    if place == "shop":
        return f"{person} has no ticket and must buy one."
    return f"{person} has a ticket. {person} has {'a' if place == 'desk' else 'no'} bag to leave."


def _shuffled(items: Sequence[Any], rng: random.Random) -> list[Any]:
    # Python promises the same numbers for ever from `random()` only, not from `shuffle` and `sample`.
    return sorted(items, key=lambda _: rng.random())


def _pick(items: Sequence[Any], rng: random.Random) -> Any:
    return items[int(rng.random() * len(items))]
