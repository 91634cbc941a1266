"""Files that appear whole or not at all, the last whole checkpoint among others, and weights that are not whole."""

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
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock

if TYPE_CHECKING:
    from torch import Tensor

_SAID = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)
_LONGEST_REASON = 300
# Where a model says what it is: itself, an exported adapter, another adapter.
_CONFIGS = ("config.json", "config/config.json", "adapter_config.json")
ALIKE = 0.7  # how near a word has to be to one that may have been meant
_LOCK = "lock"  # in a folder that is being written: held as long as whoever writes it lives


def unfinished_beside(path: Path) -> Path:
    """A name for what becomes a file or folder by a rename, on its disk."""
    # Not the process id, which processes of several machines may share; not tempfile, whose files their owner alone may read.
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def did_you_mean(word: str, known: Iterable[str], quote: str = "") -> str:
    """The nearest of the known words, else one that ends as it, as `--num-train-epochs` for `--epochs`: the end of a message."""
    bare = {name.lstrip("-"): name for name in known}  # dashes alone make nothing alike
    typed = word.lstrip("-")
    near = get_close_matches(typed, bare, n=1, cutoff=ALIKE)
    ending = f"{'_' if '_' in typed else '-'}{typed}"
    near = near or [name for name in bare if len(typed) > 3 and name.endswith(ending)]
    return f": did you mean {quote}{bare[near[0]]}{quote}?" if near else ""


def near_path(path: Path, others: Iterable[str] = ()) -> str:
    """The name beside a path that is not there which is nearest to it, or one of others, as the end of a message."""
    with suppress(OSError):
        others = [*others, *(entry.name for entry in path.parent.iterdir())]
    near = get_close_matches(path.name, others, n=1, cutoff=ALIKE)
    return f": did you mean {path.with_name(near[0])}?" if near else "."


def no_such_model(name: str, reason: object) -> str:
    """What is wrong with a name that is neither a folder here nor a model on the Hub."""
    near = near_path(Path(name), () if "/" in name else ("smollm2",))
    here = f"{near} And as" if near.endswith("?") else ", and as"
    return f"{name} is no folder here{here} a Hub model it can't be read: {reason}"


def check_model_name(model: str) -> None:
    """Raise on what is neither a folder here nor a model on the Hub, which is asked once."""
    path = Path(model).expanduser()
    if not path.exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise FileNotFoundError(f"no such folder: {model}{near_path(path)}")
    if path.is_file():
        raise FileNotFoundError(f"{model} is a file: name the folder of a model.")
    if path.exists() or model == "smollm2":
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    try:
        if any(isinstance(try_to_load_from_cache(model, name), str) for name in _CONFIGS):
            return
        if constants.HF_HUB_OFFLINE:
            raise OSError("it is not among the models that were downloaded, and HF_HUB_OFFLINE is set")
        HfApi().model_info(model, timeout=10)
    # The Hub fails in many ways, with as many exception classes.
    except Exception as error:
        raise FileNotFoundError(no_such_model(model, " ".join(str(error).split())[:_LONGEST_REASON])) from error


def local_config(model: str) -> dict[str, str] | None:
    """The prompt and the label column that the config of a model names, where the model is a folder here."""
    for name in _CONFIGS[:2]:
        with suppress(OSError, ValueError, AttributeError):
            found = json.loads((Path(model).expanduser() / name).read_text(encoding="utf-8"))
            # What is not as it should be is said where the model is opened.
            known = {it: found.get(it) for it in ("prompt_template", "label_column")}
            return {it: value for it, value in known.items() if isinstance(value, str)}
    return None


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


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file, replaced at once if it is there; whoever is interrupted leaves the old one."""
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
    """What a YAML file holds."""
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write a file of any kind under, which becomes `path` at the end, or is removed after an error."""
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_beside(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def readable_model(name: str | os.PathLike) -> Iterator[None]:
    """Say in a line, where a model or its tokenizer is opened, which is not whole or not what a reader of it takes."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(
            f"the weights of {name} can't be read ({error}): download them again; a Git LFS pointer wants git lfs pull"
        ) from error
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":
            raise ValueError(
                f"{name} has weights in a pickle that may run code where it is opened, which is refused: save them as safetensors."
            ) from error
        if type(error) is ValueError and str(name) not in str(error):
            raise ValueError(f"{name}: {error}") from error
        if (
            isinstance(error, _SAID)
            and not isinstance(error, json.JSONDecodeError)
            or type(error).__name__ == "OutOfMemoryError"
            or "keyword argument" in str(error)
        ):
            raise
        # Whatever a value of a file, which should have been another, made libraries trip over.
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ValueError(
            f"{name} can't be opened ({type(error).__name__}: {reason}): one of its files is damaged or holds what it should "
            "not. Download or export it again."
        ) from error


def check_finite(tensors: Iterable[tuple[str, Tensor]], source: str | os.PathLike) -> None:
    """Raise where the weights of a model hold NaN or infinities."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.element_size() > 1 and tensor.device.type != "meta":
            finite = tensor.isfinite()
            if not finite.all():
                wrong = tensor.numel() - int(finite.sum())
                raise FloatingPointError(
                    f"{source} has a tensor {name} of which {wrong} of {tensor.numel()} numbers are not finite: what it would "
                    "say means nothing. Take an earlier checkpoint, or train with a lower learning rate."
                )


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


@contextmanager
def without_its_code(name: str | os.PathLike) -> Iterator[None]:
    """Say in a line that what is loaded comes with code of its own, where `trust_remote_code=False` keeps it from running."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code=True" not in str(error):
            raise
        raise ValueError(
            f"{name} comes with code of its own (auto_map in its config), which is not run. Name a model whose type "
            "transformers knows, or read that code and open it in Python with trust_remote_code=True."
        ) from error


def load_tokenizer(name: str | os.PathLike, **kwargs: Any) -> Any:
    """A tokenizer as `AutoTokenizer` opens it; code that comes with it is run with `trust_remote_code=True` alone."""
    from transformers import AutoTokenizer

    with readable_model(name), without_its_code(name):
        tokenizer = AutoTokenizer.from_pretrained(name, **{"trust_remote_code": False, **kwargs})
        limit = tokenizer.model_max_length
        if limit is not None and (isinstance(limit, bool | str) or not limit > 0):
            raise ValueError(f"{name} has a tokenizer whose model_max_length is {limit!r}, not a number above 0.")
        return tokenizer
