"""What an endpoint answers, read in whatever form it comes: a reply that was paid for is not lost over its form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .teacher import Reply, estimated_tokens

# What servers call their errors, where they give no status.
_KINDS = {
    "authentication": 401, "api_key": 401, "permission": 403, "quota": 402, "billing": 402, "not_found": 404,
    "invalid_request": 400, "bad_request": 400, "badrequest": 400, "context_length": 400, "content_filter": 400,
    "rate_limit": 429, "overloaded": 529,
}  # fmt: skip
_THOUGHTS = ("thinking", "reasoning", "redacted_thinking", "thought")
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")


def read_body(content: bytes) -> dict[str, Any]:
    """The first JSON object of a body, or what an event stream adds up to."""
    text = content.decode(errors="replace").lstrip("\ufeff\0 \t\r\n")
    if re.match(r"(?:data|event|id|retry)?:", text):
        return _read_events(text)
    if not text:
        raise ValueError("the answer is empty")
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is no whole JSON ({type(error).__name__}: {text[:60]!r}...)") from None
    found = found[0] if isinstance(found, list) and found else found
    if not isinstance(found, dict):
        raise ValueError(f"the answer is no JSON object but {text[:60]!r}")
    return found


def _read_events(text: str) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    said, finish = ("", "", ""), None
    for line in text.split("\n"):
        name, _, data = line.partition(":")
        try:
            event = json.loads(data) if name == "data" else None
        except ValueError:
            continue  # the last one, where the connection broke; without a reason to finish the reply is no whole one
        if not isinstance(event, dict):
            continue
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


def read_reply(
    found: Mapping[str, Any],
    messages: Sequence[Mapping[str, str]],
    redacted: Callable[..., str] = lambda text, least=0: text,
) -> Reply:
    """What an answer says, in whatever form; an [`Unusable`] where that is nothing, a refusal or cut off."""
    choices = _dicts(found.get("choices")) or ([found] if isinstance(found.get("message"), dict) else [])
    if not choices:
        raise ValueError("the answer holds no choices")
    readings = [(*_said(choice), choice) for choice in choices]
    text, thoughts, refusal, choice = next((it for it in readings if it[0].strip()), readings[0])
    finish = str(choice.get("finish_reason") or found.get("done_reason") or "stop").casefold()
    asked = sum(estimated_tokens(it["content"]) for it in messages)
    spent = sum(estimated_tokens(it) for reading in readings for it in reading[:2])
    took = tokens_of(found.get("usage"), asked, spent)
    finish = "length" if finish in _CUT else finish
    reply = Reply(redacted(text, 8), str(found.get("model") or ""), *took[:2], finish, took[2])
    return reply.judged(bool(thoughts), redacted(refusal))


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


def tokens_of(usage: Any, prompt_tokens: int, completion_tokens: int) -> tuple[int, int, bool]:
    """Tokens of the prompt and of the reply, and whether one of them had to be taken from what its length suggests."""
    told = usage if isinstance(usage, Mapping) else {}
    details = told.get("completion_tokens_details")
    thoughts = _count(details, "reasoning_tokens") if isinstance(details, Mapping) else 0
    prompt, completion = (
        _count(told, f"{it}_tokens", f"{its}_tokens") for it, its in (("prompt", "input"), ("completion", "output"))
    )
    total = _count(told, "total_tokens")
    if prompt and not completion:
        completion = max(0, total - prompt)
    elif completion and not prompt:
        prompt = max(0, total - completion)
    if completion and thoughts > completion:  # they are a part of the reply, and are paid
        completion += thoughts
    estimated = not prompt or (not completion and completion_tokens > 0)
    prompt, completion = prompt or prompt_tokens, completion or completion_tokens
    return prompt, max(completion, total - prompt), estimated


def _count(told: Mapping[str, Any], *names: str) -> int:
    """The first number of tokens that is one; else 0."""
    for value in (told.get(name) for name in names):
        try:
            number = 0.0 if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            continue
        if 0 < number < 1e9:
            return int(number)
    return 0


def error_in(found: Mapping[str, Any]) -> Any:
    """The error that came as an answer, if one did; beside a reply that is whole it is a warning."""
    choices = found.get("choices")
    first = next(iter(_dicts(choices)), {})
    error = found.get("error") or first.get("error")
    if not error and (found.get("object") == "error" or (not choices and found.get("detail"))):
        error = found
    return None if first.get("finish_reason") == "stop" else error


def error_status(error: Any) -> int | None:
    """The status that an error in a body stands for."""
    error = error if isinstance(error, Mapping) else {"type": error}
    for name in ("code", "status", "status_code", "type"):
        value = str(error.get(name))
        if value.isdigit() and 300 <= int(value) < 600:
            return int(value)
    words = " ".join(str(error.get(name, "")) for name in ("code", "type", "status")).casefold().replace(" ", "_")
    return next((status for kind, status in _KINDS.items() if kind in words), None)


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
