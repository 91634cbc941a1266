"""Resuming a run: on its last whole checkpoint, with what it was trained with, and no further than it was to go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers.utils import logging

from .. import __version__
from ..configuration_dhrd import DHRDConfig
from ..files import broken_part, checkpoints, last_checkpoint, write_whole
from ..modeling_dhrd import find_dual_head
from ..opening import check_finite
from .options import DECISIVE

logger = logging.get_logger(__name__)

# In each checkpoint and run directory: what the config of the model and of its adapter do not say of the training.
SETTINGS_FILE = "run_settings.json"
# What is told of otherwise: the rows of a step, and the config's label_smoothing.
_ARGUMENTS = [
    name
    for name in DECISIVE
    if name not in ("per_device_train_batch_size", "gradient_accumulation_steps", "label_smoothing_factor")
]


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
            absent = [name for name in ("optimizer", "scheduler", "rng_state") if not any(checkpoint.glob(f"{name}*"))]
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
    skipped: list[str] = []
    found = last_checkpoint(folder, skipped.append)
    if found is None and any((it / "trainer_state.json").is_file() for it in checkpoints(folder)):
        raise ValueError(
            f"No checkpoint is whole: {'; '.join(skipped)}. Start anew, in another --output-dir or with --overwrite-output-dir."
        )
    for reason in skipped:
        tell(f"{reason}: {f'taking {found}' if found else 'there is no other'}.")
    return found


_CONFIG = (
    *("classifier_head", "classifier_activation", "classifier_dropout", "alpha", "beta", "label_smoothing"),
    *("prompt_template", "suffix_template", "rationale_after_label", "max_input_length", "pad_token_id"),
)
_ADAPTER = (
    *("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora", "bias"),
    *("modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform"),
)
_OF_A_SESSION = ("name_or_path", "transformers_version", "dtype", "architectures", "use_cache", "quantization_config")
_SHOWN_LABELS = 20
_SAMPLES = 64  # values of a tensor that tell two models apart


def identity(model: nn.Module) -> list[str]:
    """The name of a model and a digest of the weights that its heads and adapters were added to."""
    dual_head = find_dual_head(model)
    adapter = getattr(getattr(model, "base_model", None), "prefix", None)
    digest = hashlib.blake2b(digest_size=8)
    wrapped = {name.replace(".base_layer.", "."): weight for name, weight in dual_head.named_parameters()}
    for name, weight in sorted(wrapped.items()):
        if name.startswith("score.") or ".modules_to_save." in name or (adapter and adapter in name):
            continue
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        # A tensor that is elsewhere, or in shares, is known by its shape alone.
        if weight.numel() and weight.device.type != "meta" and not hasattr(weight, "to_local"):
            flat = weight.detach().reshape(-1)
            digest.update(flat[:: max(1, flat.numel() // _SAMPLES)].float().cpu().numpy().tobytes())
    name = dual_head.name_or_path or dual_head.config.backbone_config.name_or_path
    return [Path(name).name if Path(name).exists() else name, digest.hexdigest()]


def run_readme(model: nn.Module) -> str:
    """What the folder of a run says of itself, in whose place PEFT would write a template to fill in."""
    config = find_dual_head(model).config
    base = config.backbone_config.name_or_path or config.name_or_path
    kind = "LoRA adapters and a classification head on" if hasattr(model, "peft_config") else "all weights, from"
    labels = ", ".join(f"`{name}`" for name in [*config.id2label.values()][:_SHOWN_LABELS])
    more = len(config.id2label) - _SHOWN_LABELS
    prompt = (config.prompt_template or "{text}").replace("\n", "\\n")
    return f"""# A dual-head classifier as it was trained

This folder is a run of [dhrd_hf](https://pypi.org/project/dhrd-hf/) {__version__}, with both heads: {kind} `{base}`.
It is for going on from. What is to be deployed is its export, a stock classifier with a model card of its own.

- labels: {labels}{f" and {more} more" if more > 0 else ""}
- input: `{prompt}`, at most {config.max_input_length} tokens
- weight of the reasoning loss: {config.alpha}, of the classification loss: {config.beta}

```bash
dhrd evaluate --model FOLDER --data TABLE
dhrd export --model FOLDER --output my-classifier
dhrd predict --model my-classifier --data TABLE --output predictions.jsonl
```
"""


def rows_digest(dataset: Any) -> dict[str, Any]:
    """Digests of encoded rows: of their inputs, their labels, and what follows the inputs; of others their number."""
    if not {"input_ids", "labels"} <= {*(getattr(dataset, "column_names", None) or ())} or not hasattr(
        dataset, "with_format"
    ):
        return {"training rows": len(dataset)} if hasattr(dataset, "__len__") else {}
    parts = {name: hashlib.blake2b(digest_size=8) for name in ("inputs", "labels", "rationales and answers")}
    for batch in dataset.with_format("arrow").iter(batch_size=1000):
        columns = {name: batch.column(name).combine_chunks() for name in batch.column_names}
        ids, lengths = _numbers(columns["input_ids"])
        of_x = lengths if "input_length" not in columns else _numbers(columns["input_length"])[0]
        place = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        in_x = place < np.repeat(of_x, lengths)
        targets = _numbers(columns["reasoning_targets"]) if "reasoning_targets" in columns else ()
        for part, numbers in zip(
            parts.values(),
            ((of_x, ids[in_x]), _numbers(columns["labels"]), (lengths, ids[~in_x], *targets)),
            strict=True,
        ):
            for it in numbers:
                part.update(it.astype(np.float64 if it.dtype.kind == "f" else np.int64).tobytes())
    return {"training rows": len(dataset)} | {
        f"digest of the rows' {name}": it.hexdigest() for name, it in parts.items()
    }


def _numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of an Arrow column, and how many each row has."""
    if not hasattr(column, "flatten") or not hasattr(column.type, "value_type"):
        return column.to_numpy(zero_copy_only=False), np.ones(len(column), dtype=np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), column.value_lengths().to_numpy(zero_copy_only=False)


def differing_settings(then: dict[str, Any], now: dict[str, Any], own_base: bool) -> Iterator[str]:
    for name in [it for it in then if it in now and it != "per_device_train_batch_size"]:
        before, after = then[name], now[name]
        if name in ("base model", "teacher") and before and after:  # by their weights: a folder may be renamed
            if before[1] != after[1] and not (own_base and name == "base model"):
                yield f"{name} was {before[0]} (weights {before[1]}), is {after[0]} (weights {after[1]})"
        elif before != after:
            yield f"{name} was {before}, is {after}"


def differing_files(checkpoint: Path, model: nn.Module) -> Iterator[str]:
    """What the configs of a checkpoint and its adapter have otherwise than a model."""
    adapters = getattr(model, "peft_config", {})
    saved = next(iter(sorted(checkpoint.glob("**/adapter_config.json"))), None)
    if (saved is not None) != bool(adapters):
        yield "it holds an adapter, and this run trains all weights" if saved else "it has no adapter, as this run has"
    elif saved is not None:
        then, now = json.loads(saved.read_text("utf-8")), next(iter(adapters.values())).to_dict()
        for name in _ADAPTER:
            before, after = _plain(then.get(name)), _plain(now.get(name))
            if name in then and before != after:
                yield f"{name} was {before}, is {after}"
    folder = next((it for it in (checkpoint, checkpoint.parent) if (it / "config.json").is_file()), None)
    if folder is None:
        return
    then, now = DHRDConfig.from_pretrained(folder), find_dual_head(model).config
    # A head that was never trained may not know its kind of labels yet.
    other_kind = None not in (then.problem_type, now.problem_type) and then.problem_type != now.problem_type
    if other_kind or then.id2label != now.id2label:
        yield " and ".join(
            f"its labels {when} {it.problem_type} of {', '.join(map(repr, it.id2label.values()))}"
            for when, it in (("were", then), ("are", now))
        )
    for name in _CONFIG:
        before, after = getattr(then, name), getattr(now, name)
        if None not in (before, after) and before != after:
            yield f"{name} was {before!r}, is {after!r}"
    if then.class_weights != now.class_weights:
        yield f"class_weights were {then.class_weights}, are {now.class_weights}"
    before, after = then.backbone_config.to_dict(), now.backbone_config.to_dict()
    for name in sorted(before.keys() & after.keys()):
        if not name.startswith("_") and name not in _OF_A_SESSION and _plain(before[name]) != _plain(after[name]):
            yield f"the language model's {name} was {before[name]}, is {after[name]}"


def _plain(value: Any) -> Any:
    value = sorted(value) if isinstance(value, (set, frozenset)) else getattr(value, "value", value)
    return sorted(value) if isinstance(value, list) and all(isinstance(it, str) for it in value) else value
