"""Resuming a run: on its last whole checkpoint, with what it was trained with, and no further than it was to go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch.optim.lr_scheduler import LambdaLR
from transformers.utils import logging

from ..files import broken_part, check_finite, checkpoints, last_checkpoint, write_whole
from ..modeling_dhrd import find_dual_head
from .run_settings import differing_files, differing_settings, identity, rows_digest

logger = logging.get_logger(__name__)

# In each checkpoint and run directory: what the config of the model and of its adapter do not say of the training.
SETTINGS_FILE = "run_settings.json"
# Of TrainingArguments, what changes the weights that come out, but for the length of the run.
_ARGUMENTS = (
    *("learning_rate", "classifier_learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    *("optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last", "average_tokens_across_devices"),
    *("alpha_schedule", "alpha_end", "alpha_step_at", "reasoning_share", "distillation_weight", "temperature"),
    *("neftune_noise_alpha", "bf16", "fp16"),
)


_CONSTANT = ("constant", "constant_with_warmup")


class ResumingMixin:
    """What a `Trainer` checks before it goes on from a checkpoint; for [`DualHeadTrainer`]."""

    _base: list[str] | None = None
    _taught_by: list[str] | None = None
    _rows: dict[str, Any] | None = None
    _other_length = False
    steps_before = 0  # those of the checkpoint that the last training went on from

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`, from a checkpoint that is whole and was trained as this run is."""
        if self._base is None and self.model is not None:  # before training changes it
            self._base = identity(self.model)
        checkpoint = resume_from_checkpoint or None
        if checkpoint is True:
            checkpoint = checkpoint_to_resume(self.args.output_dir, logger.warning)
            if checkpoint is None:
                raise ValueError(f"There is no checkpoint in {self.args.output_dir} to resume from.")
        self.steps_before = 0
        if checkpoint is not None:
            if (reason := broken_part(Path(checkpoint))) is not None:
                raise ValueError(f"{checkpoint} can't be resumed from: {reason}.")
            self._check_same_run(Path(checkpoint))
        output = super().train(checkpoint, *args, **kwargs)
        if self.state.global_step > self.steps_before:  # the loss of the next step would have shown it
            check_finite(self.model.named_parameters(), "After its last step the model")
        return output

    def _check_same_run(self, checkpoint: Path) -> None:
        """Raise, in all ranks, where something else would come out than from the run that the checkpoint is of."""
        said: list[Any] = [None]
        if self.is_world_process_zero():
            differing = [*differing_files(checkpoint, self.model)]
            file = checkpoint / SETTINGS_FILE
            if file.is_file():
                then, now = json.loads(file.read_text("utf-8")), json.loads(json.dumps(self._run_settings()))
                differing += differing_settings(then, now, self._opened_from_its_own_run())
                if not differing and then["per_device_train_batch_size"] != now["per_device_train_batch_size"]:
                    logger.warning(
                        "The rows of a step are split into other batches than before: the results will differ by rounding, "
                        "and where there is dropout by its draws."
                    )
            else:
                logger.warning(
                    f"{checkpoint} has no {SETTINGS_FILE}, as older versions wrote none: its labels, templates and adapter are "
                    "compared with this run's; the base model, the rows, the batch and the schedule could not be."
                )
            absent = [name for name in ("optimizer", "scheduler", "rng_state") if not _has(checkpoint, name)]
            if absent and not self.is_deepspeed_enabled:
                logger.warning(
                    f"{checkpoint} has no {', '.join(absent)} (as save_only_model leaves them out): they start anew, so the run "
                    "will not end as the uninterrupted one."
                )
            if differing:
                said[0] = (
                    f"{checkpoint} was trained otherwise: {'; '.join(differing)}. To go on give what it was trained with; to "
                    "train with this start anew, in another --output-dir."
                )
        broadcast_object_list(said)
        if said[0] is not None:
            raise ValueError(said[0])

    def _run_settings(self) -> dict[str, Any]:
        args = self.args
        settings = {name: getattr(args, name, None) for name in _ARGUMENTS}
        settings = {name: getattr(it, "value", it) for name, it in settings.items()}
        settings["per_device_train_batch_size"] = args.per_device_train_batch_size
        if not args.auto_find_batch_size:
            settings["rows a step"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        settings["dtype of the weights"] = str(find_dual_head(self.model).dtype).removeprefix("torch.")
        settings["base model"], settings["teacher"] = self._base, self._taught_by
        if self._rows is None:
            self._rows = rows_digest(self.train_dataset)
        return settings | self._rows

    def _opened_from_its_own_run(self) -> bool:
        """Whether all weights were read from the run's folder, which is no change of the base model."""
        name = find_dual_head(self.model).name_or_path
        run = Path(self.args.output_dir).resolve()
        return bool(name) and run in (Path(name).resolve(), *Path(name).resolve().parents)

    def _init_training_state(
        self, max_steps: int, steps_of_epoch: int, epochs: int, checkpoint: Any, trial: Any
    ) -> Any:
        place = super()._init_training_state(max_steps, steps_of_epoch, epochs, checkpoint, trial)
        self._other_length = False
        if checkpoint is None:
            return place
        steps = self.steps_before = self.state.global_step
        if steps > max_steps:
            raise ValueError(
                f"{checkpoint} has been trained for {steps} steps, and this run is to have {max_steps}: ask for as many or more "
                "(--max-steps or --num-train-epochs), or resume from an earlier checkpoint."
            )
        if steps == max_steps:  # transformers would do another one where that is amid an epoch
            logger.warning(f"{checkpoint} is of the last of {max_steps} steps: there is nothing left to train.")
            return epochs, 0
        before = json.loads((Path(checkpoint) / "trainer_state.json").read_text("utf-8")).get("max_steps")
        self._other_length = before != max_steps
        if self._other_length:
            kinds = {
                "learning rate": self.args.lr_scheduler_type,
                "alpha": getattr(self.args, "alpha_schedule", "constant"),
            }
            moved = [f"{name} ({getattr(it, 'value', it)})" for name, it in kinds.items() if it not in _CONSTANT]
            course = (
                f": from step {steps + 1} on the {' and the '.join(moved)} follows the schedule of {max_steps} steps"
            )
            logger.warning(f"The run is to have {max_steps} steps, and was to have {before}{course if moved else ''}.")
        return place

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = self.lr_scheduler
        # Else the next step would be by the old schedule, of whose end it has the learning rate.
        if self._other_length and isinstance(scheduler, LambdaLR) and scheduler.last_epoch > 0:
            scheduler.last_epoch -= 1
            scheduler.step()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self._base is not None:
            text = json.dumps(self._run_settings(), indent=2, default=str)
            write_whole(Path(output_dir or self.args.output_dir) / SETTINGS_FILE, text + "\n")


def checkpoint_to_resume(folder: str, tell: Callable[[str], None]) -> str | None:
    """The last checkpoint of a run that is whole, having told of those that are not; None where none was finished."""
    skipped: list[str] = []
    found = last_checkpoint(folder, skipped.append)
    if found is None and any((it / "trainer_state.json").is_file() for it in checkpoints(folder)):
        raise ValueError(
            f"No checkpoint is whole: {'; '.join(skipped)}. Start anew, in another --output-dir or with --overwrite-output-dir."
        )
    for reason in skipped:
        tell(f"{reason}: {f'taking {found}' if found else 'there is no other'}.")
    return found


def _has(checkpoint: Path, name: str) -> bool:
    return any(checkpoint.glob(f"{name}*"))
