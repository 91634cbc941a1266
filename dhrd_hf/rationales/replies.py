"""What an endpoint answers, read in whatever form it comes: a reply that was paid for is not lost over its form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .budget import estimated_tokens
from .teacher import Reply

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
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found = found[0]
    if not isinstance(found, dict):
        raise ValueError(f"the answer is no JSON object but {text[:60]!r}")
    return found


def _read_events(text: str) -> dict[str, Any]:
    said: dict[str, str] = {"content": "", "reasoning": "", "refusal": ""}
    whole: dict[str, Any] = {"finish_reason": None}
    for line in text.split("\n"):
        name, _, data = line.partition(":")
        if name != "data" or data.strip() in ("", "[DONE]"):
            continue
        try:
            event = json.loads(data)
        except ValueError:
            continue  # the last one, where the connection broke; without a reason to finish the reply is no whole one
        if not isinstance(event, dict):
            continue
        whole |= {key: event[key] for key in ("model", "usage", "error") if event.get(key)}
        for choice in _dicts(event.get("choices")):
            if choice.get("index"):
                continue
            part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]
            pieces = _said(part if isinstance(part, dict) else {"content": part})
            said = {key: it + piece for (key, it), piece in zip(said.items(), pieces, strict=True)}
    if whole["finish_reason"] is None and not whole.get("error") and "[DONE]" not in text[-40:]:
        raise ValueError("the event stream breaks off before its end")
    choice = {"message": said, "finish_reason": whole.pop("finish_reason")}
    return whole | ({"choices": [choice]} if any(said.values()) or not whole.get("error") else {})


def read_reply(found: Mapping[str, Any], prompt_tokens: int) -> tuple[Reply, str, str]:
    """What an answer says, in whatever form; why it is empty if it is, and a refusal."""
    choices = _dicts(found.get("choices")) or _dicts(found.get("message"))
    if not choices:
        raise ValueError("the answer holds no choices")
    readings = []
    for choice in choices:
        message = choice.get("message", choice.get("delta", choice.get("text", choice.get("content"))))
        readings.append((*_said(message if isinstance(message, dict) else {"content": message}), choice))
    text, thoughts, refusal, choice = next((it for it in readings if it[0].strip()), readings[0])
    finish = str(choice.get("finish_reason") or found.get("done_reason") or "stop").casefold()
    spent = sum(estimated_tokens(it) for reading in readings for it in reading[:2])
    prompt, completion, estimated = tokens_of(found.get("usage"), prompt_tokens, spent)
    why_empty = ": all of it is thoughts; --max-reply-tokens leaves room for more, and --extra-body can turn them off"
    reply = Reply(
        text, str(found.get("model") or ""), prompt, completion, "length" if finish in _CUT else finish, estimated
    )
    return reply, why_empty if thoughts else "", refusal


def _said(message: Mapping[str, Any]) -> tuple[str, str, str]:
    """The text of a message, its thoughts and its refusal."""
    texts: dict[str, list[str]] = {"text": [], "thoughts": [], "refusal": []}
    for kind, text in _parts(message.get("content"), "text"):
        texts[kind].append(text)
    for name in ("reasoning", "reasoning_content", "thinking"):
        if message.get(name) and not texts["thoughts"]:
            texts["thoughts"] += [text for _, text in _parts(message[name], "thoughts")]
    texts["refusal"] += [text for _, text in _parts(message.get("refusal"), "refusal")]
    text, thoughts, refusal = ("".join(its) for its in texts.values())
    # Half of a surrogate pair is JSON, and no text.
    return tuple(it.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for it in (text, thoughts, refusal))  # type: ignore[return-value]


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
    prompt = _count(told.get("prompt_tokens")) or _count(told.get("input_tokens"))
    completion = _count(told.get("completion_tokens")) or _count(told.get("output_tokens"))
    total = _count(told.get("total_tokens"))
    details = told.get("completion_tokens_details")
    thoughts = _count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else 0
    if prompt and not completion and total > prompt:
        completion = total - prompt
    elif completion and not prompt and total > completion:
        prompt = total - completion
    if completion and thoughts > completion:  # they are a part of the reply, and are paid
        completion += thoughts
    estimated = not prompt or (not completion and completion_tokens > 0)
    prompt, completion = prompt or prompt_tokens, completion or completion_tokens
    return prompt, max(completion, total - prompt), estimated


def _count(value: Any) -> int:
    """A number of tokens that is one; else 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if 0 < number < 1e9 and not isinstance(value, bool) else 0


def error_status(error: Any) -> int | None:
    """The status that an error in a body stands for."""
    if not isinstance(error, Mapping):
        error = {"type": error}
    for name in ("code", "status", "status_code", "type"):
        value = error.get(name)
        if str(value).isdigit() and 300 <= int(value) < 600:
            return int(value)
    words = " ".join(str(error.get(name, "")) for name in ("code", "type", "status")).casefold().replace(" ", "_")
    return next((status for kind, status in _KINDS.items() if kind in words), None)


def server_message(content: bytes) -> str:
    """The text of an error in the forms that endpoints send it in."""
    try:
        body = read_body(content)
    except (ValueError, RecursionError):
        return ""
    return message_of(body.get("error") or body)


def message_of(error: Any) -> str:
    """The text of an error."""
    if isinstance(error, Mapping):
        found = next((error[it] for it in ("message", "detail", "error", "msg") if error.get(it)), None)
        code = error.get("code") or error.get("type")
        text = message_of(found) if found else json.dumps(dict(error), ensure_ascii=False)
        error = f"{text} [{code}]" if isinstance(code, str) and code and found and code not in text else text
    return " ".join(str(error).split())[:300]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [it for it in (value if isinstance(value, list) else [value]) if isinstance(it, dict)]
