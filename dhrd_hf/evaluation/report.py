"""What a model card says of a classifier: measures with their confidence intervals, calibration, and the groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .calibration import calibration_metrics, reliability
from .metrics import compute_metrics, macro_f1

CONFIDENCE = 0.95
_RESAMPLES, _RESAMPLES_AT_ONCE = 1000, 50
_MOST_GROUPS = 50


def evaluation_report(
    logits: Any,
    labels: Any,
    problem_type: str | None = None,
    *,
    temperature: float = 1.0,
    groups: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Measures of a classifier with 95% confidence intervals, its calibration, and its accuracy by group.

    Accuracy has Wilson's interval; macro F1, and the errors of a regression, the percentiles of 1000 bootstrap samples of
    the rows, drawn with a fixed seed.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import evaluation_report
    >>> found = evaluation_report(np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1]), groups="aab")
    >>> {name: round(value, 3) for name, value in found["metrics"]["accuracy"].items()}
    {'value': 0.667, 'low': 0.208, 'high': 0.939}
    >>> [(row["group"], row["rows"], row["value"]) for row in found["groups"]]
    [('a', 2, 1.0), ('b', 1, 0.0)]

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray`): Class ids `[rows]`; 0/1 `[rows, K]` for multi label; numbers for regression.
        problem_type (`str`, *optional*): As for [`compute_metrics`].
        temperature (`float`, *optional*, defaults to 1.0): What the logits will be divided by: calibration is measured
            before and after.
        groups (`Sequence`, *optional*): The group of each row, for its accuracy by group; None is a group of its own.

    Returns:
        `dict`: `rows`; `metrics`, for each name its `value`, `low` and `high`; but for regression `calibration`
        ([`calibration_metrics`]) and `reliability` ([`reliability`]), each with `before` and, where there is a temperature,
        `after`; `groups`, a list of `group`, `rows`, `value`, `low`, `high`, where groups were given.

    Raises:
        ValueError: if there are fewer than two rows, or groups for a regression, of another number of rows, or too many
            to be groups.

    Source: scipy `stats.binomtest` and `stats.bootstrap`.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if len(labels) < 2:
        raise ValueError(f"A confidence interval needs at least two rows, and there are {len(labels)}.")
    values = compute_metrics((logits, labels), problem_type)
    report: dict[str, Any] = {"rows": len(labels), "metrics": {}}
    if "accuracy" not in values:
        if groups is not None:
            raise ValueError("Results by group are accuracies, and this is a regression: leave the group column out.")
        errors = logits.reshape(len(labels), -1) - labels.reshape(len(labels), -1)
        for name, per_row in (("mse", (errors**2).mean(-1)), ("mae", np.abs(errors).mean(-1))):
            report["metrics"][name] = _bootstrapped(values[name], len(labels), lambda rows, e=per_row: e[rows].mean())
        return report

    right, truth = _right(logits, labels), labels.astype(int)
    said = (logits > 0).astype(int) if labels.ndim == 2 else logits.argmax(-1)  # once, not in each sample
    report["metrics"]["accuracy"] = wilson_interval(right)
    report["metrics"]["macro_f1"] = _bootstrapped(
        values["macro_f1"],
        len(labels),
        lambda rows: macro_f1(truth[rows], said[rows]),
    )
    states = {"before": logits} | ({"after": logits / temperature} if temperature != 1 else {})
    report["calibration"] = {name: calibration_metrics(it, labels) for name, it in states.items()}
    report["reliability"] = {name: reliability(it, labels) for name, it in states.items()}
    if groups is not None:
        report["groups"] = _by_group(right, groups)
    return report


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rows count as right in the accuracy; in multi label those with every label right."""
    return ((logits > 0) == labels).all(-1) if labels.ndim == 2 else logits.argmax(-1) == labels


def wilson_interval(right: np.ndarray) -> dict[str, float]:
    from scipy.stats import binomtest

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return {"value": float(right.mean()), "low": float(interval.low), "high": float(interval.high)}


def _bootstrapped(value: float, rows: int, statistic: Callable[[np.ndarray], float]) -> dict[str, float]:
    from scipy.stats import bootstrap

    interval = bootstrap(
        (np.arange(rows),),
        statistic,
        vectorized=False,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {"value": value, "low": float(interval.low), "high": float(interval.high)}


def _by_group(right: np.ndarray, groups: Sequence[Any]) -> list[dict[str, Any]]:
    if len(groups) != len(right):
        raise ValueError(f"There are {len(right)} rows and {len(groups)} groups.")
    names = np.array(["no value" if group is None or group == "" else str(group) for group in groups])
    found = sorted(set(names.tolist()))
    if len(found) > _MOST_GROUPS or len(found) == len(names):
        raise ValueError(
            f"The group column has {len(found)} values in {len(names)} rows, such as {found[0][:80]!r}, which makes no "
            f"groups (at most {_MOST_GROUPS}, with rows in common). Name a column with few values."
        )
    return [
        {"group": name, "rows": int((names == name).sum()), **wilson_interval(right[names == name])} for name in found
    ]
