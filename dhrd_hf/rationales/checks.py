"""How a teacher's reply is read, and the checks: each a function that says nothing of a good one, or what is wrong.

The sentences are addressed to who wrote the rationale, so that they can be given to a teacher with the next try.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import regex

from ..files import did_you_mean
from .prompt import SENTINEL, TeacherPrompt
from .words import (
    ANNOUNCEMENT,
    PROMPT_ECHO,
    REFUSAL,
    count_words,
    label_matcher,
    other_language,
    split_sentences,
    units,
)

MIN_WORDS, MAX_WORDS = 3, 150
# The checks that look at one row at a time, and those of an audit, in the order of its report.
ROW_CHECKS = (
    "label_leak", "empty", "truncated", "refusal", "repetition", "copy", "prompt_echo", "wrong_language", "length"
)  # fmt: skip
CHECKS = (*ROW_CHECKS[:-1], "near_duplicate", "length")
# Of the form of a reply; the others look at the rationale alone.
FORM_CHECKS = ("sentinel", "answer")
REPLY_CHECKS = (*FORM_CHECKS, *ROW_CHECKS)

# The words in the marks around a thought; models differ in their brackets.
_THOUGHT = (
    r"(?:[a-z]{1,12}[:_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|scratch_?pad|monologue)"
    r"(?:_[a-z]{1,12})?"
)
_MARK = re.compile(
    rf"(?P<close><[/\\]{_THOUGHT}>|◁/{_THOUGHT}▷|\[/(?:think(?:ing)?|thoughts?)\]|<[|｜](?:/|(?:end|stop)[_▁](?:of[_▁])?){_THOUGHT}[|｜]>"
    r"|<unused95>|<\|inner_suffix\|>|<\|channel\|?>\s{0,4}final\s{0,4}<\|message\|>|<channel\|>"
    r"|^[#* ]{0,6}here is my response:)"
    rf"|(?P<open><{_THOUGHT}>|◁{_THOUGHT}▷|\[(?:think(?:ing)?|thoughts?)\]|<[|｜](?:(?:begin|start)[_▁](?:of[_▁])?)?{_THOUGHT}[|｜]>"
    r"|<unused94>|<\|inner_prefix\|>|<\|channel\|?>\s{0,4}(?:analysis|thought|commentary)\b"
    r"|^```(?:thinking|thoughts?|reasoning)\b|^[#* ]{0,6}here is my thought process:)|(?P<fence>^```[ ]*$)",
    re.IGNORECASE | re.MULTILINE,
)
# What is left around a reply: the end of a turn, the answer's own marks.
_TURN = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|end|return|endoftext|end_of_turn)\|>|</?(?:s|answer|response|end_of_turn)>",
    re.IGNORECASE,
)
_AROUND = "*_`#> \t"
_QUOTES = "*_`\"'“”‘’«»「」 \t"
_MARKS = rf"[{_AROUND}]*"
_ANSWER = re.compile(
    rf"^{_MARKS}(?:final[ \t]+)?answer{_MARKS}:[^\S\n]*\n?(?P<value>[^\n]*)$", re.IGNORECASE | re.MULTILINE
)
_HEADING = re.compile(rf"^{_MARKS}(?:explanation|reasoning|rationale){_MARKS}:{_MARKS}\s*", re.IGNORECASE)
_SENTINEL = re.compile(re.escape(SENTINEL), re.IGNORECASE)
_BLANKS = re.compile(r"[\s_-]+")
_LETTER = regex.compile(r"[\p{L}\p{N}]")
_AROUND_A_NAME, _BETWEEN = regex.compile(r"^[\W_]+|[\W_]+$"), regex.compile(r"[\s_-]+")
_PLACEHOLDER = regex.compile(
    r"(?i)^[\W_]*+(?:n/?a|none|null|nan|nil|todo|tbd|empty|no (?:rationale|explanation|reasoning))?+[\W_]*+$"
)
# Sentence_Terminal is Unicode's: full stops of all scripts. The others end a sentence in scripts that have none of theirs.
_ENDS = regex.compile(r"(?:[\p{Sentence_Terminal}]|[：⁇‼⁈⁉｡๚๛។៕།༎༏༐])$")
_AFTER_THE_END = "\"'“”„‟’‘«»‹›)]}）］｝」』】》〉*_`~ \t\r\n"
_NO_MARKS = regex.compile(r"[\p{Script=Thai}\p{Script=Lao}]\p{M}*$")
_HANGING = regex.compile(r"(?<![\p{L}\p{M}'’])(?:the|a|an|and|or|because|although|whereas|while|my|your|its|our)[.]$")
_AROUND_A_SENTENCE = " \t\r\n.,;:!?…。！？｡।\"'“”‘’()[]*_-"
_QUOTED = regex.compile(r"[\"“„«「][^\"“”„«»「」]+[\"”“»」]")
_FEWEST_OUTSIDE_QUOTES = 6
_LAST = 60  # characters that tell whether a text has an end
MOST_READ = 10_000  # characters of a rationale that are looked at, half at each end: what is longer is no explanation
_LONGEST_LOOP = 60  # units of a phrase that may be looped, such as a sentence whose end is not seen


@dataclass(frozen=True)
class ParsedReply:
    """A teacher's reply, taken apart."""

    rationale: str | None
    answer: str | None
    said: str  # the reply without the thoughts


def parse_reply(
    reply: str, labels: Sequence[str] = (), spellings: Mapping[str, Sequence[str]] | None = None
) -> ParsedReply:
    said = without_thoughts(reply)
    end = _SENTINEL.search(said)
    before, after = (said[: end.start()].rstrip(_AROUND), said[end.end() :].lstrip(_AROUND)) if end else (said, said)
    lines = list(_ANSWER.finditer(after))
    rationale = before if end or not lines else said[: lines[0].start()]
    rationale = _HEADING.sub("", rationale.strip()).strip() or None
    answers = {_label(line["value"], labels, spellings or {}) for line in lines}
    answer = answers.pop() if len(answers) == 1 else None
    return ParsedReply(rationale, answer or None, said)


def without_thoughts(reply: str) -> str:
    """A reply without what a reasoning model thought before it."""
    kept: list[str] = []
    start, opened = 0, ""
    for mark in _MARK.finditer(reply):
        if mark["open"] and not opened:
            kept.append(reply[start : mark.start()])
            start, opened = mark.end(), mark["open"]
        elif mark["close"] or (mark["fence"] and opened.startswith("`")):
            # Templates that open the thought themselves leave only its end in the reply.
            kept = kept if opened else []
            start, opened = mark.end(), ""
    # A reply that was cut off leaves only the start of a thought; a heading that nothing closes was none.
    if not opened or opened[0] not in "<[◁":
        kept.append(opened + reply[start:])
    return _TURN.sub("", "".join(kept))


def _label(value: str, labels: Sequence[str], spellings: Mapping[str, Sequence[str]]) -> str:
    """The label that a line's text is, if it is one and no other; else the text."""

    def folded(text: str) -> str:
        return _BLANKS.sub(" ", text).strip().casefold()

    value = value.strip()
    bare = value.strip(_QUOTES)
    for text in (value, bare, bare.rstrip(".。!").strip(_QUOTES)):
        if text in labels:
            return text
        plain = folded(text)
        alike = [it for it in labels if plain in map(folded, (it, *spellings.get(it, ())))]
        if len(alike) == 1:
            return alike[0]
    return bare


def empty(rationale: str | None) -> str | None:
    """Nothing is there, or a placeholder."""
    bare = rationale is None or not _LETTER.search(rationale) or _PLACEHOLDER.match(rationale)
    return "There is no explanation." if bare else None


def length(rationale: str, min_words: int = MIN_WORDS, max_words: int = MAX_WORDS) -> str | None:
    """Too few or too many words."""
    words = count_words(rationale)
    bound = f"least {min_words}" if words < min_words else f"most {max_words}" if words > max_words else None
    return bound and f"The explanation has {words} words; at {bound} are wanted."


def check_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Check that there are checks of these names."""
    for name in names:
        if name not in known:
            raise ValueError(f"no check {name!r}{did_you_mean(name, known) or '.'} There are {', '.join(known)}")


def check_bounds(min_words: int, max_words: int) -> None:
    """Check that some length is between the bounds of [`length`]."""
    if not 0 <= min_words <= max_words:
        raise ValueError(f"min_words={min_words} and max_words={max_words} leave no length between them")


def sentinel(reply: str) -> str | None:
    """The explanation in a teacher's reply does not end with the mark that shows it whole."""
    before, *others = reply.split(SENTINEL)
    if not others:
        return f"The explanation does not end with {SENTINEL}."
    if len(others) > 1:
        return f"{SENTINEL} stands there {len(others)} times; it belongs once, after the explanation."
    return None if before.strip() else f"There is no explanation before {SENTINEL}."


def answer(answer: str | None, label: str) -> str | None:
    """The answer that a teacher gave is not the gold label."""
    if answer is None or not answer.strip():
        return "There is no answer after the explanation."

    def folded(name: str) -> str:
        return _BETWEEN.sub(" ", _AROUND_A_NAME.sub("", name.casefold()[:_LAST])) or name.strip()

    right = folded(answer) == folded(str(label))
    return None if right else f"The answer is {answer.strip()!r}, and should be {label!r}."


def label_leak(
    rationale: str, labels: Sequence[str], label_words: Mapping[str, Sequence[str]] | None = None
) -> str | None:
    """A label is named, by its name, an inflection or a synonym, or an answer is announced."""
    if named := label_matcher(labels, label_words).find(rationale):
        return f"The explanation names a label ({named!r}); it must not."
    announced = ANNOUNCEMENT.find(rationale)
    return f"The explanation announces the answer ({announced!r}); it must not." if announced else None


def refusal(rationale: str) -> str | None:
    """A teacher declines, or speaks of itself, instead of explaining."""
    found = REFUSAL.find(rationale)
    return f"Explain instead of declining or speaking of yourself ({found!r})." if found else None


def truncated(rationale: str) -> str | None:
    """It stops in the middle of a sentence."""
    bare = rationale.rstrip(_AFTER_THE_END)[-_LAST:]
    if not bare or _NO_MARKS.search(bare):
        return None
    if _ENDS.search(bare) and not bare.endswith(("...", "…")) and not _HANGING.search(bare):
        return None
    return f"The explanation stops in the middle of a sentence ({bare[-30:]!r})."


def repetition(rationale: str) -> str | None:
    """It loops."""
    words = units(rationale)
    repeated = _repeated_sentence(rationale) or _looped_phrase(words) or _said_before(words)
    return f"The explanation repeats itself ({repeated[:60]!r})." if repeated else None


def _repeated_sentence(text: str) -> str | None:
    seen: Counter[str] = Counter()
    for sentence in split_sentences(text):
        bare = sentence.casefold().strip(_AROUND_A_SENTENCE)
        seen[bare] += 1
        # A short sentence may be said twice for effect; a whole one is not.
        if bare and seen[bare] > 1 and seen[bare] >= (2 if count_words(bare) >= 5 else 3):
            return sentence.strip()
    return None


def _looped_phrase(words: list[str]) -> str | None:
    pairs = Counter(zip(words, words[1:], strict=False))
    if not pairs or max(pairs.values()) < 3:  # which a phrase three times in a row has, also one of a single word
        return None
    for size in range(1, min(_LONGEST_LOOP, len(words) // 3) + 1):
        run, wanted = 0, (3 if size == 1 else 2) * size
        for place, (word, later) in enumerate(zip(words, words[size:], strict=False)):
            run = run + 1 if word == later else 0
            if run >= wanted:
                start = place + 1 - run
                return " ".join(words[start : start + size])
    return None


def _said_before(words: list[str], size: int = 4, most: float = 0.3) -> str | None:
    grams = list(zip(*(words[shift:] for shift in range(size)), strict=False))
    if len(grams) < 10 or len(grams) - len(set(grams)) <= most * len(grams):
        return None
    return " ".join(Counter(grams).most_common(1)[0][0])


def copy(rationale: str, text: str, most: float = 0.75) -> str | None:
    """Most of it is taken over from the row's text, word by word, with or without light edits."""
    # What is quoted is cited; the rest is judged, if there is enough of it.
    words, source = units(_QUOTED.sub(" ", rationale)), units(text)
    if len(words) < _FEWEST_OUTSIDE_QUOTES:
        words = units(rationale)
    size = 3 if sum(map(len, words)) > 1.5 * len(words) else 5
    if len(words) < 2 * size - 1 or len(source) < size:
        return None
    grams = set(zip(*(source[shift:] for shift in range(size)), strict=False))
    copied, known = [False] * len(words), set()
    for start in range(len(words) - size + 1):
        gram = tuple(words[start : start + size])
        if gram in grams:
            copied[start : start + size] = [True] * size
            known.add(gram)
    share = sum(copied) / len(words)
    # Half of it copied is still a copy where that half is nearly all that there was to copy.
    if share >= most or (share >= 0.5 and len(known) >= 0.8 * len(grams)):
        return f"The explanation copies the input ({rationale.strip()[:60]!r})."
    return None


def prompt_echo(rationale: str) -> str | None:
    """It repeats the instructions to the teacher, or the template around the rationale."""
    found = PROMPT_ECHO.find(rationale)
    return f"The explanation repeats the prompt ({found[:60]!r})." if found else None


def wrong_language(rationale: str, text: str) -> str | None:
    """It is in another language than the row's text, where both are beyond doubt."""
    found = other_language(rationale, text)
    return f"The explanation is in the language {found[0]!r}, and the input in {found[1]!r}." if found else None


def check_rationale(
    rationale: str | None,
    *,
    text: str = "",
    labels: Sequence[str] = (),
    label_words: Mapping[str, Sequence[str]] | None = None,
    min_words: int = MIN_WORDS,
    max_words: int = MAX_WORDS,
    only: Collection[str] | None = None,
) -> dict[str, str]:
    """Run the checks that look at one row.

    Example:

    ```python
    >>> from dhrd_hf.rationales.checks import check_rationale
    >>> check_rationale("Yes", text="Is water wet?", labels=["yes", "no"]).keys()
    dict_keys(['label_leak', 'truncated', 'length'])

    ```

    Args:
        rationale (`str`, *optional*): The rationale; of more than 10,000 characters all but `length` look at the first and
            the last 5,000.
        text (`str`, *optional*): The row's text; without it `copy` and `wrong_language` say nothing.
        labels (`Sequence[str]`, *optional*): The labels' names; without them `label_leak` only looks for "the answer is".
        label_words (`Mapping[str, Sequence[str]]`, *optional*): Further words that name a label.
        min_words, max_words (`int`, *optional*, default to 3 and 150): Bounds of a rationale's length.
        only (`Collection[str]`, *optional*): Names of checks to run; by default all but `near_duplicate`.

    Returns:
        `dict[str, str]`: what is wrong by check, without those that have nothing to say; of an empty rationale only that.

    Raises:
        ValueError: if `only` names an unknown check.
    """
    wanted = CHECKS if only is None else only
    check_names(wanted, CHECKS)
    if nothing := empty(rationale):
        return {"empty": nothing} if "empty" in wanted else {}
    whole = rationale = str(rationale)
    if len(rationale) > MOST_READ:
        rationale = f"{rationale[: MOST_READ // 2]}\n{rationale[-MOST_READ // 2 :]}"
    checks = {
        "label_leak": lambda: label_leak(rationale, labels, label_words),
        "truncated": lambda: truncated(rationale),
        "refusal": lambda: refusal(rationale),
        "repetition": lambda: repetition(rationale),
        "copy": lambda: copy(rationale, text),
        "prompt_echo": lambda: prompt_echo(rationale),
        "wrong_language": lambda: wrong_language(rationale, text),
        "length": lambda: length(whole, min_words, max_words),
    }
    found = {name: check() for name, check in checks.items() if name in wanted}
    return {name: reason for name, reason in found.items() if reason}


@dataclass(frozen=True)
class ReplyChecks:
    """The checks that a reply has to pass."""

    label_words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    min_words: int = MIN_WORDS
    max_words: int = MAX_WORDS
    skip: Collection[str] = ()

    def __post_init__(self):
        check_names(self.skip, REPLY_CHECKS)
        check_bounds(self.min_words, self.max_words)

    def judge(
        self, reply: str, prompt: TeacherPrompt, row: Mapping[str, Any], label: str
    ) -> tuple[str | None, dict[str, str]]:
        """The rationale in a reply if it passes, and what is wrong with it."""
        parsed = parse_reply(reply, prompt.labels, prompt.spellings)
        form = {"sentinel": sentinel(parsed.said), "answer": answer(parsed.answer, label)}
        wrong = {name: reason for name, reason in form.items() if reason and name not in self.skip}
        wrong |= self.of_rationale(parsed.rationale, prompt, prompt.text(row))
        return None if wrong else parsed.rationale, wrong

    def of_rationale(self, rationale: str | None, prompt: TeacherPrompt, text: str) -> dict[str, str]:
        """Check a rationale alone."""
        skip = {*self.skip, *FORM_CHECKS} | ({"wrong_language"} if prompt.language else set())
        return check_rationale(
            rationale,
            text=text,
            labels=prompt.labels,
            label_words=self.label_words,
            min_words=self.min_words,
            max_words=self.max_words,
            only=[name for name in REPLY_CHECKS if name not in skip],
        )

    def settings(self) -> dict[str, Any]:
        """The checks, for a manifest."""
        words = {label: list(words) for label, words in self.label_words.items()}
        return vars(self) | {"label_words": words, "skip": sorted(self.skip)}
