"""What a real browser makes of a page."""

import re
import shutil
import subprocess

import pytest

_NAMES = ("chromium", "google-chrome", "chromium-browser")
BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser here")


def shown(page, folder):
    """The document that a headless browser has made of a page."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    return _run(folder, "--dump-dom", path.as_uri())


def widths(page, folder, width):
    """How wide a page's window is, and how wide what is in it, on a screen of so many pixels."""
    # In a frame, since a window of a browser is never very narrow; what measures it is outside the page.
    path = folder / "frame.html"
    (folder / "page.html").write_text(page, encoding="utf-8")
    path.write_text(
        f"""<iframe id="f" src="page.html" style="width:{width}px;height:900px;border:0"></iframe><p id="out"></p><script>
        onload = () => {{ const root = document.getElementById("f").contentDocument.documentElement;
          document.getElementById("out").textContent = root.clientWidth + " " + root.scrollWidth; }}</script>""",
        encoding="utf-8",
    )
    said = _run(folder, "--allow-file-access-from-files", "--hide-scrollbars", "--dump-dom", path.as_uri())
    return tuple(map(int, re.search(r'id="out">(\d+) (\d+)<', said).groups()))


def _run(folder, *arguments):
    command = [BROWSER, *_OPTIONS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
