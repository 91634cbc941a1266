"""Running a study: pairing, resuming, sharing a folder. A stand-in for `dhrd train` writes a run's files."""

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhrd_hf.study import read_study, run_study
from dhrd_hf.study.data import StudyData
from dhrd_hf.study.machines import Machines, Processes, RunLock
from dhrd_hf.study.results import ResultsTable
from dhrd_hf.study.run import Job, RunError
from dhrd_hf.study.runner import planned_runs

STAND_IN = [sys.executable, "-I", "-S", str(Path(__file__).with_name("train_stand_in.py"))]
BLOCK = "{data: odd, setting: [pooled, dual_head], seed: [0, 1], train_size: 6}"


@pytest.fixture
def make(tmp_path):
    """A study of the given blocks."""
    rows = [{"id": f"r{i}", "text": f"Is {i} odd?", "label": "yes" if i % 2 else "no"} for i in range(10)]
    text = "".join(json.dumps(row | {"rationale": "Look at it."}) + "\n" for row in rows)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text(text)

    def study(*blocks, name="first", **keys):
        path = tmp_path / "study.yaml"
        head = {"name": name, "model": "tiny", "data": {"odd": {"train": "train.jsonl", "eval": "dev.jsonl"}}, **keys}
        lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
        path.write_text("\n".join([*lines, "grid:", *(f"  - {block}" for block in blocks)]))
        return read_study(path)

    return study


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def rows_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def started(out):
    log = out / "started.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def run(study, out, **options):
    said = []
    outcome = run_study(study, out, launch=STAND_IN, say=said.append, **options)
    return outcome, said


def wait_for(condition, seconds=60):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it did not come"
        time.sleep(0.01)


def test_a_row_says_what_was_asked_and_what_came(make, out, monkeypatch):
    for name, value in {
        "MALLOC_ARENA_MAX": "2",
        "LD_PRELOAD": "",
        "OMP_NUM_THREADS": "1",
        "A_TOKEN": "hf_secret",
    }.items():
        monkeypatch.setenv(name, value)
    study = make(
        "{data: odd, setting: dual_head, alpha: 2, seed: 1, train_size: 6, learning_rate: 1.0e-3}", eval_size=10
    )
    outcome, said = run(study, out)
    assert (outcome.total, outcome.done, outcome.failed, outcome.ran) == (1, 1, 0, 1)
    (row,) = rows_of(out)
    expected = {
        "study": "first",
        "cell": study.runs[0].id,
        "status": "done",
        "error": None,
        "data": "odd",
        "setting": "dual_head",
        "alpha": 2.0,
        "beta": 1.0,
        "classifier_head": "linear",
        "train_size": 6,
        "seed": 1,
        "options": {"learning_rate": 0.001},
        "train_rows": 6,
        "eval_rows": 10,
        "metric": "accuracy",
        "score": 0.7,
        "metrics": {"accuracy": 0.7, "loss": 0.5},
        "groups": None,
        "train_seconds": 2.0,
        "evaluate_seconds": 0.25,
        "train_samples_per_second": 3.0,
        "epoch_metrics": [{"epoch": 1.0, "accuracy": 0.5}],
        "model": "tiny",
    }
    assert {name: row[name] for name in expected} == expected
    assert len(row["labels"]) == 10 and set(row["labels"]) == {0, 1}
    assert [one == other for one, other in zip(row["labels"], row["predictions"], strict=True)] == [True] * 7 + [
        False
    ] * 3
    assert row["seconds"] > 0
    assert row["peak_memory_mb"] > 1 and row["versions"]["torch"] and " cores" in row["machine"]
    settings = {name: row["environment"].get(name) for name in ("MALLOC_ARENA_MAX", "LD_PRELOAD", "OMP_NUM_THREADS")}
    assert settings == {"MALLOC_ARENA_MAX": "2", "LD_PRELOAD": "", "OMP_NUM_THREADS": "1"}
    assert all(
        it.startswith("MALLOC_") or it.endswith("_NUM_THREADS") for it in row["environment"].keys() - {"LD_PRELOAD"}
    )
    assert f" data/odd-{row['rows_digest']}/train-6-" in row["command"]
    assert row["finished"].endswith("+00:00")
    assert row["command"].startswith("dhrd train --model tiny --train-data data/odd-")
    assert str(out) not in row["command"] and "--alpha 2 --beta 1" in row["command"]
    (given,) = started(out)
    assert given["save_strategy"] == given["eval_strategy"] == "no" and given["seed"] == "1"
    assert "accuracy 0.7000" in said[-1] and said[-1].startswith("[1/1] odd dual_head seed=1")


def test_settings_are_paired(make, out):
    run(make("{data: odd, setting: [pooled, dual_head, label_only], seed: [0, 1], train_size: 6}"), out)
    by_seed = {}
    for given in started(out):
        given = {name: it for name, it in given.items() if name != "parent"}
        own = {name: given.pop(name) for name in ("alpha", "train_data", "output_dir", "predictions", "logits")}
        by_seed.setdefault(given["seed"], []).append((own, given))
    for cells in by_seed.values():
        assert len(cells) == 3 and all(given == cells[0][1] for _, given in cells)
        assert [own["alpha"] for own, _ in cells] == ["0", "1", "1"]
        assert cells[0][0]["train_data"] == cells[1][0]["train_data"] != cells[2][0]["train_data"]


def test_what_ran_is_not_run_again_and_new_blocks_are(make, out):
    run(make(BLOCK), out)
    assert len(started(out)) == 4
    outcome, said = run(make(BLOCK), out)
    assert outcome.ran == 0 and outcome.done == 4 and len(started(out)) == 4
    assert said == ["study first: 4 runs, 4 done, 0 failed, 0 to run"]
    outcome, _ = run(make("{data: odd, setting: label_only, train_size: 6}", BLOCK), out)
    assert outcome.ran == 1 and outcome.done == 5 and len(started(out)) == 5


def test_a_folder_of_an_earlier_version_goes_on_where_its_runs_are(make, out):
    run(make(BLOCK), out, limit=2)
    (out / "runs").rename(out / "cells")
    outcome, _ = run(make(BLOCK), out)
    assert (outcome.done, outcome.ran) == (4, 2) and not (out / "runs").exists()
    assert {path.name for path in (out / "cells").iterdir()} == {row["cell"] for row in rows_of(out)}
    assert "--output-dir cells/" in rows_of(out)[-1]["command"]


def test_models_go_and_logs_stay(make, out):
    study = make(BLOCK)
    run(study, out, limit=2)
    cells = list((out / "runs").iterdir())
    assert len(cells) == 2 and not list(out.rglob("model.safetensors"))
    kept = {"log.txt", "predictions.jsonl", "train_results.json", "eval_results.json", "trainer_state.json"}
    assert all({path.name for path in cell.iterdir()} == kept for cell in cells)
    (cells[0] / "run" / "checkpoint-3").mkdir(parents=True)  # of a process that was killed before it had cleared
    run(study, out)
    assert not list((out / "runs").rglob("run"))


def test_what_a_kill_left_is_cleared_by_who_has_the_lock(make, out):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    run(study, out)
    (cell,) = (out / "runs").iterdir()
    (cell / "run").mkdir()
    (cell / "trainer_state.json").rename(cell / "run" / "trainer_state.json")
    lock = RunLock(out, cell.name)
    assert lock.take()  # the process that ran it is still clearing
    run(study, out)
    assert (cell / "run" / "trainer_state.json").exists()
    lock.release()
    run(study, out)
    assert not (cell / "run").exists() and (cell / "trainer_state.json").exists()


def test_models_are_kept_if_asked_for(make, out):
    run(make("{data: odd, setting: pooled, train_size: 6}", keep_models=True), out)
    for keep in (True, False):  # those of an earlier call as well
        run(make("{data: odd, setting: pooled, train_size: 6}", keep_models=keep), out)
        assert len(list(out.rglob("run/model.safetensors"))) == len(list(out.rglob("run/trainer_state.json"))) == 1
    run(make("{data: odd, setting: pooled, seed: 7, train_size: 6}", keep_models=True), out)
    assert rows_of(out)[-1]["status"] == "failed" and len(list(out.rglob("run"))) == 1  # nothing of it to keep


def test_a_model_s_folder_is_taken_from_the_study_s(make, out, tmp_path):
    study = make("{data: odd, setting: pooled, model: [tiny, other], train_size: 6, deepspeed: ds.json}")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "ds.json").write_text("{}")
    commands = [command for _, _, command in planned_runs(study, out)]
    assert "--model ../tiny " in commands[0] and "--model other " in commands[1]
    assert all("--deepspeed ../ds.json" in command for command in commands)


def test_what_is_left_is_told_by_runs_like_it(make, out):
    study, table = make(BLOCK), out / "results.jsonl"

    def left(**options):
        return re.search("(about .* left)?$", run(study, out, limit=1, **options)[1][-1])[0]

    left()
    table.write_text(re.sub('"seconds": [0-9.]+', '"seconds": 4000', table.read_text()))
    assert left(machines=Machines(jobs=2)).startswith("about 0:33:2")  # two of 2000 s, two at a time
    assert re.fullmatch("(about 0:00:.. left)?", left())  # as the other of its setting took


def test_a_file_that_can_not_be_written_is_a_failed_cell(make, out):
    study = make("{data: odd, setting: pooled, seed: [0, 1], train_size: 6}")
    (out / "runs").mkdir(parents=True)
    (out / "runs" / study.runs[0].id).write_text("in the way")
    outcome, _ = run(study, out)
    assert (outcome.done, outcome.failed) == (1, 1) and "File exists" in rows_of(out)[0]["error"]


def test_a_cell_that_fails_is_recorded_and_the_rest_go_on(make, out):
    study = make("{data: odd, setting: pooled, seed: [7, 0], train_size: 6}")
    outcome, said = run(study, out)
    assert (outcome.done, outcome.failed, outcome.ran) == (1, 1, 2)
    failed, done = rows_of(out)
    assert (failed["status"], failed["error"]) == ("failed", "seed 7 brings bad luck (exit code 2)")
    assert done.keys() - failed.keys() == {
        "label_names",
        "eval_sets",
        "seconds",
    }  # a table of one width, but for these
    assert failed.keys() <= done.keys() and failed["score"] is None and done["status"] == "done"
    told = next(line for line in said if "failed: seed 7" in line)
    assert str(out / "runs" / failed["cell"] / "log.txt") in told
    log = out / "runs" / failed["cell"] / "log.txt"
    assert "more noise" in (out / "runs" / failed["cell"] / "log.txt").read_text()
    # Again only when asked to.
    outcome, said = run(study, out)
    assert (outcome.failed, outcome.ran) == (1, 0) and "--retry-failed" in said[0]
    outcome, _ = run(study, out, retry_failed=True)
    assert (outcome.failed, outcome.ran) == (1, 1) and len(rows_of(out)) == 3
    assert log.read_text().count("more noise") == 1  # of the last time


def test_of_a_process_that_says_no_error_the_last_line_is_told(make, out):
    code = "print('first'); print('last'); print(); raise SystemExit(3)"
    study = make("{data: odd, setting: pooled, train_size: 6}")
    run_study(study, out, launch=[sys.executable, "-c", code], say=lambda _: None)
    assert rows_of(out)[0]["error"] == "last (exit code 3)"


def test_labels_that_are_objects_fail_the_cells_of_their_data(make, out, tmp_path):
    sources = {name: {"train": f"{name}.jsonl", "eval": f"{name}.jsonl"} for name in ("objects", "train")}
    study = make("{setting: pooled, seed: [0, 1], train_size: 6}", data=sources)
    rows = [{"text": f"Is {i} odd?", "label": {"odd": i % 2}} for i in range(4)]
    (tmp_path / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome, _ = run(study, out)
    assert (outcome.done, outcome.failed) == (2, 2)
    failed = rows_of(out)[0]
    assert failed["error"].startswith("Row 0 of objects, train: its label holds an object")
    assert "a study is of one label a row" in failed["error"].lower()
    assert failed["rows_digest"] == study.data["objects"].rows_digest


def test_columns_of_other_names(make, out, tmp_path):
    rows = [{"id": i, "text": f"Is {i} odd?", "gold": "yes" if i % 2 else "no", "why": "Look."} for i in range(10)]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"train": "other.jsonl", "eval": "other.jsonl", "label_column": "gold", "rationale_column": "why"}
    outcome, _ = run(make("{setting: [pooled, dual_head]}", data={"other": spec}), out)
    assert outcome.done == 2 and [row["score"] for row in rows_of(out)] == [0.5, 0.6]


def test_lists_are_typed_as_dhrd_train_reads_them(make, out):
    lists = {"class_weights": [1, 2.5], "target_modules": ["q_proj", "v_proj"], "debug": ["underflow_overflow"]}
    run(make("{setting: pooled}", train=lists), out)
    (given,) = started(out)
    assert [given[name] for name in lists] == ["1,2.5", "q_proj,v_proj", "underflow_overflow"]


def test_a_launcher_that_dies_by_a_signal_is_a_failed_cell(make, out):
    code = "import os; print('half'); os.kill(os.getpid(), 9)"
    study = make("{data: odd, setting: pooled, train_size: 6}")
    outcome = run_study(study, out, launch=[sys.executable, "-c", code], say=lambda _: None)
    assert outcome.failed == 1
    assert "(ended by SIGKILL, as where memory is short)" in rows_of(out)[0]["error"]


def test_predictions_of_other_rows_make_no_row(make, out):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    code = f"import sys; sys.argv[0] = 'x'; exec(open({STAND_IN[-1]!r}).read().replace('for row in said))', 'for row in said[1:]))'))"
    outcome = run_study(study, out, launch=[sys.executable, "-c", code], say=lambda _: None)
    assert outcome.failed == 1 and "9 predictions are not those of the 10 evaluation rows" in rows_of(out)[0]["error"]


def test_predictions_that_are_not_what_the_evaluation_saw_make_no_row(make, out):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    code = f"import sys; exec(open({STAND_IN[-1]!r}).read().replace('\"eval_accuracy\": accuracy', '\"eval_accuracy\": 0.9'))"
    run_study(study, out, launch=[sys.executable, "-c", code], say=lambda _: None)
    assert "have an accuracy of 0.500000, and its evaluation said 0.900000" in rows_of(out)[0]["error"]


def test_probabilities_that_are_no_numbers_make_no_row(make, out):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    code = f'import sys; exec(open({STAND_IN[-1]!r}).read().replace(\'"probabilities": {{}}\', \'"probabilities": {{"yes": float("nan")}}\'))'
    outcome = run_study(study, out, launch=[sys.executable, "-c", code], say=lambda _: None)
    (row,) = rows_of(out)
    assert outcome.failed == 1 and "10 of its probabilities are no numbers: the training has diverged" in row["error"]


@pytest.mark.parametrize("turned", [False, True])
def test_logits_that_are_not_those_of_the_predictions_make_no_row(make, out, turned):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    (cell,) = study.runs
    rows = StudyData(study, out).of(cell)

    def start(command, folder, log):
        ended = Processes().run(command, folder, log)
        run = out / "runs" / cell.id / "run"
        said = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        logits = [[0.0, 1.0] if (row["predicted_label"] == "yes") != turned else [1.0, 0.0] for row in said]
        labels = [rows.names.index(row["label"]) for row in said]
        columns = {"set": ["eval"] * 10, "row": range(10), "label": labels, "logits": logits}
        table = pa.table(columns).replace_schema_metadata({"labels": json.dumps(["no", "yes"])})
        pq.write_table(table, run / "logits.parquet")
        return ended

    if turned:
        with pytest.raises(RunError, match="its logits are not those of its predictions"):
            Job(cell, study, out, rows).do(STAND_IN, start)
    else:
        found = Job(cell, study, out, rows).do(STAND_IN, start)
        assert found["logits"] == f"logits/{cell.id}.parquet" and (out / found["logits"]).is_file()


DECODED = """
import json, sys
from pathlib import Path
words = dict(zip(sys.argv[1:-1], sys.argv[2:]))
out = Path(words["--output-dir" if "--train-data" in words else "--output"])
if "--train-data" in words:
    out.mkdir(parents=True)
    (out / "train_results.json").write_text(json.dumps({"train_runtime": 2.0, "train_samples_per_second": 1.0}))
    (out / "trainer_state.json").write_text(json.dumps({"log_history": []}))
else:
    rows = [json.loads(line) for line in open(words["--data"])]
    said = [ANSWERS[row["label"]] for row in rows]
    column = words["--label-column"] if "--label-column" in words else "label"
    rows = [{column: row["label"], "predicted_label": it} for row, it in zip(rows, said)]
    out.write_text("".join(json.dumps(row) + chr(10) for row in rows))
    Path(words["--metrics"]).write_text(json.dumps({"eval_runtime": 1.0}))
"""


@pytest.mark.parametrize(
    ("answers", "least", "most"),
    [
        ({"Yes": "Yes", "No": "No"}, 1.0, 1.0),
        ({"Yes": "Yes", "No": None}, 1.0, 1.0),
        ({"Yes": "No", "No": "Yes"}, 0.0, 0.0),
        ({"Yes": "Yes", "No": "Yes"}, 0.42, 0.58),  # level: one of the two is drawn
        ({"Yes": None, "No": "No"}, 0.42, 0.58),
    ],
)
def test_decoded_answers_choose_a_candidate_as_probabilities_do(
    make, out, tmp_path, monkeypatch, answers, least, most
):
    rows = [
        {"text": f"{i}", "label": "Yes" if i % 2 else "No", "group": i // 2, "rationale": "So."} for i in range(800)
    ]
    (tmp_path / "copa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = make("{setting: cot_decoding}", data={"copa": {"train": "copa.jsonl", "eval": "copa.jsonl"}})
    study.data["copa"].spec["metric"] = "question_accuracy"
    command = [sys.executable, "-c", DECODED.replace("ANSWERS", repr(answers))]
    (cell,) = study.runs
    peaks = iter([3.0, 1.0])

    def start(*given):
        return Processes().run(*given)._replace(peak_memory_mb=next(peaks))

    monkeypatch.setattr("dhrd_hf.study.run.DECODE", command)
    found = Job(cell, study, out, StudyData(study, out / "data").of(cell)).do(command, start)
    assert least <= found["score"] <= most and found["peak_memory_mb"] == 3.0
    (_, _, command), *_ = planned_runs(study, out)
    assert "--eval-split 0" in command and "--eval-strategy no" in command


def test_a_limit_stops_after_as_many(make, out):
    outcome, _ = run(make(BLOCK), out, limit=3)
    assert outcome.ran == 3 and len(rows_of(out)) == 3


@pytest.mark.parametrize("by", ["name", "cell"])
def test_the_table_of_another_study_is_refused(make, out, by):
    run(make(BLOCK), out, limit=1)
    before = (out / "results.jsonl").read_text()
    if by == "cell":
        (out / "results.jsonl").write_text(before.replace('"alpha": 0.0', '"alpha": 0.5'))
    before = (out / "results.jsonl").read_text()
    with pytest.raises(ValueError, match="another study" if by == "cell" else "is the table of the study 'first'"):
        run(make(BLOCK, name="second" if by == "name" else "first"), out)
    assert (out / "results.jsonl").read_text() == before and len(started(out)) == 1


def test_planned_cells_are_those_that_run(make, out):
    study = make(BLOCK)
    run(study, out, limit=1)
    planned = list(planned_runs(study, out))
    assert [state for _, state, _ in planned] == ["done", "to run", "to run", "to run"]
    run(study, out)
    assert [command for _, _, command in planned] == [row["command"] for row in rows_of(out)]


# Killed, and side by side


def _run_quietly(study, out, **options):
    run_study(study, out, launch=STAND_IN, say=lambda _: None, **options)


def runner_process(study, out, **options):
    process = multiprocessing.get_context("fork").Process(target=_run_quietly, args=(study, out), kwargs=options)
    process.start()
    return process


@pytest.fixture
def hold(out):
    """While it is there, the stand-ins wait."""
    out.mkdir()
    (out / "hold").touch()
    return out / "hold"


def child_of(study, out, place=0):
    """The process that trains in a run."""
    note = out / "locks" / f"{study.runs[place].id}.json"
    wait_for(lambda: note.exists() and "child" in note.read_text())
    return json.loads(note.read_text())["child"]


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def done_once(study, out):
    """Every run is in the table as done exactly once, and none is lost."""
    assert sorted(row["cell"] for row in rows_of(out) if row["status"] == "done") == sorted(
        cell.id for cell in study.runs
    )


def test_a_killed_study_goes_on_where_it_was(make, out, hold):
    study = make(BLOCK)
    run_process = runner_process(study, out)
    wait_for(lambda: len(started(out)) == 1)
    child = child_of(study, out)
    os.kill(run_process.pid, signal.SIGKILL)
    run_process.join()
    # A killed writer may also have left half a line.
    (out / "results.jsonl").write_bytes(b'{"study": "fir')
    os.kill(child, signal.SIGSTOP)  # that it does not end by itself
    hold.unlink()
    outcome, said = run(study, out)
    assert is_gone(child)
    assert (outcome.done, outcome.ran) == (4, 4)
    assert [row["cell"] for row in rows_of(out)] == [cell.id for cell in study.runs]
    assert any("half-written" in line for line in said)
    assert any(f"taken over from process {run_process.pid}" in line for line in said)
    assert not list((out / "locks").glob("*.json")) and not list((out / "runs").rglob("run*"))


@pytest.mark.parametrize("moment", ["starting", "training", "writing"])
@pytest.mark.parametrize(("who", "jobs"), [("run", 2), ("study", 1), ("study", 2)])
def test_whatever_is_killed_every_run_is_done_exactly_once(make, out, moment, who, jobs):
    study = make("{data: odd, setting: [pooled, dual_head], seed: [0, 1], train_size: 6}")
    out.mkdir()
    (out / f"hold-{moment}").touch()
    process = runner_process(study, out, machines=Machines.of(jobs=jobs))
    wait_for(lambda: (out / f"at-{moment}").exists())
    child = child_of(study, out)
    os.kill(child if who == "run" else process.pid, signal.SIGKILL)
    if who == "run":
        (out / f"hold-{moment}").unlink()
        process.join(60)
        assert process.exitcode == 0
        failed = [row for row in rows_of(out) if row["status"] == "failed"]
        assert [row["cell"] for row in failed] == [study.runs[0].id] and failed[0]["killed"] is True
        assert len(rows_of(out)) == 4
    else:
        process.join()
        (out / f"hold-{moment}").unlink()
    outcome, said = run(study, out, machines=Machines.of(jobs=jobs))
    assert (outcome.done, outcome.failed, outcome.elsewhere) == (4, 0, 0) and is_gone(child)
    assert outcome.ran == (1 if who == "run" else 4)
    done_once(study, out)
    assert not list((out / "runs").rglob("run*")) and len(list((out / "runs").iterdir())) == 4
    assert run(study, out)[0].ran == 0


def test_a_run_that_was_taken_over_has_a_folder_of_its_own(make, out):
    """Whoever had it may still write into the other, on another machine."""
    study = make("{data: odd, setting: pooled, train_size: 6}")
    (out / "locks").mkdir(parents=True)
    left = {"host": "afar", "machine": "another", "pid": 1, "number": 1}
    (out / "locks" / f"{study.runs[0].id}.json").write_text(json.dumps(left))
    assert run(study, out)[0].done == 1
    assert started(out)[0]["output_dir"].endswith("/run-2") and "/run --enc" in rows_of(out)[0]["command"]


@pytest.mark.parametrize("moment", ["before the row", "in the row", "after the row"])
def test_a_study_killed_at_its_row_has_it_once(make, out, moment, monkeypatch):
    study = make("{data: odd, setting: pooled, seed: [0, 1], train_size: 6}")

    def killed():
        append = ResultsTable.append

        def at(self, row):
            if moment == "in the row":
                self.path.write_bytes(json.dumps(row).encode()[:200])
            if moment == "after the row":
                append(self, row)
            os.kill(os.getpid(), signal.SIGKILL)

        ResultsTable.append = at
        _run_quietly(study, out)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    outcome, _ = run(study, out)
    assert outcome.done == 2 and outcome.ran == (1 if moment == "after the row" else 2)
    done_once(study, out)
    assert not list((out / "runs").rglob("run*"))


def test_an_interrupted_run_is_ended_and_given_back(make, out, hold):
    study = make(BLOCK)
    for jobs in (1, 2):
        process = multiprocessing.get_context("fork").Process(target=_interrupted, args=(study, out, jobs))
        process.start()
        children = [child_of(study, out, place) for place in range(jobs)]
        # Ctrl-C at a terminal is of the whole group: the runs are in groups of their own, for us to end.
        assert all(os.getpgid(child) == child for child in children)
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 42 and all(map(is_gone, children))
        assert not (out / "results.jsonl").exists()
    hold.unlink()
    assert run(study, out)[0].done == 4


def _interrupted(study, out, jobs):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run_quietly(study, out, machines=Machines.of(jobs=jobs))
    except KeyboardInterrupt:
        os._exit(42)


def test_a_cell_with_checkpoints_goes_on_from_them(make, out):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    run_folder = out / "runs" / study.runs[0].id / "run"
    (run_folder / "checkpoint-2").mkdir(parents=True)
    (run_folder / "checkpoint-2" / "trainer_state.json").write_text("{}")
    run(study, out)
    (given,) = started(out)
    assert given["resume"] is True and rows_of(out)[0]["resumed"] is True
    assert "--resume" not in rows_of(out)[0]["command"]


def test_labels_that_are_floats_are_those_of_the_predictions(make, out, tmp_path):
    study = make("{data: odd, setting: pooled, train_size: 6}")
    for name in ("train", "dev"):
        text = (tmp_path / f"{name}.jsonl").read_text()
        (tmp_path / f"{name}.jsonl").write_text(text.replace('"yes"', "1.0").replace('"no"', "0.0"))
    run(study, out)
    (row,) = rows_of(out)
    assert row["error"] is None and row["label_names"] == ["0", "1"] and row["score"] == 0.5


def test_processes_on_one_folder_share_the_cells(make, out, hold):
    study = make("{data: odd, setting: [pooled, dual_head], seed: [0, 1, 2, 3], train_size: 6}")
    processes = [runner_process(study, out) for _ in range(3)]
    wait_for(lambda: len(started(out)) == 3)  # none waits for another
    assert len({given["output_dir"] for given in started(out)}) == 3
    hold.unlink()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(started(out)) == len(rows_of(out)) == 8
    assert {row["cell"] for row in rows_of(out)} == {cell.id for cell in study.runs}


def test_processes_that_retry_what_failed_do_so_once_together(make, out):
    study = make("{data: odd, setting: [pooled, dual_head, label_only], seed: 7, train_size: 6}")
    run(study, out)
    assert len(started(out)) == 3
    # A row of a machine whose clock is ahead is one from before this call all the same.
    table = out / "results.jsonl"
    table.write_text(re.sub('"finished": "20', '"finished": "21', table.read_text()))
    hold = out / "hold"
    hold.touch()
    processes = [runner_process(study, out, retry_failed=True) for _ in range(3)]
    wait_for(lambda: len(started(out)) == 6)
    hold.unlink()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(started(out)) == len(rows_of(out)) == 6


def test_a_cell_that_another_process_has_is_told_and_left(make, out, hold):
    study = make("{data: odd, setting: pooled, seed: [0, 1], train_size: 6}")
    process = runner_process(study, out)
    wait_for(lambda: len(started(out)) == 1)
    try:
        study.runs.pop()
        outcome, said = run(study, out)
        assert (outcome.ran, outcome.elsewhere) == (0, 1)
        assert said[-1] == "odd pooled seed=0: another process has it"
    finally:
        hold.unlink()
        process.join(60)


def test_a_run_that_was_given_back_meanwhile_is_done(make, out):
    study = make("{data: odd, setting: pooled, seed: [0, 1], train_size: 6}")
    lock = RunLock(out, study.runs[0].id)
    assert lock.take()

    def say(line):
        if "another process has it" in line:
            lock.release()

    outcome = run_study(study, out, launch=STAND_IN, say=say)
    assert (outcome.done, outcome.ran, outcome.elsewhere) == (2, 2, 0)


def test_a_run_that_another_process_took_meanwhile_is_none_of_ours(make, out):
    study = make("{data: odd, setting: pooled, train_size: 60}")
    lock = RunLock(out, study.runs[0].id)

    def say(line):
        if "not the 60 that were asked for" in line:  # between a look at the lock and its taking
            lock.take()

    outcome = run_study(study, out, launch=STAND_IN, say=say)
    assert (outcome.done, outcome.ran, outcome.elsewhere) == (0, 0, 1) and not started(out)
    lock.release()


def test_the_best_epoch_is_chosen_on_validation_rows_alone(make, out, tmp_path):
    held_out = [{"id": f"v{i}", "text": f"Is {i} odd?", "label": "yes" if i % 2 else "no"} for i in range(4)]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    data = {"odd": {"train": "train.jsonl", "eval": "dev.jsonl", "validation": "held_out.jsonl"}}
    study = make("{seed: 0, num_train_epochs: 9}", data=data)
    last = out / "runs" / study.runs[0].id / "run" / "checkpoint-3"  # weights alone, which nothing can go on from
    last.mkdir(parents=True)
    (last / "trainer_state.json").write_text("{}")
    assert run(study, out)[0].done == 2
    for given in started(out):
        assert "resume" not in given
        assert given["eval_strategy"] == "epoch" and given["load_best_model_at_end"] == "true"
        assert given["metric_for_best_model"] == "eval_classification_loss"
        rows = [json.loads(line) for line in (out / given["validation_data"]).read_text().splitlines()]
        assert rows == held_out
        assert [row["id"] for row in map(json.loads, (out / given["eval_data"]).read_text().splitlines())][0][0] == "r"
    (tmp_path / "held_out.jsonl").write_text(json.dumps(held_out[0] | {"label": "perhaps"}) + "\n")
    (outcome, _) = run(make("{seed: 0}", data=data, name="other"), out.with_name("other"))
    assert outcome.failed == 2
    assert "'perhaps'" in rows_of(out.with_name("other"))[0]["error"]
