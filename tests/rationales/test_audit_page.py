"""The page of an audit: escaped, self-contained, and drawn by a real browser where there is one."""

import re

import pytest
from browser import needs_browser, shown

from dhrd_hf.pages.audit import audit_page
from dhrd_hf.rationales.audit import audit_rationales
from dhrd_hf.rationales.checks import CHECKS

EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def page():
    names = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "kiwi", "lynx", "mole", "newt"]
    rows = [
        {
            "id": f"{name}{EVIL}",
            "text": f"Can the {name} swim?",
            "label": ["yes", EVIL][place % 2],
            "rationale": f"An {name} {EVIL}",
        }
        for place, name in enumerate(names)
    ]
    return audit_page(audit_rationales(rows), title=EVIL)


def test_nothing_is_loaded_and_nothing_is_run(page):
    assert "<script" not in page and "<img" not in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:|//)", page)
    assert "url(" not in page and "@import" not in page


def bars(page, title):
    """Name, what is said of it, and the share of the axis that a bar takes, times the axis: of each bar of a figure."""
    figure = re.search(rf"<title>{title}</title>(.*?)</svg></div>", page, re.DOTALL)[1]
    [end] = re.findall(r'x="100.00%"[^>]*>([\d.]+)</text>', figure)
    found = re.findall(
        r'<g class="s (\w+)"><title>(.+?)((?: \d+)?) \(?([\d.]+)%\)?: [\d.]+</title>.*?<rect class="bar" x="0.00%" width="([\d.]+)%"',
        figure,
    )
    return {
        name: (kind, count.strip(), float(said), float(width) * float(end) / 100)
        for kind, name, count, said, width in found
    }


def test_a_bar_is_as_long_as_its_share(page):
    checks = bars(page, "Checks")
    assert list(checks) == [*CHECKS, "not_text"]
    assert {(count, said) for _, count, said, _ in checks.values()} >= {("0", 0.0), ("14", 100.0)}
    assert {kind for kind, _, said, _ in checks.values() if said > 2} == {"pooled"}
    assert {kind for kind, _, said, _ in checks.values() if said <= 2} == {"dual_head"}
    others = [bars(page, title) for title in ("Label probe", "Matching", "Length in words")]
    assert [list(its) for its in others[:2]] == [
        ["rationale alone", "text alone", "majority"],
        ["matched", "by chance", "fit no better"],
    ]
    assert {kind for its in others for kind, *_ in its.values()} == {"dual_head"}
    for _, _, said, drawn in (bar for its in (checks, *others) for bar in its.values()):
        assert drawn == pytest.approx(said, abs=0.06)


def test_the_numbers_stand_in_tables_too(page):
    cells = re.findall(r"<td>([^<]*)</td>", page)
    assert page.count("<table>") == 4 and cells.count("14") >= 1 and "50.0%" in cells


def test_the_lengths_are_drawn_in_proportion():
    rows = [{"label": "a", "rationale": " ".join(["word"] * count)} for count in (3, 4, 4, 4, 4, 9)]
    found = bars(audit_page(audit_rationales(rows)), "Length in words")
    assert list(found) == [f"from {words}" for words in range(10)]
    assert [count for _, count, _, _ in found.values()] == ["0", "0", "0", "1", "4", "0", "0", "0", "0", "1"]
    whole = [100 * count / 6 for count in (0, 0, 0, 1, 4, 0, 0, 0, 0, 1)]
    assert [drawn for _, _, _, drawn in found.values()] == pytest.approx(whole, abs=0.01)


def test_a_page_of_little_says_so():
    nothing = audit_page(audit_rationales([{"label": "a", "rationale": None}] * 3, min_words=0))
    assert "There are no rationales." in nothing and "matching needs the rows" in nothing
    fine = [{"text": "Is it even?", "label": "a", "rationale": "A number is told by its end."}]
    assert "No check flags a row." in audit_page(audit_rationales(fine))


@needs_browser
def test_a_browser_shows_it(page, tmp_path):
    document = shown(page, tmp_path)
    title = re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1]
    assert title.startswith("Audit of &lt;script&gt;")
    assert document.count("<rect") > 20 and ">Checks</h2>" in document
