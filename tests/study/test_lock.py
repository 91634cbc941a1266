"""Who has a run."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from dhrd_hf.study import machines
from dhrd_hf.study.machines import Interrupted, Processes, RunLock, end_process


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def left_by(tmp_path, **said):
    """The note of a process that was killed."""
    (tmp_path / "locks").mkdir(exist_ok=True)
    us = {"host": "afar", "machine": machines._machine(), "pid": 1, "number": 1}
    (tmp_path / "locks" / "r.json").write_text(json.dumps(us | said))


def test_with_a_process_what_it_started_is_ended():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.read(1) == b"1"
    (below,) = psutil.Process(process.pid).children()
    end_process(process.pid)
    assert process.wait(10) is not None and (not below.is_running() or below.status() == psutil.STATUS_ZOMBIE)
    end_process(process.pid)  # nobody is there any more


def test_after_the_end_nothing_begins(tmp_path):
    processes = Processes()
    processes.end()
    with pytest.raises(Interrupted):
        processes.run([sys.executable, "-c", "open('begun', 'w')"], tmp_path, tmp_path / "log.txt")
    assert not (tmp_path / "begun").exists()


def test_a_run_is_one_s_until_it_is_released(tmp_path):
    first, second = RunLock(tmp_path, "r"), RunLock(tmp_path, "r")
    assert first.is_free() and first.take() and not second.take() and not second.is_free()
    assert (first.number, first.taken_from) == (1, None) and RunLock(tmp_path, "other").take()
    first.release()
    assert second.is_free() and second.take() and second.taken_from is None and second.number == 1


def test_of_many_one_gets_it(tmp_path):
    locks = [RunLock(tmp_path, "r") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda it: it.take(), locks)) == 1


def test_what_a_killed_process_left_is_ended_and_its_folder_left_alone(tmp_path, child):
    left_by(tmp_path, child=child.pid, child_started=psutil.Process(child.pid).create_time(), number=3)
    lock = RunLock(tmp_path, "r")
    assert lock.take() and child.wait(10) is not None
    assert (lock.number, lock.taken_from) == (4, "process 1 on afar")
    lock.note_child(12)
    assert {"number": 4, "child": 12}.items() <= json.loads((tmp_path / "locks" / "r.json").read_text()).items()


@pytest.mark.parametrize("where", ["on another machine", "with its id, and started later"])
def test_a_process_that_is_not_its_own_is_left_alone(tmp_path, child, where):
    started = psutil.Process(child.pid).create_time()
    other = {"machine": "another"} if where == "on another machine" else {}
    left_by(tmp_path, child=child.pid, child_started=started if other else started - 1000, **other)
    lock = RunLock(tmp_path, "r")
    assert lock.take() and lock.number == 2 and child.poll() is None


def test_after_an_interruption_what_is_on_this_machine_is_ended(tmp_path, child):
    started = psutil.Process(child.pid).create_time()
    left_by(tmp_path, child=child.pid, child_started=started, machine="another")
    RunLock(tmp_path, "r").end_what_was_left()
    assert child.poll() is None and (tmp_path / "locks" / "r.json").exists()
    left_by(tmp_path, child=child.pid, child_started=started)
    holder = RunLock(tmp_path, "r")
    holder._lock.acquire()
    RunLock(tmp_path, "r").end_what_was_left()  # somebody has it
    assert child.poll() is None
    holder._lock.release()
    RunLock(tmp_path, "r").end_what_was_left()
    assert child.wait(10) is not None and not (tmp_path / "locks" / "r.json").exists()
