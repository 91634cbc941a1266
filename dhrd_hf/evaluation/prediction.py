"""`predict_texts`: a classifier over a stream of texts, in order; `predict_table`: over rows whose labels are known."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data import ensure_pad_token
from ..data.collator import padded_inputs
from ..data.inputs import input_limit, tokenize_inputs
from ..data.label_names import is_missing
from ..data.labels import Labels, read_labels
from ..data.prompts import as_text, input_columns, render_rows
from ..data.tables import check_columns
from ..opening import evaluating

if TYPE_CHECKING:
    from datasets import Dataset

# A CPU is as fast on some hundred tokens as on thousands (measured: SmolLM2-135M), and a larger batch only adds padding;
# an accelerator is left idle by a small one.
_CPU_BATCH_TOKENS, _ACCELERATOR_BATCH_TOKENS = 1024, 16384
# The error of a row of which a model says NaN or infinities.
NOT_FINITE = "logits that are not finite"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says of one text.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import Prediction
    >>> Prediction("yes", {"no": 0.25, "yes": 0.75}, (0.0, 1.0986123)).error is None
    True

    ```

    Args:
        label (`str`, `list[str]`, `float` or `list[float]`, *optional*): The most probable label; for multi label
            those with a probability above 0.5; for regression the number, or K of them. None where there is an error.
        probabilities (`dict[str, float]`, *optional*): By label, of all labels: the softmax of the logits, or the
            sigmoid for multi label. Empty for regression and where there is an error.
        logits (`tuple[float, ...]` of length K, *optional*): Class logits. Empty where there is an error.
        cut (`bool`, *optional*, defaults to `False`): Whether the text was cut to the model's input length.
        error (`str`, *optional*): Why the text could not be classified.
    """

    label: str | list[str] | float | list[float] | None
    probabilities: dict[str, float] = field(default_factory=dict)
    logits: tuple[float, ...] = ()
    cut: bool = False
    error: str | None = None


def predict_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str | None],
    *,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    batch_size: int = 256,
    window: int = 2048,
) -> Iterator[Prediction]:
    """Classify texts as they come, in their order; a stream larger than memory will do.

    A window of texts is read, tokenised as when deployed (`truncation=True`), sorted by length and run in batches of
    rows of nearly one length. An empty text gives a prediction with an `error`: no row is lost.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import load_classifier, predict_texts
    >>> model, tokenizer = load_classifier("my-classifier")
    >>> for prediction in predict_texts(model, tokenizer, ["It rains. So: It is wet.", ""]):
    ...     print(prediction.label, prediction.error)
    entailment None
    None the text is empty

    ```

    Args:
        model (`PreTrainedModel`): A stock sequence classifier, or a dual-head model (its class logits are used).
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer. Without a pad token its eos token becomes one.
        texts (`Iterable[str]`): Inputs, with the prompt around them if the model was trained with one; None and NaN are
            empty.
        max_length (`int`, *optional*): Most tokens of a text. By default the least of the model's `max_input_length` of
            training, the tokenizer's `model_max_length` and the model's positions; of a number that is given only the
            positions are a bound.
        batch_tokens (`int`, *optional*): Most tokens of a batch, padding included; a longer text is a batch of its
            own. By default 1024 on a CPU and 16384 on an accelerator.
        batch_size (`int`, *optional*, defaults to 256): Most rows of a batch.
        window (`int`, *optional*, defaults to 2048): Number of texts read ahead, sorted and held in memory.

    Returns:
        `Iterator[Prediction]`: one [`Prediction`] for each text.

    Raises:
        ValueError: if model and tokenizer pad with different tokens, a number is not 1 or greater, or (when its turn comes)
            a text is a list, an object or bytes.
        TypeError: if `texts` is one text.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts={texts[:40]!r} is one text, and would be read letter by letter: put it into a list.")
    sizes = {"max_length": max_length, "batch_tokens": batch_tokens, "batch_size": batch_size, "window": window}
    windows = _windows(model, tokenizer, texts, **_checked_sizes(model, tokenizer, **sizes))
    return (prediction for part in windows for prediction in part.predictions(model.config))


@dataclass(frozen=True, slots=True)
class LabelledLogits:
    """Class logits of the rows of a table beside their labels.

    Example:

    ```python
    >>> import numpy as np
    >>> from dhrd_hf.evaluation import LabelledLogits
    >>> LabelledLogits(np.array([[2.0, 0.0]]), np.array([0]), cut=0).labels
    array([0])

    ```

    Args:
        logits (`np.ndarray` of shape `[rows, K]`): Class logits.
        labels (`np.ndarray`): Class ids `[rows]`; 0/1 `[rows, K]` for multi label; numbers for regression.
        cut (`int`): Number of rows whose text was cut to the model's input length.
        problem_type (`str`, *optional*): The model's, for [`compute_metrics`].
    """

    logits: np.ndarray
    labels: np.ndarray
    cut: int
    problem_type: str | None = None


def predict_table(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    table: Dataset,
    prompt: str = "{text}",
    label_column: str = "label",
    drop_unlabelled: bool = False,
    **sizes: Any,
) -> LabelledLogits:
    """Class logits of all rows of a table, with the labels that they should have.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import compute_metrics, predict_table
    >>> found = predict_table(model, tokenizer, table)
    >>> compute_metrics((found.logits, found.labels))
    {'accuracy': 0.82, 'macro_f1': 0.81}

    ```

    Args:
        model, tokenizer: As for [`predict_texts`].
        table (`Dataset`): The rows.
        prompt (`str`, *optional*, defaults to `"{text}"`): Template of the input over the columns.
        label_column (`str`, *optional*, defaults to `"label"`): Column of the labels: names or ids of the model's.
        drop_unlabelled (`bool`, *optional*, defaults to `False`): Leave out rows without a label, and tell how many.
        sizes (*optional*): `max_length`, `batch_tokens`, `batch_size`, `window` of [`predict_texts`].

    Returns:
        [`LabelledLogits`]: in the order of the rows.

    Raises:
        ValueError: if a column is missing, the prompt names none, a text is empty, a label is not one of the model's, or
            logits are not finite.
    """
    config = model.config
    check_columns(table.column_names, input_columns(prompt))
    table, known = read_labels(
        table, label_column, known=Labels.of(config, label_column), drop_unlabelled=drop_unlabelled
    )
    labels = known.read_all(table[label_column][:])
    logits, cut, rows = np.empty((len(table), config.num_labels), dtype=np.float32), 0, 0
    not_finite: list[int] = []
    for part in _windows(model, tokenizer, render_rows(prompt, table), **_checked_sizes(model, tokenizer, **sizes)):
        for index, error in part.errors.items():
            raise ValueError(f"Row {rows + index}: {error}.")
        logits[[rows + index for index in part.places]] = part.logits
        not_finite += [
            rows + index for index, fine in zip(part.places, _finite_rows(part.logits), strict=True) if not fine
        ]
        rows, cut = rows + part.count, cut + len(part.cut)
    if not_finite:
        raise ValueError(
            f"{len(not_finite)} of {rows} rows have {NOT_FINITE}, the first of them row {min(not_finite)}: the model's numbers "
            "overflow there, and nothing can be measured. Try dtype float32 (--dtype float32), or train it again."
        )
    return LabelledLogits(logits, np.array(labels), cut, known.problem_type)


def _checked_sizes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    batch_size: int = 256,
    window: int = 2048,
) -> dict[str, Any]:
    """What [`_windows`] takes, of what [`predict_texts`] does."""
    sizes = {"max_length": max_length, "batch_tokens": batch_tokens, "batch_size": batch_size, "window": window}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be 1 or greater.")
    agree_on_pad_token(model.config, tokenizer)
    if batch_tokens is None:
        batch_tokens = _CPU_BATCH_TOKENS if model.device.type == "cpu" else _ACCELERATOR_BATCH_TOKENS
    limit = input_limit(model.config, tokenizer, max_length)
    return {"limit": limit, "batch_tokens": batch_tokens, "batch_size": batch_size, "window": window}


@dataclass(frozen=True, slots=True)
class _Window:
    """What was said of the texts that were read at once; the rows of thousands of classes become objects one by one."""

    count: int
    logits: Tensor  # [texts without an error, K], float32, on the CPU
    places: list[int]  # which texts these are
    errors: dict[int, str]
    cut: set[int]

    def predictions(self, config: PreTrainedConfig) -> Iterator[Prediction]:
        rows = {place: row for row, place in enumerate(self.places)}
        order = [rows[place] for place in range(self.count) if place in rows]
        said = read_logits(self.logits[order], config)
        for place in range(self.count):
            if place in rows:
                prediction = next(said)
                yield replace(prediction, cut=True) if place in self.cut else prediction
            else:
                yield Prediction(None, error=self.errors[place])


def _checked_texts(texts: Iterable[Any]) -> Iterator[str]:
    """The texts; empty where there is none, or blanks alone."""
    for number, text in enumerate(texts):
        try:
            yield "" if is_missing(text) else as_text(text, "it")
        except ValueError as error:
            raise ValueError(f"Row {number}: {error}.") from None


def _windows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str | None],
    limit: int | None,
    batch_tokens: int,
    batch_size: int,
    window: int,
) -> Iterator[_Window]:
    stream, pad = _checked_texts(texts), tokenizer.pad_token_id
    while part := list(islice(stream, window)):
        rows, cut = tokenize_inputs(tokenizer, part, limit)
        errors = {}
        for index, (text, ids) in enumerate(zip(part, rows, strict=True)):
            if not text or not ids:
                errors[index] = "the text is empty"
            elif all(token == pad for token in ids):
                errors[index] = "the text holds nothing but padding tokens"
        longest_first = sorted((i for i in range(len(rows)) if i not in errors), key=lambda i: -len(rows[i]))
        batches = list(_batches([len(rows[i]) for i in longest_first], batch_tokens, batch_size))
        logits = _logits(model, [[rows[longest_first[place]] for place in batch] for batch in batches], pad, tokenizer)
        yield _Window(len(part), logits, longest_first, errors, cut - errors.keys())


def _batches(lengths: Sequence[int], batch_tokens: int, batch_size: int) -> Iterator[list[int]]:
    """Places of descending lengths, cut into batches within the budget; rows of one length together if possible."""
    batch: list[int] = []
    for place, length in enumerate(lengths):
        if batch:
            longest = lengths[batch[0]]
            full = len(batch) == batch_size or longest * (len(batch) + 1) > batch_tokens
            half_full = 2 * longest * len(batch) >= batch_tokens
            if full or (half_full and length < lengths[place - 1]):
                yield batch
                batch = []
        batch.append(place)
    if batch:
        yield batch


def padding_side_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    return "right" if hasattr(model, "score") else tokenizer.padding_side


@torch.inference_mode()
def _logits(
    model: PreTrainedModel, batches: list[list[list[int]]], pad: int, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """Class logits `[rows, K]` in float32 on the CPU, in the order of the batches."""
    side = padding_side_of(model, tokenizer)
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    found = []
    with evaluating(model):
        for batch in batches:
            inputs = {name: it.to(model.device) for name, it in padded_inputs(batch, pad, side).items()}
            found.append(model(**inputs, **options).logits)
    return torch.cat(found).float().cpu() if found else torch.empty(0, model.config.num_labels)


def read_logits(logits: Tensor, config: PreTrainedConfig) -> Iterator[Prediction]:
    """What class logits say, by transformers' problem types."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    regression = config.problem_type == "regression" or (config.problem_type is None and len(names) == 1)
    several = config.problem_type == "multi_label_classification"
    probabilities = logits if regression else logits.sigmoid() if several else logits.softmax(-1)
    best = logits.argmax(-1).tolist() if len(logits) else []
    for index, fine in enumerate(_finite_rows(logits)):
        row = logits[index].tolist()
        if not fine:
            yield Prediction(None, error=NOT_FINITE)
        elif regression:
            yield Prediction(row[0] if len(row) == 1 else row, {}, tuple(row))
        else:
            shares = probabilities[index].tolist()
            said = [name for name, p in zip(names, shares, strict=True) if p > 0.5] if several else names[best[index]]
            yield Prediction(said, dict(zip(names, shares, strict=True)), tuple(row))


def _finite_rows(logits: Tensor) -> list[bool]:
    return logits.isfinite().all(-1).tolist()


def agree_on_pad_token(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that the model pools by the token that its batches are padded with."""
    pad = ensure_pad_token(tokenizer)
    text_config = config.get_text_config()
    if text_config.pad_token_id is None:
        text_config.pad_token_id = pad
    elif text_config.pad_token_id != pad:
        raise ValueError(
            f"The model pools by pad token id {text_config.pad_token_id}, but the tokenizer pads with id {pad} "
            f"({tokenizer.pad_token!r}). Give the tokenizer that was saved with the model."
        )


def prediction_columns(
    prediction: Prediction, labels: list[str], thresholds: dict[str, Any] | None, flat: bool
) -> dict[str, Any]:
    if flat:
        probabilities = {f"probability_{label}": prediction.probabilities.get(label) for label in labels}
        said = {"predicted_label": prediction.label, **probabilities, "prediction_error": prediction.error or ""}
    else:
        said = {"predicted_label": prediction.label, "probabilities": prediction.probabilities}
        said |= {"prediction_error": prediction.error} if prediction.error else {}
    thresholds, probabilities = thresholds or {}, prediction.probabilities
    if of_labels := thresholds.get("label_thresholds"):
        said["accepted_labels"] = [name for name, it in of_labels.items() if probabilities.get(name, -1) >= it]
    if (least := thresholds.get("abstention_threshold")) is not None:
        said["abstains"] = max(probabilities.values(), default=-1) < least
    if (least := thresholds.get("label_set_threshold")) is not None:
        said["label_set"] = [name for name, it in probabilities.items() if it >= least]
    return said
