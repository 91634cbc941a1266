"""`dhrd predict`, `evaluate`, `calibrate` and `export` on a classifier that is at hand, with tables that are not as they should be."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from dhrd_hf.cli import main
from dhrd_hf.export import CardFacts


@pytest.fixture(scope="module")
def run(dual_of, tokenizer, label2id, tmp_path_factory):
    """A run directory."""
    folder = tmp_path_factory.mktemp("run") / "run"
    dual_of("llama", label2id=label2id, prompt_template="{text}").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write a file of rows into an empty working folder, and give its name."""
    monkeypatch.chdir(tmp_path)

    def put(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    return put


def refused(capsys, *arguments):
    """The one line that the command says before it ends with code 2."""
    assert main([str(it) for it in arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("dhrd: ")]
    return line


# Rows that differ from the first


def test_a_column_that_only_a_later_row_has_is_not_lost(run, rows, put, tmp_path, capsys):
    data = put("data.jsonl", [*rows[:2], {**rows[2], "predicted_label": "gold!"}])
    line = refused(capsys, "predict", "--model", run, "--data", data, "--output", "out.jsonl")
    assert "Row 2 has a column 'predicted_label' already, which would be lost" in line
    wider = put("wider.jsonl", [*rows[:1], {**rows[1], "note": "x"}])
    line = refused(capsys, "predict", "--model", run, "--data", wider, "--output", "out.csv")
    assert "Row 1 has 'note', which the first row lacks: write .jsonl" in line
    assert sorted(it.name for it in tmp_path.iterdir()) == [data, wider]


@pytest.mark.parametrize("bare", [0, 1])
def test_a_row_without_a_text_is_answered_wherever_it_stands(run, rows, put, tmp_path, capsys, bare):
    given = [{"text": it["text"]} for it in rows[:3]]
    given[bare] = {"id": 7}
    assert main(["predict", "--model", run, "--data", put("data.jsonl", given), "--output", "out.jsonl"]) == 0
    assert "3 rows, 1 of them empty" in capsys.readouterr().err
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["prediction_error" in row for row in found] == [place == bare for place in range(3)]
    line = refused(capsys, "predict", "--model", run, "--data", put("none.jsonl", [{"id": 7}] * 3), "--output", "-")
    assert "no column 'text'" in line


def test_nan_is_an_empty_text(run, rows, put, tmp_path, capsys):
    data = put("data.jsonl", [rows[0], {**rows[1], "text": float("nan")}])
    for output in ("out.jsonl", "out.csv"):
        assert main(["predict", "--model", run, "--data", data, "--output", output]) == 0
        assert "2 rows, 1 of them empty" in capsys.readouterr().err
    second = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    assert (second["text"], second["prediction_error"]) == (None, "the text is empty")
    with open("out.csv") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [rows[0]["text"], ""]
    assert "Row 1: column 'text' has no value" in refused(capsys, "evaluate", "--model", run, "--data", data)


def test_texts_that_are_none_are_refused_with_their_row(run, rows, put, capsys):
    data = put("data.jsonl", [rows[0], {"text": ["It rains.", "It is wet."]}])
    line = refused(capsys, "predict", "--model", run, "--data", data, "--output", "-")
    assert "Row 1: column 'text' holds a list, not a text" in line
    for command in (["evaluate"], ["bench", "--repeats", "1"]):
        line = refused(
            capsys,
            *command,
            "--model",
            run,
            "--data",
            put("lists.jsonl", [{"text": ["It rains."], "label": "entailed"}]),
        )
        assert "Row 0: " in line and "column 'text' holds a list, not a text" in line
    columns = put("columns.json", [{name: [row[name] for row in rows] for name in ("text", "label")}])
    for command in (["predict", "--output", "-"], ["evaluate"]):
        line = refused(capsys, *command, "--model", run, "--data", columns)
        assert "columns.json is one object of columns: write a list of rows, or JSON Lines" in line


def test_a_prompt_without_a_column_is_refused(run, rows, put, capsys):
    data = put("data.jsonl", rows[:4])
    for command in (["predict", "--output", "-"], ["evaluate"], ["calibrate"], ["bench"]):
        line = refused(capsys, *command, "--model", run, "--data", data, "--prompt", "fixed")
        assert "The prompt 'fixed' names no column" in line


# Exports


def test_what_is_exported_is_what_was_calibrated(run, rows, put, tmp_path, capsys):
    data = put("data.jsonl", [{"claim": row["text"], "label": row["label"]} for row in rows])
    options = ["--data", data, "--prompt", "Say: {claim}", "--max-length", "9"]
    assert main(["calibrate", "--model", run, *options, "--output", "out"]) == 0
    said = json.loads(capsys.readouterr().out)["calibration"]["after"]
    config = AutoConfig.from_pretrained("out")
    assert (config.prompt_template, AutoTokenizer.from_pretrained("out").model_max_length) == ("Say: {claim}", 9)
    assert "Say: {claim}" in (tmp_path / "out" / "README.md").read_text()
    assert main(["evaluate", "--model", "out", "--data", data]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in said} == pytest.approx(said, rel=1e-3)


@pytest.mark.parametrize("command", [["calibrate"], ["export", "--eval-data"], ["export", "--format", "onnx"]])
def test_an_output_that_is_in_the_way_is_told_before_anything_is_computed(
    run, rows, put, capsys, monkeypatch, command
):
    data = put("data.jsonl", rows)
    monkeypatch.setattr("dhrd_hf.evaluation.predict_table", None)
    command = [*command, "--data", data] if command == ["calibrate"] else command
    command = [*command, data] if command[-1] == "--eval-data" else command
    (Path("full") / "sub").mkdir(parents=True)
    line = refused(capsys, *command, "--model", run, "--output", "full")
    assert "full exists and is not an empty folder" in line
    line = refused(capsys, *command, "--model", run, "--output", data, "--overwrite")
    assert "data.jsonl is a file, which is never replaced by a folder" in line


def test_the_card_of_a_checkpoint_says_how_it_was_trained(run, tmp_path):
    settings = {"learning_rate": 0.005, "steps": 12, "epochs": "2"}
    facts = CardFacts(train_data="rows.jsonl", train_rows=24, hyperparameters=settings)
    facts.dev_data, facts.dev_rows, facts.dev_metrics = "dev.jsonl", 9, {"accuracy": 0.9}
    checkpoint = shutil.copytree(run, tmp_path / "run" / "checkpoint-6")
    facts.save(checkpoint.parent / "card_facts.json")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 6, "epoch": 1.0}))
    assert main(["export", "--model", str(checkpoint), "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    for words in ("24 rows of rows.jsonl", "| learning_rate | 0.005 |", "| steps | 6 |", "| epochs | 1 |"):
        assert words in text, words
    assert "dev.jsonl" not in text  # where the run ended


# Models


@pytest.mark.parametrize("kind", ["cut", "pointer"])
def test_weights_that_are_not_whole_are_one_line(run, rows, put, tmp_path, capsys, kind):
    broken = shutil.copytree(run, tmp_path / "broken")
    weights = broken / "model.safetensors"
    content = {"cut": weights.read_bytes()[:-100], "pointer": b"version https://git-lfs.github.com/spec/v1\nsize 9\n"}
    weights.write_bytes(content[kind])
    data = put("data.jsonl", rows)
    for command in (
        ["predict", "--data", data, "--output", "-"],
        ["predict", "--data", data, "--output", "-", "--engine", "onnx"],
        ["evaluate", "--data", data],
        ["calibrate", "--data", data],
        ["export", "--output", "out"],
        ["export", "--output", "out", "--format", "onnx"],
    ):
        line = refused(capsys, *command, "--model", broken)
        assert f"the weights of {broken} can't be read" in line and "git lfs pull" in line
    assert not Path("out").exists()
