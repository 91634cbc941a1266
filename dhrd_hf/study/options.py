"""The options of `dhrd train` that a study's file gives: under one spelling, from a recipe too, and none that writes elsewhere."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# What the runner says itself, what would make a run another than it is recorded as, and what writes or uploads.
_SAID_BY = dict.fromkeys(("train_data", "eval_data", "more_eval_data", "validation_data", "rationales"), "data")
_SAID_BY |= dict.fromkeys(("eval_split", "group_column"), "data")
_SAID_BY |= {"label_column": "data", "rationale_column": "data", "config": "train"}
_SAID_BY |= {"output_dir": "the command's --output-dir", "export": "keep_models", "push_to_hub": "keep_models"}
_SAID_BY |= {"encoding_cache": "nothing: the runs share one"}
_SAID_BY |= dict.fromkeys(("predictions", "logits"), "nothing: each run has its own")
_SAID_BY |= {"logging_dir": "nothing: a run's files are in its folder"}
_SAID_BY |= {"overwrite_output_dir": "nothing: each run has a folder of its own"}
_SAID_BY |= dict.fromkeys(
    ("resume", "resume_from_checkpoint"), "nothing: a run that was interrupted goes on by itself"
)
_SAID_BY |= {"help": "dhrd train --help", "help_all": "dhrd train --help-all"}
_OF_TEACHER = "nothing: it is of one set of rows, and runs have several; their teacher runs beside them"
_SAID_BY |= {"teacher_cache": _OF_TEACHER}
# Of these a recipe of dhrd train has its own, in whose place the study's are.
_OF_A_RECIPE = (
    "train_data",
    "eval_data",
    "validation_data",
    "rationales",
    "label_column",
    "rationale_column",
    "model",
)
_OF_A_RECIPE += ("output_dir", "predictions", "logits", "encoding_cache")
_READ = ("model", "teacher", "gguf_file", "prompt", "suffix", "deepspeed", "fsdp_config", "accelerator_config")
# Lists of options of our own; those of TrainingArguments are typed as several words.
_WITH_COMMAS = ("class_weights", "target_modules")
_NUMBER = re.compile(r"-[\d.]+(e[+-]?\d+)?", re.IGNORECASE)


def hint(name: Any, known: Iterable[str]) -> str:
    """The nearest of the known names, or all of them, as the end of an error message."""
    near = difflib.get_close_matches(str(name), [*known], n=1)
    return f": did you mean {near[0]!r}?" if near else f". There are {', '.join(known)}"


def read_yaml(path: Path) -> Any:
    """What a YAML file holds."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def read_options(given: Any, where: str, folder: Path) -> dict[str, Any]:
    """Options under one spelling; a `ValueError` names the first that a study can't have."""
    if not isinstance(given, dict):
        kind = "nothing" if given is None else f"a {type(given).__name__}"
        raise ValueError(f"{where} must hold options of dhrd train by name, and holds {kind}")
    options = {str(name).replace("-", "_"): value for name, value in given.items()}
    if len(options) < len(given):
        raise ValueError(f"{where} has an option twice, as with - and with _: {', '.join(map(repr, given))}")
    for name, value in options.items():
        if name in _SAID_BY:
            raise ValueError(f"{where} has {name!r}, which is said by {_SAID_BY[name]}")
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ValueError(f"{where} has {name!r}, and an option is such as learning_rate")
        for text in _texts(_settings(value, folder) if name == "deepspeed" else value):
            if "\0" in text:
                raise ValueError(f"{where}: {name} has a character in it that no command line can hold")
            if leads_out(text) and not (name in _READ and isinstance(value, str) and text == value):
                raise ValueError(f"{where}: {name} names {text!r}, outside the study's folder: a run writes inside it")
        for each in value if isinstance(value, list) else ():
            if isinstance(each, str) and each.startswith("-") and not _NUMBER.fullmatch(each):
                raise ValueError(
                    f"{where}: {name} has {each!r} in its list, which dhrd train would take for an option"
                )
    return options


def read_train(given: Any, path: Path) -> dict[str, Any]:
    """The options under `train`, over those of the recipe that it may name as `config`, a file as `dhrd train` takes it."""
    given = {} if given is None else given
    if not isinstance(given, dict) or given.get("config") is None:
        return read_options(given, f"{path}: train", path.parent)
    if not isinstance(given["config"], str):
        raise ValueError(f"{path}: train: config must name a file, and is {given['config']!r}")
    recipe = path.parent / Path(given["config"]).expanduser()
    found = read_yaml(recipe)
    if not isinstance(found, dict):
        raise ValueError(f"{recipe} must hold options of dhrd train such as 'alpha: 0.5'")
    found = {name: value for name, value in found.items() if str(name).replace("-", "_") not in _OF_A_RECIPE}
    own = {name: value for name, value in given.items() if name != "config"}
    return read_options(found, str(recipe), path.parent) | read_options(own, f"{path}: train", path.parent)


def leads_out(text: str) -> bool:
    """Whether a text, taken for a path, is one that leads out of the folder that it is taken from."""
    absolute = PurePosixPath(text).is_absolute() or bool(PureWindowsPath(text).anchor)
    return absolute or text.startswith("~") or ".." in re.split(r"[\\/]", text)


def typed_options(options: Mapping[str, Any]) -> list[str]:
    """Options of a command line as one types them."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        if isinstance(value, list) and name in _WITH_COMMAS:
            value = ",".join(map(str, value))
        if value is None:
            continue
        its = value if isinstance(value, list) else [value]
        values = [json.dumps(it) if isinstance(it, dict | bool) else str(it) for it in its]
        option = f"--{name.replace('_', '-')}"
        # What begins with a hyphen would be an option of its own.
        alone = not isinstance(value, list) and values[0].startswith("-") and not _NUMBER.fullmatch(values[0])
        words += [f"{option}={values[0]}"] if alone else [option, *values]
    return words


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _texts(each)


def _settings(value: Any, folder: Path) -> Any:
    """What DeepSpeed's settings hold, which may say where it writes; with the name of their file, where it is one."""
    if not isinstance(value, str):
        return value
    try:
        return [value, json.loads(value if value.lstrip().startswith("{") else (folder / value).read_text())]
    except (OSError, ValueError):
        return value
