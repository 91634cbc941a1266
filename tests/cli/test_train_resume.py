"""`dhrd train --resume`: what it goes on from, and what it refuses; the trainer's part is in training/test_resuming.py."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dhrd_hf.cli import main

FAST = ["--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true", "--lr-scheduler-type", "constant"]


@pytest.fixture(scope="module")
def begun(lm_dir_of, rows, tmp_path_factory):
    """The arguments of a run, and its folder, with checkpoints at 1 and 2, of which it has all its steps."""
    folder = tmp_path_factory.mktemp("begun")
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["train", "--model", str(lm_dir_of("llama")), "--train-data", str(table), "--max-length", "200", *FAST]
    arguments += ["--save-strategy", "steps", "--save-steps", "1"]
    assert main([*arguments, "--max-steps", "2", "--output-dir", str(folder / "run")]) == 0
    return arguments, folder / "run"


@pytest.fixture
def resume(begun, tmp_path, capsys):
    """Resume a copy of the run with other arguments: the exit code, and what was said on standard error."""
    arguments, run = begun
    copy = shutil.copytree(run, tmp_path / "run")

    def resume(*changes):
        capsys.readouterr()
        code = main([*arguments, "--max-steps", "2", "--output-dir", str(copy), "--resume", *map(str, changes)])
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return code, next((line for line in error.splitlines() if line.startswith("dhrd: error: ")), error)

    resume.folder = copy
    return resume


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--learning-rate", "1e-3"], "learning_rate was 0.0005, is 0.001"),
        (["--suffix", "So {rationale} {label}"], "suffix_template was "),
        (["--rationale-after-label"], "rationale_after_label was False, is True"),
        (["--max-input-length", "12"], "max_input_length was "),
        (["--lora"], "it has no adapter, as this run has"),
        (["--dtype", "bfloat16"], "dtype of the weights was float32, is bfloat16"),
    ],
    ids=lambda it: it[0] if isinstance(it, list) else "",
)
def test_what_changes_the_result_is_refused_in_a_line(resume, changes, expected):
    code, line = resume("--max-steps", 3, *changes)
    assert code == 2 and "checkpoint-2 was trained otherwise: " in line and expected in line
    assert "To go on give what it was trained with" in line


def test_another_base_model_is_refused(resume, lm_dir_of, tmp_path):
    lm = AutoModelForCausalLM.from_pretrained(lm_dir_of("llama"))
    with torch.no_grad():
        lm.model.norm.weight.add_(0.1)
    lm.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(lm_dir_of("llama")).save_pretrained(tmp_path / "other")
    code, line = resume("--max-steps", 3, "--model", tmp_path / "other")
    assert code == 2 and "base model was llama" in line and "is other (weights " in line


def test_a_run_that_has_ended_trains_no_further(resume, caplog):
    before = (resume.folder / "train_results.json").read_text()
    weights = (resume.folder / "model.safetensors").read_bytes()
    assert resume()[0] == 0
    assert "checkpoint-2 is of the last of 2 steps: there is nothing left to train" in caplog.text
    assert (resume.folder / "train_results.json").read_text() == before
    assert (resume.folder / "model.safetensors").read_bytes() == weights
    assert resume("--max-steps", 3)[0] == 0 and (resume.folder / "checkpoint-3").is_dir()
    code, line = resume("--max-steps", 1)
    assert code == 2 and "has been trained for 3 steps, and this run is to have 1" in line


def test_a_checkpoint_that_is_not_whole_is_passed_over(resume):
    (resume.folder / "checkpoint-2" / "optimizer.pt").write_bytes(b"")
    code, said = resume()
    assert code == 0 and "checkpoint-2 is passed over, as its optimizer.pt is empty: taking " in said
    for checkpoint in resume.folder.glob("checkpoint-*"):
        (checkpoint / "model.safetensors").write_bytes(b"0" * 50)
    code, line = resume()
    assert code == 2 and "No checkpoint is whole: " in line and "--overwrite-output-dir" in line
    code, line = resume("--resume-from-checkpoint", resume.folder / "checkpoint-1")
    assert code == 2 and "checkpoint-1 can't be resumed from: its model.safetensors is cut short" in line
