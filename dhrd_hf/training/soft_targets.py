"""Soft targets: a teacher LM's token distributions, made as they are needed or kept on disk by their top k."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import logging

from ..configuration_dhrd import DHRDConfig
from ..losses import IGNORE_INDEX, SoftTargets, shift_targets
from ..modeling_dhrd import DHRDForDualHeadClassification
from ..opening import load_tokenizer
from .rows import check_padding_free
from .soft_target_cache import cached_soft_targets, with_soft_targets

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)


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
    >>> lm = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-1.7B-Instruct")
    >>> args = DualHeadTrainingArguments(output_dir="out", distillation_weight=0.5, temperature=2.0)
    >>> trainer = DualHeadTrainer(
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

    def check(self, student: nn.Module, tokenizer: PreTrainedTokenizerBase | None, padding_free: bool = False) -> None:
        """Raise unless the teacher's distributions are over the student's tokens.

        Where one model has a larger head than the other, padded beyond the tokenizer, both are cut to the tokenizer's
        tokens, and a warning says so.
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
                check_padding_free(self.model)
            except ValueError as error:
                raise ValueError(f"The teacher: {error} Or cache what it says: cache_dir.") from None

    @torch.no_grad()
    def soft_targets(self, inputs: Mapping[str, Any], weight: float = 1.0, temperature: float = 1.0) -> SoftTargets:
        """The teacher's distributions for a batch, as [`DHRDForDualHeadClassification`] takes them."""
        student_only = ("labels", "input_length", "reasoning_targets", "num_items_in_batch", "alpha")
        seen = {name: value for name, value in inputs.items() if name not in student_only}
        mask = seen.get("attention_mask")
        counts_places = "position_ids" in inspect.signature(self.model.model.forward).parameters
        if counts_places and "position_ids" not in seen and mask is not None and (mask[:, 0] == 0).any():
            # Left padding: without these a teacher with absolute positions would see the text begin elsewhere.
            seen["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        outputs = self.model.model(**seen, use_cache=False)
        hidden = outputs.last_hidden_state[shift_targets(inputs["reasoning_targets"]) != IGNORE_INDEX]  # [N, H]

        def at(rows: slice) -> tuple[Tensor, None]:
            return self.model.reasoning_logits(hidden[rows], outputs)[..., : self.vocab_size], None

        return SoftTargets(at, self.vocab_size, weight, temperature)

    def taught(self, inputs: dict[str, Any], weight: float = 1.0, temperature: float = 1.0) -> dict[str, Any]:
        """A batch with the teacher's distributions in it as the student takes them, whether cached or made here."""
        inputs = dict(inputs)
        if self.cache_dir is not None:
            soft = cached_soft_targets(inputs, self.vocab_size, weight, temperature)
        else:
            soft = self.soft_targets(inputs, weight, temperature)
        return {**inputs, "soft_targets": soft}

    def without_model(self) -> Teacher:
        """The teacher as its cache alone; the model, which others may hold, leaves the accelerator."""
        if _movable(self.model):
            self.model.to("cpu")
        other = copy.copy(self)
        other.model = None
        return other

    def cached(self, dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase | None = None) -> datasets.Dataset:
        """Encoded rows with the teacher's top k beside them, from `cache_dir`; what is missing there is computed.

        The cache is written in shards, each whole or not at all, so a run that was stopped goes on after the last one.
        It stays on disk and is mapped into memory. It is bound to the encoded rows in their order, to the teacher's
        weights, the tokenizer, the vocabulary and `top_k`.
        """
        return with_soft_targets(dataset, self, tokenizer)


def checked_teacher(
    teacher: Teacher | PreTrainedModel | None,
    args: TrainingArguments,
    student: DHRDForDualHeadClassification,
    tokenizer: PreTrainedTokenizerBase | None,
    padding_free: bool = False,
) -> Teacher | None:
    """A Trainer's teacher, checked and on its device, if it is to be learned from."""
    weight = getattr(args, "distillation_weight", 0.0)
    if teacher is None or weight == 0:
        if weight > 0:
            raise ValueError(f"distillation_weight={weight} needs a teacher: DualHeadTrainer(..., teacher=causal_lm).")
        if teacher is not None:
            logger.warning("distillation_weight is 0: the teacher is not used.")
        return None
    if args.n_gpu > 1:
        raise ValueError(
            "DataParallel can't share a teacher out. Start one process a GPU: "
            f"torchrun --nproc-per-node {args.n_gpu} ..."
        )
    teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
    if teacher.model is student or teacher.model.model is student.model:
        raise ValueError("The teacher is the student itself, from which there is nothing to learn: load it once more.")
    if _movable(teacher.model):
        teacher.model.to(args.device)
    teacher.check(student, tokenizer, padding_free)
    return teacher


def _movable(model: PreTrainedModel) -> bool:
    return getattr(model, "hf_device_map", None) is None and not getattr(model, "is_quantized", False)


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
        return load_tokenizer(name)
    except (OSError, ValueError):
        return None
