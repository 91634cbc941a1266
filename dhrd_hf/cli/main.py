"""`main`: finds the command, runs it, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextvars import copy_context

from ..data.text_tables import reading
from .parsing import after_interrupt, commands_parser, find_command, note

_COMMANDS = {
    "train": "train a language model on labels and rationales",
    "search": "search for the settings of a training run with Optuna",
    "evaluate": "measure a trained or exported classifier on a table with labels",
    "predict": "classify the rows of a table, however long",
    "calibrate": "fit the temperature with which a classifier is as sure as it is right",
    "export": "write the classifier as a stock checkpoint that needs no dhrd_hf",
    "verify": "replay an export's golden texts on the export, or on a server that serves it",
    "push": "upload an exported classifier to the Hugging Face Hub",
    "rationales": "write, check and choose the rationales of a table",
    "study": "run a grid of trainings, paired across settings, and report what it found",
    "pilot": "find out whether rationales are worth buying for one's own rows",
    "env": "print what a bug report needs",
    "bench": "measure how many rows a second a classifier does",
}
_EXAMPLES = """examples:
  dhrd train --model Qwen/Qwen3-0.6B --lora --train-data train.jsonl --eval-data dev.jsonl --output-dir runs/first
  dhrd evaluate --model runs/first --data test.jsonl
  dhrd export --model runs/first --output my-classifier
  dhrd predict --model my-classifier --data new.csv --output predictions.csv
  dhrd push --model my-classifier --repo user/my-classifier

A table is a .jsonl, .csv, .tsv or .parquet file, a folder of save_to_disk, or a Hub data set as user/name@split.
Each command has its own help: dhrd train --help
"""
# Mistakes of the user and of the world around: their messages say what to do, and a traceback would bury it.
# An ImportError is a package that transformers misses, such as flash-attn.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
_LONGEST_MESSAGE = 800


def main(argv: Sequence[str] | None = None) -> int:
    """Run a `dhrd` command.

    Example:

    ```python
    >>> from dhrd_hf.cli import main
    >>> main(["predict", "--model", "my-classifier", "--data", "new.csv", "--output", "out.csv"])
    0

    ```

    Args:
        argv (`Sequence[str]`, *optional*): The arguments; by default the command line's.

    Returns:
        `int`: the exit code: 0, 1 where a command says so, 2 after an error that was said in one line, 130 after Ctrl-C.
    """
    if argv is None:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # What a command sets, of warnings and of how tables are read, is its own: Python code may have called it.
    with warnings.catch_warnings():
        return copy_context().run(_main, list(sys.argv[1:] if argv is None else argv) or ["--help"])


def _main(argv: list[str]) -> int:
    # Options before the command are ours, all behind it are the command's.
    place = next((index for index, word in enumerate(argv) if not word.startswith("-")), len(argv))
    debug = "--debug" in argv[:place]
    command = None
    quiet_libraries(debug)
    reading(say=note)
    try:
        _parser().parse_args(argv[:place])
        command = find_command(argv[place:], _COMMANDS, __package__, "dhrd")
        return command.run(argv[place + 1 :])
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"dhrd: interrupted. {after_interrupt(command, argv[place + 1 :]) if command else ''}", file=sys.stderr)
        return 130
    except _EXPECTED as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        text = text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + " ..."
        print(f"dhrd: error: {text}", file=sys.stderr)
        return 2


def quiet_libraries(debug: bool = False) -> None:
    """Have other libraries say nothing that is no error: what they announce is for whoever calls them."""
    if debug:
        return
    warnings.simplefilter("ignore", append=True)  # behind what others have set, as -W and pytest do
    for name in ("bitsandbytes", "torchao"):  # which say what they were not compiled for
        logging.getLogger(name).setLevel(logging.ERROR)


def _parser() -> argparse.ArgumentParser:
    from .. import __version__

    what = "Dual-Head Reasoning Distillation: train a classifier on rationales, deploy a stock one."
    parser = commands_parser("dhrd", _COMMANDS, what, _EXAMPLES, before="[--debug] ")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error (before the command)")
    parser.add_argument("--version", action="version", version=f"dhrd_hf {__version__}")
    return parser
