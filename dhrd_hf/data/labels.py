"""Label columns: what labels a column has, of what kind they are, and which of them a row's value is.

Every command and every Python way in reads labels here, so that a value has one name wherever it is read.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..files import did_you_mean
from .label_names import (
    PROBLEM_TYPES,
    WHOLE_NUMBER,
    as_number,
    check_missing,
    is_binary,
    is_missing,
    is_multi_hot,
    kind_of,
    label_name,
    plain,
    read_each,
    some,
    sorted_names,
    tell_odd,
)
from .tables import check_columns

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig

logger = logging.get_logger(__name__)

_SINGLE, _MULTI, _REGRESSION = PROBLEM_TYPES
_LIST_AS_TEXT = re.compile(r"\[\s*(\]|['\"\d{\[].*\])", re.DOTALL)  # as JSON, and as pandas writes it into CSV
_EITHER = (
    'could be ids or, multi-hot, the labels of the ones. Say which: for ids write names, as text, such as ["0", "1"]; '
    "for multi-hot name the labels (--label-names A,B of dhrd train), or write true and false"
)


class Labels:
    """The labels of a classifier, how a row's value becomes one of them, and where a column was read their `counts`.

    Without a problem type one label is regression, a list of labels multi label, anything else single label.
    """

    def __init__(
        self,
        label2id: Mapping[str, int],
        problem_type: str | None = None,
        column: str = "label",
        counts: Counter[str] | None = None,
    ):
        if problem_type is not None and problem_type not in PROBLEM_TYPES:
            raise ValueError(f"problem_type={problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}.")
        self.label2id = {name: int(index) for name, index in label2id.items()}
        self.id2label = {index: name for name, index in self.label2id.items()}
        if sorted(self.id2label) != list(range(len(self.label2id))):
            raise ValueError(
                f"label2id={dict(label2id)} must number its labels 0 to {len(self.label2id) - 1}, each once."
            )
        self.problem_type = _REGRESSION if problem_type is None and len(self.label2id) == 1 else problem_type
        self.column = column
        self.counts = Counter() if counts is None else counts
        # A model may know a label by a name that is written otherwise than ours, such as "1.0".
        spelt = {name: label_name(name) or name for name in self.label2id}
        times = Counter(spelt.values())
        self._spelt = {spelt[name]: index for name, index in self.label2id.items() if times[spelt[name]] == 1}

    @classmethod
    def of(cls, config: PreTrainedConfig, column: str = "label") -> Labels:
        return cls(config.label2id, config.problem_type, column)

    @property
    def names(self) -> list[str]:
        return [self.id2label[index] for index in range(len(self.id2label))]

    def read(self, value: Any) -> int | float | list[float]:
        """A row's label as the model takes it: an id, for multi label 0.0 or 1.0 for each label, for regression numbers."""
        given, value = value, plain(value)
        if is_missing(value):
            raise ValueError(f"it has no label in column {self.column!r}")
        if self.problem_type == _REGRESSION:
            return self._numbers(value)
        if isinstance(value, (list, tuple)) and self.problem_type != _SINGLE:
            if given is not value and not is_multi_hot(value) and any(type(it) is int for it in value):
                # Of a data set with a format, whose `map` does not say that there is a `ClassLabel`.
                raise ValueError(
                    f"its label {given!r} is an array, expected a list: use encode_dataset, or with_format(None)"
                )
            chosen = self._chosen(value)
            return [float(index in chosen) for index in range(len(self.label2id))]
        if self.problem_type == _MULTI:
            raise ValueError(f'its label {value!r} is no list: multi label wants ["a", "b"], and [] for none')
        return self.id_of(value)

    def read_all(self, values: Sequence[Any]) -> list[int | float | list[float]]:
        """The labels of a column, as [`~Labels.read`]; an error names the row."""
        return read_each(self.read, values)

    def text(self, label: int | float | list[float]) -> str:
        """What [`~Labels.read`] gave as the text y of the suffix: a name; names or `none`; for regression a number."""
        if self.problem_type == _REGRESSION:
            return ", ".join(f"{v:g}" for v in label) if isinstance(label, list) else f"{label:g}"
        if isinstance(label, list):
            return ", ".join(self.id2label[index] for index, chosen in enumerate(label) if chosen) or "none"
        return self.id2label[label]

    def longest_texts(self) -> list[str]:
        """Texts of which one is at least as long as any that [`~Labels.text`] gives."""
        if self.problem_type == _REGRESSION:
            return [", ".join([f"{-1.23456e-05:g}"] * len(self.label2id))]
        return [", ".join(self.label2id), "none"] if self.problem_type == _MULTI else list(self.label2id)

    def check(self, other: Labels, where: str, ours: str) -> None:
        unknown = sorted_names(name for name in other.counts if name not in self.label2id)
        if unknown:
            raise ValueError(
                f"{where} has labels that {ours} lacks: {some(map(repr, unknown))}. The labels there are "
                f"{some(map(repr, self.names), 20)}."
            )

    def __str__(self) -> str:
        if self.problem_type == _REGRESSION:
            return "numbers (regression)"
        counted = ", ".join(f"{name} {self.counts[name]}" for name in self.names[:20])
        return counted + (f", ... ({len(self.names)} labels)" if len(self.names) > 20 else "")

    def _numbers(self, value: Any) -> float | list[float]:
        several = isinstance(value, (list, tuple))
        found = [as_number(entry) for entry in (value if several else [value])]
        if any(number is None or not math.isfinite(number) for number in found):
            raise ValueError(f"its label {value!r} is not a number (regression)")
        if len(found) != len(self.label2id):
            raise ValueError(f"its label {value!r} is of {len(found)} numbers, and there are {len(self.label2id)}")
        return found if several else found[0]

    def _chosen(self, values: Sequence[Any]) -> set[int]:
        count = len(self.label2id)
        if is_multi_hot(values) and len(values) == count:
            return {index for index, chosen in enumerate(values) if chosen}
        if is_binary(values) and len(values) == count:
            raise ValueError(f"its label {values!r} {_EITHER}, or use encode_dataset, which reads the whole column")
        return set(_entries(self.id_of, values))

    def id_of(self, value: Any) -> int:
        """The id of one label that is given by its name or its id."""
        name = label_name(value)
        if name is None:
            raise ValueError(f"its label {value!r} is empty")
        named = self.named(value, name)
        numbered = int(name) if WHOLE_NUMBER.fullmatch(name) and int(name) in self.id2label else None
        if isinstance(value, str) and (named is not None or any(map(WHOLE_NUMBER.fullmatch, self._spelt))):
            numbered = None  # as text a number is a name, unless no label has a number for a name
        if None not in (named, numbered) and named != numbered:
            raise ValueError(
                f"its label {value} is the name of label {named} and the id of label {self.id2label[numbered]!r}; "
                "write names as text, or use `encode_dataset`, which reads the whole column"
            )
        if named is not None or numbered is not None:
            return numbered if named is None else named
        names = some(map(repr, self.names), 20)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError(f"its label id {value} is out of range: there are {len(self.label2id)} labels, {names}")
        near = did_you_mean(name, self.label2id, quote="'").removeprefix(": ")
        hint = f" ({near})" if near else ""
        raise ValueError(f"its label {value!r} is unknown{hint}; the labels are {names}")

    def named(self, value: Any, name: str) -> int | None:
        """The id of the label that a value is the name of."""
        # A label's own spelling comes first; `True` is what models trained by dhrd_hf 0.1 call true.
        own = (self.label2id.get(spelling) for spelling in (value, name, str(value)) if isinstance(spelling, str))
        return next((index for index in own if index is not None), self._spelt.get(name))


def read_labels(
    table: datasets.Dataset,
    column: str = "label",
    problem_type: str | None = None,
    *,
    known: Labels | Sequence[str] | None = None,
    drop_unlabelled: bool = False,
    where: str | Path | None = None,
    say: Callable[[str], None] = logger.warning,
) -> tuple[datasets.Dataset, Labels]:
    """A table with names, lists of names or numbers in its label column, and its labels with their counts.

    Lists of 0 and 1, all of one length, are multi-hot, unless they could as well be lists of ids. `known` are the labels of a
    model, or their names in the order of their ids: the column must hold them, or their ids. Otherwise the labels are those
    found, in the order of [`sorted_names`]. An empty label is refused, or its row left out.
    """
    what = f"{'' if where is None else f'{where}, '}column {column!r}"
    check_columns(table.column_names, [column])
    given = table.with_format(None)[column][:]
    values = named_cells(given, table.features[column])
    missing = read_each(is_missing, values)
    check_missing([row for row, it in enumerate(missing) if it], len(values), what, drop_unlabelled, say)
    rows = [row for row, it in enumerate(missing) if not it]
    values = [values[row] for row in rows]
    kind = problem_type or (known.problem_type if isinstance(known, Labels) else None)
    if kind is None:
        if known is None:
            check_fractions(values, what)
        kind = _MULTI if kind_of(values) == _MULTI else _SINGLE
    if known is not None and not isinstance(known, Labels):
        check_names(known)
        known = Labels({name: place for place, name in enumerate(known)}, kind, column)
    if known is not None and known.problem_type not in (None, kind):
        raise ValueError(f"{what} is read as {kind}, and the labels are of {known.problem_type}.")
    _check_kind(values, rows, kind, what)

    counts: Counter[str] = Counter()
    if kind == _REGRESSION:
        size = max((len(value) for value in values if isinstance(value, (list, tuple))), default=1)
        names = [column] if size == 1 else [f"{column} {place}" for place in range(size)]
        known = known or Labels({name: place for place, name in enumerate(names)}, kind, column)
        numbers = read_each(known.read, values, rows, where)
        named = numbers if values and isinstance(values[0], str) else values
    else:
        name, names = _namer(values, known, kind, what)
        named = read_each(name, values, rows, where)
        counts.update(entry for it in named for entry in (it if kind == _MULTI else (it,)))
        tell_odd(values, counts if known is None else (), what, say)
        names = sorted_names(counts) if names is None else names
        known = known or Labels({name: place for place, name in enumerate(names)}, kind, column)
    cells = [None] * len(given)
    for row, it in zip(rows, named, strict=True):
        cells[row] = it
    if cells != given:
        several = bool(named) and isinstance(named[0], list)
        table = _with_column(table, column, cells, "float64" if kind == _REGRESSION else "string", several)
    return (table if len(rows) == len(given) else table.select(rows)), Labels(known.label2id, kind, column, counts)


def labels_of(config: PreTrainedConfig, label2id: Mapping[str, int] | None) -> Mapping[str, int]:
    """The labels of a model with two heads, which are those that are given too, if any."""
    if not hasattr(config, "rationale_after_label"):
        raise TypeError(
            "The model has not two heads. Open it with "
            "AutoModelForDualHeadClassification.from_pretrained(name_or_path, ...)."
        )
    if label2id is not None and dict(label2id) != config.label2id:
        raise ValueError(f"label2id={dict(label2id)} is not the model's, {config.label2id}. Leave it out.")
    return config.label2id


def _namer(
    values: Sequence[Any], known: Labels | None, kind: str, what: str
) -> tuple[Callable[[Any], Any], list[str] | None]:
    """What reads the name, or names, of a value of this column; and all names where its lists are multi-hot."""
    lists = values if kind == _MULTI else []
    size = len(lists[0]) if lists else 0
    if lists and all(len(value) == size and is_binary(value) for value in lists):
        if known is None:
            check_lists(lists, what)
        if known is None or size == len(known.names):
            names = [str(place) for place in range(size)] if known is None else known.names
            return lambda value: [name for name, chosen in zip(names, value, strict=True) if chosen], names
    name: Callable[[Any], Any] = label_name
    if known is not None:
        entries = {
            it for value in values for it in (value if lists else (value,)) if isinstance(it, (str, int, float))
        }
        numbers = not any(isinstance(entry, (str, bool)) for entry in entries)
        # Whole numbers that are all among the names are names.
        if numbers and all(known.named(None, label_name(entry) or "") is not None for entry in entries):
            name = lambda entry: known.id2label[known.named(None, label_name(entry))]  # noqa: E731
        else:
            name = lambda entry: known.id2label[known.id_of(entry)]  # noqa: E731
    return (lambda value: _entries(name, value)) if kind == _MULTI else name, None


def check_names(names: Sequence[str]) -> None:
    if any(map(is_missing, names)) or len(set(names)) < len(names):
        raise ValueError(
            f"The labels' names are {', '.join(map(repr, names))}: each label needs one of its own, such as --label-names A,B."
        )


def check_fractions(values: Iterable[Any], what: str) -> None:
    """Raise on labels that are numbers with fractions, which may be a regression's or names."""
    values = list(values)
    lists = [value for value in values if isinstance(value, (list, tuple))]
    soft = next((it for it in lists if any(isinstance(entry, float) and not entry.is_integer() for entry in it)), None)
    if soft is not None:
        raise ValueError(
            f"{what} holds {soft}: add --problem-type regression if these are numbers to predict; multi label wants names, or 0 "
            "and 1."
        )
    fractions = [value for value in values if not (as_number(value) or 0.0).is_integer()]
    # Among words a fraction that is text is a name, and one that is a number a slip.
    if fractions and (kind_of(values) == _REGRESSION or any(not isinstance(value, str) for value in fractions)):
        raise ValueError(
            f"{what} holds {fractions[0]}: add --problem-type regression if these are numbers to predict, or "
            "--problem-type single_label_classification if they are names."
        )


def check_lists(values: Sequence[Any], what: str) -> None:
    lists = [value for value in values if isinstance(value, (list, tuple))]
    size = len(lists[0]) if lists else 0
    binary = 0 < size < 3 and all(len(value) == size and is_binary(value) for value in lists)
    if binary and not isinstance(lists[0][0], (bool, float)):
        raise ValueError(f"{what} holds lists such as {lists[0]!r}, which {_EITHER}.")


def _check_kind(values: Sequence[Any], rows: Sequence[int], kind: str, what: str) -> None:
    """Raise on lists where one label belongs, and on single values where lists do."""
    several = kind == _MULTI
    odd = next((place for place, it in enumerate(values) if isinstance(it, (list, tuple)) != several), None)
    if odd is not None and kind != _REGRESSION:
        example = ' Multi label needs lists of names, in .jsonl as "label": ["a", "b"].' if several else ""
        raise ValueError(
            f"{what} holds {'single values' if several else 'lists'} such as {values[odd]!r}, in row {rows[odd]}, which does "
            f"not fit --problem-type {kind}.{example}"
        )
    if kind == _SINGLE and values and all(isinstance(it, str) and _LIST_AS_TEXT.fullmatch(it) for it in values):
        raise ValueError(
            f"{what} holds lists as text, such as {values[0]!r}: a table with several labels a row wants .jsonl or "
            '.parquet, as "label": ["a", "b"].'
        )


def named_cells(values: Sequence[Any], feature: Any) -> list[Any]:
    """The cells of a column as they are, but names where its feature is a `ClassLabel`; -1, which is no label, is None."""
    names = _class_names(feature)
    if names is None:
        return list(values)
    spelt = [label_name(name) for name in names]
    names = spelt if len(set(spelt)) == len(names) else names

    def name(value: int | None) -> str | None:
        return None if value is None or value < 0 else names[value]

    return [[name(it) for it in value] if isinstance(value, (list, tuple)) else name(value) for value in values]


def named_rows(rows: Iterable[Mapping[str, Any]], column: str = "label") -> Iterable[Mapping[str, Any]]:
    """Rows as they are, but of a `datasets.Dataset` with the names of a `ClassLabel` in its label column."""
    # Only a `datasets.Dataset` has features and a length: to ask for its class would import much for rows that are none.
    feature = (getattr(rows, "features", None) or {}).get(column) if hasattr(rows, "__len__") else None
    if _class_names(feature) is None:
        return rows
    return _with_column(rows, column, named_cells(rows[column][:], feature), "string", hasattr(feature, "feature"))


def _class_names(feature: Any) -> list[str] | None:
    return getattr(getattr(feature, "feature", feature), "names", None)  # of a list its entries have them


def _with_column(
    table: datasets.Dataset, column: str, values: list[Any], dtype: str, several: bool
) -> datasets.Dataset:
    """The table with other values in its label column."""
    from datasets import Sequence as ListOf
    from datasets import Value

    before = f"{column} (before)"
    feature = ListOf(Value(dtype)) if several else Value(dtype)
    return table.rename_column(column, before).add_column(column, values, feature=feature).remove_columns(before)


def _entries(read: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    if is_multi_hot(values):
        raise ValueError(
            f"its label {values!r} is multi-hot, or has an id twice, and its length is not that of all rows and labels"
        )
    found = list(dict.fromkeys(map(read, values)))
    if None in found:
        raise ValueError(f"its label {values!r} has an empty entry")
    # As text `0` and `1` are names, and a name may stand twice; but so does nobody write two labels.
    if len(found) < len(values) and (not any(isinstance(entry, str) for entry in values) or set(values) <= {"0", "1"}):
        raise ValueError(
            f"its label {values!r} has an id twice, or is multi-hot as text: write numbers, such as [0, 0, 1]"
        )
    return found
