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
    """What the checks say of a reply.

    Example:

    ```python
    >>> from dhrd_hf.rationales.verdicts import Verdict
    >>> Verdict("Rain is water.", {}).accepted
    True

    ```

    Args:
        rationale (`str`, *optional*): The rationale in the reply.
        reasons (`dict[str, str]`): What is wrong, in a sentence, by check.
    """

    rationale: str | None
    reasons: dict[str, str]

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong."""
        return self.rationale is not None and not self.reasons


@dataclass(frozen=True)
class ReplyChecks:
    """The checks that a reply has to pass.

    Example:

    ```python
    >>> from dhrd_hf.rationales.prompt import TeacherPrompt
    >>> from dhrd_hf.rationales.verdicts import ReplyChecks
    >>> prompt = TeacherPrompt(["wet", "dry"])
    >>> reply = "Rain is made of water, which covers the road. [END OF REASONING] Answer: dry"
    >>> ReplyChecks().judge(reply.replace(" Answer", "\\nAnswer"), prompt, {"text": "It rains."}, "wet").reasons
    {'answer': "The answer is 'dry', and should be 'wet'."}

    ```

    Args:
        label_words (`Mapping[str, Sequence[str]]`, *optional*): Further words that name a label, by label.
        min_words, max_words (`int`, *optional*): Bounds of a rationale's length.
        skip (`Collection[str]`, *optional*): Names of checks that are left out.

    Raises:
        ValueError: if there is no such check, or the bounds leave nothing between them.
    """

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
        """Check a reply.

        Args:
            reply (`str`): The whole reply.
            prompt ([`TeacherPrompt`]): What it answers.
            row (`Mapping[str, Any]`): The row.
            label (`str`): Its gold label.

        Returns:
            [`Verdict`]: the rationale, and what is wrong.
        """
        said = without_thoughts(reply)
        parsed = prompt.parse(said)
        form = {"sentinel": checks.sentinel(said, prompt.sentinel), "answer": checks.answer(parsed.answer, label)}
        wrong = {name: reason for name, reason in form.items() if reason and name not in self.skip}
        return Verdict(parsed.rationale, wrong | self.of_rationale(parsed.rationale, prompt, prompt.text(row)))

    def of_rationale(self, rationale: str | None, prompt: TeacherPrompt, text: str) -> dict[str, str]:
        """Check a rationale alone.

        Args:
            rationale (`str`, *optional*): The rationale.
            prompt ([`TeacherPrompt`]): Names the labels, and a language that is not the input's.
            text (`str`): The row's input.

        Returns:
            `dict[str, str]`: what is wrong by check.
        """
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
        """The checks, for a manifest.

        Returns:
            `dict`: what JSON can hold.
        """
        return {
            "label_words": {label: list(words) for label, words in self.label_words.items()},
            "min_words": self.min_words,
            "max_words": self.max_words,
            "skip": sorted(self.skip),
        }
