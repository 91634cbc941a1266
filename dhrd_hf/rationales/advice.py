"""What an audit's numbers call for, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.label_names import alike
from .checks import CHECKS

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
        said.append(
            f"About {matching['unrelated']:.0%} of the rationales do not belong to their rows; {len(matching['mismatched'])} are "
            "listed. Look for a join by the wrong key before training."
        )
    alone, text_only = probe["rationale_only"], probe["text_only"]
    base = max(filter(None, (text_only, probe["majority"])), default=None)
    if alone is not None and base is not None and alone - base > _GIVES_AWAY:
        said.append(
            f"The rationale alone gives the label away to {alone:.0%} (text alone {_percent(text_only)}, majority "
            f"{probe['majority']:.0%}): accuracy with a gold rationale in the input is no result."
        )
    for name in sorted(CHECKS, key=lambda it: -len(report["checks"][it])):
        count = len(report["checks"][name])
        if count > _MANY * rows:
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


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.0%}"
