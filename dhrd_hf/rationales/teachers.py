"""Teachers: who is asked for a rationale. An endpoint that speaks the OpenAI protocol, or a local model.

A teacher is an async context manager with `model` (its name, of which the key of a reply is made), `ask(messages, seed)`
and `sampling` (the settings that shape its replies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PROVIDERS = "inference-providers:"
KINDS = (
    "an http(s) URL of an OpenAI-compatible endpoint such as http://localhost:8000/v1, inference-providers:MODEL, "
    "a local folder or Hub id of a chat model, smollm2, column:NAME or file:PATH"
)


@dataclass(frozen=True)
class Reply:
    """What a teacher said.

    Args:
        text (`str`): The reply.
        model (`str`): The model's name, as the endpoint gives it.
        prompt_tokens, completion_tokens (`int`): What it took; 0 where the endpoint doesn't say.
        finish_reason (`str`): Why it ends, such as `"stop"`.
    """

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"


class Unusable(Exception):
    """A reply that is empty or was cut off, or a request that is refused: it is not kept, and says nothing of the next.

    Args:
        reason (`str`): What happened, for a person.
        reply ([`Reply`], *optional*): What came, for its tokens are paid.
        check (`str`, *optional*, defaults to `"refused"`): The name that it is counted under.
    """

    def __init__(self, reason: str, reply: Reply | None = None, check: str = "refused"):
        super().__init__(reason)
        self.reply, self.check = reply, check


@dataclass(frozen=True)
class Sampling:
    """How a teacher draws its replies.

    Example:

    ```python
    >>> from dhrd_hf.rationales.teachers import Sampling
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


class Teacher(Protocol):
    """What [`generate_rationales`] asks.

    Args:
        name (`str`): As the manifest names it.
        model (`str`, *optional*): Known once the teacher is entered.
        concurrency (`int`): Most requests at a time.
    """

    name: str
    model: str | None
    sampling: Sampling
    concurrency: int

    async def __aenter__(self) -> Teacher: ...

    async def __aexit__(self, *error: Any) -> None: ...

    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply:
        """Ask for one reply."""
        ...


def open_teacher(
    name: str,
    model: str | None = None,
    sampling: Sampling | None = None,
    *,
    api_key_env: str | None = None,
    concurrency: int = 32,
    timeout: float = 120.0,
    batch_size: int = 8,
    device: str | None = None,
) -> Teacher:
    """The teacher of a name, as `--teacher` takes it.

    Example:

    ```python
    >>> from dhrd_hf.rationales.teachers import open_teacher
    >>> open_teacher("http://localhost:8000/v1").name
    'http://localhost:8000/v1'

    ```

    Args:
        name (`str`): A URL, `inference-providers:MODEL`, a folder or Hub id of a chat model, or `smollm2`.
        model (`str`, *optional*): The model at an endpoint.
        sampling ([`Sampling`], *optional*): How to draw replies.
        api_key_env (`str`, *optional*): The environment variable with the endpoint's key.
        concurrency (`int`, *optional*, defaults to 32): Most requests at a time to an endpoint.
        timeout (`float`, *optional*, defaults to 120): Seconds until a request is given up.
        batch_size (`int`, *optional*, defaults to 8): Rows at a time of a local model.
        device (`str`, *optional*): Of a local model; by default the accelerator if there is one.

    Returns:
        [`Teacher`]: not entered yet.

    Raises:
        ValueError: if the name is none of these, or a key is missing.
    """
    if name.startswith(("http://", "https://", PROVIDERS)):
        from .endpoint import EndpointTeacher, find_api_key

    if name.startswith(("http://", "https://")):
        key, source = find_api_key(name, api_key_env)
        return EndpointTeacher(name, model, sampling, key, source, concurrency, timeout)
    if name.startswith(PROVIDERS):
        named = name.removeprefix(PROVIDERS)
        if not named or model not in (None, named):
            raise ValueError(f"--teacher {name}: name one model, as in {PROVIDERS}Qwen/Qwen3-8B")
        key, source = find_api_key(None, api_key_env)
        return EndpointTeacher(None, named, sampling, key, source, concurrency, timeout)
    if "://" in name or (":" in name and not Path(name).exists()) or not name.strip():
        raise ValueError(f"--teacher {name!r} is none of: {KINDS}")
    if model is not None:
        raise ValueError(f"--teacher-model is for an endpoint, and --teacher {name} is a local model: leave it out")
    from .local_teacher import LocalTeacher

    return LocalTeacher(name, sampling, batch_size=batch_size, device=device)
