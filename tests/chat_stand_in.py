"""A chat endpoint on loopback that speaks the OpenAI protocol, and answers wrong on purpose in twenty-six ways.

What a row's next request gets is a function of the row and of how often it was asked: `plan(row)` is a list of faults,
one a request; after the last of them the row is answered well, or, if that is `"forever:FAULT"`, by that fault always.
"""

import asyncio
import json
import re
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

SENTINEL = "[END OF REASONING]"
# Nothing came, or nothing that can be used: asked again after a while.
ERRORS = (
    "429",
    "429 seconds",
    "429 date",
    "500",
    "502 html",
    "503",
    "hang",
    "cut before",
    "cut midway",
    "bad json",
    "no choices",
    "200 error",
    "broken events",
    "400",
)
# A reply that is not kept.
EMPTY = ("null", "empty", "cut off", "refusal field")
# A whole reply that fails a check.
BAD = ("wrong answer", "leak", "no sentinel", "refusal", "loop", "echo", "language", "no answer")
FAULTS = ERRORS + EMPTY + BAD


def good(row):
    return (
        f"The note about case {row} speaks of clouds over the harbour, and clouds such as these bring water down to the "
        "ground. Whoever walks there will need boots. "
    )


REPLIES = {
    "wrong answer": lambda row, label, other: f"{good(row)}{SENTINEL}\nAnswer: {other}",
    "leak": lambda row, label, other: f"{good(row)}So the ground is {label}. {SENTINEL}\nAnswer: {label}",
    "no sentinel": lambda row, label, other: f"{good(row)}\nAnswer: {label}",
    "refusal": lambda row, label, other: (
        f"I'm sorry, but as an AI I can't help with that. {SENTINEL}\nAnswer: {label}"
    ),
    "loop": lambda row, label, other: f"{'The clouds bring water down again. ' * 6}{SENTINEL}\nAnswer: {label}",
    "echo": lambda row, label, other: (
        f"Input: the case {row}. Right label: hidden. {good(row)}{SENTINEL}\nAnswer: {label}"
    ),
    "language": lambda row, label, other: (
        f"Die Wolken über dem Hafen bringen das Wasser auf den Boden, und wer dort im Fall {row} geht, braucht Stiefel. "
        f"{SENTINEL}\nAnswer: {label}"
    ),
    "no answer": lambda row, label, other: f"{good(row)}{SENTINEL}\n",
}


def rows(count):
    """Rows that the stand-in knows: it finds the number and the label in the prompt."""
    return [
        {
            "id": f"r{number}",
            "text": f"This is case {number}: there were many clouds over the harbour, and it was windy in the morning.",
            "label": ("soaked", "arid")[number % 2],
        }
        for number in range(count)
    ]


class ChatStandIn:
    """`with ChatStandIn(plan) as chat:` serves at `chat.url`.

    `chat.asked[row]` counts a row's requests, `chat.finished[row]` those that were answered well to the end, and
    `chat.after[row]` those that came when a good reply had been delivered `grace` seconds before.
    """

    def __init__(
        self,
        plan=lambda row: [],
        latency=0.0,
        models=("stand-in",),
        key=None,
        retry_after=0.2,
        answer=None,
        before=None,
    ):
        self.plan, self.latency, self.models, self.key, self.retry_after = plan, latency, models, key, retry_after
        # What a good answer becomes (JSON, or the bytes of a body), and what is answered to a request instead, if anything.
        self.change, self.before = answer, before
        self.asked, self.finished = Counter(), Counter()
        self.authorizations, self.headers, self.bodies = [], [], []
        self.keep_bodies = False
        self.active = self.most_active = 0

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self, started):
        async def main():
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            started.set()
            await self._stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(main())

    async def _connection(self, reader, writer):
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = {}
                while line := (await reader.readline()).decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(method, path, headers, body, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, method, path, headers, body, writer):
        self.authorizations.append(headers.get("authorization"))
        self.headers.append(headers)
        path = path.partition("?")[0]
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return await _send(writer, 401, {"error": {"message": "Incorrect API key provided"}})
        if method == "GET":
            return await _send(writer, 200, {"object": "list", "data": [{"id": name} for name in self.models]})
        asked = json.loads(body)
        if self.keep_bodies:
            self.bodies.append(asked)
        if self.before is not None:
            both = self.before.__code__.co_argcount == 2
            instead = self.before(asked, headers) if both else self.before(asked)
            if instead is not None:
                return await _send(writer, *instead)
        if path != "/v1/chat/completions" or asked["model"] not in self.models:
            return await _send(writer, 404, {"error": {"message": f"The model `{asked['model']}` does not exist."}})
        requests = [message["content"] for message in asked["messages"] if message["role"] == "user"]
        request = next(text for text in reversed(requests) if "case" in text)
        row = int(re.search(r"case (\d+)", request)[1])
        label = ("soaked", "arid")[row % 2]
        faults, turn = self.plan(row), self.asked[row]
        self.asked[row] += 1
        fault = (
            faults[turn]
            if turn < len(faults)
            else faults[-1]
            if faults and faults[-1].startswith("forever:")
            else None
        )
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            await asyncio.sleep(self.latency)
            return await self._reply(writer, row, label, fault and fault.removeprefix("forever:"))
        finally:
            self.active -= 1

    async def _reply(self, writer, row, label, fault):
        other = {"soaked": "arid", "arid": "soaked"}[label]
        wait = {
            "429 seconds": str(self.retry_after),
            "429 date": format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True),
        }
        if fault in ("429", "429 seconds", "429 date"):
            extra = {"Retry-After": wait[fault]} if fault in wait else {}
            return await _send(writer, 429, {"error": {"message": "Rate limit reached"}}, extra)
        if fault in ("400", "500", "503"):
            return await _send(writer, int(fault), {"error": {"message": "told to fail"}})
        if fault == "502 html":
            return await _send(writer, 502, b"<html><body>Bad Gateway</body></html>", {"Content-Type": "text/html"})
        if fault == "200 error":
            return await _send(writer, 200, {"error": {"message": "busy", "type": "overloaded_error"}})
        if fault == "broken events":
            return await _send(writer, 200, b'data: {"choices": [{"delta": {"content": "The note"}}]}\n\n')
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "cut before":
            writer.transport.abort()
            return False
        text = REPLIES[fault](row, label, other) if fault in REPLIES else f"{good(row)}{SENTINEL}\nAnswer: {label}"
        text = {"null": None, "refusal field": None, "empty": "", "cut off": good(row)[:60]}.get(fault, text)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if fault == "cut off" else "stop",
        }
        if fault == "refusal field":
            choice["message"]["refusal"] = "I can't help with that."
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "stand-in-2026",
            "choices": [] if fault == "no choices" else [choice],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
        if self.change is not None:
            answer = self.change(answer)
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if fault == "bad json":
            body = body[: len(body) // 2]
        if fault == "cut midway":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body[: len(body) // 2])
            await writer.drain()
            writer.transport.abort()
            return False
        await _send(writer, 200, body)
        if fault is None:
            self.finished[row] += 1
        return True


async def _send(writer, status, body, headers=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    every = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in every.items()) + "\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True
