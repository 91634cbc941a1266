"""What the commands' parsers share: errors in one line, near misses named, the prompt, the labels' names."""

from __future__ import annotations

import argparse
import gc
import importlib
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from ..data.prompts import chosen_prompt, input_columns
from ..data.tables import SPLIT_FILE, check_labelled, check_table, same_table
from ..data.text_tables import reading
from ..files import did_you_mean
from ..opening import check_model_name, local_config

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig


class Parser(argparse.ArgumentParser):
    """Raises a `ValueError` for `main` to print, and suggests the option that was meant; options are typed in full."""

    def __init__(self, prog: str, description: str | None = None, epilog: str | None = None, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, description=description, epilog=epilog, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}{'' if message.endswith('?') else '.'} All options: {self.prog} --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        args = list(sys.argv[1:] if args is None else args)
        known = [name for action in self._actions for name in action.option_strings]
        # First of all: argparse would only say that the option that was meant is missing.
        for option in (word.partition("=")[0] for word in args if word.startswith("--")):
            if option not in known:
                self.error(f"unknown option {option}{did_you_mean(option, known)}")
        found, left = self.parse_known_args(args, namespace)
        if left:
            self.error(f"unexpected {left[0]!r}: put quotes around a value that holds spaces")
        return found


def commands_parser(
    prog: str, commands: Mapping[str, str], description: str, examples: str, before: str = ""
) -> Parser:
    """A parser whose help lists commands; `before` are options that stand before them."""
    width = max(map(len, commands))
    listed = "\n".join(f"  {name:{width}}  {text}" for name, text in commands.items())
    return Parser(prog, f"{description}\n\ncommands:\n{listed}", examples, usage=f"{prog} {before}COMMAND ...")


def find_command(words: Sequence[str], commands: Mapping[str, str], package: str, prog: str) -> ModuleType:
    """The module of the command that the first word names."""
    if not words:
        raise ValueError(f"no command was given; there are {', '.join(commands)}. Examples: {prog} --help")
    if words[0] not in commands:
        near = did_you_mean(words[0], commands)
        raise ValueError(f"unknown command {words[0]!r}{near or '.'} There are {', '.join(commands)}: {prog} --help")
    return importlib.import_module(f".{words[0]}", package)


def after_interrupt(command: ModuleType, argv: Sequence[str]) -> str:
    """What is left of a command after Ctrl-C, and how to go on."""
    said = command.after_interrupt
    return said(argv) if callable(said) else said


def resumed(prog: str, argv: Sequence[str]) -> str:
    return f"{prog} {shlex.join([*argv, *(() if '--resume' in argv else ('--resume',))])}"


def shown_command(prog: str, argv: Sequence[str]) -> str:
    """A command for others to type: of a path elsewhere on this machine the last part, what is above it is nobody's business."""

    def shown(word: str) -> str:
        name, value = re.fullmatch(r"(--[^=]*=)?(.*)", word, re.DOTALL).groups("")
        path = Path(value).expanduser() if value.startswith("~/") else Path(value)
        if not path.is_absolute():
            return word
        inside = path.is_relative_to(Path.cwd())
        return name + (path.relative_to(Path.cwd()).as_posix() if inside else path.name or value)

    return f"{prog} {shlex.join(map(shown, argv))}"


def add_model_options(parser: argparse.ArgumentParser, batch_tokens: bool = True) -> None:
    """Add the options that name a classifier and make texts of a table's rows."""
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="run directory, export or Hub id of a classifier")
    said = r"the input over a row's columns, such as '{premise}\n{hypothesis}'; default: the model's own"
    add("--prompt", metavar="TEMPLATE", help=said)
    add("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    add("--max-length", type=int, metavar="N", help="most tokens of an input; default: the model's own")
    if batch_tokens:
        add("--batch-tokens", type=int, metavar="N", help="most tokens of a batch; lower it to save memory")
    add("--device", help="such as cpu or cuda:1; default: the accelerator if there is one")
    add("--dtype", default="auto", help="such as float32 or bfloat16; default: as the model was saved")


def add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoding", metavar="NAME", help="of tables that are text and not in UTF-8, such as cp1252")


def add_label_options(parser: argparse.ArgumentParser, default: str | None = "label") -> None:
    """Add what each command takes that reads labels; without a default the label column is the model's."""
    said = f"column of the labels (default: {default or 'the one that was trained on'})"
    parser.add_argument("--label-column", default=default, metavar="NAME", help=said)
    parser.add_argument(
        "--drop-unlabelled", action="store_true", help="leave out rows without a label; else they are refused"
    )


def with_labels(
    args: argparse.Namespace, table: datasets.Dataset, where: str, config: PreTrainedConfig
) -> datasets.Dataset:
    """A table with the names of a model's labels in its label column."""
    from ..data.labels import Labels, read_labels

    args.label_column = args.label_column or getattr(config, "label_column", None) or "label"
    known = Labels.of(config, args.label_column)
    options = {"drop_unlabelled": args.drop_unlabelled, "where": where, "say": warn}
    return read_labels(table, args.label_column, known=known, **options)[0]


def say(line: str = "") -> None:
    """Print a line; a warning goes to standard error."""
    print(line, file=sys.stderr if line.startswith("warning: ") else sys.stdout)


def warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def note(line: str) -> None:
    """Say on stderr what was done that the user may not expect."""
    print(f"note: {line}", file=sys.stderr)


@contextmanager
def importing() -> Iterator[None]:
    """What a new process imports stays: looking for garbage among it takes a tenth of the time to the first step."""
    if "torch" in sys.modules:  # Python code calls us, whose garbage is not to stay
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def without_bars() -> None:
    """Leave out the bars of transformers, and those of datasets where nobody looks."""
    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()


def quiet() -> None:
    """Leave progress bars and warnings to rank 0, in the other processes of a job."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")


def add_card_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--group-column", metavar="NAME", help="column of --eval-data by which the card gives the accuracy as well"
    )
    parser.add_argument(
        "--card",
        metavar="FILE",
        help="YAML file of what only you know, for the card: license, language, datasets, rationale_source, "
        "intended_use, limits, model_name, base_model",
    )


def check_card_tables(evaluated: str | None, calibrated: str | None, group_column: str | None) -> None:
    """Raise where results would be of the rows that the temperature is fitted on, or groups of no rows."""
    if group_column is not None and evaluated is None:
        raise ValueError(f"--group-column {group_column} is a column of --eval-data: add --eval-data TABLE.")
    if evaluated is not None and calibrated is not None and same_table(evaluated, calibrated):
        raise ValueError(
            f"The temperature would be fitted on {calibrated}, and the results be of the same rows. Name other rows with "
            "--eval-data."
        )


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
