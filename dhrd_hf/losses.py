"""The objective of Dual-Head Reasoning Distillation, and nothing else: torch in, scalars out.

    L = beta * L_cls + alpha * L_reason                                    (arXiv 2509.21487, eqs. 2-4)
        [+ distillation_weight * L_soft, where a teacher's token distributions are learned from]

All terms are sums divided by a count. The count is either the batch's own or one given by the caller, who has counted
over a whole accumulated batch and over all ranks; so the sum over micro-batches of what these functions return *is* the
loss of the whole batch, however it was split.

This file can be shipped with a checkpoint as its remote code, so it imports torch alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100

# Above so many logits (targets x vocabulary; 2**26 float32 are 256 MB) they are never materialised at once. The chunked
# path saves memory and costs time on a CPU (1.4 to 2.3 x), so small batches take the plain one.
CHUNKED_FROM = 2**26

# Number of logits of one chunk where the head is not a plain linear layer.
CHUNK = 2**24


def classification_count(
    labels: Tensor, problem_type: str | None = "single_label_classification", class_weights: Tensor | None = None
) -> Tensor:
    """Denominator of the classification loss of labels `[B]` or `[B, K]`: what torch's `reduction="mean"` divides by."""
    if problem_type in ("multi_label_classification", "regression"):
        return torch.tensor(float(labels.numel()), device=labels.device)
    kept = labels[labels != IGNORE_INDEX]
    if class_weights is None:
        return torch.tensor(float(kept.numel()), device=labels.device)
    if kept.device.type == "cpu":
        _check_class_ids(kept, len(class_weights))
    return class_weights.to(labels.device)[kept].sum()


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    problem_type: str | None = "single_label_classification",
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    count: Tensor | None = None,
) -> Tensor:
    """Classification loss of the pooled head (eq. 2), as transformers' sequence classifiers compute it, in float32.

    Logits are `[B, K]`; labels are ids `[B]`, 0/1 floats `[B, K]` (multi label) or floats (regression). It is divided by
    `count`, by default the batch's own [`classification_count`]; a batch in which no row counts has 0.
    """
    logits = logits.float()
    labels = labels.to(logits.device)
    weights = None if class_weights is None else class_weights.to(logits.device)
    if problem_type == "regression":
        if labels.numel() != logits.numel():
            raise ValueError(f"regression wants one target a logit: labels {_shape(labels)}, logits {_shape(logits)}.")
        total = F.mse_loss(logits.reshape(-1), labels.reshape(-1).float(), reduction="sum")
    elif problem_type == "multi_label_classification":
        if labels.shape != logits.shape:
            raise ValueError(f"multi-label wants 0/1 labels [B, K]: labels {_shape(labels)}, logits {_shape(logits)}.")
        if labels.device.type == "cpu" and ((labels < 0) | (labels > 1)).any():
            odd = labels[(labels < 0) | (labels > 1)][0].item()
            raise ValueError(
                f"multi-label labels must be 0 to 1, and there is {odd:g}: leave rows without labels out."
            )
        total = F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights, reduction="sum")
    else:
        labels = labels.reshape(-1)
        if labels.device.type == "cpu":
            _check_class_ids(labels, logits.shape[-1])
        total = F.cross_entropy(
            logits, labels, weight=weights, ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing, reduction="sum"
        )
    if count is None:
        count = classification_count(labels, problem_type, weights)
    count = count.to(total.device)
    # Not clamped: the weights of a whole batch may add up to less than 1.
    return total / torch.where(count > 0, count, torch.ones_like(count))


def shift_targets(reasoning_targets: Tensor) -> Tensor:
    """Targets `[B, L]` as each position predicts them: the next one, and none (-100) at the end of the row."""
    return F.pad(reasoning_targets[:, 1:], (0, 1), value=IGNORE_INDEX)


def reasoning_count(reasoning_targets: Tensor) -> Tensor:
    """Denominator of the reasoning loss: the number N of next-token targets of a batch `[B, L]` (eq. 3); nothing predicts a first token."""
    return (reasoning_targets[:, 1:] != IGNORE_INDEX).sum().float()


def naive_reasoning_loss(hidden: Tensor, targets: Tensor, lm_head: Callable[[Tensor], Tensor]) -> Tensor:
    """Summed cross-entropy of hidden states `[N, H]` and their targets `[N]` with all logits `[N, V]` in memory: the reference."""
    return F.cross_entropy(lm_head(hidden).float(), targets, reduction="sum")


def chunked_reasoning_loss(
    hidden: Tensor,
    targets: Tensor,
    lm_head: Callable[[Tensor], Tensor],
    linear: torch.nn.Linear | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """The same sum without ever holding all logits: value and gradients equal [`naive_reasoning_loss`]'s.

    A plain `linear` head goes through `torch.nn.functional.linear_cross_entropy` (torch 2.13), which computes its
    gradients chunk by chunk, in float32 in the forward pass. Any other head (scaled, capped, wrapped by an adapter) runs in
    checkpointed chunks: each chunk's logits are made, used, freed, and made again for the backward pass.
    """
    if linear is not None and hasattr(F, "linear_cross_entropy") and not torch.is_autocast_enabled(hidden.device.type):
        total = F.linear_cross_entropy(
            hidden,
            linear.weight,
            targets,
            linear_bias=linear.bias,
            # Its own sum is in the dtype of the states: in bf16 it stands still, in fp16 it overflows.
            reduction="sum" if hidden.dtype == torch.float32 else "none",
            options=torch.nn.LinearCrossEntropyOptions(),
        )
        return total.float().sum()
    rows = max(1, CHUNK // (vocab_size or CHUNK))
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, part_targets in zip(hidden.split(rows), targets.split(rows), strict=True):
        total = total + checkpoint(naive_reasoning_loss, part, part_targets, lm_head, use_reentrant=False)
    return total


def reasoning_loss(
    hidden: Tensor,
    reasoning_targets: Tensor,
    lm_head: Callable[[Tensor], Tensor],
    linear: torch.nn.Linear | None = None,
    vocab_size: int | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Reasoning loss (eq. 3): next-token cross-entropy summed over all targets of the batch, over their number.

    Hidden states are `[B, L, H]`, targets `[B, L]` ids aligned with `input_ids` and shifted here. Positions without a target
    (-100) are dropped before the vocabulary product; the path is chosen by its size. A batch without any target has 0.
    """
    targets = shift_targets(reasoning_targets).to(hidden.device)  # [B, L]
    keep = targets != IGNORE_INDEX
    hidden, targets = hidden[keep], targets[keep]  # [N, H], [N]
    if vocab_size is not None and targets.numel() * vocab_size > CHUNKED_FROM:
        total = chunked_reasoning_loss(hidden, targets, lm_head, linear, vocab_size)
    else:
        total = naive_reasoning_loss(hidden, targets, lm_head)
    if count is None:
        count = torch.tensor(float(targets.numel()), device=total.device)
    return total / count.to(total.device).clamp(min=1)


def naive_distillation_loss(
    logits: Tensor, teacher: Tensor, teacher_ids: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Soft targets, summed: `T^2 * KL(teacher_T || student_T)` of each position, with all logits `[N, V]` in memory.

    Of a whole distribution, `p_T = softmax(log p / T)` is the usual tempering. Where the teacher is known by its k most
    likely tokens and the mass of all others (`teacher` `[N, k + 1]`, or `[N, k]` where k = V, with `teacher_ids` `[N, k]`),
    both distributions are first added up to those k + 1 events, and these are tempered: a divergence (never negative, 0 where
    the two agree on every event), which at k = V is the whole one, and at T = 1 never more than it. What is stored of a
    teacher does not depend on T. For T^2: Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    student = torch.log_softmax(logits.to(dtype), -1)
    if teacher_ids is not None:
        teacher_ids = teacher_ids.to(student.device).long()
        events = [student.gather(-1, teacher_ids)]
        if teacher.shape[-1] > teacher_ids.shape[-1]:
            events.append(student.scatter(-1, teacher_ids, -torch.inf).logsumexp(-1, keepdim=True))
        student = torch.cat(events, -1)
    student = torch.log_softmax(student / temperature, -1)
    teacher = torch.log_softmax(teacher.to(student.device, dtype) / temperature, -1)
    # An event that the teacher rules out adds nothing: 0 * log 0.
    divergence = (teacher.exp() * (teacher - student)).masked_fill(teacher == -torch.inf, 0)
    return temperature**2 * divergence.sum()


class SoftTargets:
    """What a teacher expects at the N positions of a batch that have a target, and how to learn from it.

    `at` maps a slice of the positions, counted row by row, to `teacher` and `teacher_ids` of [`naive_distillation_loss`]; in
    the chunked path it is called again in the backward pass. The student's logits are cut to the `vocab_size` tokens that
    both models know.
    """

    def __init__(
        self,
        at: Callable[[slice], tuple[Tensor, Tensor | None]],
        vocab_size: int,
        weight: float = 1.0,
        temperature: float = 1.0,
    ):
        self.at = at
        self.vocab_size = vocab_size
        self.weight = weight
        self.temperature = temperature

    def loss(self, hidden: Tensor, rows: slice, lm_head: Callable[[Tensor], Tensor]) -> Tensor:
        """The summed loss of some of the positions, whose hidden states are `[n, H]`."""
        with torch.no_grad():
            teacher, teacher_ids = self.at(rows)
        return naive_distillation_loss(lm_head(hidden)[..., : self.vocab_size], teacher, teacher_ids, self.temperature)


def chunked_distillation_loss(
    hidden: Tensor, soft_targets: SoftTargets, lm_head: Callable[[Tensor], Tensor], vocab_size: int
) -> Tensor:
    """The same sum without ever holding all logits of either model: each chunk's are made again for the backward pass."""
    size = max(1, CHUNK // vocab_size)
    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    for start in range(0, hidden.shape[0], size):
        rows = slice(start, min(start + size, hidden.shape[0]))
        total = total + checkpoint(soft_targets.loss, hidden[rows], rows, lm_head, use_reentrant=False)
    return total


def distillation_loss(
    hidden: Tensor,
    reasoning_targets: Tensor,
    lm_head: Callable[[Tensor], Tensor],
    soft_targets: SoftTargets,
    vocab_size: int | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Soft-target loss: [`naive_distillation_loss`] at the reasoning loss's positions, over their number."""
    hidden = hidden[shift_targets(reasoning_targets).to(hidden.device) != IGNORE_INDEX]  # [N, H]
    number = hidden.shape[0]
    if vocab_size is not None and number * vocab_size > CHUNKED_FROM:
        total = chunked_distillation_loss(hidden, soft_targets, lm_head, vocab_size)
    else:
        total = soft_targets.loss(hidden, slice(0, number), lm_head)
    if count is None:
        count = torch.tensor(float(number), device=total.device)
    return total / count.to(total.device).clamp(min=1)


def _check_class_ids(labels: Tensor, num_labels: int) -> None:
    wrong = labels[(labels != IGNORE_INDEX) & ((labels < 0) | (labels >= num_labels))]
    if wrong.numel():
        raise ValueError(
            f"label id {wrong[0].item()} is out of range: the model has {num_labels} labels, 0 to {num_labels - 1}."
        )


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
