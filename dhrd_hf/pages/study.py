"""What a study's report looks like: its numbers and names, its tables as Markdown, and one page with their plots."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..figures import Plot, draw

BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"
DASH = "–"
_WORDS = {"cot_decoding": "CoT decoding", "macro_f1": "macro F1", "f1a": "F1a", "em": "exact match"}
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "*": "\\*", "`": "\\`", "](": "]\\(", "\n": " "}


@dataclass(frozen=True)
class Table:
    """A table of the report, and the plots that show it."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    folded: bool = False
    mean: int | None = None  # the row that is a mean of those above


@dataclass(frozen=True)
class Report:
    """What a study found."""

    title: str
    headline: list[str]
    tables: list[Table]
    counts: str
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def shown(value: Any) -> str:
    """A value as people read and type it."""
    if value is None or isinstance(value, bool):
        return "default" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) and abs(value) < 1e6 else str(value)


def words(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def options_text(config: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """Options in words, those that are known elsewhere left out."""
    return ", ".join(f"{name} {shown(it)}" for name, it in config.items() if it is not None and name not in but)


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and no minus before a zero."""
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def told(text: str, names: Iterable[str], between: str = ", ") -> list[str]:
    """A note on names, if there are any."""
    said = between.join(filter(None, names))
    return [text.replace("{}", said)] if said else []


def report_markdown(report: Report) -> str:
    parts = [_escaped(" ".join(report.headline))]
    for table in report.tables:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        body = "\n".join("| " + " | ".join(map(_escaped, cells)) + " |" for cells in lines)
        body += f"\n\n{_escaped(' '.join(table.notes))}" if table.notes else ""
        title = _escaped(table.title)
        folded = f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
        parts.append(folded if table.folded else f"### {title}\n\n{body}")
    parts.append(_escaped(" ".join([report.counts, *report.notes])))
    parts += ["```bash\n" + "\n".join(report.commands) + "\n```"] if report.commands else []
    return "\n\n".join(parts) + "\n"


def report_page(report: Report) -> str:
    """A report as one HTML file with its plots in it, which needs no network and can be sent to anyone."""
    from markupsafe import Markup

    from . import rendered

    columns = ("setting", "option", "options", "way")
    # A plot escapes its texts itself.
    return rendered("study.html.jinja", report=report, draw=lambda plot: Markup(draw(plot)), words=columns)


def with_results(readme: str, markdown: str) -> str:
    r"""A README with what stands between its two marker comments replaced."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"expected one line {BEGIN} and below it one line {END}: what is between them is replaced")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    return f"{before}{BEGIN}\n\n{markdown.strip()}\n\n{END}{after}"


def _escaped(text: str) -> str:
    """Text that is no markup in Markdown, with the bar that would end a column."""
    for sign, instead in _MARKUP.items():
        text = text.replace(sign, instead)
    return text
