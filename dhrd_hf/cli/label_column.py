"""What the label column of a table of `dhrd train` holds, and the weights of its classes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets

    from .arguments import TrainArguments

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass
class Labels:
    """What the label column of a table holds.

    Args:
        problem_type (`str`): transformers' name for the kind of labels.
        names (`list[str]`): The labels in the order of their ids; of a regression the column's name.
        counts (`Counter[str]`): Rows of each label; empty of a regression.
    """

    problem_type: str
    names: list[str]
    counts: Counter[str]

    def check(self, other: Labels, where: str, ours: str) -> None:
        """Raise where another table has labels that are not here.

        Args:
            other ([`Labels`]): Of the other table.
            where (`str`), ours (`str`): What the two are called.

        Raises:
            ValueError: as said.
        """
        if self.problem_type == "regression":
            return
        if other.problem_type != self.problem_type:
            raise ValueError(f"{where} is {other.problem_type}, and {ours} is {self.problem_type}.")
        unknown = [name for name in other.counts if name not in self.names]
        if unknown:
            raise ValueError(
                f"{where} has labels that {ours} lacks: {', '.join(map(repr, sorted(unknown)[:5]))}. "
                f"The labels there are {', '.join(map(repr, self.names[:20]))}."
            )

    def __str__(self) -> str:
        if self.problem_type == "regression":
            return "numbers (regression)"
        counted = ", ".join(f"{name} {self.counts[name]}" for name in self.names[:20])
        return counted + (f", ... ({len(self.names)} labels)" if len(self.names) > 20 else "")


def read_labels(table: datasets.Dataset, own: TrainArguments, where: str) -> Labels:
    """The problem type and the labels: sorted, or in the order that a ClassLabel column gives them.

    Args:
        table (`datasets.Dataset`): The rows.
        own ([`TrainArguments`]): Of `dhrd train`: `label_column` and `problem_type`.
        where (`str`): What the table is called.

    Returns:
        [`Labels`]: what the column holds.

    Raises:
        ValueError: if the values are of another kind than they are said to be, or can't be labels.
    """
    # A row without a label is left to the encoder, whose error names it.
    values = [value for value in table[own.label_column] if value is not None and value == value and value != ""]
    lists = sum(isinstance(value, list) for value in values)
    problem_type = own.problem_type or ("multi_label_classification" if lists else "single_label_classification")
    if problem_type == "regression":
        return Labels(problem_type, [own.label_column], Counter())
    if (problem_type == "multi_label_classification") != bool(lists):
        kind = "lists" if lists else f"single values such as {values[0]!r}" if values else "nothing"
        raise ValueError(
            f"{where}: column {own.label_column!r} holds {kind}, which does not fit --problem-type {problem_type}. "
            'Multi label needs lists of names, in .jsonl as "label": ["a", "b"].'
        )
    if values and all(isinstance(value, str) and _is_list(value) for value in values):
        raise ValueError(
            f"{where}: column {own.label_column!r} holds lists as text, such as {values[0]!r}: a table with several labels a "
            'row wants .jsonl or .parquet, as "label": ["a", "b"].'
        )
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    if fractions:
        raise ValueError(f"{where}: column {own.label_column!r} holds {fractions[0]}: add --problem-type regression.")
    # Where they stand beside whole numbers a table has them as text, in which 3.10 may also be a name.
    if own.problem_type is None and all(isinstance(value, str) and _NUMBER.fullmatch(value) for value in values):
        fractions = [value for value in values if not float(value).is_integer()]
        if fractions:
            raise ValueError(
                f"{where}: column {own.label_column!r} holds {fractions[0]}: add --problem-type regression, or "
                "--problem-type single_label_classification if these are names."
            )
    flat = [entry for value in values for entry in value if entry is not None] if lists else values
    flat = [int(entry) if isinstance(entry, float) else entry for entry in flat]
    return Labels(problem_type, [str(entry) for entry in sorted(set(flat))], Counter(map(str, flat)))


def class_weights(text: str | None, labels: Labels) -> list[float] | None:
    """Weights in the labels' order; balanced is scikit-learn's rule: rows / (labels * rows of the label).

    Args:
        text (`str`, *optional*): `"balanced"`, or numbers with commas between them.
        labels ([`Labels`]): Of the training rows.

    Returns:
        `list[float]`, *optional*: the weights; None without a text.

    Raises:
        ValueError: if the text is neither, or does not suit the labels.
    """
    if text is not None and labels.problem_type == "regression":
        raise ValueError("--class-weights is for classes, and this is regression: leave it out.")
    if text != "balanced":
        try:
            return None if text is None else [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"--class-weights {text!r} must be 'balanced' or numbers such as 1,2.5,1.") from None
    if labels.problem_type != "single_label_classification":
        raise ValueError("--class-weights balanced is for a single label a row. Give a number for each label.")
    absent = [name for name in labels.names if labels.counts[name] == 0]
    if absent:
        raise ValueError(
            f"--class-weights balanced: no training row has the label {absent[0]!r}. Give numbers instead."
        )
    rows = sum(labels.counts.values())
    return [rows / (len(labels.names) * labels.counts[name]) for name in labels.names]


def _is_list(text: str) -> bool:
    if not text.startswith("["):
        return False
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False
