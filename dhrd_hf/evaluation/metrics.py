"""Classification metrics that work offline: scikit-learn's, for the Trainer and the command line."""

from __future__ import annotations

from typing import Any

import numpy as np


def compute_metrics(prediction: Any) -> dict[str, float]:
    """Accuracy and macro F1 of class logits; for the Trainer's `compute_metrics`.

    Single label where labels are ids `[rows]`; multi label where they are 0/1 `[rows, K]` (a logit above 0 is a yes);
    regression where there is one logit a row, or labels are not whole (mean squared and absolute error).

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import compute_metrics
    >>> compute_metrics((np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), np.array([0, 1, 1])))
    {'accuracy': 0.6666666666666666, 'macro_f1': 0.6666666666666666}

    ```

    Args:
        prediction (`EvalPrediction` or `tuple[np.ndarray, np.ndarray]`): Logits `[rows, K]` and labels.

    Returns:
        `dict[str, float]`: `accuracy` and `macro_f1`, or `mse` and `mae`.

    Raises:
        ValueError: if logits and labels differ in their number of rows.
    """
    from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error

    logits, labels = (np.asarray(values) for values in tuple(prediction)[:2])  # inputs and losses may follow
    if len(logits) != len(labels):
        raise ValueError(f"There are {len(logits)} rows of logits and {len(labels)} labels.")
    if logits.ndim == 1 or logits.shape[-1] == 1 or not (labels == np.round(labels)).all():
        targets, values = labels.reshape(len(labels), -1), logits.reshape(len(labels), -1)
        return {"mse": float(mean_squared_error(targets, values)), "mae": float(mean_absolute_error(targets, values))}
    predicted = (logits > 0).astype(int) if labels.ndim == 2 else logits.argmax(-1)
    return {
        "accuracy": float(accuracy_score(labels.astype(int), predicted)),
        "macro_f1": float(f1_score(labels.astype(int), predicted, average="macro", zero_division=0)),
    }
