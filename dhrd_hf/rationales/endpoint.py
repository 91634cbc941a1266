"""A chat model behind an OpenAI-compatible endpoint, through the `openai` SDK; its answers are read in whatever form."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from .teacher import NoAnswer, Reply, Sampling, TeacherError, Unusable, estimated_tokens, tokens_of, without_secrets

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
_TAIL = re.compile(r"/(?:(?:chat/)?completions|responses|embeddings|models|batches|api/(?:chat|generate|tags))$")
# What servers call their errors, where they give no status.
_KINDS = {
    "authentication": 401, "api_key": 401, "permission": 403, "quota": 402, "billing": 402, "not_found": 404,
    "invalid_request": 400, "bad_request": 400, "badrequest": 400, "context_length": 400, "content_filter": 400,
    "rate_limit": 429, "overloaded": 529,
}  # fmt: skip
_THOUGHTS = ("thinking", "reasoning", "redacted_thinking", "thought")
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
_UNPAID = re.compile(r"insufficient_quota|exceeded your current quota|billing")
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
        self.url, login, self._query = base_url(url or "https://router.huggingface.co/v1")
        self.model, self.sampling = model, sampling or Sampling()
        self.concurrency, self.timeout = concurrency, timeout
        self.name = self.url if url else "inference-providers"
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
        headers = httpx2.Headers({"Accept": "application/json", "Content-Type": "application/json"})
        if _openais(self.url):  # what the environment says of OpenAI's account is for OpenAI
            headers.update({name: it for name, it in self._client.default_headers.items() if isinstance(it, str)})
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        elif self._login:
            headers["Authorization"] = f"Basic {base64.b64encode(self._login.encode()).decode()}"
        query = f"?{urlencode(self._query)}" if self._query else ""
        chats, models = (httpx2.URL(self.url + path + query) for path in ("/chat/completions", "/models"))

        async def send(body: dict[str, Any] | None, seconds: float) -> httpx2.Response:
            content = None if body is None else json.dumps(body).encode()
            where = ("GET", models) if body is None else ("POST", chats)
            async with asyncio.timeout(seconds):
                return await self._http.send(httpx2.Request(*where, headers=headers, content=content))

        self._send = send
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
        every = {"model": self.model or "default", "messages": list(messages), "temperature": sampling.temperature}
        every |= {"top_p": sampling.top_p, self._limit_name: sampling.max_reply_tokens or None, "seed": seed}
        return {name: value for name, value in every.items() if value is not None} | dict(sampling.extra_body)

    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply:
        try:
            answer = await self._send(self.body(messages, seed), self.timeout)
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
                return read_reply(found, messages, self._secrets)
        except (ValueError, RecursionError) as error:
            if answer.is_success:
                raise NoAnswer(redacted(str(error), self._secrets), paid=True) from None
        error = error_in(found) if answer.is_success else found.get("error") or found
        status = error_status(error) if answer.is_success else answer.status_code
        raise await self._failure(status, redacted(message_of(error), self._secrets)[:300], answer.headers)

    async def _failure(self, status: int | None, said: str, headers: Mapping[str, str]) -> Exception:
        """What an error of the endpoint is: one that no further try changes, a request that it refuses, or no answer."""
        because = f": {said}" if said else ""
        told, final = f"({status}{because})", ""
        if status == 404 or (status == 400 and not self._answered and "model" in said.casefold()):
            listed = await self._listed_models()
            if listed and self.model not in listed:
                final = f" has no model {self.model!r}: type --teacher-model {_some(listed)} {told}"
        if status in (401, 403):
            none = "no key was found, and the endpoint wants one: name the variable that holds it, such as"
            refused = f"the key from {self._key_source} was refused"
            final = f": {refused if self._key else f'{none} --api-key-env OPENAI_API_KEY'} {told}"
        elif status == 402 or (status == 429 and _UNPAID.search(said)):
            final = f" wants to be paid before it answers {told}"
        elif status is not None and 300 <= status < 400:
            to = redacted(_without_query(headers.get("location", "")), self._secrets) or "nowhere"
            final = f" sends on to {to} ({status}), where no key follows: name that in --teacher"
        elif status in (404, 405) and not final:
            check = f"Check --teacher-model ({self.model!r}) and the URL, which usually ends in /v1"
            final = f" answers {told}. {check}"
        if final:
            return TeacherError(self.name + final)
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
        try:
            answer = await self._send(None, min(self.timeout, 20.0)) if self.name == self.url else None
            return [str(it["id"]) for it in read_body(answer.content)["data"]] if answer and answer.is_success else []
        except Exception as error:
            self._lost(error)  # raises where nobody is there
            return []

    def _lost(self, error: BaseException) -> NoAnswer:
        """What a connection that failed is; nobody there at the first request is a wrong address, later it may be a restart."""
        names = [type(error).__name__]
        while error.__cause__ is not None:
            error = error.__cause__
            names.append(type(error).__name__)
        nobody = any(name.startswith(_NOBODY) for name in names)
        what = redacted(" ".join(str(error).split()), self._secrets)[:200]
        if nobody and not self._answered:
            said = f"nothing answers at {self.name} ({what}): start the server, or check --teacher"
            raise TeacherError(said) from None
        return NoAnswer(f"{names[-1]}{what and ': ' + what}", paid=not nobody)


def redacted(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
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
    clean = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2].lower().rstrip(":"), path, "", ""))
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
    return clean, login, dict(parse_qsl(parts.query))


def find_api_key(url: str, variable: str | None = None) -> tuple[str | None, str, str]:
    """The key for an endpoint, where it is to be found, and what to say where there has to be one that is lacking."""
    from huggingface_hub import get_token

    host, key, own = urlsplit(url).hostname or "", None, variable or ""
    if variable is None and _openais(url):
        own = "OPENAI_API_KEY"
    elif variable is None and _origin(url) == ("https", host, 443):
        own, _ = _HOSTS.get(host, ("", ""))
        if f".{host}".endswith(_HUB_HOSTS):
            key, own = get_token(), "HF_TOKEN or `hf auth login`"
    key = key or os.environ.get(own, "").strip() or None
    if variable is not None and not key:
        raise ValueError(f"--api-key-env {variable}: there is no environment variable {variable!r}, or it is empty")
    lacking = not key and own and not _is_loopback(url)
    return key, own, f"{host} wants a key: set {own}, or name a variable by --api-key-env" if lacking else ""


def _openais(url: str) -> bool:
    """Whether this is where the environment's OpenAI account is: OpenAI itself, or the origin that OPENAI_BASE_URL names."""
    return _origin(url) in map(_origin, ("https://api.openai.com", os.environ.get("OPENAI_BASE_URL", "")))


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
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after") or headers.get("Retry-After") or ""
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)


def _some(names: Sequence[str]) -> str:
    return " or ".join(names[:5]) + (f" or one of {len(names) - 5} more" if len(names) > 5 else "")


def read_body(content: bytes) -> dict[str, Any]:
    """The first JSON object of a body, or what an event stream adds up to."""
    text = content.decode(errors="replace").lstrip("\ufeff\0 \t\r\n")
    if re.match(r"(?:data|event|id|retry)?:", text):
        return _read_events(text)
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        kind = f"no whole JSON ({type(error).__name__}: {text[:60]!r}...)" if text else "empty"
        raise ValueError(f"the answer is {kind}") from None
    found = found[0] if isinstance(found, list) and found else found
    if not isinstance(found, dict):
        raise ValueError(f"the answer is no JSON object but {text[:60]!r}")
    return found


def _read_events(text: str) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    said, finish = ("", "", ""), None
    for data in re.findall(r"^data:(.*)$", text, re.MULTILINE):
        try:
            event = json.loads(data)
        except ValueError:
            continue  # the last one, where the connection broke; without a reason to finish the reply is no whole one
        if isinstance(event, dict):
            whole |= {key: event[key] for key in ("model", "usage", "error") if event.get(key)}
            for choice in _dicts(event.get("choices")):
                if not choice.get("index"):
                    finish = choice.get("finish_reason") or finish
                    said = tuple(before + piece for before, piece in zip(said, _said(choice), strict=True))
    if finish is None and not whole.get("error") and "[DONE]" not in text[-40:]:
        raise ValueError("the event stream breaks off before its end")
    message = dict(zip(("content", "reasoning", "refusal"), said, strict=True))
    choices = [{"message": message, "finish_reason": finish}] if any(said) or not whole.get("error") else []
    return whole | {"choices": choices}


def read_reply(found: Mapping[str, Any], messages: Sequence[Mapping[str, str]], secrets: Sequence[str] = ()) -> Reply:
    """What an answer says, in whatever form; an [`Unusable`] where that is nothing, a refusal or cut off."""
    choices = _dicts(found.get("choices")) or ([found] if isinstance(found.get("message"), dict) else [])
    if not choices:
        raise ValueError("the answer holds no choices")
    readings = [(*_said(choice), choice) for choice in choices]
    text, thoughts, refusal, choice = next((it for it in readings if it[0].strip()), readings[0])
    told = str(choice.get("finish_reason") or found.get("done_reason") or "stop").casefold()
    asked = sum(estimated_tokens(it["content"]) for it in messages)
    spent = sum(estimated_tokens(it) for reading in readings for it in reading[:2])
    took = tokens_of(found.get("usage"), asked, spent)
    text = redacted(text, [it for it in secrets if len(it) >= 8])  # a short one may be a word of the reply
    reply = Reply(text, str(found.get("model") or ""), *took[:2], "length" if told in _CUT else told, took[2])
    return reply.judged(bool(thoughts), redacted(refusal, secrets))


def _said(choice: Mapping[str, Any]) -> tuple[str, str, str]:
    """The text of a choice, its thoughts and its refusal."""
    message = next((choice[it] for it in ("message", "delta", "text", "content") if choice.get(it)), None)
    message = message if isinstance(message, dict) else {"content": message}
    thoughts = next((message[it] for it in ("reasoning", "reasoning_content", "thinking") if message.get(it)), None)
    parts = [*_parts(message.get("content"), "text"), *_parts(message.get("refusal"), "refusal")]
    if not any(kind == "thoughts" for kind, _ in parts):
        parts += _parts(thoughts, "thoughts")
    texts = ("".join(text for its, text in parts if its == kind) for kind in ("text", "thoughts", "refusal"))
    # Half of a surrogate pair is JSON, and no text.
    return tuple(it.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for it in texts)  # type: ignore[return-value]


def _parts(content: Any, kind: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield kind, content
    elif isinstance(content, list):
        for part in content:
            yield from _parts(part, kind)
    elif isinstance(content, dict):
        named = str(content.get("type", ""))
        kind = "thoughts" if named in _THOUGHTS else "refusal" if named == "refusal" else kind
        names = ("text", "content", "value", "thinking", "reasoning", "refusal", "summary")
        inner = next((content[name] for name in names if content.get(name)), None)
        if inner is not None:
            yield from _parts(inner, kind)
        elif not named:
            yield kind, json.dumps(content, ensure_ascii=False)
    elif content is not None:
        yield kind, json.dumps(content)


def error_in(found: Mapping[str, Any]) -> Any:
    """The error that came as an answer, if one did; beside a reply that is whole it is a warning."""
    first = next(iter(_dicts(found.get("choices"))), {})
    if first.get("finish_reason") == "stop":
        return None
    is_one = found.get("object") == "error" or (not found.get("choices") and found.get("detail"))
    return found.get("error") or first.get("error") or (found if is_one else None)


def error_status(error: Any) -> int | None:
    """The status that an error in a body stands for."""
    error = error if isinstance(error, Mapping) else {"type": error}
    numbers = (str(error.get(name)) for name in ("code", "status", "status_code", "type"))
    found = [int(it) for it in numbers if it.isdigit() and 300 <= int(it) < 600]
    words = " ".join(str(error.get(name, "")) for name in ("code", "type", "status")).casefold().replace(" ", "_")
    return next(iter(found + [status for kind, status in _KINDS.items() if kind in words]), None)


def message_of(error: Any) -> str:
    """The text of an error in the forms that endpoints send it in."""
    if isinstance(error, Mapping):
        found = next((error[it] for it in ("message", "detail", "error", "msg") if error.get(it)), None)
        code = error.get("code") or error.get("type")
        text = message_of(found) if found else json.dumps(dict(error), ensure_ascii=False) if error else ""
        error = f"{text} [{code}]" if isinstance(code, str) and code and found and code not in text else text
    return " ".join(str(error).split())


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [it for it in (value if isinstance(value, list) else [value]) if isinstance(it, dict)]
