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
    """A request brought no answer that can be used, and another try may.

    Args:
        reason (`str`): What happened, for a person.
        retry_after (`float`, *optional*): Seconds that the endpoint asked us to wait.
        crowded (`bool`, *optional*, defaults to `False`): It has more requests than it wants.
    """

    def __init__(self, reason: str, retry_after: float | None = None, crowded: bool = False):
        super().__init__(reason)
        self.retry_after, self.crowded = retry_after, crowded


class BudgetSpent(Exception):
    """The budget allows no further request."""


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a response asks us to wait, from its `Retry-After`, in seconds or as a date.

    Example:

    ```python
    >>> from datetime import UTC, datetime
    >>> from dhrd_hf.rationales.pacing import retry_after
    >>> retry_after({"Retry-After": "2.5"})
    2.5
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> retry_after({"Retry-After": "Thu, 01 Jan 2026 12:00:30 GMT"}, now=noon)
    30.0

    ```

    Args:
        headers (`Mapping[str, str]`): The response's headers.
        now (`datetime`, *optional*): By default the clock's.

    Returns:
        `float`, *optional*: never negative; None where the header is missing or can't be read.
    """
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
    """Lets requests through: at most `concurrency` at a time, fewer while the endpoint says that there are too many.

    Additive increase, multiplicative decrease, as TCP does: a 429 halves the number that may run (requests that were
    under way by then don't halve it again), each answer adds its share of one. `Retry-After` holds all requests back.

    Example:

    ```python
    >>> import asyncio
    >>> from dhrd_hf.rationales.pacing import Pace
    >>> async def hello():
    ...     return "hello"
    >>> asyncio.run(Pace(concurrency=4).ask(hello))
    'hello'

    ```

    Args:
        concurrency (`int`): Most requests at a time.
        tries (`int`, *optional*, defaults to `8`): Times that a request is sent before it is given up.
    """

    def __init__(self, concurrency: int, tries: int = TRIES):
        self.concurrency, self.tries = concurrency, tries
        self.limit = float(concurrency)
        self.active = self.requests = self.errors = self.crowded = 0
        self.answered = False
        self._resume = self._last_cut = 0.0

    async def ask(self, request: Callable[[], Awaitable], admit: Callable[[], bool] = lambda: True):
        """Send a request until it brings an answer.

        Args:
            request (`Callable`): Sends it; raises [`NoAnswer`] where another try may help.
            admit (`Callable`, *optional*): Asked before each try; False is "not now", and it may raise.

        Returns:
            what `request` returns.

        Raises:
            NoAnswer: if no try brought one.
        """
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
    """What may be spent on an output file, over all the runs that write it, and what was.

    Example:

    ```python
    >>> from dhrd_hf.rationales.pacing import Budget
    >>> budget = Budget(price_input=1.0, price_output=4.0, max_cost=0.01)
    >>> budget.spend(1000, 500)
    >>> budget.cost
    0.003

    ```

    Args:
        max_requests, max_tokens (`int`, *optional*), max_cost (`float`, *optional*): The limits; None is no limit.
        price_input, price_output (`float`, *optional*, defaults to 0): Price of a million tokens, in any currency.
        expected (`int`, *optional*, defaults to 0): Tokens to expect of a request as long as none has told us.
    """

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
        """What a number of tokens costs.

        Args:
            prompt_tokens, completion_tokens (`float`): The numbers.

        Returns:
            `float`: in the prices' currency.
        """
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what an answer took.

        Args:
            prompt_tokens, completion_tokens (`int`): As the endpoint says.
        """
        self.replies += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def admit(self, active: int) -> bool:
        """Whether one more request may be sent while others are under way; it is counted if so.

        Args:
            active (`int`): Requests that are under way, of which nobody knows yet what they take.

        Returns:
            `bool`: False while it depends on those.

        Raises:
            BudgetSpent: if none may be sent any more; `spent` says which limit it was.
        """
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
