"""Where the runs are: GPUs by the run, processes of a run, Ray and Dask."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dhrd_hf.study import read_study, run_study
from dhrd_hf.study.machines import Machines
from dhrd_hf.study.run import launch_of

STAND_IN = [sys.executable, "-I", "-S", str(Path(__file__).with_name("train_stand_in.py"))]


@pytest.fixture
def study(tmp_path):
    rows = [
        {"id": i, "text": f"Is {i} odd?", "label": "yes" if i % 2 else "no", "rationale": "So."} for i in range(10)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "study.yaml").write_text(
        "name: first\nmodel: tiny\ndata: {odd: {train: rows.jsonl, eval: rows.jsonl}}\n"
        "grid: [{setting: [pooled, dual_head], seed: [0, 1, 2], train_size: 6}]\n"
    )
    return read_study(tmp_path / "study.yaml")


def rows_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def started(out):
    return [json.loads(line) for line in (out / "started.log").read_text().splitlines()]


def test_a_gpu_a_run_by_default_and_all_of_them_if_asked_for(study, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,GPU-3f")
    machines = Machines.of()
    assert (machines.jobs, machines.gpus, machines.processes) == (4, 1, 1)
    with ExitStack() as stack:
        seen = [stack.enter_context(machines.devices())["CUDA_VISIBLE_DEVICES"] for _ in range(4)]
        assert sorted(seen) == ["0", "1", "2", "GPU-3f"] and machines.free.empty()
    assert machines.free.qsize() == 4
    machines = Machines.of(gpus=4)
    assert (machines.jobs, machines.gpus, machines.processes) == (1, 4, 4)
    with machines.devices() as own:
        assert own["CUDA_VISIBLE_DEVICES"] == "0,1,2,GPU-3f"
    assert not machines.free.empty()
    assert (Machines.of(gpus=3).jobs, Machines.of(gpus=2).jobs, Machines.of(gpus=2, processes=1).processes) == (
        1,
        2,
        1,
    )
    assert (Machines.of(jobs=2).free.qsize(), Machines.of(jobs=2).jobs) == (2, 2)
    assert run_study(study, tmp_path / "out", launch=STAND_IN, machines=Machines.of(), say=lambda _: None).done == 6
    assert {it["CUDA_VISIBLE_DEVICES"] for it in started(tmp_path / "out")} <= {"0", "1", "2", "GPU-3f"}
    assert all(len(it["CUDA_VISIBLE_DEVICES"].split(",")) == 1 for it in started(tmp_path / "out"))


@pytest.mark.parametrize("visible", ["", "-1", "0"])
def test_with_one_gpu_or_none_a_run_sees_what_we_see(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machines = Machines.of()
    assert (machines.jobs, machines.gpus, machines.processes) == (1, 0, 1)
    with machines.devices() as own:
        assert own == {}
    if visible != "0":
        with pytest.raises(ValueError, match="needs 1 GPUs, and there are 0"):
            Machines.of(gpus=1)


def test_runs_side_by_side_share_the_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    for asked, threads in ({"jobs": 4}, "4"), ({"jobs": 2, "processes": 4}, "2"), ({"jobs": 32}, "1"):
        with Machines.of(**asked).devices() as own:
            assert own == {"OMP_NUM_THREADS": threads}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with Machines.of(jobs=4).devices() as own:
        assert own == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"jobs": 0}, "--jobs 0 must be 1 or more"),
        ({"gpus": -1}, "--gpus-per-run -1 must be 0 or more"),
        ({"processes": 0}, "--processes-per-run 0 must be 1 or more"),
        ({"gpus": 3}, "--gpus-per-run 3 with 1 runs at a time needs 3 GPUs, and there are 2"),
        ({"gpus": 1, "jobs": 3}, "--gpus-per-run 1 with 3 runs at a time needs 3 GPUs, and there are 2"),
        ({"backend": "slurm"}, "--backend slurm must be one of local, ray, dask"),
        ({"address": "auto"}, "--address auto is of a cluster: add --backend ray or --backend dask"),
        ({"backend": "ray"}, "--backend ray needs --jobs N"),
        ({"backend": "ray", "jobs": 1}, "--backend ray needs --jobs N"),
        ({"backend": "dask"}, "--backend dask needs --jobs N"),
        ({"backend": "dask", "jobs": 2, "gpus": 1}, "--gpus-per-run goes with this machine and Ray"),
    ],
)
def test_what_can_not_be_is_told(monkeypatch, asked, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ValueError, match=message):
        Machines.of(**asked)


def test_several_processes_of_a_run_are_torchrun_s_and_change_its_batches(study, tmp_path):
    assert launch_of(1) == (sys.executable, "-m", "dhrd_hf.cli", "train")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8", "-m", "dhrd_hf.cli", "train")
    assert launch_of(8) == (sys.executable, *torchrun)
    options = {"launch": STAND_IN, "say": lambda _: None}
    run_study(study, tmp_path / "out", machines=Machines(processes=8), limit=1, **options)
    (row,) = rows_of(tmp_path / "out")
    assert row["processes"] == 8
    with pytest.raises(
        ValueError, match="had 8 processes, and now a run has 1: .* 0.125 times .* --processes-per-run 8"
    ):
        run_study(study, tmp_path / "out", **options)
    assert run_study(study, tmp_path / "out", machines=Machines(processes=8), **options).done == 6
    run_study(study, tmp_path / "other", limit=1, **options)
    with pytest.raises(ValueError, match="had 1 processes, and now a run has 8"):
        run_study(study, tmp_path / "other", machines=Machines(processes=8), **options)


def test_runs_at_a_time_are_as_many_as_asked_for(study, tmp_path):
    out, how = tmp_path / "out", {"launch": [*STAND_IN, "--meet", "3"], "say": lambda _: None}
    assert run_study(study, out, machines=Machines(jobs=3), limit=3, **how).done == 3
    assert max(it["beside"] for it in started(out)) == 3  # and not two of them one after the other
    assert run_study(study, out, machines=Machines(jobs=3), **how).done == 6
    assert sorted(row["cell"] for row in rows_of(out)) == sorted(run.id for run in study.runs)


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_two_workers_of_a_cluster_that_is_started_here(study, tmp_path, backend, monkeypatch):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[backend])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of a cluster of somebody else, as is one on this machine
    out = tmp_path / "out"
    machines = Machines.of(backend, jobs=2)
    outcome = run_study(study, out, machines=machines, launch=STAND_IN, limit=5)
    assert (outcome.done, outcome.failed, outcome.ran) == (5, 0, 5)
    outcome = run_study(study, out, machines=machines, launch=STAND_IN)
    assert (outcome.done, outcome.failed, outcome.ran) == (6, 0, 1)
    assert {row["cell"] for row in rows_of(out)} == {cell.id for cell in study.runs} and len(rows_of(out)) == 6
    parents = {it["parent"] for it in started(out)[:5]}
    assert len(parents) == 2 and not list((out / "locks").glob("*.json"))
