"""An audit as one HTML file with its plots in it, which needs no network and can be sent to anyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Rationales and labels are anybody's text: the template escapes all that is put into it.
_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Audit of {{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1d2330; --soft: #5c6577; --paper: #ffffff; --card: #f5f6f9; --line: #dde1e9;
  --bar: #3b6fd4; --warn: #c2410c; --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --soft: #9aa4b6; --paper: #12151c; --card: #1b202a;
  --line: #2e3644; --bar: #7aa2f7; --warn: #fb923c; --good: #4ade80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.verdict { background: var(--card); border-left: 5px solid var(--good); border-radius: 8px; padding: .8rem 1.1rem; margin-top: 1rem; }
.verdict.bad { border-color: var(--warn); } .verdict ul { margin: 0; padding-left: 1.1rem; } .verdict li { margin: .3rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem; margin-top: 1rem; }
.tile { background: var(--card); border-radius: 8px; padding: .7rem .9rem; } .tile b { display: block; font-size: 1.35rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .track { fill: var(--card); } svg .bar { fill: var(--bar); } svg .warn { fill: var(--warn); } svg .num { fill: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; }
details { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; margin: .5rem 0; } summary { cursor: pointer; }
blockquote { margin: .5rem 0; padding-left: .8rem; border-left: 3px solid var(--line); }
code { background: var(--card); padding: 0 .3em; border-radius: 4px; }
</style>
</head>
<body>
{% macro bars(rows, most, kind) %}
<svg viewBox="0 0 600 {{ 26 * rows | length }}" role="img" aria-label="{{ kind }}">
{% for row in rows %}
<text x="0" y="{{ 26 * loop.index0 + 17 }}">{{ row.name }}</text>
<rect class="track" x="150" y="{{ 26 * loop.index0 + 5 }}" width="330" height="16" rx="4"></rect>
<rect class="{{ 'warn' if row.warn else 'bar' }}" x="150" y="{{ 26 * loop.index0 + 5 }}" width="{{ '%.1f' | format(330 * row.value / most) }}" height="16" rx="4"></rect>
<text class="num" x="490" y="{{ 26 * loop.index0 + 17 }}">{{ row.shown }}</text>
{% endfor %}
</svg>
{% endmacro %}
<h1>Audit of {{ title }}</h1>
<p class="soft">{{ audit.rows }} rows; labels: {% for name, count in audit.labels.items() %}{{ name }} {{ count }}{{ ", " if not loop.last }}{% else %}none{% endfor %}</p>
<div class="verdict{{ '' if fine else ' bad' }}"><ul>{% for line in audit.verdict %}<li>{{ line }}</li>{% endfor %}</ul></div>
<div class="tiles">
<div class="tile"><span class="soft">Rationales and rows</span><b>{{ audit.matching.verdict or "not known" }}</b></div>
<div class="tile"><span class="soft">Matched to their own text</span><b>{{ percent(audit.matching.accuracy) }}</b></div>
<div class="tile"><span class="soft">Label from the rationale alone</span><b>{{ percent(audit.label_probe.rationale_only) }}</b></div>
<div class="tile"><span class="soft">Words, median</span><b>{{ audit.lengths.median if audit.lengths.median is not none else "none" }}</b></div>
</div>
<h2>Checks</h2>
<p class="soft">Share of rows that each check flags.</p>
{{ bars(checks, most_flagged, "share of rows flagged by each check") }}
<h2>What gives the label away</h2>
<p class="soft">Cross-validated accuracy of a small classifier that sees only this{% if audit.label_probe.reason %}; {{ audit.label_probe.reason }}{% endif %}.</p>
{% if probe %}{{ bars(probe, 1, "accuracy of the label probe") }}{% endif %}
{% for label, words in (audit.label_probe.telling or {}).items() %}{% if words %}<p class="soft">{{ label }}: {% for word in words %}<code>{{ word }}</code> {% endfor %}</p>{% endif %}{% endfor %}
<h2>Do rationales belong to their rows?</h2>
{% if audit.matching.verdict %}
<p class="soft">Each rationale among its own text and {{ audit.matching.others }} others.</p>
{{ bars(matching, 1, "rationales matched to their own text") }}
<p>{{ audit.matching.mismatched | length }} rows fit another text better{% if audit.matching.mismatched %}: {% for id in audit.matching.mismatched[:20] %}<code>{{ id }}</code> {% endfor %}{{ "..." if audit.matching.mismatched | length > 20 }}{% endif %}</p>
{% else %}<p>{{ audit.matching.reason }}.</p>{% endif %}
<h2>Length in words</h2>
{% if histogram %}
<svg viewBox="0 0 600 170" role="img" aria-label="histogram of the rationales' lengths">
{% for row in histogram %}<rect class="bar" x="{{ '%.1f' | format(row.x) }}" y="{{ '%.1f' | format(140 - row.height) }}" width="{{ '%.1f' | format(row.width) }}" height="{{ '%.1f' | format(row.height) }}" rx="2"><title>{{ row.name }}: {{ row.rows }}</title></rect>
{% if loop.index0 % 4 == 0 %}<text class="num" x="{{ '%.1f' | format(row.x) }}" y="160">{{ row.name }}</text>{% endif %}{% endfor %}
</svg>
<p class="soft">Mean {{ "%.1f" | format(audit.lengths.mean) }}, from {{ audit.lengths.least }} to {{ audit.lengths.most }}.</p>
{% else %}<p>There are no rationales.</p>{% endif %}
{% if audit.per_label %}
<h2>By label</h2>
<div class="scroll"><table><tr><th>label</th><th>rows</th>{% for name in shown %}<th>{{ name }}</th>{% endfor %}</tr>
{% for label, it in audit.per_label.items() %}<tr><td>{{ label }}</td><td>{{ it.rows }}</td>{% for name in shown %}<td>{{ it.flagged[name] }}</td>{% endfor %}</tr>{% endfor %}
</table></div>
{% endif %}
<h2>Duplicates and templates</h2>
<p>{{ audit.duplicates.same_rationale }} rows share their rationale with another row{% if audit.duplicates.same_text is not none %}, {{ audit.duplicates.same_text }} their text{% endif %}.
{% for name, it in audit.duplicates.across_splits.items() %} In {{ name }} as well: {{ it.rationales }} rationales{% if it.texts is not none %}, {{ it.texts }} texts{% endif %}.{% endfor %}</p>
{% if audit.openings %}<p class="soft">Commonest openings: {% for it in audit.openings %}<code>{{ it.words }}</code> {{ it.rows }}{{ ", " if not loop.last }}{% endfor %}</p>{% endif %}
{% if audit.truncation %}<h2>Truncation</h2><p>{{ audit.truncation.rows }} rationales do not fit into {{ audit.truncation.max_length }} tokens behind their texts; the longest row has {{ audit.truncation.most_tokens }}.</p>{% endif %}
{% if audit.consistency %}<h2>Judge</h2><p>Of {{ audit.consistency.rows }} rationales the judge reads the label out of {{ percent(audit.consistency.accuracy) }}.</p>{% endif %}
{% if audit.examples %}<h2>Examples</h2>
{% for name, rows in audit.examples.items() %}<details><summary>{{ name }}: {{ audit.checks[name] | length }}</summary>
{% for it in rows %}<blockquote>{{ it.rationale or "(nothing)" }}<br><span class="soft"><code>{{ it.id }}</code> {{ it.reason }}</span></blockquote>{% endfor %}</details>
{% endfor %}{% endif %}
{% if audit.notes %}<h2>Notes</h2><ul>{% for note in audit.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
<p class="soft">Written by <code>dhrd rationales audit</code>.</p>
</body>
</html>
"""


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
        {"name": shown, "value": value, "shown": _percent(value), "warn": False}
        for key, shown in names.items()
        if (value := audit["label_probe"][key]) is not None
    ]
    found = audit["matching"]
    matching = []
    if found["verdict"]:
        known = (("matched", found["accuracy"]), ("by chance", found["chance"]), ("fit no better", found["unrelated"]))
        matching = [{"name": name, "value": value, "shown": _percent(value), "warn": False} for name, value in known]
    return (
        Environment(autoescape=True, trim_blocks=True)
        .from_string(_TEMPLATE)
        .render(
            audit=audit,
            title=title,
            checks=checks,
            most_flagged=max(0.05, *shares.values()),
            probe=probe,
            matching=matching,
            histogram=_histogram(audit["lengths"]["histogram"]),
            shown=[name for name, share in shares.items() if share],
            fine=audit["verdict"][0].startswith("Nothing speaks against"),
            percent=_percent,
        )
    )


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


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
