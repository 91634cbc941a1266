"""The weight of the reasoning loss over a run: schedules against their formulas, the balance against autograd."""

import copy
import json
import math

import pytest
import torch
from test_resume import KillAt, Killed

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadTrainingArguments
from dhrd_hf.data.collator import input_only, input_only_batch
from dhrd_hf.training import GradientBalance, scheduled_alpha

SPLITS = [(8, 1), (2, 4), (1, 8)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [2.0, 2.0, 2.0, 2.0, 2.0]),
        ("linear", [2.0, 1.625, 1.25, 0.875, 0.5]),
        ("cosine", [0.5 + 0.75 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75, 1)]),
        ("step", [2.0, 2.0, 2.0, 0.5, 0.5]),
    ],
)
def test_schedules_go_from_alpha_to_alpha_end(schedule, expected):
    found = [scheduled_alpha(step, 5, 2.0, 0.5, schedule) for step in range(5)]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step"])
def test_a_run_of_one_step_has_alpha(schedule):
    assert scheduled_alpha(0, 1, 2.0, 0.5, schedule) == 2.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha_schedule": "exponential"}, "is not one of constant, linear, cosine, step"),
        ({"alpha_end": -1.0}, "alpha_end=-1.0 must be 0 or greater"),
        ({"alpha_end": math.inf}, "alpha_end=inf must be 0 or greater, and finite"),
        ({"alpha_step_at": 2.0}, "alpha_step_at=2.0 must be in 0 to 1"),
        ({"reasoning_share": 0.0}, "reasoning_share=0.0 must be above 0 and at most 1"),
        ({"reasoning_share": 1.5}, "reasoning_share=1.5 must be above 0"),
        ({"classifier_learning_rate": -0.5}, "classifier_learning_rate=-0.5 must be 0 or greater"),
        ({"classifier_learning_rate": float("nan")}, "classifier_learning_rate=nan must be 0 or greater"),
        ({"classifier_learning_rate": float("inf")}, "classifier_learning_rate=inf must be 0 or greater"),
    ],
)
def test_wrong_schedules_and_rates_are_told_before_training(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        DualHeadTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **wrong)


def logs_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "step"])
def test_each_step_has_its_weight_however_it_is_split(dual_of, make_trainer, schedule, batch, accumulation):
    trainer = make_trainer(
        dual_of("llama", alpha=1.5, beta=0.5),
        batch,
        accumulation,
        rows=23,
        num_train_epochs=2,
        alpha_schedule=schedule,
        alpha_end=0.25,
    )
    trainer.train()
    logs = logs_of(trainer)
    assert [log["alpha"] for log in logs] == [scheduled_alpha(step, 6, 1.5, 0.25, schedule) for step in range(6)]
    for log in logs:
        expected = 0.5 * log["classification_loss"] + log["alpha"] * log["reasoning_loss"]
        assert log["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_share_of_the_steps_has_the_reasoning_loss_and_the_others_read_x_alone(dual_of, make_trainer):
    model = dual_of("llama", alpha=0.5)
    lengths = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    trainer = make_trainer(model, 4, 2, rows=24, num_train_epochs=14, reasoning_share=0.3, learning_rate=0.01)
    trainer.train()
    logs = logs_of(trainer)
    with_it = [log for log in logs if "reasoning_loss" in log]
    assert 0.1 < len(with_it) / len(logs) < 0.5
    for log in logs:
        expected = log["classification_loss"] + 0.5 * log.get("reasoning_loss", 0)
        assert log["loss"] == pytest.approx(expected, rel=1e-5)
    long = max(len(row["input_ids"]) for row in trainer.train_dataset)
    of_x = max(row["input_length"] for row in trainer.train_dataset)
    assert sum(length <= of_x for length in lengths) >= 2 * (len(logs) - len(with_it))
    assert of_x < long == max(lengths)


def test_a_step_without_weight_is_the_pooled_baselines(dual_of, make_trainer):
    """Half of the run is pooled, step by step: the weights that come out are those of a training on x."""
    found = {}
    for schedule, alpha in (("step", 1.0), ("constant", 0.0)):
        trainer = make_trainer(
            dual_of("llama", alpha=alpha), 4, 2, rows=24, max_steps=4, alpha_schedule=schedule, alpha_step_at=0.0
        )
        trainer.train()
        found[schedule] = torch.nn.utils.parameters_to_vector(trainer.model.model.parameters())
    torch.testing.assert_close(found["step"], found["constant"], rtol=1e-6, atol=1e-8)


def test_the_mean_of_a_term_is_over_the_steps_that_have_it(dual_of, make_trainer):
    logs = {}
    for every in (1, 6):
        torch.manual_seed(0)
        model = dual_of("llama", alpha=0.5)
        trainer = make_trainer(model, 8, 1, rows=24, num_train_epochs=2, reasoning_share=0.5, logging_steps=every)
        trainer.train()
        logs[every] = logs_of(trainer)
    single = [log["reasoning_loss"] for log in logs[1] if "reasoning_loss" in log]
    assert 0 < len(single) < 6
    assert logs[6][0]["reasoning_loss"] == pytest.approx(sum(single) / len(single), rel=1e-4)


@pytest.mark.parametrize("kind", ["right", "left", "flat"])
def test_a_batch_without_suffixes_is_the_batch_of_x(encoded, make_tokenizer, kind):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = "left" if kind == "left" else "right"
    collate = DualHeadCollator(tokenizer, padding_free=kind == "flat")
    rows = [encoded[index] for index in range(6)]
    cut = input_only_batch(collate(rows), tokenizer.pad_token_id)
    tokenizer.padding_side = "right"
    expected = collate([input_only(row) for row in rows])
    assert cut.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(cut[name]), torch.as_tensor(value)), name


def test_the_weight_of_an_earlier_training_is_not_logged(dual_of, make_trainer):
    trainer = make_trainer(dual_of("llama", alpha=0.5), alpha_schedule="linear")
    trainer.train()
    assert [log["alpha"] for log in logs_of(trainer)] == [0.5, 0.0]
    trainer.args.alpha_schedule = "constant"
    trainer.train()
    assert ["alpha" in log for log in logs_of(trainer)] == [False, False]


def test_a_schedule_that_starts_at_0_is_refused(dual_of, make_trainer):
    with pytest.raises(ValueError, match="alpha=0 is the pooled baseline.*'linear' to alpha_end=1.0.*alpha=0.01"):
        make_trainer(dual_of("llama", alpha=0.0), alpha_schedule="linear", alpha_end=1.0)
    trainer = make_trainer(dual_of("llama", alpha=0.01), alpha_schedule="linear", alpha_end=1.0)
    trainer.train()
    assert [log["alpha"] for log in logs_of(trainer)] == [0.01, 1.0]


def test_a_pooled_baseline_may_carry_a_schedule(dual_of, make_trainer):
    logs = []
    for changes in ({"alpha_schedule": "linear"}, {"alpha_end": 1.0}, {}):
        trainer = make_trainer(dual_of("llama", alpha=0.0), **changes)
        trainer.train()
        logs.append([(log["loss"], log["classification_loss"]) for log in logs_of(trainer)])
        assert all("alpha" not in log and "reasoning_loss" not in log for log in logs_of(trainer))
    assert logs[0] == logs[1] == logs[2]


def test_a_weight_that_stays_is_not_logged(dual_of, make_trainer):
    trainer = make_trainer(dual_of("llama", alpha=0.5))
    trainer.train()
    assert all("alpha" not in log for log in logs_of(trainer))


@pytest.mark.parametrize(
    "weight", [{"alpha_schedule": "cosine"}, {"alpha_schedule": "auto"}, {"reasoning_share": 0.5}]
)
def test_a_killed_and_resumed_run_ends_as_the_uninterrupted_one(dual_of, make_trainer, tmp_path, weight):
    settings = {
        "batch": 2,
        "accumulation": 2,
        "rows": 21,
        "learning_rate": 0.05,
        "max_grad_norm": 1.0,
        "save_strategy": "steps",
        "save_steps": 2,
        "num_train_epochs": 2,
        **weight,
    }
    alpha = 1.5
    straight = make_trainer(dual_of("llama", alpha=alpha), output_dir=str(tmp_path / "straight"), **settings)
    straight.train()
    settings["output_dir"] = str(tmp_path / "killed")
    killed = make_trainer(dual_of("llama", alpha=alpha), callbacks=[KillAt(9, True)], **settings)
    with pytest.raises(Killed):
        killed.train()
    resumed = make_trainer(dual_of("llama", seed=9, alpha=alpha), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert [(log["step"], log["loss"], log.get("alpha")) for log in logs_of(resumed)] == [
        (log["step"], log["loss"], log.get("alpha")) for log in logs_of(straight)
    ]
    expected = straight.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.model.state_dict().items())


# alpha_schedule = "auto"


def balanced_alphas(model, batches, collate, decay=0.9):
    """The weights as the formula has them, with the two gradients at the hidden states from autograd in float64."""
    model = copy.deepcopy(model).double().eval()
    means, alphas = None, [1.0]
    for rows in batches:
        kept = {}
        hook = model.model.register_forward_hook(
            lambda _, __, output, kept=kept: kept.update(h=output.last_hidden_state)
        )
        output = model(**collate(rows.to_list()), alpha=1.0)
        hook.remove()
        squares = [
            torch.autograd.grad(weight * output[name], kept["h"], retain_graph=True)[0].square().sum().item()
            for name, weight in (("classification_loss", model.config.beta), ("reasoning_loss", 1.0))
        ]
        means = (
            squares if means is None else [decay * m + (1 - decay) * s for m, s in zip(means, squares, strict=True)]
        )
        alphas.append(math.sqrt(means[0] / means[1]))
    return alphas[:-1]


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_auto_balances_the_gradients_at_the_hidden_states(
    dual_of, make_trainer, encoded, tokenizer, family, batch, accumulation
):
    model = dual_of(family, beta=0.7)
    groups = [encoded.select(range(start, min(start + 8, 23))) for start in (0, 8, 16)]
    expected = balanced_alphas(model, groups, DualHeadCollator(tokenizer))
    trainer = make_trainer(model, batch, accumulation, rows=23, learning_rate=0.0, alpha_schedule="auto")
    trainer.train()
    logs = logs_of(trainer)
    assert [log["alpha"] for log in logs] == pytest.approx(expected, rel=1e-4)
    assert len({round(log["alpha"], 6) for log in logs}) == 3
    for log in logs:
        total = 0.7 * log["classification_loss"] + log["alpha"] * log["reasoning_loss"]
        assert log["loss"] == pytest.approx(total, rel=1e-5)
    assert model.on_shared_gradient is None  # nothing is left behind


def test_a_checkpoint_that_says_auto_opens(dual_of, tmp_path):
    """As 0.1 wrote it: the balance is the training's to ask for."""
    dual_of("llama").save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "alpha": "auto"}))
    assert AutoModelForDualHeadClassification.from_pretrained(tmp_path).config.alpha == 1.0


def test_a_pooled_baseline_is_not_balanced(dual_of, make_trainer):
    trainer = make_trainer(dual_of("llama", alpha=0.0), alpha_schedule="auto", max_steps=1)
    trainer.train()
    assert all("alpha" not in log for log in logs_of(trainer))


def test_other_words_are_no_weight(dual_of):
    with pytest.raises(ValueError, match="alpha='much' must be a number, 0 or greater."):
        dual_of("llama", alpha="much")


# The head's own learning rate


def test_the_head_has_its_own_learning_rate(dual_of, make_trainer):
    model = dual_of("llama")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    gradients = {}
    trainer = make_trainer(model, batch=8, classifier_learning_rate=0.5, learning_rate=0.125, weight_decay=0.0)
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient.clone()))
    trainer.train()
    assert trainer.state.global_step == 1
    for name, after in model.named_parameters():
        rate = 0.5 if name.startswith("score") else 0.125
        torch.testing.assert_close(after.detach(), before[name] - rate * gradients[name], rtol=1e-5, atol=1e-6)


def test_the_schedule_of_the_learning_rate_holds_for_both(dual_of, make_trainer):
    trainer = make_trainer(
        dual_of("llama"), classifier_learning_rate=0.5, learning_rate=0.1, lr_scheduler_type="linear", warmup_steps=0
    )
    trainer.create_optimizer_and_scheduler(4)
    for _ in range(2):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    rates = {group["lr"] for group in trainer.optimizer.param_groups if group["params"]}
    assert rates == {0.05, 0.25}


def test_a_step_that_a_loss_scaler_will_skip_leaves_the_balance_alone():
    balance = GradientBalance()
    for gradient in (3.0, math.inf, math.nan):
        balance.record("classification_loss", torch.tensor([gradient]))
        balance.record("reasoning_loss", torch.tensor([6.0]))
        balance.finish_step()
        assert balance.alpha == 0.5
