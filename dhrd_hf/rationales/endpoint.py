"""A chat model behind an OpenAI-compatible endpoint as the teacher, through the `openai` SDK."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from .replies import error_in, error_status, message_of, read_body, read_reply
from .teacher import PROVIDERS, NoAnswer, Reply, Sampling, TeacherError, Unusable, without_secrets

_ROUTER = "https://router.huggingface.co/v1"
# The router and Inference Endpoints; not Spaces, which run whatever their owner put there.
_HUB_HOSTS = (".huggingface.co", ".hf.co", ".huggingface.cloud")
# The variable whose key belongs to a host, and the path that its API has there.
_HOSTS = {
    "api.openai.com": ("OPENAI_API_KEY", "/v1"),
    "api.anthropic.com": ("ANTHROPIC_API_KEY", "/v1"),
    "api.deepseek.com": ("DEEPSEEK_API_KEY", "/v1"),
    "api.fireworks.ai": ("FIREWORKS_API_KEY", "/inference/v1"),
    "api.groq.com": ("GROQ_API_KEY", "/openai/v1"),
    "api.mistral.ai": ("MISTRAL_API_KEY", "/v1"),
    "api.together.xyz": ("TOGETHER_API_KEY", "/v1"),
    "api.x.ai": ("XAI_API_KEY", "/v1"),
    "generativelanguage.googleapis.com": ("GEMINI_API_KEY", "/v1beta/openai"),
    "openrouter.ai": ("OPENROUTER_API_KEY", "/api/v1"),
}
_TAIL = re.compile(
    r"/(?:chat/completions|completions|responses|embeddings|models|batches|api/(?:chat|generate|tags))$"
)
_NOBODY = ("ClientConnector", "ConnectError", "UnsupportedProtocol", "InvalidURL", "NonHttpUrl", "InvalidUrl")


class EndpointTeacher:
    """A chat model behind an OpenAI-compatible endpoint (vLLM, TGI, llama.cpp, Ollama, OpenAI) or Inference Providers."""

    def __init__(
        self,
        url: str | None,
        model: str | None = None,
        sampling: Sampling | None = None,
        *,
        api_key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 120.0,
    ):
        if concurrency < 1 or not timeout > 0:
            raise ValueError(f"concurrency={concurrency} and timeout={timeout} must be above 0")
        self.url, login, self._query = base_url(url or _ROUTER)
        self.model, self.sampling = model, sampling or Sampling()
        self.concurrency, self.timeout = concurrency, timeout
        self.name = self.url if url else PROVIDERS.rstrip(":")
        self._lists = url is not None
        self._key, self._key_source, self._lacking = find_api_key(self.url, api_key_env)
        if self._key and not re.fullmatch(r"[!-~]+", self._key):  # the HTTP client would quote it in its error
            raise ValueError(
                f"the key from {self._key_source} holds a blank, a line's end or a character that no key has: copy it again"
            )
        self._login = None if self._key else login
        secrets = [self._key or "", login or "", (login or "").partition(":")[2]]
        without_secrets([dict(self.sampling.extra_body), self._query], secrets)
        self._secrets = sorted({it for it in secrets if len(it) > 3}, key=len, reverse=True)
        self._limit_name, self._answered = "max_tokens", False

    async def __aenter__(self) -> EndpointTeacher:
        if self._lacking:
            raise TeacherError(self._lacking)
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise TeacherError(f'an endpoint needs the openai SDK ({error}): pip install "dhrd-hf[teacher]"') from None
        # aiohttp's transport takes a third of the default one's time. A redirect may lead to another origin. To read all
        # certificates takes time, which plain HTTP has no need of.
        self._http = openai.DefaultAioHttpClient(
            follow_redirects=False, timeout=None, trust_env=not _is_loopback(self.url),
            verify=self.url.startswith("https"), limits=httpx2.Limits(max_connections=self.concurrency),
        )  # fmt: skip
        # Requests go through the SDK's HTTP client: the SDK's own methods know no BOM, no event stream that nobody asked for,
        # no second object behind the first, and take as much time again as the request.
        self._client = openai.AsyncOpenAI(base_url=self.url, api_key=self._key or "none", http_client=self._http)
        headers: dict[str, Any] = {"Accept": "application/json", "Content-Type": "application/json"}
        if _openais(self.url):  # what the environment says of OpenAI's account is for OpenAI
            headers |= {name: value for name, value in self._client.default_headers.items() if isinstance(value, str)}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        elif self._login:
            headers["Authorization"] = f"Basic {base64.b64encode(self._login.encode()).decode()}"
        query = f"?{urlencode(self._query)}" if self._query else ""
        urls = {path: httpx2.URL(self.url + path + query) for path in ("/chat/completions", "/models")}

        def request(path: str, body: dict[str, Any] | None = None) -> httpx2.Request:
            content = None if body is None else json.dumps(body).encode()
            return httpx2.Request("POST" if body else "GET", urls[path], headers=headers, content=content)

        self._request = request
        try:
            if self.model is None and (listed := await self._listed_models()):
                if len(listed) > 1:
                    raise TeacherError(f"{self.name} has several models: type --teacher-model {_some(listed)}")
                self.model = listed[0]
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.close()

    def body(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> dict[str, Any]:
        sampling = self.sampling
        every = {
            "model": self.model or "default",
            "messages": list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._limit_name: sampling.max_reply_tokens or None,
            "seed": seed,
        }
        return {name: value for name, value in every.items() if value is not None} | dict(sampling.extra_body)

    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply:
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self._http.send(self._request("/chat/completions", self.body(messages, seed)))
        except TimeoutError:
            raise NoAnswer(f"no answer within {self.timeout:g} s", paid=True) from None
        # What goes wrong on the way has as many exception classes as there are libraries.
        except Exception as error:
            raise self._lost(error) from None
        found: dict[str, Any] = {}
        try:
            found = read_body(answer.content)
            if answer.is_success and not error_in(found):
                self._answered = True
                return read_reply(found, messages, self._redacted)
        except (ValueError, RecursionError) as error:
            if answer.is_success:
                raise NoAnswer(self._redacted(str(error)), paid=True) from None
        error = error_in(found) if answer.is_success else found.get("error") or found
        status = error_status(error) if answer.is_success else answer.status_code
        raise await self._failure(status, self._redacted(message_of(error))[:300], answer.headers)

    async def _failure(self, status: int | None, said: str, headers: Mapping[str, str]) -> Exception:
        """What an error of the endpoint is: one that no further try changes, a request that it refuses, or no answer."""
        because = f": {said}" if said else ""
        told = f"({status}{because})"
        if status == 404 or (status == 400 and not self._answered and "model" in said.casefold()):
            listed = await self._listed_models()
            if listed and self.model not in listed:
                return TeacherError(
                    f"{self.name} has no model {self.model!r}: type --teacher-model {_some(listed)} {told}"
                )
        if status == 429 and re.search(r"insufficient_quota|exceeded your current quota|billing", said):
            status = 402
        if status in (401, 403):
            key = f"the key from {self._key_source} was refused"
            none = (
                "no key was found, and the endpoint wants one: name the variable that holds it, such as --api-key-env "
            )
            return TeacherError(f"{self.name}: {key if self._key else f'{none}OPENAI_API_KEY'} {told}")
        if status == 402:
            return TeacherError(f"{self.name} wants to be paid before it answers {told}")
        if status is not None and 300 <= status < 400:
            to = self._redacted(_without_query(headers.get("location", ""))) or "nowhere"
            return TeacherError(
                f"{self.name} sends on to {to} ({status}), where no key follows: name that in --teacher"
            )
        if status in (404, 405):
            return TeacherError(
                f"{self.name} answers {told}. Check --teacher-model ({self.model!r}) and the URL, which usually ends in /v1"
            )
        if status in (400, 413, 422):
            if "max_completion_tokens" not in said:
                return Unusable(f"the endpoint refuses the request ({status}){because}")
            # As OpenAI's reasoning models want it; others may be under way already.
            self._limit_name = "max_completion_tokens"
            return NoAnswer("the endpoint calls the limit of tokens max_completion_tokens", 0.0)
        what = f"an error, status {status}" if status else "an error instead of an answer"
        return NoAnswer(what + because, retry_after(headers), status in (429, 503, 529))

    async def _listed_models(self) -> list[str]:
        """The models that the endpoint lists; none where it has no such list."""
        if not self._lists:
            return []
        try:
            async with asyncio.timeout(min(self.timeout, 20.0)):
                answer = await self._http.send(self._request("/models"))
        except Exception as error:
            self._lost(error)
            return []
        try:
            return [str(entry["id"]) for entry in read_body(answer.content)["data"]] if answer.is_success else []
        except (ValueError, LookupError, TypeError):
            return []

    def _lost(self, error: BaseException) -> NoAnswer:
        """What a connection that failed is; nobody there at the first request is a wrong address, later it may be a restart."""
        names = [type(error).__name__]
        while error.__cause__ is not None:
            error = error.__cause__
            names.append(type(error).__name__)
        nobody = any(name.startswith(_NOBODY) for name in names)
        what = self._redacted(" ".join(str(error).split()))[:200]
        if nobody and not self._answered:
            raise TeacherError(
                f"nothing answers at {self.name} ({what}): start the server, or check --teacher"
            ) from None
        return NoAnswer(f"{names[-1]}{': ' + what if what else ''}", paid=not nobody)

    def _redacted(self, text: str, least: int = 0) -> str:
        """A text without the secrets; a short one may be a word of a reply."""
        for secret in self._secrets:
            if len(secret) >= least:
                text = text.replace(secret, "[secret]")
        return text


def base_url(url: str) -> tuple[str, str | None, dict[str, str]]:
    """Where an endpoint's paths begin, whatever of them was typed; with its user and password, and its query."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        port, host = None, ""
    if not host:
        raise ValueError(f"--teacher {_without_query(url)!r} names no host: type it as in http://localhost:8000/v1")
    path = re.sub("//+", "/", parts.path).rstrip("/")
    path = _TAIL.sub("", path).removesuffix("/api" if port == 11434 else "\0")
    _, known = _HOSTS.get(host, ("", "/openai/v1" if host.endswith(".openai.azure.com") else "/v1"))
    if not path or (known != "/v1" and known.startswith(path + "/")):
        path = known
    place = f"[{host}]" if ":" in host else host
    clean = urlunsplit((parts.scheme, place if port is None else f"{place}:{port}", path, "", ""))
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
    return clean, login, dict(parse_qsl(parts.query))


def find_api_key(url: str, variable: str | None = None) -> tuple[str | None, str, str]:
    """The key for an endpoint, where it was found (in the variable that is named, else in this host's own), and what is
    wrong where there has to be one: a dry run and a batch file need none."""
    from huggingface_hub import get_token

    host, own, key = urlsplit(url).hostname or "", "", None
    if variable is not None:
        own = variable
    elif _openais(url):
        own = "OPENAI_API_KEY"
    elif _origin(url) == ("https", host, 443):
        own = _HOSTS[host][0] if host in _HOSTS else ""
        if f".{host}".endswith(_HUB_HOSTS):
            key, own = get_token(), "HF_TOKEN or `hf auth login`"
    key = key or os.environ.get(own, "").strip() or None
    if variable is not None and not key:
        raise ValueError(f"--api-key-env {variable}: there is no environment variable {variable!r}, or it is empty")
    lacking = not key and own and not _is_loopback(url)
    return key, own, f"{host} wants a key: set {own}, or name a variable by --api-key-env" if lacking else ""


def _openais(url: str) -> bool:
    """Whether this is where the environment's OpenAI account is: OpenAI itself, or the origin that OPENAI_BASE_URL names."""
    named = ("https://api.openai.com", os.environ.get("OPENAI_BASE_URL") or "")
    return _origin(url) in [_origin(it) for it in named]


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _without_query(url: str) -> str:
    """A URL without what may be a secret in it: a user's name and password, a query."""
    return re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", url)[0])


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a response asks us to wait, from its `Retry-After`, in seconds or as a date."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after") or headers.get("Retry-After")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value or "nan")
    except ValueError:
        try:
            when = parsedate_to_datetime(value or "")
        except (TypeError, ValueError):
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)


def _some(names: Sequence[str]) -> str:
    return " or ".join(names[:5]) + (f" or one of {len(names) - 5} more" if len(names) > 5 else "")
