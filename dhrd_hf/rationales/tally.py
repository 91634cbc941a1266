"""What a step of the selection did to the rows: counts in and out, by reason and by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..data.label_names import label_names


@dataclass
class Tally:
    """Counts of rows and rationales on their way through a step."""

    rows_in: int = 0
    rows_out: int = 0
    rationales_in: int = 0
    rationales_out: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    labels_in: Counter[str] = field(default_factory=Counter)
    labels_out: Counter[str] = field(default_factory=Counter)

    def add(
        self, label: Any, before: str | None, after: str | None, reasons: Iterable[str] = (), row_stays: bool = True
    ) -> None:
        """Count a row."""
        after = after if row_stays else None
        names = label_names(label) or ["(none)"]
        self.rows_in += 1
        self.rows_out += row_stays
        if before is not None:
            self.rationales_in += 1
            self.labels_in.update(names)
        if after is not None:
            self.rationales_out += 1
            self.labels_out.update(names)
            self.changed += after != before
        gone = not row_stays or (before is not None and after is None)
        (self.dropped if gone else self.repaired).update(list(reasons))

    def __str__(self) -> str:
        lines = [
            f"{self.rows_in} rows in, {self.rows_out} out; {self.rationales_in} rationales in, "
            f"{self.rationales_out} out, {self.changed} of them changed"
        ]
        reasons = [
            f"{name}: " + ", ".join(f"{count[name]} {what}" for what, count in counts if count[name])
            for counts in [(("dropped", self.dropped), ("repaired", self.repaired))]
            for name in sorted({*self.dropped, *self.repaired}, key=lambda it: (-self.dropped[it], it))
        ]
        lines += ["by reason  " + "; ".join(reasons)] if reasons else []
        labels = [
            f"{label}: {self.labels_in[label]} in, {self.labels_out[label]} out" for label in sorted(self.labels_in)
        ]
        shown = labels[:20] + ([f"and {len(labels) - 20} more labels"] if len(labels) > 20 else [])
        return "\n".join([*lines, "by label   " + "; ".join(shown)] if labels else lines)
