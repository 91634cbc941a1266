"""Rationales that can be mended: each repair takes something away, and none writes a word."""

from __future__ import annotations

from collections.abc import Callable

import regex

from .checks import prompt_echo
from .languages import count_words, units
from .sentences import split_sentences

# What the teacher was told to write behind the explanation, and what follows it.
_TAIL = regex.compile(
    r"(?is)\s*(?:\[\s*end of (?:reasoning|explanation|rationale)\s*\]|<\|[^|\s]{1,40}\|>|</?(?:s|eos|think)>"
    r"|(?:^|(?<=[\n.!?]))\s*\**(?:final\s+)?answer\**\s*:).*$"
)
_HEAD = regex.compile(
    r"(?i)^[\s\"'#*_`>-]*(?:(?:reasoning|explanation|rationale|justification|step[- ]by[- ]step(?: reasoning)?)\**\s*:"
    r"|(?:sure|certainly|of course|okay)[,!.]?\s+(?:here(?:'s| is)|let me)[^.:!\n]*[.:!])\**\s*"
)
_LOOP = regex.compile(r"(?is)(?<!\w)(?P<phrase>\S.{2,200}?\S)(?:[\s,;]+(?P=phrase)){2,}(?!\w)")


def without_echo(rationale: str) -> str:
    """Leave out what repeats the prompt: "Reasoning:" before, the sentinel and "Answer: ..." behind."""
    left = _HEAD.sub("", _TAIL.sub("", rationale), count=1).strip()
    return "".join(sentence for sentence in split_sentences(left) if not prompt_echo(sentence)).strip()


def without_repetition(rationale: str) -> str:
    """Keep the first of sentences that are said again, and of a phrase that loops."""
    seen, kept = set(), []
    for sentence in split_sentences(rationale):
        words = tuple(units(sentence))
        if not words or words not in seen:
            seen.add(words)
            kept.append(sentence)
    return _LOOP.sub(r"\g<phrase>", "".join(kept)).strip()


def without_rest(rationale: str) -> str:
    """Cut off a last sentence that has no end."""
    return "".join(split_sentences(rationale.strip())[:-1]).strip()


def within_words(rationale: str, max_words: int) -> str:
    """Keep the first sentences that fit into a number of words."""
    kept = ""
    for sentence in split_sentences(rationale.strip()):
        if count_words(kept + sentence) > max_words:
            break
        kept += sentence
    return kept.strip()


def repairs(max_words: int) -> dict[str, Callable[[str], str]]:
    """The repairs by the check that asks for them, in the order in which they are tried."""
    return {
        "prompt_echo": without_echo,
        "repetition": without_repetition,
        "truncated": without_rest,
        "length": lambda rationale: within_words(rationale, max_words),
    }
