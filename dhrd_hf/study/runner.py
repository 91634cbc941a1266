"""`run_study`: runs the cells of a study that are not in its table yet, alone or beside other processes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import last_checkpoint
from .cells import LAUNCH, CellError, clear, new_row, run_cell, train_command
from .claims import Claim, Claims
from .data import StudyData
from .plan import Cell, Study
from .table import ResultsTable

TABLE = "results.jsonl"
# What a row must share with the cell that has its id.
_SAME = ("data", "setting", "alpha", "beta", "classifier_head", "train_size", "seed", "model")


@dataclass
class StudyOutcome:
    """Where a study stands after a call.

    Example:

    ```python
    >>> from dhrd_hf.study import StudyOutcome
    >>> StudyOutcome(total=240, done=12, failed=1, ran=3, elsewhere=0).failed
    1

    ```

    Args:
        total (`int`): Cells of the study.
        done (`int`), failed (`int`): Cells that are in the table as such.
        ran (`int`): Cells that this call ran.
        elsewhere (`int`): Cells that other processes had claimed.
    """

    total: int
    done: int
    failed: int
    ran: int
    elsewhere: int


def run_study(
    study: Study,
    output_dir: str | Path,
    *,
    retry_failed: bool = False,
    limit: int | None = None,
    launch: Sequence[str] = LAUNCH,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> StudyOutcome:
    """Run the cells of a study that are not in its table, one after the other, and add each to it as it ends.

    Several processes, also of several machines that share the folder, may do so at once: each takes the next cell that
    none of them has. A cell that fails is recorded, and the rest go on. Whatever interrupts it, a second call goes on.

    Example:

    ```python
    >>> from dhrd_hf.study import read_study, run_study
    >>> outcome = run_study(read_study("study.yaml"), "runs/study")  # doctest: +SKIP
    >>> outcome.done, outcome.failed  # doctest: +SKIP
    (240, 0)

    ```

    Args:
        study ([`Study`]): The study.
        output_dir (`str` or `Path`): Its folder: the table `results.jsonl`, the rows in `data/`, logs and predictions in
            `cells/<id>/`.
        retry_failed (`bool`, *optional*, defaults to `False`): Run the cells again that have failed before this call.
        limit (`int`, *optional*): Most cells to run in this call.
        launch (`Sequence[str]`, *optional*): What `dhrd train` is started by.
        say (`Callable[[str], None]`, *optional*): Told of each cell; by default it goes to stderr.
        options (*optional*): `decode`, as [`run_cell`]; `stale_after`, as [`Claims`].

    Returns:
        [`StudyOutcome`]: where it stands.

    Raises:
        ValueError: if the table is of another study, or a line of it is broken.
        OSError: if the folder can't be written.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    folder = Path(output_dir).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    runner = _Runner(study, folder, say, launch, options)
    runner.table.repair()
    runner.data.check()
    # Rows, not times: the clocks of machines differ. Another call's retry has added a row, and is not tried once more.
    retried = {cell: row for cell, row in runner.rows().items() if retry_failed and row["status"] == "failed"}
    runner.announce(retry_failed)
    ran = 0
    for cell, claim in runner.free_cells(retried):
        try:
            if runner.run(cell, claim):
                ran += 1
        finally:
            claim.release()
        if limit is not None and ran >= limit:
            break
    return runner.outcome(ran)


def planned_cells(study: Study, output_dir: str | Path) -> Iterator[tuple[Cell, str, str]]:
    """The cells of a study in the order in which they run, with their state and their commands; nothing is run."""
    folder = Path(output_dir).expanduser().resolve()
    states = _states(ResultsTable(folder / TABLE, study.name).read(), study)
    data = StudyData(study, folder)
    for cell in study.cells:
        command = shlex.join(["dhrd", "train", *train_command(cell, study, folder, data.of(cell))])
        yield cell, states.get(cell.id, {"status": "to run"})["status"], command


class _Runner:
    def __init__(
        self,
        study: Study,
        folder: Path,
        say: Callable[[str], None],
        launch: Sequence[str],
        options: Mapping[str, Any],
    ):
        self.study, self.folder, self.say, self.launch = study, folder, say, launch
        self.decode = {name: value for name, value in options.items() if name == "decode"}
        self.table = ResultsTable(folder / TABLE, study.name, say)
        self.claims = Claims(folder / "claims", **{k: v for k, v in options.items() if k != "decode"})
        self.data = StudyData(study, folder, say)
        self.elsewhere: set[str] = set()

    def rows(self) -> dict[str, dict[str, Any]]:
        return _states(self.table.read(), self.study)

    def announce(self, retry_failed: bool) -> None:
        rows = self.rows()
        done, failed = (sum(row["status"] == status for row in rows.values()) for status in ("done", "failed"))
        left = len(self.study.cells) - done - (0 if retry_failed else failed)
        said = f"study {self.study.name}: {len(self.study.cells)} cells, {done} done, {failed} failed, {left} to run"
        said += ". Run the failed ones again with --retry-failed" if failed and not retry_failed else ""
        self.say(said)
        for cell in self.study.cells:
            row = rows.get(cell.id, {})
            if row.get("status") == "done" and not row.get("model_kept"):
                self._clear_what_a_kill_left(cell)

    def _clear_what_a_kill_left(self, cell: Cell) -> None:
        """Of a process that was killed between its row and its clearing, or is there just now and has the cell."""
        runs = list((self.folder / "cells" / cell.id).glob("run*"))
        claim = self.claims.take(cell.id) if runs else None
        if claim is not None:
            try:
                for run in runs:
                    clear(cell, self.folder, run.name, keep_model=False)
            finally:
                claim.release()

    def free_cells(self, retried: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Cell, Claim]]:
        """The cells that nobody has run or is running, and those whose row is still the one to be retried; each claimed."""
        tried: set[str] = set()
        found = True
        while found:  # once more after the last: a process that had claimed a cell may be gone by now
            found = False
            for cell in self.study.cells:
                if cell.id in tried:
                    continue
                row = self.rows().get(cell.id)
                if row is not None and row != retried.get(cell.id):
                    continue
                claim = self.claims.take(cell.id)
                if claim is None:
                    if cell.id not in self.elsewhere:
                        self.say(f"{self.study.label(cell)}: another process has it")
                    self.elsewhere.add(cell.id)
                    continue
                if self.rows().get(cell.id) != row:  # completed between our look at the table and our claim
                    claim.release()
                    continue
                if claim.taken_from is not None:
                    self.say(f"{self.study.label(cell)}: taken over from {claim.taken_from}, which is gone")
                tried.add(cell.id)
                found = True
                yield cell, claim

    def run(self, cell: Cell, claim: Claim) -> bool:
        """Run a cell and add its row; False where another process has taken the cell over meanwhile."""
        rows, row = None, {}
        name = "run" if claim.number == 1 else f"run-{claim.number}"
        try:
            rows = self.data.of(cell)
            row = new_row(cell, self.study, self.folder, rows)
            resume = self._prepare(cell, name)
            row |= run_cell(
                cell,
                self.study,
                self.folder,
                rows,
                self.launch,
                run=name,
                resume=resume,
                started=claim.note_child,
                **self.decode,
            )
            row |= {"status": "done"} | ({"resumed": True} if resume else {})  # its times are those of the last part
            row |= {"model_kept": True} if self.study.keep_models else {}
        except (CellError, ValueError, OSError) as error:
            row = row or new_row(cell, self.study, self.folder, None)
            row["error"] = " ".join(str(error).split())
        row["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        if not claim.holds():
            self.say(f"{self.study.label(cell)}: taken over by another process meanwhile; this result is dropped")
            return False
        self.table.append(row)
        clear(cell, self.folder, name, self.study.keep_models and row["status"] == "done")
        self._tell(cell, row)
        return True

    def _prepare(self, cell: Cell, name: str) -> bool:
        """Make way for a run; whether an interrupted one left checkpoints to go on from."""
        here = self.folder / "cells" / cell.id
        here.mkdir(parents=True, exist_ok=True)
        old = [it for it in here.glob("run*") if it.is_dir()]
        with_checkpoints = [it for it in old if last_checkpoint(it) is not None]
        latest = max(with_checkpoints, key=lambda it: it.stat().st_mtime, default=None)
        for it in old:
            if it != latest:
                shutil.rmtree(it)
        if latest is not None and latest.name != name:
            os.replace(latest, here / name)
        if latest is None:
            (here / "log.txt").unlink(missing_ok=True)
        (here / "predictions.jsonl").unlink(missing_ok=True)
        return latest is not None

    def _tell(self, cell: Cell, row: Mapping[str, Any]) -> None:
        rows = self.rows()
        place = f"[{len(rows):>{len(str(len(self.study.cells)))}}/{len(self.study.cells)}]"
        if row["status"] == "failed":
            log = Path("cells") / cell.id / "log.txt"
            self.say(f"{place} {self.study.label(cell)}: failed: {row['error']} (see {self.folder / log})")
            return
        left = _seconds_left(self.study, rows)
        self.say(
            f"{place} {self.study.label(cell)}: {row['metric']} {row['score']:.4f}, {row['seconds']:.0f} s"
            + (f", about {_duration(left)} left" if left else "")
        )

    def outcome(self, ran: int) -> StudyOutcome:
        rows = self.rows()
        done, failed = (sum(row["status"] == status for row in rows.values()) for status in ("done", "failed"))
        elsewhere = len(self.elsewhere - rows.keys())
        return StudyOutcome(len(self.study.cells), done, failed, ran, elsewhere)


def _states(rows: list[dict[str, Any]], study: Study) -> dict[str, dict[str, Any]]:
    """The last row of each of the study's cells."""
    cells = {cell.id: cell for cell in study.cells}
    found = {}
    for row in rows:
        cell = cells.get(row["cell"])
        if cell is None:
            continue
        asked = {"data": cell.data, "setting": cell.setting, "train_size": cell.train_size, "seed": cell.seed}
        asked |= {"model": cell.model, **cell.options}
        asked["options"] = {name: value for name, value in cell.options.items() if name not in _SAME}
        other = [name for name in (*_SAME, "options") if row.get(name) != asked.get(name)]
        if other:
            raise ValueError(
                f"the table has cell {cell.id} with {other[0]} {row.get(other[0])!r}, and in this study it is "
                f"{asked.get(other[0])!r}: it is another study's table; name another --output-dir"
            )
        found[cell.id] = row
    return found


def _seconds_left(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> float:
    """From the cells that are done: a cell takes as long as the mean of its data set and setting, or of what there is."""
    took: dict[tuple[str, ...], list[float]] = {}
    for row in rows.values():
        if row["status"] == "done":
            for key in ((), (row["data"],), (row["data"], row["setting"])):
                took.setdefault(key, []).append(row["seconds"])
    total = 0.0
    for cell in study.cells:
        if cell.id not in rows:
            keys = ((cell.data, cell.setting), (cell.data,), ())
            times = next((took[key] for key in keys if key in took), [0.0])
            total += sum(times) / len(times)
    return total


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
