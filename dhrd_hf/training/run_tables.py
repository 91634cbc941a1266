"""The tables of a run: rows to train on, rows to evaluate on, and the labels that both have."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import datasets
import numpy as np
from transformers import PreTrainedConfig

from .. import DHRDConfig
from ..data.joining import join_rationales
from ..data.label_names import is_missing
from ..data.labels import Labels, named_cells, read_labels
from ..data.prompts import chosen_prompt, input_columns
from ..data.splits import DEFAULT_SPLIT, LEAST_ROWS, held_out, split_note
from ..data.tables import check_columns, load_table
from .options import TrainArguments
from .run_trainer import base_config


class Tables(NamedTuple):
    """What a run trains and evaluates on; where rows were held out, the whole table and which of its rows these are."""

    train: datasets.Dataset
    dev: datasets.Dataset | None
    labels: Labels
    prompt: str
    whole: datasets.Dataset | None = None
    held_out: list[int] | None = None


def read_tables(own: TrainArguments, say: Callable[..., None]) -> Tables:
    """Read and check them; `own.alpha` is settled by whether there are rationales."""
    config = base_config(own)
    whole = load_table(own.train_data)
    prompt = chosen_prompt(own.prompt, own.text_column, getattr(config, "prompt_template", None))
    check_columns(whole.column_names, input_columns(prompt), [own.rationale_column])
    train = whole if own.rationales is None else _joined(whole, own, say)
    options = _reading(own, config, say)
    train, labels = read_labels(train, own.label_column, own.problem_type, where=own.train_data, **options)
    cells = train[own.label_column][:]
    if labels.problem_type != "regression" and all(cell == cells[0] for cell in cells):
        raise ValueError(
            f"all {len(cells)} rows of {own.train_data} have one label, {labels if labels.counts else 'none'}: there is "
            "nothing to learn. Check --label-column, or add rows of every class."
        )
    if own.alpha is None:
        own.alpha = 1.0 if _has_rationales(train, own.rationale_column) else 0.0
        if own.alpha == 0:
            say(
                f"rationales  none in column {own.rationale_column!r}: the reasoning loss is off (--alpha 0, the pooled baseline); "
                f"with --alpha 1 it is over x and the label. To get some: {_generate(own)}"
            )
    if own.eval_data is not None:
        return Tables(train, evaluation_set(own, own.eval_data, own.eval_data, labels, say), labels, prompt)
    return _split(own, whole, Tables(train, None, labels, prompt), say)


def _generate(own: TrainArguments) -> str:
    """The command that would have rationales written, which --rationales then reads."""
    words = ["dhrd", "rationales", "generate", "--data", own.train_data]
    prompt = own.prompt if own.text_column is None else f"{{{own.text_column}}}"
    words += [] if prompt is None else ["--prompt", prompt]
    words += [] if own.label_column == "label" else ["--label-column", own.label_column]
    return f"{shlex.join(words)} --teacher TEACHER --output rationales.jsonl, then --rationales rationales.jsonl"


def _split(own: TrainArguments, whole: datasets.Dataset, tables: Tables, say: Callable[..., None]) -> Tables:
    """Hold some of the training rows out, if that is asked for, or is not and there are enough."""
    train, _, labels, prompt, *_ = tables
    if own.eval_split == 0 or (own.eval_split is None and len(train) < LEAST_ROWS):
        return tables
    kind = labels.problem_type
    share = DEFAULT_SPLIT if own.eval_split is None else own.eval_split
    chosen = held_out(train, share, prompt, own.label_column, own.group_column, kind == "regression")
    rest = np.setdiff1d(np.arange(len(train)), chosen)
    say(split_note(train, chosen, own.train_data, own.group_column))
    numbers = np.arange(len(train))
    if len(train) < len(whole):  # the others have no label
        cells = named_cells(whole[own.label_column][:], whole.features[own.label_column])
        numbers = np.array([row for row, cell in enumerate(cells) if not is_missing(cell)])
    dev, train = train.select(chosen), train.select(rest)
    counts = Counter()
    if kind != "regression":
        for cell in train[own.label_column][:]:
            counts.update(cell if isinstance(cell, list) else (cell,))
    labels = Labels(labels.label2id, kind, own.label_column, counts)
    return Tables(train, dev, labels, prompt, whole, numbers[chosen].tolist())


def _has_rationales(table: datasets.Dataset, column: str) -> bool:
    if column not in table.column_names:
        return False
    parts = table.select_columns(column).with_format(None).iter(batch_size=1000)
    return not all(is_missing(cell) for part in parts for cell in part[column])


def _reading(own: TrainArguments, config: PreTrainedConfig, say: Callable[..., None]) -> dict[str, Any]:
    """How label columns are read: a checkpoint's head keeps its labels in their order, others may be given one."""
    known: Any = None if own.label_names is None else [name.strip() for name in own.label_names.split(",")]
    if isinstance(config, DHRDConfig):
        given, known = known, Labels.of(config, own.label_column)
        if given not in (None, known.names):
            raise ValueError(f"--label-names are {', '.join(given)}; {own.model} has {', '.join(known.names)}.")
    warn = lambda line: say(f"warning: {line}")  # noqa: E731
    return {"known": known, "drop_unlabelled": own.drop_unlabelled, "say": warn}


def evaluation_set(
    own: TrainArguments, source: str, where: str, labels: Labels, say: Callable[..., None]
) -> datasets.Dataset:
    # Ids are of labels whose order is known; the order of names found is ours.
    options = _reading(own, base_config(own), say)
    table, found = read_labels(load_table(source), own.label_column, labels.problem_type, where=where, **options)
    labels.check(found, where, f"the training set {own.train_data}")
    return table


def _joined(train: datasets.Dataset, own: TrainArguments, say: Callable[..., None]) -> datasets.Dataset:
    names = {"rationale_column": own.rationale_column, "label_column": own.label_column}
    rows, counts = join_rationales(train, own.rationales, own.key, **names)
    say(f"rationales  {own.rationales}: {counts}")
    if own.rationale_column in train.column_names:
        train = train.remove_columns(own.rationale_column)
    return train.add_column(own.rationale_column, [row[own.rationale_column] for row in rows])
