"""What the cells of a label column are called."""

from __future__ import annotations

from typing import Any


def label_names(value: Any) -> list[str]:
    """The names in a label, as `dhrd train` reads them: one, or several of a list (multi label).

    Example:

    ```python
    >>> from dhrd_hf.rationales.label_names import label_names
    >>> label_names("wet"), label_names(["wet", "cold"]), label_names(2.0), label_names(None)
    (['wet'], ['wet', 'cold'], ['2'], [])

    ```

    Args:
        value (`Any`): Of the label column.

    Returns:
        `list[str]`: empty where there is no label.
    """
    entries = value if isinstance(value, (list, tuple)) else [value]
    return [
        str(int(it)) if isinstance(it, float) and it.is_integer() else str(it) for it in entries if not is_missing(it)
    ]


def is_missing(value: Any) -> bool:
    """Whether a cell holds no label.

    Example:

    ```python
    >>> from dhrd_hf.rationales.label_names import is_missing
    >>> is_missing(""), is_missing([])
    (True, False)

    ```

    Args:
        value (`Any`): Of the label column.

    Returns:
        `bool`: for None, NaN and empty text.
    """
    return value is None or value != value or value == ""
