"""A label has one name in every command, and what is no label is refused by all of them alike."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset
from transformers import AutoConfig

from dhrd_hf.cli import main

STEPS = ["--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true", "--max-steps", "1"]
DRY = ["--settings", "rationale_column: new", "--dry-run"]
KINDS = {
    "booleans": ([True, False], ["false", "true"], ["true", "false"]),
    "blanks": (["yes", " no", "yes ", "no"], ["no", "yes"], ["yes", "no"]),
    "whole numbers": (["1.0", "2", "1", "2.0"], ["1", "2"], ["1", "2"]),
    "floats": ([2.0, 10.0], ["2", "10"], ["2", "10"]),
    "multi-hot": ([[1, 0, 0], [0, 1, 1]], ["0", "1", "2"], [["0"], ["1", "2"]]),
    "lists": ([["b"], ["a", "b"]], ["a", "b"], [["b"], ["a", "b"]]),
    "odd names": (["n/a", "None"], ["None", "n/a"], ["n/a", "None"]),
}


@pytest.fixture(scope="module")
def base(lm_dir_of):
    return str(lm_dir_of("llama"))


@pytest.fixture
def put(tmp_path, monkeypatch, rows):
    """Write rows with these labels into an empty working folder, and give the file's name."""
    monkeypatch.chdir(tmp_path)

    def put(labels, name="data.jsonl", count=12, **columns):
        made = [
            {"id": n, "text": row["text"], "label": labels[n % len(labels)], "rationale": row["rationale"], **columns}
            for n, row in enumerate(rows[:count])
        ]
        if name.endswith(".csv"):
            with open(name, "w", newline="") as file:
                writer = csv.DictWriter(file, made[0])
                writer.writeheader()
                writer.writerows(made)
        else:
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in made))
        return name

    return put


def lines_of(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def refused(capsys, *arguments):
    """The one line that the command says before it ends with code 2."""
    assert main([str(it) for it in arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("dhrd: error: ")]
    return line


def train(base, data, *options):
    return ["train", "--model", base, "--train-data", data, "--output-dir", "run", *STEPS, *options]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_of_training_in_every_command(base, put, capsys, kind):
    labels, names, cells = KINDS[kind]
    data = put(labels)
    assert main(train(base, data, "--eval-data", data, "--predictions", "said.jsonl")) == 0
    told = capsys.readouterr()
    assert list(AutoConfig.from_pretrained("run").id2label.values()) == names
    counts = Counter(name for n in range(12) for name in _each(cells[n % len(cells)]))
    assert f"labels      {', '.join(f'{name} {counts[name]}' for name in names)}\n" in told.out
    said = lines_of("said.jsonl")
    assert [row["label"] for row in said[: len(cells)]] == cells
    evaluated = json.loads(Path("run/eval_results.json").read_text())
    assert main(["evaluate", "--model", "run", "--data", data]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 12
    assert found["accuracy"] == pytest.approx(evaluated["eval_accuracy"])
    assert found["macro_f1"] == pytest.approx(evaluated["eval_macro_f1"])
    assert main(["rationales", "audit", data, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == dict(sorted(counts.items()))
    if isinstance(labels[0], list) or names[0].isdigit():  # of which generate says why not
        assert "label" in refused(capsys, "rationales", "generate", "--data", data, "--teacher", "smollm2", *DRY)
        return
    assert main(["rationales", "generate", "--data", data, "--teacher", "http://localhost:9/v1", *DRY]) == 0
    assert f"label {cells[0]!r}" in capsys.readouterr().out


def _each(cell):
    return cell if isinstance(cell, list) else [cell]


def test_a_boolean_in_a_prompt_reads_as_in_the_data(base, put, capsys):
    data = put([True, False], flag=True)
    prompt = "{text} {flag}"
    assert main(train(base, data, "--prompt", prompt)) == 0
    for flag in (True, "true"):
        other = put([True, False], f"{flag}.jsonl", flag=flag)
        assert main(["predict", "--model", "run", "--data", other, "--output", f"said-{flag}.jsonl"]) == 0
    one, other = (lines_of(f"said-{flag}.jsonl") for flag in (True, "true"))
    assert [row["probabilities"] for row in one] == [row["probabilities"] for row in other]


@pytest.mark.parametrize("as_text", [False, True])
def test_fractions_are_refused_by_every_command_with_both_ways_out(base, put, capsys, as_text):
    data = put([str(it) if as_text else it for it in (3.5, 4.5)])
    ways = ["holds 3.5: add --problem-type regression", "--problem-type single_label_classification if"]
    generate = ["rationales", "generate", "--data", data, "--teacher", "http://localhost:9/v1", *DRY]
    line = refused(capsys, *train(base, data))
    assert all(way in line for way in ways)
    line = refused(capsys, *generate)
    assert "holds 3.5: name them by --label-map" in line and "problem_type: single_label_classification" in line
    as_names = ["--problem-type", "single_label_classification"]
    assert main(train(base, data, *as_names)) == 0
    assert AutoConfig.from_pretrained("run").id2label == {0: "3.5", 1: "4.5"}
    assert main(["evaluate", "--model", "run", "--data", data]) == 0
    assert "accuracy" in json.loads(capsys.readouterr().out.splitlines()[-1])
    named = "rationale_column: new, problem_type: single_label_classification"
    assert main([*generate[:-3], "--settings", named, "--dry-run"]) == 0
    assert "label '3.5'" in capsys.readouterr().out
    numbers = ["--problem-type", "regression", "--overwrite-output-dir", "--eval-data", data]
    assert main(train(base, data, *numbers)) == 0
    assert "labels      numbers (regression)" in capsys.readouterr().out
    assert main(["evaluate", "--model", "run", "--data", data]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mse"] == pytest.approx(json.loads(Path("run/eval_results.json").read_text())["eval_mse"], rel=1e-4)


def test_ids_or_multi_hot_is_asked_and_said(base, put, capsys):
    data = put([[0, 1], [1, 0], [1, 1], [0, 0]])
    line = refused(capsys, *train(base, data))
    assert "[0, 1], which could be ids or, multi-hot" in line and '["0", "1"]' in line and "--label-names" in line
    assert "could be ids or" in refused(capsys, "rationales", "audit", data)
    assert main(train(base, data, "--label-names", "wet, cold")) == 0
    assert "labels      wet 6, cold 6\n" in capsys.readouterr().out
    assert AutoConfig.from_pretrained("run").id2label == {0: "wet", 1: "cold"}
    assert main(["evaluate", "--model", "run", "--data", data]) == 0
    as_ids = put([["0", "1"], ["1"]])
    assert main(train(base, as_ids, "--overwrite-output-dir")) == 0
    assert "labels      0 6, 1 12\n" in capsys.readouterr().out


def test_several_numbers_a_row(base, put, capsys):
    data = put([[0.5, -1], [2, 3.5], [1.0, 0]])
    assert main(train(base, data, "--problem-type", "regression", "--eval-data", data)) == 0
    capsys.readouterr()
    assert main(["evaluate", "--model", "run", "--data", data]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mse"] == pytest.approx(json.loads(Path("run/eval_results.json").read_text())["eval_mse"], rel=1e-4)
    assert "no probabilities to calibrate" in refused(capsys, "calibrate", "--model", "run", "--data", data)


def test_names_are_given_to_ids(base, put, capsys):
    data = put([1, 0, 1])
    assert main(train(base, data, "--label-names", "yes,no")) == 0
    assert "labels      yes 4, no 8\n" in capsys.readouterr().out
    line = refused(capsys, *train(base, put([0, 2]), "--label-names", "yes,no", "--overwrite-output-dir"))
    assert "Row 1 of data.jsonl: its label id 2 is out of range" in line
    for names in ("a,a", "a,"):
        assert "each label needs one of its own" in refused(
            capsys, *train(base, data, "--label-names", names, "--overwrite-output-dir")
        )
    assert "Row 1 of data.jsonl: its label id 2 is out of range: there are 1 labels, 'a'" in refused(
        capsys, *train(base, data, "--label-names", "a", "--overwrite-output-dir")
    )


def test_one_label_that_rows_have_or_have_not(base, put, capsys):
    assert main(train(base, put([[1], [0]]), "--label-names", "spam")) == 0
    assert "labels      spam 6\n" in capsys.readouterr().out
    config = AutoConfig.from_pretrained("run")
    assert (config.id2label, config.problem_type) == ({0: "spam"}, "multi_label_classification")
    assert main(["evaluate", "--model", "run", "--data", "data.jsonl"]) == 0
    assert "accuracy" in json.loads(capsys.readouterr().out)
    for labels, said in ((["spam"], "one label, spam 12"), ([], "one label, none")):
        assert f"all 12 rows of data.jsonl have {said}" in refused(capsys, *train(base, put([labels]), "--resume"))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_without_a_label_are_told_and_dropped_by_every_command(base, put, capsys, ending):
    data = put(["Billing", "Access", "", " Access", "access"], f"data.{ending}", 20)
    commands = {
        "train": train(base, data),
        "evaluate": ["evaluate", "--model", "run", "--data", data],
        "calibrate": ["calibrate", "--model", "run", "--data", data],
        "export": ["export", "--model", "run", "--output", "out", "--eval-data", data],
        "bench": ["bench", "throughput", "--model", "run", "--data", data, "--cot-rows", "0", "--repeats", "1"],
        "generate": ["rationales", "generate", "--data", data, "--teacher", "column:rationale", "--output", "r.jsonl"],
    }
    for name, command in commands.items():
        line = refused(capsys, *command)
        assert f"Row 2: it has no label, in {'' if name == 'bench' else 'data.'}" in line
        assert "4 of 20 rows have no label: 2, 7, 12, 17 (numbered from 0)" in line and "--drop-unlabelled" in line
        code = main([*command, "--drop-unlabelled"])
        told = capsys.readouterr()
        assert code == 0 or (name == "calibrate" and "No temperature from" in told.err), told.err
        if name != "bench":  # whose table is no result
            assert told.err.count("4 of 20 rows have no label: 2, 7, 12, 17 (numbered from 0), left out.") == 1
            assert told.err.count("4 labels had blanks around them, which were cut off.") == 1
        if name == "train":
            assert "labels      Access 8, Billing 4, access 4\n" in told.out
            assert told.err.count("'Access' and 'access' differ in case alone, and are 2 labels") == 1
        if name == "evaluate":
            assert json.loads(told.out)["rows"] == 16
    written = lines_of("r.jsonl")
    assert {row["id"] for row in written}.isdisjoint({2, 7, 12, 17})


def test_rationales_by_row_number_stay_with_their_rows_where_rows_are_dropped(put, capsys):
    rows = [{"text": f"Note {n} is here.", "label": ["", "wet", "dry"][n % 3]} for n in range(9)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [{"key": n, "rationale": f"Word number {n} settles what it is."} for n in range(9)]
    Path("said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    command = [
        "rationales",
        "generate",
        "--data",
        "rows.jsonl",
        "--teacher",
        "file:said.jsonl",
        "--output",
        "out.jsonl",
    ]
    assert main([*command, "--drop-unlabelled"]) == 0
    written = lines_of("out.jsonl")
    assert written and all(row["text"].split()[1] == row["rationale"].split()[2] for row in written)


@pytest.mark.parametrize("rationale", [["The glass is low.", "So the wind rises."], {"why": "It is."}])
def test_rationales_that_are_no_text_are_refused_by_row(base, put, capsys, rationale):
    data = put(["calm", "storm"], rationale=rationale)
    holds = "a list" if isinstance(rationale, list) else "an object"
    assert f"Row 0: column 'rationale' holds {holds}" in refused(capsys, *train(base, data))
    generate = ["rationales", "generate", "--data", data, "--teacher", "column:rationale", "--output", "r.jsonl"]
    assert f"row 0: its rationale holds {holds}" in refused(capsys, *generate)


@pytest.mark.parametrize("label", [{"a": 1}, ["calm", "storm"]])
def test_a_label_that_is_no_text_is_refused_by_row(base, put, capsys, label):
    data = put([label], "object.jsonl")
    kind = ["--problem-type", "single_label_classification"]
    assert "row 0" in refused(capsys, *train(base, data, *kind)).lower()
    assert "row 0" in refused(capsys, "rationales", "generate", "--data", data, "--teacher", "smollm2", *DRY)


def test_a_class_label_column_has_its_names_in_every_command(base, rows, put, capsys):
    put(["x"])  # into an empty folder
    table = Dataset.from_dict({"text": [row["text"] for row in rows[:8]], "label": [0, 1] * 4})
    table.cast_column("label", ClassLabel(names=["wet", "dry"])).to_parquet("data.parquet")
    assert (
        main(train(base, "data.parquet", "--alpha", "0", "--eval-data", "data.parquet", "--predictions", "said.jsonl"))
        == 0
    )
    assert AutoConfig.from_pretrained("run").id2label == {0: "dry", 1: "wet"}
    assert [row["label"] for row in lines_of("said.jsonl")] == ["wet", "dry"] * 4
    capsys.readouterr()
    assert main(["evaluate", "--model", "run", "--data", "data.parquet"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert accuracy == json.loads(Path("run/eval_results.json").read_text())["eval_accuracy"]


def test_ids_of_a_checkpoint_are_its_labels(base, put, capsys):
    assert main(train(base, put(["wet", "dry"]))) == 0
    again = ["train", "--model", "run", "--train-data", put([0, 1]), "--output-dir", "again", *STEPS]
    capsys.readouterr()
    assert main(again) == 0
    assert "labels      dry 6, wet 6\n" in capsys.readouterr().out
    line = refused(capsys, *again, "--overwrite-output-dir", "--label-names", "wet,dry")
    assert "--label-names are wet, dry; run has dry, wet" in line
