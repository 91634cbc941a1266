"""The trainer of a run, as its options say: its model, its teacher and its encoded rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from transformers import (
    AutoModelForCausalLM,
    EarlyStoppingCallback,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    set_seed,
)

from .. import (
    AutoModelForDualHeadClassification,
    DHRDConfig,
    DHRDForDualHeadClassification,
    DualHeadCollator,
    DualHeadEncoder,
)
from ..auto import find_adapter, load_config
from ..data.inputs import positions_of
from ..data.labels import Labels
from ..data.prompts import DEFAULT_SUFFIX, chosen_prompt, unescaped
from ..evaluation import compute_metrics
from ..opening import load_tokenizer, readable_model, without_its_code
from .arguments import DualHeadTrainingArguments
from .label_words import init_classifier_from_label_words, names_say_nothing, with_answer_cue
from .logs import Progress
from .lora import add_lora
from .options import TrainArguments, label_words, options_of
from .soft_targets import Teacher
from .trainer import DualHeadTrainer


def base_config(own: TrainArguments) -> PreTrainedConfig:
    return load_config(model_path(own.model), **model_files(own))


def model_path(model: str) -> str:
    """Where a model is, from any working directory: an adapter remembers it."""
    if model == "smollm2":
        from ..embedded import smollm2_path

        return str(smollm2_path())
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def model_files(own: TrainArguments) -> dict[str, str]:
    return {} if own.gguf_file is None else {"gguf_file": own.gguf_file}


def build_model(
    own: TrainArguments, labels: Labels, tokenizer: PreTrainedTokenizerBase, say: Callable[..., None]
) -> DHRDForDualHeadClassification:
    """The model before it is trained; a new classification head is drawn at random, or starts from label words."""
    path = model_path(own.model)
    config = load_config(path, **model_files(own))
    prompt = chosen_prompt(own.prompt, own.text_column, getattr(config, "prompt_template", None))
    if own.classifier_init == "label_words":
        if isinstance(config, DHRDConfig):
            raise ValueError(
                f"{own.model} has a classification head, which is trained further: leave --classifier-init out."
            )
        prompt = with_answer_cue(prompt)
    kwargs = {**model_files(own), "prompt_template": prompt}
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
    kwargs["class_weights"] = _class_weights(own.class_weights, labels)
    for name in ("classifier_head", "attn_implementation"):
        if getattr(own, name) is not None:
            kwargs[name] = getattr(own, name)
    with readable_model(own.model):
        model = AutoModelForDualHeadClassification.from_pretrained(
            path, alpha=1.0 if own.alpha is None else own.alpha, beta=own.beta, dtype=own.dtype, **kwargs
        )
    # Kept for whoever decodes, as the prompt is for whoever classifies.
    known = getattr(config, "suffix_template", None) or DEFAULT_SUFFIX
    model.config.suffix_template = known if own.suffix is None else unescaped(own.suffix)
    model.config.rationale_after_label = own.rationale_after_label
    if own.label_column != "label":
        model.config.label_column = own.label_column  # for the commands that come after
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
    words = label_words(own.label_words)
    tokens = init_classifier_from_label_words(model, tokenizer, words)
    said = [f"{name} as {tokenizer.convert_tokens_to_string(of)!r}" for name, of in tokens.items()]
    say(f"classifier  starts from label words: {', '.join(said[:8])}{', ...' if len(said) > 8 else ''}")
    say(f"prompt      {model.config.prompt_template!r}")
    silent = [name for name in tokens if name not in words and names_say_nothing([name])]
    if silent:
        say(
            f"warning: label {silent[0]!r} is a code, which says nothing to a language model: name the labels by "
            f"""--label-words '{{"{silent[0]}": "word", ...}}'."""
        )


def teacher_of(own: TrainArguments) -> Teacher | None:
    if own.teacher is None:
        return None
    path = model_path(own.teacher)
    with without_its_code(path):
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=own.dtype, trust_remote_code=False)
    return Teacher(lm, load_tokenizer(path), own.teacher_cache, own.teacher_top_k)


def max_length(wanted: int, config: PreTrainedConfig, say: Callable[..., None]) -> int:
    positions = positions_of(config)
    if positions is None or wanted <= positions:
        return wanted
    say(f"max_length is {positions}, all the positions that the model has, instead of {wanted}.")
    return positions


def with_lora(own: TrainArguments, model: DHRDForDualHeadClassification) -> Any:
    given = {name: getattr(own, name) for name in options_of("lora")}
    given["r"] = given.pop("lora_r")
    if own.target_modules != "all-linear":
        given["target_modules"] = own.target_modules.split(",")
    return add_lora(model, **given)


def _class_weights(text: str | None, labels: Labels) -> list[float] | None:
    """Numbers with commas between them, or `balanced`, scikit-learn's rule: rows / (labels * rows of the label)."""
    if text is not None and labels.problem_type == "regression":
        raise ValueError("--class-weights is for classes, and this is regression: leave it out.")
    if text != "balanced":
        try:
            return None if text is None else [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"--class-weights {text!r} must be 'balanced' or numbers such as 1,2.5,1.") from None
    if labels.problem_type != "single_label_classification":
        raise ValueError("--class-weights balanced is for a single label a row. Give a number for each label.")
    absent = [name for name in labels.names if labels.counts[name] == 0]
    if absent:
        raise ValueError(
            f"--class-weights balanced: no training row has the label {absent[0]!r}. Give numbers instead."
        )
    return [labels.counts.total() / (len(labels.names) * labels.counts[name]) for name in labels.names]


def trainer_of(
    own: TrainArguments,
    training: DualHeadTrainingArguments,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    labels: Labels,
    say: Callable[..., None],
) -> tuple[DualHeadTrainer, DualHeadEncoder]:
    """The trainer, and what encoded the training rows and counted them; says what it will do."""
    set_seed(training.seed)  # the classification head is drawn at random
    tokenizer = load_tokenizer(model_path(own.model), **model_files(own))
    model = build_model(own, labels, tokenizer, say)
    if own.truncation_side is not None:
        tokenizer.truncation_side = own.truncation_side
    longest = max_length(own.max_length, model.config, say)
    encode = encoder_of(own, tokenizer, labels, model=model, max_length=longest)
    encode_dev = copy.copy(encode)  # with counts of its own
    rows = encoded(train, encode, own, say)
    dev_rows = None if dev is None else encoded(dev, encode_dev, own, say)
    teacher, patience = teacher_of(own), own.early_stopping_patience
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
            callbacks=None if patience is None else [EarlyStoppingCallback(early_stopping_patience=patience)],
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


def encoder_of(
    own: TrainArguments, tokenizer: PreTrainedTokenizerBase, labels: Labels, **given: Any
) -> DualHeadEncoder:
    names = ("max_input_length", "label_column", "rationale_column", "reasoning_span")
    given |= {name: getattr(own, name) for name in names}
    return DualHeadEncoder(tokenizer, problem_type=labels.problem_type, **given)


def encoded(
    table: datasets.Dataset, encode: DualHeadEncoder, own: TrainArguments, say: Callable[..., None]
) -> datasets.Dataset:
    """The encoded rows; what is rarely meant is told here, and the counts with the table's name."""
    rows = encode.encode_dataset(table, cache_dir=own.encoding_cache, say=lambda _: None)
    for line in encode.counts.advice:
        say(f"warning: {line}")
    return rows


def _weight(model: DHRDForDualHeadClassification, training: DualHeadTrainingArguments) -> str:
    """The weight of the reasoning loss over the run, in words."""
    alpha = model.config.alpha
    if training.alpha_schedule == "constant" or alpha == 0:
        return f"{alpha:g}"
    if training.alpha_schedule == "auto":
        return "(balanced at each step)"
    return f"({alpha:g} to {training.alpha_end:g}, {training.alpha_schedule})"
