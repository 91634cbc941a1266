"""Generation: every row of a table is asked for until its reply passes the checks, and no reply is lost or asked twice.

The journal of raw replies is the only state. Which rows are accepted, rejected or pending is worked out from it: at the
start, so that a killed run goes on, and so that other checks re-read what is there without asking again.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from .journal import Journal
from .labelled import LabelledRow, LabelledTable
from .outputs import GenerationCounts, OutputFiles, accepted_row, to_line
from .pacing import Budget, BudgetSpent, NoAnswer, Pace, TeacherError
from .prompt import TeacherPrompt
from .replies import Reply, Unusable
from .standing import Standing
from .teachers import Teacher
from .verdicts import ReplyChecks

RETRIES = 3
# When so many rows after each other were given up, and none was answered in between, the endpoint is taken for dead.
_LOST_IN_A_ROW = 10
_BYTES_PER_TOKEN = 4  # of English; a budget and a dry run need no more than an idea
_VERSIONS = ("dhrd-hf", "huggingface_hub", "transformers")


def generate_rationales(
    table: LabelledTable,
    prompt: TeacherPrompt,
    teacher: Teacher,
    output: str | Path,
    *,
    rejected: str | Path | None = None,
    checks: ReplyChecks | None = None,
    samples: int = 1,
    retries: int = RETRIES,
    budget: Budget | None = None,
    overwrite: bool = False,
    reparse: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> GenerationCounts:
    """Have a teacher write the rationales of a table.

    Killed at any moment and started again it goes on, and ends with the same set. Beside `output` it writes the rejected
    rows, the raw replies (`.replies.jsonl`) and a manifest (`.manifest.json`).

    Example:

    ```python
    >>> from dhrd_hf.rationales.generation import generate_rationales
    >>> from dhrd_hf.rationales.labelled import LabelledTable
    >>> from dhrd_hf.rationales.prompt import TeacherPrompt
    >>> from dhrd_hf.rationales.teachers import open_teacher
    >>> table = LabelledTable("train.jsonl")  # doctest: +SKIP
    >>> teacher = open_teacher("http://localhost:8000/v1")  # doctest: +SKIP
    >>> counts = generate_rationales(table, TeacherPrompt(table.labels), teacher, "rationales.jsonl")  # doctest: +SKIP
    >>> print(counts)  # doctest: +SKIP
    accepted 480 + rejected 15 + pending 5 = 500 rows; rejected for: label_leak 15

    ```

    Args:
        table ([`LabelledTable`]): The rows.
        prompt ([`TeacherPrompt`]): What the teacher is asked.
        teacher ([`Teacher`]): As [`~dhrd_hf.rationales.teachers.open_teacher`] gives it.
        output (`str` or `Path`): The accepted rows: the table's columns, `key`, and the rationale. They are appended as
            they come, and stand in the table's order in the end.
        rejected (`str` or `Path`, *optional*): The rejected rows, with `why` and `tries`; by default `rejected.jsonl`
            beside `output`.
        checks ([`ReplyChecks`], *optional*): What a reply has to pass.
        samples (`int`, *optional*, defaults to 1): Rationales that are drawn for a row.
        retries (`int`, *optional*, defaults to 3): Times that a row is asked again after a reply that failed its checks.
        budget ([`Budget`], *optional*): After which it stops.
        overwrite (`bool`, *optional*, defaults to `False`): Forget what is there.
        reparse (`bool`, *optional*, defaults to `False`): Only re-read what is there; ask nothing.
        progress (`bool`, *optional*, defaults to `False`): Show a bar on stderr, if that is a terminal.
        say (`Callable`, *optional*): Takes sentences for the user.

    Returns:
        [`GenerationCounts`]: accepted, rejected and pending rows.

    Raises:
        ValueError: if the output was written by other settings or would replace the table, or no request can succeed
            (a [`TeacherError`]).
        OSError: if a file can't be written; what was done so far is kept.
    """
    check_tries(teacher, samples, retries)
    run = _Run()
    run.table, run.prompt, run.teacher = table, prompt, teacher
    run.files = OutputFiles(output, rejected, apart_from=[table.source])
    run.checks, run.samples, run.retries, run.reparse = checks or ReplyChecks(), samples, retries, reparse
    run.budget, run.overwrite, run.progress, run.say = budget or Budget(), overwrite, progress, say
    return run.run()


def check_tries(teacher: Teacher, samples: int, retries: int) -> None:
    """Check how often a row would be asked, before anything is."""
    if samples < 1 or retries < 0:
        raise ValueError(f"samples={samples} must be above 0 and retries={retries} not negative")
    if samples > 1 and teacher.sampling.temperature == 0:
        raise ValueError(f"{samples} samples of a row are all the same at temperature 0: raise --temperature")


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, for whom a tokenizer is not at hand."""
    return len(text.encode()) // _BYTES_PER_TOKEN


class _Run:
    """One call of [`generate_rationales`]."""

    table: LabelledTable
    prompt: TeacherPrompt
    teacher: Teacher
    files: OutputFiles
    checks: ReplyChecks
    budget: Budget
    samples: int
    retries: int
    overwrite: bool
    reparse: bool
    progress: bool
    say: Callable[[str], None]

    def run(self) -> GenerationCounts:
        self.started, self.standing, self.asked = _now(), None, 0
        self.left: Counter[str] = Counter()  # why rows are left pending
        self.lost = 0
        self.model = self.teacher.model
        self.pace = Pace(self.teacher.concurrency)
        self.counts = GenerationCounts(rows=len(self.table), pending=len(self.table))
        self.files.prepare()
        with Journal(self.files.replies) as self.journal:
            self._check_files()
            if self.journal.torn:
                self.say(f"A half-written line, {self.journal.torn} bytes, is cut off {self.files.replies}.")
            try:
                asyncio.run(self._main())
            except BaseException as error:
                with suppress(OSError, ValueError):  # the first error is the one to tell
                    self._finish()
                if error is self.journal.error:
                    raise self._disk_error(error) from error
                raise
            self._finish()
        if self.journal.error is not None:
            raise self._disk_error(self.journal.error)
        return self.counts

    def _check_files(self) -> None:
        """What can be said before the teacher is there."""
        self.files.check_rejected()
        if self.overwrite:
            return
        if self.reparse and self.files.read_manifest() is None:
            raise ValueError(f"there is nothing to re-read: {self.files.manifest} is missing")
        if self.model is not None:
            self.files.check_ours(self._settings())

    async def _main(self) -> None:
        if self.reparse:
            self.model = (self.files.read_manifest() or {}).get("settings", {}).get("model")
            self._begin()
            return
        async with self.teacher:
            self.model = self.teacher.model
            self._begin()
            await self._ask_all()

    def _settings(self) -> dict[str, Any]:
        """All that shapes the replies: an output file is written by one set of these."""
        return {
            "model": self.model,
            "sampling": self.teacher.sampling.settings(),
            "samples": self.samples,
            "prompt": self.prompt.settings(),
        }

    def _begin(self) -> None:
        """Work out from the journal how the rows stand, and put the files in that order."""
        if self.overwrite:
            self.journal.clear()
            for path in (self.files.output, self.files.rejected, self.files.manifest):
                path.unlink(missing_ok=True)
        settings = self._settings()
        self.files.check_ours(settings)
        standing = Standing(
            self.table, self.prompt, self.checks, self.model, settings["sampling"], self.samples, self.retries
        )
        standing.load(self.journal, self.budget)
        # The journal keeps replies; requests that had none count as well.
        asked_before = (self.files.read_manifest() or {}).get("usage", {}).get("requests", 0)
        self.budget.requests = max(self.budget.requests, asked_before)
        if self.journal.unreadable:
            self.say(
                f"{self.journal.unreadable} lines of {self.files.replies} can't be read: their rows are asked again."
            )
        if len(standing) and not standing.matches():
            raise ValueError(
                f"{self.files.output} was made from another table: none of the replies in {self.files.replies} belongs to "
                f"a row of {self.table.source}. Name another --output, or start anew by --overwrite"
            )
        self.standing = standing
        self._derive()
        self._write_manifest(finished=False)

    def _derive(self) -> None:
        self.standing.undecided = 0
        self.counts = self.files.write(self.table, self.standing.outcome, several=self.samples > 1)

    def _finish(self) -> None:
        """Put the files in order and say how it stands, whatever ended the run."""
        self.journal.drain()
        try:
            if self.standing is not None:
                if self.asked:
                    self._derive()
                self._write_manifest(finished=True)
        except OSError as error:
            raise self._disk_error(error) from error
        finally:
            self._report()

    def _report(self) -> None:
        self.say(str(self.counts))
        budget, pace = self.budget, self.pace
        money = f", cost {budget.cost:.4g}" if budget.price_input or budget.price_output else ""
        self.say(
            f"This run: {pace.requests} requests, {pace.errors} of them without an answer ({pace.crowded} were too many for "
            f"the endpoint). All runs: {budget.replies} replies, {budget.prompt_tokens} prompt tokens, "
            f"{budget.completion_tokens} reply tokens{money}."
        )
        if budget.spent:
            self.say(f"The budget is spent: {budget.spent}. To go on, raise it and start the same command.")
        elif self.counts.pending:
            why = "; ".join(f"{count} x {reason}" for reason, count in self.left.most_common(3))
            self.say(f"Rows are pending{f' ({why})' if why else ''}: to go on, start the same command.")

    def _disk_error(self, error: OSError) -> OSError:
        where = error.filename or self.files.output.parent
        return OSError(
            f"can't write {where}: {error.strerror or error}. What was done so far is kept in {self.files.replies}; when "
            "there is room, start the same command to go on"
        )

    def _write_manifest(self, finished: bool) -> None:
        budget = self.budget
        manifest = {
            "format": 1,
            "status": "finished" if finished and not self.counts.pending else "pending rows",
            "prompt_version": self.prompt.settings()["version"],
            "teacher": self.teacher.name,
            "models_returned": dict(self.standing.models),
            "settings": self._settings(),
            "checks": self.checks.settings(),
            "retries": self.retries,
            "data": {
                "source": str(self.table.source),
                "rows": len(self.table),
                "label_column": self.table.label_column,
            },
            "counts": {
                "rows": self.counts.rows,
                "accepted": self.counts.accepted,
                "rejected": self.counts.rejected,
                "pending": self.counts.pending,
                "rationales": self.counts.rationales,
                "rejected_by": dict(self.counts.rejected_by),
            },
            "usage": {
                "requests": budget.requests,
                "replies": budget.replies,
                "prompt_tokens": budget.prompt_tokens,
                "completion_tokens": budget.completion_tokens,
                "price_input": budget.price_input,
                "price_output": budget.price_output,
                "cost": budget.cost,
            },
            "files": self.files.names(),
            "versions": {"python": platform.python_version(), **_versions()},
            "started": self.started,
            "written": _now(),
        }
        self.files.write_manifest(manifest)

    async def _ask_all(self) -> None:
        if not self.standing.undecided:
            return
        from tqdm import tqdm

        if not self.budget.replies:
            self.budget.expected = self._expected_tokens()
        self.journal.follow(self.files.output)
        units = self.standing.to_ask()
        hidden = None if self.progress else True  # None: only where stderr is a terminal
        with tqdm(total=self.standing.undecided, unit=" rows", file=sys.stderr, disable=hidden) as self.bar:
            count = min(self.teacher.concurrency, self.standing.undecided)
            workers = [asyncio.create_task(self._work(units)) for _ in range(count)]
            try:
                done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        for worker in done:
            worker.result()

    def _expected_tokens(self) -> int:
        first = next(iter(self.table))
        said = "".join(message["content"] for message in self.prompt.messages(first.row, first.label))
        return estimated_tokens(said) + self.teacher.sampling.max_reply_tokens

    async def _work(self, units: Iterator[tuple[bytes, int, LabelledRow, int]]) -> None:
        for unit in units:
            try:
                await self._ask(*unit)
            except BudgetSpent:
                return
            except NoAnswer as error:
                self._lose(unit[0], str(error))
            else:
                self.bar.update()
            # Of a budget that is spent, of a disk that is full, the next row has no need to hear.
            if self.budget.spent or self.journal.error is not None:
                return

    async def _ask(self, slot: bytes, sample: int, it: LabelledRow, tries: int) -> None:
        """Ask until a reply passes, or there are too many that don't."""
        failed = None
        if tries:
            reply = self.standing.last_reply(slot)
            failed = self._correction(reply, self.checks.judge(reply, self.prompt, it.row, it.label).reasons)
        while True:
            messages = self.prompt.messages(it.row, it.label, failed)
            seed = self.teacher.sampling.seed
            seed = None if seed is None else seed + 1000 * sample + tries
            self.asked += 1
            tries += 1
            try:
                reply = await self.pace.ask(
                    partial(self.teacher.ask, messages, seed), admit=lambda: self.budget.admit(self.pace.active)
                )
            except Unusable as error:
                if error.reply is not None:
                    self._keep(slot, sample, error.reply, failure=str(error))
                if tries > self.retries:
                    self.standing.give_up(slot, {error.check: str(error)}, tries)
                    self.standing.done(slot)
                    if error.check == "refused":
                        self._count_lost(str(error))
                    return
                continue
            self.lost = 0
            verdict = self.checks.judge(reply.text, self.prompt, it.row, it.label)
            last = verdict.accepted or tries > self.retries
            row = None
            if verdict.accepted:
                number = sample if self.samples > 1 else None
                row = to_line(accepted_row(self.table, it, verdict.rationale or "", number))
            self._keep(slot, sample, reply, row=row, last=last)
            self._show(verdict.accepted, last)
            if last:
                return
            failed = self._correction(reply.text, verdict.reasons)

    def _correction(self, reply: str, reasons: dict[str, str]) -> tuple[str, list[str]] | None:
        """What the teacher is told of its reply. Who has to find the label is not told that it was another."""
        told = [said for name, said in reasons.items() if not (name == "answer" and self.prompt.style == "free")]
        return (reply, told) if told else None

    def _keep(
        self, slot: bytes, sample: int, reply: Reply, row: str | None = None, last: bool = False, failure: str = ""
    ) -> None:
        """File a reply; of one that can't be used only what it cost."""
        self.budget.spend(reply.prompt_tokens, reply.completion_tokens)
        self.standing.models[reply.model or "unnamed"] += 1
        record = {"key": slot[:-2].hex(), "sample": sample}
        record |= {"failed": failure} if failure else {"reply": reply.text}
        record |= {
            "finish_reason": reply.finish_reason,
            "model": reply.model,
            "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens},
            "at": _now(),
        }

        def on_disk(place: int) -> None:
            if not failure:
                self.standing.note(slot, place, accepted=row is not None)
            if last:
                self.standing.done(slot)

        self.journal.append(record, row, on_disk)

    def _lose(self, slot: bytes, reason: str) -> None:
        """A row is left for the next run."""
        self.left[reason[:200]] += 1
        self._count_lost(reason)

    def _count_lost(self, reason: str) -> None:
        self.lost += 1
        if self.lost >= _LOST_IN_A_ROW:
            raise TeacherError(
                f"{self.teacher.name} brings no answers any more: {self.lost} rows after each other were given up, the last "
                f"for: {reason}"
            )

    def _show(self, accepted: bool, last: bool) -> None:
        if self.bar.disable or not last:
            return
        self.shown = getattr(self, "shown", 0) + 1
        self.passed = getattr(self, "passed", 0) + accepted
        facts = {"accepted": f"{self.passed / self.shown:.0%}", "tokens": f"{self.budget.tokens:,}"}
        if self.budget.cost:
            facts["cost"] = f"{self.budget.cost:.4g}"
        if self.pace.limit < self.teacher.concurrency:
            facts["at a time"] = int(self.pace.limit)
        self.bar.set_postfix(facts, refresh=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
