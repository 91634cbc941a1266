"""The files of a generation: accepted rows, rejected rows, raw replies, and the manifest that says how they came about."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.joining import KEY_COLUMNS, join_rationales
from ..data.prompts import as_text
from ..data.table_writing import same_file, write_rows
from ..data.tables import check_columns
from ..files import strict_json, unfinished_beside, write_whole
from .checks import ReplyChecks
from .labelled import LabelledRow, LabelledTable
from .prompt import TeacherPrompt
from .teacher import without_secret_values

MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    rationales: dict[int, str] = field(default_factory=dict)
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
        for option, path in (("--output", self.output), ("the rejected rows:", self.rejected)):
            if path.suffix != ".jsonl" or path.is_dir():
                raise ValueError(f"{option} {path} must be a .jsonl file: rows are appended to it as they come")
        self.replies = self.output.with_suffix(".replies.jsonl")
        self.manifest = self.output.with_suffix(".manifest.json")
        for path in (self.output, self.replies):
            if same_file(self.rejected, path):
                raise ValueError(
                    f"{path} and the rejected rows are one file: name another by --settings 'rejected: FILE'"
                )
        for path in (self.output, self.rejected, self.replies, self.manifest):
            for source in apart_from:
                if same_file(path, source):  # such as the rejected rows of a run before
                    raise ValueError(
                        f"{path} would be written, and is {source} itself, which would be lost: name another"
                    )

    def prepare(self) -> None:
        """Make the folder, and clear away what a kill left half-written."""
        for path in (self.output, self.rejected, self.manifest):
            path.parent.mkdir(parents=True, exist_ok=True)
            for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
                with suppress(OSError):
                    unfinished.unlink()

    def clear(self) -> None:
        """Forget all but the replies."""
        for path in (self.output, self.rejected, self.manifest):
            path.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest that is there."""
        try:
            found = json.loads(self.manifest.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it is no JSON object")
            return found
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.manifest} can't be read ({error}): remove it, or start anew by --overwrite"
            ) from None

    def check_ours(self, settings: Mapping[str, Any]) -> None:
        """Check that what is there was written by the same settings, and that no other generation writes there."""
        self.check_rejected()
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
            old["sampling"] = without_secret_values(old["sampling"])[0]
        differing = _differing(old, json.loads(json.dumps(settings)))
        if differing:
            raise ValueError(
                f"{self.output} was written by other settings: {'; '.join(differing[:4])}. Repeat those, name another "
                "--output, or start anew by --overwrite"
            )

    def check_rejected(self) -> None:
        """Check that the rejected rows of another output don't go to the same file."""
        for other in self.output.parent.glob("*.manifest.json"):
            if other == self.manifest:
                continue
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
        unfinished = unfinished_beside(self.rejected)
        try:
            with open(unfinished, "w", encoding="utf-8") as aside:

                def accepted() -> Iterator[dict[str, Any]]:
                    for it in table:
                        outcome = outcome_of(it)
                        counts.rows += 1
                        counts.rationales += len(outcome.rationales)
                        if outcome.rationales:
                            counts.accepted += 1
                            for sample, text in outcome.rationales.items():
                                yield accepted_row(table, it, text, sample if several else None)
                        elif outcome.why is not None:
                            counts.rejected += 1
                            counts.rejected_by.update(list(outcome.why))
                            row = {**it.row, "key": it.row.get("key", it.key)}
                            aside.write(to_line({**row, "why": outcome.why, "tries": outcome.tries}))
                        else:
                            counts.pending += 1

                write_rows(self.output, accepted())
            os.replace(unfinished, self.rejected)
        finally:
            with suppress(OSError):
                unfinished.unlink()
        return counts

    def write_manifest(self, counts: GenerationCounts, table: LabelledTable, **facts: Any) -> None:
        """Write the manifest, whole or not at all."""
        data = {"source": str(table.source), "rows": len(table), "label_column": table.label_column}
        files = {kind: getattr(self, kind).name for kind in ("output", "rejected", "replies")}
        manifest = {"format": MANIFEST_FORMAT, **facts, "data": data, "counts": vars(counts), "files": files}
        write_whole(self.manifest, strict_json(manifest, ensure_ascii=False, indent=2) + "\n")


def accepted_row(table: LabelledTable, it: LabelledRow, rationale: str, sample: int | None = None) -> dict[str, Any]:
    """A row as it is written with its rationale."""
    row = {**it.row, "key": it.row.get("key", it.key), table.rationale_column: rationale}
    return row if sample is None else {**row, "sample": sample}


def to_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON, as [`write_rows`] writes it."""
    plain = {"default": lambda it: it.tolist() if hasattr(it, "tolist") else str(it)}
    return strict_json(row, ensure_ascii=False, **plain) + "\n"


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
        if any(it.row.get(name) is None for name in prompt.columns):
            return Outcome(why={"no_input": "A column of the input is empty."})
        why = checks.of_rationale(rationale, prompt, prompt.text(it.row))
        return Outcome(why=why, tries=1) if why else Outcome({0: rationale})

    counts = files.write(table, outcome)
    files.write_manifest(counts, table, settings=settings, checks=checks.settings())
    return counts


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> list[str]:
    """The settings that differ, with both values."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differing(before, now, f"{name} ")
        elif before != now:
            found.append(f"{within}{name} was {_short(before)} and is {_short(now)} now")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."
