"""The page of a study's report: its numbers, its plots, escaped and self-contained, drawn by a real browser if there is one."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from browser import needs_browser, shown
from test_report import MAIN, THROUGHPUT, cell

from dhrd_hf.figures import Plot, Point, Series, draw
from dhrd_hf.pages.study import report_page
from dhrd_hf.study.report import build_report

EVIL = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def report():
    rows = [*MAIN, cell("a", "label_only", 0, 1), cell("a", "dual_head", 0, 1, alpha=2.0)]
    rows += [cell("a", "pooled", 0, 1, train_size=1000), cell("a", "dual_head", 0, 3, train_size=1000)]
    rows += [cell(EVIL, "pooled", 0, 1), cell(EVIL, "dual_head", 0, 3), cell("a", "dual_head", 0, 2, x=1, y=2)]
    return build_report(rows, throughput=THROUGHPUT, commands=[f"dhrd study {EVIL}.yaml"])


@pytest.fixture(scope="module")
def page(report):
    return report_page(report)


class Elements(HTMLParser):
    """The tags of a page, with their attributes, and whether each that needs it was closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag, **attributes):
        return [it for name, it in self.found if name == tag and attributes.items() <= it.items()]


def test_the_page_has_the_numbers_of_the_markdown(report, page):
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    cells = [[unescape(it) for it in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]
    assert cells == [row for it in report.tables for row in (it.columns, *it.rows)]
    for line in (*report.headline, *report.notes, report.counts):
        assert line in unescape(page)


def test_every_table_but_the_folded_ones_has_its_plots_above_it(report, page):
    assert page.count("<figure>") == sum(len(it.plots) for it in report.tables)
    assert {it.name for it in report.tables if it.plots} == {"main", "settings", "alpha", "train_size", "throughput"}
    elements = Elements(page)
    assert not elements.open
    assert {it["id"] for it in elements.all("h2") + elements.all("details")} >= {it.name for it in report.tables}
    labels = [it["aria-label"] for it in elements.all("svg", role="img")]
    assert len(labels) == page.count("<figure>") and all(
        label.endswith("numbers in the table below.") for label in labels
    )


def test_the_row_of_the_mean_stands_out_also_above_others():
    rows = [*MAIN, cell("c", "pooled", 0, 1), cell("c", "dual_head", 0, 2)]
    page = report_page(build_report(rows, not_in_mean=["c"]))
    assert re.findall(r'<tr class="mean"><th scope="row">(.*?)</th>', page) == ["mean of 2"] * 3
    assert re.search(r'<tr class="mean">.*?</tr>\s*<tr><th scope="row">c</th>', page, re.DOTALL)


def test_nothing_is_loaded_and_nothing_is_run(page):
    assert "<script" not in page and "<img" not in page and "<link" not in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:|//)", page)
    assert "url(" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page and "default-src 'none'" in page


# Plots


def percent(text):
    return float(text.removesuffix("%"))


def whiskers_of(elements):
    """The horizontal ones: their ends, without the strokes that close them."""
    found = elements.all("line", **{"class": "whisker"})
    return [(percent(it["x1"]), percent(it["x2"])) for it in found if it["y1"] == it["y2"]]


def test_a_forest_has_its_estimates_where_its_ticks_say():
    points = [Point("a", 5.0, -10.0, 20.0), Point("mean of 1", -4.0, -5.0, -3.0, kind="mean")]
    elements = Elements(
        draw(Plot("forest", "title", "gain, %", [Series("dual head", "dual_head", points)], signed=True))
    )
    whiskers = whiskers_of(elements)
    # The axis goes from -10 to 20: a point is 100 / 30 of a percent.
    assert whiskers == [(0, 100), (pytest.approx(100 * 5 / 30, abs=0.01), pytest.approx(100 * 7 / 30, abs=0.01))]
    marks = [percent(it["x"]) for it in elements.all("svg", overflow="visible")]
    assert marks == pytest.approx([50, 20], abs=0.01)
    assert percent(elements.all("line", **{"class": "zero"})[0]["x1"]) == pytest.approx(100 / 3, abs=0.01)
    assert "s mean" in [it.get("class") for it in elements.all("g")]
    # The mean's whisker lies over its mark, which is hollow, and is closed at both ends.
    kinds = [it.get("class") for _, it in elements.found[elements.found.index(("g", {"class": "s mean"})) :]]
    assert kinds.index("s mean hollow") < kinds.index("whisker") and kinds.count("whisker") == 3


def test_a_wide_interval_does_not_squeeze_the_others():
    points = [Point(f"d{it}", it, it - 5.0, it + 5.0) for it in range(6)]
    points += [Point("wide", 20.0, -100.0, 178.8), Point("mean of 7", 5.0, 2.0, 8.0, kind="mean")]
    drawn = draw(Plot("forest", "t", "l", [Series("s", "dual_head", points)], signed=True))
    elements = Elements(drawn)
    # A usual half-width is 5: the axis holds the others' -5 to 10, and of the wide one three of them, to 20 + 15.
    ticks = re.findall(r'<text class="tick"[^>]*>(.*?)</text>', drawn)
    assert (ticks[0], ticks[-1]) == ("-10", "+40")
    assert whiskers_of(elements)[6] == (0, 100) and min(low for low, _ in whiskers_of(elements)[:6]) > 0
    arrows = elements.all("svg", **{"class": "s dual_head arrow"})
    assert [percent(it["x"]) for it in arrows] == [0, 100]
    assert "An arrow head: the interval goes on beyond the axis." in drawn
    assert "[-100.0, +178.8]" in drawn  # for who hovers
    usual = draw(Plot("forest", "t", "l", [Series("s", "dual_head", points[:6])]))
    assert "arrow" not in usual.lower()


def test_marks_at_one_place_are_seen_through_each_other():
    points = [Point("batches of 8", 79.7, 68.3, 87.7, x=x) for x in (20.5, 20.3)]
    names = (("classification head", "dual_head"), ("exported, pipeline", "pipeline"))
    series = [Series(*name, [point]) for name, point in zip(names, points, strict=True)]
    elements = Elements(draw(Plot("scatter", "t", "accuracy, %", series, "queries a second")))
    marks = elements.all("svg", overflow="visible")
    assert [it["class"] for it in marks[2:]] == ["s dual_head hollow", "s pipeline hollow"]
    assert [it.get("transform") for it in elements.all("path")[2:]] == ["scale(1.9)", "scale(1.2)"]


def test_points_of_one_seed_are_marked():
    points = [Point("0.5", 2.0, 1.0, 3.0, 0.5, note="(1 seed)"), Point("1", 3.0, 2.0, 4.0, 1.0)]
    for form in ("forest", "bars"):
        drawn = draw(Plot(form, "t", "l", [Series("s", "dual_head", points)]))
        assert ">0.5 (1 seed)</text>" in drawn and ">1</text>" in drawn and "<title>0.5 (1 seed): 2.0 [" in drawn
    some = draw(Plot("curve", "t", "l", [Series("s", "dual_head", points)], "alpha"))
    assert ">0.5</text>" in some and ">(1 seed)</text>" in some and ">alpha</text>" in some
    every = draw(Plot("curve", "t", "l", [Series("s", "dual_head", points[:1])], "alpha"))
    assert ">alpha (1 seed)</text>" in every and ">(1 seed)</text>" not in every


def test_ticks_are_round_and_close_the_axis():
    for low, high, expected in [
        (-1.7, 12.4, "-5 0 +5 +10 +15"),
        (0.1, 0.3, "0 +0.1 +0.2 +0.3"),
        (-70, -2, "-80 -60 -40 -20 0"),
    ]:
        plot = Plot("forest", "t", "l", [Series("s", "pooled", [Point("a", low, low, high)])], signed=True)
        assert re.findall(r'<text class="tick"[^>]*>(.*?)</text>', draw(plot)) == expected.split()
    nothing = Plot("curve", "t", "l", [Series("s", "pooled", [Point("a", 50.0, 50.0, 50.0)])])
    assert "nan" not in draw(nothing) and "inf" not in draw(nothing)


def test_bars_go_from_zero_to_the_estimate():
    points = [Point("a", 10.0, 5.0, 20.0), Point("b", -10.0, -20.0, 0.0)]
    elements = Elements(draw(Plot("bars", "t", "l", [Series("s", "dual_head", points)])))
    bars = [(percent(it["x"]), percent(it["width"])) for it in elements.all("rect")]
    assert bars == [(50, 25), (25, 25)]


def test_a_curve_joins_numbers_alone_and_keeps_series_apart():
    ours = [Point("0.5", 2.0, 1.0, 3.0, 0.5), Point("1", 3.0, 2.0, 4.0, 1.0), Point("auto", 4.0, 3.0, 5.0)]
    plot = Plot("curve", "t", "l", [Series("dual head", "dual_head", ours)], "alpha", zero=True, joined=True)
    elements = Elements(draw(plot))
    joins = elements.all("line", **{"class": "join"})
    assert [(percent(it["x1"]), percent(it["x2"])) for it in joins] == [(pytest.approx(16.67, abs=0.01), 50)]
    # From 0 to 5 on 210 pixels.
    assert [float(it["y1"]) for it in joins] == [126] and [float(it["y2"]) for it in joins] == [84]
    both = Elements(
        draw(Plot("curve", "t", "l", [Series("x", "pooled", ours), Series("y", "dual_head", ours)], "alpha"))
    )
    assert len({it["transform"] for it in both.all("g") if "transform" in it}) == 2
    assert len(both.all("ul", **{"class": "legend"})) == 1 and not elements.all("ul")


def test_a_log_axis_has_equal_ratios_at_equal_distances():
    points = [Point("250", 1.0, 0.5, 1.5, 250), Point("500", 2.0, 1.5, 2.5, 500), Point("1000", 3.0, 2.5, 3.5, 1000)]
    for plot in (
        Plot("curve", "t", "l", [Series("s", "pooled", points)], "rows", joined=True, log=True),
        Plot("scatter", "t", "l", [Series("s", "pooled", points)], "queries a second"),
    ):
        marks = [percent(it["x"]) for it in Elements(draw(plot)).all("svg", overflow="visible")]
        assert marks[1] - marks[0] == pytest.approx(marks[2] - marks[1], abs=0.02) and marks[0] < marks[1]
    ticks = re.findall(r'<text class="tick"[^>]*anchor="middle">(.*?)</text>', draw(plot))
    assert ticks == ["200", "500", "1000"]


def test_names_are_escaped_and_long_ones_broken():
    points = [Point("shuffled rationale and label", 1.0, 0.0, 2.0), Point(f"<b>{'x' * 40}", 1.0, 0.0, 2.0)]
    drawn = draw(Plot("forest", EVIL, EVIL, [Series(EVIL, EVIL, points), Series(EVIL, "pooled", points)]))
    assert ">shuffled rationale</text>" in drawn and ">and label</text>" in drawn
    assert "<script" not in drawn and "<b>" not in drawn
    assert "x" * 15 + "…" in drawn and "x" * 40 in drawn  # all of it in the title, for who hovers


@needs_browser
def test_a_browser_shows_it(page, tmp_path):
    document = shown(page, tmp_path)
    assert re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1] == "Study first"
    assert document.count("<figure>") == page.count("<figure>") and "&lt;script&gt;" in document
