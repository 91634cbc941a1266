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

from ..data.table_writing import same_file, write_rows
from ..files import strict_json, unfinished_beside, write_whole
from .labelled import LabelledRow, LabelledTable

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
        if self.rejected_by:
            by = ", ".join(f"{name} {count}" for name, count in self.rejected_by.most_common())
            said += f"; rejected for: {by}"
        return said


class OutputFiles:
    """Where a generation writes."""

    def __init__(self, output: str | Path, rejected: str | Path | None = None, apart_from: Sequence[str | Path] = ()):
        self.output = Path(output).expanduser()
        self.rejected = Path(rejected).expanduser() if rejected else self.output.with_name("rejected.jsonl")
        for option, path in (("--output", self.output), ("--rejected", self.rejected)):
            if path.suffix != ".jsonl" or path.is_dir():
                raise ValueError(f"{option} {path} must be a .jsonl file: rows are appended to it as they come")
        if same_file(self.rejected, self.output):
            raise ValueError(f"--output and --rejected are both {self.output}: name another for one of them")
        self.replies = self.output.with_suffix(".replies.jsonl")
        self.manifest = self.output.with_suffix(".manifest.json")
        if same_file(self.rejected, self.replies):
            raise ValueError(f"--rejected {self.rejected} is where the raw replies go: name another")
        for path in (self.output, self.rejected, self.replies, self.manifest):
            for source in apart_from:
                if same_file(path, source):  # such as the rejected rows of a run before
                    raise ValueError(
                        f"{path} would be written, and is {source} itself, which would be lost: name another"
                    )

    def prepare(self) -> None:
        """Make the folder, and clear away what a kill left half-written."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.rejected.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.output, self.rejected, self.manifest):
            for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
                with suppress(OSError):
                    unfinished.unlink()

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
        differing = _differing(manifest.get("settings", {}), json.loads(json.dumps(settings)))
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
                    f"{self.rejected} holds the rejected rows of {files.get('output')}: add --rejected "
                    f"{self.output.with_suffix('.rejected.jsonl')}"
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
                            yield from (
                                accepted_row(table, it, text, sample if several else None)
                                for sample, text in outcome.rationales.items()
                            )
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

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, whole or not at all."""
        write_whole(self.manifest, strict_json(manifest, ensure_ascii=False, indent=2) + "\n")

    def names(self) -> dict[str, str]:
        """The files, for a manifest."""
        kinds = ("output", "rejected", "replies")
        return {kind: getattr(self, kind).name for kind in kinds}


def accepted_row(table: LabelledTable, it: LabelledRow, rationale: str, sample: int | None = None) -> dict[str, Any]:
    """A row as it is written with its rationale."""
    row = {**it.row, "key": it.row.get("key", it.key), table.rationale_column: rationale}
    return row if sample is None else {**row, "sample": sample}


def to_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON, as [`write_rows`] writes it."""
    return strict_json(row, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


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
