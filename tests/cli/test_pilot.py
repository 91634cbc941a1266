"""`dhrd pilot`, and what it needs of `dhrd train`."""

import argparse
import functools
import html
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dhrd_hf.study
from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadEncoder
from dhrd_hf.cli import main
from dhrd_hf.cli.pilot import _seeds, train_options
from dhrd_hf.opening import load_tokenizer
from dhrd_hf.study import read_study
from dhrd_hf.study.machines import Ended, Processes
from dhrd_hf.study.runner import planned_runs

TRAIN = ["--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true", "--lora"]


@pytest.fixture(scope="module")
def base(lm_dir_of):
    return str(lm_dir_of("llama"))


@pytest.fixture
def write(tmp_path):
    def table(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(rows)))
        return str(path)

    return table


def loss_of(run, rows):
    model = AutoModelForDualHeadClassification.from_pretrained(run).eval()
    encode = DualHeadEncoder(load_tokenizer(run), model=model)
    features = [encode({name: [it] for name, it in row.items()}) for row in rows]
    batch = DualHeadCollator(load_tokenizer(run))([{name: its[0] for name, its in it.items()} for it in features])
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(**batch).logits, batch["labels"]).item()


def test_the_best_epoch_is_chosen_on_rows_that_the_last_evaluation_does_not_read(base, rows, write, tmp_path):
    parts = {"train": rows[:8], "validation": rows[8:], "dev": rows[:3]}
    tables = {name: write(f"{name}.jsonl", its) for name, its in parts.items()}
    run = tmp_path / "run"
    argv = ["--train-data", tables["train"], "--eval-data", tables["dev"], "--validation-data", tables["validation"]]
    argv += ["--output-dir", str(run), "--num-train-epochs", "6", "--learning-rate", "0.1", "--load-best-model-at-end"]
    argv += ["--save-strategy", "best", "--metric-for-best-model", "eval_classification_loss", "--seed", "3"]
    assert (
        main(
            [
                "train",
                "--model",
                base,
                *argv,
                *TRAIN,
                "--dataloader-persistent-workers",
                "--dataloader-num-workers",
                "1",
            ]
        )
        == 0
    )
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    losses = [it["eval_classification_loss"] for it in history if "eval_classification_loss" in it]
    assert len(losses) == 6 and min(losses) < losses[-1] - 0.01  # else the last would do
    assert loss_of(run, parts["validation"]) == pytest.approx(min(losses), abs=1e-4)
    found = json.loads((run / "eval_results.json").read_text())
    assert found["eval_classification_loss"] == pytest.approx(loss_of(run, parts["dev"]), abs=1e-4)
    facts = json.loads(next(run.glob("*facts*.json")).read_text())
    assert facts["dev_rows"] == 3


def test_validation_rows_need_rows_for_the_last_evaluation(base, rows, write, tmp_path, capsys):
    table = write("rows.jsonl", rows)
    argv = ["--train-data", table, "--validation-data", table, "--output-dir", str(tmp_path / "run")]
    assert main(["train", "--model", base, *argv, *TRAIN]) == 2
    assert "--eval-data" in capsys.readouterr().err


# dhrd pilot


@pytest.fixture
def quick(monkeypatch):
    """Runs and the check of their options in this process, which has the imports."""

    def run(self, command, folder, log, started=lambda pid: None, environment=None):
        started(os.getpid())
        with monkeypatch.context() as there:
            there.chdir(folder)
            return Ended(main(command[3:]), 1.0)

    monkeypatch.setattr(Processes, "run", run)
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", lambda number, **_: ThreadPoolExecutor(number))


def rows_with_rationales(number, with_rationale):
    words = ["heron", "kiln", "boat", "rook", "lamp", "door", "cup", "moor", "map", "goat"]
    rows = []
    for place in range(number):
        word, sure = words[place % 10], place % 3 != 1
        rows.append(
            {"text": f"Mira {'saw' if sure else 'missed'} {word} number {place}.", "label": "yes" if sure else "no"}
        )
        if place < with_rationale:
            rows[-1]["rationale"] = f"She {'was' if sure else 'was not'} there when the {word} came."
    return rows


def test_a_pilot_ends_with_a_verdict_and_goes_on_where_it_was(base, write, tmp_path, quick, capsys):
    # Rationales long enough to take more time than labels do also where other work takes turns with the runs.
    long = [
        row | ({"rationale": 4 * row["rationale"]} if "rationale" in row else {})
        for row in rows_with_rationales(150, 30)
    ]
    table, out = write("rows.jsonl", long), tmp_path / "out"
    command = ["pilot", "--model", base, "--data", table, "--output-dir", str(out), "--hours", "2", "--seeds", "2"]
    command += ["--num-train-epochs", "2", "--learning-rate", "1e-3", "--lora", "--use-cpu"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "30 rows with a rationale to train on, 20 to choose the best epoch by, 45 to test on" in said
    assert re.search(r"Estimate: .* min a seed \(rationales .*, pooled .*\), 2 seeds in .* h; --hours 2", said)
    assert not (out / "results.jsonl").exists()
    assert main([*command, "--price-per-rationale", "0.5"]) == 0
    printed = capsys.readouterr().out.partition("gain of rationales")[2]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    timed = [json.loads(line) for line in (out / "timing" / "results.jsonl").read_text().splitlines()]
    assert len(timed) == 2 and [row["status"] for row in rows] == ["done"] * 10
    study = read_study(out / "study.yaml")
    assert {state for _, state, _ in planned_runs(study, out)} == {"done"}
    verdict = json.loads((out / "verdict.json").read_text())
    # By hand: what is right of the test rows that no run has chosen by.
    tables = {
        it.stem: [json.loads(line) for line in it.read_text().splitlines()] for it in (out / "tables").glob("*.jsonl")
    }
    parts = [{row["id"] for row in tables[name]} for name in ("train", "validation", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert all(row.get("rationale") for row in tables["train"]) and parts[0] < {row["id"] for row in tables["more"]}
    right = {}
    for row in rows:
        logits = pq.read_table(out / row["logits"]).to_pylist()
        names = json.loads(pq.read_schema(out / row["logits"]).metadata[b"labels"])
        gold = [it["label"] for it in tables["test"]]
        assert sorted(names[it["label"]] for it in logits) == sorted(gold)
        epochs, data = row["options"]["num_train_epochs"], row["data"]
        side = right.setdefault((data, row["setting"], epochs), [])
        side.append(np.mean([np.argmax(it["logits"]) == it["label"] for it in logits]))
    equal = max(epochs for _, _, epochs in right)
    assert equal > 2 and {setting for _, setting, _ in right} == {"dual_head", "pooled", "shuffled_rationale"}
    of_control = {"pooled": ("rows", "pooled", 2), "equal_seconds": ("rows", "pooled", equal)}
    of_control["shuffled"] = ("rows", "shuffled_rationale", 2)
    for control, side in of_control.items():
        gain = 100 * (np.mean(right["rows", "dual_head", 2]) - np.mean(right[side]))
        assert verdict["gains"][control]["accuracy"][0] == pytest.approx(gain, abs=1e-6)
        assert set(verdict["gains"][control]) == {"accuracy", "log_loss", "scaled_log_loss"}
    assert (verdict["seeds"], verdict["test_rows"], verdict["cost"]["total"]) == (2, 45, 15.0)
    assert set(verdict["saved"]) == {"accuracy", "log_loss"} and verdict["saved"]["accuracy"]["more_rows"] == 60
    page = (out / "report.html").read_text()
    for line in printed.splitlines()[-4:]:
        assert html.escape(line, quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
    assert f"Verdict: {verdict['verdict']}." in printed and "The 30 rationales cost 15" in printed
    # Once more: nothing is run again, and the same is said.
    assert main([*command, "--price-per-rationale", "0.5"]) == 0
    assert capsys.readouterr().out == "gain of rationales" + printed
    assert len((out / "results.jsonl").read_text().splitlines()) == 10


@pytest.fixture
def stand_in(monkeypatch):
    """Runs that leave a run's files within a moment, without logits."""
    launch = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "study" / "train_stand_in.py")]
    monkeypatch.setattr(dhrd_hf.study, "run_study", functools.partial(dhrd_hf.study.run_study, launch=launch))
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", lambda number, **_: ThreadPoolExecutor(number))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hours", "0.000001"], "--hours is 1e-06: ask for more hours"),
        (["--hours", "1", "--seeds", "1000000"], "1000000 seeds take about"),
        (["--hours", "1", "--seeds", "1"], "--seeds 2 or more"),
        (["--hours", "1", "--worth", "-1"], "--worth 0 points or more"),
        (["--hours", "1", "--num-train-epochs", "2.5"], "--num-train-epochs is a whole number"),
        (["--hours", "1", "--max-steps", "9"], "--max-steps is what a pilot says itself"),
        (["--hours", "1", "--save-strategy", "no"], "--save-strategy is what a pilot says itself"),
        (["--hours", "1", "--learning-raet", "1"], "did you mean --learning-rate?"),
        (["--hours", "1", "--export", "elsewhere"], "--export is what a pilot says itself"),
        (["--hours", "1", "--train-data", "t"], "--train-data is what a pilot says itself"),
        (
            ["--hours", "1", "--run-name", "../../x"],
            "dhrd pilot: train: run_name names '../../x', outside the study's folder",
        ),
        (
            ["--hours", "1", "--report-to", "none", "--lr-scheduler-kwargs={dir: /tmp/x}"],
            "dhrd pilot: train: lr_scheduler_kwargs names",
        ),
        (["--hours", "1", "--alpha", "1", "2"], "unexpected '2'"),
        (["--hours", "1", "--alpha", "lots"], "'lots' is neither a number nor 'auto'"),
        (["stray", "--hours", "1"], "unexpected 'stray'"),
        (["--seeds", "2"], "--hours"),
    ],
)
def test_what_makes_no_pilot_is_told_in_a_line_before_it_is_paid_for(
    write, tmp_path, stand_in, capsys, options, message
):
    table, out = write("rows.jsonl", rows_with_rationales(150, 40)), tmp_path / "out"
    assert main(["pilot", "--model", "tiny", "--data", table, "--output-dir", str(out), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("dhrd: error: ") and message in error
    assert "study.yaml" not in error and "block" not in error and "an option of the study" not in error
    assert not (out / "results.jsonl").exists()


def test_timing_a_few_steps_takes_a_share_of_the_hours_at_most(write, tmp_path, stand_in, capsys):
    table, out = write("rows.jsonl", rows_with_rationales(150, 40)), tmp_path / "out"
    (out / "timing").mkdir(parents=True)
    (out / "timing" / "hold").touch()  # a model as slow as can be
    command = ["pilot", "--model", "tiny", "--data", table, "--output-dir", str(out), "--hours"]
    release = Timer(30, (out / "timing" / "hold").unlink)
    release.start()
    assert main([*command, "0.001"]) == 2
    release.cancel()
    said = capsys.readouterr().err.splitlines()
    assert "Timing a few steps with rationales and pooled, for 0.0002 h at most." in said
    assert "takes more than 0.0002 h, a fifth of what there is, and --hours is 0.001: ask for more hours" in said[-1]
    assert not (out / "timing" / "results.jsonl").exists() and not list((out / "timing" / "locks").glob("*.json"))
    (out / "timing" / "hold").unlink()
    assert main([*command, "1000", "--dry-run"]) == 0  # with what it takes it goes on
    assert "200 h at most" in capsys.readouterr().err


def test_rows_of_like_length_together_are_in_one_order_on_all_sides(tmp_path):
    grouped = ["--train-sampling-strategy", "group_by_length"]
    assert train_options(grouped)["length_column_name"] == "input_length"
    assert train_options([*grouped, "--length-column-name", "length"])["length_column_name"] == "length"
    assert "length_column_name" not in train_options(["--lora"])


def test_seeds_are_as_many_as_fit_and_what_fails_is_told(write, tmp_path, stand_in, capsys):
    table, out = write("rows.jsonl", rows_with_rationales(150, 40)), tmp_path / "out"
    command = ["pilot", "--model", "tiny", "--data", table, "--output-dir", str(out), "--hours", "1000"]
    assert main([*command, "--dry-run"]) == 0
    assert ", 20 seeds in " in capsys.readouterr().err  # more would tell little that rows don't
    (out / "timing" / "results.jsonl").unlink()
    assert main([*command, "--model", "other", "--label-column", "missing"]) == 2
    assert "no column 'missing'" in capsys.readouterr().err


def test_runs_side_by_side_make_room_for_more_seeds(write, tmp_path, stand_in, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    table, out = write("rows.jsonl", rows_with_rationales(150, 40)), tmp_path / "out"
    command = ["pilot", "--model", "tiny", "--data", table, "--output-dir", str(out), "--hours", "0.1", "--dry-run"]
    assert main(command) == 0
    # The stand-ins take 110 s a seed, as they say, of which three fit into six minutes.
    assert int(re.search(r"(\d+) seeds in", capsys.readouterr().err)[1]) > 3


def test_seeds_that_do_not_fit_are_refused_before_the_first_run_alone():
    args, seconds = argparse.Namespace(seeds=None, hours=1.0), {"rationales": 3600.0}
    assert _seeds(args, seconds, 0.5, started=True) == 2
    with pytest.raises(ValueError, match="2 seeds take about 2 h, and --hours is 1"):
        _seeds(args, seconds, 0.5)


def test_options_of_dhrd_train_are_read_as_a_study_has_them(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    words = ["--lora", "--learning-rate", "2e-4", "--weight-decay=0.1", "--prompt", "{a}: {b}", "--bf16", "false"]
    words += [
        "--target-modules",
        "q_proj,v_proj",
        "--label-names",
        "no,yes",
        "--config",
        "recipe.yaml",
        "--alpha",
        "-1",
        "--run-name",
        "first: of: three",
        "--project",
        "a: b",
        "--hub-model-id",
        "me/it #1",
        "--label-words",
        '{"no": "False"}',
    ]
    assert train_options(words) == {
        "lora": True,
        "learning_rate": 2e-4,
        "weight_decay": 0.1,
        "prompt": "{a}: {b}",
        "bf16": False,
        "target_modules": "q_proj,v_proj",
        "label_names": "no,yes",
        "config": str(tmp_path / "recipe.yaml"),
        "alpha": -1,
        "run_name": "first: of: three",
        "project": "a: b",
        "hub_model_id": "me/it #1",
        "label_words": '{"no": "False"}',
    }
