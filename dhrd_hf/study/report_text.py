"""A report's numbers and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .groups import shown
from .statistics import Gain, Summary

DASH = "–"


def score_text(it: Summary | None) -> str:
    """A mean and its deviation over seeds, in percent.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import score_text
    >>> score_text(summarise(rows)[0])  # doctest: +SKIP
    '70.1 ± 1.2'

    ```

    Args:
        it ([`~dhrd_hf.study.statistics.Summary`] or `None`): The scores.

    Returns:
        `str`: such as `70.1 ± 1.2`, with one seed `70.1 ± –`; a dash for None.
    """
    if it is None:
        return DASH
    return f"{100 * it.mean:.1f} ± {DASH if it.sd is None else f'{100 * it.sd:.1f}'}"


def gain_text(it: Gain | None) -> str:
    """A gain in points with its interval.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import gain_text
    >>> gain_text(paired_gains(rows)[0])  # doctest: +SKIP
    '+1.2 [-0.3, +2.7]'

    ```

    Args:
        it ([`~dhrd_hf.study.statistics.Gain`] or `None`): The gain.

    Returns:
        `str`: such as `+1.2 [-0.3, +2.7]`; a dash for None.
    """
    return DASH if it is None else f"{signed(it.gain)} [{signed(it.low)}, {signed(it.high)}]"


def relative_text(it: Gain, digits: int = 1) -> str:
    """A relative gain with its interval.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import relative_text
    >>> relative_text(mean_relative_gain(rows), 2)  # doctest: +SKIP
    '+2.10% [+0.40, +3.90]'

    ```

    Args:
        it ([`~dhrd_hf.study.statistics.Gain`]): The gain.
        digits (`int`, *optional*, defaults to 1): Behind the point.

    Returns:
        `str`: such as `+1.2% [-0.3, +2.7]`.
    """
    low, high = signed(it.relative_low, digits), signed(it.relative_high, digits)
    return f"{signed(it.relative, digits)}% [{low}, {high}]"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and no minus before a zero.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import signed
    >>> signed(1.25, 2), signed(-0.01), signed(float("nan"))
    ('+1.25', '+0.0', '–')

    ```

    Args:
        value (`float`): The number.
        digits (`int`, *optional*, defaults to 1): Behind the point.

    Returns:
        `str`: a dash for what is not a number.
    """
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def setting_name(setting: str) -> str:
    """A setting in words.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import setting_name
    >>> setting_name("dual_head"), setting_name("cot_decoding")
    ('dual head', 'CoT decoding')

    ```

    Args:
        setting (`str`): As in the table.

    Returns:
        `str`: for people.
    """
    return {"cot_decoding": "CoT decoding"}.get(setting, setting.replace("_", " "))


def options_text(config: Mapping[str, Any]) -> str:
    """Options in words.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import options_text
    >>> options_text({"alpha": 0.5, "lora": True, "train_size": None})
    'alpha 0.5, lora true'

    ```

    Args:
        config (`Mapping[str, Any]`): Names and values; None is one that was not set.

    Returns:
        `str`: for people.
    """
    return ", ".join(f"{name} {shown(it)}" for name, it in config.items() if it is not None)


def metric_name(metric: str) -> str:
    """A metric in words.

    Example:

    ```python
    >>> from dhrd_hf.study.report_text import metric_name
    >>> metric_name("macro_f1+accuracy")
    'the mean of macro F1 and accuracy'

    ```

    Args:
        metric (`str`): As in the table.

    Returns:
        `str`: for people.
    """
    words = {"macro_f1": "macro F1", "f1a": "F1a", "em": "exact match"}
    parts = [words.get(part, part.replace("_", " ")) for part in metric.split("+")]
    return f"the mean of {' and '.join(parts)}" if len(parts) > 1 else parts[0]
