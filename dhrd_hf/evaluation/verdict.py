"""Is it any good? A classifier's measures with their intervals, by class and beside what costs less; and its calibration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.prompts import render, render_rows
from ..data.tables import table_name
from .baselines import baseline_answers, doubtful_labels, some_rows
from .calibration import calibration_metrics, reliability
from .metrics import compute_metrics, macro_f1, paired_change

if TYPE_CHECKING:
    import datasets

    from ..export import Contract, Replay, Server
    from .prediction import LabelledLogits

CONFIDENCE = 0.95
_RESAMPLES, _RESAMPLES_AT_ONCE = 2000, 100
_NUMBERS = 5_000_000  # of all samples: of tables with very many kinds of mistakes fewer are drawn, but at least
_LEAST_RESAMPLES = 200
_MOST_GROUPS = 50
_MOST_IN_MATRIX = 30  # classes of which each pair is counted


def evaluation_report(
    logits: Any,
    labels: Any,
    problem_type: str | None = None,
    *,
    temperature: float = 1.0,
    groups: Sequence[Any] | None = None,
    label_names: Sequence[str] | None = None,
    others: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measures of a classifier with 95% confidence intervals, by class, by group, and beside other answers to the same rows.

    Accuracy, precision and recall have Wilson's interval, and the lead over another classifier Tango's, which is of the same
    rows. Macro F1 and its lead have the percentiles of 2000 bootstrap samples, drawn with a fixed seed from the rows and one
    row of chance (a label with an answer to another row), without which rows without a mistake would seem to prove that
    there are none. Where classes have a few rows, the interval of macro F1 is too narrow.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import evaluation_report
    >>> logits, labels = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1])
    >>> found = evaluation_report(logits, labels, groups="aab", label_names=["no", "yes"], others={"always no": [0, 0, 0]})
    >>> {name: round(value, 3) for name, value in found["metrics"]["accuracy"].items()}
    {'value': 0.667, 'low': 0.208, 'high': 0.939}
    >>> [(row["group"], row["rows"], row["value"]) for row in found["groups"]]
    [('a', 2, 1.0), ('b', 1, 0.0)]
    >>> found["confusion"], [(it["label"], it["recall"]["value"]) for it in found["classes"]]
    ([[1, 0], [1, 1]], [('no', 1.0), ('yes', 0.5)])
    >>> round(found["others"][0]["accuracy_lead"]["value"], 3)
    0.333

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray`): Class ids `[rows]`; 0/1 `[rows, K]` for multi label; numbers for regression.
        problem_type (`str`, *optional*): As for [`compute_metrics`].
        temperature (`float`, *optional*, defaults to 1.0): What the logits will be divided by: calibration is measured
            before and after.
        groups (`Sequence`, *optional*): The group of each row, for its accuracy by group; None is a group of its own.
        label_names (`Sequence[str]` of length K, *optional*): Names of the classes, whose measures are then given.
        others (`Mapping[str, np.ndarray]`, *optional*): By name, what other classifiers say of the same rows, in the form
            of `labels`.

    Returns:
        `dict`: `rows`; `metrics`, for each name its `value`, `low` and `high`; but for regression `calibration`
        ([`calibration_metrics`]) and `reliability` ([`reliability`]), each with `before` and, where there is a temperature,
        `after`; with names `classes`, a list of `label`, `rows`, `predicted` (rows that it was said of), `f1`,
        `precision` and `recall` (with their intervals; None where no row has one), `never_predicted` (names of classes with rows), and of a single label and at
        most 30 classes `confusion` `[K, K]`, in rows of true classes; with others `others`, a list of `name`, `metrics`,
        `accuracy_lead` and `macro_f1_lead`, by which this classifier is ahead of it; with groups `groups`, a list of
        `group`, `rows`, `value`, `low`, `high`.

    Raises:
        ValueError: if there are fewer than two rows, others or groups for a regression, of another number of rows, or
            too many to be groups.

    Source: scipy `stats.binomtest`; B. Efron, "Bootstrap methods: another look at the jackknife", 1979; T. Tango 1998
    ([`paired_change`]).
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if len(labels) < 2:
        raise ValueError(f"A confidence interval needs at least two rows, and there are {len(labels)}.")
    values = compute_metrics((logits, labels), problem_type)
    report: dict[str, Any] = {"rows": len(labels), "metrics": {}}
    if "accuracy" not in values:
        if groups is not None or others:
            raise ValueError(
                "Results by group or beside others are accuracies, and this is a regression: leave them out."
            )
        errors = logits.reshape(len(labels), -1) - labels.reshape(len(labels), -1)
        for name, per_row in (("mse", (errors**2).mean(-1)), ("mae", np.abs(errors).mean(-1))):
            rng, rows = np.random.default_rng(0), len(labels)
            means = [per_row[rng.integers(0, rows, rows)].mean() for _ in range(_RESAMPLES)]
            report["metrics"][name] = _percentiles(values[name], np.array(means))
        return report

    truth, classes = labels.astype(int), logits.shape[-1]
    said = decided(logits, labels)
    right = _right(said, truth)
    (macro,) = _resampled(truth, [said], classes)
    report["metrics"] = {"accuracy": wilson_interval(right), "macro_f1": _percentiles(values["macro_f1"], macro)}
    if label_names is not None:
        report |= _by_class(truth, said, label_names)
    if others:
        report["others"] = [_beside(name, it, said, truth, classes) for name, it in others.items()]
    states = {"before": logits} | ({"after": logits / temperature} if temperature != 1 else {})
    report["calibration"] = {name: calibration_metrics(it, labels) for name, it in states.items()}
    report["reliability"] = {name: reliability(it, labels) for name, it in states.items()}
    if groups is not None:
        report["groups"] = _by_group(right, groups)
    return report


def _right(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Which rows count as right in the accuracy; in multi label those with every label right."""
    return (said == truth).all(-1) if truth.ndim == 2 else said == truth


def wilson_interval(right: np.ndarray) -> dict[str, float]:
    from scipy.stats import binomtest

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return {"value": float(right.mean()), "low": float(interval.low), "high": float(interval.high)}


def _resampled(truth: np.ndarray, said: list[np.ndarray], classes: int) -> np.ndarray:
    """Macro F1 of each classifier in each bootstrap sample, `[classifiers, R]`."""
    from scipy.sparse import csr_array

    rng, rows = np.random.default_rng(0), len(truth)
    # Of each column the row that its value is from: all rows as they are, and rows of chance.
    own = np.tile(np.arange(rows)[:, None], len(said) + 1)
    source = np.concatenate([own, rng.permuted(own, axis=0)])
    kinds = [np.unique(it, axis=0, return_inverse=True)[1].reshape(-1) for it in (truth, *said)]
    values = np.stack([kind[places] for kind, places in zip(kinds, source.T, strict=True)], 1)
    # Rows alike in label and answers are one cell, of which a sample has a number.
    _, first, cell = np.unique(values, axis=0, return_index=True, return_inverse=True)
    shares = np.bincount(cell.reshape(-1), np.repeat([1.0, 1.0 / rows], rows)) / (rows + 1)
    source = source[first]

    def indicator(values: np.ndarray, place: np.ndarray) -> csr_array:
        picked = values[place]
        if picked.ndim == 2:
            return csr_array(picked.astype(float))
        return csr_array((np.ones(len(picked)), (np.arange(len(picked)), picked)), shape=(len(picked), classes))

    true = indicator(truth, source[:, 0])
    answers = [indicator(it, source[:, place]) for place, it in enumerate(said, 1)]
    hits = [csr_array(true.multiply(it)) for it in answers]
    samples = int(np.clip(_NUMBERS / len(shares), _LEAST_RESAMPLES, _RESAMPLES))
    macro = np.empty((len(said), samples))
    for start in range(0, samples, _RESAMPLES_AT_ONCE):
        drawn = rng.multinomial(rows, shares, size=min(_RESAMPLES_AT_ONCE, samples - start)).astype(float)
        part = slice(start, start + len(drawn))
        of_truth = drawn @ true
        for place, (answer, hit) in enumerate(zip(answers, hits, strict=True)):
            counts = of_truth + drawn @ answer
            scores = 2 * (drawn @ hit) / np.maximum(counts, 1)
            there = classes if truth.ndim == 2 else np.maximum((counts > 0).sum(1), 1)
            macro[place, part] = scores.sum(1) / there
    return macro


def _percentiles(value: float, samples: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": value, "low": float(min(low, value)), "high": float(max(high, value))}


def _by_class(truth: np.ndarray, said: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix, f1_score

    ids = np.arange(len(names))
    f1 = f1_score(truth, said, labels=ids, average=None, zero_division=0)
    classes = []
    for place, name in enumerate(names):
        of_class, called = ((it[:, place] == 1 if it.ndim == 2 else it == place) for it in (truth, said))
        found = {"label": name, "rows": int(of_class.sum()), "predicted": int(called.sum()), "f1": float(f1[place])}
        found["precision"] = wilson_interval(of_class[called]) if called.any() else None
        found["recall"] = wilson_interval(called[of_class]) if of_class.any() else None
        classes.append(found)
    report: dict[str, Any] = {
        "classes": classes,
        "never_predicted": [it["label"] for it in classes if it["rows"] and not it["predicted"]],
    }
    if truth.ndim == 1 and len(names) <= _MOST_IN_MATRIX:
        report["confusion"] = confusion_matrix(truth, said, labels=ids).tolist()
    return report


def _beside(name: str, theirs: Any, ours: np.ndarray, truth: np.ndarray, classes: int) -> dict[str, Any]:
    theirs = np.asarray(theirs).astype(int)
    if theirs.shape != truth.shape:
        raise ValueError(f"{name} has answers of shape {theirs.shape}, and the labels are {truth.shape}.")
    right = _right(theirs, truth)
    change = paired_change(right, _right(ours, truth))
    macro, their_macro = _resampled(truth, [ours, theirs], classes)
    score = macro_f1(truth, theirs)
    return {
        "name": name,
        "metrics": {"accuracy": wilson_interval(right), "macro_f1": _percentiles(score, their_macro)},
        "accuracy_lead": {"value": change["change"], "low": change["low"], "high": change["high"]},
        "macro_f1_lead": _percentiles(macro_f1(truth, ours) - score, macro - their_macro),
    }


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


def decided(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What class logits say, in the form of the labels."""
    return (logits > 0).astype(int) if labels.ndim == 2 else logits.argmax(-1)


class Judged:
    """A verdict on the rows of a table, beside what was trained on the rows of another."""

    def __init__(
        self,
        config: Any,
        prompt: str,
        table: datasets.Dataset,
        found: LabelledLogits,
        seen: tuple[datasets.Dataset, np.ndarray] | None,
        others: Mapping[str, np.ndarray],
    ):
        self.names, self.found, self.seen = list(config.id2label.values()), found, None
        self.texts = list(render_rows(prompt, table))
        baselines, self.cut = {}, []
        if seen is not None:
            rows, labels = seen
            self.kept = some_rows(len(rows))
            if len(self.kept) < len(rows):
                self.cut.append(f"The baselines are trained on {len(self.kept)} of {len(rows)} training rows.")
            self.seen = list(render_rows(prompt, rows.select(self.kept)))
            self.seen_labels = labels[self.kept]
            baselines = baseline_answers(self.seen, self.seen_labels, self.texts)
        self.report = evaluation_report(
            found.logits, found.labels, found.problem_type, label_names=self.names, others={**baselines, **others}
        )

    def text(self) -> str:
        from ..pages.verdict import verdict_text

        return verdict_text(self.report)

    def page(self, title: str, data: str, history: Sequence[Mapping[str, float]], cut: Sequence[str]) -> str:
        from ..pages.verdict import confident_mistakes, shortened, verdict_page

        one = self.found.labels.ndim == 1
        doubts = None
        if self.seen is not None and one:
            doubts = [
                {**it, "row": int(self.kept[it["row"]]), "text": shortened(self.seen[it["row"]])}
                | {name: self.names[it[name]] for name in ("label", "other")}
                for it in doubtful_labels(self.seen, self.seen_labels)
            ]
        mistakes = confident_mistakes(self.found.logits, self.found.labels, self.names, self.texts) if one else ()
        found = {"mistakes": mistakes, "doubts": doubts, "history": history, "cut": [*cut, *self.cut]}
        return verdict_page(self.report, title=title, data=data, **found)


def card_results(
    source: str,
    table: datasets.Dataset,
    found: LabelledLogits,
    temperature: float,
    group_column: str | None,
    label_names: Sequence[str],
) -> dict[str, Any]:
    """What a model card says of a table: the fields of [`~dhrd_hf.export.CardFacts`] of its results."""
    groups = None if group_column is None else table[group_column][:]
    said = {"temperature": temperature, "groups": groups, "label_names": label_names}
    report = evaluation_report(found.logits, found.labels, found.problem_type, **said)
    return {
        "eval_data": table_name(source),
        "results": report,
        "inputs_cut": found.cut,
        "group_column": group_column,
    }


def compare_on_rows(
    folder: str | os.PathLike,
    contract: Contract,
    table: datasets.Dataset,
    label_column: str = "label",
    server: Server | None = None,
    tolerance: float | None = None,
) -> tuple[Replay | None, dict[str, Any]]:
    """Run the rows on the folder and, where there is one, on the server.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import compare_on_rows
    >>> from dhrd_hf.export import Contract, Server
    >>> contract = Contract.read("my-classifier")
    >>> server = Server("http://localhost:8000", contract)
    >>> replay, facts = compare_on_rows("my-classifier", contract, table, server=server)
    >>> replay.flips, facts["change"]
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
    import torch

    from ..export.serving import compared
    from .loading import load_classifier
    from .prediction import predict_table

    model, tokenizer = load_classifier(folder)
    prompt = contract.prompt_template or "{text}"
    local = predict_table(model, tokenizer, table, prompt, label_column)
    logits = torch.from_numpy(local.logits).float()
    facts: dict[str, Any] = {"rows": len(logits)}
    decided = contract.decisions(contract.probabilities(logits))
    right = None if decided is None else _right(np.asarray(decided).astype(int), local.labels.astype(int))
    if right is not None:
        facts["accuracy"] = wilson_interval(right)
    if server is None:
        return None, facts
    inputs = [render(prompt, row) for row in table]
    probabilities = server.probabilities(inputs)
    names = [f"row {number}" for number in range(len(inputs))]
    replay = compared(server, probabilities, inputs, logits, names, tolerance)
    if right is not None:
        served = _right(np.asarray(contract.decisions(probabilities)).astype(int), local.labels.astype(int))
        facts |= {"server_accuracy": wilson_interval(served), "change": paired_change(right, served)}
    return replay, facts
