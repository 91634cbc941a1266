"""The requests to a teacher and its replies on disk, a file of JSON lines that only grows, and how the rows stand by it.

A line with `sent` is written before a request is sent, one with `reply` (or `failed`: why it can't be used) when its
answer is there, and one with `void` where the request is known to have cost nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .budget import Budget
from .checks import ReplyChecks, Verdict
from .labelled import LabelledRow, LabelledTable
from .outputs import Outcome
from .prompt import TeacherPrompt, request_key
from .teacher import Teacher

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SYNC = 0.2  # seconds between two fsyncs: what a power failure may take; a kill takes nothing


class Journal:
    """Lines that are with the system when `append` returns, and on the disk soon after."""

    def __init__(self, path: Path):
        self.path = path
        self.error: OSError | None = None
        self.torn = self.unreadable = 0
        self._file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        try:
            self._lock()
            self._repair()
        except BaseException:
            self._file.close()
            raise
        self._size = self._file.seek(0, os.SEEK_END)
        self._reader: BinaryIO | None = None
        self._dirty, self._closing = False, threading.Event()
        self._thread = threading.Thread(target=self._sync, name="journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All that is there, in order, with the places of the lines."""
        self.unreadable, place = 0, 0
        with open(self.path, "rb") as file:
            for line in file:
                record = _parsed(line)
                if record is None:
                    self.unreadable += 1
                else:
                    yield place, record
                place += len(line)

    def read(self, place: int) -> dict[str, Any]:
        """The line that begins at a place."""
        if self._reader is None:
            self._reader = open(self.path, "rb")  # noqa: SIM115 (closed by `close`)
        self._reader.seek(place)
        return json.loads(self._reader.readline())

    def append(self, record: dict[str, Any]) -> int:
        """Write a line; its place."""
        if self.error is not None:
            raise self.error
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            write_all(self._file, line)
        except OSError as error:  # the disk is full, for one: a line that is half there was never there
            self.error = error
            with suppress(OSError):  # else the next run repairs it
                os.ftruncate(self._file.fileno(), self._size)
            raise
        self._dirty = True
        self._size += len(line)
        return self._size - len(line)

    def clear(self) -> None:
        """Forget all that is there."""
        self._file.truncate(0)
        self._size = 0

    def close(self) -> None:
        """Put what is left on the disk, and let go of the file."""
        self._closing.set()
        self._thread.join()
        self._to_disk()
        for file in (self._reader, self._file):
            if file is not None:
                file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is writing {self.path}: wait for it, or name another --output"
            ) from None

    def _repair(self) -> None:
        """Cut off a last line without its end."""
        size = self._file.seek(0, os.SEEK_END)
        whole, step = size, 1 << 16
        while whole > 0:
            begin = max(0, whole - step)
            self._file.seek(begin)
            end = self._file.read(whole - begin).rfind(b"\n")
            if end >= 0:
                whole = begin + end + 1
                break
            whole = begin
        if whole < size:
            self.torn = size - whole
            self._file.truncate(whole)

    def _sync(self) -> None:
        while not self._closing.wait(_SYNC):
            self._to_disk()

    def _to_disk(self) -> None:
        if self._dirty:
            self._dirty = False
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self.error = self.error or error


class Unit(NamedTuple):
    """A rationale that is still to be asked for."""

    slot: bytes
    sample: int
    row: LabelledRow
    tries: int


class Standing:
    """Which rows are accepted, rejected or still to be asked, worked out from the journal alone.

    A slot is a rationale that is wanted, by what its replies are filed under: the key of the request, and the sample.
    """

    def __init__(
        self,
        table: LabelledTable,
        prompt: TeacherPrompt,
        teacher: Teacher,
        checks: ReplyChecks,
        samples: int,
        retries: int,
    ):
        self.table, self.prompt, self.teacher, self.checks = table, prompt, teacher, checks
        self.samples, self.retries = samples, retries
        self.settings: dict[str, Any] = {}
        self.models: Counter[str] = Counter()
        self.undecided = 0
        # The places in the journal of the reply that was accepted, and of those that failed.
        self.accepted: dict[bytes, int] = {}
        self.failed: dict[bytes, list[int]] = {}
        # Replies that were empty or cut off: the journal says no more of them than what they took.
        self.unusable: Counter[bytes] = Counter()
        # Slots that are set aside in this run.
        self.given_up: dict[bytes, tuple[dict[str, str], int]] = {}
        self.busy: set[bytes] = set()

    def load(self, journal: Journal, budget: Budget) -> None:
        """Read the journal, and count in the budget what its requests took."""
        self.journal = journal
        open_: dict[bytes, tuple[int, int]] = {}
        for place, record in journal.records():
            try:
                slot = slot_of(record["key"], record.get("sample", 0))
                if "sent" in record or "void" in record:
                    before = open_.pop(slot, None)
                    if "sent" in record:
                        open_[slot] = record["sent"][0], record["sent"][1]
                        budget.requests += 1
                        if before:  # its answer never came
                            budget.lose(*before)
                    continue
                usage = record.get("usage") or {}
                took = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            except (ValueError, TypeError, LookupError, OverflowError):
                journal.unreadable += 1
                continue
            budget.requests += open_.pop(slot, None) is None  # else it was counted when it was sent
            budget.settle(*took, estimated=bool(usage.get("estimated")))
            self.models[record.get("model") or "unnamed"] += 1
            if isinstance(record.get("reply"), str):
                self.failed.setdefault(slot, []).append(place)
            else:
                self.unusable[slot] += 1
        for before in open_.values():
            budget.lose(*before)

    def matches(self) -> bool:
        """Whether any reply belongs to a row of the table."""
        return any(slot in self.failed for it in self.table for slot in self.slots(it) or ())

    def reply(self, place: int) -> str:
        """A reply that is kept."""
        return self.journal.read(place)["reply"]

    def judge(self, reply: str, it: LabelledRow) -> Verdict:
        """What the checks say of a reply."""
        return self.checks.judge(reply, self.prompt, it.row, it.label)

    def outcome(self, it: LabelledRow) -> Outcome:
        """What became of a row."""
        slots = self.slots(it)
        if slots is None:
            empty = next(name for name in self.prompt.columns if it.row.get(name) is None)
            return Outcome(why={"no_input": f"Column {empty!r} is empty."})
        rationales: dict[int, str] = {}
        why: dict[str, str] = {}
        pending, tried = False, 0
        for sample, slot in enumerate(slots):
            reasons: dict[str, str] = {}
            places = self.failed.get(slot, [])
            tries = len(places)
            if slot not in self.accepted:
                for place in places:
                    verdict = self.judge(self.reply(place), it)
                    reasons = verdict.reasons
                    if verdict.accepted:
                        self.accepted[slot] = place
                        del self.failed[slot]
                        break
            if slot in self.accepted:
                rationales[sample] = self.prompt.parse(self.reply(self.accepted[slot])).rationale or ""
                tries = 1
            elif slot in self.given_up:
                reasons, tries = self.given_up[slot]
                why |= reasons
            elif places and tries > self.retries:
                why |= reasons
            else:
                pending = True
                self.undecided += 1
            tried += tries
        return Outcome(rationales, None if pending else why, tried)

    def to_ask(self) -> Iterator[Unit]:
        """What is undecided, each once, as the table is streamed."""
        for it in self.table:
            for sample, slot in enumerate(self.slots(it) or ()):
                tries = len(self.failed.get(slot, ()))
                if slot in self.accepted or slot in self.given_up or slot in self.busy or tries > self.retries:
                    continue
                self.busy.add(slot)
                yield Unit(slot, sample, it, tries)

    def slots(self, it: LabelledRow) -> list[bytes] | None:
        """The slots of a row; None where a column of its input is empty, so that there is nothing to ask."""
        if any(it.row.get(name) is None for name in self.prompt.columns):
            return None
        messages = self.prompt.messages(it.row, it.label)
        key = request_key(messages, it.label, self.settings["model"], self.settings["sampling"])
        return [slot_of(key, sample) for sample in range(self.samples)]

    def request(self, unit: Unit, tries: int, failed: tuple[str, dict[str, str]] | None) -> tuple[list, int | None]:
        """The messages and the seed of a try, with what the teacher is told of the reply before."""
        told = None
        if failed is not None:
            # Who has to find the label is not told that it was another.
            said = [it for name, it in failed[1].items() if not (name == "answer" and self.prompt.style == "free")]
            told = (failed[0], said) if said else None
        seed = self.teacher.sampling.seed
        seed = None if seed is None else seed + 1000 * unit.sample + tries
        return self.prompt.messages(unit.row.row, unit.row.label, told), seed

    def last_failed(self, unit: Unit) -> tuple[str, dict[str, str]] | None:
        """The last reply of a slot whose replies all failed, and why."""
        places = self.failed.get(unit.slot)
        if not places:
            return None
        reply = self.reply(places[-1])
        return reply, self.judge(reply, unit.row).reasons


def slot_of(key: str, sample: int) -> bytes:
    """A slot, from what the journal holds."""
    return bytes.fromhex(key) + sample.to_bytes(2, "big")


def write_all(file: BinaryIO, data: bytes) -> None:
    """Unbuffered, so that nothing waits in a buffer for a disk that is full."""
    while data:
        data = data[file.write(data) :]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
