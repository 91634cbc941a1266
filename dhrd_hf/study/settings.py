"""The settings of a study's cells: what each asks of `dhrd train`."""

from __future__ import annotations

# Options that a run with alpha = 0, which sees no rationale, does not depend on.
REASONING_OPTIONS = (
    "alpha_schedule",
    "alpha_end",
    "alpha_step_at",
    "reasoning_span",
    "rationale_after_label",
    "distillation_weight",
    "temperature",
)
