"""The `dhrd` command, from a table to a stock classifier's labels."""

import json

import pytest

from dhrd_hf.cli import main

TRAIN = ["--max-steps", "2", "--per_device_train_batch_size", "4", "--use-cpu", "--disable-tqdm", "true"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def table(rows, tmp_path):
    return write(tmp_path / "rows.jsonl", rows)


@pytest.mark.parametrize("lora", [False, True])
def test_train_evaluate_predict_export_predict(lm_dir_of, table, tmp_path, capsys, lora):
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    train = ["train", "--model", str(lm_dir_of("llama")), "--train-data", table, "--eval-data", table]
    assert main([*train, "--output-dir", run, *TRAIN, *(["--lora"] if lora else [])]) == 0, capsys.readouterr().err
    assert main(["evaluate", "--model", run, "--data", table]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["export", "--model", run, "--output", out]) == 0
    found = []
    for model in (run, out):
        target = tmp_path / "predictions.jsonl"
        assert main(["predict", "--model", model, "--data", table, "--output", str(target)]) == 0
        found.append([json.loads(line) for line in target.read_text().splitlines()])
    assert len(found[0]) == 24
    assert [row["text"] for row in found[0]] == [json.loads(line)["text"] for line in open(table)]
    assert [row["predicted_label"] for row in found[0]] == [row["predicted_label"] for row in found[1]]


def test_bad_input_is_one_line_and_code_2(lm_dir_of, rows, tmp_path, capsys):
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows[0]) + "\n{broken\n")
    one_class = write(tmp_path / "one.jsonl", [{**row, "label": "entailed"} for row in rows])
    good = write(tmp_path / "good.jsonl", rows)
    stranger = write(tmp_path / "stranger.jsonl", [{**rows[0], "label": "stranger"}])
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    base = ["train", "--model", str(lm_dir_of("llama")), *TRAIN]
    new = ["--output-dir", str(tmp_path / "new")]
    for arguments, words in (
        ([*base, *new, "--train-data", str(tmp_path / "broken.jsonl")], ["broken.jsonl", "2"]),
        ([*base, *new, "--train-data", one_class], ["entailed"]),
        ([*base, *new, "--train-data", good, "--eval-data", stranger], ["stranger"]),
        ([*base, *new, "--train-data", str(tmp_path / "missing.jsonl")], ["missing.jsonl"]),
        ([*base, *new, "--train-data", good, "--prompt", "{passage}"], ["passage"]),
        ([*base, "--output-dir", str(tmp_path / "used"), "--train-data", good], ["used"]),
        (["evaluate", "--model", str(tmp_path / "nowhere"), "--data", good], ["nowhere"]),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        (line,) = [line for line in error.splitlines() if line.startswith("dhrd: error:")]
        assert all(word in line for word in words), line
        assert "Traceback" not in error
