"""What the values of a saved config should be: transformers reads them from the file as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig

from .configuration_dhrd import DHRDConfig

_PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def check_config(config: PreTrainedConfig, name: str | os.PathLike) -> None:
    """Raise on a value that something would trip over later, or that would have the labels mean other ones."""
    architectures = config.architectures or []
    faults = [] if isinstance(architectures, list) else [("architectures", architectures, "a list of names")]
    if isinstance(config, DHRDConfig) or "ForSequenceClassification" in str(architectures):
        faults += _of_a_classifier(config)
    faults += [*_texts(config), *_thresholds(config)]
    for key, value, expected in faults[:1]:
        raise ValueError(f"{name}: {key} in its config should be {expected}, and is {str(value)[:200]}.")


def _texts(config: PreTrainedConfig) -> Iterator[tuple[str, Any, str]]:
    for key in ("prompt_template", "suffix_template"):
        if not isinstance(value := getattr(config, key, None), str | None):
            yield key, value, "a text"
    limit, kind = getattr(config, "max_input_length", None), config.problem_type
    if limit is not None and (type(limit) is not int or limit < 1):
        yield "max_input_length", limit, "a whole number above 0"
    if kind is not None and kind not in _PROBLEM_TYPES:
        yield "problem_type", kind, f"one of {', '.join(_PROBLEM_TYPES)}"


def _thresholds(config: PreTrainedConfig) -> Iterator[tuple[str, Any, str]]:
    given = getattr(config, "label_thresholds", None)
    if given is None:
        return
    names = (config.id2label or {}).values()
    if not isinstance(given, dict) or not all(
        label in names and type(it) in (int, float) and 0 <= it <= 1 for label, it in given.items()
    ):
        yield "label_thresholds", given, "some of its labels, each with a number from 0 to 1"


def _of_a_classifier(config: PreTrainedConfig) -> Iterator[tuple[str, Any, str]]:
    if isinstance(config, DHRDConfig) and config.backbone_config is None:
        yield "backbone_config", None, "the config of the language model"
        return
    labels, text_config = config.id2label or {}, config.get_text_config()
    named = [labels.get(index) for index in range(len(labels))]
    if not all(isinstance(it, str) for it in named) or len(set(named)) < len(named):
        yield "id2label", labels, f"{len(labels)} names, each another, for the ids from 0 on"
    elif config.label2id != (fitting := {label: index for index, label in enumerate(named)}):
        yield "label2id", config.label2id, f"{fitting}, as id2label has it"
    pad, tokens = text_config.pad_token_id, getattr(text_config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(tokens, int) and pad >= tokens:
        yield "pad_token_id", pad, f"one of its {tokens} tokens"
