"""Rows to token ids: x tokenised alone, exactly as a deployed classifier would; the suffix's ids appended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .. import __version__
from .counts import EncodingCounts
from .inputs import (
    INPUT_NAMES,
    continued_ids,
    longest_sequence,
    pool_by_pad_token,
    remember_settings,
    tokenize_inputs,
    tokenizer_settings,
)
from .labels import Labels, labels_of, named_cells, read_labels
from .prompts import (
    DEFAULT_PROMPT,
    DEFAULT_SUFFIX,
    REASONING_SPANS,
    Suffix,
    closing,
    input_columns,
    rationale_text,
    render_input,
)
from .tables import check_columns

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)

_IN_MEMORY = 10_000  # rows that are encoded in memory, where `datasets` keeps none of a table's in files
_HOW_TO_MAP = "Use encode_dataset(dataset), or map(encode, batched=True) on a data set without a format: dataset.with_format(None)."


class RowParts(NamedTuple):
    """What a row is made of, cut to fit."""

    x: list[int]
    reasoning: list[int]  # of the delimiter and the rationale; empty where nothing of the rationale is there
    answer: list[int]  # of the delimiter and the label
    rationale_cut: bool
    input_cut: bool
    whole: int  # number of tokens if nothing had been cut


class _Rows(NamedTuple):
    """Encoded rows: all token ids, the number of those of x, of the first that have no reasoning loss, the labels."""

    ids: list[list[int]]
    lengths: list[int]
    skipped: list[int]
    labels: list[Any]


class DualHeadEncoder:
    r"""Encode rows of text, label and rationale for a dual-head model: `[x, <REASON>, r, <ANS>, y]` (eq. 1).

    x has the same token ids in training as at inference: it is tokenised alone, with the tokenizer's special tokens,
    and the ids of the suffix follow. The tokenizer's end-of-sequence token closes the row, so that `generate` stops;
    the paper does not say whether it has one.

    Example:

    ```python
    >>> from dhrd_hf import DualHeadEncoder
    >>> encode = DualHeadEncoder(
    ...     tokenizer, model=model, prompt="Passage:\n{passage}\nQuestion:\n{question}"
    ... )
    >>> train = dataset.map(encode, batched=True, remove_columns=dataset.column_names)
    >>> print(encode.counts)
    1000 rows encoded: 3 without a rationale (label-only form), 0 rationales cut, 0 inputs cut

    ```

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        label2id (`dict[str, int]`, *optional*): The labels, as `model.config.label2id`; by default the model's.
        prompt (`str`, *optional*): Template of x over the row's columns; by default the model's, else `"{text}"`.
        max_length (`int`, *optional*, defaults to 1024): Most tokens of a row, or the tokenizer's or the model's own limit
            where that is less. The rationale is cut to fit, the answer never; where not even the answer fits behind x, x is
            cut.
        max_input_length (`int`, *optional*): Most tokens of x, cut as the deployed tokenizer cuts it (`truncation=True`).
            By default `max_length` less the longest answer, so that one number holds for every row and in deployment.
        model ([`DHRDForDualHeadClassification`], *optional*): The model to train, whose config gets what the encoder does:
            prompt, suffix, `max_input_length`, pad token. Without it they are left with the tokenizer, from which
            [`DualHeadTrainer`] and [`export_classifier`] take them.
        suffix (`str`, *optional*): Template with `{rationale}` and then `{label}`; by default the model's, else the paper's.
        label_column (`str`, *optional*, defaults to `"label"`): Column of the labels: names or ids; lists of them, or
            multi-hot rows, for multi label; numbers for regression. What a `ClassLabel` numbers are its names, whatever
            their order in `label2id`; but a stream's `map`, `with_transform` and a batch such as `dataset[:8]` do not say
            that there is one, so that whole numbers are ids of `label2id`: use [`~DualHeadEncoder.encode_dataset`], which a
            stream tells of it unless a `map` before it has lost the features.
        rationale_column (`str`, *optional*, defaults to `"rationale"`): Column of the rationales. A row where it is
            missing, null or empty becomes the label-only form `[x, <ANS>, y]`.
        problem_type (`str`, *optional*): As in transformers; by default the model's, else one label is regression, a list of
            labels is multi label, anything else single label.
        rationale_after_label (`bool`, *optional*): Put the two parts of the suffix the other way round, `[x, <ANS>, y,
            <REASON>, r]`: a control, in which the label does not follow from the rationale. By default as in the model's
            config, else `False`.
        reasoning_span (`str`, *optional*, defaults to `"input+rationale"`): The tokens that the reasoning loss is over:
            the whole row, as in the paper, or with `"rationale"` only what follows x.

    Returns (of a call with a batch of columns):
        `dict[str, list]`: `input_ids`, `attention_mask`, `input_length`, `reasoning_targets`, `labels`.

    Raises:
        ValueError: on labels that are missing, unknown or not the model's, empty texts, columns that the table lacks or
            spells in two ways, or lengths that leave no room. The message names the row.

    Source: Zhou et al. 2025, arXiv 2509.21487, eq. 1 and appendix E.2.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        label2id: Mapping[str, int] | None = None,
        prompt: str | None = None,
        max_length: int = 1024,
        max_input_length: int | None = None,
        *,
        model: PreTrainedModel | None = None,
        suffix: str | None = None,
        label_column: str = "label",
        rationale_column: str = "rationale",
        problem_type: str | None = None,
        rationale_after_label: bool | None = None,
        reasoning_span: str = REASONING_SPANS[0],
    ):
        if reasoning_span not in REASONING_SPANS:
            raise ValueError(f"reasoning_span={reasoning_span!r} is not one of {', '.join(REASONING_SPANS)}.")
        config = getattr(model, "config", None)
        if model is not None:
            label2id = labels_of(config, label2id)
            prompt = config.prompt_template if prompt is None else prompt
            suffix = config.suffix_template if suffix is None else suffix
            problem_type = config.problem_type if problem_type is None else problem_type
            if rationale_after_label is None:
                rationale_after_label = config.rationale_after_label
        elif label2id is None:
            raise ValueError("Which labels are there? Give model=model, or label2id=model.config.label2id.")
        prompt = DEFAULT_PROMPT if prompt is None else prompt
        suffix = DEFAULT_SUFFIX if suffix is None else suffix
        self.columns = input_columns(prompt)
        self.tokenizer = tokenizer
        self.labels = Labels(label2id, problem_type, label_column)
        self.prompt = prompt
        self.suffix_template, self.suffix = suffix, Suffix.parse(suffix)
        self.label_column = label_column
        self.rationale_column = rationale_column
        self.rationale_after_label = bool(rationale_after_label)
        self.reasoning_span = reasoning_span
        self.max_length = longest_sequence(self.tokenizer, max_length, config)
        self.max_input_length = self._input_limit(max_input_length)
        if config is not None:
            pool_by_pad_token(config, tokenizer)
        self._given, self._settings = (label2id, config), None
        self._remember()
        self.counts = EncodingCounts()

    def _remember(self) -> None:
        """The tokenizer may have been set since."""
        values = (self.prompt, self.suffix_template, self.rationale_after_label, self.max_input_length)
        settings = dict(zip(INPUT_NAMES, (*values, tokenizer_settings(self.tokenizer)), strict=True))
        if settings != self._settings:
            remember_settings(self.tokenizer, self._given[0], settings, self._given[1])
            self._settings = settings

    def __call__(self, batch: Mapping[str, Sequence[Any]], feature: Any = None) -> dict[str, list]:
        rows, marks = self._encode(batch, self.counts.rows, feature)
        before, self.counts = self.counts, self.counts + EncodingCounts.total(marks)
        if len(self.counts.advice) > len(before.advice):
            logger.warning(f"Among the first {self.counts.rows} rows: {' '.join(self.counts.advice)}")
        return {
            "input_ids": rows.ids,
            "attention_mask": [[1] * len(ids) for ids in rows.ids],
            "input_length": rows.lengths,
            "reasoning_targets": [[-100] * it + ids[it:] for ids, it in zip(rows.ids, rows.skipped, strict=True)],
            "labels": rows.labels,
        }

    def encode_dataset(
        self,
        dataset: datasets.Dataset,
        num_proc: int | None = None,
        cache_dir: str | Path | None = None,
        drop_unlabelled: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> datasets.Dataset:
        """Encode a whole data set and tell what was cut or had no rationale, whatever was cached or run in parallel.

        Example:

        ```python
        >>> train = encode.encode_dataset(dataset)

        ```

        Args:
            dataset (`datasets.Dataset` or `IterableDataset`): Rows with the columns that the prompt names, labels, and
                rationales. A stream is encoded as it is read.
            num_proc (`int`, *optional*): Number of processes.
            cache_dir (`str` or `Path`, *optional*): Folder that keeps the encoded rows for other processes, which find them
                by the rows, the tokenizer and the encoder's settings; by default it is up to `datasets`.
            drop_unlabelled (`bool`, *optional*, defaults to `False`): Leave out rows without a label, and tell how many;
                of a stream they are always refused.
            say (`Callable[[str], None]`, *optional*): Is told what was cut; by default it is logged.

        Returns:
            `datasets.Dataset`: the encoded rows, in order, without the other columns. `counts` has grown by them.

        Raises:
            ValueError: as a call does.
        """
        dataset = dataset.with_format(None)
        if not hasattr(dataset, "__len__"):  # a stream
            feature = (dataset.features or {}).get(self.label_column)
            columns = dataset.column_names or list(next(iter(dataset)))
            return dataset.map(self, batched=True, remove_columns=columns, fn_kwargs={"feature": feature})
        named, _ = read_labels(dataset, self.label_column, known=self.labels, drop_unlabelled=drop_unlabelled)
        if cache_dir is None and not named.cache_files and len(named) > _IN_MEMORY:
            from datasets.fingerprint import get_temporary_cache_files_directory

            cache_dir = get_temporary_cache_files_directory()
        cached = {} if cache_dir is None else self._cached_as(named, Path(cache_dir))
        encoded = named.map(
            self._encode_marked,
            batched=True,
            with_indices=True,
            remove_columns=named.column_names,
            num_proc=num_proc,
            desc="Encoding",
            **cached,
        )
        marks = {f.name: encoded.with_format("numpy")[f.name][:] for f in fields(EncodingCounts) if f.name != "rows"}
        seen = EncodingCounts.total(marks)
        self.counts = self.counts + seen
        say = say or (logger.warning if seen != EncodingCounts(rows=seen.rows) else logger.info)
        limits = f"(max_length {self.max_length}, max_input_length {self.max_input_length})"
        say(" ".join((f"{seen} {limits}.", *seen.advice)))
        return encoded.remove_columns(list(marks))

    def _cached_as(self, dataset: datasets.Dataset, folder: Path) -> dict[str, str]:
        """Where `Dataset.map` finds the encoded rows."""
        from datasets.fingerprint import Hasher

        folder.mkdir(parents=True, exist_ok=True)
        fingerprint = Hasher.hash([dataset._fingerprint, self])
        return {"new_fingerprint": fingerprint, "cache_file_name": str(folder / f"{fingerprint}.arrow")}

    def __getstate__(self) -> dict[str, Any]:
        # `Dataset.map` hashes the encoder to find cached results: what it has counted must not change the hash, and the
        # package's version stands for this code.
        given = (self._given[0], None)
        return {**self.__dict__, "counts": EncodingCounts(), "_given": given, "version": __version__}

    def _encode_marked(self, batch: Mapping[str, Sequence[Any]], indices: list[int]) -> pa.Table:
        """As a call does, with the marks; made in Arrow, which `Dataset.map` writes as it is."""
        rows, marks = self._encode(batch, first_row=indices[0])
        sizes = np.fromiter(map(len, rows.ids), np.int32, len(rows.ids))
        ends = np.concatenate([[0], sizes.cumsum(dtype=np.int32)])
        ids = np.fromiter(chain.from_iterable(rows.ids), np.int32, ends[-1])
        places = np.arange(len(ids)) - ends[:-1].repeat(sizes)
        targets = np.where(places < np.repeat(rows.skipped, sizes), np.int32(-100), ids)
        mask = np.ones(len(ids), np.int8)
        columns = {
            "input_ids": pa.ListArray.from_arrays(ends, ids),
            "attention_mask": pa.ListArray.from_arrays(ends, mask),
            "input_length": rows.lengths,
            "reasoning_targets": pa.ListArray.from_arrays(ends, targets),
            "labels": rows.labels,
        }
        return pa.table(columns | marks)

    def _encode(
        self, batch: Mapping[str, Sequence[Any]], first_row: int, feature: Any = None
    ) -> tuple[_Rows, dict[str, list[int]]]:
        """The encoded rows, and for each what [`EncodingCounts`] counts as 0 or 1."""
        self._remember()
        rows = _rows_of(batch, [*self.columns, self.label_column], self.rationale_column)
        # `Dataset.map` gives a batch that knows the features of its columns, of which a `ClassLabel` numbers names.
        features = getattr(getattr(batch, "formatter", None), "features", None) or {self.label_column: feature}
        values = named_cells([row[self.label_column] for row in rows], features.get(self.label_column))
        texts, labels, rationales = [], [], []
        read_once = cache(self.labels.read)  # of text, of which there are few in a batch
        for index, row in enumerate(rows):
            try:
                text = render_input(self.prompt, row)
                label = (read_once if isinstance(values[index], str) else self.labels.read)(values[index])
                rationale = rationale_text(row.get(self.rationale_column), f"column {self.rationale_column!r}") or ""
            except ValueError as error:
                raise ValueError(f"Row {first_row + index}: {error}. The row: {_excerpt(row)}") from None
            texts.append(text)
            labels.append(label)
            rationales.append(rationale)

        encoded = _Rows([], [], [], labels)
        marks: dict[str, list[int]] = {f.name: [] for f in fields(EncodingCounts) if f.name != "rows"}
        cut_on_right = self.tokenizer.truncation_side == "right"
        twice_bos, pad, end = [self.tokenizer.bos_token_id] * 2, self.tokenizer.pad_token_id, self._end
        named = [self.labels.text(label) for label in labels]
        parts = self.parts(texts, named, rationales)
        for index, (x, reasoning, answer, rationale_cut, input_cut, _) in enumerate(parts):
            row = f"Row {first_row + index}"
            if x.count(pad) == len(x):
                raise ValueError(f"{row}: its text {texts[index]!r} holds nothing but padding tokens.")
            if len(x) + len(answer) + len(end) > self.max_length:
                raise ValueError(
                    f"{row}: its answer of {len(answer)} tokens is longer than the room kept for it. "
                    "Say problem_type='multi_label_classification', which keeps room for all labels."
                )
            s = x + (answer + reasoning if self.rationale_after_label else reasoning + answer) + end
            encoded.ids.append(s)
            encoded.lengths.append(len(x))
            encoded.skipped.append(len(x) if self.reasoning_span == "rationale" else 0)
            marks["without_rationale"].append(int(not rationales[index]))
            marks["rationales_cut"].append(int(rationale_cut))
            marks["inputs_cut"].append(int(input_cut))
            marks["endings_cut"].append(int(input_cut and cut_on_right and self._has_ending(rows[index])))
            marks["doubled_bos"].append(int(x[:2] == twice_bos))
        return encoded, marks

    def _has_ending(self, row: Mapping[str, Any]) -> bool:
        """Whether a row's text ends with what no cut is meant for: text of the prompt, or a column behind a longer one."""
        last, behind = closing(self.prompt)
        return bool(behind.strip()) or len(str(row[last])) < max(len(str(row[name])) for name in self.columns)

    def parts(self, texts: Sequence[str], labels: Sequence[str], rationales: Sequence[str]) -> Iterator[RowParts]:
        """What rows are made of, cut to fit: for encoding them, and for counting what would be cut."""
        inputs, cut = tokenize_inputs(self.tokenizer, texts, self.max_input_length)
        answers = self.continued([self.suffix.between + label + self.suffix.after for label in labels])
        [reason], end = self.continued([self.suffix.before]), len(self._end)
        rationale_ids = self.continued(rationales, self.suffix.before)
        for index, (x, rationale, answer) in enumerate(zip(inputs, rationale_ids, answers, strict=True)):
            rest = len(answer) + end
            whole = cut.get(index, len(x)) + (len(reason) + len(rationale) if rationale else 0) + rest
            kept = rationale[: max(self.max_length - len(x) - len(reason) - rest, 0)]
            yield RowParts(x, reason + kept if kept else [], answer, len(kept) < len(rationale), index in cut, whole)

    @property
    def _end(self) -> list[int]:
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    def continued(self, texts: Sequence[str], before: str | None = None) -> list[list[int]]:
        """Token ids of parts of the suffix, as they stand behind `before` or any text."""
        return continued_ids(self.tokenizer, texts, before)

    def _input_limit(self, max_input_length: int | None) -> int:
        answers = [self.suffix.between + answer + self.suffix.after for answer in self.labels.longest_texts()]
        reserved = max(len(ids) for ids in self.continued(answers)) + len(self._end)
        limit = self.max_length - reserved
        if limit < 1:
            raise ValueError(
                f"max_length {self.max_length} leaves no room for x: the longest answer takes {reserved} tokens."
            )
        if max_input_length is not None and not 1 <= max_input_length <= limit:
            raise ValueError(
                f"max_input_length {max_input_length} is not in 1 to {limit}: max_length {self.max_length} less the "
                f"{reserved} tokens of the longest answer. Raise max_length or lower max_input_length."
            )
        return limit if max_input_length is None else max_input_length


def _rows_of(batch: Mapping[str, Sequence[Any]], needed: list[str], optional: str) -> list[dict[str, Any]]:
    """The rows of a batch of columns that has the needed ones, each spelled in one way."""
    if not hasattr(batch, "keys"):
        raise ValueError(f"A batch is columns by their names, and this is {_excerpt(batch)}. {_HOW_TO_MAP}")
    check_columns(batch.keys(), needed, optional=[optional])
    columns = {name: batch[name] for name in (*needed, optional) if name in batch}
    for name, values in columns.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ValueError(f"Column {name!r} holds {_excerpt(values)}, expected a list of values. {_HOW_TO_MAP}")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _excerpt(value: Any) -> str:
    row = value if isinstance(value, dict) else {}
    text = ", ".join(f"{name}={cell!r}" for name, cell in row.items()) or " ".join(repr(value).split())
    return text if len(text) <= 160 else text[:160] + "..."
