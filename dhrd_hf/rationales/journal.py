"""The requests to a teacher and its replies on disk, a file of JSON lines that only grows; how the rows stand by it, and
what is spent.

A line with `sent` is written before a request is sent, one with `reply` (or `failed`: why it can't be used) when its
answer is there, and one with `void` where the request is known to have cost nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
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


class Journal:
    """Lines that are with the system when `append` returns, and on the disk soon after."""

    def __init__(self, path: Path):
        self.path, self.torn, self.unreadable = path, 0, 0
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

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All that is there, in order, with the places of the lines; a last line without its end is cut off."""
        place = 0
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self.torn = len(line)
                    self._cut(place)
                    break
                record = None
                with suppress(ValueError, RecursionError):
                    record = json.loads(line)
                if isinstance(record, dict):
                    yield place, record
                else:
                    self.unreadable += 1
                place += len(line)

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
    requests: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0  # replies of which the endpoint did not tell the tokens
    unanswered: int = 0  # requests that brought no answer and may have been paid, and their tokens at most
    lost: tuple[int, int] = (0, 0)
    open: int = 0
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

    def lose(self, *took: int) -> None:
        """Count a request that brought no answer and may have been paid: as the largest so far, if nobody knows better."""
        prompt, completion = took or self.one
        self.lost = self.lost[0] + prompt, self.lost[1] + completion
        self.unanswered += 1

    def room(self) -> float:
        """How many further requests there is room for."""
        return max(
            0, min(((limit - used) / one for used, one, limit, _ in self._limits() if one), default=float("inf"))
        )

    def admit(self) -> bool:
        """Whether one more request may be sent while others are open; it is counted if so."""
        # Of the first request of all nobody knows what it will take, and of the next ones little: no more at a time than
        # replies are known, where it is not the requests that are counted.
        waits = self.open > self.replies and (self.max_tokens, self.max_cost) != (None, None)
        for used, one, limit, what in self._limits():
            if used >= limit or (not self.open and (self.replies or self.unanswered) and used + one > limit):
                self.spent = f"{round(used, 6)} of {limit} {what}"
                raise BudgetSpent(self.spent)
            waits = waits or (self.open > 0 and used + (self.open + 1) * one > limit)
        self.requests += not waits
        self.open += not waits
        return not waits

    def _limits(self) -> Iterator[tuple[float, float, float, str]]:
        """Of each limit what is used of it, what one request takes, and what it is called."""
        if self.max_requests is not None:
            yield self.requests - self.open, 1, self.max_requests, "requests (max_requests)"
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
    """A rationale that is still to be asked for."""

    slot: bytes
    sample: int
    row: LabelledRow
    messages: list[dict[str, str]]
    tries: int


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
    """Which rows are accepted, rejected or still to be asked, worked out from the journal alone.

    A slot is a rationale that is wanted, by what its replies are filed under: the key of the request, and the sample.
    """

    table: LabelledTable
    prompt: TeacherPrompt
    teacher: Teacher
    checks: ReplyChecks
    samples: int
    retries: int
    settings: dict[str, Any] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    undecided: int = 0
    # The places in the journal of the reply that was accepted, and of those that failed.
    accepted: dict[bytes, int] = field(default_factory=dict)
    failed: dict[bytes, list[int]] = field(default_factory=dict)
    # Replies that were empty or cut off: the journal says no more of them than what they took.
    unusable: Counter[bytes] = field(default_factory=Counter)
    # Slots that are set aside in this run.
    given_up: dict[bytes, tuple[dict[str, str], int]] = field(default_factory=dict)

    def load(self, journal: Journal, budget: Budget) -> None:
        """Read the journal, and count in the budget what its requests took."""
        self.journal = journal
        sent: dict[bytes, tuple[int, int]] = {}
        for place, record in journal.records():
            try:
                slot = bytes.fromhex(record["key"]) + record.get("sample", 0).to_bytes(2, "big")
                before = sent.pop(slot, None)
                if "sent" in record:
                    sent[slot] = int(record["sent"][0]), int(record["sent"][1])
                    budget.requests += 1
                    if before:  # its answer never came
                        budget.lose(*before)
                elif "void" not in record:
                    usage = record.get("usage") or {}
                    took = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
                    self.models[record.get("model") or "unnamed"] += 1
                    budget.settle(*took, estimated=bool(usage.get("estimated")))
                    budget.requests += before is None  # else it was counted when it was sent
                    if isinstance(record.get("reply"), str):
                        self.failed.setdefault(slot, []).append(place)
                    else:
                        self.unusable[slot] += 1
            except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
                journal.unreadable += 1
        for before in sent.values():
            budget.lose(*before)

    def outcome(self, it: LabelledRow) -> Outcome:
        """What became of a row."""
        if (empty := self.prompt.lacks(it.row)) is not None:
            return Outcome(why={"no_input": f"Column {empty!r} is empty."})
        if not (self.accepted or self.failed or self.given_up):  # nothing was asked yet
            self.undecided += self.samples
            return Outcome()
        found = [self._became(slot, it) for slot in self.asked(it)[1]]
        rationales = {sample: text for sample, (text, _, _) in enumerate(found) if text is not None}
        pending = sum(text is None and reasons is None for text, reasons, _ in found)
        self.undecided += pending
        why = {name: said for _, reasons, _ in found for name, said in (reasons or {}).items()}
        return Outcome(rationales, None if pending else why, sum(tries for *_, tries in found))

    def _became(self, slot: bytes, it: LabelledRow) -> tuple[str | None, dict[str, str] | None, int]:
        """A slot's rationale, else why it has none, neither where it is pending; and its tries."""
        if slot in self.accepted:
            reply = self.journal.reply(self.accepted[slot])
            return parse_reply(reply, self.prompt.labels, self.prompt.spellings).rationale or "", None, 1
        if slot in self.given_up:
            return None, *self.given_up[slot]
        places, reasons = self.failed.get(slot, []), {}
        for place in places:
            rationale, reasons = self.judge(self.journal.reply(place), it)
            if rationale is not None:
                self.accepted[slot] = place
                del self.failed[slot]
                return rationale, None, 1
        return None, reasons if len(places) > self.retries else None, len(places)

    def judge(self, reply: str, it: LabelledRow) -> tuple[str | None, dict[str, str]]:
        """The rationale in a reply if it passes, and what is wrong with it."""
        return self.checks.judge(reply, self.prompt, it.row, it.label)

    def to_ask(self) -> Iterator[Unit]:
        """What is undecided, each once, as the table is streamed."""
        seen: set[bytes] = set()
        for it in self.table:
            messages, slots = self.asked(it)
            for sample, slot in enumerate(slots):
                tries = len(self.failed.get(slot, ()))
                if not (slot in self.accepted or slot in self.given_up or slot in seen or tries > self.retries):
                    seen.add(slot)
                    yield Unit(slot, sample, it, messages, tries)

    def asked(self, it: LabelledRow) -> tuple[list[dict[str, str]], list[bytes]]:
        """The chat that asks for a row's rationale, and its slots; none where a column of its input is empty."""
        if self.prompt.lacks(it.row) is not None:
            return [], []
        messages = self.prompt.messages(it.row, it.label)
        key = bytes.fromhex(request_key(messages, it.label, self.settings["model"], self.settings["sampling"]))
        return messages, [key + sample.to_bytes(2, "big") for sample in range(self.samples)]

    def tries(self, unit: Unit) -> int:
        """How often a slot was asked for that has a reply each time."""
        return unit.tries + self.unusable[unit.slot]

    def request(self, unit: Unit, tries: int) -> tuple[list[dict[str, str]], int | None]:
        """The messages and the seed of a try; the teacher is told why the last reply of a slot whose replies failed did."""
        messages, seed = unit.messages, self.teacher.sampling.seed
        if places := self.failed.get(unit.slot):
            reply = self.journal.reply(places[-1])
            _, reasons = self.judge(reply, unit.row)
            # Who has to find the label is not told that it was another.
            said = [it for name, it in reasons.items() if not (name == "answer" and self.prompt.style == "free")]
            messages = messages + self.prompt.again(reply, said) if said else messages
        return messages, None if seed is None else seed + 1000 * unit.sample + tries
