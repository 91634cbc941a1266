"""The golden texts: what every export is tried on, and carries with its token ids and logits."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ..data.prompts import render, template_columns

# A text, or its pieces and how often each is repeated: a text beyond any limit takes a line in a file.
Pieces = str | Sequence[tuple[str, int]]
OWN_TEXT = "own text "

_ACCENTS = "Élan, naïve façade, œuvre, Ångström, smörgås, žluťoučký, İstanbul'da ılık"
_FIXED: tuple[tuple[str, Pieces], ...] = (
    ("one letter", "a"),
    ("one word", "Rain."),
    ("a sentence", "The ferry left at seven, and nobody had locked the harbour office."),
    ("two lines", "The lamp was off at noon.\nSo: somebody had turned it off before."),
    ("accents, composed", unicodedata.normalize("NFC", _ACCENTS)),
    ("accents, decomposed", unicodedata.normalize("NFD", _ACCENTS)),
    ("Vietnamese", unicodedata.normalize("NFC", "Trời mưa nên đường ướt.")),
    ("Cyrillic", "Паром ушёл в семь, и контору никто не запер."),
    ("Greek", "Το πλοίο έφυγε στις επτά και βρέχει."),
    ("Arabic", "غادرت السفينة في السابعة، ولم يُغلق أحد الباب."),
    ("Hebrew", "הספינה יצאה בשבע, ואיש לא נעל את הדלת."),
    ("Devanagari", "नाव सात बजे निकली और किसी ने दरवाज़ा बंद नहीं किया।"),
    ("Thai", "เรือออกตอนเจ็ดโมงและไม่มีใครล็อกประตู"),
    ("Chinese", "渡船七点离开，没有人锁门。"),
    ("Japanese", "船は７時に出たが、ドアの鍵は開いていた。"),
    ("Korean", "배는 일곱 시에 떠났고 아무도 문을 잠그지 않았다."),
    ("emoji", "Fine 👍🏽, all of us 👩‍👩‍👧‍👦 under one flag 🇫🇮 and ❤️‍🔥!"),
    ("blanks at both ends", "   three blanks before, two after  "),
    ("blanks inside", "wide     gaps  between   words"),
    ("tabs and line ends", "first\n\tsecond, with a tab\r\nthird\n\n\nlast\n"),
    ("numbers", "3.14159 or -7, 1,000,000 and 1e-9; 50 %, ½, №5, 12:30, 2031-02-28"),
    ("code", 'def f(x):\n    return {"a": [x ** 2, None]}  # <b>not</b> &amp;'),
    ("an address", "See https://example.org/a_b?q=caf%C3%A9&n=1#top or write to ada@example.org."),
    ("mixed case", "iPhone SHOUTS while McKay and eBay whisper; ÄÖÜ ß, ΣΊΣΥΦΟΣ"),
    ("punctuation", "“Quoted”, ‘single’ — a dash… (round) [square] {curly} <angled> \\ / | ~ ^ ` ¿? ¡!"),
    ("unseen characters", "no\u00a0break, zero\u200bwidth, soft\u00adhyphen, \ufeffmark"),
    ("one long word", [("Donaudampfschiff", 4), ("fahrt", 1)]),
    ("a paragraph", [("The wind rose, and one after the other the boats came in. ", 4), ("Then it was still.", 1)]),
    ("others' special tokens", "[CLS] is not <s>, <|im_start|>user or </s> <|endoftext|> [SEP]."),
)
# Where a text is cut shows in what is left of it: its two ends say different things.
# Longer limits are held against the tokenizer's settings alone: texts beyond them take a tokenizer minutes.
_LONGEST_LIMIT = 16_384
_FIRST, _REPEATED, _LAST = "At dawn the harbour was empty", ", and a boat came in", " until the bell rang twice."


def golden_texts(
    tokenizer: PreTrainedTokenizerBase, limit: int | None, prompt: str | None
) -> list[tuple[str, Pieces]]:
    """Some thirty texts, each with what it is about: fixed ones, this tokenizer's special tokens, and around the limit."""
    found = list(_FIXED)
    for token in dict.fromkeys(tokenizer.all_special_tokens[:6]):
        found.append((f"the special token {token}", f"{token} before, {token}within and after {token}"))
    if prompt is not None:
        row = dict.fromkeys(template_columns(prompt), "The kiln is cold.")
        found.append(("the prompt", render(prompt, row)))
    if limit is not None and limit <= _LONGEST_LIMIT:
        found += _around(tokenizer, limit)
    return [*found, ("empty", "")]


def text_of(pieces: Pieces) -> str:
    return pieces if isinstance(pieces, str) else "".join(piece * times for piece, times in pieces)


def _around(tokenizer: PreTrainedTokenizerBase, limit: int) -> list[tuple[str, Pieces]]:
    """A text that just fits, one that just does not, and one far beyond the limit."""

    def pieces(times: int) -> Pieces:
        return [(_FIRST, 1), (_REPEATED, times), (_LAST, 1)]

    def length(times: int) -> int:
        return len(tokenizer(text_of(pieces(times)), verbose=False)["input_ids"])

    each = max((length(12) - length(4)) / 8, 0.1)
    times = max(int((limit - length(4)) / each) + 4, 1)
    while times > 1 and length(times) > limit:
        times -= 1
    while length(times) <= limit:
        times += 1
    fits = [("as long as the limit", pieces(times - 1))] if times > 1 else []
    return [
        *fits,
        ("just beyond the limit", pieces(times)),
        ("far beyond the limit", pieces(times + min(2 * times, 300))),
    ]
