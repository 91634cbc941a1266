"""What an audit's numbers call for, in sentences, and the audit as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..data.label_names import alike

# From which share of the rows on a check is a matter for the verdict.
_MANY = 0.02
# How much better than text alone or majority the rationale alone may do before its wording is called a give-away.
_GIVES_AWAY = 0.15
# The one sentence of a verdict that calls for nothing.
NOTHING_FOUND = "Nothing speaks against training on these rationales."
_ADVICE = {
    "label_leak": "name a label or announce the answer: a student learns to look for it. Drop them or have them written again",
    "empty": "are empty: these rows train on their label alone",
    "truncated": "stop in the middle of a sentence: raise the teacher's limit of new tokens, or drop the last piece",
    "refusal": "are refusals: drop them",
    "repetition": "repeat themselves: drop them, or raise the teacher's repetition penalty",
    "copy": "copy the input: they teach nothing that the input does not",
    "prompt_echo": "repeat the teacher's prompt: cut the echo",
    "wrong_language": "are in another language than their text: drop them",
    "near_duplicate": "are nearly the same as another row's: a template, which teaches its words instead of a reason",
    "length": "are too short or too long",
    "not_text": "are lists or objects, which training refuses: make one text of each",
}


def advice_on(report: Mapping[str, Any]) -> list[str]:
    """What a person should do about rationales, most important first."""
    said, rows = [], report["rows"]
    matching, probe = report["matching"], report["label_probe"]
    if matching["verdict"] == "shuffled":
        said.append(
            "The rationales do not belong to their rows (or fit any row alike): do not train on them. Look for a join by the "
            "wrong key or a sort of one column."
        )
    elif matching["verdict"] == "partly shuffled":
        share = max(matching["unrelated"], len(matching["mismatched"]) / matching["rows"])
        said.append(
            f"About {share:.0%} of the rationales do not belong to their rows; {len(matching['mismatched'])} are listed. Look "
            "for a join by the wrong key before training."
        )
    alone, text_only = probe["rationale_only"], probe["text_only"]
    base = max(filter(None, (text_only, probe["majority"])), default=None)
    if alone is not None and base is not None and alone - base > _GIVES_AWAY:
        said.append(
            f"The rationale alone gives the label away to {alone:.0%} (text alone {_percent(text_only)}, majority "
            f"{probe['majority']:.0%}): accuracy with a gold rationale in the input is no result."
        )
    for name in sorted(_ADVICE, key=lambda it: -len(report["checks"][it])):
        count = len(report["checks"][name])
        if count > (0 if name == "not_text" else _MANY * rows):
            said.append(f"{count} of {rows} rationales ({count / rows:.1%}) {_ADVICE[name]} ({name}).")
    across = sum(it["rationales"] for it in report["duplicates"]["across_splits"].values())
    if across:
        said.append(f"{across} rationales stand in another split as well: results on it are too good.")
    if report["truncation"] and report["truncation"]["rows"]:
        it = report["truncation"]
        said.append(
            f"{it['rows']} rationales do not fit into {it['max_length']} tokens behind their texts: shorten them."
        )
    if (report["consistency"] or {}).get("accuracy") is not None and report["consistency"]["accuracy"] < 0.95:
        it = report["consistency"]
        said.append(f"The judge reads another label out of {len(it['inconsistent'])} of {it['rows']} rationales.")
    for names in alike(report["labels"]):
        said.append(
            f"Labels {' and '.join(map(repr, names))} differ by spaces, case or spelling alone, and are {len(names)} classes: spell "
            "them alike if they are one."
        )
    few = sum(0 < len(ids) <= _MANY * rows for ids in report["checks"].values())
    if not said:
        tail = " `dhrd rationales filter` drops the few that a check flags." if few else ""
        return [f"{NOTHING_FOUND}{tail}"]
    return said


def _percent(value: float | None, places: int = 0) -> str:
    return "not known" if value is None else f"{value:.{places}%}"


def audit_page(audit: Mapping[str, Any], title: str = "rationales") -> str:
    """An audit as a page of HTML."""
    from jinja2 import Environment

    rows = audit["rows"]
    shares = {name: len(ids) / rows for name, ids in audit["checks"].items()}
    checks = [
        {
            "name": name,
            "value": share,
            "shown": f"{len(audit['checks'][name])} ({share:.1%})",
            "warn": share > 0.02,
        }
        for name, share in shares.items()
    ]
    names = {"rationale_only": "rationale alone", "text_only": "text alone", "majority": "majority"}
    probe = [
        {"name": shown, "value": value, "shown": _percent(value, 1), "warn": False}
        for key, shown in names.items()
        if (value := audit["label_probe"][key]) is not None
    ]
    found = audit["matching"]
    matching = []
    if found["verdict"]:
        known = (("matched", found["accuracy"]), ("by chance", found["chance"]), ("fit no better", found["unrelated"]))
        matching = [
            {"name": name, "value": value, "shown": _percent(value, 1), "warn": False} for name, value in known
        ]
    return (
        Environment(autoescape=True, trim_blocks=True)
        .from_string(Path(__file__).with_name("audit.html.jinja").read_text(encoding="utf-8"))
        .render(
            audit=audit,
            title=title,
            checks=checks,
            probe=probe,
            matching=matching,
            histogram=_histogram(audit["lengths"]["histogram"]),
            shown=[name for name, share in shares.items() if share],
            fine=audit["verdict"][0].startswith("Nothing speaks against"),
            percent=partial(_percent, places=1),
        )
    )


def _histogram(bins: list[Mapping[str, int]]) -> list[dict[str, Any]]:
    if not bins:
        return []
    most, width = max(it["rows"] for it in bins), 600 / max(len(bins), 8)
    return [
        {
            "x": place * width + 1,
            "width": width - 2,
            "height": 130 * it["rows"] / most,
            "rows": it["rows"],
            "name": f"{it['from']}{'+' if place == len(bins) - 1 and place else ''}",
        }
        for place, it in enumerate(bins)
    ]
