"""Rationales that are there already, taken through the same checks as a teacher's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..data.joining import KEY_COLUMNS, join_rationales
from ..data.prompts import as_text
from ..data.tables import check_columns
from .labelled import LabelledRow, LabelledTable
from .outputs import GenerationCounts, Outcome, OutputFiles
from .prompt import TeacherPrompt
from .verdicts import ReplyChecks


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
    """Check the rationales of a column, or of a file that is joined by key, and write those that pass."""
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
    files.write_manifest(
        {
            "format": 1,
            "settings": settings,
            "checks": checks.settings(),
            "data": {"source": str(table.source), "rows": len(table)},
            "counts": {"accepted": counts.accepted, "rejected": counts.rejected, "pending": counts.pending},
            "files": files.names(),
        }
    )
    return counts
