"""The page of an audit: escaped, self-contained, and drawn by a real browser where there is one."""

import re
import shutil
import subprocess

import pytest

from dhrd_hf.rationales.audit import audit_rationales
from dhrd_hf.rationales.audit_page import audit_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
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


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_a_browser_shows_it(page, tmp_path):
    path = tmp_path / "audit.html"
    path.write_text(page, encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    command = [BROWSER, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)[1]
    assert title.startswith("Audit of &lt;script&gt;")
    assert shown.count("<rect") > 20 and "<h2>Checks</h2>" in shown
