"""What an audit of rationales looks like: a table for a terminal, and a page with its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..figures import Plot, Point, Series, draw
from ..rationales.audit import MANY, NOTHING_FOUND

_SHOWN = 5  # ids of each check


def audit_text(audit: Mapping[str, Any]) -> str:
    """The table for a terminal, under what is to be done."""
    rows, matching, probe, lengths = (audit[it] for it in ("rows", "matching", "label_probe", "lengths"))
    lines = [f"{audit['data']}: {rows} rows", "", *(f"* {line}" for line in audit["verdict"])]
    lines += ["", f"{'check':16}{'rows':>8}{'share':>9}  by label"]
    for name, ids in audit["checks"].items():
        counts = {label: it["flagged"][name] for label, it in audit["per_label"].items()}
        by_label = ", ".join(f"{label} {count}" for label, count in counts.items() if count)
        some = f"  such as {', '.join(map(str, ids[:_SHOWN]))}" if ids else ""
        lines.append(f"{name:16}{len(ids):8}{len(ids) / rows:9.1%}  {by_label}{some}".rstrip())
    said = []
    if matching["verdict"]:
        said.append(
            f"matching        {matching['verdict']}: {matching['accuracy']:.1%} of {matching['rows']} rationales are matched to "
            f"their own text among {matching['others']} others (chance {matching['chance']:.1%}); "
            f"{len(matching['mismatched'])} fit another text better"
        )
    if "reason" not in probe:
        said.append(
            f"label probe     {probe['rationale_only']:.1%} from the rationale alone, {_percent(probe['text_only'])} from the "
            f"text alone, {probe['majority']:.1%} by majority"
        )
    if lengths["mean"] is not None:
        span = f"median {lengths['median']}, {lengths['least']} to {lengths['most']}"
        said.append(f"words           mean {lengths['mean']:.1f}, {span}")
    said.append(f"duplicates      {audit['duplicates']['same_rationale']} rows share their rationale with another")
    for name, it in audit["duplicates"]["across_splits"].items():
        texts = "" if it["texts"] is None else f" and {it['texts']} texts"
        said.append(f"                {it['rationales']} rationales{texts} stand in {name} as well")
    if (it := audit["consistency"]) and it["accuracy"] is not None:
        share = f"{it['accuracy']:.1%} of {it['rows']} rationales"
        said.append(f"judge           reads the row's label out of {share}; {it['unjudged']} unjudged")
    if it := audit["truncation"]:
        said.append(f"truncation      {it['rows']} rationales do not fit into {it['max_length']} tokens")
    said += [f"note            {note}" for note in audit["notes"]]
    return "\n".join([*lines, "", *said, ""])


def audit_page(audit: Mapping[str, Any], title: str = "rationales") -> str:
    """An audit as one HTML file with its figures in it, which needs no network."""
    from . import rendered

    found, probe, bins = audit["matching"], audit["label_probe"], audit["lengths"]["histogram"]
    flagged = {name: len(ids) for name, ids in audit["checks"].items()}
    alone = {"rationale alone": "rationale_only", "text alone": "text_only", "majority": "majority"}
    fits = {"matched": "accuracy", "by chance": "chance", "fit no better": "unrelated"} if found["verdict"] else {}
    shown = [name for name, count in flagged.items() if count]
    labels = [("all", {"rows": audit["rows"], "flagged": flagged}), *audit["per_label"].items()]
    lengths = {f"from {it['from']}": it["rows"] for it in bins}
    return rendered(
        "audit.html.jinja",
        audit=audit,
        title=title,
        checks=_bars("Checks", "rows, %", _shares(flagged, audit["rows"]), flagged),
        probe=_bars("Label probe", "accuracy, %", {name: probe[it] for name, it in alone.items()}),
        matching=_bars("Matching", "rationales, %", {name: found[it] for name, it in fits.items()}),
        lengths=_bars("Length in words", "rationales, %", _shares(lengths, sum(lengths.values())), lengths),
        shown=shown,
        by_label=[[label, it["rows"], *map(it["flagged"].get, shown)] for label, it in labels],
        fine=audit["verdict"][0].startswith(NOTHING_FOUND),
        percent=_percent,
    )


def _shares(counts: Mapping[str, int], whole: int) -> dict[str, float]:
    return {name: count / whole for name, count in counts.items()}


def _bars(title: str, label: str, shares: Mapping[str, float | None], counts: Mapping[str, int] | None = None) -> Any:
    """A figure with a bar for each share, and its number behind its name; nothing where there is no bar to draw."""
    from markupsafe import Markup

    points = [
        Point(
            name,
            *[100 * share] * 3,
            kind="pooled" if title == "Checks" and share > MANY else None,
            note=f"{counts[name]} ({share:.1%})" if counts else f"{share:.1%}",
        )
        for name, share in shares.items()
        if share is not None
    ]
    drawn = any(point.value for point in points)
    return Markup(draw(Plot("bars", title, label, [Series(title, "dual_head", points)]))) if drawn else None


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"
