"""Soft targets: a teacher LM's token distributions, made as they are needed or kept on disk by their top k."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..configuration_dhrd import DHRDConfig
from ..data.collator import SOFT_TARGETS
from ..files import write_whole
from ..losses import IGNORE_INDEX, SoftTargets, shift_targets
from ..modeling_dhrd import DHRDForDualHeadClassification
from .padding_free import check_padding_free

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)

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


class Teacher:
    r"""A causal LM that a student learns token distributions from: any with the student's tokenizer.

    Without `cache_dir` it runs beside the student, without gradients and dropout, over the same rows, and its logits
    are made where they are needed, as its family makes them (scaled, capped). With `cache_dir` it runs once: the
    log-probabilities of its `top_k` tokens and the mass of all others are kept on disk, whatever the temperature, and
    training reads them from there. See [`~losses.naive_distillation_loss`] for what is learned from them.

    Example:

    ```python
    >>> from transformers import AutoModelForCausalLM
    >>> from dhrd_hf import DualHeadTrainer, DualHeadTrainingArguments
    >>> from dhrd_hf.training import Teacher
    >>> lm = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-1.7B-Instruct")  # doctest: +SKIP
    >>> args = DualHeadTrainingArguments(output_dir="out", distillation_weight=0.5, temperature=2.0)  # doctest: +SKIP
    >>> trainer = DualHeadTrainer(  # doctest: +SKIP
    ...     model=model,
    ...     args=args,
    ...     train_dataset=train,
    ...     processing_class=tokenizer,
    ...     teacher=Teacher(lm, cache_dir="soft-targets"),
    ... )

    ```

    Args:
        model (`PreTrainedModel`, or a `PeftModel` around one): A causal LM, or a dual-head model.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Its tokenizer, to compare with the student's; by default the
            one beside its weights.
        cache_dir (`str` or `os.PathLike`, *optional*): Folder of the cache; made, or filled up where it was left.
        top_k (`int`, *optional*, defaults to 64): Tokens a position that the cache keeps.

    Raises:
        ValueError: if `top_k` is below 1, or the model is more than a backbone and an output layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        cache_dir: str | os.PathLike | None = None,
        top_k: int = 64,
    ):
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be 1 or more: the teacher's most likely tokens of a position.")
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(model, DHRDForDualHeadClassification):
            # Its head of classes is never used; it knows how to make a family's logits at chosen positions.
            model = DHRDForDualHeadClassification(
                DHRDConfig(backbone_config=model.config, num_labels=2), causal_lm=model
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.top_k = top_k
        self.vocab_size = model.config.vocab_size

    def check(
        self, student: nn.Module, tokenizer: PreTrainedTokenizerBase | None, autocast: AbstractContextManager | None = None,
        padding_free: bool = False,
    ) -> None:  # fmt: skip
        """Raise unless the teacher's distributions are over the student's tokens.

        Where one model has a larger head than the other, padded beyond the tokenizer, both are cut to the tokenizer's
        tokens, and a warning says so.

        Args:
            student ([`DHRDForDualHeadClassification`]): The student.
            tokenizer (`PreTrainedTokenizerBase`, *optional*): Its tokenizer.
            autocast (`AbstractContextManager`, *optional*): The mixed precision that the teacher will run in.
            padding_free (`bool`, *optional*, defaults to `False`): Whether batches are padding-free.

        Raises:
            ValueError: if the tokenizers differ, a head lacks tokens, or the teacher mixes the rows of a
                padding-free batch.
        """
        theirs = self.tokenizer or _saved_tokenizer(self.model)
        if tokenizer is None or theirs is None:
            logger.warning(
                "There is no tokenizer of the teacher or of the student: that they are the same is not checked."
            )
        else:
            _check_same_vocabulary(theirs.get_vocab(), tokenizer.get_vocab())
        mine, own = self.model.config.vocab_size, student.config.vocab_size
        self.vocab_size = own
        if mine != own:
            known = min(mine, own) if tokenizer is None else max(tokenizer.get_vocab().values()) + 1
            if min(mine, own) < known:
                raise ValueError(
                    f"The tokenizer has {known} tokens, the teacher's head {mine} and the student's {own}: "
                    "soft targets need a teacher and a student that know all of them."
                )
            logger.warning(
                f"Soft targets are over the tokenizer's {known} tokens: the teacher's head has {mine}, the student's {own}."
            )
            self.vocab_size = known
        if padding_free and self.cache_dir is None:
            try:
                check_padding_free(self.model, autocast)
            except ValueError as error:
                raise ValueError(f"The teacher: {error} Or cache what it says: cache_dir.") from None

    @torch.no_grad()
    def soft_targets(self, inputs: Mapping[str, Any], weight: float = 1.0, temperature: float = 1.0) -> SoftTargets:
        """The teacher's distributions for a batch, as [`DHRDForDualHeadClassification`] takes them.

        Args:
            inputs (`Mapping[str, Any]`): A batch of [`DualHeadCollator`], on the teacher's device.
            weight (`float`, *optional*, defaults to 1.0): Weight of the term in the total loss.
            temperature (`float`, *optional*, defaults to 1.0): Of both distributions.

        Returns:
            [`SoftTargets`]: the distributions at the positions that have a target.
        """
        student_only = ("labels", "input_length", "reasoning_targets", "num_items_in_batch", "alpha")
        seen = {name: value for name, value in inputs.items() if name not in student_only}
        outputs = self.model.model(**seen, use_cache=False)
        hidden = outputs.last_hidden_state[shift_targets(inputs["reasoning_targets"]) != IGNORE_INDEX]  # [N, H]

        def at(rows: slice) -> tuple[Tensor, None]:
            return self.model.reasoning_logits(hidden[rows], outputs)[..., : self.vocab_size], None

        return SoftTargets(at, self.vocab_size, weight, temperature)

    # On disk

    def cached(self, dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase | None = None) -> datasets.Dataset:
        """Encoded rows with the teacher's top k beside them, from `cache_dir`; what is missing there is computed.

        The cache is written in shards, each whole or not at all, so a run that was stopped goes on after the last one.
        It stays on disk and is mapped into memory. It is bound to the encoded rows in their order, to the teacher's
        weights, the tokenizer, the vocabulary and `top_k`.

        Example:

        ```python
        >>> train = Teacher(lm, cache_dir="soft-targets").cached(train, tokenizer)  # doctest: +SKIP
        >>> train.column_names[-2:]  # doctest: +SKIP
        ['teacher_log_probs', 'teacher_ids']

        ```

        Args:
            dataset (`datasets.Dataset`): Rows of [`DualHeadEncoder`].
            tokenizer (`PreTrainedTokenizerBase`, *optional*): The student's.

        Returns:
            `datasets.Dataset`: the rows with `teacher_ids`, `n * k` token ids of a row with n targets, and
            `teacher_log_probs`, for each target those of its k tokens and of all others together.

        Raises:
            ValueError: if the folder holds something else, or the rows are not an encoded `datasets.Dataset`.
        """
        from datasets import Dataset, concatenate_datasets, load_from_disk

        if not isinstance(dataset, Dataset) or "reasoning_targets" not in dataset.column_names:
            raise ValueError(
                "A teacher's cache is of rows of DualHeadEncoder in a datasets.Dataset, "
                f"found {type(dataset).__name__}. Leave cache_dir out, or encode the rows first."
            )
        self._bind(dataset, tokenizer)
        shards = []
        starts = range(0, len(dataset), _SHARD_ROWS)
        folders = [self.cache_dir / f"shard-{number:05d}" for number in range(len(starts))]
        there = min(len(dataset), _SHARD_ROWS * sum(folder.exists() for folder in folders))
        whole = there == len(dataset)
        progress = tqdm(total=len(dataset), initial=there, desc="Soft targets", unit="rows", disable=whole)
        for start, folder in zip(starts, folders, strict=True):
            if not folder.exists():
                rows = dataset.select(range(start, min(start + _SHARD_ROWS, len(dataset))))
                _write_shard(folder, self._top_k_of(rows, progress))
            shards.append(load_from_disk(str(folder)))
        progress.close()
        both = concatenate_datasets([dataset, concatenate_datasets(shards)], axis=1)
        return both.with_format("numpy", columns=list(SOFT_TARGETS), output_all_columns=True)

    def _bind(self, dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Make the folder this cache's own, or raise where it is another's."""
        vocabulary = {} if tokenizer is None else tokenizer.get_vocab()
        bound = {
            "rows": _hash(_row_bytes(dataset)),
            "teacher": _hash(_weight_bytes(self.model)),
            "tokenizer": _hash(f"{token}\t{index}".encode() for token, index in sorted(vocabulary.items())),
            "vocab_size": self.vocab_size,
            "top_k": self.top_k,
            "format": 1,
        }
        manifest = self.cache_dir / _MANIFEST
        if not manifest.exists():
            if self.cache_dir.exists() and any(self.cache_dir.iterdir()):
                raise ValueError(f"{self.cache_dir} holds something, but no soft targets: name another folder.")
            write_whole(manifest, json.dumps(bound, indent=2) + "\n")
            return
        found = json.loads(manifest.read_text(encoding="utf-8"))
        for name, meaning in _BOUND_TO.items():
            if found.get(name) != bound[name]:
                values = "" if isinstance(bound[name], str) else f" ({found.get(name)}, now {bound[name]})"
                raise ValueError(
                    f"{self.cache_dir} holds the soft targets of another {meaning}{values}: name another folder, "
                    "or remove this one."
                )

    @torch.no_grad()
    def _top_k_of(self, rows: datasets.Dataset, progress: tqdm) -> datasets.Dataset:
        from datasets import Dataset, Features, List, Value

        device = self.model.get_input_embeddings().weight.device
        ids, targets = ([torch.tensor(row) for row in rows[name]] for name in ("input_ids", "reasoning_targets"))
        found: list[dict[str, Any]] = [{} for _ in ids]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for batch in (order[start : start + _BATCH_ROWS] for start in range(0, len(order), _BATCH_ROWS)):
            # On the right, where no token of a causal model sees it.
            padded = pad_sequence([ids[row] for row in batch], batch_first=True).to(device)
            mask = pad_sequence([torch.ones_like(ids[row]) for row in batch], batch_first=True).to(device)
            wanted = pad_sequence([targets[row] for row in batch], batch_first=True, padding_value=IGNORE_INDEX)
            inputs = {"input_ids": padded, "attention_mask": mask, "reasoning_targets": wanted.to(device)}
            soft = self.soft_targets(inputs)
            number_of = (shift_targets(wanted) != IGNORE_INDEX).sum(-1).tolist()
            start = 0
            for row, number in zip(batch, number_of, strict=True):
                log_probs, top = top_k_with_rest(soft.at(slice(start, start + number))[0], self.top_k)
                found[row] = {
                    "teacher_log_probs": log_probs.flatten().cpu().numpy(),
                    "teacher_ids": top.flatten().int().cpu().numpy(),
                }
                start += number
            progress.update(len(batch))
        columns = {name: [row[name] for row in found] for name in SOFT_TARGETS}
        features = Features({"teacher_log_probs": List(Value("float32")), "teacher_ids": List(Value("int32"))})
        return Dataset.from_dict(columns, features=features)


def cached_soft_targets(
    inputs: dict[str, Any], vocab_size: int, weight: float = 1.0, temperature: float = 1.0
) -> SoftTargets:
    """Take a batch's cached distributions out of it, as the model takes them.

    Args:
        inputs (`dict[str, Any]`): A batch of [`DualHeadCollator`]; its soft targets are removed.
        vocab_size (`int`): As for [`SoftTargets`].
        weight (`float`, *optional*, defaults to 1.0), temperature (`float`, *optional*, defaults to 1.0): As there.

    Returns:
        [`SoftTargets`]: the distributions.
    """
    log_probs, ids = (inputs.pop(name) for name in SOFT_TARGETS)
    return SoftTargets(lambda rows: (log_probs[rows], ids[rows]), vocab_size, weight, temperature)


def top_k_with_rest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A distribution as its k most likely tokens and the mass of all others.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.training.soft_targets import top_k_with_rest
    >>> log_probs, ids = top_k_with_rest(torch.tensor([[0.2, 0.5, 0.3]]).log(), k=1)
    >>> ids.tolist(), [round(p, 2) for p in log_probs.exp()[0].tolist()]
    ([[1]], [0.5, 0.5])

    ```

    Args:
        logits (`Tensor` of shape `[N, V]`): The distribution.
        k (`int`): How many; all of them where V is less.

    Returns:
        `tuple[Tensor, Tensor]`: float32 log-probabilities `[N, k + 1]` (`[N, V]` where k >= V) and the ids `[N, k]`.
    """
    log_probs = torch.log_softmax(logits.float(), -1)
    top, ids = log_probs.topk(min(k, logits.shape[-1]), -1)
    if ids.shape[-1] < logits.shape[-1]:
        rest = log_probs.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        top = torch.cat([top, rest], -1)
    return top, ids


def _write_shard(folder: Path, rows: datasets.Dataset) -> None:
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
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


def _check_same_vocabulary(theirs: Mapping[str, int], ours: Mapping[str, int]) -> None:
    different = [token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token)]
    if different:
        token = min(different)
        raise ValueError(
            f"The teacher's tokenizer is not the student's: {len(different)} tokens differ, such as {token!r} "
            f"(id {theirs.get(token)} there, {ours.get(token)} here). Choose a teacher of the same family."
        )


def _saved_tokenizer(model: DHRDForDualHeadClassification) -> PreTrainedTokenizerBase | None:
    name = model.name_or_path or model.config.backbone_config.name_or_path
    if not name:
        return None
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError):
        return None


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
