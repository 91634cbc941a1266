"""The cache of a teacher's token distributions: their top k on disk, in shards that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..data.collator import SOFT_TARGETS, padded_inputs
from ..files import unfinished_beside, write_whole
from ..losses import IGNORE_INDEX, SoftTargets, shift_targets
from ..modeling_dhrd import DHRDForDualHeadClassification

if TYPE_CHECKING:
    import datasets

    from .soft_targets import Teacher

# Rows of a shard: what a kill loses at most. 256 rows of 100 tokens and k = 64 are 13 MB.
_SHARD_ROWS = 256
_BATCH_ROWS = 8
_MANIFEST = "soft_targets.json"
# What a cache is bound to, and what a person calls it.
_BOUND_TO = {
    "rows": "data set, or the same one encoded otherwise",
    "teacher": "teacher",
    "tokenizer": "tokenizer",
    "vocab_size": "vocabulary",
    "top_k": "number of tokens a position (top_k)",
    "format": "version of dhrd_hf",
}


def with_soft_targets(
    dataset: datasets.Dataset, teacher: Teacher, tokenizer: PreTrainedTokenizerBase | None
) -> datasets.Dataset:
    """Encoded rows with the teacher's top k beside them, as [`Teacher.cached`] gives them."""
    from datasets import Dataset, concatenate_datasets, load_from_disk

    if not isinstance(dataset, Dataset) or "reasoning_targets" not in dataset.column_names:
        raise ValueError(
            "A teacher's cache is of rows of DualHeadEncoder in a datasets.Dataset, "
            f"found {type(dataset).__name__}. Leave cache_dir out, or encode the rows first."
        )
    _bind(teacher, dataset, tokenizer)
    shards = []
    starts = range(0, len(dataset), _SHARD_ROWS)
    folders = [teacher.cache_dir / f"shard-{number:05d}" for number in range(len(starts))]
    there = min(len(dataset), _SHARD_ROWS * sum(folder.exists() for folder in folders))
    whole = there == len(dataset)
    progress = tqdm(total=len(dataset), initial=there, desc="Soft targets", unit="rows", disable=whole)
    for start, folder in zip(starts, folders, strict=True):
        if not folder.exists():
            rows = dataset.select(range(start, min(start + _SHARD_ROWS, len(dataset))))
            _write_shard(folder, _top_k_of(teacher, rows, progress))
        shards.append(load_from_disk(str(folder)))
    progress.close()
    both = concatenate_datasets([dataset, concatenate_datasets(shards)], axis=1)
    return both.with_format("numpy", columns=list(SOFT_TARGETS), output_all_columns=True)


def cached_soft_targets(
    inputs: dict[str, Any], vocab_size: int, weight: float = 1.0, temperature: float = 1.0
) -> SoftTargets:
    """Take a batch's cached distributions out of it, as the model takes them."""
    log_probs, ids = (inputs.pop(name) for name in SOFT_TARGETS)
    return SoftTargets(lambda rows: (log_probs[rows], ids[rows]), vocab_size, weight, temperature)


def top_k_with_rest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A distribution as its k most likely tokens and the mass of all others."""
    log_probs = torch.log_softmax(logits.float(), -1)
    top, ids = log_probs.topk(min(k, logits.shape[-1]), -1)
    if ids.shape[-1] < logits.shape[-1]:
        rest = log_probs.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        top = torch.cat([top, rest], -1)
    return top, ids


def _bind(teacher: Teacher, dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Make the folder this cache's own, or raise where it is another's."""
    vocabulary = {} if tokenizer is None else tokenizer.get_vocab()
    bound = {
        "rows": _hash(_row_bytes(dataset)),
        "teacher": _hash(_weight_bytes(teacher.model)),
        "tokenizer": _hash(f"{token}\t{index}".encode() for token, index in sorted(vocabulary.items())),
        "vocab_size": teacher.vocab_size,
        "top_k": teacher.top_k,
        "format": 1,
    }
    manifest = teacher.cache_dir / _MANIFEST
    if not manifest.exists():
        # What is hidden is another process's, and unfinished.
        there = any(not it.name.startswith(".") for it in teacher.cache_dir.glob("*"))
        if there and not manifest.exists():
            raise ValueError(f"{teacher.cache_dir} holds something, but no soft targets: name another folder.")
        write_whole(manifest, json.dumps(bound, indent=2) + "\n")
        return
    found = json.loads(manifest.read_text(encoding="utf-8"))
    for name, meaning in _BOUND_TO.items():
        if found.get(name) != bound[name]:
            values = "" if isinstance(bound[name], str) else f" ({found.get(name)}, now {bound[name]})"
            raise ValueError(
                f"{teacher.cache_dir} holds the soft targets of another {meaning}{values}: name another folder, "
                "or remove this one."
            )


@torch.no_grad()
def _top_k_of(teacher: Teacher, rows: datasets.Dataset, progress: tqdm) -> datasets.Dataset:
    from datasets import Dataset, Features, List, Value

    device = teacher.model.get_input_embeddings().weight.device
    ids, targets = rows["input_ids"][:], [torch.tensor(row) for row in rows["reasoning_targets"]]
    found: list[dict[str, Any]] = [{} for _ in ids]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for batch in (order[start : start + _BATCH_ROWS] for start in range(0, len(order), _BATCH_ROWS)):
        # On the right, where no token of a causal model sees it.
        padded = padded_inputs([ids[row] for row in batch], 0, "right")
        wanted = pad_sequence([targets[row] for row in batch], batch_first=True, padding_value=IGNORE_INDEX)
        inputs = {**padded, "reasoning_targets": wanted}
        soft = teacher.soft_targets({name: it.to(device) for name, it in inputs.items()})
        number_of = (shift_targets(wanted) != IGNORE_INDEX).sum(-1).tolist()
        start = 0
        for row, number in zip(batch, number_of, strict=True):
            log_probs, top = top_k_with_rest(soft.at(slice(start, start + number))[0], teacher.top_k)
            found[row] = {
                "teacher_log_probs": log_probs.flatten().cpu().numpy(),
                "teacher_ids": top.flatten().int().cpu().numpy(),
            }
            start += number
        progress.update(len(batch))
    columns = {name: [row[name] for row in found] for name in SOFT_TARGETS}
    features = Features({"teacher_log_probs": List(Value("float32")), "teacher_ids": List(Value("int32"))})
    return Dataset.from_dict(columns, features=features)


def _write_shard(folder: Path, rows: datasets.Dataset) -> None:
    unfinished = unfinished_beside(folder)
    with _no_progress_bar():
        rows.save_to_disk(str(unfinished))
    try:
        os.rename(unfinished, folder)
    except OSError:  # another process was first, with the same rows
        shutil.rmtree(unfinished)
        if not folder.exists():
            raise


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Without a bar of `datasets` for each shard."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _row_bytes(dataset: datasets.Dataset) -> Iterator[bytes]:
    for row in dataset.select_columns(["input_ids", "reasoning_targets"]).with_format(None):
        for values in row.values():
            yield torch.tensor(values, dtype=torch.int32).numpy().tobytes()


def _weight_bytes(model: DHRDForDualHeadClassification) -> Iterator[bytes]:
    """Names, shapes and a sample of each tensor's values: enough to tell one training of a model from another."""
    for name, weight in model.state_dict().items():
        if not name.startswith("score."):
            sample = weight.detach().flatten()[:: max(1, weight.numel() // 64)][:64]
            yield f"{name} {list(weight.shape)} {weight.dtype}".encode() + sample.double().cpu().numpy().tobytes()
