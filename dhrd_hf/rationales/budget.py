"""How fast a teacher is asked, and how much: concurrency that gives way, waits between tries, a budget."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .teacher import NoAnswer, TeacherError

# Waits before the second, third, ... try: 0.5 s, 1 s, 2 s, ..., of which a random half is left out.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
LONGEST_ASKED = 300.0  # seconds that an endpoint's Retry-After is followed for; then it is asked again
TRIES = 8  # after which a row is left for the next run: about a minute, if nothing tells how long to wait
_TELL = 3.0  # seconds of a wait that a person should hear of
_POLL = 0.01  # how often a request that has to wait looks whether it may go
_BYTES_PER_TOKEN = 4  # of English
# When so many rows after each other can't be used for one reason, and none could in between, the run stops.
_IN_A_ROW = 10
_HELP = {
    "no_answer": "",
    "refused": "what it refuses is in --teacher-model, --extra-body or --settings",
    "refusal": "name another --teacher-model, or say in the system prompt what this is for: --settings 'system: TEXT'",
    "empty": "a reasoning model needs room, --max-reply-tokens 8192, or its thoughts turned off: --extra-body "
    '\'{"chat_template_kwargs": {"enable_thinking": false}}\'',
    "cut_off": "give it room: --max-reply-tokens 4096, or turn a reasoning model's thoughts off by --extra-body",
    "prompt_echo": "a base model repeats its prompt: name one that is tuned to follow requests by --teacher-model",
}

T = TypeVar("T")


class BudgetSpent(Exception):
    """The budget allows no further request."""


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, for whom a tokenizer is not at hand."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


class Pace:
    """Lets requests through."""

    def __init__(self, concurrency: int, tries: int | None = None, say: Callable[[str], None] = lambda _: None):
        self.concurrency, self.tries, self.say = concurrency, tries or TRIES, say
        self.limit = float(concurrency)
        self.active = self.requests = self.errors = self.crowded = 0
        self._resume = self._last_cut = 0.0

    async def ask(self, request: Callable[[], Awaitable[T]], admit: Callable[[], bool] = lambda: True) -> T:
        """Send a request until it brings an answer."""
        for left in reversed(range(self.tries)):
            while self.active >= int(self.limit) or time.monotonic() < self._resume or not admit():
                await asyncio.sleep(max(_POLL, min(self._resume - time.monotonic(), 1.0)))
            self.active += 1
            self.requests += 1
            started = time.monotonic()
            try:
                answer = await request()
                self.limit = min(self.concurrency, self.limit + 1 / self.limit)
                return answer
            except NoAnswer as error:
                self.errors += 1
                self._give_way(error, started)
                if not left:
                    raise
                wait = error.retry_after
            finally:
                self.active -= 1
            if wait is None:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self.tries - 1 - left)) * random.uniform(0.5, 1.0)
            await asyncio.sleep(min(wait, LONGEST_ASKED))
        raise AssertionError("there is one try at least")

    def _give_way(self, error: NoAnswer, started: float) -> None:
        now = time.monotonic()
        if error.crowded:
            self.crowded += 1
            if started >= self._last_cut:
                self.limit, self._last_cut = max(1.0, self.limit / 2), now
        if error.retry_after is None:
            return
        wait = min(error.retry_after, LONGEST_ASKED)
        if wait > _TELL and now + wait > self._resume + 1:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + wait))
            bound = f", of which {wait:.0f} are waited" if wait < error.retry_after else ""
            self.say(f"{error}. It asks for {error.retry_after:.0f} s (Retry-After){bound}: on it goes at {at}.")
        self._resume = max(self._resume, now + wait)


@dataclass
class Budget:
    """What may be spent on an output file, over all the runs that write it, and what was."""

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_input: float = 0.0
    price_output: float = 0.0
    # Tokens of a prompt and of a reply, until there was one; then those of the largest.
    one: tuple[int, int] = (0, 0)
    requests: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0  # replies of which the endpoint did not tell the tokens
    unanswered: int = 0  # requests that brought no answer and may have been paid, and their tokens at most
    lost: tuple[int, int] = (0, 0)
    open: int = 0
    spent: str | None = None

    def __post_init__(self):
        for name in ("max_requests", "max_tokens", "max_cost", "price_input", "price_output"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name}={value} must not be negative")
        if self.max_cost is not None and not (self.price_input or self.price_output):
            raise ValueError(
                "a budget in money needs the prices of a million tokens: --settings 'price_input: 0.1, price_output: 0.3'"
            )

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies, and at most of what brought no answer."""
        return self.prompt_tokens + self.completion_tokens + sum(self.lost)

    @property
    def cost(self) -> float:
        """What the tokens cost."""
        return self.price(self.prompt_tokens + self.lost[0], self.completion_tokens + self.lost[1])

    def price(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What a number of tokens costs."""
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6

    def settle(self, prompt_tokens: int, completion_tokens: int, estimated: bool = False) -> None:
        """Count what an answer took."""
        self.one = (max(self.one[0], prompt_tokens), max(self.one[1], completion_tokens)) if self.replies else (
            prompt_tokens, completion_tokens
        )  # fmt: skip
        self.replies += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.estimated += estimated

    def lose(self, prompt_tokens: int | None = None, completion_tokens: int | None = None) -> None:
        """Count a request that brought no answer and may have been paid: as the largest so far."""
        self.unanswered += 1
        prompt, completion = self.one
        prompt = prompt if prompt_tokens is None else prompt_tokens
        completion = completion if completion_tokens is None else completion_tokens
        self.lost = (self.lost[0] + prompt, self.lost[1] + completion)

    def room(self) -> float:
        """How many further requests there is room for."""
        rooms = [float("inf")] if self.max_requests is None else [float(self.max_requests - self.requests)]
        for used, one, limit in (
            (self.tokens, sum(self.one), self.max_tokens), (self.cost, self.price(*self.one), self.max_cost),
        ):  # fmt: skip
            rooms += [] if limit is None or not one else [(limit - used) / one]
        return max(0, min(rooms))

    def admit(self) -> bool:
        """Whether one more request may be sent while others are open; it is counted if so."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            self._stop(f"{self.requests} of {self.max_requests} requests (max_requests)")
        for used, one, limit, said in (
            (
                self.tokens,
                sum(self.one),
                self.max_tokens,
                f"{self.tokens} of {self.max_tokens} tokens (--max-total-tokens)",
            ),
            (
                self.cost,
                self.price(*self.one),
                self.max_cost,
                f"{self.cost:.4g} of {self.max_cost} in money (--max-cost)",
            ),
        ):
            if limit is None:
                continue
            # Of the first request of all nobody knows what it will take.
            if used >= limit or (not self.open and (self.replies or self.unanswered) and used + one > limit):
                self._stop(said)
            # No more at a time than replies are known: the first ones may be short.
            if self.open and (self.open > self.replies or used + (self.open + 1) * one > limit):
                return False
        self.requests += 1
        self.open += 1
        return True

    def _stop(self, said: str) -> None:
        self.spent = said
        raise BudgetSpent(said)


class Streak:
    """Rows after each other that can't be used for one reason: ten of them are a matter for a person."""

    def __init__(self, teacher: str):
        self.teacher = teacher
        self.end()

    def end(self) -> None:
        """A row can be used."""
        self.length, self.common = 0, set[str]()

    def add(self, reasons: Mapping[str, str]) -> None:
        """A row is set aside, or left for the next run."""
        names = {*reasons} & {*_HELP}
        if names & self.common:
            self.common, self.length = names & self.common, self.length + 1
        else:
            self.common, self.length = names, min(1, len(names))
        if self.length < _IN_A_ROW:
            return
        reason = next(name for name in _HELP if name in self.common)
        if reason == "no_answer":
            raise TeacherError(
                f"{self.teacher} brings no answers any more: {self.length} rows after each other were given up, the last "
                f"for: {reasons[reason]}"
            )
        raise TeacherError(
            f"{self.length} rows after each other can't be used for one reason, {reason}, the last because: "
            f"{reasons[reason].rstrip('.')}. What helps: {_HELP[reason]}"
        )
