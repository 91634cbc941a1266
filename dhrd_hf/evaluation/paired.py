"""`paired_change`: by how much an accuracy changed on the same rows, with an interval that knows they are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_CONFIDENCE = 0.95


def paired_change(before: Sequence[bool], after: Sequence[bool]) -> dict[str, float]:
    """The change of an accuracy on the same rows, with its 95% interval.

    Rows that are right, or wrong, both times say nothing of the change, so the interval is far narrower than that of two
    accuracies of different rows. Where no row changed it is still not empty: others might.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import paired_change
    >>> found = paired_change([True] * 65 + [False] * 96, [True] * 59 + [False] * 6 + [True] * 16 + [False] * 80)
    >>> {name: round(value, 4) for name, value in found.items()}
    {'change': 0.0621, 'low': 0.0054, 'high': 0.124}

    ```

    Args:
        before (`Sequence[bool]`): Whether each row was right before.
        after (`Sequence[bool]`): Whether it is right now.

    Returns:
        `dict[str, float]`: `change`, `low` and `high`, from -1 to 1.

    Raises:
        ValueError: if there are no rows, or not as many of both.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998), 891-908: the score interval.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    one, other = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(
            f"expected as many rows before as after, at least one: there are {one.shape} and {other.shape}"
        )
    rows, gained, lost = len(one), int((~one & other).sum()), int((one & ~other).sum())
    quantile, change = norm.ppf((1 + _CONFIDENCE) / 2), (gained - lost) / rows

    def score(delta: float) -> float:
        """How many standard errors the change is above delta; the variance is the likeliest where delta is true."""
        linear = (2 * rows - gained + lost) * delta - gained - lost
        both = math.sqrt(max(linear**2 + 8 * rows * lost * delta * (1 - delta), 0.0))
        lost_share = max((both - linear) / (4 * rows), 0.0)
        variance = rows * (2 * lost_share + delta * (1 - delta))
        return 0.0 if delta == change else rows * (change - delta) / math.sqrt(max(variance, 1e-12))

    def limit(end: float, sign: float) -> float:
        """Where the score has the quantile, between the change and an end of what is possible."""
        at_end = end * (1 - 1e-12)
        if change == end or sign * score(at_end) < quantile:
            return end
        return brentq(lambda delta: sign * score(delta) - quantile, at_end, change)

    return {"change": change, "low": limit(-1.0, 1.0), "high": limit(1.0, -1.0)}
