"""Labels as rows give them, by name or id, to what the model takes and to the text that follows the rationale."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .tables import check_columns

if TYPE_CHECKING:
    import datasets

_TEXT = ("string", "large_string")
_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.0+)?")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


class Labels:
    """The labels of a classifier, and how a row's value becomes one of them.

    Example:

    ```python
    >>> from dhrd_hf.data.labels import Labels
    >>> labels = Labels({"no": 0, "yes": 1})
    >>> labels.read("yes"), labels.read(0), labels.text(1)
    (1, 0, 'yes')

    ```

    Args:
        label2id (`Mapping[str, int]`): The labels, numbered from 0.
        problem_type (`str`, *optional*): As in transformers; by default one label is regression, a list of labels is
            multi label, anything else single label.
        column (`str`, *optional*, defaults to `"label"`): Named in errors.

    Raises:
        ValueError: if the labels are not numbered from 0, each once, or there is no such problem type.
    """

    def __init__(self, label2id: Mapping[str, int], problem_type: str | None = None, column: str = "label"):
        if problem_type is not None and problem_type not in PROBLEM_TYPES:
            raise ValueError(f"problem_type={problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}.")
        self.label2id = {name: int(index) for name, index in label2id.items()}
        self.id2label = {index: name for name, index in self.label2id.items()}
        if sorted(self.id2label) != list(range(len(self.label2id))):
            raise ValueError(
                f"label2id={dict(label2id)} must number its labels 0 to {len(self.label2id) - 1}, each once."
            )
        self.problem_type = "regression" if problem_type is None and len(self.label2id) == 1 else problem_type
        self.column = column

    def read(self, value: Any) -> int | float | list[float]:
        """A row's label as the model takes it.

        Args:
            value (`Any`): A name or id; a list of them (multi label); a number or list of numbers (regression).

        Returns:
            `int`, `float` or `list[float]`: an id; for multi label 0.0 or 1.0 for each label; for regression numbers.

        Raises:
            ValueError: if it is missing, unknown, or could be two labels.
        """
        if hasattr(value, "tolist"):
            value = value.tolist()
        if value is None or value == "" or value != value:
            raise ValueError(f"it has no label in column {self.column!r}")
        if self.problem_type == "regression":
            try:
                found = [float(v) for v in value] if isinstance(value, list) else float(value)
            except (TypeError, ValueError):
                found = math.nan
            if any(map(math.isnan, found if isinstance(found, list) else [found])):
                raise ValueError(f"its label {value!r} is not a number (regression)")
            return found
        if isinstance(value, (list, tuple)) and self.problem_type != "single_label_classification":
            chosen = {self._id(entry) for entry in value}
            return [float(index in chosen) for index in range(len(self.label2id))]
        if self.problem_type == "multi_label_classification":
            raise ValueError(f'its label {value!r} is no list: multi label wants ["a", "b"], and [] for none')
        return self._id(value)

    def read_all(self, values: Sequence[Any]) -> list[int | float | list[float]]:
        """The labels of a column.

        Args:
            values (`Sequence[Any]`): A value a row.

        Returns:
            `list`: what [`~Labels.read`] gives for each.

        Raises:
            ValueError: as [`~Labels.read`], with the row's number.
        """
        found = []
        for index, value in enumerate(values):
            try:
                found.append(self.read(value))
            except ValueError as error:
                raise ValueError(f"Row {index}: {error}.") from None
        return found

    def text(self, label: int | float | list[float]) -> str:
        """A label as the text y of the suffix.

        Args:
            label (`int`, `float` or `list[float]`): What [`~Labels.read`] gave.

        Returns:
            `str`: the name; for multi label the names, or `none`; for regression the number.
        """
        if self.problem_type == "regression":
            return ", ".join(f"{v:g}" for v in label) if isinstance(label, list) else f"{label:g}"
        if isinstance(label, list):
            return ", ".join(self.id2label[index] for index, chosen in enumerate(label) if chosen) or "none"
        return self.id2label[label]

    def longest_texts(self) -> list[str]:
        """Texts of which one is at least as long as any that [`~Labels.text`] gives.

        Returns:
            `list[str]`: the texts.
        """
        if self.problem_type == "regression":
            return [", ".join([f"{-1.23456e-05:g}"] * len(self.label2id))]
        if self.problem_type == "multi_label_classification":
            return [", ".join(self.label2id), "none"]
        return list(self.label2id)

    def _id(self, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        spellings = [value, str(value), *([str(value).lower()] if isinstance(value, bool) else [])]
        named = next((self.label2id[s] for s in spellings if isinstance(s, str) and s in self.label2id), None)
        numbered = value if type(value) is int and value in self.id2label else None
        if named is not None and numbered is not None and named != numbered:
            raise ValueError(
                f"its label {value} is the name of label {named} and the id of label {self.id2label[numbered]!r}; "
                "write names as text, or use `encode_dataset`, which reads the whole column"
            )
        if named is not None or numbered is not None:
            return numbered if named is None else named
        names = ", ".join(repr(self.id2label[index]) for index in sorted(self.id2label))
        if type(value) is int:
            raise ValueError(f"its label id {value} is out of range: there are {len(self.label2id)} labels, {names}")
        close = difflib.get_close_matches(str(value), self.label2id, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"its label {value!r} is unknown{hint}; the labels are {names}")


def with_label_names(
    table: datasets.Dataset, column: str, label2id: Mapping[str, int] | None = None
) -> datasets.Dataset:
    """The table with names in its label column, where it holds ids of a `ClassLabel` or names written as numbers.

    Text such as "1" beside "2.0", as [`~dhrd_hf.data.tables.load_table`] has whole numbers that were written in two ways,
    becomes whole numbers first.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from dhrd_hf.data.labels import with_label_names
    >>> stars = Dataset.from_dict({"label": [1, 5, 3]})
    >>> with_label_names(stars, "label", label2id={"1": 0, "3": 1, "5": 2})["label"][:]
    ['1', '5', '3']

    ```

    Args:
        table (`datasets.Dataset`): The table.
        column (`str`): The column of the labels.
        label2id (`Mapping[str, int]`, *optional*): Numbers that are all among these names become text.

    Returns:
        `datasets.Dataset`: the table; a `ClassLabel` of -1, which means "no label", is None.

    Raises:
        TableError: if there is no such column.
    """
    from datasets import ClassLabel

    check_columns(table.column_names, [column])
    feature = table.features[column]
    inner = getattr(feature, "feature", None)  # of a list
    if isinstance(feature, ClassLabel):
        names = [feature.names[value] if value is not None and value >= 0 else None for value in table[column]]
    elif isinstance(inner, ClassLabel):
        names = [None if values is None else [inner.names[value] for value in values] for values in table[column]]
    else:
        numbers = _whole_numbers(table, column, label2id)
        if numbers is None:
            return table
        names = [None if value is None else str(value) for value in numbers]
        if label2id is None or not set(names) <= {*label2id, None}:
            if feature.dtype not in _TEXT:
                return table
            names = numbers
    ids = f"{column} (ids)"
    return table.rename_column(column, ids).add_column(column, names).remove_columns(ids)


def _whole_numbers(
    table: datasets.Dataset, column: str, label2id: Mapping[str, int] | None
) -> list[int | None] | None:
    """The labels of a column if they are whole numbers, as a table has them; None where they are anything else."""
    dtype = getattr(table.features[column], "dtype", "")
    if dtype in _TEXT:
        given = [value for value in table[column] if value is not None]
        # Of one spelling they are names as they stand, such as versions.
        two_spellings = len({"." in value for value in given}) == 2 and all(map(_WHOLE.fullmatch, given))
        if not two_spellings or (label2id is not None and set(given) <= set(label2id)):
            return None
        return [None if value is None else int(value.partition(".")[0]) for value in table[column]]
    if label2id is None or not dtype.startswith(("int", "uint", "float")):
        return None
    values = [None if value is None or value != value else value for value in table[column]]
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        return None
    return [None if value is None else int(value) for value in values]
