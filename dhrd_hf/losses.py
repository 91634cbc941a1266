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
    """Denominator of the classification loss: what torch's `reduction="mean"` divides by.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import classification_count
    >>> classification_count(torch.tensor([0, 2, 2]))
    tensor(3.)

    ```

    Args:
        labels (`Tensor` of shape `[B]` or `[B, K]`): As for [`classification_loss`].
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): As for [`classification_loss`].
        class_weights (`Tensor` of shape `[K]`, *optional*): As for [`classification_loss`].

    Returns:
        `Tensor`: a float scalar: the number of rows, or the sum of their class weights; of label entries for
        multi-label and regression.

    Raises:
        ValueError: if there are class weights and a label is not in `[0, K)` (checked where the labels are on the CPU).
    """
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
    """Classification loss of the pooled head (eq. 2), as transformers' sequence classifiers compute it.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import classification_loss
    >>> round(classification_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])).item(), 4)
    0.41

    ```

    Args:
        logits (`Tensor` of shape `[B, K]`): Class logits.
        labels (`Tensor`): Class ids `[B]`; 0/1 floats `[B, K]` (multi label); floats `[B]` or `[B, K]` (regression).
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`):
            Or `"multi_label_classification"`, `"regression"`, with transformers' meaning.
        class_weights (`Tensor` of shape `[K]`, *optional*): Weight of each class (`pos_weight` for multi label).
        label_smoothing (`float`, *optional*, defaults to 0.0): Of the single-label cross-entropy.
        count (`Tensor`, *optional*): Scalar to divide by; the batch's own [`classification_count`] by default.

    Returns:
        `Tensor`: the loss, a float32 scalar; 0 for a batch in which no row counts.

    Raises:
        ValueError: if a label is not in `[0, K)`, or of multi label not in `[0, 1]` (checked where the labels are on the
            CPU), or the shapes differ.
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
            logits,
            labels,
            weight=weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
    if count is None:
        count = classification_count(labels, problem_type, weights)
    count = count.to(total.device)
    # Not clamped: the weights of a whole batch may add up to less than 1.
    return total / torch.where(count > 0, count, torch.ones_like(count))


def shift_targets(reasoning_targets: Tensor) -> Tensor:
    """Targets as each position predicts them: the next one, and none at the end of the row.

    Args:
        reasoning_targets (`Tensor` of shape `[B, L]`): Token ids aligned with `input_ids`; -100 = no target.

    Returns:
        `Tensor` of shape `[B, L]`: `out[:, i] = reasoning_targets[:, i + 1]`, with -100 in the last column.
    """
    return F.pad(reasoning_targets[:, 1:], (0, 1), value=IGNORE_INDEX)


def reasoning_count(reasoning_targets: Tensor) -> Tensor:
    """Denominator of the reasoning loss: the number N of next-token targets of a batch (eq. 3).

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import reasoning_count
    >>> reasoning_count(torch.tensor([[5, 6, 7], [-100, 8, -100]]))  # nothing predicts a row's first token
    tensor(3.)

    ```

    Args:
        reasoning_targets (`Tensor` of shape `[B, L]`): Token ids aligned with `input_ids`; -100 = no target.

    Returns:
        `Tensor`: a float scalar.
    """
    return (reasoning_targets[:, 1:] != IGNORE_INDEX).sum().float()


def naive_reasoning_loss(hidden: Tensor, targets: Tensor, lm_head: Callable[[Tensor], Tensor]) -> Tensor:
    """Summed next-token cross-entropy with all logits in memory: the reference.

    Args:
        hidden (`Tensor` of shape `[N, H]`): Hidden states of the positions that have a target.
        targets (`Tensor` of shape `[N]`): The token each of them predicts.
        lm_head (`Callable`): Maps `[N, H]` to logits `[N, V]`.

    Returns:
        `Tensor`: the sum over the N targets, a float32 scalar; 0 (with a graph) where there are none.
    """
    return F.cross_entropy(lm_head(hidden).float(), targets, reduction="sum")


def chunked_reasoning_loss(
    hidden: Tensor,
    targets: Tensor,
    lm_head: Callable[[Tensor], Tensor],
    linear: torch.nn.Linear | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """The same sum without ever holding all logits: value and gradients equal [`naive_reasoning_loss`]'s.

    A plain linear head goes through `torch.nn.functional.linear_cross_entropy` (torch 2.13), which computes its
    gradients chunk by chunk, in float32 in the forward pass. Any other head (scaled, capped, wrapped by an adapter) runs in
    checkpointed chunks: each chunk's logits are made, used, freed, and made again for the backward pass.

    Args:
        hidden (`Tensor` of shape `[N, H]`): As for [`naive_reasoning_loss`].
        targets (`Tensor` of shape `[N]`): As for [`naive_reasoning_loss`].
        lm_head (`Callable`): As for [`naive_reasoning_loss`].
        linear (`torch.nn.Linear`, *optional*): The layer, where `lm_head` is nothing but it.
        vocab_size (`int`, *optional*): Sizes the chunks of a head that is not a plain layer.

    Returns:
        `Tensor`: the sum over the N targets, a float32 scalar.
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

    Positions without a target are dropped before the vocabulary product; the path is chosen by its size.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import reasoning_loss
    >>> head = torch.nn.Linear(4, 10, bias=False).requires_grad_(False)
    >>> _ = head.weight.zero_()  # every token equally likely: log(10)
    >>> round(reasoning_loss(torch.ones(1, 3, 4), torch.tensor([[1, 2, -100]]), head).item(), 4)
    2.3026

    ```

    Args:
        hidden (`Tensor` of shape `[B, L, H]`): Last hidden states.
        reasoning_targets (`Tensor` of shape `[B, L]`): Token ids aligned with `input_ids`, shifted here; -100 = none.
        lm_head (`Callable`): Maps `[N, H]` to logits `[N, V]`.
        linear (`torch.nn.Linear`, *optional*): The layer, where `lm_head` is nothing but it.
        vocab_size (`int`, *optional*): Number V of logits of a position; below [`CHUNKED_FROM`] / V targets the plain
            path runs, and always where V is not given.
        count (`Tensor`, *optional*): Scalar to divide by; the batch's own [`reasoning_count`] by default.

    Returns:
        `Tensor`: the loss, a float32 scalar; 0 for a batch without any target.
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
    """Soft targets, summed: `T^2 * KL(teacher_T || student_T)` of each position, with all logits in memory.

    Of a whole distribution, `p_T = softmax(log p / T)` is the usual tempering. Where the teacher is known by its k most
    likely tokens and the mass of all others, both distributions are first added up to those k + 1 events, and these are
    tempered: a divergence (never negative, 0 where the two agree on every event), which at k = V is the whole one, and
    at T = 1 never more than it. What is stored of a teacher does not depend on T.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import naive_distillation_loss
    >>> teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> round(naive_distillation_loss(torch.zeros(1, 3), teacher).item(), 4)  # log 3 - 1.5 log 2
    0.0589
    >>> top = torch.tensor([[0.5, 0.5]]).log()  # of token 0, and of all others
    >>> round(naive_distillation_loss(torch.zeros(1, 3), top, torch.tensor([[0]])).item(), 4)
    0.0589

    ```

    Args:
        logits (`Tensor` of shape `[N, V]`): The student's.
        teacher (`Tensor`): The teacher's logits or log-probabilities `[N, V]`; or with `teacher_ids` log-probabilities
            `[N, k + 1]` of those tokens and of all others together (`[N, k]` where k = V, and there are none).
        teacher_ids (`Tensor` of shape `[N, k]`, *optional*): The teacher's most likely tokens.
        temperature (`float`, *optional*, defaults to 1.0): T, above 0.

    Returns:
        `Tensor`: the sum over the N positions, a scalar in float32 (float64 where the logits are).

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2, for T^2; soft targets are future work of arXiv 2509.21487.
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

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import SoftTargets
    >>> logits = torch.zeros(5, 7)
    >>> soft = SoftTargets(lambda rows: (logits[rows], None), vocab_size=7, weight=0.5, temperature=2.0)
    >>> soft.at(slice(0, 2))[0].shape
    torch.Size([2, 7])

    ```

    Args:
        at (`Callable`): Maps a slice of the positions, counted row by row, to `teacher` and `teacher_ids` of
            [`naive_distillation_loss`]. In the chunked path it is called again in the backward pass.
        vocab_size (`int`): Number V of tokens that both models know; the student's logits are cut to it.
        weight (`float`, *optional*, defaults to 1.0): Weight of the term in the total loss.
        temperature (`float`, *optional*, defaults to 1.0): T, above 0.
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
        """The summed loss of some of the positions.

        Args:
            hidden (`Tensor` of shape `[n, H]`): The student's hidden states at these positions.
            rows (`slice`): Which of the N they are.
            lm_head (`Callable`): Maps `[n, H]` to the student's logits.

        Returns:
            `Tensor`: a scalar.
        """
        with torch.no_grad():
            teacher, teacher_ids = self.at(rows)
        return naive_distillation_loss(lm_head(hidden)[..., : self.vocab_size], teacher, teacher_ids, self.temperature)


def chunked_distillation_loss(
    hidden: Tensor, soft_targets: SoftTargets, lm_head: Callable[[Tensor], Tensor], vocab_size: int
) -> Tensor:
    """The same sum without ever holding all logits of either model: value and gradients equal the naive one's.

    Each checkpointed chunk's logits, the student's and the teacher's, are made, used, freed, and made again for the
    backward pass.

    Args:
        hidden (`Tensor` of shape `[N, H]`): The student's hidden states of the positions that have a target.
        soft_targets ([`SoftTargets`]): The teacher's distributions at them.
        lm_head (`Callable`): Maps `[n, H]` to the student's logits.
        vocab_size (`int`): Sizes the chunks.

    Returns:
        `Tensor`: the sum over the N positions, a scalar.
    """
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
    """Soft-target loss: [`naive_distillation_loss`] at the reasoning loss's positions, over their number.

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf.losses import SoftTargets, distillation_loss
    >>> head = torch.nn.Linear(4, 3, bias=False).requires_grad_(False)
    >>> _ = head.weight.zero_()
    >>> teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()  # one position predicts a target
    >>> soft = SoftTargets(lambda rows: (teacher[rows], None), vocab_size=3)
    >>> round(distillation_loss(torch.ones(1, 3, 4), torch.tensor([[1, 2, -100]]), head, soft).item(), 4)
    0.0589

    ```

    Args:
        hidden (`Tensor` of shape `[B, L, H]`): The student's last hidden states.
        reasoning_targets (`Tensor` of shape `[B, L]`): As for [`reasoning_loss`]: where there is one, the position
            before it is compared.
        lm_head (`Callable`): Maps `[N, H]` to logits `[N, V]`.
        soft_targets ([`SoftTargets`]): The teacher's distributions at these positions.
        vocab_size (`int`, *optional*): Number V of logits of a position; below [`CHUNKED_FROM`] / V positions the plain
            path runs, and always where V is not given.
        count (`Tensor`, *optional*): Scalar to divide by; the batch's own [`reasoning_count`] by default.

    Returns:
        `Tensor`: the loss, a float32 scalar; 0 for a batch without any target.
    """
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
