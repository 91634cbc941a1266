"""What can be seen to be wrong before anything heavy is imported: a path, a column, a model's name."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.label_names import check_missing, is_missing
from ..data.prompts import input_columns
from ..data.tables import FILE_NAME, SPLIT_FILE, check_columns, iter_rows, peek_columns
from ..data.text_tables import reading
from ..files import near_path, no_such_model
from .parsing import chosen_prompt, note, warn

if TYPE_CHECKING:
    from .arguments import TrainArguments


# Where a model says what it is: itself, an exported adapter, another adapter.
_CONFIGS = ("config.json", "config/config.json", "adapter_config.json")
_LONGEST_REASON = 300
_LABELS_SEEN = 20_000  # rows whose labels are looked at before anything heavy is imported


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


def check_command(args: argparse.Namespace, *tables: str | None, labels: bool = True) -> None:
    """Fill in what the model's folder remembers, and check the tables of a command that asks a classifier."""
    reading(args.encoding)
    check_model_name(args.model)
    config = local_config(args.model)
    if labels and args.label_column is None and config is not None:
        args.label_column = config.get("label_column") or "label"
    columns = [args.label_column] if labels and args.label_column is not None else []
    own = (getattr(args, "prompt", None), getattr(args, "text_column", None))
    if config is not None or own != (None, None):
        columns += input_columns(chosen_prompt(*own, (config or {}).get("prompt_template")))
    for source in filter(None, tables):
        if source != "-":
            check_table(source, columns)
            if labels and args.label_column is not None and not args.drop_unlabelled:
                check_labelled(source, args.label_column)


def held_out_rows(model: str, option: str) -> str:
    """The rows that a run, or the run of a checkpoint, was not trained on, for a command that was given none."""
    check_model_name(model)
    for folder in (Path(model), Path(model).parent):
        if (folder / SPLIT_FILE).is_file():
            note(f"no {option}: taking the rows that {folder} held out ({folder}@eval).")
            return f"{folder}@eval"
    raise ValueError(f"{option} TABLE must be given: {model} is no run that held rows out.")


def check_table(source: str, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise on a table that is not there, or whose beginning shows that it lacks a column or has it misspelt."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # several ranks agree later on what is wrong, and say it once
        return
    if (found := peek_columns(source)) is None:
        return
    names, all_of_them = found
    needed = list(needed)
    seen = needed if all_of_them else [name for name in needed if name in names]
    try:
        check_columns(names, seen, optional if all_of_them else ())
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def check_labelled(source: str, column: str) -> None:
    """Raise on a file of which one of the first rows has no label, and say how many have none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or not FILE_NAME.search(source):
        return
    rows = (row.get(column) for row in iter_rows(source))
    first = list(map(is_missing, islice(rows, _LABELS_SEEN)))
    if any(first):
        missing = [*first, *map(is_missing, rows)]
        lacking = [number for number, it in enumerate(missing) if it]
        check_missing(lacking, len(missing), f"{source}, column {column!r}", False, warn)


def check_training(own: TrainArguments, output_dir: str, starts_anew: bool) -> None:
    """Check what `dhrd train` is given: folders, models, tables and their columns."""
    from ..data.table_writing import check_target

    for target in filter(None, (own.predictions, own.logits)):
        check_target(target, own.train_data, own.eval_data, own.validation_data, own.rationales)
    folder = Path(output_dir)
    if own.export and Path(own.export).resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"--export {own.export} is or holds --output-dir {folder}, the run: name another folder.")
    if own.export and Path(own.export).exists() and (Path(own.export).is_file() or any(Path(own.export).iterdir())):
        raise FileExistsError(f"--export {own.export} exists and is not an empty folder: name another.")
    if folder.is_file():
        raise FileExistsError(f"--output-dir {folder} is a file: name a folder.")
    if own.resume and own.overwrite_output_dir:
        raise ValueError("--resume and --overwrite-output-dir exclude each other.")
    filled = folder.is_dir() and any(it.name != SPLIT_FILE for it in folder.iterdir())
    if starts_anew and filled and not own.overwrite_output_dir:
        raise FileExistsError(
            f"--output-dir {folder} is not empty. Add --resume to go on from its last checkpoint, "
            "--overwrite-output-dir to start anew in it, or name another."
        )
    for model in filter(None, (own.model if own.gguf_file is None else None, own.teacher)):
        check_model_name(model)
    config = {} if own.model == "smollm2" else local_config(own.model)
    columns = [own.label_column, *filter(None, [own.group_column])]
    if config is not None or own.prompt is not None or own.text_column is not None:
        columns += input_columns(chosen_prompt(own.prompt, own.text_column, (config or {}).get("prompt_template")))
    others = (own.eval_data, own.validation_data, *(it.partition("=")[2] for it in own.more_eval_data or ()))
    for source in filter(None, (own.train_data, *others)):
        check_table(source, columns, [own.rationale_column] if source == own.train_data else ())
        if not own.drop_unlabelled:
            check_labelled(source, own.label_column)
    if own.rationales is not None:
        check_table(own.rationales, [own.rationale_column])
