"""Rows a second of one's own classifier, and of its reasoning head: appendices E.6 and E.7 of the paper."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.collator import padded_inputs
from ..data.inputs import input_limit, tokenize_inputs
from ..data.labels import Labels, read_labels
from ..data.prompts import input_columns, input_or_empty, render_rows
from ..data.tables import check_columns
from .cot import CoTDecoder
from .prediction import agree_on_pad_token, padding_side_of
from .ranks import Ranks
from .timing import free_memory, out_of_memory, spread, turns

if TYPE_CHECKING:
    from datasets import Dataset

# A warm-up round of decoding need not be as long as a measured one.
_WARMUP_TOKENS = 8


class Row(NamedTuple):
    text: str
    ids: list[int]
    label: int | None


class Answers(NamedTuple):
    labels: list[int | None]
    new_tokens: int | None = None


# Makes of rows and a batch size what is timed; it is told whether it warms up.
Engine = Callable[[Sequence[Row], int], Callable[[bool], Answers]]


def read_rows(
    table: Dataset,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    label_column: str = "label",
    max_length: int | None = None,
    drop_unlabelled: bool = False,
) -> tuple[list[Row], str]:
    """The rows of a table, tokenised as a deployed classifier would, and a line on them."""
    check_columns(table.column_names, input_columns(prompt), optional=[label_column])
    agree_on_pad_token(config, tokenizer)
    single = config.num_labels > 1 and config.problem_type in (None, "single_label_classification")
    labels: Sequence[int | None] = [None] * len(table)
    if single and label_column in table.column_names:
        known = Labels(config.label2id, "single_label_classification", label_column)
        table, known = read_labels(table, label_column, known=known, drop_unlabelled=drop_unlabelled)
        labels = known.read_all(table[label_column][:])
    texts = list(render_rows(prompt, table, input_or_empty))
    limit = input_limit(config, tokenizer, max_length)
    ids, cut = tokenize_inputs(tokenizer, texts, limit)
    pad = tokenizer.pad_token_id
    kept = [place for place, text in enumerate(texts) if text.strip() and any(it != pad for it in ids[place])]
    if not kept:
        raise ValueError(f"none of the {len(texts)} rows has a text: the prompt is {prompt!r}")
    rows = [Row(texts[place], ids[place], labels[place]) for place in kept]
    lengths, cut_rows = [len(row.ids) for row in rows], len(cut.keys() & kept)
    said = f"of {sum(lengths) / len(lengths):.0f} tokens on average, {max(lengths)} at most"
    said += f"; {cut_rows} cut to {limit} tokens" if cut_rows else ""
    said += f"; {len(texts) - len(kept)} left out, whose text is empty" if len(kept) < len(texts) else ""
    if rows[0].label is None:
        said += f"; accuracy is not measured: there are no single labels in a column {label_column!r}"
    return rows, said


def pooled(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], size: int
) -> Callable[[bool], Answers]:
    """A forward pass over batches that are padded, and where the model is, before the clock starts."""
    pad, side = tokenizer.pad_token_id, padding_side_of(model, tokenizer)
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    batches = [
        {name: it.to(model.device) for name, it in padded_inputs(ids, pad, side).items()}
        for ids in _batches([row.ids for row in rows], size)
    ]

    @torch.inference_mode()
    def run(warm_up: bool) -> Answers:
        found = [model(**batch, **options).logits.argmax(-1) for batch in batches]
        return Answers(torch.cat(found).tolist())

    return run


def decoding(decoder: CoTDecoder, rows: Sequence[Row], size: int) -> Callable[[bool], Answers]:
    """Answers decoded with the reasoning head, and read; the warm-up decodes a few tokens of the first two batches."""
    config = decoder.model.config
    names = [config.id2label[index] for index in range(config.num_labels)]
    batches = _batches([row.ids + decoder.delimiter for row in rows], size)

    def run(warm_up: bool) -> Answers:
        most = _WARMUP_TOKENS if warm_up else None
        found = [ids for batch in batches[: 2 if warm_up else None] for ids in decoder.decode(batch, most)]
        said = [decoder.answer(ids, names).label for ids in found]
        return Answers([None if it is None else names.index(it) for it in said], sum(map(len, found)))

    return run


def _batches(ids: Sequence[list[int]], size: int) -> list[Sequence[list[int]]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


@dataclass(eq=False)
class _Variant:
    """An engine with a batch size and an order of the rows, and what was measured of it."""

    engine: str
    batch_size: int
    sorted: bool
    rows: Sequence[Row]  # of this rank
    total: int  # rows of all ranks
    run: Callable[[bool], Answers]
    seconds: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        return {"engine": self.engine, "batch_size": self.batch_size, "sorted": self.sorted}

    @property
    def name(self) -> str:
        return f"{self.engine}, batches of {self.batch_size}, {'sorted' if self.sorted else 'unsorted'}"

    @property
    def speeds(self) -> list[float]:
        return [self.total / seconds for seconds in self.seconds]


def measure_throughput(
    engines: Mapping[str, Engine],
    rows: Sequence[Row],
    tokenizer: Callable[..., Any],
    *,
    batch_sizes: Sequence[int] = (1, 8, 32),
    orders: Sequence[bool] = (True, False),
    repeats: int = 3,
    warmup: int = 1,
    cot_rows: int = 32,
    ranks: Ranks | None = None,
) -> Iterator[dict[str, Any]]:
    """Time engines over the same rows, and say after each round what is known so far.

    Every engine, batch size and order of the rows takes its turn in every round, so that a drift of the machine meets all
    of them and ratios to `"torch"` within a round are fair. On several ranks each runs its share of the rows, and the
    slowest one's wall-clock counts. What does not fit into memory is left out, and the rest goes on. A batch is no larger
    than the rows that there are. `"cot"` is decoded over `cot_rows` rows, drawn evenly, in the first of the orders and in
    the batch sizes up to that number, or else all of them together.
    """
    ranks = ranks or Ranks()
    variants, left_out = _variants(engines, rows, batch_sizes, orders, cot_rows, ranks)
    texts, total = [row.text for row in rows], sum(ranks.gather(len(rows)))
    tokenization: list[float] = []
    runs = (warmup + repeats) * (1 + len(variants))
    with tqdm(total=runs, unit=" runs", file=sys.stderr, disable=ranks.rank > 0 or None) as progress:
        for it in left_out if ranks.rank == 0 else ():
            which = f"{it['engine']}, batches" if it["engine"] else "batches"
            progress.write(f"{which} of {it['batch_size']}: left out, {it['why']}", file=sys.stderr)
        for index in range(-warmup, repeats):
            seconds, *_ = _timed(lambda: tokenizer(texts, verbose=False), ranks)
            tokenization += [seconds] if index >= 0 else []
            progress.update()
            for variant in turns(variants, index):
                progress.set_description(variant.name)
                seconds, answers, why = _timed(partial(variant.run, index < 0), ranks)
                progress.update()
                if why is not None:
                    variants.remove(variant)
                    left_out.append({**variant.about, "why": why})
                    if ranks.rank == 0:
                        progress.write(f"{variant.name}: left out, {why}", file=sys.stderr)
                elif index >= 0:
                    variant.seconds.append(seconds)
                    counts = ranks.gather(_counted(answers, variant.rows))
                    variant.counts = {name: sum(it[name] for it in counts) for name in counts[0]}
            if index >= 0:
                yield {
                    "rows": [_measured(variant, variants) for variant in variants],
                    "tokenization": _speeds([total / it for it in tokenization]) | {"seconds": list(tokenization)},
                    "left_out": list(left_out),
                    "rounds": index + 1,
                }


def _variants(
    engines: Mapping[str, Engine],
    rows: Sequence[Row],
    batch_sizes: Sequence[int],
    orders: Sequence[bool],
    cot_rows: int,
    ranks: Ranks,
) -> tuple[list[_Variant], list[dict[str, Any]]]:
    """What is measured, and the batch sizes that there are too few rows for."""
    counts, a_rank = ranks.gather(len(rows)), " a rank" if ranks.count > 1 else ""
    most, few = max(counts), max(min(cot_rows // ranks.count, *counts), 1)
    sizes = list(dict.fromkeys(min(size, most) for size in batch_sizes))
    one_batch = f"there are {most} rows{a_rank}, which are one batch"
    too_large = [(None, size, one_batch) for size in dict.fromkeys(batch_sizes) if size > most]
    variants = []
    for name, engine in engines.items():
        these, total, its_sizes, its_orders = rows, sum(counts), sizes, orders
        if name == "cot":
            these, total = [rows[place * len(rows) // few] for place in range(few)], few * ranks.count
            its_sizes, its_orders = [size for size in sizes if size <= few] or [few], orders[:1]
            too_large += [(name, size, f"{few} rows{a_rank} are decoded") for size in sizes if size > few]
        for by_length in its_orders:
            ordered = sorted(these, key=lambda row: -len(row.ids)) if by_length else these
            variants += [_Variant(name, size, by_length, ordered, total, engine(ordered, size)) for size in its_sizes]
    keys = ("engine", "batch_size", "sorted", "why")
    return variants, [dict(zip(keys, (name, size, None, why), strict=True)) for name, size, why in too_large]


def _timed(run: Callable[[], Any], ranks: Ranks) -> tuple[float, Any, str | None]:
    """The slowest rank's seconds, what this one found, and why it did not fit into the memory of one of them."""
    ranks.gather(None)  # they start together
    answers = why = None
    started = time.perf_counter()
    try:
        answers = run()
    except Exception as error:  # torch, ONNX Runtime and OpenVINO each have their own
        why = out_of_memory(error)
        if why is None:
            raise
    of_all = ranks.gather([time.perf_counter() - started, why])
    why = next((it for _, it in of_all if it is not None), None)
    if why is not None:
        free_memory()
    return max(seconds for seconds, _ in of_all), answers, why


def _counted(answers: Answers, rows: Sequence[Row]) -> dict[str, int]:
    found = {"unreadable": answers.labels.count(None)}
    if rows[0].label is not None:
        found["right"] = sum(said == row.label for said, row in zip(answers.labels, rows, strict=True))
    if answers.new_tokens is not None:
        found["new_tokens"] = answers.new_tokens
    return found


def _speeds(speeds: Sequence[float]) -> dict[str, float]:
    return dict(zip(("samples_per_second", "low", "high"), spread(speeds), strict=True))


def _measured(variant: _Variant, variants: Sequence[_Variant]) -> dict[str, Any]:
    same, total, counts = {**variant.about, "engine": "torch"}, variant.total, variant.counts
    ratios = (None, None, None)
    for other in variants:
        if other.about == same:
            ratios = spread([one / of_it for one, of_it in zip(variant.speeds, other.speeds, strict=True)])
    speeds = _speeds(variant.speeds)
    decodes = "new_tokens" in counts
    return {
        **variant.about,
        **speeds,
        **dict(zip(("ratio", "ratio_low", "ratio_high"), ratios, strict=True)),
        "ms_per_row": 1000 / speeds["samples_per_second"],
        "accuracy": counts["right"] / total if "right" in counts else None,
        "unreadable": counts["unreadable"] if decodes else None,
        "new_tokens_per_row": counts["new_tokens"] / total if decodes else None,
        "rows": total,
        "tokenization": "apart",
        "seconds": list(variant.seconds),
    }
