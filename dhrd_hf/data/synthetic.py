"""The demonstration data set of the quickstart: synthetic, made here from word lists, with nothing to download.

Each row names three things that somebody carries, two of one kind and one of another, and asks for the room that they come
from: the one of the two. The rationale says of which kind each thing is. Training, validation and test rows are made of
different words, so that a classifier has to know what a word means, and can't have seen it in training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

SYNTHETIC_LABELS = ("kitchen", "wardrobe", "garage")
# Of the forty things of a kind, in the order of their hashes.
_SPLITS = {"train": slice(0, 20), "validation": slice(20, 30), "test": slice(30, 40)}
_NAMES = ["Ann", "Anna", "Ben", "Dan", "Emma", "Eva", "Jack", "Jane", "Kate", "Leo"]
_NAMES += ["Lucy", "Luke", "Mark", "Mary", "Max", "Nick", "Paul", "Rose", "Sam", "Tom"]
_KINDS = (("food", "food"), ("clothing", "clothing"), ("tools", "a tool"))
_THINGS = (
    "apple banana bean biscuit cabbage cake carrot cheese cherry cookie cucumber egg lemon mango melon muffin noodle olive onion "
    "pancake pea peach peanut pear pepper pie pizza plum potato pumpkin radish raisin salad sandwich sausage strawberry tomato "
    "turnip waffle walnut",
    "apron bathrobe belt beret blouse bonnet boot cap cardigan cloak coat dress glove gown hat hoodie jacket jumper kimono legging "
    "mitten poncho raincoat robe sandal scarf shawl shirt shoe skirt slipper sneaker sock stocking suit sweater tie tunic uniform "
    "vest",
    "anvil axe bolt brush chisel clamp crowbar drill file funnel hammer hatchet hoe jack ladder lathe mallet nail paintbrush pickaxe "
    "pitchfork plane pulley rake ruler sander saw screwdriver scythe shovel sickle sledgehammer spade spanner stapler toolbox "
    "trowel vise wheelbarrow wrench",
)


def synthetic_errands(split: str, n: int, seed: int = 0) -> datasets.Dataset:
    """Make `n` rows of things, the room they come from, and of which kind each is: a synthetic data set."""
    import datasets

    if split not in _SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(_SPLITS)}")
    if not 1 <= n <= 600:
        raise ValueError(f"n is {n}: ask for 1 to 600 rows")
    rows = _rows(split, random.Random(seed))
    return datasets.Dataset.from_list([next(rows) for _ in range(n)])


def _rows(split: str, rng: random.Random) -> Iterator[dict[str, str]]:
    things = [sorted(kind.split(), key=_hash)[_SPLITS[split]] for kind in _THINGS]
    seen = set()
    while True:
        for most in _shuffled(range(len(_KINDS)), rng):
            text = None
            while text is None or text in seen:
                one, other = _shuffled(things[most], rng)[:2]
                kind = _pick([kind for kind in range(len(_KINDS)) if kind != most], rng)
                odd = _pick(things[kind], rng)
                first, second, third = (_with_article(thing) for thing in _shuffled([one, other, odd], rng))
                text = f"{_pick(_NAMES, rng)} brings {first}, {second} and {third}."
            seen.add(text)
            one, other, odd = (_with_article(thing) for thing in (one, other, odd))
            rationale = f"{one.capitalize()} and {other} are {_KINDS[most][0]}, {odd} is {_KINDS[kind][1]}."
            yield {"text": text, "label": SYNTHETIC_LABELS[most], "rationale": rationale}


def _hash(thing: str) -> bytes:
    return hashlib.sha256(thing.encode()).digest()


def _with_article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _shuffled(items: Sequence[Any], rng: random.Random) -> list[Any]:
    # Python promises the same numbers for ever from `random()` only, not from `shuffle` and `sample`.
    return sorted(items, key=lambda _: rng.random())


def _pick(items: Sequence[Any], rng: random.Random) -> Any:
    return items[int(rng.random() * len(items))]
