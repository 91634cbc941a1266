"""Generation: every row of a table is asked for until its reply passes the checks, and no reply is lost or asked twice.

The journal is the only state. Which rows are accepted, rejected or pending is worked out from it: at the start, so that a
killed run goes on, and so that other checks re-read what is there without asking again.
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
from pathlib import Path
from typing import Any, BinaryIO

from ..data.table_writing import check_file
from .budget import Budget, BudgetSpent, Pace, Streak, estimated_tokens
from .checks import ReplyChecks
from .journal import Journal, Standing, Unit, write_all
from .labelled import LabelledTable
from .outputs import GenerationCounts, OutputFiles, accepted_row, to_line
from .prompt import TeacherPrompt
from .teacher import NoAnswer, Reply, Teacher, TeacherError, Unusable, check_tries

RETRIES = 3


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
    standing = Standing(table, prompt, teacher, checks or ReplyChecks(), samples, retries)
    run = Run(standing, files, budget or Budget(), say, overwrite, progress)
    return run.run(batch_write, batch_read)


class Run:
    """One call of [`generate_rationales`]."""

    def __init__(
        self,
        standing: Standing,
        files: OutputFiles,
        budget: Budget,
        say: Callable[[str], None],
        overwrite: bool,
        progress: bool,
    ):
        self.standing, self.files, self.budget, self.say = standing, files, budget, say
        self.table, self.teacher, self.overwrite, self.progress = standing.table, standing.teacher, overwrite, progress
        self.started, self.begun, self.changed = _now(), False, False
        self.pace = Pace(self.teacher.concurrency, say=say)
        self.counts = GenerationCounts(rows=len(self.table), pending=len(self.table))
        self.left: Counter[str] = Counter()  # why rows are left pending
        self.streak = Streak(self.teacher.name)
        self.rows: BinaryIO | None = None

    def run(self, batch_write: str | Path | None, batch_read: str | Path | None) -> GenerationCounts:
        """Ask what is to be asked, and leave the files in order whatever ends it."""
        self.files.prepare()
        with Journal(self.files.replies) as self.journal:
            self.files.check_rejected()
            if not self.overwrite and self.teacher.model is not None:
                self.files.check_ours(self._settings(self.teacher.model))
            if self.journal.torn:
                self.say(f"A half-written line, {self.journal.torn} bytes, is cut off {self.files.replies}.")
            try:
                asyncio.run(self._main(batch_write, batch_read))
            except BaseException as error:
                with suppress(OSError, ValueError):  # the first error is the one to tell
                    self._finish()
                if isinstance(error, OSError) and self.begun:
                    raise self._disk_error(error) from error
                raise
            self._finish()
        if self.journal.error is not None:
            raise self._disk_error(self.journal.error)
        return self.counts

    async def _main(self, batch_write: str | Path | None, batch_read: str | Path | None) -> None:
        if batch_write is not None or batch_read is not None:
            from .batch import read_batch, write_batch

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

    def _settings(self, model: str | None) -> dict[str, Any]:
        """All that shapes the replies: an output file is written by one set of these."""
        sampling = self.teacher.sampling.settings()
        # More room for a reply makes none of those that are whole another: they stay filed under the room of the first run.
        before = {} if self.overwrite else (self.files.read_manifest() or {}).get("settings", {}).get("sampling") or {}
        if "max_reply_tokens" in before:
            sampling["max_reply_tokens"] = before["max_reply_tokens"]
        samples = self.standing.samples
        return {"model": model, "sampling": sampling, "samples": samples, "prompt": self.standing.prompt.settings()}

    def _begin(self, model: str | None) -> None:
        """Work out from the journal how the rows stand, and put the files in that order."""
        standing, budget = self.standing, self.budget
        if self.overwrite:
            self.journal.clear()
            self.files.clear()
        standing.settings = self._settings(model)
        self.files.check_ours(standing.settings)
        first = next((it for it in self.table if standing.slots(it)), None)
        messages = [] if first is None else standing.prompt.messages(first.row, first.label)
        said = "".join(it["content"] for it in messages)
        budget.one = estimated_tokens(said), self.teacher.sampling.max_reply_tokens or 1024
        standing.load(self.journal, budget)
        # Journals of before 0.2 hold no request that had no answer.
        budget.requests = max(budget.requests, (self.files.read_manifest() or {}).get("usage", {}).get("requests", 0))
        if lines := self.journal.unreadable:
            self.say(f"{lines} lines of {self.files.replies} can't be read: their rows are asked again.")
        if standing.failed and not standing.matches():
            raise ValueError(
                f"{self.files.output} was made from another table: none of the replies in {self.files.replies} belongs to "
                f"a row of {self.table.source}. Name another --output, or start anew by --overwrite"
            )
        self.begun = True
        self._derive()
        self._write_manifest(finished=False)

    def _derive(self) -> None:
        self.standing.undecided = 0
        self.counts = self.files.write(self.table, self.standing.outcome, several=self.standing.samples > 1)

    def _finish(self) -> None:
        """Put the files in order and say how it stands, whatever ended the run."""
        try:
            if self.begun:
                if self.changed:
                    self._derive()
                self._write_manifest(finished=True)
        except OSError as error:
            raise self._disk_error(error) from error
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

    def _disk_error(self, error: OSError) -> OSError:
        return OSError(
            f"can't write {error.filename or self.files.output.parent}: {error.strerror or error}. What was done so far is "
            f"kept in {self.files.replies}; when there is room, start the same command to go on"
        )

    def _write_manifest(self, finished: bool) -> None:
        budget, standing = self.budget, self.standing
        used = ("requests", "replies", "prompt_tokens", "completion_tokens", "estimated", "unanswered", "lost")
        used += ("price_input", "price_output", "cost")
        self.files.write_manifest(
            self.counts,
            self.table,
            status="finished" if finished and not self.counts.pending else "pending rows",
            prompt_version=standing.settings["prompt"]["version"],
            teacher=self.teacher.name,
            models_returned=dict(standing.models),
            settings=standing.settings,
            max_reply_tokens=self.teacher.sampling.max_reply_tokens,
            checks=standing.checks.settings(),
            retries=standing.retries,
            usage={name: getattr(budget, name) for name in used},
            versions=_versions(),
            started=self.started,
            written=_now(),
        )

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

    async def _work(self, units: Iterator[Unit]) -> None:
        for unit in units:
            try:
                await self._ask(unit)
            except BudgetSpent:
                return
            except NoAnswer as error:
                self.left[str(error)[:200]] += 1
                self.streak.add({"no_answer": str(error)})
            else:
                money = {"cost": f"{self.budget.cost:.4g}"} if self.budget.cost else {}
                self.bar.set_postfix(tokens=self.budget.tokens, **money, at_a_time=int(self.pace.limit), refresh=False)
                self.bar.update()
            if self.budget.spent:
                return

    async def _ask(self, unit: Unit) -> None:
        """Ask until a reply passes, or there are too many that don't."""
        failed, tries = self.standing.last_failed(unit), unit.tries
        while True:
            messages, seed = self.standing.request(unit, tries, failed)
            tries += 1
            self.changed = True
            try:
                reply = await self.pace.ask(lambda: self._send(unit, messages, seed), self.budget.admit)  # noqa: B023
            except Unusable as error:
                if self.unusable(unit, error, tries):
                    return
                continue
            failed = self.take(unit, reply, tries)
            if failed is None:
                return

    async def _send(self, unit: Unit, messages: list, seed: int | None) -> Reply:
        """One request, which is written down before it is sent."""
        self.journal.append(_record(unit) | {"sent": list(self.budget.one)})
        lost = True
        try:
            reply = await self.teacher.ask(messages, seed)
            lost = False
            return reply
        except (NoAnswer, TeacherError, Unusable) as error:
            lost = getattr(error, "paid", False)
            if not lost and getattr(error, "reply", None) is None:
                self.journal.append(_record(unit) | {"void": str(error)[:200]})
            raise
        finally:
            self.budget.open -= 1
            if lost:
                self.budget.lose()

    def take(self, unit: Unit, reply: Reply, tries: int) -> tuple[str, dict[str, str]] | None:
        """File a reply; what the teacher is to be told, where the row is asked again."""
        standing = self.standing
        verdict = standing.judge(reply.text, unit.row)
        place = self._keep(unit, reply)
        if verdict.accepted:
            standing.accepted[unit.slot] = place
            if self.rows is not None:
                sample = unit.sample if standing.samples > 1 else None
                row = accepted_row(self.table, unit.row, verdict.rationale or "", sample)
                write_all(self.rows, to_line(row).encode())
            self.streak.end()
        else:
            standing.failed.setdefault(unit.slot, []).append(place)
        if not verdict.accepted and tries <= standing.retries:
            return reply.text, verdict.reasons
        standing.busy.discard(unit.slot)
        if not verdict.accepted and self.rows is not None:
            self.streak.add(verdict.reasons)
        return None

    def unusable(self, unit: Unit, error: Unusable, tries: int) -> bool:
        """File what a reply took that can't be used; whether the row is set aside."""
        if error.reply is not None:
            self._keep(unit, error.reply, failure=str(error))
            self.standing.unusable[unit.slot] += 1
        if tries <= self.standing.retries:
            return False
        self.standing.given_up[unit.slot] = {error.check: str(error)}, tries
        self.standing.busy.discard(unit.slot)
        if self.rows is not None:  # a batch is taken whole
            self.streak.add({error.check: str(error)})
        return True

    def _keep(self, unit: Unit, reply: Reply, failure: str = "") -> int:
        """Write a reply to the journal; of one that can't be used only what it took."""
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        usage |= {"estimated": True} if reply.estimated else {}
        said = {"failed": failure} if failure else {"reply": reply.text}
        record = _record(unit) | said | {"finish_reason": reply.finish_reason, "model": reply.model, "usage": usage}
        place = self.journal.append(record | {"at": _now()})
        self.changed = True
        self.budget.settle(reply.prompt_tokens, reply.completion_tokens, reply.estimated)
        self.standing.models[reply.model or "unnamed"] += 1
        return place


def _record(unit: Unit) -> dict[str, Any]:
    return {"key": unit.slot[:-2].hex(), "sample": unit.sample}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for name in ("dhrd-hf", "openai", "transformers"):
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
