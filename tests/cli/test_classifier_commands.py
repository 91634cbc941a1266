"""`dhrd predict`, `evaluate`, `calibrate` and `export` on a classifier that is at hand, with tables that are not as they should be."""

import csv
import json

import pytest

from dhrd_hf.cli import main


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
    assert "row 3 has a column 'predicted_label' already, which would be lost" in line
    wider = put("wider.jsonl", [*rows[:1], {**rows[1], "note": "x"}])
    line = refused(capsys, "predict", "--model", run, "--data", wider, "--output", "out.csv")
    assert "row 2 has 'note', which the first row lacks: write .jsonl" in line
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
    assert "row 2: column 'text' holds a list, not a text" in line
    columns = put("columns.json", [{name: [row[name] for row in rows] for name in ("text", "label")}])
    for command in (["predict", "--output", "-"], ["evaluate"]):
        line = refused(capsys, *command, "--model", run, "--data", columns)
        assert "columns.json is one object of columns: write a list of rows, or JSON Lines" in line


def test_a_prompt_without_a_column_is_refused(run, rows, put, capsys):
    data = put("data.jsonl", rows[:4])
    for command in (["predict", "--output", "-"], ["evaluate"], ["calibrate"], ["bench", "throughput"]):
        line = refused(capsys, *command, "--model", run, "--data", data, "--prompt", "fixed")
        assert "The prompt 'fixed' names no column" in line
