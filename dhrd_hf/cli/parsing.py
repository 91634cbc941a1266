"""What the commands' parsers share: errors in one line, near misses named, the prompt, the labels' names."""

from __future__ import annotations

import argparse
import difflib
import importlib
import shlex
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from ..files import ALIKE

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig


class Parser(argparse.ArgumentParser):
    """Raises a `ValueError` for `main` to print, and suggests the option that was meant; options are typed in full."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise ValueError(f"{message}{'' if message.endswith('?') else '.'} All options: {self.prog} --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As `argparse.ArgumentParser.parse_args`."""
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


def did_you_mean(word: str, known: Iterable[str], quote: str = "") -> str:
    """The nearest of the known words, else one that ends as it, as `--num-train-epochs` for `--epochs`: the end of a message."""
    bare = {name.lstrip("-"): name for name in known}  # dashes alone make nothing alike
    typed = word.lstrip("-")
    near = difflib.get_close_matches(typed, bare, n=1, cutoff=ALIKE)
    ending = f"{'_' if '_' in typed else '-'}{typed}"
    near = near or [name for name in bare if len(typed) > 3 and name.endswith(ending)]
    return f": did you mean {quote}{bare[near[0]]}{quote}?" if near else ""


def find_command(words: Sequence[str], commands: Mapping[str, str], package: str, prog: str) -> ModuleType:
    """The module of the command that the first word names."""
    if not words:
        raise ValueError(f"no command was given; there are {', '.join(commands)}. Examples: {prog} --help")
    if words[0] not in commands:
        near = did_you_mean(words[0], commands)
        raise ValueError(f"unknown command {words[0]!r}{near or '.'} There are {', '.join(commands)}: {prog} --help")
    return importlib.import_module(f".{words[0]}", package)


class CommandGroup:
    """Commands behind a command, such as `dhrd rationales audit`: it has their help, and finds their modules."""

    def __init__(self, prog: str, commands: Mapping[str, str], package: str, description: str, examples: str):
        self.prog, self.commands, self.package = prog, commands, package
        self.description, self.examples = description, examples

    def run(self, argv: Sequence[str]) -> int:
        """Run the command that is named, or print the help."""
        argv = list(argv) or ["--help"]
        if argv[0].startswith("-"):
            width = max(map(len, self.commands))
            listed = "\n".join(f"  {name:{width}}  {text}" for name, text in self.commands.items())
            Parser(
                prog=self.prog,
                usage=f"{self.prog} COMMAND ...",
                description=f"{self.description}\n\ncommands:\n{listed}",
                epilog=self.examples,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            ).parse_args(argv)
        return self._find(argv).run(argv[1:])

    def after_interrupt(self, argv: Sequence[str]) -> str:
        """What is left after Ctrl-C."""
        return after_interrupt(self._find(argv), argv[1:])

    def _find(self, argv: Sequence[str]) -> ModuleType:
        return find_command(argv, self.commands, self.package, self.prog)


def after_interrupt(command: ModuleType, argv: Sequence[str]) -> str:
    """What is left of a command after Ctrl-C, and how to go on."""
    said = command.after_interrupt
    return said(argv) if callable(said) else said


def resumed(prog: str, argv: Sequence[str]) -> str:
    """The command that goes on where these arguments were interrupted."""
    return f"{prog} {shlex.join([*argv, *(() if '--resume' in argv else ('--resume',))])}"


def add_model_options(parser: argparse.ArgumentParser, batch_tokens: bool = True) -> None:
    """Add the options that name a classifier and make texts of a table's rows."""
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="run directory, export or Hub id of a classifier"
    )
    parser.add_argument(
        "--prompt",
        metavar="TEMPLATE",
        help=r"the input over a row's columns, such as '{premise}\n{hypothesis}'; default: the model's own",
    )
    parser.add_argument("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="most tokens of an input; default: the model's own"
    )
    if batch_tokens:
        parser.add_argument(
            "--batch-tokens", type=int, metavar="N", help="most tokens of a batch; lower it to save memory"
        )
    parser.add_argument("--device", help="such as cpu or cuda:1; default: the accelerator if there is one")
    parser.add_argument("--dtype", default="auto", help="such as float32 or bfloat16; default: as the model was saved")


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add how text files are read."""
    parser.add_argument("--encoding", metavar="NAME", help="of tables that are text and not in UTF-8, such as cp1252")


def add_label_options(parser: argparse.ArgumentParser, default: str | None = "label") -> None:
    """Add what each command takes that reads labels; without a default the label column is the model's."""
    parser.add_argument(
        "--label-column",
        default=default,
        metavar="NAME",
        help=f"column of the labels (default: {default or 'the one that was trained on'})",
    )
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


def warn(line: str) -> None:
    """Say a line on stderr that is no error."""
    print(f"warning: {line}", file=sys.stderr)


def note(line: str) -> None:
    """Say on stderr what was done that the user may not expect."""
    print(f"note: {line}", file=sys.stderr)


def chosen_prompt(prompt: str | None, text_column: str | None, default: str | None = None) -> str:
    r"""The template that makes the input of a row."""
    if prompt is not None and text_column is not None:
        raise ValueError(f"--prompt and --text-column exclude each other: write --prompt '{{{text_column}}}'.")
    if prompt is not None:
        return unescaped(prompt)
    return f"{{{text_column}}}" if text_column is not None else default or "{text}"


def unescaped(template: str) -> str:
    r"""A template as it was meant on a command line, where a new line is typed as `\n`."""
    return template.replace("\\n", "\n").replace("\\t", "\t")


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
