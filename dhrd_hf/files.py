"""Files that appear whole or not at all, the last whole checkpoint among others, and weights that are not whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


def unfinished_beside(path: Path) -> Path:
    """A name for what becomes a file or folder by a rename, on its disk; no other process has it, on whatever machine.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from dhrd_hf.files import unfinished_beside
    >>> str(unfinished_beside(Path("runs/metrics.json")))  # doctest: +SKIP
    'runs/.metrics.json.5f0c2f1c6d0e4c0ab0d7a3f1c9e7b2d4.tmp'

    ```

    Args:
        path (`Path`): Its name at the end.

    Returns:
        `Path`: beside it.
    """
    # Not the process id, which processes of several machines may share; not tempfile, whose files their owner alone may read.
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The Trainer's checkpoints of a run, the newest first; other folders that are called so are none of them.

    Example:

    ```python
    >>> from dhrd_hf.files import checkpoints
    >>> checkpoints("runs/first")  # doctest: +SKIP
    [PosixPath('runs/first/checkpoint-12'), PosixPath('runs/first/checkpoint-6')]

    ```

    Args:
        folder (`str` or `os.PathLike`): The run's output folder.

    Returns:
        `list[Path]`: the folders, whole or not.

    Source: transformers `trainer_utils.py::PREFIX_CHECKPOINT_DIR`; the number is of the step.
    """
    named = ((re.fullmatch(r"checkpoint-(\d+)", it.name), it) for it in Path(folder).glob("checkpoint-*"))
    found = [(int(match[1]), it) for match, it in named if match and it.is_dir()]
    return [it for _, it in sorted(found, reverse=True)]


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The last checkpoint of a run that is whole: a run that was killed while it saved leaves one that is not.

    Example:

    ```python
    >>> from dhrd_hf.files import last_checkpoint
    >>> last_checkpoint("runs/first")  # doctest: +SKIP
    'runs/first/checkpoint-12'

    ```

    Args:
        folder (`str` or `os.PathLike`): The run's output folder.

    Returns:
        `str`, *optional*: the checkpoint's folder; None where there is none.

    Source: transformers `trainer.py::_save_checkpoint`, which writes `trainer_state.json` last.
    """
    for checkpoint in checkpoints(folder):
        with suppress(OSError, ValueError):
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoint)
    return None


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
    unfinished = unfinished_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename == str(unfinished):  # a name that nobody has typed
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def readable_weights(name: str | os.PathLike) -> Iterator[None]:
    """Say in a line, where a model is loaded, that its weights are not whole.

    Example:

    ```python
    >>> from dhrd_hf.files import readable_weights
    >>> with readable_weights("my-classifier"):
    ...     pass

    ```

    Args:
        name (`str` or `os.PathLike`): The model, as the error names it.

    Returns:
        `Iterator[None]`: a context.

    Raises:
        OSError: if a file of its weights is cut short, or is no safetensors file.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(
            f"the weights of {name} can't be read ({error}): download them again; a Git LFS pointer wants git lfs pull"
        ) from error
