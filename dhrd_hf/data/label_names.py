"""What a cell's label is called, whichever way it is written."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from numbers import Number
from typing import Any

from .prompts import as_text, stripped

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
_SINGLE, _MULTI, _REGRESSION = PROBLEM_TYPES
WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9]\d{0,17}))(?:\.0+)?")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_NO_ANSWER = {"n/a", "na", "#n/a", "<na>", "none", "nan", "null", "nil"}


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, NaN, or text of nothing but blanks."""
    if isinstance(value, str):
        return not stripped(value)
    value = plain(value)
    return value is None or (isinstance(value, float) and value != value)


def check_missing(lacking: Sequence[int], rows: int, what: str, drop: bool, say: Callable[[str], None]) -> None:
    """Tell of rows without a label; raise where they are not to be left out, or are all."""
    said = f"{len(lacking)} of {rows} rows have no label: {some(map(str, lacking))} (numbered from 0)"
    if lacking and not drop:
        raise ValueError(
            f"Row {lacking[0]}: it has no label, in {what}. {said}. Fill them in, or leave them out: --drop-unlabelled (in "
            "Python drop_unlabelled=True)."
        )
    if lacking and len(lacking) == rows:
        raise ValueError(f"{what}: {said}: none is left.")
    if lacking:
        say(f"{what}: {said}, left out.")


def label_name(value: Any) -> str | None:
    """What one label is called, however it is written: true is `true`, " yes" is `yes`, 1.0 and "1.0" are `1`."""
    if is_missing(value):
        return None
    value = plain(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = stripped(as_text(value, "its label"))
    whole = WHOLE_NUMBER.fullmatch(text)
    return str(int(whole[1])) if whole else text


def label_names(value: Any) -> list[str]:
    """The names in a cell, none where it is empty: one, or those of a list; of multi-hot rows the places of the ones."""
    value = plain(value)
    if not isinstance(value, (list, tuple)):
        return [] if is_missing(value) else [label_name(value)]
    if is_multi_hot(value):
        return [str(place) for place, chosen in enumerate(value) if chosen]
    return [name for name in map(label_name, value) if name is not None]


def kind_of(values: Iterable[Any]) -> str:
    """The problem type of labels: regression where all are numbers and some have fractions."""
    values = list(values)
    if any(isinstance(value, (list, tuple)) for value in values):
        return _MULTI
    numbers = read_each(as_number, values)
    return _SINGLE if None in numbers or all(map(float.is_integer, numbers)) else _REGRESSION


def sorted_names(names: Iterable[str]) -> list[str]:
    """Labels in the order of their ids: numbers by their value, other names as text."""
    found = set(names)
    numbers = all(map(_NUMBER.fullmatch, found))
    return sorted(found, key=lambda name: (float(name), name)) if numbers else sorted(found)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case, blanks or spelling alone: in how a letter is composed, or one number is written."""
    spellings: dict[Any, list[str]] = defaultdict(list)
    for name in names:
        visible = "".join(it for it in unicodedata.normalize("NFKC", name) if unicodedata.category(it) != "Cf")
        folded = "".join(visible.split()).casefold()
        spellings[float(folded) if _NUMBER.fullmatch(folded) else folded].append(name)
    return [its for its in spellings.values() if len(its) > 1]


def tell_odd(values: Iterable[Any], names: Iterable[str], what: str, say: Callable[[str], None]) -> None:
    """Tell how many labels had blanks around them, and, in one line, which names may be slips."""
    entries = (entry for value in values for entry in (value if isinstance(value, (list, tuple)) else (value,)))
    count = sum(isinstance(entry, str) and entry != stripped(entry) for entry in entries)
    if count:
        say(f"{what}: {count} labels had blanks around them, which were cut off.")
    names = sorted_names(names)
    empty = [repr(name) for name in names if name.casefold() in _NO_ANSWER]
    said = [f"{', '.join(empty)} {'is a label' if len(empty) == 1 else 'are labels'} like any other"] if empty else []
    for its in alike(names)[:5]:
        folded = ({name.casefold() for name in its}, {"".join(name.split()).casefold() for name in its})
        how = "case" if len(folded[0]) == 1 else "case or blanks" if len(folded[1]) == 1 else "spelling"
        said.append(f"{' and '.join(map(repr, its))} differ in {how} alone, and are {len(its)} labels")
    if said:
        say(f"{what}: {'; '.join(said)}. Where that is a slip, mend the cells.")


def plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def as_number(value: Any) -> float | None:
    """A label as a number, if it is one, or text that is one."""
    if isinstance(value, str):
        return float(stripped(value)) if _NUMBER.fullmatch(stripped(value)) else None
    return float(value) if isinstance(value, Number) and not isinstance(value, bool) else None


def is_binary(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(entry, (int, float)) and entry in (0, 1) for entry in values)


def is_multi_hot(values: Sequence[Any]) -> bool:
    """Whether a list can't be of ids: of 0 and 1 with one of them twice, or of true and false, or of 0.0 and 1.0."""
    return is_binary(values) and (len(set(values)) < len(values) or isinstance(values[0], (bool, float)))


def read_each(
    read: Callable[[Any], Any], values: Sequence[Any], rows: Sequence[int] | None = None, where: Any = None
) -> list[Any]:
    """What is read of each value of a column, equal ones read once; an error names the row, by its number in the table."""
    found: dict[Any, Any] = {}
    result = []
    for place, value in enumerate(values):
        # 1, 1.0 and true are one key of a dictionary, and three values.
        key: Any = (type(value), tuple(value) if isinstance(value, list) else value)
        try:
            is_new = key not in found
        except TypeError:  # an object, or a list of lists
            key, is_new = place, True
        try:
            if is_new:
                found[key] = read(value)
        except ValueError as error:
            row = place if rows is None else rows[place]
            raise ValueError(f"Row {row}{'' if where is None else f' of {where}'}: {error}.") from None
        result.append(found[key])
    return result


def some(words: Iterable[str], most: int = 5) -> str:
    """The first of some words."""
    words = list(words)
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")
