"""The facts of a model card, from a run, a table and a file: what `dhrd train`, `export` and `calibrate` share."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

    from .. import DualHeadTrainer
    from ..data import EncodingCounts
    from ..evaluation import LabelledLogits
    from ..export import CardFacts
    from .arguments import TrainArguments

# Of TrainingArguments, what says how a model was trained.
_SETTINGS = (
    "learning_rate",
    "classifier_learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "label_smoothing_factor",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
)


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the model card."""
    parser.add_argument(
        "--group-column", metavar="NAME", help="column of --eval-data by which the card gives the accuracy as well"
    )
    parser.add_argument(
        "--card",
        metavar="FILE",
        help="YAML file of what only you know, for the card: license, language, datasets, rationale_source, "
        "intended_use, limits, model_name, base_model",
    )


def read_card_facts(model: str, output: str, card: str | None) -> CardFacts:
    """What the run and the user say."""
    from ..export import CardFacts

    facts = CardFacts(model_name=Path(output).resolve().name).updated(_run_facts(Path(model).resolve()))
    return facts if card is None else facts.updated(CardFacts.from_yaml(card))


def _run_facts(folder: Path) -> CardFacts:
    """What a run says of itself; of one of its checkpoints, without what is true of its last step alone."""
    from ..export import CardFacts
    from ..export.card_facts import FACTS_FILE
    from ..files import checkpoints

    if (folder / FACTS_FILE).exists():
        return CardFacts.load(folder / FACTS_FILE)
    if folder not in checkpoints(folder.parent) or not (folder.parent / FACTS_FILE).exists():
        return CardFacts()
    facts = CardFacts.load(folder.parent / FACTS_FILE)
    settings = {name: it for name, it in (facts.hyperparameters or {}).items() if name not in ("steps", "epochs")}
    with suppress(OSError, ValueError, KeyError):  # what the Trainer writes beside the weights, and some remove
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        settings |= {"steps": state["global_step"], "epochs": f"{state['epoch'] or 0:.4g}"}
    return dataclasses.replace(facts, hyperparameters=settings, dev_data=None, dev_rows=None, dev_metrics=None)


def check_card_tables(evaluated: str | None, calibrated: str | None, group_column: str | None) -> None:
    """Raise where results would be of the rows that the temperature is fitted on, or groups of no rows."""
    from ..data.tables import same_table

    if group_column is not None and evaluated is None:
        raise ValueError(f"--group-column {group_column} is a column of --eval-data: add --eval-data TABLE.")
    if evaluated is not None and calibrated is not None and same_table(evaluated, calibrated):
        raise ValueError(
            f"The temperature would be fitted on {calibrated}, and the results be of the same rows. Name other rows with "
            "--eval-data."
        )


def with_results(
    facts: CardFacts,
    source: str,
    table: datasets.Dataset,
    found: LabelledLogits,
    temperature: float,
    group_column: str | None,
    label_names: Sequence[str],
) -> CardFacts:
    """The facts with the measures of a table."""
    from ..data.tables import table_name
    from ..evaluation import evaluation_report

    groups = None if group_column is None else table[group_column][:]
    return dataclasses.replace(
        facts,
        eval_data=table_name(source),
        results=evaluation_report(
            found.logits,
            found.labels,
            found.problem_type,
            temperature=temperature,
            groups=groups,
            label_names=label_names,
        ),
        inputs_cut=found.cut,
        group_column=group_column,
    )


def _dev_name(own: TrainArguments) -> str:
    from ..data.tables import table_name

    return f"{table_name(own.train_data)}, rows held out" if own.eval_data is None else table_name(own.eval_data)


def training_facts(
    own: TrainArguments,
    trainer: DualHeadTrainer,
    counts: EncodingCounts,
    metrics: dict[str, float] | None,
    audit: dict[str, Any] | None,
) -> CardFacts:
    """What a run knows of itself, with names of tables and models only."""
    from ..configuration_dhrd import CLASSIFIER_INITS
    from ..data.prompts import REASONING_SPANS
    from ..data.tables import table_name
    from ..embedded import HUB_NAME, LICENSE
    from ..export import CardFacts
    from ..export.card_facts import hub_name, inherited_license
    from ..modeling_dhrd import find_dual_head
    from ..rationales.audit import summary
    from ..version import __version__
    from .arguments import LORA_OPTIONS

    config, training = find_dual_head(trainer.model).config, trainer.args
    base_model = HUB_NAME if own.model == "smollm2" else hub_name(own.model)
    revision = config.backbone_revision if hub_name(own.model) else None
    license = CardFacts(license=LICENSE) if own.model == "smollm2" else inherited_license(own.model, revision)
    batch = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
    settings: dict[str, Any] = {name: getattr(training, name) for name in _SETTINGS}
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
        settings |= {name: getattr(own, name) for name in LORA_OPTIONS}
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
        dev_data=None if metrics is None else _dev_name(own),
        dev_rows=None if metrics is None else len(trainer.eval_dataset),
        dev_metrics={name: measured[name] for name in ("accuracy", "macro_f1", "mse", "mae") if name in measured}
        or None,
    ).updated(license)
