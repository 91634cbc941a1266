"""What `measure_throughput` measures: one classifier, run in several ways over the same rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data.collator import padded_inputs
from ..data.inputs import input_limit, tokenize_inputs
from ..data.labels import Labels, read_labels
from ..data.prompts import input_columns, input_or_empty, render_rows
from ..data.tables import check_columns
from .cot import MAX_NEW_TOKENS, CoTDecoder
from .prediction import agree_on_pad_token, padding_side_of

if TYPE_CHECKING:
    from datasets import Dataset

# A warm-up round of decoding need not be as long as a measured one.
_WARMUP_TOKENS = 8


@dataclass(frozen=True)
class BenchRows:
    """Rows of a table as token ids: what every engine classifies."""

    texts: list[str]
    ids: list[list[int]] = field(repr=False)
    labels: list[int] | None
    limit: int | None
    cut: int
    empty: int

    @classmethod
    def of(
        cls,
        table: Dataset,
        config: PreTrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str = "{text}",
        label_column: str = "label",
        max_length: int | None = None,
        drop_unlabelled: bool = False,
    ) -> BenchRows:
        """Tokenise the rows of a table as a deployed classifier would."""
        check_columns(table.column_names, input_columns(prompt), optional=[label_column])
        agree_on_pad_token(config, tokenizer)
        labels = None
        if (
            label_column in table.column_names
            and config.num_labels > 1
            and config.problem_type in (None, "single_label_classification")
        ):
            known = Labels(config.label2id, "single_label_classification", label_column)
            table, known = read_labels(table, label_column, known=known, drop_unlabelled=drop_unlabelled)
            labels = known.read_all(table[label_column][:])
        given = list(render_rows(prompt, table, input_or_empty))
        limit = input_limit(config, tokenizer, max_length)
        ids, cut = tokenize_inputs(tokenizer, given, limit)
        kept = [
            place
            for place, text in enumerate(given)
            if text.strip() and any(token != tokenizer.pad_token_id for token in ids[place])
        ]
        if not kept:
            raise ValueError(f"none of the {len(given)} rows has a text: the prompt is {prompt!r}")
        return cls(
            texts=[given[place] for place in kept],
            ids=[ids[place] for place in kept],
            labels=None if labels is None else [labels[place] for place in kept],
            limit=limit,
            cut=len(cut.keys() & kept),
            empty=len(given) - len(kept),
        )

    def select(self, places: Sequence[int]) -> BenchRows:
        return BenchRows(
            [self.texts[place] for place in places],
            [self.ids[place] for place in places],
            None if self.labels is None else [self.labels[place] for place in places],
            self.limit,
            self.cut,
            self.empty,
        )

    def longest_first(self) -> BenchRows:
        return self.select(sorted(range(len(self.ids)), key=lambda place: -len(self.ids[place])))


@dataclass(frozen=True)
class Answers:
    labels: list[int | None]
    new_tokens: int | None = None


class Engine(Protocol):
    includes_tokenization: bool
    device: str
    dtype: str  # of the weights: "float32", "bfloat16", ..., or "int8"
    threads: int  # of a computation on the CPU

    def prepare(self, rows: BenchRows, batch_size: int) -> tuple[Callable[[], Any], Callable[[], Answers]]:
        """What is timed, over rows that are ready to run."""
        ...


class ForwardEngine:
    """A classifier's forward pass over batches that are padded, and where the model is, before the clock starts."""

    includes_tokenization = False

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase):
        self.model = model.eval()
        agree_on_pad_token(model.config, tokenizer)
        self.pad, self.side = tokenizer.pad_token_id, padding_side_of(model, tokenizer)
        self.device, self.dtype, self.threads = _runs_on(model)
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        self.options = {"use_cache": False} if takes_cache else {}

    def prepare(self, rows: BenchRows, batch_size: int) -> tuple[Callable[[], Any], Callable[[], Answers]]:
        batches = [
            {name: it.to(self.model.device) for name, it in padded_inputs(ids, self.pad, self.side).items()}
            for ids in _batches(rows.ids, batch_size)
        ]

        @torch.inference_mode()
        def run() -> Answers:
            found = [self.model(**batch, **self.options).logits.argmax(-1) for batch in batches]
            return Answers(torch.cat(found).tolist())

        return run, run


class PipelineEngine:
    """A classifier through transformers' `pipeline`, as most people call one: texts in, names of labels out."""

    includes_tokenization = True

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        from transformers import pipeline

        agree_on_pad_token(model.config, tokenizer)
        self.classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device=model.device)
        self.label2id = model.config.label2id
        self.device, self.dtype, self.threads = _runs_on(model)

    def prepare(self, rows: BenchRows, batch_size: int) -> tuple[Callable[[], Any], Callable[[], Answers]]:
        cut = {} if rows.limit is None else {"truncation": True, "max_length": rows.limit}

        def run() -> Answers:
            said = self.classify(rows.texts, batch_size=batch_size, **cut)
            # A regression's one label is the only one.
            return Answers([self.label2id.get(it["label"]) for it in said])

        return run, run


class CoTEngine:
    """Answers decoded with the reasoning head; tokens and labels are turned into each other within the run."""

    includes_tokenization = False

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, **options: Any):
        self.decoder = CoTDecoder(model, tokenizer, **{"max_new_tokens": MAX_NEW_TOKENS, **options})
        self.names = [model.config.id2label[index] for index in range(model.config.num_labels)]
        self.device, self.dtype, self.threads = _runs_on(model)

    def prepare(self, rows: BenchRows, batch_size: int) -> tuple[Callable[[], Any], Callable[[], Answers]]:
        """As [`Engine`]; the warm-up decodes a few tokens of the first two batches."""
        reason = self.decoder.delimiter
        batches = _batches([ids + reason for ids in rows.ids], batch_size)

        def warm_up() -> None:
            for batch in batches[:2]:
                self.decoder.decode(batch, _WARMUP_TOKENS)

        def run() -> Answers:
            found = [ids for batch in batches for ids in self.decoder.decode(batch)]
            said = [self.decoder.answer(ids, self.names).label for ids in found]
            labels = [None if label is None else self.names.index(label) for label in said]
            return Answers(labels, sum(map(len, found)))

        return warm_up, run


def _runs_on(model: Any) -> tuple[str, str, int]:
    """Where a model runs, what its weights are, and how many threads it has; an engine has threads of its own."""
    dtype = str(model.dtype).removeprefix("torch.")
    return model.device.type, dtype, getattr(model, "threads", torch.get_num_threads())


def _batches(ids: Sequence[list[int]], batch_size: int) -> list[list[list[int]]]:
    return [list(ids[start : start + batch_size]) for start in range(0, len(ids), batch_size)]
