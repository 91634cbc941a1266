"""Promise 6: a run that is killed and resumed ends with the weights of the uninterrupted run, bit by bit."""

import pytest
import torch
from torch import nn
from transformers import TrainerCallback, set_seed

from dhrd_hf import DualHeadCollator, DualHeadTrainer
from dhrd_hf.training import add_lora

ROWS, BATCH, ACCUMULATION, EPOCHS, SAVE_STEPS = 21, 2, 2, 2, 2
STEPS = 12  # 11 batches make 6 steps an epoch, of which the last has 1 row


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    """Kill the run at the end of a step, before it is saved, or between two micro-batches of the step after it."""

    def __init__(self, step, amid_accumulation):
        self.step, self.amid_accumulation = step, amid_accumulation

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and not self.amid_accumulation:
            raise Killed

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.amid_accumulation:
            raise Killed


@pytest.fixture
def make_trainer(dual_of, encoded, tokenizer, make_args, tmp_path):
    def make(kind, folder, seed, callbacks=()):
        """A new process's trainer: its fresh head and adapters differ by `seed`, so all must come from a checkpoint."""
        model = dual_of("gpt2" if kind == "full" else "llama", seed=seed, alpha=0.5)
        if kind == "lora":
            model = add_lora(model, r=4, lora_dropout=0.1)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1
        set_seed(seed)
        args = make_args(
            output_dir=str(tmp_path / folder),
            optim="adamw_torch",
            learning_rate=5e-3,
            lr_scheduler_type="cosine",
            warmup_steps=2,
            weight_decay=0.01,
            max_grad_norm=1.0,
            train_sampling_strategy="random",
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            save_strategy="steps",
            save_steps=SAVE_STEPS,
        )
        return DualHeadTrainer(
            model=model,
            args=args,
            train_dataset=encoded.select(range(ROWS)),
            data_collator=DualHeadCollator(tokenizer),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )

    return make


def end_of(trainer):
    logs = [(log["step"], log["loss"], log["reasoning_loss"]) for log in trainer.state.log_history if "loss" in log]
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}, logs


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_killed_and_resumed_run_ends_as_the_uninterrupted_one(make_trainer, kind):
    straight = make_trainer(kind, "straight", seed=1)
    start = {name: tensor.clone() for name, tensor in straight.model.state_dict().items()}
    straight.train()
    assert straight.state.global_step == STEPS
    expected, expected_logs = end_of(straight)
    trained = [name for name, parameter in straight.model.named_parameters() if parameter.requires_grad]
    assert trained and all(not torch.equal(expected[name], start[name]) for name in trained)

    # Amid the first epoch, at the first step of the second, and between two micro-batches of a step.
    for step, amid_accumulation in ((3, False), (7, False), (9, True)):
        folder = f"{kind}-{step}"
        killed = make_trainer(kind, folder, seed=1, callbacks=[KillAt(step, amid_accumulation)])
        with pytest.raises(Killed):
            killed.train()
        resumed = make_trainer(kind, folder, seed=2)
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == STEPS
        found, logs = end_of(resumed)
        assert found.keys() == expected.keys()
        # Beside the trained head PEFT keeps the fresh one it replaced, which is no part of the model's output.
        used = [name for name in expected if "original_module" not in name]
        differing = [name for name in used if not torch.equal(found[name], expected[name])]
        assert differing == [], f"killed at step {step}"
        assert logs == expected_logs, f"killed at step {step}"


def test_an_interrupted_trainer_goes_on_as_a_new_one_would(make_trainer):
    straight = make_trainer("full", "straight", seed=1)
    straight.train()
    trainer = make_trainer("full", "interrupted", seed=1, callbacks=[KillAt(9, True)])
    with pytest.raises(Killed):
        trainer.train()
    trainer.remove_callback(KillAt)
    trainer.train(resume_from_checkpoint=True)
    (found, logs), (expected, expected_logs) = end_of(trainer), end_of(straight)
    assert logs == expected_logs
    assert all(torch.equal(found[name], expected[name]) for name in expected)
