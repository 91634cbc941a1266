"""What a real browser makes of a page."""

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
    command = [BROWSER, *_OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
