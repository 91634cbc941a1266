"""A chat model that reads the label out of a rationale, for the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from .checks import parse_reply, without_thoughts
from .teacher import NoAnswer, Pace, Teacher, Unusable

_PROMPT = """Here is a text, and an explanation of how it is to be classified.

Text:
{text}

Explanation:
{rationale}

Which of these labels does the explanation argue for: {labels}? Go by the explanation, also where you would decide otherwise. Reply with the label and nothing else."""


@dataclass
class LabelJudge:
    """The label that a chat model reads out of each rationale; None where it gives none of the labels, or no answer."""

    judge: Teacher
    labels: Sequence[str]

    def __call__(self, texts: Sequence[str], rationales: Sequence[str]) -> list[str | None]:
        try:
            return asyncio.run(self._ask_all(texts, rationales))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _ask_all(self, texts: Sequence[str], rationales: Sequence[str]) -> list[str | None]:
        pace = Pace(self.judge.concurrency)

        async def ask(text: str, rationale: str) -> str | None:
            told = _PROMPT.format(labels=", ".join(self.labels), text=text, rationale=rationale.strip())
            try:
                reply = await pace.ask(lambda: self.judge.ask([{"role": "user", "content": told}]))
            except (NoAnswer, Unusable):
                return None
            answer = parse_reply(f"Answer: {without_thoughts(reply.text).strip()}", self.labels).answer
            return answer if answer in self.labels else None

        # Where one fails for good, such as by a wrong key, the others need not ask.
        async with self.judge, asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(*its)) for its in zip(texts, rationales, strict=True)]
        return [task.result() for task in tasks]
