"""Plots as inline SVG: no library, no script, colours from the page's CSS, so that dark and narrow screens get theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import median

_ROW = 30  # pixels of a line of a horizontal plot
_CURVE = 210  # height of a plot with a vertical axis
_CHARACTER = 7.2  # pixels, the width of an average one in the plots' font, on the wide side
_LONGEST_NAME = 20  # characters of a line
_REACH = 3  # half-widths of a usual interval, beyond which an axis need not follow a wide one
_STRIP = 40  # height of the bars below a reliability diagram
_MOST_POINTS = 200  # of a curve
_COLOURS = ("dual_head", "pooled", "cot_decoding", "mean", "other")
_BEYOND = "An arrow head: the interval goes on beyond the axis."
# Around the point, in pixels; shapes differ, so that colour is not all that tells the series apart.
_SHAPES = {
    "pooled": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
    "dual_head": "M-4.5 -4.5H4.5V4.5H-4.5Z",
    "cot_decoding": "M0 -6L5.5 4.5H-5.5Z",
    "mean": "M0 -6L6 0L0 6L-6 0Z",
    "pipeline": "M-5.5 -4.5H5.5L0 6Z",
    "onnx": "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "openvino": "M0 -6L6 -1.5L3.7 5.5H-3.7L-6 -1.5Z",
}


@dataclass(frozen=True)
class Point:
    """One estimate with its interval."""

    name: str
    value: float
    low: float
    high: float
    x: float | None = None
    kind: str | None = None
    note: str = ""

    @property
    def named(self) -> str:
        return f"{self.name} {self.note}".rstrip()


@dataclass(frozen=True)
class Series:
    """Points that belong together."""

    name: str
    kind: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Plot:
    """What a plot shows; [`draw`] makes it SVG."""

    form: str
    title: str
    label: str
    series: Sequence[Series]
    x_label: str = ""
    zero: bool = False
    joined: bool = False
    signed: bool = False
    log: bool = False

    @property
    def points(self) -> list[Point]:
        return [point for series in self.series for point in series.points]


@dataclass(frozen=True)
class Drawn:
    """A plot that was drawn."""

    title: str
    body: str
    height: int
    left: int
    below: int
    legend: Sequence[tuple[str, str]] = ()
    about: str = ""
    hollow: bool = False
    note: str = ""

    def html(self) -> str:
        """A legend where there are several series, and one SVG as wide as there is room."""
        names = (
            f'<li><svg width="14" height="14" aria-hidden="true">{mark(50, 7, kind, self.hollow)}</svg>{escape(name)}</li>'
            for name, kind in self.legend
        )
        said = f"{self.title}{self.about}; numbers in the table below."
        return (
            (f'<ul class="legend">{"".join(names)}</ul>' if len(self.legend) > 1 else "")
            + f'<div class="plot" style="padding: 8px 22px {self.below}px {self.left}px">'
            + f'<svg width="100%" height="{self.height}" role="img" aria-label="{escape(said)}">'
            + f"<title>{escape(self.title)}</title>{self.body}</svg></div>{self.note}"
        )


def draw(plot: Plot) -> str:
    body, height, left, below = (_horizontal if plot.form in ("forest", "bars") else _vertical)(plot)
    note = f'<p class="soft">{_BEYOND}</p>' if 'arrow"' in body else ""
    about = f". {plot.x_label + ' against ' if plot.x_label else ''}{plot.label}"
    legend = [(it.name, it.kind) for it in plot.series]
    return Drawn(plot.title, body, height, left, below, legend, about, plot.form == "scatter", note).html()


def _horizontal(plot: Plot) -> tuple[str, int, int, int]:
    """Forest and bars: a line for each point."""
    points = [(point, point.kind or series.kind) for series in plot.series for point in series.points]
    axis = _Axis.of_bulk(plot.points)
    height = _ROW * len(points)
    widest = _CHARACTER * max(len(text) for point, _ in points for text in _lines(point.named))
    parts = []
    for tick in axis.ticks:
        x = _percent(axis.share(tick))
        parts.append(f'<line class="{"zero" if tick == 0 else "grid"}" x1="{x}" x2="{x}" y1="0" y2="{height}"/>')
        parts.append(_below(x, height + 18, _tick(tick, plot)))
    for place, (point, kind) in enumerate(points):
        y = _ROW * place + _ROW / 2
        low, high = (_percent(min(max(axis.share(it), 0), 1)) for it in (point.low, point.high))
        beyond = point.low < axis.low - 1e-9, point.high > axis.high + 1e-9
        parts.append(f'<g class="s {_class(kind)}"><title>{escape(_said(point, plot))}</title>')
        if place and "mean" in (kind, points[place - 1][1]):
            parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y - _ROW / 2:g}" y2="{y - _ROW / 2:g}"/>')
        lines = _lines(point.named)
        for line, text in enumerate(lines):
            below = y + 4.5 + 13 * (line - (len(lines) - 1) / 2)
            parts.append(f'<text x="-10" y="{below:g}" text-anchor="end">{escape(text)}</text>')
        if plot.form == "bars":
            start, end = sorted((axis.share(0), axis.share(point.value)))
            parts.append(
                f'<rect class="bar" x="{_percent(start)}" width="{_percent(end - start)}" y="{y - 9:g}" height="18"/>'
            )
        shape = "" if plot.form == "bars" else mark(100 * axis.share(point.value), y, kind, kind == "mean")
        sure = point.low == point.high  # a count, which has no interval
        whisker = "" if sure else f'<line class="whisker" x1="{low}" x2="{high}" y1="{y:g}" y2="{y:g}"/>'
        # The mean's, which is narrow, over a hollow mark.
        parts += [shape, whisker] if kind == "mean" else [whisker, shape]
        for end, further, arrow in zip((low, high), beyond, ("M9 -5L0 0L9 5Z", "M-9 -5L0 0L-9 5Z"), strict=True):
            if further:
                parts.append(_shape(float(end.rstrip("%")), y, arrow, f"{_class(kind)} arrow"))
            elif kind == "mean" or (plot.form == "bars" and not sure):
                parts.append(f'<line class="whisker" x1="{end}" x2="{end}" y1="{y - 4:g}" y2="{y + 4:g}"/>')
        parts.append("</g>")
    parts.append(_below("50%", height + 38, escape(plot.label), "label"))
    return "".join(parts), height, round(widest) + 18, 48


def _vertical(plot: Plot) -> tuple[str, int, int, int]:
    """Curves and scatters: values upwards."""
    axis = _Axis.around([value for point in plot.points for value in (point.low, point.high)], zero=plot.zero)
    places, across = _across(plot)
    notes = {point.name: point.note for point in plot.points}
    of_all = next(iter(notes.values())) if len(set(notes.values())) == 1 else ""
    below = 14 * (any(notes.values()) and not of_all)  # a second line of tick labels
    parts = [_level(axis.share(tick), _tick(tick, plot), plot.zero and tick == 0) for tick in axis.ticks]
    for name, share in across:
        x = _percent(share)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_CURVE}" y2="{_CURVE + 5}"/>')
        parts.append(_below(x, _CURVE + 20, escape(_cut(name))))
        if below:
            parts.append(_below(x, _CURVE + 34, escape(notes.get(name, ""))))
    for number, series in enumerate(plot.series):
        # Side by side, else the intervals of two series at one place would hide each other.
        aside = 9 * (number - (len(plot.series) - 1) / 2) if plot.form == "curve" else 0
        parts.append(f'<g class="s {_class(series.kind)}" transform="translate({aside:g} 0)">')
        at = [(places[point.name, point.x], _CURVE * (1 - axis.share(point.value))) for point in series.points]
        if plot.joined:
            # Only numbers are in an order: "auto" stands alone.
            parts.extend(
                f'<line class="join" x1="{_percent(x)}" y1="{y:.1f}" x2="{_percent(x2)}" y2="{y2:.1f}"/>'
                for (x, y), (x2, y2), point in zip(at, at[1:], series.points[1:], strict=False)
                if point.x is not None
            )
        for point, (x, y) in zip(series.points, at, strict=True):
            low, high = (f"{_CURVE * (1 - axis.share(it)):.1f}" for it in (point.low, point.high))
            said = f"{series.name}, {_said(point, plot)}"
            parts.append(f"<g><title>{escape(said)}</title>")
            thin = " thin" * (plot.form == "scatter")
            parts.append(f'<line class="whisker{thin}" x1="{_percent(x)}" x2="{_percent(x)}" y1="{low}" y2="{high}"/>')
            # Ways that are equally fast and right stand at one place: large and small, each is seen through the other.
            size = (1.2 if number % 2 else 1.9) if plot.form == "scatter" else 1
            parts.append(mark(100 * x, y, series.kind, plot.form == "scatter", size) + "</g>")
        parts.append("</g>")
    parts.append(_below("50%", _CURVE + 42 + below, escape(f"{plot.x_label} {of_all}".strip()), "label"))
    parts.append(_upwards(escape(plot.label)))
    return "".join(parts), _CURVE, 62, 54 + below


def curves(title: str, x_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Drawn:
    """Lines over a numeric axis, such as losses over steps: each a name with its points, in one colour after the other."""
    kinds = dict(zip(series, _COLOURS, strict=False))
    points = [point for its in series.values() for point in its]
    axis = _Axis.around([y for _, y in points], zero=True)
    across = _Axis.around([x for x, _ in points], zero=True)
    parts = [_level(axis.share(tick), f"{tick:g}") for tick in axis.ticks]
    for tick in across.ticks:
        parts.append(_below(_percent(tick / across.high), _CURVE + 20, f"{tick:g}"))
    for name, its in series.items():
        step = max(1, len(its) // _MOST_POINTS)
        at = [(100 * x / across.high, _CURVE * (1 - axis.share(y))) for x, y in [*its[::step], its[-1]]]
        lines = "".join(
            f'<line class="join" x1="{x:.2f}%" y1="{y:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"/>'
            for (x, y), (x2, y2) in pairwise(at)
        )
        said = f"{name}: {its[0][1]:.4g} at {its[0][0]:g}, {its[-1][1]:.4g} at {its[-1][0]:g}"
        parts.append(
            f'<g class="s {kinds[name]}"><title>{escape(said)}</title>{lines}{mark(*at[-1], kinds[name])}</g>'
        )
    parts.append(_below("50%", _CURVE + 42, escape(x_label), "label"))
    return Drawn(title, "".join(parts), _CURVE, 62, 54, list(kinds.items()))


def _level(share: float, shown: str, zero: bool = False) -> str:
    """A line across a plot, with its value on the left."""
    y = f"{_CURVE * (1 - share):.1f}"
    return (
        f'<line class="{"zero" if zero else "grid"}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="tick" x="-8" y="{float(y) + 4.5:g}" text-anchor="end">{shown}</text>'
    )


def reliability_diagram(title: str, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Drawn:
    """Accuracy against confidence, from `reliability`: a mark for each bin, and below how many rows it has."""
    kinds = dict(zip(curves, _COLOURS, strict=False))
    most = max(point["rows"] for its in curves.values() for point in its)
    parts = ['<line class="zero" x1="0" y1="100%" x2="100%" y2="0" stroke-dasharray="5 5"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_level(tick, f"{tick:.0%}"))
        parts.append(_below(_percent(tick), _CURVE + _STRIP + 20, f"{tick:.0%}"))
    for number, (name, its) in enumerate(curves.items()):
        kind = kinds[name]
        for point in its:
            x, y = point["confidence"], _CURVE * (1 - point["accuracy"])
            said = f"{name}: {point['rows']} rows, sure to {x:.1%}, right in {point['accuracy']:.1%}"
            parts.append(f'<g class="s {kind}"><title>{escape(said)}</title>{mark(100 * x, y, kind)}')
            high = (_STRIP - 8) * point["rows"] / most
            parts.append(
                f'<rect class="bar" x="{_percent(x)}" width="6" height="{high:.1f}" y="{_CURVE + _STRIP - high:.1f}" '
                f'transform="translate({7 * (number - len(curves) / 2):g} 0)"/></g>'
            )
    parts.append(_below("50%", _CURVE + _STRIP + 42, f"confidence; bars: rows of each bin, at most {most}", "label"))
    parts.append(_upwards("accuracy"))
    # The diagonal ends where the strip of rows begins.
    body = f'<svg width="100%" height="{_CURVE}" overflow="visible">{parts[0]}</svg>{"".join(parts[1:])}'
    return Drawn(title, body, _CURVE + _STRIP, 62, 54, list(kinds.items()))


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Drawn:
    """A confusion matrix: a line for each true label, a column for each predicted one, as dark as its share of the line."""
    short, width, top = [_cut(name) for name in names], 100 / len(names), 44
    left = round(_CHARACTER * max(map(len, short))) + 18
    in_full = len(names) <= 4 and max(map(len, short)) <= 12
    parts = ['<text class="label" x="0" y="12">rows: true; columns: predicted</text>']
    for column, name in enumerate(short):
        shown = escape(name) if in_full else str(column + 1)
        parts.append(
            f'<text class="tick" x="{(column + 0.5) * width:.2f}%" y="34" text-anchor="middle">{shown}</text>'
        )
    for line, (name, its) in enumerate(zip(short, counts, strict=True)):
        y = top + _ROW * line
        shown = escape(name if in_full else f"{line + 1}  {name}")
        parts.append(f'<text x="-10" y="{y + 20}" text-anchor="end">{shown}</text>')
        for column, count in enumerate(its):
            share, kind = count / (sum(its) or 1), "dual_head" if line == column else "pooled"
            said = f"{names[line]}, predicted {names[column]}: {count} of {sum(its)} rows"
            parts.append(
                f'<g class="s {kind}"><title>{escape(said)}</title>'
                f'<rect fill="currentColor" fill-opacity="{0.75 * share:.2f}" stroke="var(--line)" x="{column * width:.2f}%" '
                f'width="{width:.2f}%" y="{y}" height="{_ROW}"/>'
                f'<text x="{(column + 0.5) * width:.2f}%" y="{y + 20}" text-anchor="middle">{count}</text></g>'
            )
    return Drawn(title, "".join(parts), top + _ROW * len(names), left + 24 * (not in_full), 8)


def _across(plot: Plot) -> tuple[dict[tuple[str, float | None], float], list[tuple[str, float]]]:
    """Where each point stands along the width, in shares of it; and the ticks, by name."""
    points = plot.points
    if plot.form == "scatter":
        exponents = [math.log10(point.x) for point in points]
        low, high = min(exponents) - 0.15, max(exponents) + 0.15
        at = {(point.name, point.x): (math.log10(point.x) - low) / (high - low) for point in points}
        decades = range(math.floor(low), math.ceil(high) + 1)
        steps = (1,) if high - low > 2 else (1, 2, 5)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        shares = [(f"{tick:g}", (math.log10(tick) - low) / (high - low)) for tick in ticks]
        return at, [(name, share) for name, share in shares if 0 <= share <= 1]
    names = list(dict.fromkeys(point.name for point in points))
    share = {name: (place + 0.5) / len(names) for place, name in enumerate(names)}
    if plot.log:
        exponents = {point.name: math.log10(point.x) for point in points}
        low, high = min(exponents.values()), max(exponents.values())
        share = {name: 0.08 + 0.84 * (it - low) / (high - low or 1) for name, it in exponents.items()}
    return {(point.name, point.x): share[point.name] for point in points}, list(share.items())


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def around(cls, values: Sequence[float], zero: bool) -> _Axis:
        """An axis that holds the values, with at most seven round ticks, of which the outer ones close it."""
        low, high = min(values), max(values)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-9:
            low, high = low - 1, high + 1
        least = (high - low) / 5
        size = 10.0 ** math.floor(math.log10(least))
        step = next(size * it for it in (1, 2, 5, 10) if size * it >= least * (1 - 1e-9))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        # Rounded: 3 * 0.1 is no tick.
        ticks = [round(step * place, 10) for place in range(first, last + 1)]
        return cls(ticks[0], ticks[-1], ticks)

    @classmethod
    def of_bulk(cls, points: Sequence[Point]) -> _Axis:
        """An axis with 0 that holds all estimates, and intervals as far as most reach: one wide one would squeeze the others."""
        reach = _REACH * median((point.high - point.low) / 2 for point in points)
        ends = [(max(it.low, it.value - reach), it.value, min(it.high, it.value + reach)) for it in points]
        return cls.around([value for its in ends for value in its], zero=True)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _said(point: Point, plot: Plot) -> str:
    """A point in words, for whoever hovers over it."""
    sign = "+" if plot.signed else ""
    at = f" ({point.x:.4g})" if plot.form == "scatter" else ""
    interval = f" [{point.low:{sign}.1f}, {point.high:{sign}.1f}]" if point.low < point.high else ""
    return f"{point.named}{at}: {point.value:{sign}.1f}{interval}"


def _tick(value: float, plot: Plot) -> str:
    return f"{value:+g}" if plot.signed and value else f"{value:g}"


def mark(x: float, y: float, kind: str, hollow: bool = False, size: float = 1) -> str:
    return _shape(x, y, _SHAPES.get(kind, _SHAPES["pooled"]), _class(kind) + " hollow" * hollow, size)


def _shape(x: float, y: float, shape: str, kind: str, size: float = 1) -> str:
    scaled = "" if size == 1 else f' transform="scale({size:g})"'
    return f'<svg x="{x:.2f}%" y="{y:.1f}" overflow="visible" class="s {kind}"><path d="{shape}"{scaled}/></svg>'


def _class(kind: str) -> str:
    return kind if kind in _SHAPES else "other"


def _lines(name: str) -> list[str]:
    """A name in one line or, where it is long, in two."""
    if len(name) <= _LONGEST_NAME:
        return [name]
    breaks = [place for place, letter in enumerate(name) if letter == " "] or [len(name)]
    middle = min(breaks, key=lambda place: abs(2 * place - len(name)))
    return [_cut(line) for line in (name[:middle], name[middle + 1 :]) if line]


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _below(x: str, y: float, shown: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x}" y="{y:g}" text-anchor="middle">{shown}</text>'


def _upwards(shown: str) -> str:
    turned = f"translate(-44 {_CURVE / 2:g}) rotate(-90)"
    return f'<text class="label" transform="{turned}" text-anchor="middle">{shown}</text>'


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
