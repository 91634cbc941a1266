"""Files that appear whole or not at all, the last whole checkpoint among others, and what a mistyped name may have meant."""

from __future__ import annotations

import glob
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

from filelock import FileLock

ALIKE = 0.7  # how near a word has to be to one that may have been meant
_LOCK = "lock"  # in a folder that is being written: held as long as whoever writes it lives


def unfinished_beside(path: Path) -> Path:
    """A name for what becomes a file or folder by a rename, on its disk."""
    # Not the process id, which processes of several machines may share; not tempfile, whose files their owner alone may read.
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def did_you_mean(word: str, known: Iterable[str], quote: str = "") -> str:
    """The nearest of the known words, else one that ends or begins as it, as `--num-train-epochs` for `--epochs`: the end of a message."""
    bare = {name.lstrip("-"): name for name in known}  # dashes alone make nothing alike
    typed = word.lstrip("-")
    near = get_close_matches(typed, bare, n=1, cutoff=ALIKE)
    ending = f"{'_' if '_' in typed else '-'}{typed}"
    if not near and len(typed) > 3:
        near = [name for name in bare if name.endswith(ending)]
        near += [name for name in bare if name.startswith((f"{typed}_", f"{typed}-"))]
    return f": did you mean {quote}{bare[near[0]]}{quote}?" if near else ""


def near_path(path: Path, others: Iterable[str] = ()) -> str:
    """The name beside a path that is not there which is nearest to it, or one of others, as the end of a message."""
    with suppress(OSError):
        others = [*others, *(entry.name for entry in path.parent.iterdir())]
    near = get_close_matches(path.name, others, n=1, cutoff=ALIKE)
    return f": did you mean {path.with_name(near[0])}?" if near else "."


def checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The Trainer's checkpoints of a run, the newest first; other folders that are called so are none of them."""
    named = ((re.fullmatch(r"checkpoint-(\d+)", it.name), it) for it in Path(folder).glob("checkpoint-*"))
    found = [(int(match[1]), it) for match, it in named if match and it.is_dir()]
    return [it for _, it in sorted(found, reverse=True)]


def last_checkpoint(folder: str | os.PathLike, tell: Callable[[str], None] = lambda reason: None) -> str | None:
    """The last checkpoint of a run that is whole, having told of those after it why they are not."""
    for checkpoint in checkpoints(folder):
        reason = broken_part(checkpoint)
        if reason is None:
            return str(checkpoint)
        tell(f"{checkpoint} is passed over, as {reason}")
    return None


def broken_part(checkpoint: Path) -> str | None:
    """Why a checkpoint can't be gone on from."""
    from safetensors import SafetensorError, safe_open

    if not checkpoint.is_dir():
        return "there is no such folder"
    for file in sorted(it for it in checkpoint.iterdir() if it.is_file()):
        whole = True
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix in (".pt", ".pth", ".bin"):
                whole = zipfile.is_zipfile(file)  # as torch.save writes them: what says so is at their end
        except (SafetensorError, ValueError):
            whole = False
        if not whole:
            return f"its {file.name} is {'cut short or damaged' if file.stat().st_size else 'empty'}"
    if not (checkpoint / "trainer_state.json").is_file():
        return "it has no trainer_state.json, which is written last"
    index = checkpoint / "model.safetensors.index.json"
    shards = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()} if index.is_file() else ()
    missing = sorted(it for it in shards if not (checkpoint / it).is_file())
    return f"its {missing[0]} is missing" if missing else None


def check_new_folder(output_dir: str | os.PathLike, overwrite: bool) -> None:
    """Raise where a folder to write would replace a file, or a folder that holds something and may not be replaced."""
    target = Path(output_dir)
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file, which is never replaced by a folder. Name another.")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{target} exists and is not an empty folder. Name another, or pass overwrite=True (--overwrite)."
        )


@contextmanager
def whole_folder(output_dir: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which becomes `output_dir` at the end, or leaves no trace: if killed, until the next one."""
    target = Path(output_dir)
    if target.parent.is_dir():
        _clear_dead(target)
    check_new_folder(output_dir, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    # It gets its name when it is locked: what has such a name, and no lock that is held, is dead.
    scratch = Path(mkdtemp(prefix=".", dir=target.parent))
    lock = FileLock(scratch / _LOCK)
    with suppress(OSError, NotImplementedError):  # there are disks that know no locks
        lock.acquire(timeout=0)
    with suppress(PermissionError):  # Windows renames no folder in which a file is open
        scratch = scratch.rename(target.with_name(f".{target.name}.{uuid4().hex[:8]}"))
    try:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _clear_dead(target: Path) -> None:
    """Remove what an export that was killed left beside its folder; what it was about to replace is put back."""
    for scratch in target.parent.glob(f".{glob.escape(target.name)}.????????"):
        if not scratch.is_dir() or not {it.name for it in scratch.iterdir()} <= {"new", "old", _LOCK}:
            continue
        with suppress(OSError, NotImplementedError), FileLock(scratch / _LOCK, timeout=0):
            if (scratch / "old").is_dir() and not target.exists():
                os.replace(scratch / "old", target)
            shutil.rmtree(scratch, ignore_errors=True)


def read_yaml(path: str | os.PathLike) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write a file of any kind under, which becomes `path` at the end, or is removed after an error."""
    path = Path(path).expanduser()
    unfinished = unfinished_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename == str(unfinished):  # a name that nobody has typed
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file, replaced at once if it is there; whoever is interrupted leaves the old one."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def strict_json(value: Any, **kwargs: Any) -> str:
    """As `json.dumps`, for parsers that know no NaN and no Infinity: each is null."""
    try:
        return json.dumps(value, allow_nan=False, **kwargs)
    except ValueError:
        return json.dumps(_without_nan(value), allow_nan=False, **kwargs)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(it) for key, it in value.items()}
    if hasattr(value, "tolist"):
        return _without_nan(value.tolist())
    return [_without_nan(it) for it in value] if isinstance(value, (list, tuple)) else value
