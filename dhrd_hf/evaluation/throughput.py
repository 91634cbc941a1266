"""Rows a second of one classifier, run in several ways in turn: appendix E.6 and E.7 of the paper."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from .ranks import Ranks
from .throughput_engines import Answers, BenchRows, Engine
from .timing import free_memory, out_of_memory, spread, turns


@dataclass
class _Variant:
    engine: str
    kind: Engine
    batch_size: int
    sorted: bool
    rows: BenchRows  # of this rank
    total: int  # rows of all ranks
    warm_up: Callable[[], Any]
    run: Callable[[], Answers]
    seconds: list[float] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.engine}, batches of {self.batch_size}, {'sorted' if self.sorted else 'unsorted'}"

    @property
    def about(self) -> dict[str, Any]:
        return {"engine": self.engine, "batch_size": self.batch_size, "sorted": self.sorted}

    @property
    def speeds(self) -> list[float]:
        return [self.total / seconds for seconds in self.seconds]


def measure_throughput(
    engines: Mapping[str, Engine],
    rows: BenchRows,
    tokenizer: PreTrainedTokenizerBase,
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
    of them and ratios within a round are fair; `"torch"` is what the others are compared with. On several ranks each runs its
    share of the rows, and the slowest one's wall-clock counts. What does not fit into memory is left out, and the rest goes
    on. A batch is no larger than the rows that there are. `"cot"` is decoded over `cot_rows` rows, drawn evenly, in the first
    of the orders and in the batch sizes up to that number, or else all of them together.

    Source: Zhou et al. 2025, arXiv 2509.21487, appendices E.6 and E.7.
    """
    numbers = {"repeats": (repeats, 1), "warmup": (warmup, 0), "cot_rows": (cot_rows, 1)}
    numbers |= {f"batch_sizes[{place}]": (size, 1) for place, size in enumerate(batch_sizes)}
    for name, (value, least) in numbers.items():
        if value < least:
            raise ValueError(f"{name}={value} must be {least} or greater.")
    if not engines or not batch_sizes or not orders:
        raise ValueError("There is nothing to measure: name at least one engine, batch size and order of the rows.")
    ranks = ranks or Ranks()
    variants, left_out = _variants(engines, rows, batch_sizes, orders, cot_rows, ranks)
    return _rounds(variants, left_out, rows, tokenizer, repeats, warmup, ranks)


def _variants(
    engines: Mapping[str, Engine],
    rows: BenchRows,
    batch_sizes: Sequence[int],
    orders: Sequence[bool],
    cot_rows: int,
    ranks: Ranks,
) -> tuple[list[_Variant], list[dict[str, Any]]]:
    """What is measured, and the batch sizes that there are too few rows for."""
    counts = ranks.gather(len(rows.ids))
    if min(counts) == 0:
        raise ValueError(f"there are {sum(counts)} rows for {ranks.count} ranks: each needs one at least")
    many = max(counts)
    few = max(min(cot_rows // ranks.count, min(counts)), 1)
    decoded = rows.select([place * len(rows.ids) // few for place in range(few)])
    sizes = list(dict.fromkeys(min(size, many) for size in batch_sizes))
    few_sizes = [size for size in sizes if size <= few] or [few]
    a_rank = " a rank" if ranks.count > 1 else ""
    one_batch = f"there are {many} rows{a_rank}, which are one batch"
    too_large = [(None, size, one_batch) for size in dict.fromkeys(batch_sizes) if size > many]
    variants = []
    for name, engine in engines.items():
        these, these_sizes, sides, total = rows, sizes, orders, sum(counts)
        if name == "cot":
            these, these_sizes, sides, total = decoded, few_sizes, orders[:1], few * ranks.count
            too_large += [(name, size, f"{few} rows{a_rank} are decoded") for size in sizes if size > few]
        for by_length in sides:
            ordered = these.longest_first() if by_length else these
            for size in these_sizes:
                ready = engine.prepare(ordered, size)
                variants.append(_Variant(name, engine, size, by_length, ordered, total, *ready))
    names = ("engine", "batch_size", "sorted", "why")
    return variants, [dict(zip(names, (name, size, None, why), strict=True)) for name, size, why in too_large]


def _rounds(
    variants: list[_Variant],
    left_out: list[dict[str, Any]],
    rows: BenchRows,
    tokenizer: PreTrainedTokenizerBase,
    repeats: int,
    warmup: int,
    ranks: Ranks,
) -> Iterator[dict[str, Any]]:
    left = {variant.name: variant for variant in variants}
    left_out = list(left_out)
    tokenization: list[float] = []
    total = sum(ranks.gather(len(rows.ids)))
    runs = (warmup + repeats) * (1 + len(variants))
    with tqdm(total=runs, unit=" runs", file=sys.stderr, disable=ranks.rank > 0 or None) as progress:
        for it in left_out if ranks.rank == 0 else ():
            which = f"{it['engine']}, batches" if it["engine"] else "batches"
            progress.write(f"{which} of {it['batch_size']}: left out, {it['why']}", file=sys.stderr)
        for index in range(-warmup, repeats):
            seconds, _ = _together(lambda: tokenizer(rows.texts, verbose=False), ranks)
            tokenization += [seconds] if index >= 0 else []
            progress.update()
            for name in turns(left, index):
                progress.set_description(name)
                variant = left[name]
                seconds, found = _together(variant.run if index >= 0 else variant.warm_up, ranks, variant.rows.labels)
                progress.update()
                if isinstance(found, str):
                    left_out.append({**variant.about, "why": found})
                    progress.write(f"{name}: left out, {found}", file=sys.stderr)
                    del left[name]
                elif index >= 0:
                    variant.seconds.append(seconds)
                    variant.found = found
            if index >= 0:
                yield {
                    "rows": [_measured(variant, left) for variant in left.values()],
                    "tokenization": _speeds([total / it for it in tokenization]) | {"seconds": list(tokenization)},
                    "left_out": list(left_out),
                    "rounds": index + 1,
                }


def _together(
    function: Callable[[], Any], ranks: Ranks, labels: list[int] | None = None
) -> tuple[float, dict[str, int] | str]:
    """The slowest rank's seconds, and what all ranks have found; or why it did not fit into one's memory."""
    ranks.gather(None)  # they start together
    started = time.perf_counter()
    try:
        answers = function()
        seconds = time.perf_counter() - started
        found: Any = _counted(answers, labels) if isinstance(answers, Answers) else {}
    except Exception as error:  # torch, ONNX Runtime and OpenVINO each have their own
        reason = out_of_memory(error)
        if reason is None:
            raise
        seconds, found = 0.0, reason
    of_all = ranks.gather([seconds, found])
    slowest = max(seconds for seconds, _ in of_all)
    failed = [it for _, it in of_all if isinstance(it, str)]
    if failed:
        free_memory()
        return slowest, failed[0]
    return slowest, {name: sum(it[name] for _, it in of_all) for name in of_all[0][1]}


def _counted(answers: Answers, labels: list[int] | None) -> dict[str, int]:
    found = {"unreadable": sum(label is None for label in answers.labels)}
    if labels is not None:
        found["right"] = sum(one == other for one, other in zip(answers.labels, labels, strict=True))
    if answers.new_tokens is not None:
        found["new_tokens"] = answers.new_tokens
    return found


def _speeds(speeds: Sequence[float], prefix: str = "") -> dict[str, float]:
    middle, low, high = spread(speeds)
    names = (f"{prefix}_low", f"{prefix}_high") if prefix else ("low", "high")
    return {prefix or "samples_per_second": middle, names[0]: low, names[1]: high}


def _measured(variant: _Variant, measured: Mapping[str, _Variant]) -> dict[str, Any]:
    same = (variant.batch_size, variant.sorted)
    pooled = next(
        (it for it in measured.values() if it.engine == "torch" and (it.batch_size, it.sorted) == same), None
    )
    ratios: dict[str, Any] = dict.fromkeys(("ratio", "ratio_low", "ratio_high"))
    if pooled is not None:
        ratios = _speeds([one / other for one, other in zip(variant.speeds, pooled.speeds, strict=True)], "ratio")
    found, total = variant.found, variant.total
    decodes = "new_tokens" in found
    return {
        **variant.about,
        **_speeds(variant.speeds),
        **ratios,
        "ms_per_row": 1000 / spread(variant.speeds)[0],
        "accuracy": found["right"] / total if "right" in found else None,
        "unreadable": found["unreadable"] if decodes else None,
        "new_tokens_per_row": found["new_tokens"] / total if decodes else None,
        "rows": total,
        "tokenization": "included" if variant.kind.includes_tokenization else "apart",
        "device": variant.kind.device,
        "dtype": variant.kind.dtype,
        "threads": variant.kind.threads,
        "seconds": list(variant.seconds),
    }
