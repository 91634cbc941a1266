"""What an encoder did to the rows that it has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass
class EncodingCounts:
    """What an encoder did to the rows it has seen.

    Example:

    ```python
    >>> from dhrd_hf.data import EncodingCounts
    >>> print(EncodingCounts(rows=1000, without_rationale=3))
    1000 rows encoded: 3 without a rationale (label-only form), 0 rationales cut, 0 inputs cut

    ```

    Args:
        rows (`int`): Rows encoded.
        without_rationale (`int`): Rows without a rationale, encoded in the label-only form.
        rationales_cut (`int`): Rows whose rationale was cut, or left out, to fit `max_length`.
        inputs_cut (`int`): Rows whose x was cut to `max_input_length`.
        endings_cut (`int`): Rows whose x lost what the prompt ends with: its own text, or a column behind a longer one.
        doubled_bos (`int`): Rows whose x begins with the bos token twice.
    """

    rows: int = 0
    without_rationale: int = 0
    rationales_cut: int = 0
    inputs_cut: int = 0
    endings_cut: int = 0
    doubled_bos: int = 0

    @classmethod
    def total(cls, marks: Mapping[str, Sequence[int]]) -> EncodingCounts:
        """Of what each row was marked with, 0 or 1."""
        return cls(len(marks["without_rationale"]), **{name: int(np.sum(values)) for name, values in marks.items()})

    def __add__(self, other: EncodingCounts) -> EncodingCounts:
        return EncodingCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        return (
            f"{self.rows} rows encoded: {self.without_rationale} without a rationale (label-only form), "
            f"{self.rationales_cut} rationales cut, {self.inputs_cut} inputs cut"
        )

    @property
    def advice(self) -> list[str]:
        """What is rarely meant, and how to have it otherwise."""
        said = []
        if self.endings_cut:
            said.append(
                f"{self.endings_cut} rows lost what the prompt ends with, for their inputs are cut on the right: cut the left "
                "(tokenizer.truncation_side = 'left' before they are encoded; dhrd train --truncation-side left)."
            )
        if self.doubled_bos:
            said.append(
                f"{self.doubled_bos} rows begin with the bos token twice: their text has it, and the tokenizer adds it. Leave it "
                "out of the prompt or the texts, or set tokenizer.add_bos_token = False before they are encoded."
            )
        return said
