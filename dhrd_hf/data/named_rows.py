"""The rows of a table as often as they are wanted, with names for labels that are ids of a `ClassLabel`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .labels import with_label_names
from .tables import FILE_NAME, iter_rows, load_table


class NamedRows:
    """A table's rows, streamed in order as often as they are wanted, with the labels' names.

    A text file says what its labels are called; a saved folder, a Parquet file and a Hub data set may hold ids, and the
    names beside them. Standard input is held in memory.

    Example:

    ```python
    >>> import os, tempfile
    >>> from datasets import ClassLabel, Dataset
    >>> from dhrd_hf.data.named_rows import NamedRows
    >>> os.chdir(tempfile.mkdtemp())
    >>> rows = Dataset.from_dict({"label": [1, 0]}).cast_column("label", ClassLabel(names=["dry", "wet"]))
    >>> _ = rows.to_parquet("rows.parquet")
    >>> [row["label"] for row in NamedRows("rows.parquet")]
    ['wet', 'dry']

    ```

    Args:
        source (`str` or `Path`): As for [`~dhrd_hf.data.tables.iter_rows`].
        label_column (`str`, *optional*, defaults to `"label"`): Where the labels are, if there are any.

    Raises:
        TableError: if the table can't be read.
    """

    def __init__(self, source: str | Path, label_column: str = "label"):
        self._source, self._rows = source, None
        file = FILE_NAME.search(str(source))
        if str(source) == "-":
            self._rows = list(iter_rows(source))
        elif file is None or file[1] is None or Path(source).expanduser().is_dir():
            self._rows = with_names(load_table(source), label_column)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter_rows(self._source) if self._rows is None else iter(self._rows)


def with_names(rows: Iterable[Mapping[str, Any]], label_column: str = "label") -> Iterable[Mapping[str, Any]]:
    """Rows as they are, but of a `datasets.Dataset` with the names of its labels.

    Example:

    ```python
    >>> from datasets import ClassLabel, Dataset
    >>> from dhrd_hf.data.named_rows import with_names
    >>> rows = Dataset.from_dict({"label": [1]}).cast_column("label", ClassLabel(names=["dry", "wet"]))
    >>> with_names(rows)[0], with_names([{"label": 1}])[0]
    ({'label': 'wet'}, {'label': 1})

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): The rows.
        label_column (`str`, *optional*, defaults to `"label"`): As for [`NamedRows`].

    Returns:
        `Iterable[Mapping[str, Any]]`: the rows, of the same type.
    """
    # Only a `datasets.Dataset` has features and a length: to ask for its class would import much for rows that are none.
    has_features = hasattr(rows, "__len__") and label_column in (getattr(rows, "features", None) or ())
    return with_label_names(rows, label_column) if has_features else rows
