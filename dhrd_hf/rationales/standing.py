"""How the rows of a generation stand, as the journal of replies and the checks of today say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from .journal import Journal
from .labelled import LabelledRow, LabelledTable
from .outputs import Outcome
from .pacing import Budget
from .prompt import TeacherPrompt, request_key
from .verdicts import ReplyChecks, Verdict


class Standing:
    """Which rows are accepted, rejected or still to be asked, worked out from the journal alone."""

    def __init__(
        self,
        table: LabelledTable,
        prompt: TeacherPrompt,
        checks: ReplyChecks,
        model: str | None,
        sampling: dict[str, Any],
        samples: int,
        retries: int,
    ):
        self.table, self.prompt, self.checks = table, prompt, checks
        self.model, self.sampling, self.samples, self.retries = model, sampling, samples, retries
        self.models: Counter[str] = Counter()
        self.undecided = 0
        # By slot: the places of replies that failed (one is kept bare, for most are one and a tuple takes twice the
        # memory), or -1 minus the place of the reply that was accepted.
        self._index: dict[bytes, int | tuple[int, ...]] = {}
        # Slots that are set aside in this run for what no journal keeps: empty replies and refused requests.
        self._given_up: dict[bytes, tuple[dict[str, str], int]] = {}
        self._busy: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._index)

    def matches(self) -> bool:
        """Whether any reply belongs to a row of the table."""
        return any(slot in self._index for it in self.table for slot in self._slots(it) or ())

    def load(self, journal: Journal, budget: Budget) -> None:
        """Read the journal, and count in the budget what its replies took."""
        self._journal = journal
        for place, record in journal.records():
            usage = record.get("usage") or {}
            budget.requests += 1
            budget.spend(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
            self.models[record.get("model") or "unnamed"] += 1
            if "reply" in record:
                self.note(slot_of(record["key"], record.get("sample", 0)), place, accepted=False)

    def note(self, slot: bytes, place: int, accepted: bool) -> None:
        """A reply is on disk."""
        known = self._index.get(slot)
        if accepted or known is None:
            self._index[slot] = -1 - place if accepted else place
        elif isinstance(known, tuple) or known >= 0:
            self._index[slot] = (*known, place) if isinstance(known, tuple) else (known, place)

    def give_up(self, slot: bytes, why: dict[str, str], tries: int) -> None:
        """Set a slot aside for this run."""
        self._given_up[slot] = why, tries

    def done(self, slot: bytes) -> None:
        """Nobody asks for a slot any more."""
        self._busy.discard(slot)

    def verdict(self, slot: bytes, it: LabelledRow) -> tuple[Verdict | None, int]:
        """What the checks say of a slot's first good reply, else of its last."""
        places = self._index.get(slot, ())
        if isinstance(places, int) and places < 0:
            reply = self._journal.read(-1 - places)["reply"]
            return Verdict(self.prompt.parse(reply).rationale, {}), 1
        places = (places,) if isinstance(places, int) else places
        verdict = None
        for place in places:
            verdict = self.checks.judge(self._journal.read(place)["reply"], self.prompt, it.row, it.label)
            if verdict.accepted:
                self.note(slot, place, accepted=True)
                break
        return verdict, len(places)

    def last_reply(self, slot: bytes) -> str | None:
        """The last reply of a slot that has none that was accepted."""
        places = self._index.get(slot)
        if places is None:
            return None
        return self._journal.read(places[-1] if isinstance(places, tuple) else places)["reply"]

    def outcome(self, it: LabelledRow) -> Outcome:
        """What became of a row."""
        slots = self._slots(it)
        if slots is None:
            empty = next(name for name in self.prompt.columns if it.row.get(name) is None)
            return Outcome(why={"no_input": f"Column {empty!r} is empty."})
        rationales: dict[int, str] = {}
        why: dict[str, str] = {}
        pending, tried = False, 0
        for sample, slot in enumerate(slots):
            verdict, tries = self.verdict(slot, it)
            if verdict is not None and verdict.accepted:
                rationales[sample] = verdict.rationale or ""
            elif slot in self._given_up:
                reasons, tries = self._given_up[slot]
                why |= reasons
            elif verdict is not None and tries > self.retries:
                why |= verdict.reasons
            else:
                pending = True
                self.undecided += 1
            tried += tries
        return Outcome(rationales, None if pending else why, tried)

    def to_ask(self) -> Iterator[tuple[bytes, int, LabelledRow, int]]:
        """The slots that are undecided, each once, as the table is streamed."""
        for it in self.table:
            for sample, slot in enumerate(self._slots(it) or ()):
                places = self._index.get(slot, ())
                count = 1 if isinstance(places, int) else len(places)
                accepted = isinstance(places, int) and places < 0
                if accepted or count > self.retries or slot in self._busy or slot in self._given_up:
                    continue
                self._busy.add(slot)
                yield slot, sample, it, count

    def _slots(self, it: LabelledRow) -> list[bytes] | None:
        """The slots of a row; None where a column of its input is empty, so that there is nothing to ask."""
        if any(it.row.get(name) is None for name in self.prompt.columns):
            return None
        key = request_key(self.prompt.messages(it.row, it.label), it.label, self.model, self.sampling)
        return [slot_of(key, sample) for sample in range(self.samples)]


def slot_of(key: str, sample: int) -> bytes:
    """A slot, from what the journal holds."""
    return bytes.fromhex(key) + sample.to_bytes(2, "big")
