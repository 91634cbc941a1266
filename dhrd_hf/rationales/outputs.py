"""The files of a generation: accepted rows, rejected rows, raw replies, and the manifest that says how they came about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.joining import KEY_COLUMNS, join_rationales
from ..data.prompts import as_text
from ..data.table_writing import check_file, same_file, to_json, write_rows
from ..data.tables import check_columns
from ..files import strict_json, write_whole, written_whole
from .checks import ReplyChecks
from .endpoint import message_of, read_body, read_reply
from .prompt import LabelledRow, LabelledTable, TeacherPrompt
from .teacher import Unusable, without_secrets

if TYPE_CHECKING:
    from .generate import Run
    from .journal import Unit


class Outcome(NamedTuple):
    """What became of a row: its rationales by sample, else why there are none, else it is pending."""

    rationales: Mapping[int, str] = {}
    why: dict[str, str] | None = None
    tries: int = 0


@dataclass
class GenerationCounts:
    """Rows by what became of them; they add up."""

    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    pending: int = 0
    rationales: int = 0
    rejected_by: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = f"accepted {self.accepted} + rejected {self.rejected} + pending {self.pending} = {self.rows} rows"
        if self.rationales > self.accepted:
            said += f"; {self.rationales} rationales"
        by = ", ".join(f"{name} {count}" for name, count in self.rejected_by.most_common())
        return f"{said}; rejected for: {by}" if by else said


class OutputFiles:
    """Where a generation writes."""

    def __init__(self, output: str | Path, rejected: str | Path | None = None, apart_from: Sequence[str | Path] = ()):
        self.output = Path(output).expanduser()
        self.rejected = Path(rejected).expanduser() if rejected else self.output.with_name("rejected.jsonl")
        self.replies = self.output.with_suffix(".replies.jsonl")
        self.manifest = self.output.with_suffix(".manifest.json")
        for option, path in (("--output", self.output), ("the rejected rows:", self.rejected)):
            if path.suffix != ".jsonl":
                raise ValueError(f"{option} {path} must be a .jsonl file: rows are appended to it as they come")
        for path in (self.output, self.replies):
            if same_file(self.rejected, path):
                said = f"{path} and the rejected rows are one file: name another by --settings 'rejected: FILE'"
                raise ValueError(said)
        for path in (self.output, self.rejected, self.replies, self.manifest):
            check_file(path, *apart_from)  # such as the rejected rows of a run before

    def prepare(self) -> None:
        """Check that no other generation writes there, make the folder, and clear away what a kill left half-written."""
        self.check_rejected()
        for path in (self.output, self.rejected, self.manifest):
            path.parent.mkdir(parents=True, exist_ok=True)
            for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
                with suppress(OSError):
                    unfinished.unlink()

    def clear(self) -> None:
        for path in (self.output, self.rejected, self.manifest):
            path.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any] | None:
        try:
            return {**json.loads(self.manifest.read_text(encoding="utf-8"))}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            said = f"{self.manifest} can't be read ({error}): remove it, or start anew by --overwrite"
            raise ValueError(said) from None

    def check_ours(self, settings: Mapping[str, Any]) -> None:
        """Check that what is there was written by the same settings."""
        manifest = self.read_manifest()
        if manifest is None:
            if self.output.exists() and self.output.stat().st_size:
                raise ValueError(
                    f"{self.output} is there, and not from this command (it has no {self.manifest.name}): name another "
                    "--output, or replace it by --overwrite"
                )
            return
        old = dict(manifest.get("settings", {}))
        if "sampling" in old:
            old["sampling"] = without_secrets(old["sampling"], [])
        differing = list(_differing(old, json.loads(json.dumps(settings))))
        if differing:
            raise ValueError(
                f"{self.output} was written by other settings: {'; '.join(differing[:4])}. Repeat those, name another "
                "--output, or start anew by --overwrite"
            )

    def check_rejected(self) -> None:
        """Check that the rejected rows of another output don't go to the same file."""
        for other in {*self.output.parent.glob("*.manifest.json")} - {self.manifest}:
            files = {}
            with suppress(OSError, ValueError, AttributeError):
                files = json.loads(other.read_text(encoding="utf-8")).get("files", {})
            if files.get("rejected") == self.rejected.name and self.rejected.parent == other.parent:
                raise ValueError(
                    f"{self.rejected} holds the rejected rows of {files.get('output')}: add --settings 'rejected: "
                    f"{self.output.with_suffix('.rejected.jsonl')}'"
                )

    def write(
        self, table: LabelledTable, outcome_of: Callable[[LabelledRow], Outcome], several: bool = False
    ) -> GenerationCounts:
        """Write accepted and rejected rows in the table's order, each file whole or not at all."""
        counts = GenerationCounts()

        def accepted() -> Iterator[dict[str, Any]]:
            for it in table:
                rationales, why, tries = outcome_of(it)
                counts.rows += 1
                counts.accepted += bool(rationales)
                counts.rationales += len(rationales)
                for sample, text in rationales.items():
                    yield accepted_row(table, it, text, sample if several else None)
                if why is None:
                    counts.pending += not rationales
                elif not rationales:
                    counts.rejected += 1
                    counts.rejected_by.update(list(why))
                    row = {**it.row, "key": it.row.get("key", it.key), "why": why, "tries": tries}
                    aside.write(to_json(row) + "\n")

        with written_whole(self.rejected) as unfinished, open(unfinished, "w", encoding="utf-8") as aside:
            write_rows(self.output, accepted())
        return counts

    def write_manifest(self, counts: GenerationCounts, table: LabelledTable, **facts: Any) -> None:
        """Write the manifest, whole or not at all."""
        data = {"source": str(table.source), "rows": len(table), "label_column": table.label_column}
        files = {kind: getattr(self, kind).name for kind in ("output", "rejected", "replies")}
        manifest = {"format": 1, **facts, "data": data, "counts": vars(counts), "files": files}
        write_whole(self.manifest, strict_json(manifest, ensure_ascii=False, indent=2) + "\n")


def accepted_row(table: LabelledTable, it: LabelledRow, rationale: str, sample: int | None = None) -> dict[str, Any]:
    row = {**it.row, "key": it.row.get("key", it.key), table.rationale_column: rationale}
    return row if sample is None else {**row, "sample": sample}


def take_rationales(
    table: LabelledTable,
    prompt: TeacherPrompt,
    output: str | Path,
    *,
    column: str | None = None,
    file: str | Path | None = None,
    key: str | None = None,
    rejected: str | Path | None = None,
    checks: ReplyChecks | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> GenerationCounts:
    """Check rationales that are there, in a column or in a file that is joined by key, and write those that pass."""
    checks = checks or ReplyChecks()
    files = OutputFiles(output, rejected, apart_from=[table.source, *([] if file is None else [file])])
    if file is not None:
        rows, joined = join_rationales(
            # Rows that were left out must not move the numbers by which the others are known.
            [it.row if table.id_column else {**it.row, KEY_COLUMNS[0]: it.key} for it in table],
            file,
            key,
            rationale_column=table.rationale_column,
            label_column=table.label_column,
        )
        say(f"{file}: {joined}.")
        rationales = iter([row[table.rationale_column] for row in rows])
    else:
        check_columns(table.columns, [column])
        rationales = (it.row.get(column) for it in table)
    settings = {"model": None, "rationales": f"column {column}" if file is None else f"file {file}"}
    files.prepare()
    if not overwrite:
        files.check_ours(settings)

    def outcome(it: LabelledRow) -> Outcome:
        rationale = next(rationales)
        rationale = "" if rationale is None else as_text(rationale, f"row {it.key}: its rationale")
        if not rationale.strip():
            return Outcome()
        if (empty := prompt.lacks(it.row)) is not None:
            return Outcome(why={"no_input": f"Column {empty!r} is empty."})
        why = checks.of_rationale(rationale, prompt, prompt.text(it.row))
        return Outcome(why=why, tries=1) if why else Outcome({0: rationale})

    counts = files.write(table, outcome)
    files.write_manifest(counts, table, settings=settings, checks=checks.settings())
    return counts


def write_batch(run: Run, path: str | Path) -> None:
    """Write what is to be asked, as far as the budget has room for it, in OpenAI's batch format."""
    standing, teacher = run.standing, run.teacher
    secrets: list[str] = []
    without_secrets(dict(teacher.sampling.extra_body), secrets)
    if secrets:
        raise ValueError("--extra-body holds a secret, which --batch-write would write into the file: leave it out")
    room, count, left = run.budget.room(), 0, 0
    with written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        for unit in standing.to_ask():
            if unit.tries > standing.retries:
                unit.slot.set_aside = {"empty": "Its replies were empty or cut off."}, unit.tries
                run.changed = True
            elif count + 1 > room:
                left += 1
            else:
                body = teacher.body(*standing.request(unit, unit.tries))  # type: ignore[attr-defined]
                line = {"custom_id": _id(unit), "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    run.say(
        f"{count} requests are in {path}. When a batch service has answered them: the same command with --batch-read RESULTS"
    )
    if left:
        run.say(f"{left} requests more are left out, for which the budget has no room.")


def read_batch(run: Run, path: str | Path) -> None:
    """Take the replies to what is still to be asked; replies that were taken before are passed over."""
    standing, places, unreadable, place = run.standing, {}, 0, 0
    with open(Path(path).expanduser(), "rb") as file:
        for line in file:
            try:
                places[json.loads(line)["custom_id"]] = place
            except (ValueError, LookupError, TypeError, RecursionError):
                unreadable += bool(line.strip())
            place += len(line)
        if not places:
            raise ValueError(f"{path} holds no results of a batch, which are JSON lines with a custom_id")
        taken, before = 0, run.left.total()
        for unit in standing.to_ask():
            found = places.pop(_id(unit), None)
            if found is not None:
                file.seek(found)
                try:
                    _take(run, unit, json.loads(file.readline()))
                    taken += 1
                except (ValueError, RecursionError) as error:
                    run.left[str(error)[:200]] += 1
    errors = run.left.total() - before
    told = f"{taken} replies are taken from {path}" + (f", {errors} requests have none" if errors else "")
    if places:
        told += f", {len(places)} lines are of requests that are not open: answered before, or of another table"
    run.say(told + (f", {unreadable} lines can't be read." if unreadable else "."))


def _take(run: Run, unit: Unit, record: dict[str, Any]) -> None:
    """File one result; a `ValueError` where there is nothing to file."""
    response = record.get("response") if isinstance(record.get("response"), dict) else {}
    body, status = response.get("body"), response.get("status_code", 200)
    if record.get("error") or not body or status != 200:
        raise ValueError(f"status {status}: {message_of(record.get('error') or body or 'no answer')}")
    messages, _ = run.standing.request(unit, unit.tries)
    found = read_body(body.encode() if isinstance(body, str) else json.dumps(body).encode())
    try:
        reply, problem = read_reply(found, messages), None
    except Unusable as error:
        reply, problem = error.reply, error  # type: ignore[assignment]
    run.take(unit, reply, unit.tries + 1, problem)


def _id(unit: Unit) -> str:
    """What a request of a batch is called: another name each time that it is asked."""
    return f"{unit.name.hex()}-{unit.tries}"


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differing(before, now, f"{name} ")
        elif before != now:
            yield f"{within}{name} was {_short(before)} and is {_short(now)} now"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."
