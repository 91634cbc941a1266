"""The settings of a study's cells: what each asks of `dhrd train`."""

from __future__ import annotations

from typing import Any

# Options that a run with alpha = 0, which sees no rationale, does not depend on.
REASONING_OPTIONS = (
    "alpha_schedule",
    "alpha_end",
    "alpha_step_at",
    "reasoning_span",
    "rationale_after_label",
    "distillation_weight",
    "temperature",
    "teacher",
    "teacher_cache",
    "teacher_top_k",
)
_SCHEDULE = ("alpha_schedule", "alpha_end", "alpha_step_at")


def setting_names() -> list[str]:
    """The settings that a cell can have."""
    from ..data.ablations import ABLATIONS

    return ["pooled", "dual_head", "cot_decoding", *(name for name in ABLATIONS if name != "consistent")]


def ablation_of(setting: str) -> str:
    """The kind of [`~dhrd_hf.data.ablations.ablate`] that makes a setting's training rows."""
    return "consistent" if setting in ("pooled", "dual_head", "cot_decoding") else setting


def in_setting(setting: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a cell as its setting has them: what the setting fixes is fixed, what it ignores is left out."""
    weights = {"alpha": options.get("alpha", 1.0), "beta": options.get("beta", 1.0)}
    ignored: tuple[str, ...] = ()
    if setting == "pooled":
        weights, ignored = {"alpha": 0.0, "beta": 1.0}, REASONING_OPTIONS
    elif setting == "cot_decoding":
        weights, ignored = {"alpha": 1.0, "beta": 0.0}, _SCHEDULE
    # Anything else is a word: auto, or what dhrd train refuses.
    for name, value in weights.items():
        if not isinstance(value, (int, float, str)):
            raise ValueError(f"{name} must be a number, and is {value!r}: several are a list in a block of the grid")
    weights = {name: value if isinstance(value, str) else float(value) for name, value in weights.items()}
    head = {"classifier_head": options.get("classifier_head") or "linear"}
    rest = {name: value for name, value in options.items() if name not in {*weights, *head, *ignored}}
    return weights | head | rest
