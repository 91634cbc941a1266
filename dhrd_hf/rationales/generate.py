"""Generation: every row of a table is asked for until its reply passes the checks, and no reply is lost or asked twice.

The journal is the only state. Which rows are accepted, rejected or pending is worked out from it: at the start, so that a
killed run goes on, and so that other checks re-read what is there without asking again.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import itertools
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..data.table_writing import check_file, to_json
from .checks import ReplyChecks
from .journal import Budget, BudgetSpent, Journal, Standing, Unit, check_tries, write_all
from .outputs import GenerationCounts, OutputFiles, accepted_row, read_batch, write_batch
from .prompt import LabelledTable, TeacherPrompt
from .teacher import NoAnswer, Pace, Reply, Teacher, TeacherError, Unusable, estimated_tokens

RETRIES = 3
# When so many rows after each other can't be used for one reason, and none could in between, the run stops.
_IN_A_ROW = 10
_HELP = {
    "no_answer": "",
    "refused": "what it refuses is in --teacher-model, --extra-body or --settings",
    "refusal": "name another --teacher-model, or say in the system prompt what this is for: --settings 'system: TEXT'",
    "empty": "a reasoning model needs room, --max-reply-tokens 8192, or its thoughts turned off: --extra-body "
    '\'{"chat_template_kwargs": {"enable_thinking": false}}\'',
    "cut_off": "give it room: --max-reply-tokens 4096, or turn a reasoning model's thoughts off by --extra-body",
    "prompt_echo": "a base model repeats its prompt: name one that is tuned to follow requests by --teacher-model",
}


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
    batch_write: str | Path | None = None,
    batch_read: str | Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> GenerationCounts:
    """Have a teacher write the rationales of a table.

    Killed at any moment and started again it goes on, and ends with the same set. Beside `output` it writes the rejected
    rows, the raw replies (`.replies.jsonl`) and a manifest (`.manifest.json`).

    Example:

    ```python
    >>> from dhrd_hf.rationales import LabelledTable, TeacherPrompt, generate_rationales, open_teacher
    >>> table = LabelledTable("train.jsonl")  # doctest: +SKIP
    >>> teacher = open_teacher("http://localhost:8000/v1")  # doctest: +SKIP
    >>> counts = generate_rationales(table, TeacherPrompt(table.labels), teacher, "rationales.jsonl")  # doctest: +SKIP
    >>> print(counts)  # doctest: +SKIP
    accepted 480 + rejected 15 + pending 5 = 500 rows; rejected for: label_leak 15

    ```

    Args:
        table ([`LabelledTable`]): The rows.
        prompt ([`TeacherPrompt`]): What the teacher is asked.
        teacher ([`Teacher`]): As [`~dhrd_hf.rationales.teacher.open_teacher`] gives it.
        output (`str` or `Path`): The accepted rows: the table's columns, `key`, and the rationale. They are appended as
            they come, and stand in the table's order in the end.
        rejected (`str` or `Path`, *optional*): The rejected rows, with `why` and `tries`; by default `rejected.jsonl`
            beside `output`.
        checks ([`ReplyChecks`], *optional*): What a reply has to pass.
        samples (`int`, *optional*, defaults to 1): Rationales that are drawn for a row.
        retries (`int`, *optional*, defaults to 3): Times that a row is asked again after a reply that failed its checks.
        budget ([`Budget`], *optional*): After which it stops. With `max_requests=0` it only re-reads what is there.
        overwrite (`bool`, *optional*, defaults to `False`): Forget what is there.
        batch_write (`str` or `Path`, *optional*): Write the requests to this file in OpenAI's batch format, and send none.
        batch_read (`str` or `Path`, *optional*): Take the replies in this file of a batch's results first.
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
    batches = [it for it in (batch_write, batch_read) if it is not None]
    files = OutputFiles(output, rejected, apart_from=[table.source, *batches])
    if batch_write is not None:
        check_file(batch_write, table.source, batch_read)
    if batch_read is not None and not Path(batch_read).expanduser().is_file():
        raise FileNotFoundError(f"--batch-read {batch_read}: there is no such file")
    files.prepare()
    journal = Journal(files.replies, budget)
    standing = Standing(journal, table, prompt, teacher, checks or ReplyChecks(), samples, retries)
    run = Run(standing, files, say, overwrite, progress)
    try:
        with journal:
            try:
                asyncio.run(run.main(batch_write, batch_read))
            except BaseException:
                with suppress(OSError, ValueError):  # the first error is the one to tell
                    run.finish()
                raise
            run.finish()
        if journal.error is not None:
            raise journal.error
    except OSError as error:
        if not run.begun:
            raise
        raise OSError(
            f"can't write {error.filename or files.output.parent}: {error.strerror or error}. What was done so far is "
            f"kept in {files.replies}; when there is room, start the same command to go on"
        ) from error
    return run.counts


@dataclass
class Run:
    """One call of [`generate_rationales`]."""

    standing: Standing
    files: OutputFiles
    say: Callable[[str], None]
    overwrite: bool
    progress: bool
    begun: bool = False
    changed: bool = False
    in_a_row: int = 0  # rows that could not be used, and the reasons that all of them have
    common: set[str] = field(default_factory=set)
    left: Counter[str] = field(default_factory=Counter)  # why rows are left pending
    rows: BinaryIO | None = None

    def __post_init__(self):
        self.table, self.teacher, self.started = self.standing.table, self.standing.teacher, _now()
        self.journal, self.budget = self.standing.journal, self.standing.journal.budget
        self.pace = Pace(self.teacher.concurrency, say=self.say)
        self.counts = GenerationCounts(rows=len(self.table), pending=len(self.table))

    async def main(self, batch_write: str | Path | None, batch_read: str | Path | None) -> None:
        if batch_write is not None or batch_read is not None:
            if self.teacher.model is None or not hasattr(self.teacher, "body"):
                raise ValueError("a batch file is for an endpoint's model: add --teacher URL and --teacher-model NAME")
            self._begin(self.teacher.model)
            if batch_read is not None:
                read_batch(self, batch_read)
            if batch_write is not None:
                write_batch(self, batch_write)
        elif self.budget.max_requests == 0 and not self.overwrite:
            manifest = self.files.read_manifest()
            if manifest is None:
                raise ValueError(f"there is nothing to re-read: {self.files.manifest} is missing")
            self._begin(manifest.get("settings", {}).get("model"))
        else:
            async with self.teacher:
                self._begin(self.teacher.model)
                await self._ask_all()

    def _begin(self, model: str | None) -> None:
        """Work out from the journal how the rows stand, and put the files in that order."""
        standing, budget, files = self.standing, self.budget, self.files
        if self.overwrite:
            self.journal.clear()
            files.clear()
        before, sampling = files.read_manifest() or {}, self.teacher.sampling.settings()
        # More room for a reply makes none of those that are whole another: they stay filed under the room of the first run.
        room = (before.get("settings", {}).get("sampling") or {}).get("max_reply_tokens", sampling["max_reply_tokens"])
        sampling["max_reply_tokens"] = room
        told = {"samples": standing.samples, "prompt": standing.prompt.settings()}
        standing.settings = {"model": model, "sampling": sampling, **told}
        files.check_ours(standing.settings)
        first = next(filter(None, (standing.asked(it)[0] for it in self.table)), [])
        tokens = estimated_tokens("".join(it["content"] for it in first))
        budget.one = tokens, self.teacher.sampling.max_reply_tokens or 1024
        self.journal.load()
        # Journals of before 0.2 hold no request that had no answer.
        budget.requests = max(budget.requests, before.get("usage", {}).get("requests", 0))
        if self.journal.torn:
            self.say(f"A half-written line, {self.journal.torn} bytes, is cut off {files.replies}.")
        if lines := self.journal.unreadable:
            self.say(f"{lines} lines of {files.replies} can't be read: their rows are asked again.")
        replied = {name for name, slot in self.journal.slots.items() if slot.replies}
        if replied and replied.isdisjoint(name for it in self.table for name in standing.asked(it)[1]):
            raise ValueError(
                f"{files.output} was made from another table: none of the replies in {files.replies} belongs to "
                f"a row of {self.table.source}. Name another --output, or start anew by --overwrite"
            )
        self.begun = True
        self._derive()
        self._write_manifest()

    def _derive(self) -> None:
        self.standing.undecided = 0
        self.counts = self.files.write(self.table, self.standing.outcome, several=self.standing.samples > 1)

    def finish(self) -> None:
        """Put the files in order and say how it stands, whatever ended the run."""
        try:
            if self.changed:
                self._derive()
            if self.begun:
                self._write_manifest("pending rows" if self.counts.pending else "finished")
        finally:
            self._report()

    def _report(self) -> None:
        budget, pace = self.budget, self.pace
        self.say(str(self.counts))
        money = f", cost {budget.cost:.4g}" if budget.price_input or budget.price_output else ""
        said = (
            f"This run: {pace.requests} requests, {pace.errors} of them without an answer ({pace.crowded} were too many for "
            f"the endpoint). All runs: {budget.replies} replies, {budget.prompt_tokens} prompt tokens, "
            f"{budget.completion_tokens} reply tokens{money}."
        )
        if budget.estimated:
            said += f" Of {budget.estimated} replies the endpoint did not tell the tokens: they are estimated from the length."
        if budget.unanswered:
            said += f" {budget.unanswered} requests without an answer may have been paid, {sum(budget.lost)} tokens at most."
        self.say(said)
        if budget.spent:
            self.say(f"The budget is spent: {budget.spent}. To go on, raise it and start the same command.")
        elif self.counts.pending:
            why = "; ".join(f"{count} x {reason}" for reason, count in self.left.most_common(3))
            self.say(f"Rows are pending{f' ({why})' if why else ''}: to go on, start the same command.")

    def _write_manifest(self, status: str = "pending rows") -> None:
        budget, standing = self.budget, self.standing
        used = ("requests", "replies", "prompt_tokens", "completion_tokens", "estimated", "unanswered", "lost")
        versions = {"python": platform.python_version()}
        for name in ("dhrd-hf", "openai", "transformers"):
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
        facts = {"status": status, "prompt_version": standing.settings["prompt"]["version"]}
        facts |= {
            "teacher": self.teacher.name,
            "models_returned": dict(self.journal.models),
            "settings": standing.settings,
        }
        facts |= {"max_reply_tokens": self.teacher.sampling.max_reply_tokens, "checks": standing.checks.settings()}
        usage = {name: getattr(budget, name) for name in (*used, "price_input", "price_output", "cost")}
        facts |= {"retries": standing.retries, "usage": usage, "versions": versions, "started": self.started}
        self.files.write_manifest(self.counts, self.table, **facts, written=_now())

    async def _ask_all(self) -> None:
        if not self.standing.undecided:
            return
        from tqdm import tqdm

        units = self.standing.to_ask()
        hidden = None if self.progress else True  # None: only where stderr is a terminal
        with (
            open(self.files.output, "ab", buffering=0) as self.rows,
            tqdm(total=self.standing.undecided, unit=" rows", file=sys.stderr, disable=hidden) as self.bar,
        ):
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self.teacher.concurrency, self.standing.undecided)):
                        workers.create_task(self._work(units))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _work(self, units: Iterator[Unit]) -> None:
        for unit in units:
            try:
                await self._ask(unit)
            except BudgetSpent:
                return
            except NoAnswer as error:
                self.left[str(error)[:200]] += 1
                self._set_aside({"no_answer": str(error)})
            else:
                if not self.bar.disable:
                    money = {"cost": f"{self.budget.cost:.4g}"} if self.budget.cost else {}
                    now = {"tokens": self.budget.tokens, **money, "at_a_time": int(self.pace.limit)}
                    self.bar.set_postfix(now, refresh=False)
                    self.bar.update()

    async def _ask(self, unit: Unit) -> None:
        """Ask until a reply passes, or there are too many that don't."""
        for tries in itertools.count(len(unit.slot.replies)):
            messages, seed = self.standing.request(unit, tries)
            send = functools.partial(self._send, unit, messages, seed)
            try:
                reply, problem = await self.pace.ask(send, self.budget.admit), None
            except Unusable as error:
                reply, problem = error.reply, error
            if not self.take(unit, reply, tries + 1, problem):
                return

    async def _send(self, unit: Unit, messages: list, seed: int | None) -> Reply:
        """One request, which is written down before it is sent."""
        self.journal.write(unit.name, sent=list(self.budget.one))
        try:
            return await self.teacher.ask(messages, seed)
        except BaseException as error:
            known = isinstance(error, (NoAnswer, TeacherError, Unusable))
            if getattr(error, "paid", not known):
                self.journal.lose(unit.slot)
            elif getattr(error, "reply", None) is None:
                self.journal.write(unit.name, void=str(error)[:200])
            raise
        finally:
            self.budget.open -= 1

    def take(self, unit: Unit, reply: Reply | None, tries: int, problem: Unusable | None = None) -> bool:
        """File what came back; whether the row is to be asked again."""
        standing, slot, rationale, self.changed = self.standing, unit.slot, None, True
        if reply is not None:  # of one that can't be used only what it took
            usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
            usage |= {"estimated": True} if reply.estimated else {}
            said = {"reply": reply.text} if problem is None else {"failed": str(problem)}
            told = {"finish_reason": reply.finish_reason, "model": reply.model, "usage": usage, "at": _now()}
            self.journal.write(unit.name, **said, **told)
        if problem is None:
            rationale, reasons = standing.judge(reply.text, unit.row)  # type: ignore[union-attr]
        else:
            reasons = {problem.check: str(problem)}
        if rationale is not None:
            slot.accepted = slot.replies[-1]
            self.in_a_row, self.common = 0, set()
        elif tries <= standing.retries:
            return True
        else:
            slot.set_aside = reasons, tries
        if self.rows is None:  # a batch is taken whole
            return False
        if rationale is None:
            self._set_aside(reasons)
        else:
            row = accepted_row(self.table, unit.row, rationale, unit.sample if standing.samples > 1 else None)
            write_all(self.rows, (to_json(row) + "\n").encode())
        return False

    def _set_aside(self, reasons: Mapping[str, str]) -> None:
        """Count a row that can't be used, or is left for the next run: ten for one reason are a matter for a person."""
        names = {*reasons} & {*_HELP}
        self.in_a_row = self.in_a_row + 1 if names & self.common else min(1, len(names))
        self.common = names & self.common or names
        if self.in_a_row < _IN_A_ROW:
            return
        reason = next(name for name in _HELP if name in self.common)
        if reason == "no_answer":
            raise TeacherError(
                f"{self.teacher.name} brings no answers any more: {self.in_a_row} rows after each other were given up, the "
                f"last for: {reasons[reason]}"
            )
        raise TeacherError(
            f"{self.in_a_row} rows after each other can't be used for one reason, {reason}, the last because: "
            f"{reasons[reason].rstrip('.')}. What helps: {_HELP[reason]}"
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
