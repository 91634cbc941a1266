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
from typing import Any, NoReturn


class OneLineErrors(argparse.ArgumentParser):
    """Mixin of parsers that raise a `ValueError`, for `main` to print, and suggest the option that was meant.

    Example:

    ```python
    >>> from dhrd_hf.cli.parsing import Parser
    >>> parser = Parser(prog="dhrd predict")
    >>> _ = parser.add_argument("--output")
    >>> parser.parse_args(["--outptu", "x.csv"])
    Traceback (most recent call last):
    ValueError: unknown option --outptu: did you mean --output? All options: dhrd predict --help

    ```
    """

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Args:
            message (`str`): What is wrong.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message}{'' if message.endswith('?') else '.'} All options: {self.prog} --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As `argparse.ArgumentParser.parse_args`.

        Args:
            args (`Sequence[str]`, *optional*), namespace (*optional*): As there.

        Returns:
            `argparse.Namespace`: the values.

        Raises:
            ValueError: on an option that is unknown, lacks its value, or has a wrong one.
        """
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


class Parser(OneLineErrors):
    """The parser of a command; options are typed in full.

    Args:
        kwargs: As `argparse.ArgumentParser`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, **kwargs)


def did_you_mean(word: str, known: Iterable[str], quote: str = "") -> str:
    """The nearest of the known words, as the end of an error message.

    Example:

    ```python
    >>> from dhrd_hf.cli.parsing import did_you_mean
    >>> did_you_mean("--outptu", ["--data", "--output"])
    ': did you mean --output?'

    ```

    Args:
        word (`str`): What was typed.
        known (`Iterable[str]`): What could have been.
        quote (`str`, *optional*, defaults to `""`): Put around the suggestion.

    Returns:
        `str`: empty where nothing is near.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {quote}{near[0]}{quote}?" if near else ""


def find_command(words: Sequence[str], commands: Mapping[str, str], package: str, prog: str) -> ModuleType:
    """The module of the command that the first word names.

    Example:

    ```python
    >>> from dhrd_hf.cli.parsing import find_command
    >>> find_command(["predict"], {"predict": "classify rows"}, "dhrd_hf.cli", "dhrd").__name__
    'dhrd_hf.cli.predict'

    ```

    Args:
        words (`Sequence[str]`): What was typed behind `prog`.
        commands (`Mapping[str, str]`): The commands, each with what it does.
        package (`str`): The package that holds a module of each command's name.
        prog (`str`): What was typed before, as errors name it.

    Returns:
        `ModuleType`: it has `run`, and what [`after_interrupt`] says.

    Raises:
        ValueError: if there is no word, or no such command.
    """
    if not words:
        raise ValueError(f"no command was given; there are {', '.join(commands)}. Examples: {prog} --help")
    if words[0] not in commands:
        near = did_you_mean(words[0], commands)
        raise ValueError(f"unknown command {words[0]!r}{near or '.'} There are {', '.join(commands)}: {prog} --help")
    return importlib.import_module(f".{words[0]}", package)


class CommandGroup:
    """Commands behind a command, such as `dhrd bench train`: it has their help, and finds their modules.

    Example:

    ```python
    >>> from dhrd_hf.cli.parsing import CommandGroup
    >>> group = CommandGroup("dhrd", {"predict": "classify rows"}, "dhrd_hf.cli", "Classifiers.", "")
    >>> group.after_interrupt(["predict", "--data", "new.csv"])
    'No half-written predictions were left behind.'

    ```

    Args:
        prog (`str`), commands (`Mapping[str, str]`), package (`str`): As [`find_command`].
        description (`str`): What they are for.
        examples (`str`): The end of the help.
    """

    def __init__(self, prog: str, commands: Mapping[str, str], package: str, description: str, examples: str):
        self.prog, self.commands, self.package = prog, commands, package
        self.description, self.examples = description, examples

    def run(self, argv: Sequence[str]) -> int:
        """Run the command that is named, or print the help.

        Args:
            argv (`Sequence[str]`): The arguments behind `prog`.

        Returns:
            `int`: the command's exit code.

        Raises:
            ValueError, OSError: as the command.
        """
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
        """What is left after Ctrl-C.

        Args:
            argv (`Sequence[str]`): The arguments.

        Returns:
            `str`: what the command that is named says.
        """
        return after_interrupt(self._find(argv), argv[1:])

    def _find(self, argv: Sequence[str]) -> ModuleType:
        return find_command(argv, self.commands, self.package, self.prog)


def after_interrupt(command: ModuleType, argv: Sequence[str]) -> str:
    """What is left of a command after Ctrl-C, and how to go on.

    Example:

    ```python
    >>> from dhrd_hf.cli import predict
    >>> from dhrd_hf.cli.parsing import after_interrupt
    >>> after_interrupt(predict, ["--data", "new.csv"])
    'No half-written predictions were left behind.'

    ```

    Args:
        command (`ModuleType`): Has `after_interrupt`: a sentence, or a function of the arguments that makes one.
        argv (`Sequence[str]`): Its arguments.

    Returns:
        `str`: the sentence.
    """
    said = command.after_interrupt
    return said(argv) if callable(said) else said


def resumed(prog: str, argv: Sequence[str]) -> str:
    """The command that goes on where these arguments were interrupted.

    Example:

    ```python
    >>> from dhrd_hf.cli.parsing import resumed
    >>> resumed("dhrd train", ["--config", "my recipe.yaml"])
    "dhrd train --config 'my recipe.yaml' --resume"

    ```

    Args:
        prog (`str`): The command.
        argv (`Sequence[str]`): Its arguments.

    Returns:
        `str`: to be typed.
    """
    return f"{prog} {shlex.join([*argv, *(() if '--resume' in argv else ('--resume',))])}"


def add_model_options(parser: argparse.ArgumentParser, batch_tokens: bool = True) -> None:
    """Add the options that name a classifier and make texts of a table's rows.

    Args:
        parser (`argparse.ArgumentParser`): Changed in place.
        batch_tokens (`bool`, *optional*, defaults to `True`): Whether the command cuts batches by their tokens.
    """
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


def chosen_prompt(prompt: str | None, text_column: str | None, default: str | None = None) -> str:
    r"""The template that makes the input of a row.

    Example:

    ```python
    >>> from dhrd_hf.cli.parsing import chosen_prompt
    >>> chosen_prompt(None, "sentence"), chosen_prompt(r"{a}\n{b}", None)
    ('{sentence}', '{a}\n{b}')

    ```

    Args:
        prompt (`str`, *optional*): From `--prompt`; backslash and n are a new line.
        text_column (`str`, *optional*): From `--text-column`.
        default (`str`, *optional*): The template where neither is given, by default `"{text}"`.

    Returns:
        `str`: the template.

    Raises:
        ValueError: if both are given.
    """
    if prompt is not None and text_column is not None:
        raise ValueError(f"--prompt and --text-column exclude each other: write --prompt '{{{text_column}}}'.")
    if prompt is not None:
        return unescaped(prompt)
    return f"{{{text_column}}}" if text_column is not None else default or "{text}"


def unescaped(template: str) -> str:
    r"""A template as it was meant on a command line, where a new line is typed as `\n`.

    Args:
        template (`str`): As typed.

    Returns:
        `str`: with new lines and tabs.
    """
    return template.replace("\\n", "\n").replace("\\t", "\t")


def quiet() -> None:
    """Leave progress bars and warnings to rank 0, in the other processes of a job."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
