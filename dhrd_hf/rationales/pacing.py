"""How fast a teacher is asked, and how much: concurrency that gives way, waits between tries, a budget."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Waits before the second, third, ... try: 0.5 s, 1 s, 2 s, ..., of which a random half is left out.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
# A row that brings no answer so many times is left for the next run: about a minute, if nothing tells us how long to wait.
TRIES = 8
_POLL = 0.01  # how often a request that has to wait looks whether it may go


class TeacherError(ValueError):
    """No request to this teacher can succeed: a wrong key, a model that it doesn't have, nobody there."""


class NoAnswer(Exception):
    """A request brought no answer that can be used, and another try may."""

    def __init__(self, reason: str, retry_after: float | None = None, crowded: bool = False):
        super().__init__(reason)
        self.retry_after, self.crowded = retry_after, crowded


class BudgetSpent(Exception):
    """The budget allows no further request."""


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a response asks us to wait, from its `Retry-After`, in seconds or as a date."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


class Pace:
    """Lets requests through."""

    def __init__(self, concurrency: int, tries: int = TRIES):
        self.concurrency, self.tries = concurrency, tries
        self.limit = float(concurrency)
        self.active = self.requests = self.errors = self.crowded = 0
        self.answered = False
        self._resume = self._last_cut = 0.0

    async def ask(self, request: Callable[[], Awaitable], admit: Callable[[], bool] = lambda: True):
        """Send a request until it brings an answer."""
        for attempt in range(self.tries):
            while self.active >= int(self.limit) or time.monotonic() < self._resume or not admit():
                await asyncio.sleep(max(_POLL, min(self._resume - time.monotonic(), 1.0)))
            self.active += 1
            self.requests += 1
            started = time.monotonic()
            try:
                answer = await request()
                self.limit = min(self.concurrency, self.limit + 1 / self.limit)
                self.answered = True
                return answer
            except NoAnswer as error:
                self.errors += 1
                self._give_way(error, started)
                if attempt + 1 == self.tries:
                    raise
                wait = error.retry_after
                if wait is None:
                    wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0)
            finally:
                self.active -= 1
            await asyncio.sleep(wait)

    def _give_way(self, error: NoAnswer, started: float) -> None:
        now = time.monotonic()
        if error.retry_after is not None:
            self._resume = max(self._resume, now + error.retry_after)
        if error.crowded:
            self.crowded += 1
            if started >= self._last_cut:
                self.limit, self._last_cut = max(1.0, self.limit / 2), now


@dataclass
class Budget:
    """What may be spent on an output file, over all the runs that write it, and what was."""

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_input: float = 0.0
    price_output: float = 0.0
    expected: int = 0
    requests: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spent: str | None = None

    def __post_init__(self):
        for name in ("max_requests", "max_tokens", "max_cost", "price_input", "price_output"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}={value} must not be negative")
        if self.max_cost is not None and not (self.price_input or self.price_output):
            raise ValueError(
                "a budget in money needs the prices: --price-input and --price-output, a million tokens each"
            )

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float:
        """What the tokens cost."""
        return self.price(self.prompt_tokens, self.completion_tokens)

    def price(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What a number of tokens costs."""
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what an answer took."""
        self.replies += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def admit(self, active: int) -> bool:
        """Whether one more request may be sent while others are under way; it is counted if so."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            self._stop(f"{self.requests} of {self.max_requests} requests (--max-requests)")
        each = self.tokens / self.replies if self.replies else self.expected
        # Until there is a reply, the dearer kind: the reply's length is all that can be dear and unknown.
        each_cost = self.cost / self.replies if self.replies else self.price(0, self.expected)
        limits = (
            (self.tokens, each, self.max_tokens, f"{self.tokens} of {self.max_tokens} tokens (--max-total-tokens)"),
            (self.cost, each_cost, self.max_cost, f"{self.cost:.4g} of {self.max_cost} in money (--max-cost)"),
        )
        for used, one, limit, said in limits:
            if limit is None:
                continue
            if used >= limit or (not active and self.replies and used + one > limit):
                self._stop(said)
            if active and used + (active + 1) * one > limit:
                return False
        self.requests += 1
        return True

    def _stop(self, said: str) -> None:
        self.spent = said
        raise BudgetSpent(said)
