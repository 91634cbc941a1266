"""What a teacher says, how it draws it, and what can't be used of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a teacher said."""

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"


class Unusable(Exception):
    """A reply that is empty or was cut off, or a request that is refused."""

    def __init__(self, reason: str, reply: Reply | None = None, check: str = "refused"):
        super().__init__(reason)
        self.reply, self.check = reply, check


@dataclass(frozen=True)
class Sampling:
    """How a teacher draws its replies.

    Example:

    ```python
    >>> from dhrd_hf.rationales.replies import Sampling
    >>> Sampling(temperature=0.2).settings()
    {'temperature': 0.2, 'max_reply_tokens': 1024}

    ```

    Args:
        temperature (`float`, *optional*, defaults to 0.7): 0 is greedy.
        top_p (`float`, *optional*): Nucleus sampling.
        max_reply_tokens (`int`, *optional*, defaults to 1024): Most tokens of a reply, thoughts of a reasoning model
            included; 0 leaves it to the endpoint.
        seed (`int`, *optional*): Sent with each request, another one for each try and sample.
        extra_body (`Mapping[str, Any]`, *optional*): What else is sent, such as
            `{"chat_template_kwargs": {"enable_thinking": False}}`.

    Raises:
        ValueError: if a number makes no sense.
    """

    temperature: float = 0.7
    top_p: float | None = None
    max_reply_tokens: int = 1024
    seed: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.temperature < 0 or self.max_reply_tokens < 0 or not (self.top_p is None or 0 < self.top_p <= 1):
            raise ValueError(
                f"temperature={self.temperature}, max_reply_tokens={self.max_reply_tokens}, top_p={self.top_p}: the first "
                "two must not be negative, the last between 0 and 1"
            )

    def settings(self) -> dict[str, Any]:
        """The settings that are not at rest, for a key and a manifest.

        Returns:
            `dict`: what JSON can hold.
        """
        every = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_reply_tokens": self.max_reply_tokens,
            "seed": self.seed,
            "extra_body": dict(self.extra_body) or None,
        }
        return {name: value for name, value in every.items() if value is not None}
