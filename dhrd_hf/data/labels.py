"""Label columns: what a cell's label is called, what labels a column has, and of what kind they are.

Every command and every Python way in reads labels here, so that a value has one name wherever it is read.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from .prompts import as_text
from .tables import FILE_NAME, check_columns, iter_rows, load_table

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig

logger = logging.get_logger(__name__)

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
_SINGLE, _MULTI, _REGRESSION = PROBLEM_TYPES
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d{0,17}))(?:\.0+)?")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_NO_ANSWER = {"n/a", "na", "#n/a", "<na>", "none", "nan", "null", "nil"}
_SHOWN = 5


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, NaN, or text of nothing but blanks."""
    if isinstance(value, str):
        return not value.strip()
    value = _plain(value)
    return value is None or (isinstance(value, float) and value != value)


def label_name(value: Any) -> str | None:
    """What one label is called, however it is written: true is `true`, " yes" is `yes`, 1.0 and "1.0" are `1`."""
    if is_missing(value):
        return None
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = as_text(value, "its label").strip()
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else text


def label_names(value: Any) -> list[str]:
    """The names in a cell, none where it is empty: one, or those of a list; of multi-hot rows the places of the ones."""
    value = _plain(value)
    if not isinstance(value, (list, tuple)):
        return [] if is_missing(value) else [label_name(value)]
    if _is_multi_hot(value):
        return [str(place) for place, chosen in enumerate(value) if chosen]
    return [name for name in map(label_name, value) if name is not None]


def kind_of(values: Iterable[Any]) -> str:
    """The problem type of labels: regression where all are numbers and some have fractions."""
    values = list(values)
    if any(isinstance(value, (list, tuple)) for value in values):
        return _MULTI
    numbers = [_number(value) for value in values]
    return _SINGLE if None in numbers or all(map(float.is_integer, numbers)) else _REGRESSION


def sorted_names(names: Iterable[str]) -> list[str]:
    """Labels in the order of their ids: numbers by their value, other names as text."""
    found = set(names)
    numbers = all(map(_NUMBER.fullmatch, found))
    return sorted(found, key=lambda name: (float(name), name)) if numbers else sorted(found)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case or blanks alone."""
    spellings = defaultdict(list)
    for name in names:
        spellings["".join(name.split()).casefold()].append(name)
    return [its for its in spellings.values() if len(its) > 1]


class Labels:
    """The labels of a classifier, and how a row's value becomes one of them.

    Example:

    ```python
    >>> from dhrd_hf.data.labels import Labels
    >>> labels = Labels({"no": 0, "yes": 1})
    >>> labels.read(" yes"), labels.read(0), labels.text(1)
    (1, 0, 'yes')

    ```

    Args:
        label2id (`Mapping[str, int]`): The labels, numbered from 0.
        problem_type (`str`, *optional*): As in transformers; by default one label is regression, a list of labels is
            multi label, anything else single label.
        column (`str`, *optional*, defaults to `"label"`): Named in errors.
        counts (`Counter[str]`, *optional*): Rows of each label, where a column was read.

    Raises:
        ValueError: if the labels are not numbered from 0, each once, or there is no such problem type.
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
        spellings = Counter(map(label_name, self.label2id))
        self._spelt = {label_name(name): index for name, index in self.label2id.items()}
        self._spelt = {name: index for name, index in self._spelt.items() if spellings[name] == 1}

    @classmethod
    def of(cls, config: PreTrainedConfig, column: str = "label") -> Labels:
        """Those of a model."""
        return cls(config.label2id, config.problem_type, column)

    @property
    def names(self) -> list[str]:
        return [self.id2label[index] for index in range(len(self.id2label))]

    def read(self, value: Any) -> int | float | list[float]:
        """A row's label as the model takes it: an id, for multi label 0.0 or 1.0 for each label, for regression numbers.

        Raises:
            ValueError: if it is missing, unknown, or could be two labels.
        """
        value = _plain(value)
        if is_missing(value):
            raise ValueError(f"it has no label in column {self.column!r}")
        several = isinstance(value, (list, tuple))
        if self.problem_type == _REGRESSION:
            return self._numbers(value)
        if several and self.problem_type != _SINGLE:
            chosen = self._chosen(value)
            return [float(index in chosen) for index in range(len(self.label2id))]
        if self.problem_type == _MULTI:
            raise ValueError(f'its label {value!r} is no list: multi label wants ["a", "b"], and [] for none')
        return self._id(value)

    def read_all(self, values: Sequence[Any]) -> list[int | float | list[float]]:
        """The labels of a column, as [`~Labels.read`]; an error names the row."""
        return list(_by_row(self.read, values))

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
        if self.problem_type == _MULTI:
            return [", ".join(self.label2id), "none"]
        return list(self.label2id)

    def check(self, other: Labels, where: str, ours: str) -> None:
        """Raise where another table has labels that are not here."""
        unknown = sorted_names(name for name in other.counts if name not in self.label2id)
        if unknown:
            raise ValueError(
                f"{where} has labels that {ours} lacks: {', '.join(map(repr, unknown[:_SHOWN]))}. "
                f"The labels there are {', '.join(map(repr, self.names[:20]))}."
            )

    def class_weights(self, text: str | None) -> list[float] | None:
        """Numbers with commas between them, or `balanced`, scikit-learn's rule: rows / (labels * rows of the label)."""
        if text is not None and self.problem_type == _REGRESSION:
            raise ValueError("--class-weights is for classes, and this is regression: leave it out.")
        if text != "balanced":
            try:
                return None if text is None else [float(part) for part in text.split(",")]
            except ValueError:
                raise ValueError(f"--class-weights {text!r} must be 'balanced' or numbers such as 1,2.5,1.") from None
        if self.problem_type != _SINGLE:
            raise ValueError("--class-weights balanced is for a single label a row. Give a number for each label.")
        absent = [name for name in self.names if self.counts[name] == 0]
        if absent:
            raise ValueError(
                f"--class-weights balanced: no training row has the label {absent[0]!r}. Give numbers instead."
            )
        return [self.counts.total() / (len(self.names) * self.counts[name]) for name in self.names]

    def __str__(self) -> str:
        if self.problem_type == _REGRESSION:
            return "numbers (regression)"
        counted = ", ".join(f"{name} {self.counts[name]}" for name in self.names[:20])
        return counted + (f", ... ({len(self.names)} labels)" if len(self.names) > 20 else "")

    def _numbers(self, value: Any) -> float | list[float]:
        several = isinstance(value, (list, tuple))
        found = [_number(entry) for entry in (value if several else [value])]
        if any(number is None or not math.isfinite(number) for number in found):
            raise ValueError(f"its label {value!r} is not a number (regression)")
        if len(found) != len(self.label2id):
            raise ValueError(f"its label {value!r} is of {len(found)} numbers, and there are {len(self.label2id)}")
        return found if several else found[0]

    def _chosen(self, values: Sequence[Any]) -> set[int]:
        """The ids of a list of names or ids, or of multi-hot values."""
        count = len(self.label2id)
        if _is_multi_hot(values) or (len(values) == count and _is_binary(values)):
            if len(values) != count:
                raise ValueError(f"its label {values!r} is multi-hot of {len(values)} labels, and there are {count}")
            if not _is_multi_hot(values):
                raise ValueError(
                    f"its label {values!r} {_EITHER}, or use encode_dataset, which reads the whole column"
                )
            return {index for index, chosen in enumerate(values) if chosen}
        ids = [self._id(entry) for entry in values]
        if len(set(ids)) < len(ids) and not any(isinstance(entry, str) for entry in values):
            raise ValueError(f"its label {values!r} has an id twice")
        return set(ids)

    def _id(self, value: Any) -> int:
        name = label_name(value)
        if name is None:
            raise ValueError(f"its label {value!r} is empty")
        named = self._named(value, name)
        numbered = int(name) if _WHOLE.fullmatch(name) and int(name) in self.id2label else None
        if isinstance(value, str) and (named is not None or any(map(_WHOLE.fullmatch, self._spelt))):
            numbered = None  # as text a number is a name, unless no label has a number for a name
        if named is not None and numbered is not None and named != numbered:
            raise ValueError(
                f"its label {value} is the name of label {named} and the id of label {self.id2label[numbered]!r}; "
                "write names as text, or use `encode_dataset`, which reads the whole column"
            )
        if named is not None or numbered is not None:
            return numbered if named is None else named
        names = ", ".join(map(repr, self.names[:20])) + (", ..." if len(self.names) > 20 else "")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError(f"its label id {value} is out of range: there are {len(self.label2id)} labels, {names}")
        close = difflib.get_close_matches(name, self.label2id, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"its label {value!r} is unknown{hint}; the labels are {names}")

    def _named(self, value: Any, name: str) -> int | None:
        # A label's own spelling comes first; `True` is what models trained by dhrd_hf 0.1 call true.
        for spelling in (value, name, str(value)):
            if isinstance(spelling, str) and spelling in self.label2id:
                return self.label2id[spelling]
        return self._spelt.get(name)


def read_labels(
    table: datasets.Dataset,
    column: str = "label",
    problem_type: str | None = None,
    *,
    known: Labels | Sequence[str] | None = None,
    drop_unlabelled: bool = False,
    where: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[datasets.Dataset, Labels]:
    """The labels of a table, and the table with their names in its label column.

    Blanks around names are cut off, and a whole number has one name however it is written; true and false are `true` and
    `false`, and a `ClassLabel` has its names. Lists of names are multi label. So are rows of 0 and 1, all of one length:
    multi-hot, unless they could as well be lists of ids.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from dhrd_hf.data.labels import read_labels
    >>> table, labels = read_labels(Dataset.from_dict({"label": [2.0, 1.0, 2.0]}))
    >>> table["label"][:], labels.label2id, labels.problem_type
    (['2', '1', '2'], {'1': 0, '2': 1}, 'single_label_classification')

    ```

    Args:
        table (`datasets.Dataset`): The rows.
        column (`str`, *optional*, defaults to `"label"`): The column of the labels.
        problem_type (`str`, *optional*): As in transformers; by default that of the known labels, else as the values are.
        known ([`Labels`] or `Sequence[str]`, *optional*): Those of a model, or their names in the order of their ids: the
            column must hold them, or their ids. Numbers that are all among the names are names.
        drop_unlabelled (`bool`, *optional*, defaults to `False`): Leave out rows with an empty label.
        where (`str` or `Path`, *optional*): What the table is called in messages.
        say (`Callable[[str], None]`, *optional*): Is told what was cut off or left out, and of names that may be a slip; by
            default it is logged.

    Returns:
        `tuple[datasets.Dataset, Labels]`: the table, with names, lists of names or numbers in its label column; and its
        labels, with their counts: those known, else those found, numbers by their value and other names as text.

    Raises:
        ValueError: if there is no such column, a row has no label (and is not to be left out) or one that is unknown or no
            label, numbers have fractions and no problem type says what they are, or rows could be multi-hot or ids.
    """
    say = say or logger.warning
    what = f"{'' if where is None else f'{where}, '}column {column!r}"
    check_columns(table.column_names, [column])
    given = table.with_format(None)[column][:]
    values = named_cells(given, table.features[column])
    lacking = [row for row, value in enumerate(values) if is_missing(value)]
    check_missing(lacking, len(values), what, drop_unlabelled, say)
    rows = range(len(values))
    if lacking:
        rows = sorted(set(rows).difference(lacking))
        values = [values[row] for row in rows]

    def replaced(named: list[Any], dtype: str = "string") -> datasets.Dataset:
        at = dict(zip(rows, named, strict=True))
        cells = [at.get(row) for row in range(len(given))]
        changed = table if cells == given else _with_column(table, column, cells, dtype, isinstance(named[0], list))
        return changed.select(rows) if lacking else changed

    if known is not None and not isinstance(known, Labels):
        known = Labels({name: place for place, name in enumerate(known)}, problem_type, column)
    kind = problem_type or (known.problem_type if known is not None else None)
    if kind is None:
        kind = kind_of(values)
        if kind == _REGRESSION and known is None:
            check_fractions(values, what)
        kind = _SINGLE if kind == _REGRESSION else kind
    if known is not None and known.problem_type not in (None, kind):
        raise ValueError(f"{what} is read as {kind}, and the labels are of {known.problem_type}.")
    _check_kind(values, rows, kind, what)
    if kind == _REGRESSION:
        size = len(values[0]) if isinstance(values[0], (list, tuple)) else 1
        names = [column] if size == 1 else [f"{column} {place}" for place in range(size)]
        labels = Labels({n: i for i, n in enumerate(names)} if known is None else known.label2id, kind, column)
        named = list(_by_row(labels.read, values, rows, where))
        return replaced(named if isinstance(values[0], str) else values, "float64"), labels

    if kind == _MULTI:
        named, names = _named_lists(values, rows, known, what, where)
    else:
        named, names = _named_singly(values, rows, known, where), None
    counts = Counter(name for entry in named for name in (entry if kind == _MULTI else (entry,)))
    tell_odd(values, counts if known is None else (), what, say)
    if known is None:
        names = sorted_names(counts) if names is None else names
        known = Labels({name: place for place, name in enumerate(names)}, kind, column)
    labels = Labels(known.label2id, kind, column, counts)
    return replaced(named), labels


def check_fractions(values: Iterable[Any], what: str) -> None:
    """Raise on labels that are numbers with fractions, which may be a regression's or names."""
    values = list(values)
    fractions = [value for value in values if not (_number(value) or 0.0).is_integer()]
    # Among words a fraction that is text is a name, and one that is a number a slip.
    if kind_of(values) == _REGRESSION or any(isinstance(value, float) for value in fractions):
        first = fractions[0]
        raise ValueError(
            f"{what} holds {first}: add --problem-type regression if these are numbers to predict, or --problem-type "
            "single_label_classification if they are names."
        )


def check_lists(values: Sequence[Any], what: str) -> None:
    """Raise on rows of 0 and 1 that could be ids of two labels, or multi-hot."""
    lists = [value for value in values if isinstance(value, (list, tuple))]
    size = len(lists[0]) if lists else 0
    alike = 0 < size < 3 and all(len(value) == size and _is_binary(value) for value in lists)
    if alike and not isinstance(lists[0][0], (bool, float)):
        raise ValueError(f"{what} holds lists such as {lists[0]!r}, which {_EITHER}.")


def named_cells(values: Sequence[Any], feature: Any) -> list[Any]:
    """The cells of a column as they are, but names where its feature is a `ClassLabel`; -1, which is no label, is None."""
    inner = getattr(feature, "feature", None)  # of a list
    names = getattr(feature if inner is None else inner, "names", None)
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
    inner = getattr(feature, "feature", None) if feature is not None else None
    if not hasattr(feature if inner is None else inner, "names"):
        return rows
    return _with_column(rows, column, named_cells(rows[column][:], feature), "string", several=inner is not None)


class NamedRows:
    """A table's rows, streamed in order as often as they are wanted, with the names of a `ClassLabel`.

    A text file says what its labels are called; a saved folder, a Parquet file and a Hub data set may hold ids, and the
    names beside them. Standard input is held in memory.
    """

    def __init__(self, source: str | Path, label_column: str = "label"):
        self._source, self._rows = source, None
        file = FILE_NAME.search(str(source))
        if str(source) == "-":
            self._rows = list(iter_rows(source))
        elif file is None or file[1] is None or Path(source).expanduser().is_dir():
            self._rows = named_rows(load_table(source), label_column)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter_rows(self._source) if self._rows is None else iter(self._rows)


_EITHER = (
    'could be ids or, multi-hot, the labels of the ones. Say which: for ids write names, as text, such as ["0", "1"]; '
    "for multi-hot name the labels (--label-names A,B of dhrd train), or write true and false"
)


def _plain(value: Any) -> Any:
    """A value of NumPy or torch as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _number(value: Any) -> float | None:
    """A label as a number, if it is one, or text that is one."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_binary(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(entry, (int, float)) and entry in (0, 1) for entry in values)


def _is_multi_hot(values: Sequence[Any]) -> bool:
    """Whether a list can't be of ids: of 0 and 1 with one of them twice, or of true and false, or of 0.0 and 1.0."""
    if not _is_binary(values):
        return False
    return len(set(values)) < len(values) or isinstance(values[0], (bool, float))


def _by_row(
    read: Callable[[Any], Any], values: Sequence[Any], rows: Sequence[int] | None = None, where: Any = None
) -> Iterator[Any]:
    """What is read of each value; an error names the row, by its number in the table."""
    for place, value in enumerate(values):
        try:
            yield read(value)
        except ValueError as error:
            row = place if rows is None else rows[place]
            raise ValueError(f"Row {row}{'' if where is None else f' of {where}'}: {error}.") from None


def check_missing(
    lacking: Sequence[int], rows: int, what: str, drop: bool, say: Callable[[str], None] | None = None
) -> None:
    """Tell of rows without a label; raise where they are not to be left out, or are all."""
    if not lacking:
        return
    some = ", ".join(map(str, lacking[:_SHOWN])) + (", ..." if len(lacking) > _SHOWN else "")
    said = f"{len(lacking)} of {rows} rows have no label: {some} (numbered from 0)"
    if not drop:
        raise ValueError(
            f"Row {lacking[0]}: it has no label, in {what}. {said}. Fill them in, or leave them out: --drop-unlabelled (in "
            "Python drop_unlabelled=True)."
        )
    said = f"{what}: {said}"
    if len(lacking) == rows:
        raise ValueError(f"{said}: none is left.")
    (say or logger.warning)(f"{said}, left out.")


def _check_kind(values: Sequence[Any], rows: Sequence[int], kind: str, what: str) -> None:
    """Raise on lists where one label belongs, and on single values where lists do."""
    several = kind == _MULTI
    odd = next((place for place, it in enumerate(values) if isinstance(it, (list, tuple)) != several), None)
    if odd is not None and kind != _REGRESSION:
        example = ' Multi label needs lists of names, in .jsonl as "label": ["a", "b"].' if several else ""
        raise ValueError(
            f"{what} holds {'single values' if several else 'lists'} such as {values[odd]!r}, in row {rows[odd]}, which does not fit "
            f"--problem-type {kind}.{example}"
        )
    if kind == _SINGLE and all(isinstance(value, str) and _is_list(value) for value in values):
        raise ValueError(
            f"{what} holds lists as text, such as {values[0]!r}: a table with several labels a row wants .jsonl or "
            '.parquet, as "label": ["a", "b"].'
        )


def _is_list(text: str) -> bool:
    if not text.startswith("["):
        return False
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _named_singly(values: list[Any], rows: Sequence[int], known: Labels | None, where: Any) -> list[str]:
    """A name for each value."""
    named = list(_by_row(_once(label_name), values, rows, where))
    if known is None:
        return named
    spelt = {name: known._named(name, name) for name in set(named)}
    if None not in spelt.values() and not isinstance(values[0], (str, bool)):
        return [known.id2label[spelt[name]] for name in named]
    return [known.id2label[index] for index in _by_row(_once(known._id), values, rows, where)]


def _named_lists(
    values: list[Any], rows: Sequence[int], known: Labels | None, what: str, where: Any
) -> tuple[list[list[str]], list[str] | None]:
    """The names in each list, and all names where the lists are multi-hot."""
    size = len(values[0])
    if all(len(value) == size and _is_binary(value) for value in values):
        if known is None:
            check_lists(values, what)
        if known is None or size == len(known.names):
            names = [str(place) for place in range(size)] if known is None else known.names
            return [[name for name, it in zip(names, value, strict=True) if it] for value in values], names
    entries = [entry for value in values for entry in value]
    numbers = not any(isinstance(entry, str) for entry in entries)
    is_name = known is not None and numbers and known.label2id.keys() >= set(map(label_name, entries))
    name = _once(label_name if known is None or is_name else lambda entry: known.id2label[known._id(entry)])

    def named(value: Sequence[Any]) -> list[str]:
        if _is_multi_hot(value):
            raise ValueError(
                f"its label {value!r} is multi-hot, or has an id twice, and the rows are not all of one length"
            )
        found = list(dict.fromkeys(name(entry) for entry in value))
        if None in found or (numbers and len(found) < len(value)):
            raise ValueError(f"its label {value!r} has {'an empty entry' if None in found else 'an id twice'}")
        return found

    return list(_by_row(named, values, rows, where)), None


def _once(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, but of each value read once: 1, 1.0 and true are one key of a dictionary, and three values."""
    found: dict[Any, Any] = {}

    def once(value: Any) -> Any:
        if not isinstance(value, (str, int, float)):
            return read(value)
        key = (type(value), value)
        if key not in found:
            found[key] = read(value)
        return found[key]

    return once


def tell_odd(values: Iterable[Any], names: Iterable[str], what: str, say: Callable[[str], None]) -> None:
    """Tell how many labels had blanks around them, and, in one line, which names may be slips."""
    entries = (entry for value in values for entry in (value if isinstance(value, (list, tuple)) else (value,)))
    count = sum(isinstance(entry, str) and entry != entry.strip() for entry in entries)
    if count:
        say(f"{what}: {count} labels had blanks around them, which were cut off.")
    names = sorted_names(names)
    empty = [name for name in names if name.casefold() in _NO_ANSWER]
    said = (
        [f"{', '.join(map(repr, empty))} {'is a label' if len(empty) == 1 else 'are labels'} like any other"]
        if empty
        else []
    )
    for its in alike(names)[:_SHOWN]:
        how = "case" if len({name.casefold() for name in its}) == 1 else "case or blanks"
        said.append(f"{' and '.join(map(repr, its))} differ in {how} alone, and are {len(its)} labels")
    if said:
        say(f"{what}: {'; '.join(said)}. Where that is a slip, mend the cells.")


def _with_column(
    table: datasets.Dataset, column: str, values: list[Any], dtype: str, several: bool
) -> datasets.Dataset:
    """The table with other values in its label column."""
    from datasets import Sequence as ListOf
    from datasets import Value

    before = f"{column} (before)"
    feature = ListOf(Value(dtype)) if several else Value(dtype)
    return table.rename_column(column, before).add_column(column, values, feature=feature).remove_columns(before)
