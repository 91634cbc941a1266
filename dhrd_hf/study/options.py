"""The options of `dhrd train` that a study's file gives: under one spelling, from a recipe too, and none that writes elsewhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ..files import did_you_mean, read_yaml

# What the runner says itself, what would make a run another than it is recorded as, and what writes or uploads.
_SAID_BY = {
    "data": "train_data eval_data more_eval_data validation_data rationales eval_split group_column label_column "
    "rationale_column",
    "train": "config",
    "the command's --output-dir": "output_dir",
    "keep_models": "export push_to_hub",
    "nothing: a run's files are in the study's folder": "encoding_cache predictions logits logging_dir overwrite_output_dir",
    "nothing: a run that was interrupted goes on by itself": "resume resume_from_checkpoint",
    "nothing: it is of one set of rows, and runs have several; their teacher runs beside them": "teacher_cache",
    "dhrd train --help": "help",
    "dhrd train --help-all": "help_all",
}
SAID_BY = {name: who for who, names in _SAID_BY.items() for name in names.split()}
# Of these a recipe of dhrd train has its own, in whose place the study's are.
_OF_A_RECIPE = {"train_data", "eval_data", "validation_data", "rationales", "label_column", "rationale_column"}
_OF_A_RECIPE |= {"model", "output_dir", "predictions", "logits", "encoding_cache"}
# What a run reads, which may lie elsewhere: a folder, or a file, is seen from the study file's folder if it is there.
PATHS = dict.fromkeys(("model", "teacher"), os.path.isdir)
PATHS |= dict.fromkeys(("deepspeed", "fsdp_config", "accelerator_config"), os.path.isfile)
_READ = (*PATHS, "gguf_file", "prompt", "suffix")
# Lists of options of our own; those of TrainingArguments are typed as several words.
_WITH_COMMAS = ("class_weights", "target_modules")
_NUMBER = re.compile(r"-[\d.]+(e[+-]?\d+)?", re.IGNORECASE)


def hint(name: Any, known: Iterable[str]) -> str:
    """The nearest of the known names, or all of them, as the end of an error message."""
    return did_you_mean(str(name), known, "'") or f". There are {', '.join(known)}"


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    return "nothing" if value is None else f"a {type(value).__name__}"


def read_options(given: Any, where: str, folder: Path) -> dict[str, Any]:
    """Options under one spelling; a `ValueError` names the first that a study can't have."""
    if not isinstance(given, dict):
        raise ValueError(f"{where} must hold options of dhrd train by name, and holds {kind_of(given)}")
    options = {str(name).replace("-", "_"): value for name, value in given.items()}
    if len(options) < len(given):
        raise ValueError(f"{where} has an option twice, as with - and with _: {', '.join(map(repr, given))}")
    for name, value in options.items():
        if name in SAID_BY:
            raise ValueError(f"{where} has {name!r}, which is said by {SAID_BY[name]}")
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ValueError(f"{where} has {name!r}, and an option is such as learning_rate")
        if wrong := _wrong_value(name, value, folder):
            raise ValueError(f"{where}: {name} {wrong}")
    return options


def _wrong_value(name: str, value: Any, folder: Path) -> str | None:
    """Why an option of a study can't have a value, as words behind its name."""
    texts = _texts(value)
    within = isinstance(value, str) and value.lstrip().startswith("{")
    if within or (name == "deepspeed" and isinstance(value, str)):  # settings, which may say where it writes
        with suppress(OSError, ValueError, yaml.YAMLError):
            texts += _texts(yaml.safe_load(value if within else (folder / value).read_text()))
    for text in texts:
        if "\0" in text:
            return "has a character in it that no command line can hold"
        drive = PureWindowsPath(text).anchor and text[1:3] != ": "  # "a: b" is prose
        if (text.startswith(("~", "/")) or drive or ".." in re.split(r"[\\/]", text)) and not (
            name in _READ and text == value
        ):
            return f"names {text!r}, outside the study's folder: a run writes inside it"
    for each in value if isinstance(value, list) else ():
        if isinstance(each, str) and each.startswith("-") and not _NUMBER.fullmatch(each):
            return f"has {each!r} in its list, which dhrd train would take for an option"
    return None


def _texts(value: Any) -> list[str]:
    """The texts in a value, however deep."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def read_train(given: Any, where: str, folder: Path) -> dict[str, Any]:
    """The options under `train`, over those of the recipe that it may name as `config`, a file as `dhrd train` takes it."""
    own, found = {} if given is None else given, {}
    if isinstance(own, dict) and own.get("config") is not None:
        config, own = own["config"], {name: it for name, it in own.items() if name != "config"}
        if not isinstance(config, str):
            raise ValueError(f"{where}: config must name a file, and is {config!r}")
        recipe = folder / Path(config).expanduser()
        found = read_yaml(recipe)
        if not isinstance(found, dict):
            raise ValueError(f"{recipe} must hold options of dhrd train such as 'alpha: 0.5'")
        found = {name: it for name, it in found.items() if str(name).replace("-", "_") not in _OF_A_RECIPE}
        found = read_options(found, str(recipe), folder)
    return found | read_options(own, where, folder)


def typed_options(options: Mapping[str, Any]) -> list[str]:
    """Options of a command line as one types them."""
    words: list[str] = []
    for name, value in ((name, value) for name, value in options.items() if value is not None):
        if isinstance(value, list) and name in _WITH_COMMAS:
            value = ",".join(map(_typed, value))
        many, option = isinstance(value, list), f"--{name.replace('_', '-')}"
        values = list(map(_typed, value if many else [value]))
        # What begins with a hyphen would be an option of its own.
        alone = not many and values[0].startswith("-") and not _NUMBER.fullmatch(values[0])
        words += [f"{option}={values[0]}"] if alone else [option, *values]
    return words


def _typed(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)
