"""Rationales that fail a check dropped or repaired, and long ones shortened to whole sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import regex

from ..data.label_names import label_names
from ..data.labels import named_rows
from ..data.prompts import DEFAULT_PROMPT, input_or_empty, rationale_text
from .checks import (
    CHECKS,
    MAX_WORDS,
    MIN_WORDS,
    MOST_READ,
    ROW_CHECKS,
    check_bounds,
    check_names,
    check_rationale,
    prompt_echo,
)
from .matching import near_duplicates
from .words import count_words, split_sentences, units

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Judged = tuple[dict[str, Any], str | None, str | None, dict[str, str]]  # row, rationale, what is left, reasons

_WINDOW = 1000  # rows tokenised together

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


@dataclass
class Tally:
    """Counts of rows and rationales on their way through a step."""

    rows_in: int = 0
    rows_out: int = 0
    rationales_in: int = 0
    rationales_out: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    labels_in: Counter[str] = field(default_factory=Counter)
    labels_out: Counter[str] = field(default_factory=Counter)

    def add(
        self, label: Any, before: str | None, after: str | None, reasons: Iterable[str] = (), row_stays: bool = True
    ) -> None:
        """Count a row."""
        after = after if row_stays else None
        names = label_names(label) or ["(none)"]
        self.rows_in += 1
        self.rows_out += row_stays
        if before is not None:
            self.rationales_in += 1
            self.labels_in.update(names)
        if after is not None:
            self.rationales_out += 1
            self.labels_out.update(names)
            self.changed += after != before
        gone = not row_stays or (before is not None and after is None)
        (self.dropped if gone else self.repaired).update(list(reasons))

    def __str__(self) -> str:
        said = [
            f"{self.rows_in} rows in, {self.rows_out} out; {self.rationales_in} rationales in, "
            f"{self.rationales_out} out, {self.changed} of them changed"
        ]
        counts = {"dropped": self.dropped, "repaired": self.repaired}
        reasons = [
            f"{name}: " + ", ".join(f"{its[name]} {what}" for what, its in counts.items() if its[name])
            for name in sorted({*self.dropped, *self.repaired}, key=lambda it: (-self.dropped[it], it))
        ]
        labels = [f"{it}: {self.labels_in[it]} in, {self.labels_out[it]} out" for it in sorted(self.labels_in)]
        labels[20:] = [f"and {len(labels) - 20} more labels"] if len(labels) > 20 else []
        said += [f"by {what:7} {'; '.join(its)}" for what, its in (("reason", reasons), ("label", labels)) if its]
        return "\n".join(said)


def filter_rationales(
    rows: Iterable[Mapping[str, Any]],
    checks: Collection[str] = ROW_CHECKS,
    *,
    drop: str = "rationales",
    repair: bool = False,
    labels: Sequence[str] | None = None,
    label_words: Mapping[str, Sequence[str]] | None = None,
    min_words: int = MIN_WORDS,
    max_words: int = MAX_WORDS,
    prompt: str = DEFAULT_PROMPT,
    label_column: str = "label",
    rationale_column: str = "rationale",
    tally: Tally | None = None,
    rejected: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Drop, or repair, the rationales that fail a check.

    A row whose rationale is dropped stays, with None, and trains on its label alone. A repair takes something away: the
    echo of the prompt, what is repeated, a last sentence without an end, the sentences beyond `max_words`; a rationale
    that still fails is dropped. Of near duplicates the first that passes the other checks is
    kept; rows with the same value in a column `group` may be alike.

    Example:

    ```python
    >>> from dhrd_hf.rationales.filter import filter_rationales
    >>> rows = [{"text": "Rain", "label": "wet", "rationale": "Rain is water, after all. Water makes thi"}]
    >>> [row["rationale"] for row in filter_rationales(rows)]
    [None]
    >>> [row["rationale"] for row in filter_rationales(rows, repair=True)]
    ['Rain is water, after all.']

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): The rows, streamed if `labels` are given and there is no `near_duplicate`.
        checks (`Collection[str]`, *optional*): Names of checks; by default all but `near_duplicate`.
        drop (`str`, *optional*, defaults to `"rationales"`): `"rationales"`, or `"rows"` to drop the row as well; then
            a row that has no rationale goes too if `empty` is among the checks.
        repair (`bool`, *optional*, defaults to `False`): Repair what can be repaired before it is dropped.
        labels (`Sequence[str]`, *optional*): All labels' names; by default those of the rows.
        label_words (`Mapping[str, Sequence[str]]`, *optional*), min_words, max_words (`int`, *optional*): As for
            [`~dhrd_hf.rationales.checks.check_rationale`].
        prompt (`str`, *optional*, defaults to `"{text}"`): The input over the columns, for `copy` and `wrong_language`; in
            a table that lacks its columns these two say nothing.
        label_column (`str`, *optional*, defaults to `"label"`), rationale_column (`str`, *optional*, defaults to
            `"rationale"`): The columns.
        tally ([`~dhrd_hf.rationales.filter.Tally`], *optional*): Counts what happens.
        rejected (`Callable[[dict], None]`, *optional*): Is given each row that lost its rationale, as it was, with a
            column `reasons`.

    Returns:
        `Iterator[dict[str, Any]]`: the rows in their order.

    Raises:
        ValueError: if there is no such check, `drop` is neither, or the bounds leave no length between them.
    """
    check_names(checks, CHECKS)
    if drop not in ("rationales", "rows"):
        raise ValueError(f"drop={drop!r} is neither 'rationales' nor 'rows'")
    check_bounds(min_words, max_words)
    tally = Tally() if tally is None else tally
    # By the check that asks for it, in the order in which they are tried.
    mend = {"prompt_echo": without_echo, "repetition": without_repetition, "truncated": without_rest}
    mend = mend | {"length": partial(within_words, max_words=max_words)} if repair else {}
    options = {"label_words": label_words, "min_words": min_words, "max_words": max_words, "only": checks}

    def judged(stream: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Iterator[Judged]:
        for row in stream:
            before = rationale_text(row.get(rationale_column))
            yield dict(row), before, *_judge(before, mend, text=input_or_empty(prompt, row), labels=names, **options)

    def filtered() -> Iterator[dict[str, Any]]:
        stream, names = named_rows(rows, label_column), labels
        if names is None:
            stream = list(stream)
            names = list(dict.fromkeys(name for row in stream for name in label_names(row.get(label_column))))
        found = judged(stream, names)
        for row, before, after, reasons in _first_of_alike(list(found)) if "near_duplicate" in checks else found:
            stays = drop == "rationales" or not reasons or after is not None
            if before is None and stays:
                reasons = {}  # it had none, and nothing happened to it
            tally.add(row.get(label_column), before, after, reasons, stays)
            if rejected is not None and reasons and after is None:
                rejected({**row, "reasons": reasons})
            if stays:
                yield {**row, rationale_column: after}

    return filtered()  # a generator of its own, so that wrong arguments raise at the call


def _judge(
    rationale: str | None, mend: Mapping[str, Callable[[str], str]], **options: Any
) -> tuple[str | None, dict[str, str]]:
    """What is left of a rationale after the checks and the repairs, and what was wrong with it."""
    reasons = check_rationale(rationale, **options)
    if not reasons or rationale is None:
        return rationale, reasons
    if len(rationale) > MOST_READ:
        return None, reasons  # too long to be worth it
    left, now = rationale, reasons
    for name, repair in mend.items():
        if name in now:
            left = repair(left)
            # All checks, also those that said nothing before: what is left may be a copy, or too short.
            now = check_rationale(left, **options)
    return (None, {**now, **reasons}) if now or not left else (left, reasons)


def _first_of_alike(judged: list[Judged]) -> Iterator[Judged]:
    """Of rationales that are left and nearly the same, all but the first dropped; those of one `group` may be alike."""
    own = [n if row.get("group") is None else str(row["group"]) for n, (row, *_) in enumerate(judged)]
    alike = near_duplicates([after for _, _, after, _ in judged], groups=own)
    again = {number for rows in alike for number in rows[1:]}
    said = {"near_duplicate": "The explanation is nearly that of another row."}
    for number, (row, before, after, reasons) in enumerate(judged):
        yield (row, before, None, reasons | said) if number in again else (row, before, after, reasons)


def without_echo(rationale: str) -> str:
    """Leave out what repeats the prompt: "Reasoning:" before, the sentinel and "Answer: ..." behind."""
    left = _HEAD.sub("", _TAIL.sub("", rationale), count=1).strip()
    return "".join(sentence for sentence in split_sentences(left) if not prompt_echo(sentence)).strip()


def without_repetition(rationale: str) -> str:
    """Keep the first of sentences that are said again, and of a phrase that loops."""
    seen, kept = set(), []
    for sentence in split_sentences(rationale):
        words = units(sentence)
        if not words or words not in seen:
            seen.add(words)
            kept.append(sentence)
    return _LOOP.sub(r"\g<phrase>", "".join(kept)).strip()


def without_rest(rationale: str) -> str:
    """Cut off a last sentence that has no end."""
    return "".join(split_sentences(rationale.strip())[:-1]).strip()


def within_words(rationale: str, max_words: int) -> str:
    """Keep the first sentences that fit into a number of words."""
    starts = accumulate(split_sentences(rationale.strip()))
    return max((it for it in starts if count_words(it) <= max_words), key=len, default="").strip()


def shorten(rationale: str, max_tokens: int, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The first sentences of a rationale that fit into a number of tokens.

    Example:

    ```python
    >>> from transformers import AutoTokenizer
    >>> from dhrd_hf.rationales.filter import shorten
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
    [row] = shorten_rationales([{"rationale": rationale}], max_tokens, tokenizer)
    return row["rationale"]


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
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens} must be 1 or greater")
    tally = Tally() if tally is None else tally

    def shortened() -> Iterator[dict[str, Any]]:
        stream = iter(rows)
        while window := [dict(row) for row in islice(stream, _WINDOW)]:
            said = [row.get(rationale_column) for row in window]
            texts = ["" if it is None else str(it).strip() for it in said]
            starts = [
                (place, it.strip()) for place, text in enumerate(texts) for it in accumulate(split_sentences(text))
            ]
            # One call of the tokenizer for many costs much less than many calls.
            given = [start for _, start in starts]
            ids = tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"] if given else []
            # Of the starts of a text, each longer than the one before, the last that fits stays.
            found = {place: it for (place, it), its in zip(starts, ids, strict=True) if len(its) <= max_tokens}
            for place, (row, text) in enumerate(zip(window, texts, strict=True)):
                after = found.get(place) or None
                reasons = ["first sentence too long"] if text and after is None else []
                tally.add(row.get(label_column), text or None, after, reasons)
                yield {**row, rationale_column: after}

    return shortened()  # a generator of its own, so that a wrong number raises at the call
