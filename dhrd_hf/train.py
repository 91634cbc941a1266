"""A run from its tables to its verdict: what `dhrd train` and the estimator do."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import IntervalStrategy

from . import (
    AutoModelForDualHeadClassification,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    __version__,
    export_classifier,
)
from .data import EncodingCounts
from .data.joining import key_column
from .data.prompts import REASONING_SPANS, unescaped
from .data.splits import write_split
from .data.table_writing import is_flat, write_rows
from .data.tables import SPLIT_FILE, table_name
from .embedded import HUB_NAME, LICENSE
from .evaluation import LabelledLogits, Prediction
from .evaluation.baselines import look_at_tables
from .evaluation.logits import write_logits
from .evaluation.prediction import prediction_columns, read_logits
from .evaluation.verdict import Judged, decided
from .export.card_facts import FACTS_FILE, CardFacts, hub_name, inherited_license, read_card_facts
from .export.classifier import check_apart
from .files import checkpoints, strict_json, write_whole
from .modeling_dhrd import find_dual_head
from .opening import load_tokenizer, times_slower
from .rationales.audit import NOTHING_FOUND, quick_audit, summary
from .training.logs import measured
from .training.options import CLASSIFIER_INITS, SHOWN, TrainArguments, TrainOptions, options_of
from .training.resuming import checkpoint_to_resume
from .training.run_tables import evaluation_set, read_tables
from .training.run_trainer import encoded, encoder_of, model_files, model_path, trainer_of

VERDICT_FILE, PAGE = "verdict.json", "report.html"
UNTRAINED = "untrained (zero-shot)"
Say = Callable[..., None]


def train(options: TrainOptions, training: DualHeadTrainingArguments, say: Say) -> DualHeadTrainer | None:
    """Train, evaluate and save a run, of which rank 0 `say`s what it does; a dry run has no trainer."""
    own, first = options.own, training.process_index == 0
    say = say if first else lambda *_: None
    checkpoint = _start(own, training, say)
    for line in (*_unused(own, training), *_in_software(own, training)):
        say(f"warning: {line}")
    tables = read_tables(own, say)
    train, dev, labels, prompt, *_ = tables
    if dev is None and training.eval_strategy != "no":
        if "eval_strategy" in options.training or training.load_best_model_at_end:
            raise ValueError(
                f"There are no rows to evaluate on, and {len(train)} are too few to hold some out unasked: add --eval-data "
                "TABLE or --eval-split 0.2."
            )
        training.eval_strategy = IntervalStrategy.NO
    if own.dry_run:
        if first:
            tokenizer = load_tokenizer(model_path(own.model), **model_files(own))
            suffix = None if own.suffix is None else unescaped(own.suffix)
            given = {"label2id": labels.label2id, "prompt": prompt, "suffix": suffix, "max_length": own.max_length}
            look_at_tables(encoder_of(own, tokenizer, labels, **given), train, dev, labels, say)
        return None
    if own.logits is not None and labels.problem_type != "single_label_classification":
        raise ValueError(f"--logits is of one label a row, and {own.train_data} is {labels.problem_type}.")
    more = {
        name: evaluation_set(own, table, f"--more-eval-data {name}", labels, say)
        for name, _, table in (it.partition("=") for it in own.more_eval_data or ())
    }
    held_out = own.validation_data and evaluation_set(own, own.validation_data, own.validation_data, labels, say)
    trainer, encode = trainer_of(own, training, train, dev, labels, say)
    dev_rows = trainer.eval_dataset
    if held_out is not None:
        trainer.eval_dataset = encoded(held_out, copy.copy(encode), own, say)
    more = {name: encoded(table, copy.copy(encode), own, say) for name, table in more.items()}
    if own.export and trainer.is_deepspeed_enabled:
        raise ValueError("--export does not go with DeepSpeed: leave it out, and use dhrd export afterwards.")
    audit = _look_at_rationales(own, train, trainer, say) if first else None
    folder = Path(training.output_dir)
    if checkpoint is None and own.overwrite_output_dir and first:  # now that nothing can be refused any more
        for old in checkpoints(folder):  # --resume would go on from them
            old.unlink() if old.is_symlink() else shutil.rmtree(old)
        for name in (FACTS_FILE, SPLIT_FILE, VERDICT_FILE, PAGE):  # a later command would take them for this run's
            (folder / name).unlink(missing_ok=True)
    if tables.held_out is not None and first:
        write_split(folder, own.train_data, own.encoding, tables.whole, prompt, tables.held_out)
    untrained = _untrained(own, trainer, dev_rows) if checkpoint is None else None
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.eval_dataset = dev_rows
    getattr(trainer, "_eval_dataloaders", {}).clear()  # persistent workers would go on with the other rows
    if trainer.is_fsdp_enabled:  # its checkpoints may be in shards; the result is one model
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    trainer.save_state()
    if trained.global_step > trainer.steps_before or not (folder / "train_results.json").is_file():
        trainer.save_metrics("train", trained.metrics)
    metrics = None
    if dev is not None:
        metrics, logits = trainer.evaluate_rows(trainer.eval_dataset)
        trainer.save_metrics("eval", metrics)
        say(f"\nevaluation: {measured(metrics)}")
    if first:
        training_facts(own, trainer, encode.counts, metrics, audit).save(folder / FACTS_FILE)
        if dev is not None and own.logits is None:  # a study judges its runs itself
            _write_verdict(own, trainer, train, dev, logits, untrained, encode.counts, say)
    if own.logits is not None:
        found = {"eval": (trainer.eval_dataset, logits)}
        found |= {name: (rows, trainer.evaluate_rows(rows, f"eval_{name}")[1]) for name, rows in more.items()}
        if first:
            names = list(find_dual_head(trainer.model).config.id2label.values())
            sets = {name: (rows["labels"][:], logits.float()) for name, (rows, logits) in found.items()}
            write_logits(own.logits, names, sets)
    if own.predictions is not None and first:
        write_rows(own.predictions, _said_of_rows(own, trainer, dev, logits))
    if training.push_to_hub:
        trainer.push_to_hub()
    return trainer


def _start(own: TrainArguments, training: DualHeadTrainingArguments, say: Say) -> str | None:
    """The checkpoint to go on from, if any; checks what is left to check before anything is loaded."""
    if own.predictions is not None:
        _check_prediction_columns(own)
    folder = Path(training.output_dir)
    if training.resume_from_checkpoint:
        return training.resume_from_checkpoint
    if own.resume:
        last = checkpoint_to_resume(folder, lambda reason: say(f"warning: {reason}"))
        say(f"Going on from {last}." if last else f"No checkpoint in {folder} yet: starting from the beginning.")
        return last
    if folder.is_dir() and any(folder.iterdir()):
        check_apart(folder, own.model, own.teacher)
    return None


def _unused(own: TrainArguments, training: DualHeadTrainingArguments) -> Iterator[str]:
    """Options that nothing comes of; in a study or a search another value of another option may ask for them."""
    if training.alpha_schedule in ("constant", "auto") and training.alpha_end != 0:
        yield f"--alpha-end {training.alpha_end:g} is where a schedule ends, and there is none: see --alpha-schedule."
    if training.alpha_schedule != "step" and training.alpha_step_at != 0.5:
        yield f"--alpha-step-at {training.alpha_step_at:g} is of --alpha-schedule step, and does nothing."
    if own.teacher is None and training.temperature != 1:
        yield f"--temperature {training.temperature:g} is of a teacher's soft targets, and there is no --teacher."
    if own.alpha == 0 and own.beta == 0:
        yield "--alpha 0 and --beta 0: nothing is learned."


def _in_software(own: TrainArguments, training: DualHeadTrainingArguments) -> Iterator[str]:
    mixed = "bf16" if training.bf16 else "fp16" if training.fp16 else None
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(mixed, own.dtype)
    if ratio := times_slower(getattr(torch, dtype, None), training.device):
        option = f"--{mixed}" if mixed else f"--dtype {dtype}"
        yield f"{option}: this processor multiplies in {dtype} {ratio:.0f} times slower than in float32: leave it out."


def _look_at_rationales(
    own: TrainArguments, train: datasets.Dataset, trainer: DualHeadTrainer, say: Say
) -> dict[str, Any] | None:
    config = find_dual_head(trainer.model).config
    if not config.alpha or own.rationale_column not in train.column_names:
        return None
    columns = {"label_column": own.label_column, "rationale_column": own.rationale_column}
    audit = quick_audit(train, prompt=config.prompt_template, **columns)
    if audit is not None:
        fine = audit["verdict"][0].startswith(NOTHING_FOUND)
        said = audit["verdict"][0] if fine else "see the warnings"
        say(f"rationales  {audit['rows']} looked at: {said}\n")
        for line in () if fine else audit["verdict"]:
            say(f"warning: {line}")
    return audit


def _check_prediction_columns(own: TrainArguments) -> None:
    """Raise where a column of the predictions would have the name of one that they are to stand beside."""
    added = prediction_columns(Prediction(None, error="none"), [], None, is_flat(own.predictions))
    if own.label_column in added or own.label_column.startswith("probability_"):
        raise ValueError(
            f"--predictions would lose the labels, whose column {own.label_column!r} has the name of one of its own: "
            "rename the column."
        )


def _untrained(own: TrainArguments, trainer: DualHeadTrainer, rows: datasets.Dataset | None) -> Tensor | None:
    """What a head that starts from label words says before it is trained; no random number of the training is drawn."""
    shared = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # which prepare a model once
    if own.classifier_init != "label_words" or rows is None or shared:
        return None
    with torch.random.fork_rng():
        return trainer.evaluate_rows(rows, "untrained", log=False)[1]


def _write_verdict(
    own: TrainArguments,
    trainer: DualHeadTrainer,
    train: datasets.Dataset,
    dev: datasets.Dataset,
    logits: Tensor,
    untrained: Tensor | None,
    counts: EncodingCounts,
    say: Say,
) -> None:
    """Say whether it is any good, and leave the page and its numbers beside the run."""
    config = find_dual_head(trainer.model).config
    if config.problem_type == "regression" or len(dev) < 2:
        return
    labels = np.array(trainer.eval_dataset["labels"][:])
    others = {} if untrained is None else {UNTRAINED: decided(untrained.float().numpy(), labels)}
    found = LabelledLogits(logits.float().numpy(), labels, 0, config.problem_type)
    seen = (train, np.array(trainer.train_dataset["labels"][:]))
    folder = Path(trainer.args.output_dir)
    source = str(folder.resolve()) + "@train" if own.eval_data is None else own.train_data
    if Path(source).exists():
        source = str(Path(source).resolve())
    judged = Judged(config, config.prompt_template or "{text}", dev, found, seen, others)
    say(f"\n{judged.text()}")
    write_whole(folder / VERDICT_FILE, strict_json({**judged.report, "train_data": source}) + "\n")
    data = own.eval_data or f"{own.train_data}, held out"
    page = judged.page(folder.name, data, trainer.state.log_history, [f"Training rows: {counts}."])
    write_whole(folder / PAGE, page)
    say(f"The page: {folder / PAGE}")


def _said_of_rows(
    own: TrainArguments, trainer: DualHeadTrainer, dev: datasets.Dataset, logits: Tensor
) -> Iterator[dict[str, Any]]:
    """A row's number or key, its label, and the columns that `dhrd predict` adds."""
    config = find_dual_head(trainer.model).config
    regression = config.problem_type == "regression"
    names = [] if regression else list(config.id2label.values())
    key = key_column(dev.column_names)
    keys = range(len(dev)) if key is None else dev[key]
    flat = is_flat(own.predictions)
    for value, label, prediction in zip(
        keys, dev[own.label_column], read_logits(logits.double(), config), strict=True
    ):
        if regression and isinstance(label, str):
            label = float(label)
        yield {key or "row": value, own.label_column: label} | prediction_columns(prediction, names, None, flat)


def training_facts(
    own: TrainArguments,
    trainer: DualHeadTrainer,
    counts: EncodingCounts,
    metrics: dict[str, float] | None,
    audit: dict[str, Any] | None,
) -> CardFacts:
    config, training = find_dual_head(trainer.model).config, trainer.args
    base_model = HUB_NAME if own.model == "smollm2" else hub_name(own.model)
    revision = config.backbone_revision if hub_name(own.model) else None
    license = CardFacts(license=LICENSE) if own.model == "smollm2" else inherited_license(own.model, revision)
    batch = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
    settings: dict[str, Any] = {name: getattr(training, name) for name in SHOWN}
    settings = {name: getattr(value, "value", value) for name, value in settings.items()}
    settings |= {
        "rows a step": batch,
        "steps": trainer.state.global_step,
        "epochs": f"{trainer.state.epoch or 0:.4g}",
        "max_length": own.max_length,
        "max_input_length": config.max_input_length,
        "dtype": own.dtype + (", bf16" if training.bf16 else ", fp16" if training.fp16 else ""),
        "class_weights": config.class_weights,
    }
    balanced = training.alpha_schedule == "auto" and config.alpha > 0
    if training.alpha_schedule not in ("constant", "auto"):
        settings |= {name: getattr(training, name) for name in ("alpha_schedule", "alpha_end")}
    if training.reasoning_share != 1:
        settings["reasoning_share"] = training.reasoning_share
    if own.reasoning_span != REASONING_SPANS[0]:
        settings["reasoning_span"] = own.reasoning_span
    if own.classifier_init != CLASSIFIER_INITS[0]:
        settings |= {"classifier_init": own.classifier_init, "label_words": own.label_words}
    if own.lora:
        settings |= {name: getattr(own, name) for name in options_of("lora")}
    held_out = ", rows held out" if own.eval_data is None else ""
    measured = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items()}
    return CardFacts(
        base_model=base_model,
        base_model_revision=revision,
        train_data=table_name(own.train_data),
        train_rows=counts.rows,
        rows_without_rationale=counts.without_rationale,
        rationale_audit=None if audit is None else summary(audit),
        alpha="auto" if balanced else config.alpha,
        beta=config.beta,
        classifier_head=config.classifier_head,
        hyperparameters={name: value for name, value in settings.items() if value is not None and value is not False},
        versions={"dhrd_hf": __version__} | {name: version(name) for name in ("transformers", "torch", "peft")},
        dev_data=None if metrics is None else table_name(own.eval_data or own.train_data) + held_out,
        dev_rows=None if metrics is None else len(trainer.eval_dataset),
        dev_metrics={name: measured[name] for name in ("accuracy", "macro_f1", "mse", "mae") if name in measured}
        or None,
    ).updated(license)


def export_run(own: TrainArguments, trainer: DualHeadTrainer) -> None:
    model = trainer.model
    if trainer.is_fsdp_enabled:  # of which this process has a share
        model = AutoModelForDualHeadClassification.from_pretrained(trainer.args.output_dir, dtype=own.dtype)
    card = read_card_facts(trainer.args.output_dir, own.export, None)
    export_classifier(model, trainer.processing_class, own.export, card=card)
