"""Whether a teacher's reply is accepted: the checks of its form and of the rationale in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import checks
from .prompt import TeacherPrompt, without_thoughts

# Of the form of a reply; the others look at the rationale alone.
FORM_CHECKS = ("sentinel", "answer")
# A near duplicate shows only when all rows are there: the audit looks for those.
REPLY_CHECKS = (*FORM_CHECKS, *(name for name in checks.CHECKS if name != "near_duplicate"))


@dataclass(frozen=True)
class Verdict:
    """What the checks say of a reply."""

    rationale: str | None
    reasons: dict[str, str]

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong."""
        return self.rationale is not None and not self.reasons


@dataclass(frozen=True)
class ReplyChecks:
    """The checks that a reply has to pass."""

    label_words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    min_words: int = checks.MIN_WORDS
    max_words: int = checks.MAX_WORDS
    skip: Collection[str] = ()

    def __post_init__(self):
        unknown = [name for name in self.skip if name not in REPLY_CHECKS]
        if unknown:
            raise ValueError(f"there is no check {unknown[0]!r} of a reply; there are {', '.join(REPLY_CHECKS)}")
        checks.check_bounds(self.min_words, self.max_words)

    def judge(self, reply: str, prompt: TeacherPrompt, row: Mapping[str, Any], label: str) -> Verdict:
        """Check a reply."""
        said = without_thoughts(reply)
        parsed = prompt.parse(said)
        form = {"sentinel": checks.sentinel(said, prompt.sentinel), "answer": checks.answer(parsed.answer, label)}
        wrong = {name: reason for name, reason in form.items() if reason and name not in self.skip}
        return Verdict(parsed.rationale, wrong | self.of_rationale(parsed.rationale, prompt, prompt.text(row)))

    def of_rationale(self, rationale: str | None, prompt: TeacherPrompt, text: str) -> dict[str, str]:
        """Check a rationale alone."""
        skip = {*self.skip, *FORM_CHECKS} | ({"wrong_language"} if prompt.language else set())
        return checks.check_rationale(
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
        return {
            "label_words": {label: list(words) for label, words in self.label_words.items()},
            "min_words": self.min_words,
            "max_words": self.max_words,
            "skip": sorted(self.skip),
        }
