"""What was asked and answered, in a file of JSON lines that only grows; all that is known of a run follows from its lines.

A line with `sent` is written before a request is sent, one with `reply` (or `failed`: why it can't be used) when its
answer is there, and one with `void` where the request is known to have cost nothing. One function says what a line means,
to the budget and to the slot that it is about, when it is written and when it is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .checks import ReplyChecks, parse_reply
from .outputs import Outcome
from .prompt import LabelledRow, LabelledTable, TeacherPrompt
from .teacher import Teacher

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SYNC = 0.2  # seconds between two fsyncs: what a power failure may take; a kill takes nothing


@dataclass(slots=True)
class Slot:
    """A rationale that is wanted, by what its replies are filed under: the key of the request, and the sample."""

    replies: list[int] = field(default_factory=list)  # their places in the journal
    accepted: int | None = None  # the place of the one that passes the checks
    unusable: int = 0  # replies that were empty or cut off, of which the journal says no more than what they took
    sent: tuple[int, int] | None = None  # the tokens at most of a request that is under way
    set_aside: tuple[dict[str, str], int] | None = None  # in this run: why, and after how many tries


class Journal:
    """Lines that are with the system when `append` returns, and on the disk soon after."""

    def __init__(self, path: Path, budget: Budget | None = None):
        self.path, self.torn, self.unreadable = path, 0, 0
        self.slots: defaultdict[bytes, Slot] = defaultdict(Slot)
        self.budget, self.models = budget or Budget(), Counter()
        self.error: OSError | None = None
        self._file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"another process is writing {path}: wait for it, or name another --output") from None
        self._reader: BinaryIO = open(path, "rb")  # noqa: SIM115
        self._size = self._file.seek(0, os.SEEK_END)
        self._dirty, self._closing = False, threading.Event()
        self._thread = threading.Thread(target=self._sync, name="journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        """Put what is left on the disk, and let go of the file."""
        self._closing.set()
        self._thread.join()
        self._reader.close()
        self._file.close()

    def load(self) -> None:
        """Read what is there; a last line without its end is cut off, and what was under way may have been paid."""
        place = 0
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self.torn = len(line)
                    self._cut(place)
                    break
                try:
                    self._count(place, json.loads(line))
                except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
                    self.unreadable += 1
                place += len(line)
        for slot in self.slots.values():
            self.lose(slot)

    def write(self, name: bytes, **said: Any) -> None:
        """Write down what happened to a slot."""
        record = {"key": name[:-2].hex(), "sample": int.from_bytes(name[-2:], "big"), **said}
        self._count(self.append(record), record)

    def _count(self, place: int, record: dict[str, Any]) -> None:
        slot = self.slots[bytes.fromhex(record["key"]) + record.get("sample", 0).to_bytes(2, "big")]
        if "sent" in record:
            at_most = int(record["sent"][0]), int(record["sent"][1])
            self.lose(slot)  # the answer to the one before never came
            slot.sent = at_most
            return
        if "void" not in record:
            usage = record.get("usage") or {}
            took = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            self.models[record.get("model") or "unnamed"] += 1
            self.budget.settle(*took, estimated=bool(usage.get("estimated")))
            if isinstance(record.get("reply"), str):
                slot.replies.append(place)
            else:
                slot.unusable += 1
        self.budget.requests += 1
        slot.sent = None

    def lose(self, slot: Slot) -> None:
        """Count a request that brought no answer and may have been paid, if one is under way."""
        if slot.sent is not None:
            self.budget.lose(*slot.sent)
            slot.sent = None

    def reply(self, place: int) -> str:
        """The reply in the line that begins at a place."""
        self._reader.seek(place)
        return json.loads(self._reader.readline())["reply"]

    def append(self, record: dict[str, Any]) -> int:
        if self.error is not None:
            raise self.error
        line, place = json.dumps(record, ensure_ascii=False).encode() + b"\n", self._size
        try:
            write_all(self._file, line)
        except OSError as error:  # the disk is full, for one: a line that is half there was never there
            self.error = error
            with suppress(OSError):  # else the next run cuts it off
                self._cut(place)
            raise
        self._dirty = True
        self._size += len(line)
        return place

    def clear(self) -> None:
        self._cut(0)

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self._size = size

    def _sync(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(_SYNC)
            if self._dirty:
                self._dirty = False
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:
                    self.error = self.error or error


def write_all(file: BinaryIO, data: bytes) -> None:
    """Unbuffered, so that nothing waits in a buffer for a disk that is full."""
    while data:
        data = data[file.write(data) :]


class BudgetSpent(Exception):
    """The budget allows no further request."""


@dataclass
class Budget:
    """What may be spent on an output file, over all the runs that write it, and what was."""

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_input: float = 0.0  # of a million tokens
    price_output: float = 0.0
    # Tokens of a prompt and of a reply, until there was one; then those of the largest.
    one: tuple[int, int] = (0, 0)
    requests: int = 0  # that have come to an end
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0  # replies of which the endpoint did not tell the tokens
    unanswered: int = 0  # requests that brought no answer and may have been paid, and their tokens at most
    lost: tuple[int, int] = (0, 0)
    open: int = 0  # requests that are under way
    spent: str | None = None

    def __post_init__(self):
        for name in ("max_requests", "max_tokens", "max_cost", "price_input", "price_output"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name}={value} must not be negative")
        if self.max_cost is not None and not (self.price_input or self.price_output):
            raise ValueError(
                "a budget in money needs the prices of a million tokens: --settings 'price_input: 0.1, price_output: 0.3'"
            )

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies, and at most of what brought no answer."""
        return self.prompt_tokens + self.completion_tokens + sum(self.lost)

    @property
    def cost(self) -> float:
        return self.price(self.prompt_tokens + self.lost[0], self.completion_tokens + self.lost[1])

    def price(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6

    def settle(self, prompt_tokens: int, completion_tokens: int, estimated: bool = False) -> None:
        before = self.one if self.replies else (0, 0)
        self.one = max(before[0], prompt_tokens), max(before[1], completion_tokens)
        self.replies += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.estimated += estimated

    def lose(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a request that brought no answer and may have been paid."""
        self.lost = self.lost[0] + prompt_tokens, self.lost[1] + completion_tokens
        self.unanswered += 1
        self.requests += 1

    def room(self) -> float:
        """How many further requests there is room for."""
        return max(
            0, min(((limit - used) / one for used, one, limit, _ in self._limits() if one), default=float("inf"))
        )

    def admit(self) -> bool:
        """Whether one more request may be sent while others are open; it is one of them if so."""
        # Of the first request of all nobody knows what it will take, and of the next ones little: no more at a time than
        # replies are known, where it is not the requests that are counted.
        waits = self.open > self.replies and (self.max_tokens, self.max_cost) != (None, None)
        for used, one, limit, what in self._limits():
            if used >= limit or (not self.open and (self.replies or self.unanswered) and used + one > limit):
                self.spent = f"{round(used, 6)} of {limit} {what}"
                raise BudgetSpent(self.spent)
            waits = waits or (self.open > 0 and used + (self.open + 1) * one > limit)
        self.open += not waits
        return not waits

    def _limits(self) -> Iterator[tuple[float, float, float, str]]:
        """Of each limit what is used of it, what one request takes, and what it is called."""
        if self.max_requests is not None:
            yield self.requests, 1, self.max_requests, "requests (max_requests)"
        if self.max_tokens is not None:
            yield self.tokens, sum(self.one), self.max_tokens, "tokens (--max-total-tokens)"
        if self.max_cost is not None:
            yield self.cost, self.price(*self.one), self.max_cost, "in money (--max-cost)"


def request_key(
    messages: Sequence[Mapping[str, str]], label: str, model: str | None, sampling: Mapping[str, Any]
) -> str:
    """What a reply is filed under: a hash of row and prompt (the messages and the gold label), model and sampling."""
    parts = [list(map(dict, messages)), label, model, dict(sampling)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


class Unit(NamedTuple):
    """A slot that is still to be asked for."""

    name: bytes
    slot: Slot
    sample: int
    row: LabelledRow
    messages: list[dict[str, str]]

    @property
    def tries(self) -> int:
        """How often it was asked for that has a reply each time."""
        return len(self.slot.replies) + self.slot.unusable


def check_tries(teacher: Teacher, samples: int, retries: int) -> None:
    """Check how often a row would be asked, before anything is."""
    if samples < 1 or retries < 0:
        raise ValueError(f"samples={samples} must be above 0 and retries={retries} not negative")
    if samples > 1 and teacher.sampling.temperature == 0:
        raise ValueError(
            f"{samples} samples of a row are all the same at temperature 0: add --settings 'temperature: 0.7'"
        )


@dataclass
class Standing:
    """Which rows are accepted, rejected or still to be asked, by the journal alone."""

    journal: Journal
    table: LabelledTable
    prompt: TeacherPrompt
    teacher: Teacher
    checks: ReplyChecks
    samples: int
    retries: int
    settings: dict[str, Any] = field(default_factory=dict)
    undecided: int = 0  # slots

    def outcome(self, it: LabelledRow) -> Outcome:
        """What became of a row."""
        if (empty := self.prompt.lacks(it.row)) is not None:
            return Outcome(why={"no_input": f"Column {empty!r} is empty."})
        found = [self._became(self.journal.slots[name], it) for name in self.asked(it)[1]]
        rationales = {sample: text for sample, (text, _, _) in enumerate(found) if text is not None}
        pending = sum(text is None and reasons is None for text, reasons, _ in found)
        self.undecided += pending
        why = {name: said for _, reasons, _ in found for name, said in (reasons or {}).items()}
        return Outcome(rationales, None if pending else why, sum(tries for *_, tries in found))

    def _became(self, slot: Slot, it: LabelledRow) -> tuple[str | None, dict[str, str] | None, int]:
        """A slot's rationale, else why it has none, neither where it is pending; and its tries."""
        if slot.accepted is not None:
            reply = self.journal.reply(slot.accepted)
            return parse_reply(reply, self.prompt.labels, self.prompt.spellings).rationale or "", None, 1
        if slot.set_aside is not None:
            return None, *slot.set_aside
        reasons: dict[str, str] = {}
        for place in slot.replies:
            rationale, reasons = self.judge(self.journal.reply(place), it)
            if rationale is not None:
                slot.accepted = place
                return rationale, None, 1
        return None, reasons if len(slot.replies) > self.retries else None, len(slot.replies)

    def judge(self, reply: str, it: LabelledRow) -> tuple[str | None, dict[str, str]]:
        """The rationale in a reply if it passes, and what is wrong with it."""
        return self.checks.judge(reply, self.prompt, it.row, it.label)

    def to_ask(self) -> Iterator[Unit]:
        """What is undecided, each once, as the table is streamed."""
        seen: set[bytes] = set()
        for it in self.table:
            messages, names = self.asked(it)
            for sample, name in enumerate(names):
                slot = self.journal.slots[name]
                decided = slot.accepted is not None or slot.set_aside or len(slot.replies) > self.retries
                if not decided and name not in seen:
                    seen.add(name)
                    yield Unit(name, slot, sample, it, messages)

    def asked(self, it: LabelledRow) -> tuple[list[dict[str, str]], list[bytes]]:
        """The chat that asks for a row's rationale, and the names of its slots; none where its input is empty."""
        if self.prompt.lacks(it.row) is not None:
            return [], []
        messages = self.prompt.messages(it.row, it.label)
        key = bytes.fromhex(request_key(messages, it.label, self.settings["model"], self.settings["sampling"]))
        return messages, [key + sample.to_bytes(2, "big") for sample in range(self.samples)]

    def request(self, unit: Unit, tries: int) -> tuple[list[dict[str, str]], int | None]:
        """The messages and the seed of a try; the teacher is told why the last reply of a slot whose replies failed did."""
        messages, seed = unit.messages, self.teacher.sampling.seed
        if unit.slot.replies:
            reply = self.journal.reply(unit.slot.replies[-1])
            _, reasons = self.judge(reply, unit.row)
            # Who has to find the label is not told that it was another.
            said = [it for name, it in reasons.items() if not (name == "answer" and self.prompt.style == "free")]
            messages = messages + self.prompt.again(reply, said) if said else messages
        return messages, None if seed is None else seed + 1000 * unit.sample + tries
