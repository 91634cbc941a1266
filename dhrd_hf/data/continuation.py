"""The ids of what stands behind x: text that goes on, in which no special token is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

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
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    return tokenizer(texts, **options)["input_ids"] if texts else []


def _broken_up(tokenizer: PreTrainedTokenizerBase, text: str, before: str | None) -> list[int]:
    """Ids of a text with special strings that are whole words of the vocabulary as well: each behind its first character."""
    strings = [it for it in tokenizer.all_special_tokens if len(it) > 1]
    parts = re.split("|".join(f"(?<={re.escape(it[0])})(?={re.escape(it[1:])})" for it in strings), text)
    if len(parts) == 1:
        return []
    pairs = zip([before, *parts], parts, strict=False)
    return [token for lead, part in pairs for token in continued_ids(tokenizer, [part], lead)[0]]
