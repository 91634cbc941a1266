"""`dhrd search`: its trials are trainings of `dhrd train`, kept, shared and gone on with."""

import inspect
import json
import re
import sqlite3
import statistics
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml
from strangers import run_as_a_stranger
from transformers import Trainer

from dhrd_hf.cli import main
from dhrd_hf.cli import search as search_command
from dhrd_hf.evaluation import compute_metrics
from dhrd_hf.training import DualHeadTrainer, DualHeadTrainingArguments
from dhrd_hf.training.options import TrainArguments
from dhrd_hf.training.search import candidates, direction_of, read_space

optuna = pytest.importorskip("optuna")

SPACE = {"alpha": {"low": 0.1, "high": 2.0, "log": True}, "learning_rate": ["1e-3", "1e-2"]}


@pytest.fixture
def files(lm_dir_of, rows, tmp_path):
    """Writes recipe and space; returns the command line."""
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(space=SPACE, **changes):
        recipe = {
            "model": str(lm_dir_of("llama")),
            "train_data": str(table),
            "eval_data": str(table),
            "max_length": 64,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "use_cpu": True,
            "disable_tqdm": True,
            **changes,
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}))
        (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
        names = {"--config": "recipe.yaml", "--space": "space.yaml", "--output-dir": "out"}
        return ["search", *(word for name, file in names.items() for word in (name, str(tmp_path / file)))]

    return write


def trials_in(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_a_trial_is_the_training_of_its_recipe(files, tmp_path, capsys):
    space = {"alpha": [0.0, "auto"], "beta": [0.7], "learning_rate": ["1e-2"], "alpha_schedule": ["constant"]}
    space |= {"lora_dropout": [0.2], "neftune_noise_alpha": [5.0], "label_smoothing_factor": [0.1]}
    space |= {"lr_scheduler_type": ["reduce_lr_on_plateau"]}  # from which metric_for_best_model follows
    arguments = files(space, lora=True, lora_r=4)
    assert main([*arguments, "--trials", "9", "--sampler", "grid", "--pruner", "none", "--metric", "loss"]) == 0
    captured = capsys.readouterr()
    trials = trials_in(tmp_path / "out")
    assert len(trials) == 2 and {trial["params"]["alpha"] for trial in trials} == {0.0, "auto"}
    best = min(trials, key=lambda trial: trial["value"])
    assert f"best: trial {best['trial']}, eval_loss" in captured.out
    assert captured.err.count("/2  eval_loss") == 2
    recipe = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert {name: recipe[name] for name in space} == best["params"]
    for trial in trials:
        folder = tmp_path / f"train-{trial['trial']}"
        own = [f"--{name}={value}" for name, value in trial["params"].items()]
        assert main(["train", "--config", str(tmp_path / "out" / "best.yaml"), *own, "--output-dir", str(folder)]) == 0
        found = json.loads((folder / "eval_results.json").read_text())
        assert found["eval_loss"] == trial["value"] == trial["metrics"]["eval_loss"]


def test_a_trial_has_the_settings_of_its_own_and_not_of_the_one_before(files, tmp_path):
    space = {"neftune_noise_alpha": [5.0, 0.0], "label_smoothing_factor": [0.3, 0.0]}
    options = ["--trials", "4", "--sampler", "grid", "--pruner", "none", "--metric", "loss"]
    assert main([*files(space, lora=True), *options]) == 0
    trials = trials_in(tmp_path / "out")
    assert len({trial["value"] for trial in trials}) == 4
    for trial in trials[1:]:
        folder = tmp_path / f"train-{trial['trial']}"
        own = [f"--{name}={value}" for name, value in trial["params"].items()]
        recipe = ["--config", str(tmp_path / "recipe.yaml"), "--save-strategy", "no"]
        assert main(["train", *recipe, *own, "--output-dir", str(folder)]) == 0
        assert json.loads((folder / "eval_results.json").read_text())["eval_loss"] == trial["value"]


def test_what_the_trainer_reads_once_is_known():
    """Of the arguments that it reads when it is made, none may vary without our doing."""
    read = set(re.findall(r"\bargs\.([a-z]\w*)", inspect.getsource(Trainer.__init__)))
    read &= set(DualHeadTrainingArguments.__dataclass_fields__)
    # Set for each trial; smoothed by the model, which is made anew.
    assert read & search_command.VARIED == {"neftune_noise_alpha", "label_smoothing_factor"}
    assert {
        *TrainArguments.__dataclass_fields__,
        *DualHeadTrainingArguments.__dataclass_fields__,
    } >= search_command.VARIED


def test_the_least_error_is_the_best(files, rows, tmp_path):
    table = tmp_path / "numbers.jsonl"
    table.write_text("".join(json.dumps({**row, "label": place / 10}) + "\n" for place, row in enumerate(rows)))
    tables = {"train_data": str(table), "eval_data": str(table), "problem_type": "regression"}
    options = ["--trials", "2", "--sampler", "grid", "--metric", "eval_mae"]
    assert main([*files({"learning_rate": ["1e-2", "1e-7"]}, **tables), *options]) == 0
    trials = trials_in(tmp_path / "out")
    best = min(trials, key=lambda trial: trial["value"])
    assert len({trial["value"] for trial in trials}) == 2
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["learning_rate"] == "1e-2"
    assert best["params"]["learning_rate"] == "1e-2"


def test_directions_are_known_for_the_metrics_of_our_evaluation():
    logits, ids = torch.eye(3).numpy(), [0, 1, 1]
    for name in compute_metrics((logits, ids)):
        assert direction_of(name) == direction_of(f"eval_{name}") == "maximize"
    for name in (*compute_metrics((logits[:, 0], ids)), "loss", "classification_loss"):
        assert direction_of(name) == direction_of(f"eval_{name}") == "minimize"
    assert direction_of("eval_samples_per_second") is direction_of("f2") is None


def test_a_search_goes_on_and_its_draws_are_the_trials(files, tmp_path, capsys):
    arguments = files()
    assert main([*arguments, "--trials", "1", "--sampler", "random"]) == 0
    assert main([*arguments, "--trials", "2", "--sampler", "random", "--resume"]) == 0
    found = [trial["params"] for trial in trials_in(tmp_path / "out")]
    assert len(found) == 2 and found[0] != found[1]
    assert main([*arguments, "--trials", "2"]) == 2
    assert "is not empty: add --resume to go on, or name another" in capsys.readouterr().err
    files({"alpha": [1.0]})
    assert main([*arguments, "--trials", "3", "--resume"]) == 2
    assert "holds another search, with another space: name another --output-dir" in capsys.readouterr().err


def test_a_failed_trial_is_told_and_the_others_go_on(files, tmp_path, capsys):
    space = {"alpha": [0.0, 1.0], "alpha_schedule": ["linear"], "alpha_end": [0.5]}
    assert main([*files(space), "--trials", "2", "--sampler", "grid"]) == 0
    assert "failed: alpha=0 is the pooled baseline" in capsys.readouterr().err
    trials = {trial["params"]["alpha"]: trial for trial in trials_in(tmp_path / "out")}
    assert {alpha: trial["state"] for alpha, trial in trials.items()} == {0.0: "fail", 1.0: "complete"}
    assert trials[0.0]["error"].startswith("alpha=0 is the pooled baseline") and trials[1.0]["error"] is None


def test_trials_that_run_out_of_memory_fail_and_leave_none_of_it(files, tmp_path, monkeypatch, capsys):
    errors = [(torch.OutOfMemoryError, "out of\nmemory"), (RuntimeError, "CUDA error"), (KeyError, "name")]
    models, call_model_init, training_step = [], DualHeadTrainer.call_model_init, DualHeadTrainer.training_step

    def watched(trainer, trial=None):
        assert [model() for model in models] == [None] * len(models)
        made = call_model_init(trainer, trial)
        models.append(weakref.ref(made))
        return made

    def fatal(trainer, *arguments):
        loss = training_step(trainer, *arguments)
        if trainer.state.global_step == 1 and len(models) <= len(errors):
            kind, text = errors[len(models) - 1]
            raise kind(text)
        return loss

    monkeypatch.setattr(DualHeadTrainer, "call_model_init", watched)
    monkeypatch.setattr(DualHeadTrainer, "training_step", fatal)
    assert main([*files({"alpha": [0.1, 0.2, 0.3, 0.4]}), "--trials", "4", "--sampler", "grid"]) == 0
    trials = trials_in(tmp_path / "out")
    assert [trial["state"] for trial in trials] == ["fail", "fail", "fail", "complete"] and len(models) == 4
    told = ["OutOfMemoryError: out of memory", "RuntimeError: CUDA error", "KeyError: 'name'"]
    assert [trial["error"] for trial in trials] == [*told, None]
    printed = capsys.readouterr().err
    assert all(f"failed: {text}" in printed for text in told) and "Traceback" not in printed


def test_a_metric_that_is_no_number_is_told(files, tmp_path, monkeypatch, capsys):
    evaluate = DualHeadTrainer.evaluate
    monkeypatch.setattr(
        DualHeadTrainer,
        "evaluate",
        lambda *args, **kwargs: {**evaluate(*args, **kwargs), "eval_accuracy": float("nan")},
    )
    assert main([*files(), "--trials", "2"]) == 1
    assert [trial["error"] for trial in trials_in(tmp_path / "out")] == ["eval_accuracy is not a number"] * 2
    printed = capsys.readouterr().err
    assert printed.count("failed: eval_accuracy is not a number") == 2 and "No trial was completed" in printed


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        (optuna.samplers.RandomSampler, "before_trial", "out of order"),
        (optuna.storages.RDBStorage, "set_trial_state_values", "Should not reach"),  # Optuna's words for it
    ],
)
def test_an_error_before_or_after_a_trial_is_no_trials_failure(files, tmp_path, monkeypatch, owner, name, message):
    whole, calls = getattr(owner, name), []

    def broken(*arguments, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of order")
        return whole(*arguments, **kwargs)

    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((RuntimeError, AssertionError), match=message):
        main([*files(), "--trials", "3", "--sampler", "random"])
    assert [trial["state"] for trial in trials_in(tmp_path / "out")] == ["complete"]


def test_trials_below_the_median_are_pruned(files, tmp_path, capsys):
    # 24 rows are two steps an epoch, or three: trials are compared by epochs, and not by steps.
    space = {"learning_rate": ["1e-2", "1e-7"], "per_device_train_batch_size": [8, 12]}
    arguments = files(space, num_train_epochs=2, eval_strategy="epoch")
    assert main([*arguments, "--trials", "10", "--sampler", "random", "--metric", "loss"]) == 0
    trials = trials_in(tmp_path / "out")
    assert len(trials) == 10
    pruned = []
    for place, trial in enumerate(trials):
        steps = list(trial["intermediate_values"])
        others = [it["intermediate_values"] for it in trials[:place] if it["state"] == "complete"]
        if len(others) >= 5:  # so many are to complete before one is judged
            first = trial["intermediate_values"][steps[0]]
            pruned += [place] * (first > statistics.median(it[steps[0]] for it in others))
        assert steps == (["1"] if place in pruned else ["1", "2"])
    assert pruned and [place for place, trial in enumerate(trials) if trial["state"] == "pruned"] == pruned
    assert capsys.readouterr().err.count("  pruned (best ") == len(pruned)


# A search of its own process, which is killed in its fifth step where the first argument says so.
PROCESS = """
import os, signal, sys
from dhrd_hf.cli import main
from dhrd_hf.training import DualHeadTrainer

steps, training_step = [], DualHeadTrainer.training_step

def fatal(*arguments):
    steps.append(1)
    if len(steps) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(*arguments)

if sys.argv[1] == "killed":
    DualHeadTrainer.training_step = fatal
sys.exit(main(sys.argv[2:]))
"""


def test_processes_share_a_search_in_which_one_was_killed(files, tmp_path):
    arguments = [*files({"alpha": {"low": 0.1, "high": 2.0}}), "--pruner", "none", "--trials", "6"]
    with pytest.raises(AssertionError) as killed:
        run_as_a_stranger(PROCESS, "killed", *arguments)  # three steps are a trial
    assert "Traceback" not in str(killed.value)
    assert [trial["state"] for trial in trials_in(tmp_path / "out")] == ["complete"]
    with sqlite3.connect(tmp_path / "out" / "search.db") as storage:  # it was an hour ago
        storage.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")
    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(lambda _: run_as_a_stranger(PROCESS, "", *arguments, "--resume"), range(2)))
    trials = trials_in(tmp_path / "out")
    assert [trial["state"] for trial in trials] == ["complete", "fail", *["complete"] * 5]
    assert [trial["params"] for trial in trials if trial["again"] == 1] == [trials[1]["params"]]
    told = [int(number) for text in printed for number in re.findall(r"^trial (\d+), ", text, re.MULTILINE)]
    assert sorted(told) == [2, 3, 4, 5, 6]  # each by the process that ran it


# Opens a new folder's search at the moment when the others do, for one of two searches; says what became of it.
STARTER = """
import sys, time
from pathlib import Path
import optuna
from dhrd_hf.training import search

set_user_attr = optuna.Study.set_user_attr

def late(*arguments):
    time.sleep(0.2)  # in which another process may look
    set_user_attr(*arguments)

optuna.Study.set_user_attr = late
root, own, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for turn in range(3):
    (root / f"ready-{turn}-{own}").touch()
    end = time.monotonic() + 60
    while len(list(root.glob(f"ready-{turn}-*"))) < number and time.monotonic() < end:
        time.sleep(0.001)
    try:
        search._open(root / f"search-{turn}", "maximize", {"space": own % 2})
        print("opened")
    except ValueError as error:
        print(error)
"""


def test_of_searches_that_start_together_one_gets_the_folder(tmp_path):
    number = 2
    with ThreadPoolExecutor(number) as pool:
        printed = pool.map(lambda own: run_as_a_stranger(STARTER, tmp_path, own, number), range(number))
        printed = [text.splitlines() for text in printed]
    for turn, found in enumerate(zip(*printed, strict=True)):
        refused = f"{tmp_path / f'search-{turn}'} holds another search, with another space: name another --output-dir."
        assert found in {("opened", refused), (refused, "opened")}


def test_what_is_no_search_is_told_and_a_lock_alone_is_nothing(files, tmp_path, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "search.db").write_text("no tables " * 100)
    assert main([*files(), "--resume"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        f"dhrd: error: {folder / 'search.db'} can't be opened as a search: file is not a database."
    )
    (folder / "search.db").unlink()
    assert [path.name for path in folder.iterdir()] == [".search.lock"]
    assert main([*files(), "--resume", "--trials", "1"]) == 0
    capsys.readouterr()
    with sqlite3.connect(folder / "search.db") as storage:  # by a later Optuna
        storage.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    assert main([*files(), "--resume", "--trials", "2"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "can't be opened as a search: " in error and "optuna" in error and "--output-dir" in error


@pytest.mark.parametrize(
    ("space", "changes", "options", "message"),
    [
        ({}, {}, [], "holds nothing to search"),
        ({"alhpa": [1.0]}, {}, [], "unknown option 'alhpa': did you mean 'alpha'?"),
        ({"alpha": {"low": 2.0, "high": 0.1}}, {}, [], "alpha: low 2.0 is above high 0.1"),
        ({"alpha": []}, {}, [], "must be a list of one value or more"),
        ({"alpha": {"low": 0.1}}, {}, [], "must be a list of values, or low and high"),
        ({"prompt": ["{text}"]}, {}, [], "prompt is the same for all trials"),
        ({"alpha_schedule": ["square"]}, {}, [], "alpha_schedule"),
        (SPACE, {}, ["--sampler", "grid"], "--sampler grid wants a list of values for alpha"),
        (SPACE, {}, ["--metric", "f2"], "has no metric 'eval_f2'; it has eval_accuracy"),
        (SPACE, {"eval_data": None}, [], "A search needs rows to judge a trial by"),
        (SPACE, {}, ["--metric", "runtime"], "with more eval_runtime is better: add --direction maximize or minimize"),
        ({"bf16": [False, True]}, {}, [], "bf16 is the same for all trials of a search: write it into the recipe"),
        ({"torch_compile": [True]}, {}, [], "torch_compile is the same for all trials"),
        (SPACE, {}, ["--trials", "0"], "--trials 0 must be 1 or more"),
    ],
)
def test_bad_input_is_told_in_a_line(files, capsys, space, changes, options, message):
    assert main([*files(space, **changes), *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dhrd: error: ") and message in error


def test_without_optuna_it_says_what_to_install(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(files()) == 2
    assert "pip install 'dhrd-hf[search]'" in capsys.readouterr().err


def test_candidates_hold_each_value():
    space = read_space({"a": {"low": 1, "high": 4}, "b": ["x", "y", "z"]})
    points = candidates(space)
    assert {point["a"] for point in points} == {1, 4} and {point["b"] for point in points} == {"x", "y", "z"}
