"""`compare_on_rows`: an export's accuracy on a table, and what changes where a server answers in its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.prompts import render
from .loading import load_classifier
from .metrics import paired_change
from .prediction import predict_table
from .verdict import wilson_interval

if TYPE_CHECKING:
    from datasets import Dataset

    from ..export import Contract, Replay, Server


def compare_on_rows(
    folder: str | os.PathLike,
    contract: Contract,
    table: Dataset,
    label_column: str = "label",
    server: Server | None = None,
    tolerance: float | None = None,
) -> tuple[Replay | None, dict[str, Any]]:
    """Run the rows on the folder and, where there is one, on the server.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import compare_on_rows
    >>> from dhrd_hf.export import Contract, Server
    >>> contract = Contract.read("my-classifier")  # doctest: +SKIP
    >>> server = Server("http://localhost:8000", contract)  # doctest: +SKIP
    >>> replay, facts = compare_on_rows("my-classifier", contract, table, server=server)  # doctest: +SKIP
    >>> replay.flips, facts["change"]  # doctest: +SKIP
    (2, {'change': 0.0033, 'low': -0.0062, 'high': 0.0139})

    ```

    Args:
        folder (`str` or `os.PathLike`): The export.
        contract ([`~dhrd_hf.export.Contract`]): Its contract; its prompt makes the inputs.
        table (`Dataset`): The rows, with labels.
        label_column (`str`, *optional*, defaults to `"label"`): The column of the labels.
        server ([`~dhrd_hf.export.Server`], *optional*): What serves the export; it is sent the inputs, without their labels.
        tolerance (`float`, *optional*): The largest difference of a probability that passes; by default as in
            [`~dhrd_hf.export.verify_server`].

    Returns:
        `tuple`: [`~dhrd_hf.export.Replay`] of the server beside the folder, None without a server; and `dict` with `rows` and,
        but for regression, `accuracy` (`value`, `low`, `high`: Wilson's 95% interval; for multi label of rows that have
        exactly the right labels) and with a server `server_accuracy` and `change` ([`paired_change`]).

    Raises:
        ValueError: if a column is missing, a text is empty, or a label is not one of the contract's.
        ConnectionError: if the server does not answer.
    """
    from ..export.serving import compared

    model, tokenizer = load_classifier(folder)
    prompt = contract.prompt_template or "{text}"
    local = predict_table(model, tokenizer, table, prompt, label_column)
    logits = torch.from_numpy(local.logits).float()
    facts: dict[str, Any] = {"rows": len(logits)}
    decided = contract.decisions(contract.probabilities(logits))
    right = None if decided is None else _right(decided, local.labels)
    if right is not None:
        facts["accuracy"] = wilson_interval(right)
    if server is None:
        return None, facts
    inputs = [render(prompt, row) for row in table]
    probabilities = server.probabilities(inputs)
    names = [f"row {number}" for number in range(len(inputs))]
    replay = compared(server, probabilities, inputs, logits, names, tolerance)
    if right is not None:
        served = _right(contract.decisions(probabilities), local.labels)
        facts |= {"server_accuracy": wilson_interval(served), "change": paired_change(right, served)}
    return replay, facts


def _right(decided: torch.Tensor | None, labels: np.ndarray) -> np.ndarray:
    same = np.asarray(decided).astype(int) == labels.astype(int)
    return same if same.ndim == 1 else same.all(-1)
