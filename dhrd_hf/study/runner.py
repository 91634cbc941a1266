"""`run_study`: runs what is not in a study's table yet, here or on a cluster, alone or beside other starts of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from .data import RunRows, StudyData
from .machines import Machines, Processes, RunLock
from .plan import Run, Study
from .results import ResultsTable, to_stderr
from .run import Job, RunError, launch_of, runs_folder

TABLE = "results.jsonl"
Rows = dict[str, dict[str, Any]]  # the last row of each run, by its id


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
    processes: Processes | None = None,
    say: Callable[[str], None] | None = None,
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
        processes ([`~dhrd_hf.study.machines.Processes`], *optional*): What the processes on this machine will be in, for
            whoever may end them, which raises [`~dhrd_hf.study.machines.Interrupted`].
        say (`Callable[[str], None]`, *optional*): Told of each run; by default it goes to stderr.

    Returns:
        [`StudyOutcome`]: where it stands.

    Raises:
        ValueError: if the table is of another study or of runs of other batches, a line of it is broken, or a link in the
            folder leads out of it.
        OSError: if the folder can't be written.
    """
    machines, folder = machines or Machines(), Path(output_dir).expanduser().resolve()
    check_inside(study, folder)
    folder.mkdir(parents=True, exist_ok=True)
    launch, processes = launch or launch_of(machines.processes), processes or Processes()
    runner = _Runner(study, folder, say or to_stderr, launch, machines, processes)
    runner.table.repair()
    data = StudyData(study, folder, runner.say)
    data.check()
    rows = runner.rows()
    # Rows, not times: the clocks of machines differ. Another call's retry has added a row, and is not tried once more.
    failed = {run: row for run, row in rows.items() if row["status"] == "failed"}
    again = {run: row for run, row in failed.items() if retry_failed or row.get("killed", False)}
    runner.begin(rows, len(failed), len(again))
    there = runner if machines.backend == "local" else replace(runner, say=to_stderr)
    ran, elsewhere = 0, set()
    try:
        while limit is None or ran < limit:  # once more after the last: who had a run may be gone by now
            left = None if limit is None else limit - ran
            found = machines.run(there.run, runner.free(data, again, elsewhere, left))
            elsewhere |= {run for run, ours in found if not ours}
            ran += (now := sum(ours for _, ours in found))
            if not now:
                break
    except BaseException:
        processes.end()
        for run in study.runs if machines.backend != "local" else ():
            RunLock(folder, run.id).end_what_was_left()
        raise
    rows = runner.rows()
    states = Counter(row["status"] for row in rows.values())
    return StudyOutcome(len(study.runs), states["done"], states["failed"], ran, len(elsewhere - rows.keys()))


def planned_runs(study: Study, output_dir: str | Path) -> Iterator[tuple[Run, str, str]]:
    """The runs of a study in their order, with their state and their commands; nothing is run, and nothing written."""
    folder = Path(output_dir).expanduser().resolve()
    check_inside(study, folder)
    rows, data = _last_rows(ResultsTable(folder / TABLE, study.name), study), StudyData(study, folder)
    data.check()
    for run in study.runs:
        command = shlex.join(["dhrd", "train", *Job(run, study, folder, data.files(run)).command()])
        yield run, rows.get(run.id, {"status": "to run"})["status"], command


def check_inside(study: Study, folder: Path) -> None:
    """Raise on a link in a study's folder that leads out of it: what is written would be written elsewhere."""
    named = [folder / name for name in (TABLE, "encoded", "logits", "locks", "data", "cells", "runs")]
    named += [folder / "data" / data.folder_name for data in study.data.values()]
    for path in (*named, *(runs_folder(folder) / run.id for run in study.runs)):
        if path.is_symlink() and not path.resolve().is_relative_to(folder):
            raise ValueError(
                f"{path} is a link to {path.resolve()}, outside {folder}: a study writes into its folder alone"
            )


def _last_rows(table: ResultsTable, study: Study) -> Rows:
    runs, found = {run.id: run for run in study.runs}, {}
    for row in (row for row in table.read() if row["cell"] in runs):
        for name, asked in runs[row["cell"]].asked.items():
            if row.get(name) != asked:
                raise ValueError(
                    f"the table has run {row['cell']} with {name} {row.get(name)!r}, and in this study it is {asked!r}: "
                    "it is another study's table; name another --output-dir"
                )
        found[row["cell"]] = row
    return found


@dataclass
class _Runner:
    """What a run needs to know; a copy of it goes to another process where the runs are elsewhere."""

    study: Study
    folder: Path
    say: Callable[[str], None]
    launch: Sequence[str]
    machines: Machines
    processes: Processes

    def __post_init__(self) -> None:
        self.table = ResultsTable(self.folder / TABLE, self.study.name, self.say)

    def rows(self) -> Rows:
        return _last_rows(self.table, self.study)

    def begin(self, rows: Rows, failed: int, again: int) -> None:
        """Say what there is to do, and clear what a kill left."""
        done, ours = {run: row for run, row in rows.items() if row["status"] == "done"}, self.machines.processes
        for run, row in done.items():
            if (theirs := row.get("processes", 1)) != ours:
                raise ValueError(
                    f"the table's run {run} had {theirs} processes, and now a run has {ours}: its batches would have "
                    f"{ours / theirs:g} times the rows. Add --processes-per-run {theirs}, or name another --output-dir"
                )
        total = len(self.study.runs)
        said = f"study {self.study.name}: {total} runs, {len(done)} done, {failed} failed, "
        said += f"{total - len(done) - failed + again} to run"
        self.say(said + (". Run the failed ones again with --retry-failed" if failed > again else ""))
        for run in self.study.runs:
            if run.id in done and not done[run.id].get("model_kept"):
                # Of a process that was killed between its row and its clearing, or is there just now and has the run.
                left = list((runs_folder(self.folder) / run.id).glob("run*"))
                if left and (lock := RunLock(self.folder, run.id)).take():
                    for it in left:
                        Job(run, self.study, self.folder, None, it.name).clear(keep_model=False)
                    lock.release()

    def free(self, data: StudyData, again: Rows, elsewhere: set[str], most: int | None) -> Iterator[tuple]:
        """The runs that nobody has done or is doing, up to so many; with their rows, or why there are none."""
        rows, found = self.rows(), 0
        for run in self.study.runs:
            row = rows.get(run.id)
            if found == most or (row is not None and row != again.get(run.id)):
                continue
            if not RunLock(self.folder, run.id).is_free():
                if run.id not in elsewhere:
                    self.say(f"{self.study.label(run)}: another process has it")
                elsewhere.add(run.id)
                continue
            found += 1
            try:
                yield run, data.of(run), None, row
            except Exception as error:  # said in its row: joblib asks for the next run in a thread of its own
                yield run, None, RunError(str(error) or type(error).__name__), row

    def run(self, run: Run, rows: RunRows | None, error: RunError | None, before: dict | None) -> tuple[str, bool]:
        """Do a run and add its row, if nobody else has it or has done it since it was found free."""
        lock, label = RunLock(self.folder, run.id), self.study.label(run)
        if not lock.take():
            return run.id, False
        try:
            if self.rows().get(run.id) != before:
                return run.id, False
            if lock.taken_from is not None:
                self.say(f"{label}: taken over from {lock.taken_from}, which is gone")
            job = Job(run, self.study, self.folder, rows, "run" if lock.number == 1 else f"run-{lock.number}")
            with self.machines.devices() as environment:
                row = job.row(environment)
                row |= {"processes": self.machines.processes} if self.machines.processes > 1 else {}
                try:
                    if error is not None:
                        raise error
                    start = partial(self.processes.run, started=lock.note_child, environment=environment)
                    row |= job.do(self.launch, start) | ({"model_kept": True} if self.study.keep_models else {})
                except (RunError, ValueError, OSError) as failure:
                    row["error"] = " ".join(str(failure).split())
                    row |= {"killed": True} if getattr(failure, "killed", False) else {}
            row["finished"] = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.table.append(row)
            job.clear(self.study.keep_models and row["status"] == "done")
            rows = self.rows()
            said = f"[{len(rows):>{len(str(len(self.study.runs)))}}/{len(self.study.runs)}] {label}: "
            if row["status"] == "done":
                self.say(f"{said}{row['metric']} {row['score']:.4f}, {row['seconds']:.0f} s{self._left(rows)}")
            else:
                self.say(f"{said}failed: {row['error']} (see {job.log})")
        finally:
            lock.release()
        return run.id, True

    def _left(self, rows: Rows) -> str:
        """How long what is left takes, if as long as the mean of its data set and setting, or of all that is done."""
        done = [row for row in rows.values() if row["status"] == "done"]
        seconds = pd.DataFrame(done, columns=["data", "setting", "seconds"]).set_index(["data", "setting"])["seconds"]
        means, mean = seconds.groupby(level=[0, 1]).mean(), seconds.mean()
        left = sum(means.get((it.data, it.setting), mean) for it in self.study.runs if it.id not in rows)
        left /= self.machines.jobs
        return f", about {timedelta(seconds=round(left))} left" if left else ""
