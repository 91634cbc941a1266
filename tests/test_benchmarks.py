"""What the benchmarks in examples/benchmarks share, and that the one of a training step runs."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_timing_in_turns(benchmarks):
    from paired import paired, ratio

    seen = []
    times = paired({name: lambda name=name: seen.append(name) for name in "ab"}, rounds=2)
    assert seen == list("ababba")  # a warm-up round and two
    assert [len(it) for it in times.values()] == [2, 2]
    assert ratio({"a": [3.0, 8.0, 5.0], "b": [1.0, 2.0, 5.0]}, "a", "b") == (3.0, 1.0, 4.0)


def test_peak_memory_is_counted_from_its_reset(benchmarks):
    from peak_memory import PeakMemory

    memory = PeakMemory(torch.device("cpu"))
    held = torch.ones(2**24)  # 64 MiB
    torch.ones(2**27)  # 512 MiB, freed before the reset
    assert 60 < memory.now() < 100
    memory.reset()
    assert memory.peak() == pytest.approx(memory.now(), abs=20)
    torch.ones(2**26)  # 256 MiB
    assert 310 < memory.peak() < 360 and 60 < memory.now() < 100
    del held


def test_a_training_step_is_measured_in_all_ways(benchmarks, lm_dir_of, rows, tmp_path, monkeypatch):
    import training_step

    measured = []

    def in_this_process(command, *, input="", **options):
        """The command's own lines, without the imports of a process for each way."""
        assert command[:2] == [sys.executable, training_step.__file__]
        measured.extend(command[command.index("--measure") + 1 :])
        with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            patch.setattr(sys, "argv", command[1:])
            patch.setattr(sys, "stdin", io.StringIO(input))
            training_step.main()
        return subprocess.CompletedProcess(command, 0, printed.getvalue())

    monkeypatch.setattr(subprocess, "run", in_this_process)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--model", str(lm_dir_of("llama")), "--data", str(tmp_path / "rows.jsonl"), "--lora"]
    options = ["--batch-size", "4", "--steps", "2", "--device", "cpu", "--output", str(tmp_path / "step.jsonl")]
    monkeypatch.setattr(sys, "argv", [training_step.__file__, *given, *options])
    training_step.main()
    (found,) = [json.loads(line) for line in (tmp_path / "step.jsonl").read_text().splitlines()]
    ways = ["causal_lm", "ours", "two_pass", "classifier"]
    assert measured == ways
    assert all(" s (" in found[way] and found[way].endswith(" MiB") for way in ways)
    assert {"ours / causal_lm", "two_pass / ours", "ours / classifier"} <= found.keys()
