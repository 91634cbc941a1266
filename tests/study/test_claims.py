"""Who runs which cell."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import psutil
import pytest

from dhrd_hf.study import claims as claims_module
from dhrd_hf.study.claims import Claims


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "claims"


def claimed_by(folder, number=1, age=0.0, **changes):
    """A claim file of another process."""
    folder.mkdir(exist_ok=True)
    path = folder / f"cell.{number}"
    said = {"host": "afar", "machine": "another", "pid": 1, "started": 0.0} | changes
    path.write_text(json.dumps(said) if said["host"] else "")
    os.utime(path, (time.time() - age,) * 2)


def a_dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_cell_is_claimed_once_until_it_is_released(folder):
    first = Claims(folder).take("cell")
    assert first is not None and first.holds() and first.taken_from is None
    assert Claims(folder).take("cell") is None
    assert Claims(folder).take("other") is not None
    first.release()
    assert not list(folder.glob("cell.*"))
    assert Claims(folder).take("cell") is not None


def test_of_many_processes_one_gets_it(folder):
    claimed_by(folder, age=10_000)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        for name in ("cell", "fresh"):
            assert sum(pool.starmap(_take, [(folder, name)] * 16, chunksize=1)) == 1, name


def _take(folder, cell):
    return Claims(folder).take(cell) is not None


@pytest.mark.parametrize("age", [0.0, 599.0])
def test_another_machine_with_a_heartbeat_keeps_its_claim(folder, age):
    claimed_by(folder, age=age)
    assert Claims(folder, stale_after=600).take("cell") is None


def test_another_machine_without_a_heartbeat_loses_it(folder):
    claimed_by(folder, age=601)
    claim = Claims(folder, stale_after=600).take("cell")
    assert claim.number == 2 and claim.taken_from == "process 1 on afar"
    assert Claims(folder, stale_after=600).take("cell") is None
    claim.release()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_clocks_that_differ_take_no_live_claim_and_leave_no_dead_one(folder, skew, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + skew)
    for name, age in (("alive", 1), ("dead", 601)):
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.1"
        path.write_text(json.dumps({"host": "afar", "machine": "another", "pid": 1, "started": 0.0}))
        os.utime(path, (now - age,) * 2)
    assert Claims(folder, stale_after=600).take("alive") is None
    assert Claims(folder, stale_after=600).take("dead").number == 2


def test_a_process_of_this_machine_keeps_its_claim_while_it_lives(folder):
    here = {"machine": claims_module._machine(), "pid": os.getppid()}
    started = psutil.Process(os.getppid()).create_time()
    claimed_by(folder, age=10_000, started=started, **here)
    assert Claims(folder).take("cell") is None
    # Another process that has its id.
    claimed_by(folder, started=started - 1000, **here)
    assert Claims(folder).take("cell").number == 2


def test_a_process_of_this_machine_that_is_gone_loses_it_at_once(folder):
    claimed_by(folder, machine=claims_module._machine(), pid=a_dead_pid(), started=time.time())
    assert Claims(folder).take("cell").taken_from is not None


def test_a_claim_that_says_nothing_is_of_a_process_that_died_while_claiming(folder):
    claimed_by(folder, host="")
    assert Claims(folder).take("cell") is None
    claimed_by(folder, host="", age=601)
    assert Claims(folder).take("cell").taken_from == "a process that did not say who it was"


def test_the_training_run_of_a_killed_runner_is_ended_before_another_starts(folder):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        claimed_by(
            folder,
            machine=claims_module._machine(),
            pid=a_dead_pid(),
            started=time.time(),
            child=child.pid,
            child_started=psutil.Process(child.pid).create_time(),
        )
        assert Claims(folder).take("cell") is not None
        assert not psutil.pid_exists(child.pid)
    finally:
        child.kill()


def test_a_killed_process_whose_parent_has_not_looked_is_gone(folder):
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        started = psutil.Process(process.pid).create_time()
        claimed_by(folder, machine=claims_module._machine(), pid=process.pid, started=started)
        assert Claims(folder).take("cell").number == 2
    finally:
        process.wait()


def test_who_wakes_up_after_the_one_that_took_over_has_ended_leaves_a_third_alone(folder):
    first = Claims(folder).take("cell")
    for path in folder.glob("cell.*"):  # taken over and released while it slept
        path.unlink()
    third = Claims(folder).take("cell")
    assert third.number == first.number and third.holds() and not first.holds()
    first.release()
    assert third.holds() and Claims(folder).take("cell") is None


def test_who_was_taken_for_dead_knows(folder):
    first = Claims(folder).take("cell")
    claimed_by(folder, number=2)
    assert not first.holds()
    first.release()
    assert (folder / "cell.2").exists()  # not ours


def test_the_heartbeat_beats_until_the_release(folder, monkeypatch):
    monkeypatch.setattr(claims_module, "_BEAT", 0.01)
    claim = Claims(folder).take("cell")
    os.utime(claim.path, (0, 0))
    deadline = time.time() + 5
    while claim.path.stat().st_mtime == 0 and time.time() < deadline:
        time.sleep(0.01)
    assert time.time() - claim.path.stat().st_mtime < 5
    claim.note_child(os.getpid())
    assert json.loads(claim.path.read_text())["child"] == os.getpid()
    claim.release()
    assert not claim._thread.is_alive()
