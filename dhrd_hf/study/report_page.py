"""A report as one HTML file with its plots in it, which needs no network and can be sent to anyone."""

from __future__ import annotations

from pathlib import Path

from .figures import Plot, draw
from .report import Report


def report_page(report: Report) -> str:
    """A report as a page of HTML."""
    from jinja2 import Environment
    from markupsafe import Markup

    def drawn(plot: Plot) -> Markup:
        return Markup(draw(plot))  # which escapes its texts itself

    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(template).render(
        report=report, draw=drawn, words=("setting", "option", "options", "way")
    )
