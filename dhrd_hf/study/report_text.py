"""A report's numbers and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .groups import shown
from .statistics import Gain, Summary

DASH = "–"


def score_text(it: Summary | None) -> str:
    """A mean and its deviation over seeds, in percent."""
    if it is None:
        return DASH
    return f"{100 * it.mean:.1f} ± {DASH if it.sd is None else f'{100 * it.sd:.1f}'}"


def gain_text(it: Gain | None) -> str:
    """A gain in points with its interval."""
    return DASH if it is None else f"{signed(it.gain)} [{signed(it.low)}, {signed(it.high)}]"


def relative_text(it: Gain, digits: int = 1) -> str:
    """A relative gain with its interval."""
    low, high = signed(it.relative_low, digits), signed(it.relative_high, digits)
    return f"{signed(it.relative, digits)}% [{low}, {high}]"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and no minus before a zero."""
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def setting_name(setting: str) -> str:
    """A setting in words."""
    return {"cot_decoding": "CoT decoding"}.get(setting, setting.replace("_", " "))


def options_text(config: Mapping[str, Any]) -> str:
    """Options in words."""
    return ", ".join(f"{name} {shown(it)}" for name, it in config.items() if it is not None)


def metric_name(metric: str) -> str:
    """A metric in words."""
    words = {"macro_f1": "macro F1", "f1a": "F1a", "em": "exact match"}
    parts = [words.get(part, part.replace("_", " ")) for part in metric.split("+")]
    return f"the mean of {' and '.join(parts)}" if len(parts) > 1 else parts[0]
