"""The examples, run as a user would, with a tiny model."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import HubStandIn
from huggingface_hub import constants
from strangers import run_as_a_stranger

from dhrd_hf import DualHeadTrainingArguments
from dhrd_hf.cli import main
from dhrd_hf.cli.train import parse_train
from dhrd_hf.data.superglue import SUPERGLUE_LABELS, superglue_rows
from dhrd_hf.evaluation import decode
from dhrd_hf.study import read_study, run_study
from dhrd_hf.study.machines import Ended, Processes
from dhrd_hf.study.options import typed_options
from dhrd_hf.training import add_lora

EXAMPLES = Path(__file__).parents[1] / "examples"
SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def test_publish_goes_all_the_way(lm_dir_of, tmp_path, monkeypatch, capsys):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    rooms = ("garage", "kitchen", "wardrobe")
    for name, count in {"train": 60, "calibration": 150, "test": 150}.items():
        # One row in five says another room than its label, which no temperature but its own is right about.
        named = [(rooms[(it + (it % 5 == 4)) % 3], rooms[it % 3]) for it in range(count)]
        rows = [{"text": room, "label": label, "rationale": f"It is the {room}."} for room, label in named]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import publish

    run = subprocess.run

    def run_apart(command, **options):
        if command[:2] != [sys.executable, "-c"]:
            return run(command, **options)
        return subprocess.CompletedProcess(command, 0, run_as_a_stranger(*command[2:], **there))

    monkeypatch.setattr(subprocess, "run", run_apart)
    with HubStandIn({"hf_token": "user"}) as hub:
        there = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": tmp_path / "home",
        }
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        options = ["--model", str(lm_dir_of("llama-shallow")), "--data", str(tmp_path), "--learning-rate", "0.01"]
        options += ["--epochs", "8", "--repo", "user/errands", "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["publish.py", *options])
        publish.main()
        printed = capsys.readouterr().out
        pushed = hub.files("user/errands")
    assert "Opened as user/errands" in printed and "100.0% of the labels the same" in printed
    assert {"README.md", "config.json", "model.safetensors"} < set(pushed)
    assert set(json.loads(pushed["config.json"])["label_thresholds"]) == {"kitchen", "wardrobe", "garage"}
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


TASKS = ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc")
SETTINGS = ("pooled", "dual_head", "label_only", "shuffled_rationale", "shuffled_rationale_and_label", "cot_decoding")


def test_the_papers_study_is_the_papers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(EXAMPLES / "paper_study.yaml"), "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "231 runs" in printed.err and not list(tmp_path.iterdir())
    study = read_study(EXAMPLES / "paper_study.yaml")
    assert tuple(study.data) == TASKS and {cell.setting for cell in study.runs} == {*SETTINGS}
    assert {cell.model for cell in study.runs} == {"Qwen/Qwen3-8B"} and len(study.runs) == 7 * 3 * (6 + 3 + 2)
    metrics = {"cb": "macro_f1+accuracy", "copa": "question_accuracy", "multirc": "f1a+em"}
    assert {name: data.metric for name, data in study.data.items()} == dict.fromkeys(TASKS, "accuracy") | metrics
    weights = {(it.options["alpha"], it.options["beta"]) for it in study.runs if it.setting == "dual_head"}
    assert weights == {(1.0, 1.0), (0.25, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 2.0)}
    for cell in study.runs:  # appendices E.4 and E.5
        own, training = parse_train(
            ["--model", "m", "--train-data", "t", "--output-dir", "o", *typed_options(cell.options)]
        )
        assert (own.lora, own.lora_r, own.lora_alpha, own.lora_dropout, own.classifier_head) == (
            True,
            16,
            32,
            0.1,
            "mlp",
        )
        assert (training.learning_rate, training.weight_decay, training.num_train_epochs) == (2e-4, 0.01, 3)
        assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (1, 32)


def superglue(folder, shared):
    """A folder of the seven tasks and their rationales: invented rows, or a link to the shared ones."""
    if shared:
        folder.symlink_to(SHARED)
        return
    for task in TASKS:
        rows = [_superglue_row(task, n) for n in range(6)]
        for split in ("train", "validation"):
            (folder / "superglue" / task).mkdir(parents=True, exist_ok=True)
            (folder / "superglue" / task / f"{split}.jsonl").write_text("".join(json.dumps(it) + "\n" for it in rows))
        said = [
            {"key": row["id"], "rationale": f"It is so, says {n}."} for n, row in enumerate(superglue_rows(task, rows))
        ]
        (folder / "superglue_rationales").mkdir(exist_ok=True)
        (folder / "superglue_rationales" / f"{task}.jsonl").write_text("".join(json.dumps(it) + "\n" for it in said))


def _superglue_row(task, n):
    label = n % 2 == 0
    if task == "boolq":
        row = {"passage": f"Heron {n} wades.", "question": f"is heron {n} a bird", "label": label}
    elif task in ("cb", "rte"):
        row = {"premise": f"Oto rows {n}.", "hypothesis": "Oto rows.", "label": SUPERGLUE_LABELS[task][n % 2]}
    elif task == "copa":
        row = {"premise": f"Cup {n} fell.", "choice1": "It broke.", "choice2": "It sang.", "question": "effect"}
        row["label"] = n % 2
    elif task == "multirc":
        answers = [{"text": f"{n} {a}", "idx": 2 * n + a, "label": a} for a in (0, 1)]
        questions = [{"question": "Who?", "idx": n, "answers": answers}]
        row = {"passage": {"text": f"Goat {n} ate.", "questions": questions}}
    elif task == "wic":
        row = {"word": "bank", "sentence1": "A bank.", "sentence2": f"The bank {n}.", "label": label}
        row |= {"start1": 2, "end1": 6, "start2": 4, "end2": 8}
    else:
        target = {"span1_text": "Ada", "span1_index": 2, "span2_text": "she", "span2_index": 4}
        row = {"text": f"Sela told Ada that she ran {n}.", "target": target, "label": label}
    return row | {"idx": n}


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_papers_study_runs_on_a_tiny_model(lm_dir_of, tmp_path, monkeypatch, shared):
    superglue(tmp_path / "data", shared)
    plan = yaml.safe_load((EXAMPLES / "paper_study.yaml").read_text())
    plan |= {"model": str(lm_dir_of("llama")), "cot_max_new_tokens": 3, "cot_eval_size": 2, "eval_size": 6}
    plan["train"] |= {"config": str(EXAMPLES / "paper.yaml"), "max_steps": 1, "bf16": False, "use_cpu": True}
    plan["train"] |= {"gradient_accumulation_steps": 2, "train_size": 6}
    # All settings of one task, and of each other one of them; of the lists of weights the first.
    first = {name: {**block, "data": "cb", "seed": 0} for name, block in enumerate(plan["grid"])}
    for block in first.values():
        block |= {name: block[name][:1] for name in ("alpha", "beta") if name in block}
    rest = {"data": [task for task in TASKS if task != "cb"], "setting": "dual_head", "seed": 0}
    plan["grid"] = [*first.values(), rest]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))

    def in_this_process(self, command, folder, log, started=None, environment=None):
        monkeypatch.chdir(folder)
        decodes = "dhrd_hf.evaluation.decode" in command
        return Ended(decode.main(command[3:]) if decodes else main(command[3:]), 1.0)

    monkeypatch.setattr(Processes, "run", in_this_process)
    study = read_study(tmp_path / "study.yaml")
    outcome = run_study(study, tmp_path / "out", say=lambda _: None)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert (outcome.done, len(study.runs)) == (14, 14), [row["error"] for row in rows]
    assert {row["data"] for row in rows} == {*TASKS} and {row["setting"] for row in rows} == {*SETTINGS}
    assert all((tmp_path / "out" / row["logits"]).is_file() for row in rows if row["setting"] != "cot_decoding")
