"""The page of an audit: escaped, self-contained, and drawn by a real browser where there is one."""

import re

import pytest
from browser import needs_browser, shown

from dhrd_hf.rationales.audit import audit_rationales
from dhrd_hf.rationales.checks import CHECKS
from dhrd_hf.rationales.report import audit_page

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


def test_plots_have_a_bar_for_each_check(page):
    assert page.count("<svg") >= 3
    assert all(f">{name}</text>" in page for name in ("label_leak", "near_duplicate", "length", "majority"))


def test_a_bar_is_as_long_as_its_share(page):
    tracks = {float(width) for width in re.findall(r'class="track"[^>]* width="([\d.]+)"', page)}
    (whole,) = tracks
    drawn = re.findall(
        r'class="(?:bar|warn)" [^>]*width="([\d.]+)"[^>]*></rect>\s*<text class="num"[^>]*>([^<]+)<', page
    )
    assert len(drawn) >= len(CHECKS) + 3
    for width, said in drawn:
        share = float(re.search(r"([\d.]+)%", said)[1]) / 100
        assert float(width) / whole == pytest.approx(share, abs=0.001)
    assert {"0 (0.0%)", "14 (100.0%)"} <= {said for _, said in drawn}


def test_the_histogram_stands_on_one_line_and_in_proportion():
    rows = [{"label": "a", "rationale": " ".join(["word"] * count)} for count in (3, 4, 4, 4, 4, 9)]
    page = audit_page(audit_rationales(rows))
    bars = re.findall(r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" rx="2"><title>(\d+)', page)
    assert [int(bar[4]) for bar in bars] == list(range(10))
    assert {float(y) + float(height) for _, y, _, height, _ in bars} == {140.0}
    assert [float(bar[3]) / 130 for bar in bars] == pytest.approx([0, 0, 0, 0.25, 1, 0, 0, 0, 0, 0.25], abs=0.001)
    ends = [(float(x), float(x) + float(width)) for x, _, width, _, _ in bars]
    assert all(before[1] < after[0] for before, after in zip(ends, ends[1:], strict=False))
    assert ends[0][0] >= 0 and 590 <= ends[-1][1] <= 600


@needs_browser
def test_a_browser_shows_it(page, tmp_path):
    document = shown(page, tmp_path)
    title = re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1]
    assert title.startswith("Audit of &lt;script&gt;")
    assert document.count("<rect") > 20 and "<h2>Checks</h2>" in document
