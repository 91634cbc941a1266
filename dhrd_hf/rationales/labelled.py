"""A table whose rows are to get rationales: its labels' names, its keys, and its rows as a stream, as often as needed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import logging

from ..data.joining import NamedRows, key_column
from ..data.label_names import check_missing, is_missing, label_name, tell_odd
from ..data.labels import check_fractions
from ..data.prompts import DEFAULT_PROMPT, template_columns
from ..data.tables import check_columns

logger = logging.get_logger(__name__)
_NUMBER = re.compile(r"-?\d+")
_MOST_LABELS = 1000


class LabelledRow(NamedTuple):
    """A row, with what it is called and the name of its label."""

    key: Any
    row: dict[str, Any]
    label: str


class LabelledTable:
    """A table with labels that a teacher can be told.

    It is read once to learn the labels and to find what is wrong before anything is paid for, and streamed thereafter.

    Example:

    ```python
    >>> import os, tempfile
    >>> from dhrd_hf.data.table_writing import write_rows
    >>> from dhrd_hf.rationales.labelled import LabelledTable
    >>> os.chdir(tempfile.mkdtemp())
    >>> write_rows("rows.jsonl", [{"text": "It rains.", "label": 1}, {"text": "It is noon.", "label": 0}])
    2
    >>> table = LabelledTable("rows.jsonl", label_map={"1": "wet", "0": "dry"})
    >>> table.labels, [row.label for row in table]
    (['wet', 'dry'], ['wet', 'dry'])

    ```

    Args:
        source (`str` or `Path`): A table, but for standard input: it is read more than once.
        template (`str`, *optional*, defaults to `"{text}"`): The input over the columns.
        label_column (`str`, *optional*, defaults to `"label"`): The column of the labels.
        id_column (`str`, *optional*): The column of the keys; by default the first of `id`, `key` and `idx`, else a row's
            number from 0.
        label_map (`Mapping[str, str | Sequence[str]]`, *optional*): Names for the values of the label column; of several
            the first is told to the teacher, and the others are taken for it in an answer. Other values keep theirs if
            they are text.
        rationale_column (`str`, *optional*, defaults to `"rationale"`): Where the rationales will go.
        keeps_rationales (`bool`, *optional*, defaults to `False`): The rationales in that column are what is wanted.
        problem_type (`str`, *optional*): `"single_label_classification"` where numbers with fractions are names.
        drop_unlabelled (`bool`, *optional*, defaults to `False`): Leave out rows without a label; `dropped` counts them.
        say (`Callable[[str], None]`, *optional*): Is told of those, and of names that may be a slip; by default it is logged.

    Raises:
        ValueError: if a column is missing, or a row's label can't be named.
    """

    def __init__(
        self,
        source: str | Path,
        template: str = DEFAULT_PROMPT,
        *,
        label_column: str = "label",
        id_column: str | None = None,
        label_map: Mapping[str, str | Sequence[str]] | None = None,
        rationale_column: str = "rationale",
        keeps_rationales: bool = False,
        problem_type: str | None = None,
        drop_unlabelled: bool = False,
        say: Callable[[str], None] = logger.warning,
    ):
        if str(source) == "-":
            raise ValueError("--data - can't be read more than once: write the rows to a file and name it")
        if problem_type not in (None, "single_label_classification"):
            raise ValueError(f"a rationale explains one label a row, which problem_type: {problem_type} has not")
        self.source, self.label_column, self.rationale_column = source, label_column, rationale_column
        self.names: dict[str, str] = {}
        self.spellings: dict[str, list[str]] = {}
        for value, spelt in (label_map or {}).items():
            name, *others = [spelt] if isinstance(spelt, str) else spelt
            self.names[label_name(value) or str(value)] = name
            self.spellings.setdefault(name, []).extend(others)
        self.counts: Counter[str] = Counter()
        self._rows = NamedRows(source, label_column)
        what = f"column {label_column!r}"
        columns, filled, cells, lacking = {}, 0, [], []
        for number, row in enumerate(self._rows):
            if number == 0:
                check_columns(row, [*template_columns(template), label_column, *filter(None, [id_column])])
            columns.update(dict.fromkeys(row))
            value = row.get(label_column)
            if is_missing(value):
                lacking.append(number)
                continue
            try:
                self.counts[self._name(value)] += 1
            except ValueError as error:
                raise ValueError(
                    f"the teacher prompt can't name the labels in {what}: row {number}: {error}"
                ) from None
            if len(self.counts) > _MOST_LABELS:
                raise ValueError(f"{what} has more than {_MOST_LABELS} labels: name the right one by --label-column")
            cells.append(value)
            filled += bool(row.get(rationale_column))
        where, self.dropped = f"{source}, {what}", len(lacking)
        check_missing(lacking, len(lacking) + len(self), where, drop_unlabelled, say)
        unnamed = [value for value in dict.fromkeys(cells) if label_name(value) not in self.names]
        try:
            check_fractions(() if problem_type else unnamed, where)
        except ValueError as error:
            raise ValueError(
                f"{str(error).partition(': add --')[0]}: name them by --label-map, or, if these are their names, add "
                "--settings 'problem_type: single_label_classification'"
            ) from None
        tell_odd(cells, self.counts, where, say)
        given = {*self.names.values()}
        if some := sorted((it for it in self.counts if _NUMBER.fullmatch(it) and it not in given), key=float):
            example = ", ".join(f'"{it}": "..."' for it in some[:3])
            raise ValueError(
                f"the teacher prompt can't name the labels in {what}: {', '.join(some[:5])} "
                f"{'are numbers' if len(some) > 1 else 'is a number'}, which tells a teacher nothing. Name them: "
                f"--label-map '{{{example}}}'"
            )
        if filled and not keeps_rationales:
            raise ValueError(
                f"{filled} of {len(self)} rows have a rationale in column {rationale_column!r} already. To check "
                f"those: --teacher column:{rationale_column}. To write others: --settings 'rationale_column: NAME'"
            )
        self.columns, self.id_column = list(columns), id_column or key_column(columns)

    def __iter__(self) -> Iterator[LabelledRow]:
        for number, row in enumerate(self._rows):
            value = row.get(self.label_column)
            if not is_missing(value):
                key = number if self.id_column is None or row.get(self.id_column) is None else row[self.id_column]
                yield LabelledRow(key, row, self._name(value))

    def __len__(self) -> int:
        return self.counts.total()

    @property
    def labels(self) -> list[str]:
        """The labels' names: those of the label map, then the others in order."""
        return list(dict.fromkeys([*self.names.values(), *sorted(self.counts)]))

    def _name(self, value: Any) -> str:
        if isinstance(value, (list, tuple)):
            raise ValueError(f"{value!r} are several; a rationale explains one, so give each its own row")
        name = label_name(value)
        return self.names.get(name, name)
