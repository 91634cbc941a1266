"""`dhrd train`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.tables import SPLIT_FILE
from ..data.text_tables import reading
from ..training.options import check_run
from .arguments import parse_given
from .parsing import importing, quiet, resumed, say, without_bars

if TYPE_CHECKING:
    from .. import DualHeadTrainer
    from ..training.options import TrainArguments


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
