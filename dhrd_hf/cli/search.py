"""`dhrd search`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..files import did_you_mean, read_yaml, write_whole
from ..training.options import DECISIVE, TrainArguments, options_of
from ..training.search import (
    LOCK_FILE,
    PRUNERS,
    SAMPLERS,
    STORAGE_FILE,
    candidates,
    check_optuna,
    read_space,
    search,
    suggest,
)
from .parsing import Parser, resumed

BEST_FILE = "best.yaml"
_EXAMPLES = """examples:
  dhrd search --config recipe.yaml --space space.yaml --trials 20 --output-dir runs/search
  dhrd search --config recipe.yaml --space space.yaml --trials 20 --output-dir runs/search --resume
      (goes on after a kill; started once more meanwhile, it is a second process on the same search)
  dhrd train --config runs/search/best.yaml

recipe.yaml is a recipe of dhrd train with eval_data. space.yaml says what may vary:
  alpha: {low: 0.1, high: 2.0, log: true}
  learning_rate: [1e-4, 2e-4]
  alpha_schedule: [constant, linear]
"""
# Of a search's trials the model and these may differ; all else the one Trainer and its process take once, or is the recipe's.
_FIXED = ("seed", "data_seed", "bf16", "fp16")
VARIED = {*options_of("model", "lora"), *DECISIVE, "num_train_epochs", "max_steps"} - {*_FIXED}


def run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.trials < 1:
        raise ValueError(f"--trials {args.trials} must be 1 or more.")

    check_optuna()
    folder, recipe = Path(args.output_dir), read_yaml(args.config)
    space = read_space(read_yaml(args.space), args.space)
    # A process that starts beside this one has the lock before it has the storage.
    filled = folder.is_dir() and any(path.name != LOCK_FILE for path in folder.iterdir())
    if filled and not (args.resume and (folder / STORAGE_FILE).exists()):
        again = "add --resume to go on, or " if (folder / STORAGE_FILE).exists() else ""
        raise FileExistsError(f"--output-dir {folder} is not empty: {again}name another.")
    given = ["--config", args.config, "--output-dir", str(folder), "--save-strategy", "no"]
    _check_space(space, given, args.space)
    for point in candidates(space):
        _parsed(given, point)
    # A teacher is kept only where it is used.
    start = _parsed(given, {"distillation_weight": 1.0} if "distillation_weight" in space else {})
    best = _search(args, start, space, given, recipe)
    if best is None:
        print(f"No trial was completed; what became of them is in {folder / 'trials.jsonl'}.", file=sys.stderr)
        return 1
    _write_best(folder, recipe, best.params)
    best_recipe = shlex.quote(str(folder / BEST_FILE))
    print(f"best: trial {best.number}, {_metric(args.metric)} {best.value:.4g}\n  dhrd train --config {best_recipe}")
    return 0


def after_interrupt(argv: Sequence[str]) -> str:
    return f"To go on with the search: {resumed('dhrd search', argv)}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "dhrd search", "Search for the settings of a training run with Optuna; every trial is a dhrd train.", _EXAMPLES
    )
    add = parser.add_argument
    add("--config", required=True, metavar="YAML", help="recipe of dhrd train, with eval_data")
    add("--space", required=True, metavar="YAML", help="what may vary: lists, or low and high")
    add("--output-dir", required=True, metavar="DIR", help="folder of the search")
    add("--trials", type=int, default=20, metavar="N", help="trials in the folder, in all [20]")
    add("--sampler", choices=SAMPLERS, default="tpe", help="how values are chosen [tpe]")
    add("--pruner", choices=PRUNERS, default="median", help="what stops a trial early [median]")
    add("--metric", default="eval_accuracy", metavar="NAME", help="what is searched for [eval_accuracy]")
    add("--direction", choices=("maximize", "minimize"), help="which way the metric is better [known for ours]")
    add("--resume", action="store_true", help="go on with a search, or join it as another process")
    return parser


def _metric(name: str) -> str:
    return name if name.startswith("eval_") else f"eval_{name}"


def _check_space(space: dict[str, Any], given: list[str], where: str) -> None:
    """Raise on a name that is no option, or one that a search can't vary."""
    from ..training import DualHeadTrainingArguments

    known = {it.name for cls in (TrainArguments, DualHeadTrainingArguments) for it in fields(cls) if it.init}
    for name in space:
        if name in known - VARIED:
            raise ValueError(
                f"{where}: {name} is the same for all trials of a search: write it into the recipe, or vary it as an "
                "axis of dhrd study."
            )
        if name not in VARIED:
            near = did_you_mean(name, VARIED, quote="'")
            raise ValueError(f"{where}: unknown option {name!r}{near or '. All options: dhrd train --help-all'}")


def _parsed(given: list[str], values: dict[str, Any]) -> tuple[Any, Any]:
    from .train import parse_train

    return parse_train([*given, *(f"--{name}={value}" for name, value in values.items())])


def _search(
    args: argparse.Namespace, first: tuple[Any, Any], space: dict[str, Any], given: list[str], recipe: dict
) -> Any:
    from transformers import set_seed

    from ..training.run_tables import read_tables
    from ..training.run_trainer import build_model, trainer_of, with_lora

    own, training = first
    if own.eval_data is None:
        raise ValueError(f"A search needs rows to judge a trial by: add eval_data to {args.config}.")
    if training.world_size > 1:
        raise ValueError("A search is shared by several processes of dhrd search --resume, not by torchrun.")
    if training.load_best_model_at_end:
        raise ValueError(f"{args.config}: load_best_model_at_end wants checkpoints, which a search does not keep.")
    quietly = lambda *_: None  # noqa: E731
    train, dev, labels, *_ = read_tables(own, quietly)
    alpha = own.alpha
    trainer, _ = trainer_of(own, training, train, dev, labels, quietly)

    def model_init(trial: Any) -> Any:
        own, values = _parsed(given, suggest(trial, space))
        own.alpha = alpha if own.alpha is None else own.alpha
        # All of them, and first, for the model is fitted to them: some follow from others, as activation_checkpointing
        # from its old name.
        for it in fields(values):
            if it.init:
                setattr(trainer.args, it.name, getattr(values, it.name))
        trainer.neftune_noise_alpha = values.neftune_noise_alpha  # which the Trainer reads when it is made
        set_seed(values.seed)
        model = build_model(own, labels, trainer.processing_class, quietly)
        model = with_lora(own, model) if own.lora else model
        set_seed(values.seed)  # as the Trainer of dhrd train does when it is made
        return model

    trainer.model_init = model_init
    return search(
        trainer,
        space,
        lambda trial: {},  # for the Trainer to set: model_init has done it
        Path(args.output_dir),
        args.trials,
        metric=_metric(args.metric),
        direction=args.direction,
        sampler=args.sampler,
        pruner=args.pruner,
        seed=training.seed,
        bound_to={"recipe": recipe},
        say=lambda line: print(line, file=sys.stderr),
    )


def _write_best(folder: Path, recipe: dict, params: dict[str, Any]) -> None:
    import yaml

    kept = {
        key: value for key, value in recipe.items() if key.replace("-", "_") not in {*params, "output_dir", "resume"}
    }
    best = {**kept, **params, "output_dir": str(folder / "best")}
    write_whole(folder / BEST_FILE, yaml.safe_dump(best, sort_keys=False, allow_unicode=True))
