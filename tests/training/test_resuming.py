"""What a run goes on from, with what, and how far; that it then ends as the uninterrupted one is in test_resume.py."""

import json
import logging
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadEncoder,
    DualHeadTrainer,
    DualHeadTrainingArguments,
)
from dhrd_hf.training import add_lora
from dhrd_hf.training.resuming import SETTINGS_FILE, identity, rows_digest

SAVED = [
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
]


@pytest.fixture(scope="module")
def make_run(dual_of, dataset, tokenizer, label2id):
    """A trainer of 16 rows, 4 steps an epoch, and one change."""

    def make(folder, model=None, lora=None, rows=None, encoder=None, prompt="{text}", base=None, **changes):
        encode = DualHeadEncoder(tokenizer, label2id, **{"max_length": 256, "prompt": prompt, **(encoder or {})})
        own = {"label2id": label2id, "prompt_template": prompt, "alpha": 0.5, **(model or {})}
        dual = (
            dual_of("llama", **own)
            if base is None
            else AutoModelForDualHeadClassification.from_pretrained(base, **own)
        )
        settings = {
            "learning_rate": 5e-3,
            "weight_decay": 0.01,
            "max_steps": 4,
            "save_steps": 2,
            "save_strategy": "steps",
        }
        settings |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
        settings |= {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "lr_scheduler_type": "constant",
        }
        return DualHeadTrainer(
            model=dual if lora is None else add_lora(dual, **lora),
            args=DualHeadTrainingArguments(str(folder), **settings | changes),
            train_dataset=encode.encode_dataset(dataset.select(range(16)) if rows is None else rows),
            data_collator=DualHeadCollator(tokenizer),
            processing_class=tokenizer,
        )

    return make


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    """A run that ended after 4 steps, with checkpoints at 2 and 4."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    make_run(folder).train()
    return folder


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def told(caplog):
    logging.getLogger("transformers").propagate = True
    logging.getLogger("dhrd_hf").propagate = True
    return lambda: " ".join(record.getMessage() for record in caplog.records)


def other_lm(lm_dir_of, tmp_path):
    lm = AutoModelForCausalLM.from_pretrained(lm_dir_of("llama"))
    with torch.no_grad():
        lm.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    lm.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


CHANGES = {
    "learning rate": ({"learning_rate": 1e-3}, "learning_rate was 0.005, is 0.001"),
    "schedule": ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type was constant, is cosine"),
    "warmup": ({"warmup_steps": 1}, "warmup_steps was 5, is 1"),
    "weight decay": ({"weight_decay": 0.1}, "weight_decay was 0.01, is 0.1"),
    "seed": ({"seed": 7}, "seed was 42, is 7"),
    "batch": ({"per_device_train_batch_size": 4}, "rows a step was 4, is 8"),
    "accumulation": ({"gradient_accumulation_steps": 1}, "rows a step was 4, is 2"),
    "alpha": ({"model": {"alpha": 1.0}}, "alpha was 0.5, is 1.0"),
    "beta": ({"model": {"beta": 0.5}}, "beta was 1.0, is 0.5"),
    "class weights": ({"model": {"class_weights": [1, 2, 3]}}, "class_weights were None, are [1.0, 2.0, 3.0]"),
    "head": ({"model": {"classifier_head": "mlp"}}, "classifier_head was 'linear', is 'mlp'"),
    "prompt": ({"prompt": "Say: {text}"}, "prompt_template was '{text}', is 'Say: {text}'"),
    "smoothing": ({"label_smoothing_factor": 0.1}, "label_smoothing was 0.0, is 0.1"),
    "alpha's schedule": ({"alpha_schedule": "linear"}, "alpha_schedule was constant, is linear"),
    "adapter": ({"lora": {"r": 4}}, "it has no adapter, as this run has"),
    "span": ({"encoder": {"reasoning_span": "rationale"}}, "digest of the rows' rationales and answers was "),
    "limit": ({"encoder": {"max_length": 60}}, "digest of the rows' rationales and answers was "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_result_is_refused_with_both_values(make_run, run, change):
    changes, expected = CHANGES[change]
    with pytest.raises(ValueError, match="checkpoint-4 was trained otherwise: ") as error:
        make_run(run, **{"max_steps": 6, **changes}).train(resume_from_checkpoint=True)
    assert expected in str(error.value)


def test_other_rows_labels_or_weights_are_refused(make_run, run, dataset, lm_dir_of, tmp_path):
    rows = dataset.select(range(16)).to_list()
    for name, changed in (
        ("inputs", [{**rows[0], "text": "It hails."}, *rows[1:]]),
        ("labels", [{**rows[0], "label": "refuted"}, *rows[1:]]),
        ("rationales and answers", [{**rows[0], "rationale": "So it is."}, *rows[1:]]),
    ):
        trainer = make_run(run, rows=Dataset.from_list(changed), max_steps=6)
        with pytest.raises(ValueError, match=f"digest of the rows' {name} was [0-9a-f]{{16}}, is [0-9a-f]{{16}}"):
            trainer.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="training rows was 16, is 12"):
        make_run(run, rows=dataset.select(range(12)), max_steps=6).train(resume_from_checkpoint=True)
    digest = r"\(weights [0-9a-f]{16}\)"
    trainer = make_run(run, base=other_lm(lm_dir_of, tmp_path), max_steps=6)
    with pytest.raises(ValueError, match=rf"base model was llama\d* {digest}, is other {digest}"):
        trainer.train(resume_from_checkpoint=True)
    # The same one in another folder is the same one.
    moved = shutil.copytree(lm_dir_of("llama"), tmp_path / "moved")
    trainer = make_run(shutil.copytree(run, tmp_path / "run"), base=moved, max_steps=5)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 5


def test_the_settings_of_an_adapter_are_compared(make_run, tmp_path):
    make_run(tmp_path, lora={"r": 4}, max_steps=2).train()
    for lora, expected in (
        ({"r": 8}, "r was 4, is 8"),
        ({"r": 4, "lora_dropout": 0.1}, "lora_dropout was 0.0, is 0.1"),
        ({"r": 4, "use_rslora": True}, "use_rslora was False, is True"),
        ({"r": 4, "target_modules": ["q_proj"]}, "target_modules was "),
        (None, "it holds an adapter, and this run trains all weights"),
    ):
        with pytest.raises(ValueError, match="was trained otherwise") as error:
            make_run(tmp_path, lora=lora).train(resume_from_checkpoint=True)
        assert expected in str(error.value)
    trainer = make_run(tmp_path, lora={"r": 4})
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4


# What may change


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_more_epochs_go_on_exactly(make_run, tmp_path, told):
    """With a constant learning rate the run of one epoch, gone on with, is the run of two; so whatever it logs and saves."""
    epochs = {"max_steps": -1, "weight_decay": 0.01}
    make_run(tmp_path / "two", num_train_epochs=2, **epochs).train()
    make_run(tmp_path / "one", num_train_epochs=1, **epochs).train()
    changed = {"logging_steps": 1, "save_steps": 4, "save_total_limit": 3, "dataloader_num_workers": 1}
    trainer = make_run(tmp_path / "one", num_train_epochs=2, **epochs, **changed)
    trainer.train(resume_from_checkpoint=True)
    assert (trainer.steps_before, trainer.state.global_step) == (4, 8)
    assert "The run is to have 8 steps, and was to have 4." in told()
    expected, found = weights(tmp_path / "two/checkpoint-8"), weights(tmp_path / "one/checkpoint-8")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_longer_run_follows_the_longer_schedule_and_says_so(make_run, tmp_path, told):
    """Of linear decay over N steps without warm-up, step k (from 1) is at rate * (N - k + 1) / N."""
    linear = {"lr_scheduler_type": "linear", "warmup_steps": 0, "logging_steps": 1, "learning_rate": 8e-3}
    make_run(tmp_path, **linear, max_steps=4).train()
    trainer = make_run(tmp_path, **linear, max_steps=8)
    trainer.train(resume_from_checkpoint=True)
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert rates == pytest.approx([8e-3, 6e-3, 4e-3, 2e-3, 4e-3, 3e-3, 2e-3, 1e-3])
    assert "from step 5 on the learning rate (linear) follows the schedule of 8 steps" in told()


def test_the_same_rows_a_step_in_other_batches_are_told(make_run, copied, told):
    trainer = make_run(copied, max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=1)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6 and "split into other batches" in told()


# How far


@pytest.mark.parametrize("steps", [3, 4])
def test_a_run_that_ended_by_its_steps_does_not_train_on(make_run, tmp_path, told, steps):
    make_run(tmp_path, max_steps=steps).train()  # 3: amid an epoch, where transformers would do a fourth
    expected = weights(tmp_path / f"checkpoint-{steps}")
    trainer = make_run(tmp_path, max_steps=steps)
    output = trainer.train(resume_from_checkpoint=True)
    assert output.global_step == trainer.steps_before == steps
    assert f"checkpoint-{steps} is of the last of {steps} steps: there is nothing left to train." in told()
    found = trainer.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match=f"trained for {steps} steps, and this run is to have 2"):
        make_run(tmp_path, max_steps=2).train(resume_from_checkpoint=True)


# Which checkpoint


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("name", [*SAVED, SETTINGS_FILE])
def test_a_file_that_is_not_whole_leaves_the_checkpoint_before(make_run, copied, told, name, size):
    file = copied / "checkpoint-4" / name
    assert file.stat().st_size > 100
    file.write_bytes(file.read_bytes()[:size])
    trainer = make_run(copied)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.steps_before == 2
    how = "empty" if size == 0 else "cut short or damaged"
    assert f"checkpoint-4 is passed over, as its {name} is {how}: taking {copied / 'checkpoint-2'}." in told()
    whole, found = weights(copied / "checkpoint-4"), trainer.model.state_dict()
    assert all(torch.equal(found[it], whole[it]) for it in whole)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=f"checkpoint-4 can't be resumed from: its {name} is empty"):
        make_run(copied).train(resume_from_checkpoint=str(copied / "checkpoint-4"))
    (copied / "checkpoint-2" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(
        ValueError, match="No checkpoint is whole: .*checkpoint-4.*; .*checkpoint-2.* optimizer.pt is empty"
    ):
        make_run(copied).train(resume_from_checkpoint=True)


def test_there_is_none(make_run, tmp_path):
    with pytest.raises(ValueError, match="There is no checkpoint in"):
        make_run(tmp_path).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="nowhere can't be resumed from: there is no such folder"):
        make_run(tmp_path).train(resume_from_checkpoint="nowhere")


def test_a_checkpoint_without_optimizer_is_told(make_run, copied, told):
    (copied / "checkpoint-4" / "optimizer.pt").unlink()
    make_run(copied, max_steps=5).train(resume_from_checkpoint=True)
    assert "checkpoint-4 has no optimizer (as save_only_model leaves them out): they start anew" in told()


def test_an_older_checkpoint_is_compared_by_its_configs(make_run, copied, told):
    (copied / "checkpoint-4" / SETTINGS_FILE).unlink()
    with pytest.raises(ValueError, match=r"alpha was 0\.5, is 1\.0\. To go on"):
        make_run(copied, model={"alpha": 1.0}, learning_rate=1.0).train(resume_from_checkpoint=True)
    make_run(copied, max_steps=5).train(resume_from_checkpoint=True)
    assert "checkpoint-4 has no run_settings.json" in told() and "could not be" in told()


# Digests


def test_a_model_is_known_by_the_weights_that_are_the_base(dual_of):
    name, digest = identity(dual_of("llama", seed=1))
    assert name.startswith("llama") and identity(dual_of("llama", seed=2)) == [name, digest]
    assert identity(dual_of("llama-tied"))[1] != digest
    lora = [identity(add_lora(dual_of("llama", seed=seed), r=2))[1] for seed in (1, 2)]
    assert lora[0] == lora[1]


def test_rows_are_known_by_what_is_trained_on():
    row = {"input_ids": [5, 6, 7], "input_length": 2, "labels": 0, "reasoning_targets": [5, 6, 7]}
    digest = rows_digest(Dataset.from_list([row, row]))
    assert digest == rows_digest(Dataset.from_list([row] * 3).select([2, 0])) and digest["training rows"] == 2
    parts = {
        "inputs": {"input_ids": [4, 6, 7]},
        "labels": {"labels": 1},
        "rationales and answers": {"input_ids": [5, 6, 8]},
    }
    for part, change in parts.items():
        other = rows_digest(Dataset.from_list([row, row | change]))
        assert [name for name in digest if digest[name] != other[name]] == [f"digest of the rows' {part}"]
    assert rows_digest([row]) == {"training rows": 1} and rows_digest(iter([row])) == {}
    many = [row | {"labels": [0.0, 1.0]}] * 2
    assert rows_digest(Dataset.from_list(many)) != rows_digest(
        Dataset.from_list([many[0], row | {"labels": [1.0, 0.0]}])
    )


def test_the_settings_lie_in_checkpoint_and_run(run, make_run, tmp_path):
    for folder in (run / "checkpoint-2", run / "checkpoint-4"):
        found = json.loads((folder / SETTINGS_FILE).read_text())
        assert found["learning_rate"] == 5e-3 and found["rows a step"] == 4 and found["training rows"] == 16
        assert str(tmp_path.parent) not in json.dumps(found)  # no paths of this machine
