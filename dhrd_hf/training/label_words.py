"""A classification head that starts as the language model's own answer: the logits of its words for the labels."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.inputs import continued_ids
from ..modeling_dhrd import find_dual_head
from ..opening import evaluating

ANSWER_CUE = "\nAnswer:"

_TINY = 1e-6  # a soft cap is the identity on logits so small


@torch.no_grad()
def init_classifier_from_label_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, label_words: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    r"""Set row k of the classification head so that the untrained classifier answers as the language model would.

    The class logits become the model's own logits of the words of the labels (the mean over the tokens of a word, before a
    soft cap, without a bias), less their mean over the labels. Nothing is drawn at random, and the head stays the bias-free
    layer of the stock classifiers. The words are what a model would say next where x ends in a cue, such as
    `"{text}\nAnswer:"`. Call it before adapters are added.

    Example:

    ```python
    >>> from dhrd_hf import init_classifier_from_label_words
    >>> init_classifier_from_label_words(model, tokenizer, {"entailment": "True", "contradiction": "False"})
    {'entailment': ['ĠTrue'], 'contradiction': ['ĠFalse']}

    ```

    Args:
        model ([`DHRDForDualHeadClassification`]): The model, with a `"linear"` head. Its `score` is changed.
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        label_words (`dict[str, str]`, *optional*): The word of each label by its name in `config.id2label`; where a label is
            not in it, its name. A space is put before each.

    Returns:
        `dict[str, list[str]]`: the tokens of each label's word, in the order of the labels.

    Raises:
        ValueError: for a regression, the two-layer head, a model without its LM head, weights that are not here (offloaded,
            or sharded by ZeRO-3), names that are no labels, and words that no token or the same tokens stand for.

    Source: logits as the family's causal LM in transformers makes them; METHOD section 3 (the head).
    """
    dual_head = find_dual_head(model)
    config = dual_head.config
    if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
        raise ValueError("A regression has no label words: leave them out.")
    if config.classifier_head != "linear" or dual_head.lm_head is None:
        raise ValueError(
            f"Label words start a linear head over the model's own LM head, and this model has {config.classifier_head!r}"
            f"{'' if dual_head.lm_head is not None else ' without an LM head'}: leave them out, or take "
            "classifier_head='linear'."
        )
    names = [config.id2label[index] for index in range(config.num_labels)]
    ids = _ids_of_words(tokenizer, names, label_words or {})
    rows = torch.stack([each.mean(0) for each in _output_rows(dual_head, ids)])
    score = dual_head.score.weight
    score.copy_((rows - rows.mean(0)).to(score))
    return {name: tokenizer.convert_ids_to_tokens(of) for name, of in zip(names, ids, strict=True)}


def names_say_nothing(names: list[str]) -> bool:
    return any(re.fullmatch(r"(?i)(label|class)?[\W\d_]*", name) for name in names)


def with_answer_cue(prompt: str) -> str:
    """A prompt that ends in words of its own, after which the label's word would come next."""
    from ..data.prompts import closing

    return prompt if closing(prompt)[1].strip() else prompt + ANSWER_CUE


def _ids_of_words(
    tokenizer: PreTrainedTokenizerBase, names: list[str], label_words: Mapping[str, str]
) -> list[list[int]]:
    strange = sorted(set(label_words) - set(names))
    if strange:
        raise ValueError(f"label_words has a word for {strange[0]!r}; the labels are {', '.join(names)}.")
    words = [label_words.get(name, name) for name in names]
    if not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"label_words must give each label a word, and has {dict(label_words)}.")
    ids = continued_ids(tokenizer, [f" {word.strip()}" for word in words], ANSWER_CUE)
    seen: dict[tuple[int, ...], str] = {}
    for word, of in zip(words, ids, strict=True):
        if not of or tokenizer.unk_token_id in of:
            raise ValueError(f"The tokenizer has no token for the label word {word!r}: give another in label_words.")
        if tuple(of) in seen:
            raise ValueError(f"The label words {seen[tuple(of)]!r} and {word!r} are the same tokens: give another.")
        seen[tuple(of)] = word
    return ids


def _output_rows(dual_head: Any, ids: list[list[int]]) -> list[Tensor]:
    """For each word `[tokens, H]`: how a logit depends on the pooled state, in float64, as the family's causal LM makes it."""
    flat, lengths = [token for of in ids for token in of], [len(of) for of in ids]
    weight = _rows_of(dual_head.lm_head, flat)
    width = weight.shape[1]
    head = nn.Linear(width, len(flat), bias=False, device="cpu", dtype=torch.float64)
    head.weight.copy_(weight)
    view = copy.copy(dual_head)
    view._modules = {**dual_head._modules, "lm_head": head}
    device = dual_head.get_input_embeddings().weight.device
    with evaluating(dual_head):
        ids = torch.zeros(1, 2, dtype=torch.long, device=device)
        outputs = dual_head.model(input_ids=ids, use_cache=False, return_dict=True)
    # Scaled, but linear near 0: each unit vector gives what one number of the state does to the logits.
    units = torch.eye(width, dtype=torch.float64) * _TINY
    slopes = view.reasoning_logits(units, outputs).double() / _TINY  # [H, tokens]
    return list(slopes.T.split(lengths))


def _rows_of(lm_head: nn.Module, ids: list[int]) -> Tensor:
    """Rows of an output layer's weight `[tokens, H]`, also of a sharded or a quantised one."""
    weight = lm_head.weight
    if weight.device.type == "meta" or not weight.numel():
        raise ValueError(
            "The LM head's weights are not here (offloaded, or sharded by ZeRO-3): set the classification head on one "
            "process first, save the model, and train from that folder."
        )
    weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    if weight.is_floating_point() and weight.dim() == 2 and weight.dtype.itemsize > 1:
        return weight[ids].detach().cpu().double()
    units = torch.eye(lm_head.in_features, device=weight.device, dtype=torch.get_default_dtype())
    zero = lm_head(torch.zeros_like(units[:1]))[:, ids]
    return torch.cat([(lm_head(part)[:, ids] - zero).cpu().double() for part in units.split(256)]).T
