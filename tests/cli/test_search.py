"""`dhrd search`: its trials are trainings of `dhrd train`, kept, shared and gone on with."""

import json
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from strangers import run_as_a_stranger

from dhrd_hf.cli import main
from dhrd_hf.training.search import candidates, read_space

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
    space |= {"lora_dropout": [0.2]}
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
    space = {"alpha": ["auto", 1.0], "alpha_schedule": ["linear"]}
    assert main([*files(space), "--trials", "2", "--sampler", "grid"]) == 0
    assert "failed: alpha='auto' sets its own course" in capsys.readouterr().err
    trials = {trial["params"]["alpha"]: trial for trial in trials_in(tmp_path / "out")}
    assert {alpha: trial["state"] for alpha, trial in trials.items()} == {"auto": "fail", 1.0: "complete"}
    assert trials["auto"]["error"].startswith("alpha='auto' sets its own course") and trials[1.0]["error"] is None


def test_trials_below_the_median_are_pruned(files, tmp_path, capsys):
    space = {"learning_rate": ["1e-2", "1e-7"]}
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
        assert len(steps) == (1 if place in pruned else 2)
    assert pruned and [place for place, trial in enumerate(trials) if trial["state"] == "pruned"] == pruned
    assert capsys.readouterr().err.count("  pruned (best ") == len(pruned)


# A search of its own process, which is killed in its fifth step where the first argument says so.
PROCESS = """
import os, signal, sys
from dhrd_hf.cli import main
from dhrd_hf.training import DualHeadTrainer, search

search._GRACE, search._HEARTBEAT = 2, 1
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
    time.sleep(3)  # till the silence tells
    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(lambda _: run_as_a_stranger(PROCESS, "", *arguments, "--resume"), range(2)))
    trials = trials_in(tmp_path / "out")
    assert [trial["state"] for trial in trials] == ["complete", "fail", *["complete"] * 5]
    assert [trial["params"] for trial in trials if trial["again"] == 1] == [trials[1]["params"]]
    told = [int(number) for text in printed for number in re.findall(r"^trial (\d+), ", text, re.MULTILINE)]
    assert sorted(told) == [2, 3, 4, 5, 6]  # each by the process that ran it


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
