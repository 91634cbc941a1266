"""`dhrd train --teacher`: soft targets from the command line, online and from a cache."""

import json

import pytest

from dhrd_hf.cli import main


@pytest.fixture
def train(lm_dir_of, rows, tmp_path):
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fixed = ["train", "--model", str(lm_dir_of("llama")), "--train-data", str(table), "--max-length", "64"]
    fixed += ["--max-steps", "2", "--logging-steps", "1", "--use-cpu", "--disable-tqdm", "true"]

    def run(folder, *options):
        code = main([*fixed, "--output-dir", str(tmp_path / folder), *map(str, options)])
        state = tmp_path / folder / "trainer_state.json"
        if code:
            return code
        return [log["distillation_loss"] for log in json.loads(state.read_text())["log_history"] if "loss" in log]

    return run


def test_a_cache_of_all_tokens_trains_as_the_teacher_does(train, lm_dir_of, tmp_path, capsys):
    teacher = ["--teacher", lm_dir_of("qwen3"), "--distillation-weight", "0.5", "--temperature", "2"]
    online = train("online", *teacher)
    assert f"+ 0.5 * soft targets of {lm_dir_of('qwen3')}" in capsys.readouterr().out
    cached = train("cached", *teacher, "--teacher-cache", tmp_path / "cache", "--teacher-top-k", 400)
    assert len(online) == 2 and cached == pytest.approx(online, rel=1e-4)
    assert train("other", "--teacher", lm_dir_of("gpt2"), *teacher[2:], "--teacher-cache", tmp_path / "cache") == 2
    assert "holds the soft targets of another teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--distillation-weight", "0.5"], "--distillation-weight 0.5 needs a teacher: add --teacher MODEL"),
        (["--teacher-cache", "cache"], "--teacher-cache keeps what a teacher says: add --teacher MODEL"),
        (["--temperature", "0"], "temperature=0.0 must be above 0"),
    ],
)
def test_settings_without_sense_are_told(train, capsys, options, message):
    assert train("run", *options) == 2
    assert message in capsys.readouterr().err
