"""Text files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file, replaced at once if it is there; whoever is interrupted leaves the old one.

    Example:

    ```python
    >>> from dhrd_hf.files import write_whole
    >>> write_whole("metrics.json", "{}")

    ```

    Args:
        path (`str` or `os.PathLike`): The file; its folder is made.
        text (`str`): What it shall hold, in UTF-8.

    Raises:
        OSError: if it can't be written.
    """
    path = Path(path).expanduser()
    # Beside the target, so that the rename stays on one disk.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
