"""Weights and logits that are not finite: a line by every door, and no NaN in what is written."""

import csv
import json
import math
import shutil
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier, push_classifier
from dhrd_hf.cli import main
from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.evaluation import load_classifier, predict_texts
from dhrd_hf.export import export_engine
from dhrd_hf.export.engines import _NEEDS
from dhrd_hf.files import strict_json


def strictly(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


# The engines of extras, which the lowest versions go without.
INSTALLED = [engine for engine, needed in _NEEDS.items() if all(map(find_spec, needed))]


@pytest.fixture(scope="module")
def folders(dual_of, tokenizer, label2id, rows, tmp_path_factory):
    """A run and its export, whole, with a NaN in a weight, and with finite weights whose logits overflow."""
    here = tmp_path_factory.mktemp("folders")
    dual = dual_of("llama", label2id=label2id, problem_type="single_label_classification", prompt_template="{text}")
    dual.save_pretrained(here / "run")
    tokenizer.save_pretrained(here / "run")
    export_classifier(dual, tokenizer, here / "export")
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:9]))
    for kind in ("run", "export"):
        for what in ("nan", "overflow"):
            shutil.copytree(here / kind, here / f"{kind}-{what}")
            file = here / f"{kind}-{what}" / "model.safetensors"
            weights = load_file(file)
            if what == "nan":
                weights["model.layers.1.mlp.up_proj.weight"][2, 3] = float("nan")
            else:
                weights["score.weight"].fill_(3e38)
            save_file(weights, file, metadata={"format": "pt"})
    return here


def commands(folder, kind):
    data, out = ["--data", str(folder / "rows.jsonl")], ["--output", str(folder / "out")]
    found = [["predict", *data, "--output", "-"], ["evaluate", *data], ["calibrate", *data]]
    found += [["export", *out]] if kind == "run" else [["push", "--repo", "user/name", "--dry-run"]]
    found += [["export", *out, "--format", it] for it in INSTALLED]
    return [*found, *([["export", *out, "--format", "onnx", "--int8"]] if "onnx" in INSTALLED else [])]


@pytest.mark.parametrize("kind", ["run", "export"])
def test_weights_that_are_not_finite_are_refused_by_name(folders, capsys, kind):
    for command in commands(folders, kind):
        assert main([*command[:1], "--model", str(folders / f"{kind}-nan"), *command[1:]]) == 2, command
        said = capsys.readouterr()
        (line,) = [line for line in said.err.splitlines() if line.startswith("dhrd: error: ")]
        assert "model.layers.1.mlp.up_proj.weight of which 1 of " in line and "not finite" in line, command
        assert said.out == "" and not (folders / "out").exists()


@pytest.mark.parametrize("kind", ["run", "export"])
def test_logits_that_overflow_measure_nothing_and_are_not_exported(folders, capsys, kind):
    for command in commands(folders, kind):
        if command[0] in ("predict", "push"):  # rows are answered one by one; the weights are fine
            continue
        assert main([*command[:1], "--model", str(folders / f"{kind}-overflow"), *command[1:]]) == 2, command
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dhrd: error: ")]
        expected = (
            "9 of 9 rows have logits that are not finite" if "--data" in command else "are not finite on random inputs"
        )
        assert expected in line, line
        assert not (folders / "out").exists()


def test_predict_tells_each_row_and_writes_what_strict_parsers_read(folders, tmp_path, capsys):
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        command = ["predict", "--model", str(folders / "run-overflow"), "--data", str(folders / "rows.jsonl")]
        assert main([*command, "--output", str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert (
            "9 rows, 0 of them empty" in error and "dhrd: error: 9 of 9 rows have logits that are not finite" in error
        )
    rows = [strictly(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(row["predicted_label"] is None and row["probabilities"] == {} for row in rows)
    with open(tmp_path / "out.csv") as file:
        rows += list(csv.DictReader(file))
    rows += pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["prediction_error"] for row in rows] == ["logits that are not finite"] * 27
    assert {row["probability_refuted"] for row in rows[9:]} == {"", None}


def test_the_doors_in_python(folders, tokenizer, label2id, tmp_path):
    with pytest.raises(FloatingPointError, match="up_proj.weight of which 1 of"):
        load_classifier(folders / "export-nan")
    model = AutoModelForDualHeadClassification.from_pretrained(folders / "run-nan")
    for write in (
        lambda: export_classifier(model, tokenizer, tmp_path / "out"),
        lambda: push_classifier(model, "a/b", tokenizer),
    ):
        with pytest.raises(FloatingPointError, match="The model has a tensor model.layers.1.mlp.up_proj.weight"):
            write()
    with pytest.raises(FloatingPointError, match="up_proj.weight"):
        push_classifier(folders / "export-nan", "user/name", dry_run=True)
    for engine in INSTALLED:
        with pytest.raises(FloatingPointError, match="up_proj.weight"):
            export_engine(folders / "export-nan", tmp_path / "out", engine)
    assert list(tmp_path.iterdir()) == []
    opened, _ = load_classifier(folders / "export-overflow")
    empty, wrong = predict_texts(opened, tokenizer, ["", "It rains."])
    assert (empty.error, wrong.error) == ("the text is empty", "logits that are not finite")
    assert (wrong.label, wrong.probabilities, wrong.logits) == (None, {}, ())


def test_an_evaluation_in_training_counts_the_rows(folders, encoded, tokenizer, make_args):
    from dhrd_hf import DualHeadTrainer

    model = AutoModelForDualHeadClassification.from_pretrained(folders / "run-overflow")
    trainer = DualHeadTrainer(model, make_args(), eval_dataset=encoded, processing_class=tokenizer)
    with pytest.raises(FloatingPointError, match="24 of 24 evaluation rows have logits that are not finite"):
        trainer.evaluate()
    with torch.no_grad():
        model.score.weight.fill_(0.1)
    assert math.isfinite(trainer.evaluate()["eval_loss"])


def test_json_has_no_nan_and_no_infinity(tmp_path):
    nan, inf = float("nan"), float("inf")
    values = {"a": nan, "b": [inf, {"c": -inf}], "d": torch.tensor([nan, 1.0]), "e": 2.5, "f": (nan, "NaN")}
    expected = {"a": None, "b": [None, {"c": None}], "d": [None, 1.0], "e": 2.5, "f": [None, "NaN"]}
    assert strictly(strict_json(values)) == expected
    write_rows(tmp_path / "out.jsonl", [{"score": nan}, {"score": inf}, {"score": 1.5}])
    assert (tmp_path / "out.jsonl").read_text() == '{"score": null}\n{"score": null}\n{"score": 1.5}\n'
    write_rows(tmp_path / "out.csv", [{"scores": [nan, 1.0]}])
    assert (tmp_path / "out.csv").read_text() == 'scores\n"[null, 1.0]"\n'
