"""The options of a training, each declared once with its help: what `dhrd train`, search, study, the estimator and the card take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.label_names import PROBLEM_TYPES
from ..data.prompts import REASONING_SPANS, chosen_prompt, input_columns
from ..data.table_writing import check_target
from ..data.tables import SPLIT_FILE, check_labelled, check_table
from ..files import did_you_mean
from ..opening import check_model_name, local_config

if TYPE_CHECKING:
    from .arguments import DualHeadTrainingArguments

ALPHA_SCHEDULES = ("constant", "linear", "cosine", "step", "auto")
# As in configuration_dhrd, which imports transformers: what is typed should be looked at before.
CLASSIFIER_HEADS = ("linear", "mlp")
CLASSIFIER_INITS = ("random", "label_words")
# What an evaluation of dhrd train measures, by the kind of labels.
_METRICS = ("loss", "accuracy", "macro_f1", "mse", "mae", "classification_loss", "reasoning_loss", "distillation_loss")

# Of TrainingArguments, what a card says of how a model was trained ...
SHOWN = (
    *("learning_rate", "classifier_learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim"),
    *("label_smoothing_factor", "per_device_train_batch_size", "gradient_accumulation_steps", "seed"),
)
# ... and with what else changes the weights that come out, but for the length of the run.
DECISIVE = (
    *(*SHOWN, "lr_scheduler_kwargs", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("data_seed", "train_sampling_strategy", "dataloader_drop_last", "average_tokens_across_devices"),
    *("alpha_schedule", "alpha_end", "alpha_step_at", "reasoning_share", "distillation_weight", "temperature"),
    *("neftune_noise_alpha", "optim_target_modules", "bf16", "fp16"),
)


def _option(help: str, default: Any = None, of: str = "training", **metadata: Any) -> Any:
    """A field with its help; `of` says what it is of: the "files" of a run, the "model", its "lora" adapters, the "training"."""
    shown = "" if default in (None, False) else f" [{default}]"
    return field(default=default, metadata={"help": help + shown, "of": of, **metadata})


@dataclass
class TrainArguments:
    """What `dhrd train` takes besides [`DualHeadTrainingArguments`]; the help of each is its documentation."""

    model: str | None = _option(
        "Hub id or folder of a causal LM or a dual-head checkpoint; smollm2: the embedded one."
    )
    train_data: str | None = _option(
        "Table of rows to train on: file, save_to_disk folder, or user/name@split.", of="files"
    )
    rationales: str | None = _option(
        "Table of rationales, joined to --train-data by --key, or id, key or idx, else by the row's number.",
        of="files",
    )
    key: str | None = _option("Column that --rationales are joined by, in both tables.")
    eval_data: str | None = _option("Table to evaluate on, after each epoch and at the end.", of="files")
    eval_split: float | None = _option(
        "Share of --train-data to hold out and evaluate on, without --eval-data; 0 trains on all [0.2, from 50 rows on]."
    )
    group_column: str | None = _option(
        "Column whose values are not to stand on both sides of --eval-split.", of="files"
    )
    validation_data: str | None = _option(
        "Table to evaluate on after each epoch, which the best is chosen by; --eval-data is then read at the end alone.",
        of="files",
    )
    encoding: str | None = _option("Encoding of tables that are text and not in UTF-8, such as cp1252.", of="files")
    config: str | None = _option("YAML file with any of these names; the command line wins over it.", of="files")
    resume: bool = _option(
        "Go on from the last checkpoint in --output-dir (from the start if there is none).", False, of="files"
    )
    overwrite_output_dir: bool = _option(
        "Use a folder that holds something; its checkpoints are removed.", False, of="files"
    )
    dry_run: bool = _option(
        "Look at labels, lengths, duplicates and leaks of the tables, and train nothing.", False, of="files"
    )
    export: str | None = _option("Folder to export the classifier to when training is done.", of="files")
    predictions: str | None = _option(
        "File to write what the last evaluation said of each row of --eval-data (.jsonl, .csv, .tsv or .parquet).",
        of="files",
    )
    logits: str | None = _option(
        "Parquet file to write the logits of the last evaluation to: of each row its set, number, label id and logits.",
        of="files",
    )
    more_eval_data: list[str] | None = _option(
        "Tables to evaluate on at the end alone, as NAME=TABLE: their rows are in --logits, their set is NAME.",
        of="files",
    )
    prompt: str | None = _option(r"Input template over the columns, such as '{premise}\n{hypothesis}' [{text}].")
    text_column: str | None = _option("The same as --prompt '{NAME}'.")
    label_column: str = _option(
        "Column of the labels: names, ids, lists of names (multi label), numbers.", "label", of="files"
    )
    label_names: str | None = _option(
        "The labels in the order of their ids, as no,yes, for a column of ids or of multi-hot rows [as in the column].",
        of="files",
    )
    drop_unlabelled: bool = _option("Leave out rows without a label; else they are refused.", False, of="files")
    rationale_column: str = _option(
        "Column of the rationales; rows without one train on the label alone.", "rationale", of="files"
    )
    suffix: str | None = _option(
        "Template with {rationale} and {label} of what follows the input [the checkpoint's, or the paper's]."
    )
    reasoning_span: str = _option(
        "Tokens that the reasoning loss is over: the whole row, or what follows the input.",
        REASONING_SPANS[0],
        choices=REASONING_SPANS,
    )
    rationale_after_label: bool = _option("Train on the label before the rationale, as a control.", False)
    max_length: int = _option("Most tokens of a row; rationales are cut to fit.", 1024)
    encoding_cache: str | None = _option("Folder that keeps the encoded rows, for runs that encode the same alike.")
    max_input_length: int | None = _option("Most tokens of the input [max_length less the longest answer].")
    truncation_side: str | None = _option(
        "Side on which longer inputs are cut; left keeps a question at the end [the tokenizer's].",
        choices=("right", "left"),
    )
    padding_free: bool = _option(
        "Batches without padding, for attention that honours their boundaries (flash attention).", False
    )
    problem_type: str | None = _option(
        "Kind of labels [single or multi label, as the label column says].", choices=PROBLEM_TYPES, of="files"
    )
    alpha: float | str | None = _option(
        "Weight of the reasoning loss; 0 is the pooled baseline; auto balances the losses [1.0; 0 without rationales].",
        of="model",
    )
    beta: float = _option("Weight of the classification loss.", 1.0, of="model")
    teacher: str | None = _option(
        "Causal LM with the same tokenizer, whose token distributions are learned by --distillation-weight."
    )
    teacher_cache: str | None = _option("Folder that keeps what the teacher says, made once, for any temperature.")
    teacher_top_k: int = _option("Most likely tokens of a position that --teacher-cache keeps.", 64)
    classifier_head: str | None = _option(
        "linear, as stock classifiers have it; mlp, the paper's two layers, whose export carries its code [linear].",
        choices=CLASSIFIER_HEADS,
        of="model",
    )
    classifier_init: str = _option(
        "Start of the linear head: random, or label_words, the language model's own logits of the labels' names.",
        CLASSIFIER_INITS[0],
        choices=CLASSIFIER_INITS,
        of="model",
    )
    label_words: str | None = _option(
        """Words to take for the labels' names in it, as JSON: '{"entailment": "True", "contradiction": "False"}'."""
    )
    early_stopping_patience: int | None = _option(
        "Stop after so many evaluations without a lower log loss, and keep the best; evaluates and saves each epoch."
    )
    class_weights: str | None = _option(
        "'balanced', or a number for each label in their order, as 1,2.5,1.", of="model"
    )
    lora: bool = _option("Train LoRA adapters and the classification head instead of all weights.", False)
    lora_r: int = _option("Rank of the adapters.", 16, of="lora")
    lora_alpha: int = _option("Their scale is lora_alpha / lora_r.", 32, of="lora")
    lora_dropout: float = _option("Dropout before them (the paper's: 0.1).", 0.0, of="lora")
    target_modules: str = _option("Layers that get one, as q_proj,v_proj.", "all-linear", of="lora")
    use_dora: bool = _option("Weight-decomposed LoRA (DoRA).", False, of="lora")
    use_rslora: bool = _option("Scale by lora_alpha / sqrt(lora_r) (rsLoRA).", False, of="lora")
    dtype: str = _option("Type of the weights in memory; bfloat16 saves memory with --lora.", "float32")
    attn_implementation: str | None = _option("Such as sdpa, eager or flash_attention_2 [transformers' choice].")
    gguf_file: str | None = _option("The GGUF file to read in the folder or Hub repository --model.")


def options_of(*kinds: str) -> tuple[str, ...]:
    return tuple(it.name for it in fields(TrainArguments) if it.metadata["of"] in kinds)


def typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass
class TrainOptions:
    """What was given of a training: our own options, and those of the Trainer, of which only the given ones are there."""

    own: TrainArguments
    training: dict[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TrainOptions:
        """Options by name, as Python has their values."""
        given = {name: value for name, value in values.items() if value is not None}
        own = {it.name: as_typed(given.pop(it.name)) for it in fields(TrainArguments) if it.name in given}
        options = cls(TrainArguments(**own), given)
        for it in fields(TrainArguments):
            check_choice(it, getattr(options.own, it.name))
        options.check()
        return options

    def check(self) -> None:
        """Settle what follows from what; raise on options that don't go together, or that nothing would come of."""
        own, values = self.own, self.training
        if own.alpha == "auto":  # the same as --alpha-schedule auto
            if (schedule := values.get("alpha_schedule", "auto")) not in ("constant", "auto"):
                raise ValueError(f"--alpha auto sets its own course: leave --alpha-schedule {schedule} out.")
            own.alpha, values["alpha_schedule"] = 1.0, "auto"
        if own.early_stopping_patience is not None:
            _stop_early(own, values)
        if own.eval_split is not None and not 0 <= own.eval_split < 1:
            raise ValueError(f"--eval-split {own.eval_split:g} must be a share, such as 0.2, or 0.")
        if own.eval_data is not None and own.eval_split:
            raise ValueError("--eval-split holds rows out where there are no others: leave it or --eval-data out.")
        splits = own.eval_data is None and own.eval_split != 0
        if own.group_column is not None and not splits:
            raise ValueError("--group-column is of --eval-split: leave it out.")
        if values.get("eval_strategy", "no") != "no" and own.eval_data is None and not splits:
            raise ValueError(f"--eval-strategy {values['eval_strategy']} needs rows: add --eval-data TABLE.")
        if own.validation_data is not None and own.eval_data is None:
            raise ValueError(
                "--validation-data spares the rows of --eval-data, which are not there: name it --eval-data."
            )
        if own.predictions is not None and own.eval_data is None:
            raise ValueError("--predictions are of the rows of --eval-data: add --eval-data TABLE.")
        if own.logits is not None and (own.eval_data is None or not own.logits.endswith(".parquet")):
            raise ValueError(f"--logits {own.logits} must be a .parquet file, of the rows of --eval-data TABLE.")
        _check_more_eval(own)
        weight = values.get("distillation_weight", 0)
        if own.teacher is None and weight > 0:
            raise ValueError(f"--distillation-weight {weight:g} needs a teacher: add --teacher MODEL.")
        if own.teacher is None and own.teacher_cache is not None:
            raise ValueError("--teacher-cache keeps what a teacher says: add --teacher MODEL.")
        _check_used(own, values)
        needed = {"model": own.model, "train_data": own.train_data, "output_dir": values.get("output_dir")}
        missing = [typed(name) for name, value in needed.items() if not value]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given. Examples: dhrd train --help")

    def training_arguments(self) -> DualHeadTrainingArguments:
        """The Trainer's arguments, with the defaults of a run."""
        import torch

        from .arguments import DualHeadTrainingArguments

        accelerated = torch.accelerator.is_available()
        values = {
            "eval_strategy": "no" if self.own.eval_data is None and self.own.eval_split == 0 else "epoch",
            "report_to": "none",
            "save_strategy": "epoch",
            "logging_steps": 10,
            "log_level_replica": "error",  # what they would say, rank 0 says
            "dataloader_pin_memory": accelerated,  # else each loader warns
            "use_cpu": not accelerated,  # else --bf16 is refused, which processors can compute in
            **self.training,
        }
        for it in fields(DualHeadTrainingArguments):
            if it.name in self.training:
                check_choice(it, self.training[it.name])
        return DualHeadTrainingArguments(**values)


def check_choice(option: Any, value: Any) -> None:
    """Raise on a value that is none of a field's choices."""
    choices = option.metadata.get("choices")
    if choices and value is not None and value not in choices:
        raise ValueError(f"{typed(option.name)} {value} is none of {', '.join(choices)}.")


def as_typed(value: Any) -> Any:
    """Of lists and mappings what one would type for them, as our own options take them."""
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _stop_early(own: TrainArguments, training: dict[str, Any]) -> None:
    """Let the Trainer keep the best checkpoint, by the log loss of the evaluation rows unless another metric is named."""
    if own.early_stopping_patience < 1 or (own.eval_data is None and own.eval_split == 0):
        raise ValueError("--early-stopping-patience is 1 evaluation or more of the rows of --eval-data TABLE.")
    if own.beta == 0 and training.get("metric_for_best_model") is None:
        raise ValueError("--early-stopping-patience goes by the classification loss, and --beta is 0: leave it out.")
    training["load_best_model_at_end"] = True
    training["save_total_limit"] = training.get("save_total_limit") or 1
    training["metric_for_best_model"] = training.get("metric_for_best_model") or "eval_classification_loss"
    training.setdefault("eval_strategy", training.get("save_strategy", "epoch"))


def _check_more_eval(own: TrainArguments) -> None:
    named = own.more_eval_data or []
    if named and own.logits is None:
        raise ValueError("--more-eval-data is read for --logits: add --logits FILE.parquet.")
    seen = {"eval"}  # the rows of --eval-data
    for word in named:
        name, _, table = word.partition("=")
        if not name or not table or name in seen:
            raise ValueError(f"--more-eval-data {word} must be NAME=TABLE, with a name of its own that is not eval.")
        seen.add(name)


def _check_used(own: TrainArguments, training: dict[str, Any]) -> None:
    """Raise on an option that nothing would come of, or that would stop the run after hours."""
    defaults = {it.name: it.default for it in fields(TrainArguments)}
    if own.label_words is not None and own.classifier_init != "label_words":
        raise ValueError("--label-words are of a head that starts from them: add --classifier-init label_words.")
    label_words(own.label_words)
    for name in options_of("lora") if not own.lora else ():
        if getattr(own, name) != defaults[name]:
            raise ValueError(f"{typed(name)} is of LoRA adapters, and all weights are trained: add --lora.")
    steps = training.get("gradient_accumulation_steps", 1)
    if steps < 1:
        raise ValueError(f"--gradient-accumulation-steps {steps} must be 1 or more.")
    if training.get("batch_eval_metrics"):
        raise ValueError(
            "--batch-eval-metrics is for metrics of single batches, and ours are of all rows: leave it out."
        )
    if not training.get("eval_do_concat_batches", True):
        raise ValueError(
            "--eval-do-concat-batches false leaves logits in batches, and metrics are of all rows: leave it out."
        )
    best = (training.get("metric_for_best_model") or "loss").removeprefix("eval_")
    if best not in _METRICS:
        near = did_you_mean(best, _METRICS, quote="'")
        raise ValueError(
            f"--metric-for-best-model {best!r} is not measured{near or '.'} There are {', '.join(_METRICS)}."
        )


def label_words(text: str | None) -> dict[str, str]:
    """The words that stand for labels, of JSON."""
    try:
        words = json.loads(text or "{}")
    except ValueError:
        words = None
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise ValueError(f"""--label-words {text!r} must be JSON such as '{{"entailment": "True"}}'.""")
    return words


def check_run(own: TrainArguments, output_dir: str, starts_anew: bool) -> None:
    """Check what `dhrd train` is given: folders, models, tables and their columns."""
    for target in filter(None, (own.predictions, own.logits)):
        check_target(target, own.train_data, own.eval_data, own.validation_data, own.rationales)
    folder = Path(output_dir)
    if own.export and Path(own.export).resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"--export {own.export} is or holds --output-dir {folder}, the run: name another folder.")
    if own.export and Path(own.export).exists() and (Path(own.export).is_file() or any(Path(own.export).iterdir())):
        raise FileExistsError(f"--export {own.export} exists and is not an empty folder: name another.")
    if folder.is_file():
        raise FileExistsError(f"--output-dir {folder} is a file: name a folder.")
    if own.resume and own.overwrite_output_dir:
        raise ValueError("--resume and --overwrite-output-dir exclude each other.")
    filled = folder.is_dir() and any(it.name != SPLIT_FILE for it in folder.iterdir())
    if starts_anew and filled and not own.overwrite_output_dir:
        raise FileExistsError(
            f"--output-dir {folder} is not empty. Add --resume to go on from its last checkpoint, "
            "--overwrite-output-dir to start anew in it, or name another."
        )
    for model in filter(None, (own.model if own.gguf_file is None else None, own.teacher)):
        check_model_name(model)
    config = {} if own.model == "smollm2" else local_config(own.model)
    columns = [own.label_column, *filter(None, [own.group_column])]
    if config is not None or own.prompt is not None or own.text_column is not None:
        columns += input_columns(chosen_prompt(own.prompt, own.text_column, (config or {}).get("prompt_template")))
    others = (own.eval_data, own.validation_data, *(it.partition("=")[2] for it in own.more_eval_data or ()))
    for source in filter(None, (own.train_data, *others)):
        check_table(source, columns, [own.rationale_column] if source == own.train_data else ())
        if not own.drop_unlabelled:
            check_labelled(source, own.label_column)
    if own.rationales is not None:
        check_table(own.rationales, [own.rationale_column])
