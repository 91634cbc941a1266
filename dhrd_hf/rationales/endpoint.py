"""A chat model behind an OpenAI-compatible endpoint as the teacher, through `huggingface_hub`'s client."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .pacing import NoAnswer, TeacherError, retry_after
from .replies import Reply, Sampling, Unusable

PROVIDERS = "inference-providers:"

# What no further try changes: key, permission, credit, model, path.
_HOPELESS = {401, 402, 403, 404, 405}
_BAD_REQUEST = {400, 413, 422}
# Connections of one HTTP client. It looks at each of its connections with every request, so many clients of few connections
# take less time than one of many (2.5 ms a request with 4, 3.7 ms with 16); above 20 it would close them after each answer.
_CONNECTIONS = 4
# The router and Inference Endpoints; not Spaces, which run whatever their owner put there.
_HUB_HOSTS = (".huggingface.co", ".hf.co", ".huggingface.cloud")
_HERE = ("localhost", "127.0.0.1", "::1")


class EndpointTeacher:
    """A chat model behind an OpenAI-compatible endpoint (vLLM, TGI, llama.cpp, Ollama, OpenAI) or Inference Providers."""

    def __init__(
        self,
        url: str | None,
        model: str | None = None,
        sampling: Sampling | None = None,
        api_key: str | None = None,
        key_source: str = "",
        concurrency: int = 32,
        timeout: float = 120.0,
    ):
        if concurrency < 1 or timeout <= 0:
            raise ValueError(f"concurrency={concurrency} and timeout={timeout} must be above 0")
        if api_key and not re.fullmatch(r"[!-~]+", api_key):  # the HTTP client would quote it in its error
            raise ValueError(
                f"the key from {key_source or 'api_key'} holds a blank, a line's end or a character that no key has: "
                "copy it again"
            )
        self.url, self.model, self.sampling = url, model, sampling or Sampling()
        self.concurrency, self.timeout = concurrency, timeout
        self.name = PROVIDERS.rstrip(":") if url is None else without_secrets(url)
        self._key, self._key_source = api_key, key_source
        self._answered = False
        self._turn = 0

    async def __aenter__(self) -> EndpointTeacher:
        self._stack = AsyncExitStack()
        # Without a key of its own the client would send the Hub's token, to whatever endpoint this is.
        key = self._key or "none"
        where = {"provider": "auto"} if self.url is None else {"base_url": self.url}
        count = -(-self.concurrency // _CONNECTIONS)
        make = _client_class() if self.url is not None else _stock_client_class()
        self._clients = [
            await self._stack.enter_async_context(make(api_key=key, timeout=self.timeout, **where))
            for _ in range(count)
        ]
        for (
            client
        ) in self._clients:  # before the first request, whose time it would take: a client reads all certificates
            await client._get_async_client()
        if self.model is None and self.url is not None:
            self.model = self._only_model(await self._listed_models())
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.aclose()

    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply:
        """Ask for one reply."""
        from huggingface_hub.errors import HfHubHTTPError

        sampling, self._turn = self.sampling, self._turn + 1
        request = self._clients[self._turn % len(self._clients)].chat_completion(
            list(messages),
            model=self.model,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_reply_tokens or None,
            seed=seed,
            extra_body=dict(sampling.extra_body) or None,
        )
        try:
            # The client's timeout starts anew with each piece that arrives; this one doesn't.
            answer = await asyncio.wait_for(request, self.timeout)
            reply = _reply(answer)
        except HfHubHTTPError as error:
            await self._refused(error.response)
        except TimeoutError:  # also huggingface_hub's own
            raise NoAnswer(f"no answer within {self.timeout:g} s") from None
        # Whatever else goes wrong, on the way or in the answer's form, has as many exception classes as libraries.
        except Exception as error:
            self._check_reachable(error)
            what = self._redacted(" ".join(str(error).split()))[:200]
            raise NoAnswer(f"{type(error).__name__}{': ' + what if what else ''}") from error
        self._answered = True
        if reply.finish_reason == "length":
            raise Unusable(
                f"the reply was cut off after {reply.completion_tokens or sampling.max_reply_tokens} tokens; "
                "--max-reply-tokens allows more",
                reply,
                "cut_off",
            )
        if not reply.text.strip():
            raise Unusable("the reply was empty", reply, "empty")
        return reply

    async def _refused(self, response: Any) -> None:
        status, said = response.status_code, _server_message(response)
        said = self._redacted(f": {said}" if said else "")
        if status in _HOPELESS:
            raise TeacherError(await self._hopeless(status, said))
        if status in _BAD_REQUEST:
            if not self._answered and "model" in said.casefold():
                listed = await self._listed_models()
                if listed and self.model not in listed:
                    raise TeacherError(await self._hopeless(404, said))
            raise Unusable(f"the endpoint refuses the request ({status}){said}")
        raise NoAnswer(f"status {status}{said}", retry_after(response.headers), crowded=status in (429, 503, 529))

    async def _hopeless(self, status: int, said: str) -> str:
        if status in (401, 403):
            key = f"the key from {self._key_source}" if self._key else "no key was found, and the endpoint"
            hint = "was refused" if self._key else "wants one: set OPENAI_API_KEY, or name a variable by --api-key-env"
            return f"{self.name}: {key} {hint} ({status}{said})"
        if status == 402:
            return f"{self.name} wants to be paid before it answers ({status}{said})"
        listed = [] if self.url is None else await self._listed_models()
        if listed and self.model not in listed:
            return f"{self.name} has no model {self.model!r}: type --teacher-model {_some(listed)} ({status}{said})"
        return (
            f"{self.name} answers {status}{said}. Check --teacher-model ({self.model!r}) and the URL, which usually ends "
            "in /v1"
        )

    async def _listed_models(self) -> list[str]:
        """The models that the endpoint lists; none where it has no such list."""
        if self.url is None:
            return []
        session = await self._clients[0]._get_async_client()
        try:
            response = await asyncio.wait_for(
                session.get(
                    f"{self.url.rstrip('/').removesuffix('/chat/completions')}/models",
                    headers={"authorization": f"Bearer {self._key or 'none'}"},
                ),
                min(self.timeout, 20.0),
            )
            if response.status_code != 200:
                return []
            return [str(entry["id"]) for entry in response.json()["data"]]
        except Exception as error:
            self._check_reachable(error)
            return []

    def _only_model(self, listed: list[str]) -> str | None:
        if len(listed) > 1:
            raise TeacherError(f"{self.name} has several models: type --teacher-model {_some(listed)}")
        return listed[0] if listed else None

    def _check_reachable(self, error: BaseException) -> None:
        """Nobody there at the first request is a wrong address; later it may be a restart."""
        if not self._answered and type(error).__name__ in ("ConnectError", "UnsupportedProtocol", "InvalidURL"):
            raise TeacherError(
                f"nothing answers at {self.name} ({self._redacted(str(error))}): start the server, or check --teacher"
            ) from None

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def find_api_key(url: str | None, variable: str | None = None) -> tuple[str | None, str]:
    """The key for an endpoint, from the environment or the Hub's login, and where it was found."""
    from huggingface_hub import get_token

    if variable is not None:
        if not os.environ.get(variable, "").strip():
            raise ValueError(
                f"--api-key-env {variable}: there is no environment variable {variable!r}, or it is empty"
            )
        return os.environ[variable].strip(), variable
    host = "router.huggingface.co" if url is None else (urlsplit(url).hostname or "")
    hub = f".{host}".endswith(_HUB_HOSTS)
    openai = (os.environ.get("OPENAI_API_KEY", "").strip() or None, "OPENAI_API_KEY")
    login = ((get_token() if hub or host in _HERE else None), "HF_TOKEN or `hf auth login`")
    key, source = next((it for it in ((login, openai) if hub else (openai, login)) if it[0]), (None, ""))
    if key is None and hub:
        raise ValueError(f"{host} wants a key: set HF_TOKEN, or type `hf auth login`")
    if key is None and host == "api.openai.com":
        raise ValueError(f"{host} wants a key: set OPENAI_API_KEY, or name a variable by --api-key-env")
    return key, source


def without_secrets(url: str) -> str:
    """A URL without what may be a secret in it: a user's name and password, a query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _stock_client_class() -> type:
    from huggingface_hub import AsyncInferenceClient

    return AsyncInferenceClient


def _client_class() -> type:
    from huggingface_hub import AsyncInferenceClient

    class EndpointClient(AsyncInferenceClient):
        """For an endpoint of one's own, which HF_HUB_OFFLINE, that a machine without network sets, doesn't mean."""

        async def _get_async_client(self):
            session = await super()._get_async_client()
            hooks = session.event_hooks
            hooks["request"] = [it for it in hooks["request"] if not it.__module__.startswith("huggingface_hub.")]
            session.event_hooks = hooks
            return session

    return EndpointClient


def _reply(answer: Any) -> Reply:
    """What we need of an answer; a form that is not the protocol's is no answer."""
    choices = getattr(answer, "choices", None)
    if not choices:
        raise NoAnswer("the answer holds no choices")
    message, usage = choices[0].message, getattr(answer, "usage", None)
    return Reply(
        text=message.content or "",
        model=str(answer.model or ""),
        prompt_tokens=int(getattr(usage, "prompt_tokens", None) or 0),
        completion_tokens=int(getattr(usage, "completion_tokens", None) or 0),
        finish_reason=str(choices[0].finish_reason or "stop"),
    )


def _server_message(response: Any) -> str:
    """The error's text in the forms that endpoints send it in."""
    try:
        body = response.json()
    # Not JSON, or not read: huggingface_hub reads the body of an error only where it has a length.
    except Exception:
        return ""
    if not isinstance(body, dict):
        return ""
    found = body.get("error") or body.get("message") or body.get("detail") or ""
    if isinstance(found, dict):
        found = found.get("message") or json.dumps(found)
    return " ".join(str(found).split())[:300]


def _some(names: Sequence[str]) -> str:
    return " or ".join(names[:5]) + (f" or one of {len(names) - 5} more" if len(names) > 5 else "")
