"""What a rationale is worth: the ablations of the paper's Table 2 and the controls that its critics ask for."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from transformers.utils import logging

from ..files import did_you_mean
from .label_names import label_names
from .prompts import rationale_text
from .tables import check_columns

if TYPE_CHECKING:
    import datasets

    Table = TypeVar("Table", datasets.Dataset, datasets.DatasetDict)

logger = logging.get_logger(__name__)

KEEP = 0.3
_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_LONGEST_WORD = 20  # characters a word on average; beyond, a text is taken to be written without spaces


@dataclass(frozen=True)
class Ablation:
    description: str
    encoder: dict[str, Any] = field(default_factory=dict)
    needs_label: bool = False


# The first four are Table 2; the others ask what it is in a rationale that helps (Wadhwa et al. 2024, arXiv 2406.14511).
ABLATIONS = {
    "consistent": Ablation("the rows as they are"),
    "label_only": Ablation("no rationale: the suffix is the label alone"),
    "shuffled_rationale": Ablation("the rationale of another row, the row's own label"),
    "shuffled_rationale_and_label": Ablation("rationale and label, together, of another row", needs_label=True),
    "permuted_tokens": Ablation("the words of the row's own rationale in random order"),
    "keywords_only": Ablation("the rarest words of the row's own rationale, in their order"),
    "same_label_rationale": Ablation("the rationale of another row with the same label", needs_label=True),
    "rationale_after_label": Ablation("the rows as they are, encoded label first", {"rationale_after_label": True}),
}
_AS_THEY_ARE = ("consistent", "rationale_after_label")


def ablate(
    dataset: Table,
    kind: str,
    seed: int = 0,
    *,
    label_column: str = "label",
    rationale_column: str = "rationale",
    keep: float = KEEP,
) -> Table:
    """The rows with their rationales (and, for one kind, labels) spoilt in a known way."""
    _check(kind, keep)
    if isinstance(dataset, dict):  # DatasetDict
        columns = {"label_column": label_column, "rationale_column": rationale_column}
        return type(dataset)({name: ablate(it, kind, seed, keep=keep, **columns) for name, it in dataset.items()})
    needs_label = ABLATIONS[kind].needs_label
    check_columns(dataset.column_names, [rationale_column, *([label_column] if needs_label else [])])
    if kind in _AS_THEY_ARE:
        return dataset
    labels = dataset[label_column][:] if needs_label else [None] * len(dataset)
    rationales, labels = ablate_columns(dataset[rationale_column][:], labels, kind, seed, keep=keep)
    dataset = _with_column(dataset, rationale_column, rationales)
    return _with_column(dataset, label_column, labels) if kind == "shuffled_rationale_and_label" else dataset


def ablate_columns(
    rationales: Sequence[Any], labels: Sequence[Any], kind: str, seed: int = 0, *, keep: float = KEEP
) -> tuple[list[Any], list[Any]]:
    """[`ablate`] of two columns alone, for rows that stay what they are otherwise."""
    _check(kind, keep)
    if kind in _AS_THEY_ARE:
        return list(rationales), list(labels)
    before = [rationale_text(rationale) for rationale in rationales]
    if kind == "label_only":
        return [None] * len(before), list(labels)
    if kind in ("permuted_tokens", "keywords_only"):
        change = _permuter(seed) if kind == "permuted_tokens" else _keywords(before, keep)
        after = [None if rationale is None else change(rationale) for rationale in before]
        _tell(kind, before, after)
        return after, list(labels)
    source = _sources(before, labels if kind == "same_label_rationale" else None, seed)
    after = [before[row] for row in source]
    _tell(kind, before, after)
    return after, [labels[row] for row in source] if kind == "shuffled_rationale_and_label" else list(labels)


def _check(kind: str, keep: float) -> None:
    if kind not in ABLATIONS:
        near = did_you_mean(str(kind), ABLATIONS, quote="'") or "."
        raise ValueError(f"no ablation {kind!r}{near} There are {', '.join(ABLATIONS)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep} must be above 0 and at most 1")


def derange(values: Sequence[Hashable], seed: int = 0) -> list[int]:
    """A random permutation that gives no place a value equal to its own, or as few places as can be."""
    import numpy as np

    number: dict[Hashable, int] = {}
    own = np.array([number.setdefault(value, len(number)) for value in values], dtype=np.int64)
    draw = np.random.default_rng(seed)
    source = draw.permutation(len(own))
    for place in np.flatnonzero(own[source] == own):
        value = own[place]
        if own[source[place]] != value:  # another place has changed with this one
            continue
        # A few guesses find a place unless a value is very common; then all are looked at.
        guesses = draw.integers(len(own), size=16)
        free = guesses[(own[guesses] != value) & (own[source[guesses]] != value)]
        if not len(free):
            free = np.flatnonzero((own != value) & (own[source] != value))
            if not len(free):
                continue
            free = draw.permutation(free)
        source[place], source[free[0]] = source[free[0]], source[place]
    return source.tolist()


def _sources(rationales: Sequence[str | None], labels: Sequence[Any] | None, seed: int) -> list[int]:
    """For each row the one whose rationale it is given, of the rows of its label where labels are given."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, rationale in enumerate(rationales):
        label = None if labels is None else tuple(label_names(labels[row]))
        groups[label, rationale is None].append(row)
    source = list(range(len(rationales)))
    for number, ((_, bare), rows) in enumerate(groups.items()):
        # Rows without a rationale are told apart by their place.
        chosen = derange(range(len(rows)) if bare else [rationales[row] for row in rows], seed + number)
        for row, place in zip(rows, chosen, strict=True):
            source[row] = rows[place]
    return source


def _permuter(seed: int) -> Callable[[str], str]:
    draw = random.Random(seed)

    def permute(rationale: str) -> str:
        parts, glue = rationale.split(), " "
        if len(rationale) > _LONGEST_WORD * len(parts):
            parts, glue = list(rationale), ""
        if len(set(parts)) < 2:
            return rationale
        order = parts[:]
        while order == parts:
            draw.shuffle(order)
        return glue.join(order)

    return permute


def _keywords(rationales: Sequence[str | None], keep: float) -> Callable[[str], str]:
    """Keeps the words that the fewest rationales of the set have; of equally rare ones the longer, then the first."""
    rows = Counter(word for rationale in rationales for word in {w.casefold() for w in _WORD.findall(rationale or "")})

    def shorten(rationale: str) -> str:
        words = _WORD.findall(rationale)
        rarest = sorted(
            range(len(words)), key=lambda place: (rows[words[place].casefold()], -len(words[place]), place)
        )
        return " ".join(words[place] for place in sorted(rarest[: math.ceil(keep * len(words))])) or rationale

    return shorten


def _tell(kind: str, before: Sequence[str | None], after: Sequence[str | None]) -> None:
    same = sum(one is not None and one == other for one, other in zip(before, after, strict=True))
    bare = sum(one is None for one in before)
    said = f"{kind}: {len(before)} rows, {bare} of them without a rationale, {same} keep their rationale's text"
    log = logger.warning if same else logger.info
    log(f"{said}{', as there is nothing else to give them' if same else ''}.")


def _with_column(dataset: datasets.Dataset, name: str, values: list[Any]) -> datasets.Dataset:
    """The data set with other values in a column, which keeps its type and its place."""
    changed = dataset.rename_column(name, f"{name} (before)").add_column(name, values, feature=dataset.features[name])
    return changed.select_columns(dataset.column_names)
