"""What a verdict looks like: a short table for a terminal, a page that one looks at first, and pictures for a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..figures import Drawn, Plot, Point, Series, curves, draw, matrix, reliability_diagram
from . import padded, rendered

_NAMES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mse": "mean squared error", "mae": "mean absolute error"}
_OURS = "this classifier"
_MOST_SHOWN = 20  # of mistakes, of labels in doubt
_MOST_IN_MATRIX = 15  # classes that a picture has room for
_MOST_CLASSES = 40  # that have a bar each
_LONGEST_TEXT = 600  # characters shown


def verdict_text(report: Mapping[str, Any]) -> str:
    """The table for a terminal, and what it comes to in a sentence or two."""
    table = [["", *(_NAMES[name] for name in report["metrics"]), *(["ahead by"] if report.get("others") else [])]]
    for name, metrics, lead in _lines(report):
        table.append(
            [name, *map(_interval, metrics.values()), *([] if lead is None else [_interval(lead, signed=True)])]
        )
    return "\n".join([*padded(table), *verdict_lines(report)])


def verdict_lines(report: Mapping[str, Any]) -> list[str]:
    """The verdict in words."""
    lines = []
    sure = [it["name"] for it in report.get("others", ()) if it["accuracy_lead"]["low"] > 0]
    unsure = [
        it["name"] for it in report.get("others", ()) if it["accuracy_lead"]["low"] <= 0 <= it["accuracy_lead"]["high"]
    ]
    worse = [it["name"] for it in report.get("others", ()) if it["accuracy_lead"]["high"] < 0]
    rows = f"{report['rows']} rows"
    if sure:
        lines.append(f"More accurate than {_and(sure)}.")
    if unsure:
        lines.append(
            f"These {rows} do not show whether it is more accurate than {_and(unsure)}: too few, or there is no difference."
        )
    if worse:
        lines.append(f"LESS accurate than {_and(worse)}.")
    if never := report.get("never_predicted"):
        of = {it["label"]: it["rows"] for it in report["classes"]}
        said = ", ".join(f"{name} ({of[name]} rows)" for name in never[:10]) + ", ..." * (len(never) > 10)
        lines.append(f"Never predicted: {said}.")
    return lines


def _lines(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Mapping[str, float] | None]]:
    others = [(it["name"], it["metrics"], it["accuracy_lead"]) for it in report.get("others", ())]
    return [(_OURS, report["metrics"], None), *others]


def _interval(it: Mapping[str, float], signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{it['value']:{sign}.3f} [{it['low']:{sign}.3f}, {it['high']:{sign}.3f}]"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def confident_mistakes(
    logits: Any, labels: Any, names: Sequence[str], texts: Sequence[str], rows: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The wrong answers of which a single-label classifier was surest."""
    from scipy.special import softmax

    shares = softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    said = shares.argmax(-1)
    wrong = np.flatnonzero(said != labels)
    wrong = wrong[np.argsort(-shares[wrong, said[wrong]], kind="stable")][:_MOST_SHOWN]
    return [
        {
            "row": int(it if rows is None else rows[it]),
            "label": names[int(labels[it])],
            "predicted": names[said[it]],
            "probability": float(shares[it, said[it]]),
            "text": shortened(texts[it]),
        }
        for it in wrong
    ]


def shortened(text: str) -> str:
    """A text that a page has room for."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"


def verdict_page(
    report: Mapping[str, Any],
    *,
    title: str,
    data: str,
    mistakes: Sequence[Mapping[str, Any]] = (),
    doubts: Sequence[Mapping[str, Any]] | None = None,
    history: Sequence[Mapping[str, float]] = (),
    cut: Sequence[str] = (),
) -> str:
    """A verdict as one HTML file with its figures in it, which needs no network and can be sent to anyone.

    Args:
        report (`dict`): From [`~dhrd_hf.evaluation.evaluation_report`].
        title, data (`str`): Names of the classifier and of the rows.
        mistakes (`Sequence[dict]`, *optional*): From [`confident_mistakes`].
        doubts (`Sequence[dict]`, *optional*): Training rows whose label looks wrong: `row`, `label`, `other`, `probability`
            and `text`; None where nobody looked.
        history (`Sequence[dict]`, *optional*): The log history of a Trainer, for the learning curves.
        cut (`Sequence[str]`, *optional*): Lines on what was cut or left out.

    Returns:
        `str`: the page.
    """
    from markupsafe import Markup

    lines = [
        (name, [_interval(it) for it in metrics.values()], lead and _interval(lead, signed=True))
        for name, metrics, lead in _lines(report)
    ]
    learning = _learning(history)
    return rendered(
        "verdict.html.jinja",
        report=report,
        title=title,
        data=data,
        names=[_NAMES[name] for name in report["metrics"]],
        lines=lines,
        said=verdict_lines(report),
        beside=_drawn(_beside(report)),
        learning=[(drawn.title, Markup(drawn.html())) for drawn in learning.values()],
        last={name: its[-1] for name, its in _terms(history).items()},
        matrix=_drawn(confusion(report)),
        classes=_drawn(_classes(report)),
        reliability=_drawn(reliability_picture(report)),
        mistakes=mistakes,
        doubts=doubts,
        most=_MOST_SHOWN,
        cut=cut,
    )


def _drawn(found: Drawn | Plot | None) -> Any:
    from markupsafe import Markup

    if found is None:
        return None
    return Markup(found.html() if isinstance(found, Drawn) else draw(found))


def confusion(report: Mapping[str, Any]) -> Drawn | None:
    """The confusion matrix, of few classes."""
    if not 1 < len(report.get("confusion", ())) <= _MOST_IN_MATRIX:
        return None
    return matrix("Confusion matrix", [it["label"] for it in report["classes"]], report["confusion"])


def reliability_picture(report: Mapping[str, Any]) -> Drawn | None:
    """The reliability diagram, before and after a temperature where there is one."""
    found = report.get("reliability")
    if not found:
        return None
    names = {"before": "before temperature", "after": "after temperature"} if len(found) > 1 else {"before": _OURS}
    return reliability_diagram("Reliability", {names[state]: its for state, its in found.items()})


def _beside(report: Mapping[str, Any]) -> Plot | None:
    if not report.get("others"):
        return None
    points = [
        Point(
            name,
            *(100 * metrics["accuracy"][it] for it in ("value", "low", "high")),
            kind="dual_head" if lead is None else "pooled",
        )
        for name, metrics, lead in _lines(report)
    ]
    return Plot("bars", "Accuracy beside others", "accuracy, %", [Series(_OURS, "dual_head", points)])


def _classes(report: Mapping[str, Any]) -> Plot | None:
    found = [it for it in report.get("classes", ()) if it["recall"]][:_MOST_CLASSES]
    if not found:
        return None
    points = [
        Point(it["label"], *(100 * it["recall"][name] for name in ("value", "low", "high")), note=f"({it['rows']})")
        for it in found
    ]
    label = "recall, % (in brackets: rows)"
    return Plot("bars", "Share of each class that is found", label, [Series("recall", "dual_head", points)])


def _terms(history: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """The points of each logged loss, over steps."""
    found: dict[str, list[tuple[float, float]]] = {}
    for log in history:
        for name, value in log.items():
            if name == "loss" or (name.endswith("_loss") and name != "train_loss"):
                found.setdefault(name, []).append((log["step"], value))
    return {name: its for name, its in found.items() if len({step for step, _ in its}) > 1}


def _learning(history: Sequence[Mapping[str, float]]) -> dict[str, Drawn]:
    """A plot for each loss term, with what was logged of it in training and in evaluation."""
    terms = _terms(history)
    found = {}
    for name in dict.fromkeys(name.removeprefix("eval_") for name in terms):
        series = {said: terms[it] for it, said in ((name, "training"), (f"eval_{name}", "evaluation")) if it in terms}
        title = name.replace("_", " ").capitalize()
        found[name] = curves(title, "step", series)
    return found
