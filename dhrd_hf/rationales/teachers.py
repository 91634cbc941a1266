"""Teachers: who is asked for a rationale. An endpoint that speaks the OpenAI protocol, or a local model.

A teacher is an async context manager with `model` (its name, of which the key of a reply is made), `ask(messages, seed)`
and `sampling` (the settings that shape its replies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .endpoint import PROVIDERS, EndpointTeacher, find_api_key
from .replies import Reply, Sampling

KINDS = (
    "an http(s) URL of an OpenAI-compatible endpoint such as http://localhost:8000/v1, inference-providers:MODEL, "
    "a local folder or Hub id of a chat model, smollm2, column:NAME or file:PATH"
)


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
