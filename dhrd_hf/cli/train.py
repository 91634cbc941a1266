"""`dhrd train`."""

from __future__ import annotations

import copy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import TrainArguments, class_weights, label_words, parse_train
from .card import read_card_facts, training_facts
from .last_evaluation import check_prediction_columns, evaluate_rows, said_of_rows, write_logits
from .parsing import chosen_prompt, quiet, resumed, unescaped, warn

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from .. import DHRDForDualHeadClassification, DualHeadEncoder, DualHeadTrainer, DualHeadTrainingArguments
    from ..data.labels import Labels
    from ..training import Teacher


def run(argv: Sequence[str]) -> int:
    """Train a dual-head model."""
    own, training = parse_train(argv)
    say: Callable[..., None] = print if training.process_index == 0 else lambda *_: None
    if training.process_index > 0:
        quiet()
    checkpoint = _start(own, training, say)
    for line in _unused(own, training) if training.process_index == 0 else ():
        print(f"warning: {line}", file=sys.stderr)

    from ..data.table_writing import write_rows
    from ..export.card_facts import FACTS_FILE

    train, dev, labels = _tables(own, say)
    if own.logits is not None and labels.problem_type != "single_label_classification":
        raise ValueError(f"--logits is of one label a row, and {own.train_data} is {labels.problem_type}.")
    more = {
        name: _evaluated(own, table, f"--more-eval-data {name}", labels, say)
        for name, _, table in map(_named, own.more_eval_data or ())
    }
    held_out = own.validation_data and _evaluated(own, own.validation_data, own.validation_data, labels, say)
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
        by_row = own.predictions is not None or own.logits is not None
        metrics, logits = evaluate_rows(trainer, trainer.eval_dataset) if by_row else (trainer.evaluate(), None)
        trainer.save_metrics("eval", metrics)
        say("\nevaluation: " + ", ".join(f"{k.removeprefix('eval_')} {v:.4g}" for k, v in metrics.items()))
    if training.process_index == 0:
        training_facts(own, trainer, encode.counts, metrics, audit).save(folder / FACTS_FILE)
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


def _tables(own: TrainArguments, say: Callable[..., None]) -> tuple[datasets.Dataset, datasets.Dataset | None, Labels]:
    """The rows to train on and to evaluate on, and the labels that both have."""
    from ..data.labels import read_labels
    from ..data.tables import load_table

    train = load_table(own.train_data)
    if own.rationales is not None:
        train = _joined(train, own, say)
    train, labels = read_labels(train, own.label_column, own.problem_type, where=own.train_data, **_reading(own, say))
    cells = train[own.label_column][:]
    if labels.problem_type != "regression" and all(cell == cells[0] for cell in cells):
        raise ValueError(
            f"all {len(cells)} rows of {own.train_data} have one label, {labels if labels.counts else 'none'}: there is "
            "nothing to learn. Check --label-column, or add rows of every class."
        )
    dev = None if own.eval_data is None else _evaluated(own, own.eval_data, own.eval_data, labels, say)
    return train, dev, labels


def _reading(own: TrainArguments, say: Callable[..., None]) -> dict[str, Any]:
    """How label columns are read."""
    tell = warn if say is print else lambda _: None
    return {"known": _known_labels(own), "drop_unlabelled": own.drop_unlabelled, "say": tell}


def _known_labels(own: TrainArguments) -> Labels | list[str] | None:
    """The labels that are known before a table is read: of a checkpoint, whose head keeps their order, or as given."""
    from .. import DHRDConfig
    from ..auto import load_config
    from ..data.labels import Labels

    given = None if own.label_names is None else [name.strip() for name in own.label_names.split(",")]
    config = load_config(_model_path(own.model), **_files(own))
    if not isinstance(config, DHRDConfig):
        return given
    known = Labels.of(config, own.label_column)
    if given not in (None, known.names):
        raise ValueError(f"--label-names are {', '.join(given)}; {own.model} has {', '.join(known.names)}.")
    return known


def _evaluated(
    own: TrainArguments, source: str, where: str, labels: Labels, say: Callable[..., None]
) -> datasets.Dataset:
    """An evaluation set, whose labels are all among those of the training rows."""
    from ..data.labels import read_labels
    from ..data.tables import load_table

    # Ids are of labels whose order is known; the order of names found is ours.
    table, found = read_labels(
        load_table(source), own.label_column, labels.problem_type, where=where, **_reading(own, say)
    )
    labels.check(found, where, f"the training set {own.train_data}")
    return table


def _named(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def after_interrupt(argv: Sequence[str]) -> str:
    """How to go on after Ctrl-C."""
    return f"To go on from the last checkpoint: {resumed('dhrd train', argv)}"


def _joined(train: datasets.Dataset, own: TrainArguments, say: Callable[..., None]) -> datasets.Dataset:
    """The training rows with the rationales of a file of their own."""
    from ..data.joining import join_rationales

    names = {"rationale_column": own.rationale_column, "label_column": own.label_column}
    rows, counts = join_rationales(train, own.rationales, **names)
    say(f"rationales  {own.rationales}: {counts}")
    if own.rationale_column in train.column_names:
        train = train.remove_columns(own.rationale_column)
    return train.add_column(own.rationale_column, [row[own.rationale_column] for row in rows])


def _start(own: TrainArguments, training: DualHeadTrainingArguments, say: Callable[..., None]) -> str | None:
    """Check the folders before anything is loaded; the checkpoint to go on from, if any."""
    from ..export.classifier import check_apart
    from ..training.resuming import checkpoint_to_resume

    for target in filter(None, (own.predictions, own.logits)):
        from ..data.table_writing import check_target

        check_target(target, own.train_data, own.eval_data, own.validation_data, own.rationales)
    if own.predictions is not None:
        check_prediction_columns(own)
    folder = Path(training.output_dir)
    if own.export and Path(own.export).resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"--export {own.export} is or holds --output-dir {folder}, the run: name another folder.")
    if own.export and Path(own.export).exists() and (Path(own.export).is_file() or any(Path(own.export).iterdir())):
        raise FileExistsError(f"--export {own.export} exists and is not an empty folder: name another.")
    if folder.is_file():
        raise FileExistsError(f"--output-dir {folder} is a file: name a folder.")
    if own.resume and own.overwrite_output_dir:
        raise ValueError("--resume and --overwrite-output-dir exclude each other.")
    if training.resume_from_checkpoint:
        return training.resume_from_checkpoint
    if own.resume:
        tell = print if training.process_index == 0 else lambda *_, **__: None
        last = checkpoint_to_resume(folder, lambda reason: tell(f"warning: {reason}", file=sys.stderr))
        say(f"Going on from {last}." if last else f"No checkpoint in {folder} yet: starting from the beginning.")
        return last
    if folder.is_dir() and any(folder.iterdir()):
        if not own.overwrite_output_dir:
            raise FileExistsError(
                f"--output-dir {folder} is not empty. Add --resume to go on from its last checkpoint, "
                "--overwrite-output-dir to start anew in it, or name another."
            )
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
    from ..export.card_facts import FACTS_FILE
    from ..files import checkpoints

    for old in checkpoints(folder):  # --resume would go on from them
        old.unlink() if old.is_symlink() else shutil.rmtree(old)
    (folder / FACTS_FILE).unlink(missing_ok=True)


def _trainer(
    own: TrainArguments,
    training: DualHeadTrainingArguments,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    labels: Labels,
    say: Callable[..., None],
) -> tuple[DualHeadTrainer, DualHeadEncoder]:
    """The trainer, and what encoded the training rows and counted them; says what it will do."""
    from transformers import set_seed

    from .. import DualHeadCollator, DualHeadEncoder, DualHeadTrainer
    from ..evaluation import compute_metrics
    from ..files import load_tokenizer

    set_seed(training.seed)  # the classification head is drawn at random
    tokenizer = load_tokenizer(_model_path(own.model), **_files(own))
    model = _model(own, labels, tokenizer, say)
    if own.truncation_side is not None:
        tokenizer.truncation_side = own.truncation_side
    encode = DualHeadEncoder(
        tokenizer,
        model=model,
        max_length=_max_length(own.max_length, model.config, say),
        max_input_length=own.max_input_length,
        label_column=own.label_column,
        rationale_column=own.rationale_column,
        problem_type=labels.problem_type,
        reasoning_span=own.reasoning_span,
    )
    encode_dev = copy.copy(encode)  # with counts of its own
    rows = _encoded(train, encode, own, say)
    dev_rows = None if dev is None else _encoded(dev, encode_dev, own, say)
    teacher = _teacher(own)
    try:
        trainer = DualHeadTrainer(
            model=_with_lora(own, model) if own.lora else model,
            args=training,
            train_dataset=rows,
            eval_dataset=dev_rows,
            data_collator=DualHeadCollator(tokenizer, padding_free=own.padding_free),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            teacher=teacher,
            callbacks=_callbacks(own),
        )
    except RuntimeError as error:  # as of --report-to without the package that it is for
        raise ValueError(str(error)) from error
    say(f"train       {own.train_data}: {encode.counts}")
    if dev is not None:
        say(f"eval        {own.eval_data}: {encode_dev.counts}")
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


def _model_path(model: str) -> str:
    if model == "smollm2":
        from ..embedded import smollm2_path

        return str(smollm2_path())
    # An adapter remembers where its base model is: from any working directory.
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _files(own: TrainArguments) -> dict[str, str]:
    return {} if own.gguf_file is None else {"gguf_file": own.gguf_file}


def _model(
    own: TrainArguments, labels: Labels, tokenizer: PreTrainedTokenizerBase, say: Callable[..., None]
) -> DHRDForDualHeadClassification:
    """The model before it is trained; a new classification head is drawn at random, or starts from label words."""
    from .. import AutoModelForDualHeadClassification, DHRDConfig
    from ..auto import find_adapter, load_config
    from ..data.prompts import DEFAULT_SUFFIX
    from ..files import readable_model
    from ..label_words import with_answer_cue

    path = _model_path(own.model)
    config = load_config(path, **_files(own))
    prompt = chosen_prompt(own.prompt, own.text_column, getattr(config, "prompt_template", None))
    if own.classifier_init == "label_words":
        if isinstance(config, DHRDConfig):
            raise ValueError(
                f"{own.model} has a classification head, which is trained further: leave --classifier-init out."
            )
        prompt = with_answer_cue(prompt)
    kwargs = {**_files(own), "prompt_template": prompt}
    if own.lora and own.gguf_file is not None:
        raise ValueError(
            "--lora saves adapters, which could not find a GGUF base model again: leave --lora out, or convert the "
            "base first with AutoModelForCausalLM.from_pretrained(..., gguf_file=...).save_pretrained(folder)."
        )
    if isinstance(config, DHRDConfig):
        if find_adapter(path) is not None:
            if own.lora:
                raise ValueError(
                    f"{own.model} has LoRA adapters already, which are trained further: leave --lora out."
                )
            kwargs["is_trainable"] = True
    else:
        kwargs |= {"id2label": labels.id2label, "problem_type": labels.problem_type}
    kwargs["class_weights"] = class_weights(own.class_weights, labels)
    for name in ("classifier_head", "attn_implementation"):
        if getattr(own, name) is not None:
            kwargs[name] = getattr(own, name)
    with readable_model(own.model):
        model = AutoModelForDualHeadClassification.from_pretrained(
            path, alpha=own.alpha, beta=own.beta, dtype=own.dtype, **kwargs
        )
    # Kept for whoever decodes, as the prompt is for whoever classifies.
    known = getattr(config, "suffix_template", None) or DEFAULT_SUFFIX
    model.config.suffix_template = known if own.suffix is None else unescaped(own.suffix)
    model.config.rationale_after_label = own.rationale_after_label
    if own.classifier_init == "label_words":
        _start_from_words(own, model, tokenizer, say)
    return model


def _start_from_words(
    own: TrainArguments,
    model: DHRDForDualHeadClassification,
    tokenizer: PreTrainedTokenizerBase,
    say: Callable[..., None],
) -> None:
    """Let the classification head start as the language model's answer, and say what it starts from."""
    from ..label_words import init_classifier_from_label_words, names_say_nothing

    words = label_words(own.label_words)
    tokens = init_classifier_from_label_words(model, tokenizer, words)
    said = [f"{name} as {tokenizer.convert_tokens_to_string(of)!r}" for name, of in tokens.items()]
    say(f"classifier  starts from label words: {', '.join(said[:8])}{', ...' if len(said) > 8 else ''}")
    say(f"prompt      {model.config.prompt_template!r}")
    silent = [name for name in tokens if name not in words and names_say_nothing([name])]
    if silent and say is print:
        warn(
            f"label {silent[0]!r} is a code, which says nothing to a language model: name the labels by "
            f"""--label-words '{{"{silent[0]}": "word", ...}}'."""
        )


def _teacher(own: TrainArguments) -> Teacher | None:
    from transformers import AutoModelForCausalLM

    from ..files import load_tokenizer, without_its_code
    from ..training import Teacher

    if own.teacher is None:
        return None
    path = _model_path(own.teacher)
    with without_its_code(path):
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=own.dtype, trust_remote_code=False)
    return Teacher(lm, load_tokenizer(path), own.teacher_cache, own.teacher_top_k)


def _max_length(wanted: int, config: PreTrainedConfig, say: Callable[..., None]) -> int:
    from ..data.inputs import positions_of

    positions = positions_of(config)
    if positions is None or wanted <= positions:
        return wanted
    say(f"max_length is {positions}, all the positions that the model has, instead of {wanted}.")
    return positions


def _with_lora(own: TrainArguments, model: DHRDForDualHeadClassification) -> Any:
    from ..training import add_lora

    modules = own.target_modules if own.target_modules == "all-linear" else own.target_modules.split(",")
    return add_lora(model, own.lora_r, own.lora_alpha, own.lora_dropout, modules, own.use_dora, own.use_rslora)


def _finish(own: TrainArguments, training: DualHeadTrainingArguments, trainer: DualHeadTrainer) -> None:
    """Export if asked to, and say what to type next."""
    from .. import AutoModelForDualHeadClassification, export_classifier

    run_dir = shlex.quote(str(training.output_dir))
    print(f"\nSaved the dual-head model in {run_dir}. Next:")
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
