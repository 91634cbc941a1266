"""`run_study`: runs what is not in a study's table yet, here or on a cluster, alone or beside other starts of it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..files import last_checkpoint
from .data import RunRows, StudyData
from .lock import RunLock
from .machines import Machines
from .plan import Run, Study
from .processes import Processes
from .results import ResultsTable
from .run import RunError, clear, do_run, launch_of, new_row, runs_folder, train_command

TABLE = "results.jsonl"
# What a row must share with the cell that has its id.
_SAME = ("data", "setting", "alpha", "beta", "classifier_head", "train_size", "seed", "model")
_RAN, _ELSEWHERE = "ran", "elsewhere"


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
        total (`int`): Runs of the study.
        done (`int`), failed (`int`): Runs that are in the table as such.
        ran (`int`): Runs of this call.
        elsewhere (`int`): Runs that other starts of the study had.
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
    machines: Machines | None = None,
    launch: Sequence[str] | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> StudyOutcome:
    """Run what is not in a study's table, and add each run to it as it ends.

    Several starts, also on several machines that share the folder, may do so at once: a run is one of theirs. A run that
    fails is recorded, and the rest go on. Whatever interrupts it, a second call goes on, and runs again what was killed.

    Example:

    ```python
    >>> from dhrd_hf.study import read_study, run_study
    >>> outcome = run_study(read_study("study.yaml"), "runs/study")  # doctest: +SKIP
    >>> outcome.done, outcome.failed  # doctest: +SKIP
    (240, 0)

    ```

    Args:
        study ([`Study`]): The study.
        output_dir (`str` or `Path`): Its folder: the table `results.jsonl`, the rows in `data/`, the logits in `logits/`, logs
            and predictions in `runs/<id>/`. Nothing is written elsewhere.
        retry_failed (`bool`, *optional*, defaults to `False`): Run again what had failed before this call.
        limit (`int`, *optional*): Most runs of this call.
        machines ([`~dhrd_hf.study.machines.Machines`], *optional*): Where the runs are and how many at a time; by default
            here, one after the other.
        launch (`Sequence[str]`, *optional*): What `dhrd train` is started by.
        say (`Callable[[str], None]`, *optional*): Told of each run; by default it goes to stderr.
        options (*optional*): `decode`, as [`~dhrd_hf.study.runs.do_run`].

    Returns:
        [`StudyOutcome`]: where it stands.

    Raises:
        ValueError: if the table is of another study or of runs of other batches, a line of it is broken, or a link in the
            folder leads out of it.
        OSError: if the folder can't be written.
    """
    machines = machines or Machines()
    folder = Path(output_dir).expanduser().resolve()
    check_inside(study, folder)
    folder.mkdir(parents=True, exist_ok=True)
    runner = _Runner(study, folder, say or _to_stderr, launch or launch_of(machines.processes), machines, options)
    runner.table.repair()
    data = StudyData(study, folder, runner.say)
    data.check()
    before = runner.rows()
    runner.check_batches(before)
    # Rows, not times: the clocks of machines differ. Another call's retry has added a row, and is not tried once more.
    again = {
        cell: row
        for cell, row in before.items()
        if row["status"] == "failed" and (retry_failed or row.get("killed", False))
    }
    runner.announce(before, again)
    there = runner if machines.backend == "local" else replace(runner, say=_to_stderr)
    ran, elsewhere = 0, set()
    try:
        while limit is None or ran < limit:  # once more after the last: who had a run may be gone by now
            found = machines.run(
                there.run, runner.free(data, again, elsewhere, None if limit is None else limit - ran)
            )
            elsewhere |= {cell for cell, what in found if what == _ELSEWHERE}
            ran += (now := sum(what == _RAN for _, what in found))
            if not now:
                break
    except BaseException:
        runner.processes.end()
        for cell in study.runs if machines.backend != "local" else ():
            RunLock(folder, cell.id).end_what_was_left()
        raise
    rows = runner.rows()
    done, failed = (sum(row["status"] == status for row in rows.values()) for status in ("done", "failed"))
    return StudyOutcome(len(study.runs), done, failed, ran, len(elsewhere - rows.keys()))


def planned_runs(study: Study, output_dir: str | Path) -> Iterator[tuple[Run, str, str]]:
    """The cells of a study in their order, with their state and their commands; nothing is run, and nothing written."""
    folder = Path(output_dir).expanduser().resolve()
    check_inside(study, folder)
    states = _states(ResultsTable(folder / TABLE, study.name).read(), study)
    data = StudyData(study, folder)
    data.check()
    for cell in study.runs:
        command = shlex.join(["dhrd", "train", *train_command(cell, study, folder, data.files(cell))])
        yield cell, states.get(cell.id, {"status": "to run"})["status"], command


def check_inside(study: Study, folder: Path) -> None:
    """Raise on a link in a study's folder that leads out of it: what is written would be written elsewhere."""
    named = [folder / name for name in (TABLE, "encoded", "logits", "locks", "data", "cells", "runs")]
    named += [folder / "data" / data.folder_name for data in study.data.values()]
    named += [runs_folder(folder) / cell.id for cell in study.runs]
    for path in named:
        if path.is_symlink() and not path.resolve().is_relative_to(folder):
            raise ValueError(
                f"{path} is a link to {path.resolve()}, outside {folder}: a study writes into its folder alone"
            )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class _Runner:
    """What a run needs to know; a copy of it goes to another process where the runs are elsewhere."""

    study: Study
    folder: Path
    say: Callable[[str], None]
    launch: Sequence[str]
    machines: Machines
    options: Mapping[str, Any]
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        self.table = ResultsTable(self.folder / TABLE, self.study.name, self.say)

    def rows(self) -> dict[str, dict[str, Any]]:
        return _states(self.table.read(), self.study)

    def announce(self, rows: Mapping[str, Mapping[str, Any]], again: Mapping[str, Any]) -> None:
        done, failed = (sum(row["status"] == status for row in rows.values()) for status in ("done", "failed"))
        left = len(self.study.runs) - done - failed + len(again)
        said = f"study {self.study.name}: {len(self.study.runs)} runs, {done} done, {failed} failed, {left} to run"
        said += ". Run the failed ones again with --retry-failed" if failed > len(again) else ""
        self.say(said)
        for cell in self.study.runs:
            row = rows.get(cell.id, {})
            if row.get("status") == "done" and not row.get("model_kept"):
                self._clear_what_a_kill_left(cell)

    def check_batches(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise where the table's runs had another number of processes: their batches had another number of rows."""
        ours = self.machines.processes
        for cell, row in rows.items():
            theirs = row.get("processes", 1)
            if row["status"] == "done" and theirs != ours:
                raise ValueError(
                    f"the table's run {cell} had {theirs} processes, and now a run has {ours}: its batches would have "
                    f"{ours / theirs:g} times the rows. Add --processes-per-run {theirs}, or name another --output-dir"
                )

    def _clear_what_a_kill_left(self, cell: Run) -> None:
        """Of a process that was killed between its row and its clearing, or is there just now and has the run."""
        runs = list((runs_folder(self.folder) / cell.id).glob("run*"))
        lock = RunLock(self.folder, cell.id)
        if runs and lock.take():
            try:
                for run in runs:
                    clear(cell, self.folder, run.name, keep_model=False)
            finally:
                lock.release()

    def free(
        self, data: StudyData, again: Mapping[str, Any], elsewhere: set[str], most: int | None
    ) -> Iterator[tuple[Run, RunRows | None, str | None, Mapping[str, Any] | None]]:
        """The runs that nobody has done or is doing; with their rows, or why there are none."""
        rows = self.rows()
        for cell in self.study.runs:
            row = rows.get(cell.id)
            if row is not None and row != again.get(cell.id):
                continue
            if not RunLock(self.folder, cell.id).is_free():
                if cell.id not in elsewhere:
                    self.say(f"{self.study.label(cell)}: another process has it")
                elsewhere.add(cell.id)
                continue
            if most is not None:
                if most == 0:
                    return
                most -= 1
            try:
                yield cell, data.of(cell), None, row
            except Exception as error:  # said in its row: joblib asks for the next run in a thread of its own
                yield cell, None, " ".join(str(error).split()) or type(error).__name__, row

    def run(
        self, cell: Run, rows: RunRows | None, error: str | None, before: Mapping[str, Any] | None
    ) -> tuple[str, str]:
        """Run a cell and add its row, if nobody else has it or has done it since it was found free."""
        lock = RunLock(self.folder, cell.id)
        if not lock.take():
            return cell.id, _ELSEWHERE
        try:
            if self.rows().get(cell.id) != before:
                return cell.id, _ELSEWHERE
            if lock.taken_from is not None:
                self.say(f"{self.study.label(cell)}: taken over from {lock.taken_from}, which is gone")
            with self.machines.devices() as environment:
                row, name = self._row(cell, rows, error, lock, environment)
            self.table.append(row)
            clear(cell, self.folder, name, self.study.keep_models and row["status"] == "done")
            self._tell(cell, row)
        finally:
            lock.release()
        return cell.id, _RAN

    def _row(
        self, cell: Run, rows: RunRows | None, error: str | None, lock: RunLock, environment: Mapping[str, str]
    ) -> tuple[dict[str, Any], str]:
        name = "run" if lock.number == 1 else f"run-{lock.number}"
        row = new_row(cell, self.study, self.folder, rows, environment)
        row |= {"processes": self.machines.processes} if self.machines.processes > 1 else {}
        try:
            if rows is None:
                raise RunError(error)
            resume = self._prepare(cell, name)
            start = partial(self.processes.run, started=lock.note_child, environment=environment)
            found = do_run(
                cell, self.study, self.folder, rows, self.launch, run=name, resume=resume, start=start, **self.options
            )
            row |= found | {"status": "done"} | ({"resumed": True} if resume else {})  # its times: of the last part
            row |= {"model_kept": True} if self.study.keep_models else {}
        except (RunError, ValueError, OSError) as error:
            row["error"] = " ".join(str(error).split())
            row |= {"killed": True} if getattr(error, "killed", False) else {}
        row["finished"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        return row, name

    def _prepare(self, cell: Run, name: str) -> bool:
        """Make way for a run; whether an interrupted one left checkpoints to go on from."""
        here = runs_folder(self.folder) / cell.id
        here.mkdir(parents=True, exist_ok=True)
        old = [it for it in here.glob("run*") if it.is_dir()]
        with_best = "validation" in self.study.data[cell.data].spec  # whose checkpoints are weights alone
        with_checkpoints = [it for it in old if not with_best and last_checkpoint(it) is not None]
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

    def _tell(self, cell: Run, row: Mapping[str, Any]) -> None:
        rows = self.rows()
        place = f"[{len(rows):>{len(str(len(self.study.runs)))}}/{len(self.study.runs)}]"
        if row["status"] == "failed":
            log = runs_folder(self.folder) / cell.id / "log.txt"
            self.say(f"{place} {self.study.label(cell)}: failed: {row['error']} (see {log})")
            return
        left = _seconds_left(self.study, rows) / self.machines.jobs
        self.say(
            f"{place} {self.study.label(cell)}: {row['metric']} {row['score']:.4f}, {row['seconds']:.0f} s"
            + (f", about {_duration(left)} left" if left else "")
        )


def _states(rows: list[dict[str, Any]], study: Study) -> dict[str, dict[str, Any]]:
    """The last row of each of the study's cells."""
    cells = {cell.id: cell for cell in study.runs}
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
    for cell in study.runs:
        if cell.id not in rows:
            keys = ((cell.data, cell.setting), (cell.data,), ())
            times = next((took[key] for key in keys if key in took), [0.0])
            total += sum(times) / len(times)
    return total


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
