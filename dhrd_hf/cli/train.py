"""`dhrd train`."""

from __future__ import annotations

import copy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.text_tables import reading
from .arguments import TrainArguments, parse_given
from .card import read_card_facts, training_facts
from .dry_run import look_at_tables
from .early import check_training
from .last_evaluation import (
    PAGE,
    VERDICT_FILE,
    check_prediction_columns,
    evaluate_rows,
    said_of_rows,
    untrained_logits,
    write_logits,
    write_verdict,
)
from .models import build_model, max_length, model_files, model_path, teacher_of, with_lora
from .parsing import quiet, resumed, warn, without_bars
from .tables import evaluation_set, read_tables

if TYPE_CHECKING:
    import datasets

    from .. import DHRDForDualHeadClassification, DualHeadEncoder, DualHeadTrainer, DualHeadTrainingArguments
    from ..data.labels import Labels


def run(argv: Sequence[str]) -> int:
    """Train a dual-head model."""
    given = parse_given(argv)
    own = given.own
    reading(own.encoding)
    starts_anew = not own.resume and not given.training.get("resume_from_checkpoint")
    check_training(own, given.training["output_dir"], starts_anew)
    training = given.training_arguments()
    say: Callable[..., None] = print if training.process_index == 0 else lambda *_: None
    if training.process_index > 0:
        quiet()
    without_bars()
    checkpoint = _start(own, training, say)
    for line in _unused(own, training) if training.process_index == 0 else ():
        print(f"warning: {line}", file=sys.stderr)

    from transformers import IntervalStrategy

    from ..data.splits import write_split
    from ..data.table_writing import write_rows
    from ..export.card_facts import FACTS_FILE
    from ..files import load_tokenizer
    from .progress import measured

    tables = read_tables(own, say)
    train, dev, labels, prompt, *_ = tables
    if dev is None and training.eval_strategy != "no":
        if "eval_strategy" in given.training or training.load_best_model_at_end:
            raise ValueError(
                f"There are no rows to evaluate on, and {len(train)} are too few to hold some out unasked: add --eval-data "
                "TABLE or --eval-split 0.2."
            )
        training.eval_strategy = IntervalStrategy.NO
    if own.dry_run:
        if training.process_index == 0:
            tokenizer = load_tokenizer(model_path(own.model), **model_files(own))
            look_at_tables(own, prompt, tokenizer, train, dev, labels, print)
        return 0
    if own.logits is not None and labels.problem_type != "single_label_classification":
        raise ValueError(f"--logits is of one label a row, and {own.train_data} is {labels.problem_type}.")
    more = {
        name: evaluation_set(own, table, f"--more-eval-data {name}", labels, say)
        for name, _, table in map(_named, own.more_eval_data or ())
    }
    held_out = own.validation_data and evaluation_set(own, own.validation_data, own.validation_data, labels, say)
    trainer, encode = _trainer(own, training, train, dev, labels, say)
    dev_rows = trainer.eval_dataset
    if held_out is not None:
        trainer.eval_dataset = _encoded(held_out, copy.copy(encode), own, say)
    more = {name: _encoded(table, copy.copy(encode), own, say) for name, table in more.items()}
    if own.export and trainer.is_deepspeed_enabled:
        raise ValueError("--export does not go with DeepSpeed: leave it out, and use dhrd export afterwards.")
    audit = _look_at_rationales(own, train, trainer) if training.process_index == 0 else None
    folder = Path(training.output_dir)
    if (
        checkpoint is None and own.overwrite_output_dir and training.process_index == 0
    ):  # now that nothing can be refused any more
        _clear(folder)
    if tables.held_out is not None and training.process_index == 0:
        write_split(folder, own.train_data, own.encoding, tables.whole, prompt, tables.held_out)
    untrained = untrained_logits(own, trainer, dev_rows) if checkpoint is None else None
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
        metrics, logits = evaluate_rows(trainer, trainer.eval_dataset)
        trainer.save_metrics("eval", metrics)
        say(f"\nevaluation: {measured(metrics)}")
    if training.process_index == 0:
        training_facts(own, trainer, encode.counts, metrics, audit).save(folder / FACTS_FILE)
        if dev is not None and own.logits is None:  # a study judges its runs itself
            write_verdict(own, trainer, train, dev, logits, untrained, [f"Training rows: {encode.counts}."])
    if own.logits is not None:
        found = {"eval": (trainer.eval_dataset, logits)}
        found |= {name: (rows, evaluate_rows(trainer, rows, f"eval_{name}")[1]) for name, rows in more.items()}
        if training.process_index == 0:
            write_logits(own.logits, trainer, found)
    if own.predictions is not None and training.process_index == 0:
        write_rows(own.predictions, said_of_rows(own, trainer, dev, logits))
    if training.push_to_hub:
        trainer.push_to_hub()
    if training.process_index == 0:
        _finish(own, training, trainer)
    return 0


def _named(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def after_interrupt(argv: Sequence[str]) -> str:
    """How to go on after Ctrl-C."""
    return f"To go on from the last checkpoint: {resumed('dhrd train', argv)}"


def _start(own: TrainArguments, training: DualHeadTrainingArguments, say: Callable[..., None]) -> str | None:
    """The checkpoint to go on from, if any; checks what is left to check before anything is loaded."""
    from ..export.classifier import check_apart
    from ..training.resuming import checkpoint_to_resume

    if own.predictions is not None:
        check_prediction_columns(own)
    folder = Path(training.output_dir)
    if training.resume_from_checkpoint:
        return training.resume_from_checkpoint
    if own.resume:
        tell = print if training.process_index == 0 else lambda *_, **__: None
        last = checkpoint_to_resume(folder, lambda reason: tell(f"warning: {reason}", file=sys.stderr))
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


def _clear(folder: Path) -> None:
    """Remove what an old run left that a later command would take for this run's."""
    from ..data.tables import SPLIT_FILE
    from ..export.card_facts import FACTS_FILE
    from ..files import checkpoints

    for old in checkpoints(folder):  # --resume would go on from them
        old.unlink() if old.is_symlink() else shutil.rmtree(old)
    for name in (FACTS_FILE, SPLIT_FILE, VERDICT_FILE, PAGE):
        (folder / name).unlink(missing_ok=True)


def _trainer(
    own: TrainArguments,
    training: DualHeadTrainingArguments,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    labels: Labels,
    say: Callable[..., None],
) -> tuple[DualHeadTrainer, DualHeadEncoder]:
    """The trainer, and what encoded the training rows and counted them; says what it will do."""
    from transformers import PrinterCallback, ProgressCallback, set_seed

    from .. import DualHeadCollator, DualHeadEncoder, DualHeadTrainer
    from ..evaluation import compute_metrics
    from ..files import load_tokenizer
    from .progress import Progress

    set_seed(training.seed)  # the classification head is drawn at random
    tokenizer = load_tokenizer(model_path(own.model), **model_files(own))
    model = build_model(own, labels, tokenizer, say)
    if own.truncation_side is not None:
        tokenizer.truncation_side = own.truncation_side
    encode = DualHeadEncoder(
        tokenizer,
        model=model,
        max_length=max_length(own.max_length, model.config, say),
        max_input_length=own.max_input_length,
        label_column=own.label_column,
        rationale_column=own.rationale_column,
        problem_type=labels.problem_type,
        reasoning_span=own.reasoning_span,
    )
    encode_dev = copy.copy(encode)  # with counts of its own
    rows = _encoded(train, encode, own, say)
    dev_rows = None if dev is None else _encoded(dev, encode_dev, own, say)
    teacher = teacher_of(own)
    try:
        trainer = DualHeadTrainer(
            model=with_lora(own, model) if own.lora else model,
            args=training,
            train_dataset=rows,
            eval_dataset=dev_rows,
            data_collator=DualHeadCollator(tokenizer, padding_free=own.padding_free),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            teacher=teacher,
            callbacks=_callbacks(own),
        )
        trainer.remove_callback(PrinterCallback if training.disable_tqdm else ProgressCallback)
        trainer.add_callback(Progress(not training.disable_tqdm))
    except RuntimeError as error:  # as of --report-to without the package that it is for
        raise ValueError(str(error)) from error
    say(f"train       {own.train_data}: {encode.counts}")
    if dev is not None:
        say(f"eval        {own.eval_data or 'held out'}: {encode_dev.counts}")
    say(f"labels      {labels}")
    soft = "" if trainer.teacher is None else f" + {training.distillation_weight:g} * soft targets of {own.teacher}"
    weights = f"{model.config.beta:g} * classification loss + {_weight(model, training)} * reasoning loss"
    say(f"objective   {weights}{soft}")
    if model.config.alpha != 0 and encode.counts.without_rationale == encode.counts.rows:
        say(f"            no training row has a rationale in column {own.rationale_column!r}: it learns labels only")
    total = sum(p.numel() for p in trainer.model.parameters())
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    say(f"parameters  {trainable:,} of {total:,} trained ({trainable / total:.1%})\n")
    return trainer, encode


def _encoded(
    table: datasets.Dataset, encode: DualHeadEncoder, own: TrainArguments, say: Callable[..., None]
) -> datasets.Dataset:
    """The encoded rows; what is rarely meant is told here, and the counts with the table's name."""
    rows = encode.encode_dataset(table, cache_dir=own.encoding_cache, say=lambda _: None)
    for line in encode.counts.advice if say is print else ():
        warn(line)
    return rows


def _callbacks(own: TrainArguments) -> list[Any] | None:
    from transformers import EarlyStoppingCallback

    patience = own.early_stopping_patience
    return None if patience is None else [EarlyStoppingCallback(early_stopping_patience=patience)]


def _weight(model: DHRDForDualHeadClassification, training: DualHeadTrainingArguments) -> str:
    """The weight of the reasoning loss over the run, in words."""
    alpha = model.config.alpha
    if training.alpha_schedule == "constant" or alpha == 0:
        return f"{alpha:g}"
    if training.alpha_schedule == "auto":
        return "(balanced at each step)"
    return f"({alpha:g} to {training.alpha_end:g}, {training.alpha_schedule})"


def _look_at_rationales(
    own: TrainArguments, train: datasets.Dataset, trainer: DualHeadTrainer
) -> dict[str, Any] | None:
    """Audit some of the rationales, and warn before a training run is spent on them."""
    from ..modeling_dhrd import find_dual_head
    from ..rationales.audit import quick_audit
    from ..rationales.report import NOTHING_FOUND

    config = find_dual_head(trainer.model).config
    if not config.alpha or own.rationale_column not in train.column_names:
        return None
    columns = {"label_column": own.label_column, "rationale_column": own.rationale_column}
    audit = quick_audit(train, prompt=config.prompt_template, **columns)
    if audit is not None:
        fine = audit["verdict"][0].startswith(NOTHING_FOUND)
        said = audit["verdict"][0] if fine else "see the warnings"
        print(f"rationales  {audit['rows']} looked at: {said}\n")
        for line in () if fine else audit["verdict"]:
            print(f"warning: {line}", file=sys.stderr)
    return audit


def _finish(own: TrainArguments, training: DualHeadTrainingArguments, trainer: DualHeadTrainer) -> None:
    """Export if asked to, and say what to type next."""
    from .. import AutoModelForDualHeadClassification, export_classifier
    from ..data.tables import SPLIT_FILE

    run_dir = shlex.quote(str(training.output_dir))
    print(f"\nSaved the dual-head model in {run_dir}. Next:")
    held_out = (Path(training.output_dir) / SPLIT_FILE).is_file()
    print(f"  dhrd evaluate --model {run_dir}{'' if held_out else ' --data TABLE'}")
    print(f"  dhrd calibrate --model {run_dir}{'' if held_out else ' --data TABLE'} --output {run_dir}-calibrated")
    classifier = run_dir
    if own.export:
        model = trainer.model
        if trainer.is_fsdp_enabled:  # of which this process has a share
            model = AutoModelForDualHeadClassification.from_pretrained(training.output_dir, dtype=own.dtype)
        card = read_card_facts(training.output_dir, own.export, None)
        export_classifier(model, trainer.processing_class, own.export, card=card)
        classifier = shlex.quote(own.export)
    else:
        print(f"  dhrd export --model {run_dir} --output {run_dir}-classifier")
    print(f"  dhrd predict --model {classifier} --data TABLE --output predictions.jsonl")
