"""The examples, run as a user would, with a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import HubStandIn

from dhrd_hf.cli.arguments import parse_train

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_publish_goes_all_the_way(lm_dir_of, tmp_path, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    with HubStandIn({"hf_token": "user"}) as hub:
        for name, value in {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_token",
        }.items():
            monkeypatch.setenv(name, value)
        options = ["--model", str(lm_dir_of("llama")), "--rows", "30", "--epochs", "1", "--repo", "user/visits"]
        command = [sys.executable, str(EXAMPLES / "publish.py"), *options, "--output", str(tmp_path / "out")]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        pushed = hub.files("user/visits")
    assert "Opened as user/visits" in printed and "100.0% of the labels the same" in printed
    assert {"README.md", "config.json", "model.safetensors"} < set(pushed)
    assert set(json.loads(pushed["config.json"])["label_thresholds"]) == {"gate", "desk", "shop"}
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 150 and all(json.loads(line)["predicted_label"] for line in lines)


def test_the_recipe_is_what_the_study_was_run_with():
    recipe = EXAMPLES / "small_model.yaml"
    own, training = parse_train(["--config", str(recipe), "--model", "m", "--train-data", "t", "--output-dir", "o"])
    assert (own.lora, own.alpha, training.learning_rate, training.num_train_epochs) == (True, 1.0, 5e-4, 6)
    said = yaml.safe_load(recipe.read_text())
    study = yaml.safe_load((EXAMPLES / "benchmarks" / "study.yaml").read_text())
    assert said == {name: {"alpha": 1, **study["train"]}[name] for name in said}
