"""x: the one way in which a text becomes the ids that are pooled, in training, prediction, exports and checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# A tokenizer that knows no limit says 1e30.
_NO_LIMIT = 10**9


class TokenizedInputs(NamedTuple):
    """Token ids of each text, and by the index of those that were cut how many tokens they have whole."""

    ids: list[list[int]]
    cut: dict[int, int]


def tokenize_inputs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> TokenizedInputs:
    """Texts as x: with the tokenizer's special tokens, cut on its truncation side as `truncation=True` cuts.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        texts (`Sequence[str]`): The texts, with the prompt around them.
        max_length (`int`, *optional*): Most tokens of a text, such as [`input_limit`]; by default none is cut.

    Returns:
        [`TokenizedInputs`]: `ids` by text, and which were `cut`.
    """
    ids = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
    cut = {} if max_length is None else {place: len(it) for place, it in enumerate(ids) if len(it) > max_length}
    if cut:
        options = {"truncation": True, "max_length": max_length}
        shorter = tokenizer([texts[place] for place in cut], **options)["input_ids"]
        for place, kept in zip(cut, shorter, strict=True):
            ids[place] = kept
    return TokenizedInputs(ids, cut)


def input_limit(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> int | None:
    """The number of tokens to which x is cut: the least of training's, the tokenizer's and the model's positions.

    Args:
        config (`PreTrainedConfig`): The model's.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        max_length (`int`, *optional*): Instead of training's and the tokenizer's.

    Returns:
        `int`, *optional*: the limit; None where there is none.
    """
    given = (
        (getattr(config, "max_input_length", None), known_limit(tokenizer)) if max_length is None else (max_length,)
    )
    return min((limit for limit in (*given, positions_of(config)) if limit is not None), default=None)


def known_limit(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The tokenizer's `model_max_length`, where it has one."""
    limit = tokenizer.model_max_length
    return int(limit) if limit is not None and limit < _NO_LIMIT else None


def positions_of(config: PreTrainedConfig) -> int | None:
    """The number of positions that the model has, where its config says so."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
