"""What a chat model says of rationales: how well each leads to its label, from 0 to 10, and which label it argues for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data.label_names import label_names
from ..data.prompts import DEFAULT_PROMPT, render
from .prompt import parse_reply, without_thoughts

if TYPE_CHECKING:
    from .teachers import Teacher

JUDGE_PROMPT = """Judge an explanation that a text classifier is to learn from.

Text:
{text}

Label (out of {labels}): {label}

Explanation:
{rationale}

How well does the explanation lead from this text to this label? 0: it is wrong, empty, about something else, or speaks for another label. 5: it is true, but does not settle the label. 10: each step is in the text or common knowledge, and the label follows. Reply with one whole number from 0 to 10 and nothing else."""
LABEL_PROMPT = """Here is a text, and an explanation of how it is to be classified.

Text:
{text}

Explanation:
{rationale}

Which of these labels does the explanation argue for: {labels}? Go by the explanation, also where you would decide otherwise. Reply with the label and nothing else."""
UNJUDGED = -1.0
_NUMBER = re.compile(r"(?<![\d.,-])(10|\d)(?:[.,]0+)?(?:\s*/\s*10)?(?![\d/])")


class JudgeScore:
    """The number that a judge gives each rationale: a score for [`~dhrd_hf.rationales.selection.select_best`]."""

    def __init__(
        self,
        judge: Teacher,
        labels: Sequence[str],
        prompt: str = DEFAULT_PROMPT,
        *,
        label_column: str = "label",
        rationale_column: str = "rationale",
    ):
        self.judge, self.labels, self.prompt = judge, list(labels), prompt
        self.label_column, self.rationale_column = label_column, rationale_column
        self.unjudged = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        replies = asyncio.run(_replies(self.judge, [self._message(row) for row in rows]))
        found = [UNJUDGED if reply is None else read_verdict(reply) for reply in replies]
        self.unjudged += found.count(UNJUDGED)
        return found

    def _message(self, row: Mapping[str, Any]) -> str:
        return JUDGE_PROMPT.format(
            text=render(self.prompt, row),
            labels=", ".join(self.labels),
            label=", ".join(label_names(row[self.label_column])) or "none",
            rationale=str(row[self.rationale_column]).strip(),
        )


class LabelJudge:
    """The label that a judge reads out of each rationale: for [`~dhrd_hf.rationales.audit.audit_rationales`]."""

    def __init__(self, judge: Teacher, labels: Sequence[str]):
        self.judge, self.labels = judge, list(labels)

    def __call__(self, texts: Sequence[str], rationales: Sequence[str]) -> list[str | None]:
        messages = [
            LABEL_PROMPT.format(text=text, labels=", ".join(self.labels), rationale=rationale.strip())
            for text, rationale in zip(texts, rationales, strict=True)
        ]
        replies = asyncio.run(_replies(self.judge, messages))
        return [None if reply is None else self._read(reply) for reply in replies]

    def _read(self, reply: str) -> str | None:
        answer = parse_reply(f"Answer: {without_thoughts(reply).strip()}", self.labels).answer
        return answer if answer in self.labels else None


async def _replies(judge: Teacher, messages: Sequence[str]) -> list[str | None]:
    """What the judge says to each message; None where it gives no answer."""
    from .pacing import NoAnswer, Pace
    from .replies import Unusable

    async with judge:
        pace = Pace(judge.concurrency)

        async def ask(message: str) -> str | None:
            try:
                return (await pace.ask(lambda: judge.ask([{"role": "user", "content": message}]))).text
            except (NoAnswer, Unusable):
                return None

        tasks = [asyncio.ensure_future(ask(message)) for message in messages]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # where one fails for good, such as by a wrong key, the others need not ask
                task.cancel()


def read_verdict(reply: str) -> float:
    """The number in a judge's reply."""
    numbers = {float(number) for number in _NUMBER.findall(without_thoughts(reply))}
    return numbers.pop() if len(numbers) == 1 else UNJUDGED
