"""The examples, run as a user would, with a tiny model."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import HubStandIn

from dhrd_hf import DualHeadTrainingArguments
from dhrd_hf.cli.arguments import parse_train
from dhrd_hf.training import add_lora

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


def test_the_defaults_are_what_the_study_was_run_with():
    own, training = parse_train(["--model", "m", "--train-data", "t", "--output-dir", "o"])
    study = yaml.safe_load((EXAMPLES / "benchmarks" / "study.yaml").read_text())["train"]
    in_python = DualHeadTrainingArguments(output_dir="o")
    for name in ("learning_rate", "num_train_epochs", "per_device_train_batch_size"):
        assert getattr(training, name) == getattr(in_python, name) == float(study[name])
    default = inspect.signature(add_lora).parameters["lora_dropout"].default
    assert own.lora_dropout == default == study["lora_dropout"]


def test_the_papers_settings_are_the_papers():
    recipe = str(EXAMPLES / "paper.yaml")
    own, training = parse_train(["--config", recipe, "--model", "m", "--train-data", "t", "--output-dir", "o"])
    # Appendices E.4 and E.5.
    assert (own.lora, own.lora_r, own.lora_alpha, own.lora_dropout, own.alpha, own.beta) == (True, 16, 32, 0.1, 1, 1)
    assert (training.learning_rate, training.weight_decay, training.num_train_epochs) == (2e-4, 0.01, 3)
    assert (training.lr_scheduler_type, training.warmup_steps, training.bf16) == ("cosine", 5, True)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (1, 32)
