"""Sentences of any script, and rationales shortened to whole ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import regex

from .tally import Tally

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WINDOW = 1000  # rows tokenised together
# A mark that ends a sentence, what closes after it, and the space behind; a full stop of the East needs no space.
_END = regex.compile(
    r"(?P<mark>[\p{Sentence_Terminal}…]+)(?P<close>[\"'”’»›)\]}」』】》〉）*_]*)(?P<space>\s+|$)"
    r"|(?P<mark>[。！？｡．]+)(?P<close>[\"'”’)\]」』】》〉）]*)(?P<space>\s*)"
    r"|(?P<space>\s*\n\s*)"
)
_LAST_WORD = regex.compile(r"[\p{L}\p{M}\p{N}.&]+$")
# Before a name, a number or more of the sentence: these do not end one.
_WITHIN = (
    "dr mr mrs ms mx prof st mt capt col gen lt sgt rev hon gov sen rep pres messrs mme mlle hr fr "
    "e.g i.e eg ie vs v cf viz approx ca fig figs eq eqs nos vol pp eds sec ch al resp incl excl esp "
    "z.b d.h bzw u.a s.o vgl nr bspw ggf p.ex par.ex p.ej jan feb apr jun jul aug sep sept oct nov dec"
)
_NEVER_LAST = frozenset(_WITHIN.split())
# These end one where a capital follows: some are words as well ("No. 5", "Of these there are no.").
_SELDOM_LAST = frozenset(("no", "art", "ed", "mar", "etc", "inc", "ltd", "corp", "co", "jr", "sr"))
_ABBREVIATION = regex.compile(r"(?:\p{L}\.)+\p{L}$")  # U.S, a.m: may end a sentence if a capital follows
_INITIAL = regex.compile(r"\p{Lu}$")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text; joined they are the text."""
    found, start = [], 0
    for match in _END.finditer(text):
        if match.end() > start and _ends(text, start, match):
            found.append(text[start : match.end()])
            start = match.end()
    return [*found, text[start:]] if start < len(text) else found


def _ends(text: str, start: int, match: regex.Match) -> bool:
    mark, after = match["mark"], text[match.end() : match.end() + 1]
    if mark is None or not after:
        return True
    if mark.startswith(("..", "…")) or mark.endswith("…"):
        return not after.islower()  # a pause
    if mark != ".":
        # "Stop!" he said: the sentence goes on behind the quotation.
        return not (match["close"] and after.islower())
    word = _LAST_WORD.search(text, start, match.start())
    last = word[0] if word else ""
    if last.lower() in _NEVER_LAST:
        return False
    if last.lower() in _SELDOM_LAST or _ABBREVIATION.search(last):
        return after.isupper()
    if _INITIAL.fullmatch(last):
        return last == "I" or not after.isupper()
    # "1. It rains": the number of a list, and not a sentence.
    return not (last.isdecimal() and not text[start : word.start()].strip())


def shorten(rationale: str, max_tokens: int, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The first sentences of a rationale that fit into a number of tokens.

    Example:

    ```python
    >>> from transformers import AutoTokenizer
    >>> from dhrd_hf.rationales.sentences import shorten
    >>> tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen3-0.6B")  # doctest: +SKIP
    >>> shorten("Rain is water. Water wets what it falls on.", 5, tokenizer)  # doctest: +SKIP
    'Rain is water.'

    ```

    Args:
        rationale (`str`): The rationale.
        max_tokens (`int`): Most tokens, counted as [`~dhrd_hf.DualHeadEncoder`] sees a rationale: without special tokens,
            and without the space around it.
        tokenizer (`PreTrainedTokenizerBase`): The student's.

    Returns:
        `str`, *optional*: None if not even the first sentence fits: half a sentence would teach to stop in the middle.

    Raises:
        ValueError: if `max_tokens` is below 1.
    """
    _check(max_tokens)
    return _shortened([rationale.strip()], max_tokens, tokenizer)[0]


def shorten_rationales(
    rows: Iterable[Mapping[str, Any]],
    max_tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rationale_column: str = "rationale",
    label_column: str = "label",
    tally: Tally | None = None,
) -> Iterator[dict[str, Any]]:
    """Shorten the rationales of a stream of rows."""
    _check(max_tokens)
    tally = Tally() if tally is None else tally

    def shortened() -> Iterator[dict[str, Any]]:
        stream = iter(rows)
        while window := [dict(row) for row in islice(stream, _WINDOW)]:
            said = [row.get(rationale_column) for row in window]
            texts = ["" if it is None else str(it).strip() for it in said]
            for row, text, after in zip(window, texts, _shortened(texts, max_tokens, tokenizer), strict=True):
                reasons = ["first sentence too long"] if text and after is None else []
                tally.add(row.get(label_column), text or None, after, reasons)
                yield {**row, rationale_column: after}

    return shortened()  # a generator of its own, so that a wrong number raises at the call


def _shortened(texts: list[str], max_tokens: int, tokenizer: PreTrainedTokenizerBase) -> list[str | None]:
    """What is left of each text; one call of the tokenizer for many costs much less than many calls."""
    lengths = _lengths(tokenizer, texts)
    found = [text if text and length <= max_tokens else None for text, length in zip(texts, lengths, strict=True)]
    long = [place for place, length in enumerate(lengths) if length > max_tokens]
    starts = [(place, start) for place in long for start in _starts(texts[place])]
    # Of the starts of a text, each longer than the one before, the last that fits stays.
    for (place, text), length in zip(starts, _lengths(tokenizer, [text for _, text in starts]), strict=True):
        if length <= max_tokens:
            found[place] = text
    return found


def _starts(text: str) -> Iterator[str]:
    """The first sentence, the first two, and so on, but not all of them."""
    so_far = ""
    for sentence in split_sentences(text)[:-1]:
        so_far += sentence
        yield so_far.strip()


def _check(max_tokens: int) -> None:
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens} must be 1 or greater")


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    if not texts:
        return []
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
