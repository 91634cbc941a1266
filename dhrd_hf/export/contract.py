"""The contract in an export: what a server has to agree on, and golden texts with their ids and logits."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from .. import __version__
from ..data.inputs import known_limit
from ..files import write_whole
from .golden import OWN_TEXT, Pieces, text_of

CONTRACT = "dhrd_contract.json"
FORMAT_VERSION = 1

# Longer rows are told by their ends and a digest.
_LISTED_IDS, _SHOWN_IDS = 512, 16

Activation = Literal["softmax", "sigmoid", "none"]
_ACTIVATIONS: dict[str, Activation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}
Side = Literal["left", "right"]


@dataclass(frozen=True)
class Golden:
    """A text, the ids that it becomes, cut to the limit, and the class logits of those."""

    about: str
    text: Pieces
    input_ids: list[int] | dict[str, Any]
    cut: bool
    logits: list[float] | None  # None: nothing answers it, being empty, or it would take long

    def same_ids(self, ids: Sequence[int]) -> bool:
        return written_ids(ids) == self.input_ids

    def difference(self, ids: Sequence[int]) -> str:
        if isinstance(self.input_ids, dict):
            return f"expected {_ends(self.input_ids)}, found {_ends(written_ids(ids, 0))}"
        pairs = enumerate(zip(self.input_ids, ids, strict=False))
        at = next((place for place, (one, other) in pairs if one != other), min(len(self.input_ids), len(ids)))
        one, other = (f"{list(it[at : at + 4])} of {len(it)}" for it in (self.input_ids, ids))
        return f"from id {at} on expected {one}, found {other}"


@dataclass(frozen=True)
class Contract:
    """What a server of an export has to agree on, as it stands in its `dhrd_contract.json`.

    Example:

    ```python
    >>> from dhrd_hf.export import Contract
    >>> contract = Contract.read("my-classifier")
    >>> contract.labels, contract.activation, contract.max_length, contract.truncation_side
    (['no', 'yes'], 'softmax', 1024, 'right')

    ```

    Args:
        labels (`list[str]`): The labels in the order of the logits.
        problem_type (`str`): transformers' name of it.
        activation (`str`): What makes probabilities of logits: `"softmax"`, `"sigmoid"` or `"none"`.
        prompt_template (`str`, *optional*): What makes the input of a row's columns. A server is sent inputs, as the golden
            texts are: it adds no template.
        max_length (`int`, *optional*): Most tokens of an input, those that the tokenizer adds among them.
        truncation_side, padding_side (`str`): `"left"` or `"right"`.
        pad_token (`str`), pad_token_id (`int`): What rows are padded with.
        prepended_ids, appended_ids (`list[int]`): What the tokenizer adds to each text.
        split_special_tokens (`bool`): Whether a special token's string in a text is text.
        pooled_token (`str`): Which token's state is classified.
        temperature (`float`): What the logits were divided by.
        temperature_is_in_the_weights (`bool`): They are to be divided by nothing any more.
        thresholds (`dict[str, float]`, *optional*): The probability from which on a label is accepted.
        engine (`str`): `"torch"`, `"onnx"` or `"openvino"`.
        dtype (`str`): Of the weights.
        golden (`list[Golden]`): The golden texts, with their ids and logits in the order of the labels.
        measured (`dict[str, float]`, *optional*): The largest difference of a logit and a probability, and the flips, of the
            export itself when it was written: what int8 rounds.
        format_version (`int`, *optional*): Of the file.
        written_by (`str`, *optional*): The version that wrote it.
    """

    labels: list[str]
    problem_type: str
    activation: Activation
    prompt_template: str | None
    max_length: int | None
    truncation_side: Side
    padding_side: Side
    pad_token: str
    pad_token_id: int
    prepended_ids: list[int]
    appended_ids: list[int]
    split_special_tokens: bool
    pooled_token: str
    temperature: float
    temperature_is_in_the_weights: bool
    thresholds: dict[str, float] | None
    engine: Literal["torch", "onnx", "openvino"]
    dtype: str
    golden: list[Golden]
    measured: dict[str, float] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    written_by: str = f"dhrd_hf {__version__}"

    @property
    def texts(self) -> list[str]:
        return [text_of(golden.text) for golden in self.golden]

    @property
    def own_texts(self) -> list[str]:
        """Those of them that are the user's own."""
        return [text_of(it.text) for it in self.golden if it.about.startswith(OWN_TEXT)]

    def write(self, folder: str | os.PathLike) -> None:
        # Escaped: an editor or a version control that normalises text must not change a golden one.
        write_whole(Path(folder) / CONTRACT, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Contract:
        """The contract of an export's folder; a line where there is none, or it is not one."""
        folder = Path(folder)
        path = folder / CONTRACT
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder: {folder}. Name one that dhrd export wrote.")
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {CONTRACT}: it was written before exports had one, or by something else. Write it anew: "
                f"dhrd export --model RUN --output {folder} --overwrite"
            )
        try:
            return _parsed(cls, json.loads(path.read_text("utf-8")), "")
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"{path} is not a contract of an export: {error}. Write the export anew.") from None

    def probabilities(self, logits: Tensor) -> Tensor:
        """What logits say: numbers from 0 to 1, or for regression the logits themselves."""
        return activated(self.activation, logits)

    def decisions(self, probabilities: Tensor) -> Tensor | None:
        """The label of each row `[N]`, or whether it has each label `[N, K]`; None for regression."""
        if self.activation == "none":
            return None
        return probabilities.argmax(-1) if self.activation == "softmax" else probabilities > 0.5


def activated(activation: str, logits: Tensor) -> Tensor:
    return {"softmax": lambda it: it.softmax(-1), "sigmoid": Tensor.sigmoid, "none": lambda it: it}[activation](logits)


def contract_of(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    golden: list[Golden],
    pooled_token: str = "the last one whose id is not pad_token_id",
    **said: Any,
) -> Contract:
    """The contract of a classifier, from its config and tokenizer as they are in the export."""
    problem_type = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    prepended, appended = added_ids(tokenizer)
    return Contract(
        labels=[config.id2label[index] for index in range(config.num_labels)],
        problem_type=problem_type,
        activation=_ACTIVATIONS.get(problem_type, "softmax"),
        prompt_template=getattr(config, "prompt_template", None),
        max_length=known_limit(tokenizer),
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding_side,
        pad_token=tokenizer.pad_token,
        pad_token_id=tokenizer.pad_token_id,
        prepended_ids=prepended,
        appended_ids=appended,
        split_special_tokens=bool(getattr(tokenizer, "split_special_tokens", False)),
        pooled_token=pooled_token,
        temperature_is_in_the_weights=True,
        golden=golden,
        **said,
    )


def added_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before a text and behind it."""
    whole, bare = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
    starts = (i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare)
    start = next(starts, 0)
    return whole[:start], whole[start + len(bare) :]


def written_ids(ids: Sequence[int], most: int = _LISTED_IDS) -> list[int] | dict[str, Any]:
    if len(ids) <= most:
        return list(ids)
    digest = hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()
    return {"count": len(ids), "first": list(ids[:_SHOWN_IDS]), "last": list(ids[-_SHOWN_IDS:]), "sha256": digest}


def _ends(ids: Mapping[str, Any]) -> str:
    return f"{ids['count']} ids, {ids['first'][:4]} ... {ids['last'][-4:]}"


def _parsed(kind: type, found: Any, place: str) -> Any:
    """A dataclass from JSON, each value of the type that the class says."""
    if not isinstance(found, dict):
        raise ValueError(f"{place or 'it'} holds {_short(found)}, not an object")
    if kind is Contract and found.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"format_version is {_short(found.get('format_version'))}, and this dhrd_hf ({__version__}) reads "
            f"{FORMAT_VERSION}"
        )
    types = get_type_hints(kind)
    values = {}
    for name in (it.name for it in fields(kind)):
        if name not in found:
            raise ValueError(f"{place}{name} is missing")
        values[name] = _checked(types[name], found[name], f"{place}{name}")
    known = kind(**values)
    if isinstance(known, Contract):
        if len(set(known.labels)) != len(known.labels) or not known.labels or not known.golden:
            raise ValueError("labels or golden texts are missing or doubled")
        if not any(it.logits for it in known.golden):
            raise ValueError("no golden text has logits")
        wrong = [it.about for it in known.golden if it.logits is not None and len(it.logits) != len(known.labels)]
        if wrong:
            raise ValueError(f"the golden text {wrong[0]!r} has not one logit for each of the labels")
        if known.activation != _ACTIVATIONS.get(known.problem_type):
            raise ValueError(f"activation is {known.activation!r} for problem_type {_short(known.problem_type)}")
        if not known.temperature > 0 or not known.temperature_is_in_the_weights:
            raise ValueError("temperature is not above 0, or not in the weights")
        if min(known.measured.values(), default=0) < 0:
            raise ValueError(f"measured holds {_short(known.measured)}, and no difference is below 0")
    return known


def _checked(kind: Any, value: Any, place: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if kind is str and isinstance(value, str) and not _encodable(value):
        raise ValueError(f"{place} holds half a character, {_short(value)}")
    if kind == Pieces:
        if isinstance(value, str):
            return _checked(str, value, place)
        pieces = _checked(list, value, place)
        if all(_is_piece(piece) for piece in pieces):
            return [tuple(piece) for piece in pieces]
        raise ValueError(f"{place} holds {_short(value)}, not a text or its pieces")
    if origin is Literal:
        if value in inner:
            return value
        raise ValueError(f"{place} is {_short(value)}, not one of {', '.join(map(str, inner))}")
    if origin is list and isinstance(value, list):
        return [_checked(inner[0], it, f"{place}[{index}]") for index, it in enumerate(value)]
    if kind == list[int] | dict[str, Any] and isinstance(value, dict):
        if [type(value.get(name)) for name in ("count", "first", "last", "sha256")] != [int, list, list, str]:
            raise ValueError(f"{place} holds {_short(value)}, not ids or their ends and digest")
        return value
    if origin is dict and isinstance(value, dict):
        return {key: _checked(inner[1], it, f"{place}.{key}") for key, it in value.items()}
    if inner and origin not in (list, dict):  # a union
        failed = []
        for option in inner:
            try:
                return _checked(option, value, place)
            except ValueError as error:
                failed.append(error)
        raise failed[0]
    if kind is Golden:
        return _parsed(Golden, value, f"{place}.")
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if (
        isinstance(kind, type)
        and kind is not float
        and isinstance(value, kind)
        and (kind is bool or not isinstance(value, bool))
    ):
        return value
    raise ValueError(f"{place} holds {_short(value)}, not {getattr(kind, '__name__', kind)}")


def _is_piece(piece: Any) -> bool:
    """A mutated count must not make a text that fills the memory."""
    return (
        isinstance(piece, list)
        and len(piece) == 2
        and isinstance(piece[0], str)
        and _encodable(piece[0])
        and type(piece[1]) is int
        and 0 <= piece[1] * len(piece[0]) <= 1_000_000
    )


def _encodable(text: str) -> bool:
    """JSON may hold half a character, which no tokenizer takes."""
    return text.isascii() or text.encode("utf-8", "ignore").decode("utf-8") == text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
