"""`DualHeadTrainer` against the objective of the whole batch in float64, and against the stock `Trainer`."""

import copy
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import tiny_config
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DHRDConfig,
    DualHeadCollator,
    DualHeadEncoder,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    export_classifier,
)
from dhrd_hf.evaluation import compute_metrics
from dhrd_hf.training import add_lora

SPLITS = [(8, 1), (2, 4), (1, 8)]
TERMS = ("loss", "classification_loss", "reasoning_loss")


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def training_logs(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture
def train(make_args, tokenizer):
    """Train a model on encoded rows and return its trainer: `train(model, rows, batch, accumulation)`."""

    def run(model, rows, batch=8, accumulation=1, trainer_class=DualHeadTrainer, tokenizer=tokenizer, **changes):
        split = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = trainer_class(
            model=model,
            args=make_args(**split, **changes),
            train_dataset=rows,
            data_collator=DualHeadCollator(tokenizer),
            processing_class=tokenizer,
        )
        trainer.train()
        return trainer

    return run


# Promise 4: how a batch is split changes nothing


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
@pytest.mark.parametrize(
    ("family", "side"), [("llama", "right"), ("llama", "left"), ("llama-tied", "right"), ("gpt2", "right")]
)
def test_a_step_is_the_whole_batchs_gradient(
    dual_of, train, objective_of, encoded, make_tokenizer, family, side, batch, accumulation
):
    rows = encoded.select(range(8))
    lengths = [len(ids) for ids in rows["input_ids"]]
    assert max(lengths) > 3 * min(lengths)
    model = dual_of(family, alpha=0.7, beta=1.3)
    expected, before = objective_of(model, rows), weights_of(model)
    trainer = train(model, rows, batch, accumulation, tokenizer=make_tokenizer(padding_side=side))
    (log,) = training_logs(trainer)
    for name in TERMS:
        assert log[name] == pytest.approx(getattr(expected, name), rel=1e-5), name
    assert expected.gradients.keys() == before.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.gradients.values())
    for name, after in weights_of(model).items():
        difference = (before[name] - after - expected.gradients[name]).abs().max().item()
        assert difference <= 1e-5 * max(1, largest), name


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
def test_class_weights_and_label_smoothing_do_not_depend_on_the_split(
    dual_of, train, objective_of, encoded, batch, accumulation
):
    model = dual_of("llama", class_weights=[1.0, 5.0, 0.5])
    rows = encoded.select(range(8))
    expected, before = objective_of(model, rows, label_smoothing=0.2), weights_of(model)
    trainer = train(model, rows, batch, accumulation, label_smoothing_factor=0.2)
    (log,) = training_logs(trainer)
    for name in TERMS:
        assert log[name] == pytest.approx(getattr(expected, name), rel=1e-5), name
    moved = before["score.weight"] - model.score.weight
    torch.testing.assert_close(moved, expected.gradients["score.weight"].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (3, 2), (2, 4), (1, 8)])
def test_the_uneven_last_step_of_an_epoch_is_exact(dual_of, train, objective_of, encoded, batch, accumulation):
    rows = encoded.select(range(19))
    model = dual_of("llama", alpha=0.5)
    step = batch * accumulation
    groups = [rows.select(range(start, min(start + step, 19))) for start in range(0, 19, step)]
    expected = [objective_of(model, group) for group in groups]
    logs = training_logs(train(model, rows, batch, accumulation, learning_rate=0.0))
    assert len(logs) == len(groups)
    for log, values in zip(logs, expected, strict=True):
        for name in TERMS:
            assert log[name] == pytest.approx(getattr(values, name), rel=1e-5), name


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
def test_the_log_is_what_one_forward_of_the_whole_batch_returns(
    dual_of, train, encoded, tokenizer, batch, accumulation
):
    rows = encoded.select(range(8))
    model = dual_of("llama", alpha=0.3, beta=2.0)
    with torch.no_grad():
        expected = model(**DualHeadCollator(tokenizer)(rows.to_list()))
    (log,) = training_logs(train(model, rows, batch, accumulation))
    for name in TERMS:
        assert log[name] == pytest.approx(expected[name].item(), rel=1e-5), name


def test_several_steps_end_with_the_same_weights_however_split(dual_of, train, encoded):
    ends = []
    for batch, accumulation in SPLITS:
        model = dual_of("llama")
        train(model, encoded.select(range(19)), batch, accumulation, learning_rate=0.05)
        ends.append(weights_of(model))
    start = weights_of(dual_of("llama"))
    for name in start:
        assert not torch.equal(ends[0][name], start[name])
        for end in ends[1:]:
            torch.testing.assert_close(end[name], ends[0][name], rtol=1e-5, atol=1e-5)


def test_logged_terms_are_means_over_the_logged_steps(dual_of, train, encoded):
    kwargs = {"learning_rate": 0.05}
    every = training_logs(train(dual_of("llama", alpha=0.5, beta=2.0), encoded, 2, 2, **kwargs))
    paired = training_logs(train(dual_of("llama", alpha=0.5, beta=2.0), encoded, 2, 2, logging_steps=2, **kwargs))
    assert len(every) == 6 and len(paired) == 3
    for log in every + paired:
        summed = 2 * log["classification_loss"] + 0.5 * log["reasoning_loss"]
        assert log["loss"] == pytest.approx(summed, rel=1e-5)
    for index, log in enumerate(paired):
        for name in TERMS:
            mean = (every[2 * index][name] + every[2 * index + 1][name]) / 2
            assert log[name] == pytest.approx(mean, rel=1e-5), name


def test_a_second_training_logs_its_own_terms(dual_of, make_trainer):
    settings = {"batch": 2, "accumulation": 2, "rows": 22, "logging_steps": 4, "learning_rate": 0.05}
    trainer = make_trainer(dual_of("llama"), **settings)
    trainer.train()
    assert trainer.state.global_step == 6  # the last two are in no log
    model = dual_of("llama")
    model.load_state_dict(trainer.model.state_dict())
    fresh = make_trainer(model, **settings)
    fresh.train()
    trainer.train()
    (found,), (expected,) = training_logs(trainer), training_logs(fresh)
    assert {name: found.get(name) for name in TERMS} == {name: expected[name] for name in TERMS}
    assert expected["loss"] == pytest.approx(expected["classification_loss"] + expected["reasoning_loss"], rel=1e-5)


def test_a_batch_that_was_too_large_is_in_no_log(dual_of, make_trainer, monkeypatch):
    training_step, failed = DualHeadTrainer.training_step, []

    def fatal(trainer, *arguments):
        loss = training_step(trainer, *arguments)
        if not failed:
            failed.append(trainer.state.train_batch_size)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    monkeypatch.setattr(DualHeadTrainer, "training_step", fatal)
    trainer = make_trainer(dual_of("llama"), batch=8, auto_find_batch_size=True)
    trainer.train()
    smaller = trainer.state.train_batch_size
    assert failed == [8] and smaller < 8
    fresh = make_trainer(dual_of("llama"), batch=smaller)
    fresh.train()
    found, expected = ([[log.get(name) for name in TERMS] for log in training_logs(t)] for t in (trainer, fresh))
    assert found == expected


def test_a_micro_batch_without_any_target_counts_its_rows_only(dual_of, train, objective_of, encoded):
    rows = encoded.select(range(4)).to_list()
    for row in rows[:2]:
        row["reasoning_targets"] = [-100] * len(row["input_ids"])
    model = dual_of("llama")
    expected = objective_of(model, rows)
    reasoning = objective_of(model, rows[2:]).reasoning_loss
    (log,) = training_logs(train(model, rows, 2, 2))
    assert log["classification_loss"] == pytest.approx(expected.classification_loss, rel=1e-5)
    assert log["reasoning_loss"] == pytest.approx(reasoning, rel=1e-5)


# The pooled baseline


def test_alpha_0_is_the_stock_trainer_on_the_stock_classifier(
    dual_of, train, stock_classifier_of, make_args, encoded, tokenizer
):
    settings = {"optim": "adamw_torch", "learning_rate": 1e-3, "train_sampling_strategy": "random", "seed": 5}
    model = dual_of("llama", alpha=0.0)
    stock = stock_classifier_of(model)
    ours = train(model, encoded, 4, 1, num_train_epochs=2, **settings)
    x_only = encoded.map(
        lambda row: {"input_ids": row["input_ids"][: row["input_length"]]},
        remove_columns=["attention_mask", "input_length", "reasoning_targets"],
    )
    theirs = Trainer(
        model=stock,
        args=make_args(TrainingArguments, per_device_train_batch_size=4, num_train_epochs=2, **settings),
        train_dataset=x_only,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    theirs.train()
    found, expected = ([log["loss"] for log in training_logs(trainer)] for trainer in (ours, theirs))
    assert len(expected) == 12 and len(set(expected)) == 12
    assert found == pytest.approx(expected, rel=1e-5)
    assert all("reasoning_loss" not in log for log in training_logs(ours))
    trained = stock.state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("lm_head"):
            torch.testing.assert_close(tensor, trained[name], rtol=1e-5, atol=1e-5)


def test_alpha_0_sees_x_alone_and_leaves_an_untied_lm_head_as_it_was(dual_of, train, encoded):
    model = dual_of("llama", alpha=0.0)
    before, widths = weights_of(model), []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    train(model, encoded, 1, 4)
    assert widths == list(encoded["input_length"])
    unmoved = [name for name, tensor in weights_of(model).items() if torch.equal(tensor, before[name])]
    assert unmoved == ["lm_head.weight"]


class Frozen(TrainerCallback):
    """Notes what is frozen in a training, and stops it there if it is told to."""

    def __init__(self, stop=False):
        self.stop = stop

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.names = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        if self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize(("family", "trained"), [("llama", False), ("llama-tied", True)])
def test_alpha_0_freezes_the_lm_head_unless_it_is_the_embedding_and_while_it_trains(
    dual_of, make_trainer, family, trained, stop
):
    model = dual_of(family, alpha=0.0)
    seen = Frozen(stop)
    with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
        make_trainer(model, callbacks=[seen]).train()
    assert seen.names == ([] if trained else ["lm_head.weight"])
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.config.alpha, before = 1.0, weights_of(model)
    make_trainer(model).train()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights_of(model).items())


def test_alpha_0_freezes_what_is_on_a_tied_lm_head_alone(dual_of, make_trainer):
    """It would get no gradient, for which DDP waits."""
    model = add_lora(dual_of("llama-tied", alpha=0.0), r=2, target_modules=["embed_tokens", "lm_head"])
    seen, before = Frozen(), {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    make_trainer(model, callbacks=[seen]).train()
    of_head = {f"base_model.model.lm_head.lora_{part}.default.weight" for part in "AB"}
    assert {*seen.names} - before == of_head
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if name in of_head)


def test_a_balanced_training_that_is_interrupted_leaves_no_hook(dual_of, make_trainer):
    model = dual_of("llama")
    with pytest.raises(KeyboardInterrupt):
        make_trainer(model, callbacks=[Frozen(stop=True)], alpha_schedule="auto").train()
    assert model.on_shared_gradient is None


# Rows without a label


@pytest.mark.parametrize("weights", [None, [0.0, 2.0, 0.5]])
def test_a_step_without_a_row_that_counts_has_no_classification_loss(dual_of, make_trainer, encoded, weights):
    model = dual_of("llama", class_weights=weights)
    none = -100 if weights is None else 0  # of weight 0
    rows = encoded.map(lambda row, index: {"labels": none if index < 4 else 1 + index % 2}, with_indices=True)
    trainer = make_trainer(model, dataset=rows, learning_rate=0.0)
    trainer.train()
    first, second = training_logs(trainer)
    assert first["classification_loss"] == 0 < second["classification_loss"]
    assert first["loss"] == pytest.approx(first["reasoning_loss"])


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
def test_a_reasoner_needs_no_labels(dual_of, train, stock_lm_of, encoded, tokenizer, batch, accumulation):
    model = dual_of("llama", beta=0.0)
    rows = encoded.select(range(8))
    whole = DualHeadCollator(tokenizer)([rows[index] for index in range(8)])
    expected = stock_lm_of(model)(
        input_ids=whole["input_ids"], attention_mask=whole["attention_mask"], labels=whole["reasoning_targets"]
    ).loss.item()
    (log,) = training_logs(train(model, rows.remove_columns("labels"), batch, accumulation))
    assert log["loss"] == pytest.approx(expected, rel=1e-5) == log["reasoning_loss"]


def test_rows_without_labels_are_refused_where_the_classifier_is_to_learn(dual_of, train, encoded):
    with pytest.raises(ValueError, match="A batch has .*input_length.*, and no labels.*config.beta to 0"):
        train(dual_of("llama"), encoded.rename_column("labels", "classes"))


# Evaluation


@pytest.fixture
def evaluate(make_args, tokenizer):
    def run(model, rows, compute_metrics=None, **changes):
        return DualHeadTrainer(
            model=model,
            args=make_args(**changes),
            eval_dataset=rows,
            data_collator=DualHeadCollator(tokenizer),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
        )

    return run


def test_evaluation_and_prediction_see_x_alone(dual_of, evaluate, encoded):
    model = dual_of("llama")
    seen, head_calls = [], []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    model.lm_head.register_forward_hook(lambda *_: head_calls.append(1))
    rows = encoded.select(range(7))
    trainer = evaluate(model, rows, per_device_eval_batch_size=3)
    trainer.evaluate()
    trainer.predict(rows)
    xs = [ids[:length] for ids, length in zip(rows["input_ids"], rows["input_length"], strict=True)]
    shown = [
        ids[mask == 1].tolist()
        for kwargs in seen
        for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True)
    ]
    assert shown == xs + xs
    assert all(kwargs.get("reasoning_targets") is None for kwargs in seen) and head_calls == []


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_eval_loss_is_exact_over_the_rows(dual_of, evaluate, stock_classifier_of, encoded, batch):
    model = dual_of("llama", class_weights=[1.0, 5.0, 0.25], beta=0.5)
    stock = stock_classifier_of(model)
    rows = encoded.select(range(7))
    xs = [torch.tensor([ids[:n]]) for ids, n in zip(rows["input_ids"], rows["input_length"], strict=True)]
    logits, labels = torch.cat([stock(x).logits for x in xs]).detach(), torch.tensor(rows["labels"])
    expected = F.cross_entropy(logits, labels, torch.tensor(model.config.class_weights)).item()
    given = []

    def compute_metrics(prediction):
        given.append(prediction)
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    metrics = evaluate(model, rows, compute_metrics, per_device_eval_batch_size=batch).evaluate()
    assert metrics["eval_classification_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx(0.5 * expected, rel=1e-5)
    assert metrics["eval_accuracy"] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
    assert given[0].predictions.shape == (7, 3)
    torch.testing.assert_close(torch.tensor(given[0].predictions), logits, rtol=1e-5, atol=1e-5)


def test_no_evaluation_row_is_dropped_and_metrics_know_the_problem_type(
    dual_of, evaluate, stock_classifier_of, encoded
):
    model = dual_of("llama", problem_type="regression")
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (7, 3), generator=draw).float()  # whole numbers, as of multi label
    rows = encoded.select(range(7)).remove_columns("labels").add_column("labels", targets.tolist())
    stock = stock_classifier_of(model)
    xs = [torch.tensor([ids[:n]]) for ids, n in zip(rows["input_ids"], rows["input_length"], strict=True)]
    logits = torch.cat([stock(x).logits for x in xs]).detach()
    trainer = evaluate(model, rows, compute_metrics, per_device_eval_batch_size=3, dataloader_drop_last=True)
    found = trainer.evaluate()
    assert found["eval_mse"] == pytest.approx(F.mse_loss(logits, targets).item(), rel=1e-5)
    assert found["eval_mae"] == pytest.approx(F.l1_loss(logits, targets).item(), rel=1e-5)
    assert found["eval_loss"] == pytest.approx(found["eval_mse"], rel=1e-5)
    assert len(trainer.predict(rows).predictions) == 7 and trainer.args.dataloader_drop_last
    assert trainer.compute_metrics is compute_metrics


@pytest.mark.parametrize("options", [{}, {"eval_do_concat_batches": False}, {"batch_eval_metrics": True}])
@pytest.mark.parametrize("given", [None, "softmax", "argmax"])
def test_eval_loss_does_not_depend_on_what_the_metrics_are_given(
    dual_of, make_args, encoded, tokenizer, options, given
):
    model = dual_of("llama", class_weights=[1.0, 5.0, 0.25])
    processed = {None: None, "softmax": lambda it, _: it.softmax(-1), "argmax": lambda it, _: it.argmax(-1)}[given]
    trainer = DualHeadTrainer(
        model=model,
        args=make_args(per_device_eval_batch_size=3, **options),
        eval_dataset=encoded.select(range(7)),
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda prediction, compute_result=True: {"seen": 1.0},
        preprocess_logits_for_metrics=processed,
    )
    metrics = trainer.evaluate()
    rows = [encoded[index] for index in range(7)]
    xs = [torch.tensor([row["input_ids"][: row["input_length"]]]) for row in rows]
    logits = torch.cat([model(x).logits for x in xs]).detach()
    labels = torch.tensor([row["labels"] for row in rows])
    expected = F.cross_entropy(logits, labels, torch.tensor(model.config.class_weights)).item()
    assert metrics["eval_loss"] == metrics["eval_classification_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["eval_seen"] == 1.0 and trainer.preprocess_logits_for_metrics is processed


def test_evaluation_amid_training_changes_nothing(dual_of, make_args, encoded, tokenizer):
    ends = []
    for strategy in ("no", "steps"):
        model = dual_of("llama")
        trainer = DualHeadTrainer(
            model=model,
            args=make_args(
                per_device_train_batch_size=2,
                gradient_accumulation_steps=2,
                eval_strategy=strategy,
                eval_steps=1,
                learning_rate=0.05,
                logging_steps=2,
            ),
            train_dataset=encoded,
            eval_dataset=encoded.select(range(5)),
            data_collator=DualHeadCollator(tokenizer),
            processing_class=tokenizer,
        )
        trainer.train()
        logs = [{name: log[name] for name in TERMS} for log in training_logs(trainer)]
        ends.append((logs, weights_of(model)))
    assert sum("eval_loss" in log for log in trainer.state.log_history) == 6
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(ends[0][1][name], ends[1][1][name]) for name in ends[0][1])


# The stock Trainer


def test_the_stock_trainer_trains_and_its_classification_gradient_is_split_invariant(
    dual_of, train, objective_of, encoded
):
    rows = encoded.select(range(8))
    for batch, accumulation in SPLITS:
        model = dual_of("llama")
        expected, before = objective_of(model, rows), weights_of(model)
        train(model, rows, batch, accumulation, trainer_class=Trainer)
        after = weights_of(model)
        assert all(not torch.equal(after[name], before[name]) for name in before)
        # The reasoning term doesn't reach `score`.
        moved = before["score.weight"] - after["score.weight"]
        torch.testing.assert_close(moved, expected.gradients["score.weight"].float(), rtol=1e-4, atol=1e-5)
    # In one batch, its reasoning term is exact as well.
    model = dual_of("llama")
    (log,) = training_logs(train(model, rows, 8, 1, trainer_class=Trainer))
    assert log["loss"] == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.parametrize("weights", [[2.0, 2.0, 2.0], [0.1, 0.2, 0.3]])
def test_the_stock_trainers_loss_has_the_class_weights(dual_of, train, encoded, tokenizer, weights):
    rows = encoded.select(range(8))
    model = dual_of("llama", class_weights=weights)
    whole = model(**DualHeadCollator(tokenizer)([rows[index] for index in range(8)]))
    (log,) = training_logs(train(model, rows, 8, 1, trainer_class=Trainer))
    assert log["loss"] == pytest.approx(whole.loss.item(), rel=1e-5)
    # In several, each term is a mean of micro-batch means.
    model = dual_of("llama", class_weights=weights)
    halves = [DualHeadCollator(tokenizer)([rows[index] for index in half]) for half in (range(4), range(4, 8))]
    expected = sum(model(**half).loss.item() for half in halves) / 2
    (log,) = training_logs(train(model, rows, 4, 2, trainer_class=Trainer))
    assert log["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_stock_trainers_label_smoothing_is_refused(dual_of, train, encoded):
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        train(dual_of("llama"), encoded, 4, trainer_class=Trainer, label_smoothing_factor=0.1)


# What is trained moves, what is frozen does not


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "gemma2"])
def test_full_fine_tuning_moves_every_parameter(dual_of, train, encoded, family):
    model = dual_of(family)
    before = weights_of(model)
    train(model, encoded.select(range(8)), 4, 2, learning_rate=0.1)
    after = weights_of(model)
    assert [name for name in before if torch.equal(after[name], before[name])] == []
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("family", ["llama", "gpt-neox"])
def test_lora_moves_the_adapters_and_score_and_nothing_else(dual_of, train, encoded, family):
    model = add_lora(dual_of(family), r=4)
    before = weights_of(model)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    train(model, encoded.select(range(16)), 4, 1, learning_rate=0.1)
    after = weights_of(model)
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert moved == trainable
    assert all("lora_" in name or "score.modules_to_save" in name for name in moved)
    assert any("score.modules_to_save" in name for name in moved)
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in moved if "lora_" in name}
    expected = {
        "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        "gpt-neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    }
    assert adapted == expected[family]


def test_a_lora_run_reopens_as_the_trained_model(dual_of, train, encoded, make_args):
    model = add_lora(dual_of("llama", id2label={0: "a", 1: "b", 2: "c"}, alpha=0.5), r=4)
    trainer = train(model, encoded, 4, learning_rate=0.1)
    trainer.save_model()
    again = AutoModelForDualHeadClassification.from_pretrained(trainer.args.output_dir)
    ids = torch.tensor([encoded[0]["input_ids"]])
    expected = trainer.model.eval()(ids, reasoning_targets=ids)
    found = again(ids, reasoning_targets=ids)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"} and again.config.alpha == 0.5
    assert not any(parameter.requires_grad for parameter in again.parameters())
    trainable = AutoModelForDualHeadClassification.from_pretrained(trainer.args.output_dir, is_trainable=True)
    assert {n for n, p in trainable.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }


def test_a_full_run_reopens_as_the_trained_model(dual_of, train, encoded):
    model = dual_of("llama")
    trainer = train(model, encoded, 4, learning_rate=0.1)
    trainer.save_model()
    again = AutoModelForDualHeadClassification.from_pretrained(trainer.args.output_dir)
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


# What is refused or repaired


def test_a_loss_that_is_not_finite_stops_the_run(dual_of, train, encoded):
    model = dual_of("llama")
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="classification_loss nan"):
        train(model, encoded, 4)


def test_labels_out_of_range_are_refused_before_training(dual_of, train, evaluate, encoded):
    rows = encoded.map(lambda row, index: {"labels": 3 if index == 5 else row["labels"]}, with_indices=True)
    with pytest.raises(ValueError, match="training set has label id 3.*3 labels"):
        train(dual_of("llama"), rows)
    trainer = evaluate(dual_of("llama"), rows)
    with pytest.raises(ValueError, match="evaluation set has label id 3"):
        trainer.evaluate()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"] * 12, "training set's column 'labels' holds string.*label2id=model.config.label2id"),
        ([-100] * 24, "All 24 training rows have no label"),
        ([-100, 2] * 12, "All 24 training rows have the label 'c'"),
    ],
)
def test_labels_that_teach_nothing_are_refused(dual_of, train, encoded, labels, message):
    rows = encoded.remove_columns("labels").add_column("labels", labels)
    with pytest.raises(ValueError, match=message):
        train(dual_of("llama", id2label=dict(enumerate("abc"))), rows)


def test_lists_of_labels_are_multi_label(dual_of, train, encoded):
    rows = encoded.remove_columns("labels").add_column("labels", [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]] * 12)
    model = dual_of("llama")
    train(model, rows)
    assert model.config.problem_type == "multi_label_classification"


def test_one_class_is_enough_where_the_classifier_does_not_learn(dual_of, train, encoded):
    train(dual_of("llama", beta=0.0), encoded.map(lambda row: {"labels": 1}))


def test_a_training_set_of_one_class_is_refused(dual_of, train, encoded):
    with pytest.raises(ValueError, match="'b'"):
        train(dual_of("llama", id2label=dict(enumerate("abc"))), encoded.filter(lambda row: row["labels"] == 1))


def test_a_tokenizer_without_pad_token_is_repaired_with_a_message(dual_of, make_tokenizer, encoded, make_args, caplog):
    tokenizer = make_tokenizer(pad_token=None)
    model = dual_of("llama")
    DualHeadTrainer(model=model, args=make_args(), train_dataset=encoded, processing_class=tokenizer)
    assert tokenizer.pad_token_id == model.config.pad_token_id == tokenizer.eos_token_id == 1
    assert "no pad token" in caplog.text and "pad token id is now the tokenizer's, 1" in caplog.text


def test_a_model_with_one_head_is_refused(make_lm, encoded, make_args, tokenizer):
    with pytest.raises(TypeError, match="LlamaForCausalLM.*AutoModelForDualHeadClassification"):
        DualHeadTrainer(model=make_lm("llama"), args=make_args(), train_dataset=encoded, processing_class=tokenizer)


def test_the_data_sets_collator_and_rows_are_left_as_they_were(dual_of, make_args, encoded, tokenizer):
    collator, rows = DualHeadCollator(tokenizer), encoded.to_list()
    before = copy.deepcopy(rows)
    trainer = DualHeadTrainer(
        model=dual_of("llama"), args=make_args(), train_dataset=rows, eval_dataset=rows, data_collator=collator
    )
    trainer.evaluate()
    trainer.train()
    assert trainer.data_collator is collator and rows == before


def test_a_frozen_classification_head_is_refused(dual_of, train, encoded):
    config = LoraConfig(target_modules=["q_proj"])  # no task type, no modules_to_save: the head would stay random
    with pytest.raises(ValueError, match=r"frozen.*modules_to_save=\['score'\]"):
        train(get_peft_model(dual_of("llama"), config), encoded)
    train(get_peft_model(dual_of("llama", beta=0.0), config), encoded.select(range(8)))


@pytest.mark.parametrize("family", ["jamba", "phimoe"])
def test_layers_that_a_family_does_not_call_get_no_adapter(family, caplog):
    torch.manual_seed(0)
    dual = AutoModelForDualHeadClassification.from_config(tiny_config(family), num_labels=3).train()
    with caplog.at_level("WARNING", logger="dhrd_hf"):
        model = add_lora(dual, r=4)
    skipped = {"jamba": "dt_proj", "phimoe": "router"}[family]
    assert any("does not call as layers" in text and skipped in text for text in caplog.messages) and dual.training
    targeted = model.base_model.targeted_module_names
    assert targeted and not any(skipped in name for name in targeted)
    # Every adapter that there is takes part in the loss.
    ids = torch.arange(3, 203).reshape(4, 50)
    model(ids, labels=torch.tensor([0, 1, 2, 0]), reasoning_targets=ids).loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_" in name)


def _saved_lora_run(dual, folder, tokenizer):
    add_lora(dual, r=4).save_pretrained(folder)
    dual.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_run_directory_that_does_not_fit_its_base_is_refused(make_lm, tokenizer, tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    make_lm("llama").save_pretrained(base)
    open_dual = AutoModelForDualHeadClassification.from_pretrained
    _saved_lora_run(open_dual(base, num_labels=3), run, tokenizer)
    assert open_dual(run).peft_config["default"].base_model_name_or_path == str(base)

    make_lm("llama", hidden_size=64).save_pretrained(base)
    with pytest.raises(ValueError, match="does not fit.*another model than the one it was trained on"):
        open_dual(run)
    make_lm("qwen3").save_pretrained(base)
    with pytest.raises(ValueError, match="trained on a llama model, and .*base is a qwen3 one"):
        open_dual(run)
    shutil.rmtree(base)
    with pytest.raises(OSError, match=r"run is an adapter of .*base, which can't be opened here"):
        open_dual(run)


def test_an_adapter_without_its_head_or_its_config_is_not_reopened(make_lm, tokenizer, tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    make_lm("llama").save_pretrained(base)
    open_dual = AutoModelForDualHeadClassification.from_pretrained
    _saved_lora_run(open_dual(base, num_labels=3), run, tokenizer)
    weights = load_file(run / "adapter_model.safetensors")
    save_file({name: w for name, w in weights.items() if "score" not in name}, run / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="no classification head"):
        open_dual(run)
    (run / "config.json").unlink()
    with pytest.raises(ValueError, match="no dual-head config beside it"):
        open_dual(run)


def test_an_exported_classifier_trains_on_as_a_pooled_baseline(dual_of, encoded, tokenizer, make_args, tmp_path):
    out = export_classifier(dual_of("llama", classifier_head="mlp"), tokenizer, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(out)
    model.config.alpha = 0.0
    before = model.score.out_proj.weight.detach().clone()
    DualHeadTrainer(
        model=model, args=make_args(max_steps=1), train_dataset=encoded, processing_class=tokenizer
    ).train()
    assert not torch.equal(model.score.out_proj.weight, before)


def test_predictions_are_in_the_rows_order_also_where_training_groups_by_length(
    dual_of, make_args, encoded, tokenizer
):
    trainer = DualHeadTrainer(
        model=dual_of("llama"),
        args=make_args(train_sampling_strategy="group_by_length", per_device_eval_batch_size=3),
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
    )
    output = trainer.predict(encoded)
    assert output.label_ids.tolist() == encoded["labels"][:]
    evaluated = [batch["labels"] for batch in trainer.get_eval_dataloader(encoded)]
    assert torch.cat(evaluated).tolist() == encoded["labels"][:]
    trainer.args.train_sampling_strategy = "sequential"
    torch.testing.assert_close(output.predictions, trainer.predict(encoded).predictions, rtol=1e-5, atol=1e-5)


def test_rows_grouped_by_length_come_in_the_order_of_seed_and_epoch_alone(
    dual_of, make_args, encoded, tokenizer, tmp_path
):
    seen = []

    class Looking(DualHeadTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append(inputs["labels"].tolist())
            torch.rand(inputs["input_ids"].shape[1])  # as dropout would
            return super().compute_loss(model, inputs, *args, **kwargs)

    def run(max_steps, resume=None, **changes):
        seen.clear()
        grouped = {"train_sampling_strategy": "group_by_length", "length_column_name": "input_length", "save_steps": 1}
        args = make_args(output_dir=str(tmp_path), max_steps=max_steps, save_strategy="steps", **grouped, **changes)
        trainer = Looking(model=dual_of("llama"), args=args, train_dataset=encoded, processing_class=tokenizer)
        trainer.train(resume_from_checkpoint=resume)
        return list(seen)

    epoch = -(-len(encoded) // 4)
    whole = run(2 * epoch, per_device_train_batch_size=4)
    assert whole[:epoch] != whole[epoch:]
    assert sorted(sum(whole[:epoch], [])) == sorted(sum(whole[epoch:], [])) == sorted(encoded["labels"])
    resumed = run(2 * epoch, str(tmp_path / f"checkpoint-{epoch + 1}"), per_device_train_batch_size=4)
    assert resumed == whole[epoch + 1 :]


def test_each_trial_of_a_search_has_its_own_arguments(dual_of, make_args, encoded, tokenizer):
    pytest.importorskip("optuna")
    smoothing, seen = [0.0, 0.3, 0.0], []

    class Look(TrainerCallback):
        def on_train_end(self, args, state, control, model, **kwargs):
            seen.append((args.label_smoothing_factor, model.config.label_smoothing))

    trainer = DualHeadTrainer(
        model_init=lambda trial=None: dual_of("llama"),
        args=make_args(max_steps=1, eval_strategy="steps", eval_steps=1),
        train_dataset=encoded,
        eval_dataset=encoded,
        processing_class=tokenizer,
        callbacks=[Look()],
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"label_smoothing_factor": smoothing[trial.number]}, n_trials=3, backend="optuna"
    )
    assert seen == [(it, it) for it in smoothing]


def test_the_pad_token_is_the_collators_where_there_is_no_other(dual_of, make_args, encoded, make_tokenizer):
    collate, found = DualHeadCollator(make_tokenizer(pad_token="<eos>")), []
    for batch in (1, 8):
        args = make_args(per_device_eval_batch_size=batch)
        found.append(
            DualHeadTrainer(model=dual_of("llama"), args=args, data_collator=collate).evaluate(encoded)["eval_loss"]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("config", "arguments", "given", "said"),
    [
        ({}, {}, {"compute_loss_func": lambda *_, **__: 0}, "compute_loss_func would replace the two losses"),
        ({}, {"classifier_learning_rate": 0.1}, {"optimizers": ("mine", None)}, "for the Trainer's own optimizer"),
        ({}, {}, {"processing_class": None}, "give processing_class=tokenizer, or a data_collator"),
        ({"beta": 0.0}, {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}, {},
         "With beta=0 there is no evaluation loss"),
        ({}, {"distillation_weight": 0.5}, {"teacher": "model"}, "The teacher is the student itself"),
    ],
)  # fmt: skip
def test_what_would_come_to_nothing_is_refused(dual_of, make_args, encoded, tokenizer, config, arguments, given, said):
    model = dual_of("llama", **config)
    args = make_args(DualHeadTrainingArguments, **arguments)
    given = {"processing_class": tokenizer, **given}
    if "teacher" in given:
        given["teacher"] = model
    with pytest.raises(ValueError, match=said):
        DualHeadTrainer(model=model, args=args, train_dataset=encoded, eval_dataset=encoded, **given)


def test_a_reasoning_loss_without_targets_is_refused(dual_of, make_trainer, encoded):
    rows = encoded.remove_columns("reasoning_targets")
    with pytest.raises(ValueError, match="no reasoning_targets: the reasoning loss would vanish"):
        make_trainer(dual_of("llama"), dataset=rows, max_steps=1).train()
    make_trainer(dual_of("llama", alpha=0.0), dataset=rows, max_steps=1).train()


def test_rows_that_would_pool_their_answer_are_refused(dual_of, make_trainer, encoded):
    with pytest.raises(ValueError, match="no input_length: the pooled token would be the suffix's"):
        make_trainer(dual_of("llama"), dataset=encoded.remove_columns("input_length"), max_steps=1).train()


def test_weights_that_are_changed_behind_the_trainer_are_checked(dual_of, make_trainer):
    trainer = make_trainer(dual_of("llama"), max_steps=1, logging_steps=1)
    trainer.model.config.alpha = -1.0
    with pytest.raises(ValueError, match=r"alpha=-1\.0 must be 0 or greater"):
        trainer.train()
    trainer.model.config.alpha = 0.5
    trainer.train()
    assert trainer.state.log_history[0]["reasoning_loss"] > 0


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_class_weights_of_any_numbers_train_and_are_saved(dual_of, make_trainer, tmp_path, kind):
    model = dual_of("llama", class_weights=kind([1, 5, 2]))
    trainer = make_trainer(model, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "run"))
    assert DHRDConfig.from_pretrained(tmp_path / "run").class_weights == [1.0, 5.0, 2.0]


def test_a_head_without_a_loss_rests_while_the_other_is_trained(dual_of, make_trainer):
    model = dual_of("llama", beta=0.0)
    trainer, seen = make_trainer(model, max_steps=1), []
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: (
        seen.append(model.score.weight.requires_grad),
        compute_loss(*args, **kwargs),
    )[1]
    before = model.score.weight.detach().clone()
    trainer.train()
    assert seen == [False] and model.score.weight.requires_grad and torch.equal(model.score.weight, before)


def test_saving_a_quantised_model_does_not_change_it(make_lm, make_trainer, tmp_path):
    pytest.importorskip("bitsandbytes")
    # Wide enough for bitsandbytes to repack its layers for AVX512-BF16, where the processor has that.
    make_lm("llama", hidden_size=128, intermediate_size=128, head_dim=32).save_pretrained(tmp_path / "lm")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    dual = AutoModelForDualHeadClassification.from_pretrained(
        tmp_path / "lm", num_labels=3, quantization_config=four_bits
    )
    trainer = make_trainer(add_lora(prepare_model_for_kbit_training(dual, use_gradient_checkpointing=False), r=4))
    before = trainer.predict(trainer.train_dataset).predictions
    trainer.save_model(str(tmp_path / "run"))
    assert (trainer.predict(trainer.train_dataset).predictions == before).all()
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(trainer.model)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused_before_training(
    dual_of, make_tokenizer, encoded, label2id, make_args
):
    """400 rows, and ids up to 401."""
    tokenizer, dual = make_tokenizer(), dual_of("llama", label2id=label2id)
    tokenizer.add_tokens(["<one>", "<two>"])
    told = r"tokens up to id 401 \('<two>'\), .* have 400 rows.*model.resize_token_embeddings\(402\)"
    with pytest.raises(ValueError, match=told):
        DualHeadEncoder(tokenizer, model=dual)
    with pytest.raises(ValueError, match=told):
        DualHeadTrainer(dual, make_args(), DualHeadCollator(tokenizer), encoded, processing_class=tokenizer)
    dual.resize_token_embeddings(402)
    DualHeadTrainer(dual, make_args(), DualHeadCollator(tokenizer), encoded, processing_class=tokenizer)
