"""The HTML pages and the pictures of the package: one style for all, nothing loaded from elsewhere, texts escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..figures import Drawn, mark

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
_WIDTH = 640  # pixels of a picture


def style() -> str:
    """The style of all pages and pictures, light and dark."""
    return (_HERE / "style.css").read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    """Those of this folder: each is compiled once."""
    from jinja2 import Environment, FileSystemLoader

    return Environment(loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True)


def rendered(template: str, **values: Any) -> str:
    """A page of a template of this folder."""
    return _templates().get_template(template).render(style=style(), **values)


def padded(table: Sequence[Sequence[str]], numbers: bool = False) -> list[str]:
    """The lines of a table for a terminal; a row may end before the others, and all but the first column may be numbers."""
    first, *others = (max(map(len, column)) for column in zip_longest(*table, fillvalue=""))
    forms = [f"{{:{first}}}", *(f"{{:{'>' if numbers else '<'}{width}}}" for width in others)]
    return ["  ".join(form.format(cell) for form, cell in zip(forms, row, strict=False)).rstrip() for row in table]


def ratio_text(value: float, beside: float | None = None) -> str:
    """A ratio, alone or as another that it stands beside: 1/96 is read more easily than 0.0104."""
    return f"1/{1 / value:.0f}" if (value if beside is None else beside) < 0.1 else f"{value:.2f}"


def picture(drawn: Drawn) -> str:
    """A plot as an SVG file, light or dark as its reader is."""
    shown = drawn.legend if len(drawn.legend) > 1 else ()
    top = 12 + 24 * bool(shown)
    keys = (
        f'<svg x="{drawn.left + 190 * place}" y="14" overflow="visible">{mark(0, 0, kind)}'
        f'<text x="14" y="4">{escape(name)}</text></svg>'
        for place, (name, kind) in enumerate(shown)
    )
    height = top + drawn.height + drawn.below
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(drawn.title)}"><style>{style()}</style><rect width="100%" height="100%" fill="var(--paper)"/>'
        f'{"".join(keys)}<svg x="{drawn.left}" y="{top}" width="{_WIDTH - drawn.left - 22}" height="{drawn.height}" '
        f'overflow="visible">{drawn.body}</svg></svg>\n'
    )
