"""x: the one way in which a text becomes the ids that are pooled, in training, prediction, exports and checks.

What an encoder did belongs to the model's config. An encoder that is not given the model is remembered by its tokenizer, by
which the trainer and an export find it.
"""

from __future__ import annotations

import contextlib
import copy
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)

# A tokenizer that knows no limit says 1e30.
_NO_LIMIT = 10**9
# transformers saves of a tokenizer what it was made with; these shape x, and may have been set since.
_SAVED_WITH = ("truncation_side", "padding_side", "split_special_tokens")
# Of a run directory's tokenizer: the limit that it has, training's, and the one that it had before.
_LIMITS = "dual_head_limits"
# An encoder's settings, by their names in the model's config.
INPUT_NAMES = ("prompt_template", "suffix_template", "rationale_after_label", "max_input_length", "tokenizer_settings")
# What the encoders of a tokenizer did, the last one at the end, each with the labels that it was given.
_encoders: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, list[_Encoder]] = weakref.WeakKeyDictionary()


class _Encoder(NamedTuple):
    label2id: Mapping[str, int]
    settings: dict[str, Any]


class TokenizedInputs(NamedTuple):
    """Token ids of each text, and by the index of those that were cut how many tokens they have whole."""

    ids: list[list[int]]
    cut: dict[int, int]


def tokenize_inputs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> TokenizedInputs:
    """Texts, with the prompt around them, as x: cut to `max_length` on the side and with the specials of the tokenizer."""
    ids = tokenizer(list(texts), verbose=False, **_IDS_ALONE)["input_ids"] if texts else []
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
    """Most tokens of x: the least of training's, the tokenizer's and the model's positions; `max_length` for the first two."""
    trained = getattr(config, "max_input_length", None)
    given = (trained, known_limit(tokenizer)) if max_length is None else (max_length,)
    return min((limit for limit in (*given, positions_of(config)) if limit is not None), default=None)


def known_limit(tokenizer: PreTrainedTokenizerBase) -> int | None:
    limit = _own_max_length(tokenizer)
    return int(limit) if limit is not None and limit < _NO_LIMIT else None


def positions_of(config: PreTrainedConfig) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def longest_sequence(tokenizer: PreTrainedTokenizerBase, max_length: int, config: PreTrainedConfig | None) -> int:
    """`max_length`, or what the tokenizer or the model has room for, where that is less."""
    limits = {"the tokenizer's model_max_length": known_limit(tokenizer)}
    if config is not None:
        limits["the model's max_position_embeddings"] = positions_of(config)
    for name, limit in limits.items():
        if limit is not None and limit < max_length:
            logger.warning(f"max_length {max_length} is above {name}: using {limit}.")
            max_length = limit
    return max_length


# The pad token


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad token id; where it has none, its eos token becomes the pad token, and a warning says so.

    Example:

    ```python
    >>> from dhrd_hf.data import ensure_pad_token
    >>> model.config.pad_token_id = ensure_pad_token(tokenizer)

    ```

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer; changed in place where it has no pad token.

    Returns:
        `int`: the pad token's id.

    Raises:
        ValueError: if it has neither a pad nor an eos token.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "The tokenizer has neither a pad nor an eos token. Add one: "
                "tokenizer.add_special_tokens({'pad_token': '<pad>'}); model.resize_token_embeddings(len(tokenizer))"
            )
        tokenizer.pad_token = tokenizer.eos_token
        logger.warning(
            f"The tokenizer has no pad token: using its eos token {tokenizer.eos_token!r} (id {tokenizer.eos_token_id})."
        )
    return tokenizer.pad_token_id


def pool_by_pad_token(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have the model pool by the token that its batches are padded with; it must know all tokens of the tokenizer."""
    pad, highest = ensure_pad_token(tokenizer), max(tokenizer.get_vocab().values())
    if config.vocab_size is not None and highest >= config.vocab_size:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise ValueError(
            f"The tokenizer knows tokens up to id {highest} ({token!r}), and the model's embeddings have {config.vocab_size} "
            f"rows. Make room before training with model.resize_token_embeddings({highest + 1}), which dhrd train needs in "
            "the saved model, or give the model its own tokenizer."
        )
    if config.pad_token_id != pad:
        logger.warning(f"The model's pad token id is now the tokenizer's, {pad} (it was {config.pad_token_id}).")
        config.pad_token_id = pad


# What an encoder did, on its way to the model's config


def tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """How a tokenizer is set, as far as the ids of x depend on it."""
    return {
        "truncation_side": tokenizer.truncation_side,
        "split_special_tokens": tokenizer.split_special_tokens,
        "added_tokens": tokenizer("")["input_ids"],
    }


def check_tokenizer(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise where a tokenizer is not set as the one that made the x of training."""
    trained, now = config.tokenizer_settings or {}, tokenizer_settings(tokenizer)
    for name, value in trained.items():
        if value != now.get(name):
            raise ValueError(
                f"The model was trained on texts of a tokenizer with {name} {value!r}, and this one has {now.get(name)!r}: "
                "it would make other tokens of the same text. Give the tokenizer of training, such as the run directory's."
            )
    limit, longest = known_limit(tokenizer), config.max_input_length
    if None not in (limit, longest) and limit < longest:
        raise ValueError(
            f"The model was trained on texts of up to {longest} tokens, and the tokenizer's model_max_length is {limit}: raise "
            "it, or set model.config.max_input_length to what the classifier is to be cut at."
        )


def remember_settings(
    tokenizer: PreTrainedTokenizerBase,
    label2id: Mapping[str, int],
    settings: dict[str, Any],
    config: PreTrainedConfig | None,
) -> None:
    """Remember what an encoder does; where it was given the model, the config has it, and the tokenizer saves its part."""
    new = _Encoder(label2id, settings)
    _encoders[tokenizer] = [*(it for it in _encoders.get(tokenizer, ()) if it != new), new]
    if config is not None:
        _write(config, settings)
        _have_saved(tokenizer)


def take_settings(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> None:
    """Write into a model's config what the encoder of its training rows did, whose x have up to `longest` tokens."""
    known, own = _settings_for(config, tokenizer), _inputs_of(config)
    fitting = [it for it in known if longest is None or longest <= it["max_input_length"]]
    if known and not fitting:
        logger.warning(
            f"The training rows have inputs of up to {longest} tokens, and no encoder of this tokenizer makes such: the "
            f"model's max_input_length is now {longest}. Give DualHeadEncoder the model: model=model."
        )
        _write(config, {**own, "max_input_length": longest})
    elif fitting and own not in fitting:
        _write_last(config, fitting)
    elif not known and longest is not None and own["max_input_length"] is None:
        logger.warning(
            f"The model does not know how its training rows, with inputs of up to {longest} tokens, were made, so that nothing "
            "can make the same of a text. Give their encoder the model: DualHeadEncoder(tokenizer, model=model)."
        )


def fill_settings(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write into a model's config what it does not know of its inputs, from the encoder that was given its labels."""
    known, own = _settings_for(config, tokenizer), _inputs_of(config)
    if known and own["max_input_length"] is None:
        _write_last(config, [{name: own[name] or value for name, value in it.items()} for it in known])
    elif own["max_input_length"] is None:
        logger.warning(
            "The model does not know how long its inputs were in training: they are cut at "
            f"{input_limit(config, tokenizer)} tokens. Give its encoder the model, DualHeadEncoder(tokenizer, model=model), or "
            "set model.config.max_input_length."
        )
    elif known and own not in known:
        logger.warning(
            f"The model's config is gone by, and its encoder differs ({_differences(own, known[-1])}). If the model was "
            "trained on that encoder's rows, give it the model: DualHeadEncoder(tokenizer, model=model)."
        )


@contextlib.contextmanager
def saving_inputs(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Iterator[None]:
    """While a run's tokenizer is saved: `truncation=True` makes x of a text as training did."""
    limit, init_kwargs = tokenizer.model_max_length, dict(tokenizer.init_kwargs)
    _have_saved(tokenizer)
    if config.max_input_length is not None:
        tokenizer.init_kwargs[_LIMITS] = [config.max_input_length, _own_max_length(tokenizer)]
        tokenizer.model_max_length = config.max_input_length
    try:
        yield
    finally:
        tokenizer.model_max_length, tokenizer.init_kwargs = limit, init_kwargs


def for_deployment(tokenizer: PreTrainedTokenizerBase, max_input_length: int | None) -> PreTrainedTokenizerBase:
    """A copy that makes x of a text as training did, wherever it is saved and opened."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.init_kwargs.pop(_LIMITS, None)
    _have_saved(tokenizer)
    if max_input_length is not None:
        tokenizer.model_max_length = max_input_length
    # What follows x can't change a causal model's answer, while padding before it shifts positions that are absolute.
    tokenizer.padding_side = "right"
    if tokenizer.is_fast:  # what the last call asked for is no setting
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _own_max_length(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Its `model_max_length`; of a run directory's tokenizer, which has training's, the one before."""
    trained, before = tokenizer.init_kwargs.get(_LIMITS, (None, None))
    return before if trained is not None and tokenizer.model_max_length == trained else tokenizer.model_max_length


def _settings_for(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """What the tokenizer's encoders for these very labels did, else for equal ones, on a model with these positions."""
    encoders, positions = _encoders.get(tokenizer, ()), positions_of(config) or _NO_LIMIT
    found = [it.settings for it in encoders if it.label2id is config.label2id]
    found = found or [it.settings for it in encoders if dict(it.label2id) == config.label2id]
    if not found:  # the encoder's tokenizer may be another object: this one may have been opened anew, or copied
        found = [it.settings for its in _encoders.values() for it in its if it.label2id is config.label2id]
    return [{**it, "max_input_length": min(it["max_input_length"], positions)} for it in found]


def _write_last(config: PreTrainedConfig, settings: list[dict[str, Any]]) -> None:
    if any(it != settings[-1] for it in settings):
        logger.warning(
            f"The tokenizer has had encoders with other settings ({_differences(settings[-2], settings[-1])}); the model's "
            "are the last one's. Give the encoder of its rows the model: DualHeadEncoder(tokenizer, model=model)."
        )
    _write(config, settings[-1])


def _have_saved(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.init_kwargs |= {name: getattr(tokenizer, name) for name in _SAVED_WITH}


def _inputs_of(config: PreTrainedConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in INPUT_NAMES}


def _write(config: PreTrainedConfig, settings: Mapping[str, Any]) -> None:
    own = _inputs_of(config)
    if own["max_input_length"] is not None and own != settings:
        logger.warning(f"The model's inputs are not those that it had: {_differences(own, settings)}.")
    for name, value in settings.items():
        setattr(config, name, value)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {before[name]!r}, now {it!r}" for name, it in after.items() if before[name] != it)


# What stands behind x: text that goes on, in which no special token is meant

_IDS_ALONE = {"return_attention_mask": False, "return_token_type_ids": False}
# Texts that hardly any tokenizer merges with what follows them; one that it does is passed over.
_BEFORE = (".", "x", "0")


def continued_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], before: str | None = None
) -> list[list[int]]:
    """Token ids of texts that go on behind `before`, or any text: without the space that some tokenizers begin with."""
    of = dict.fromkeys(texts)
    left = [text for text in of if text]
    unknown, specials = tokenizer.unk_token_id, set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for context in (*filter(None, [before]), *_BEFORE):
        [lead] = _plain_ids(tokenizer, [context])
        if left and unknown not in lead:
            for text, ids in zip(left, _plain_ids(tokenizer, [context + text for text in left]), strict=True):
                if ids[: len(lead)] == lead:
                    of[text] = ids[len(lead) :]
            left = [text for text in left if of[text] is None]
    of |= zip(left, _plain_ids(tokenizer, left), strict=True)
    for text, ids in of.items():
        if specials.intersection(ids or ()):
            of[text] = _broken_up(tokenizer, text, before) or [token for token in ids if token not in specials]
    return [of[text] or [] for text in texts]


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False, **_IDS_ALONE}
    return tokenizer(texts, **options)["input_ids"] if texts else []


def _broken_up(tokenizer: PreTrainedTokenizerBase, text: str, before: str | None) -> list[int]:
    """Ids of a text with special strings that are whole words of the vocabulary as well: each behind its first character."""
    strings = [it for it in tokenizer.all_special_tokens if len(it) > 1]
    parts = re.split("|".join(f"(?<={re.escape(it[0])})(?={re.escape(it[1:])})" for it in strings), text)
    if len(parts) == 1:
        return []
    pairs = zip([before, *parts], parts, strict=False)
    return [token for lead, part in pairs for token in continued_ids(tokenizer, [part], lead)[0]]
