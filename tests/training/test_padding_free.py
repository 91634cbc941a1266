"""Padding-free batches give the losses, gradients and predictions of padded ones, or are refused."""

import copy

import pytest
import torch
from datasets import concatenate_datasets
from families import tiny_config
from transformers import DataCollatorWithFlattening

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadTrainer
from dhrd_hf.evaluation import compute_metrics
from dhrd_hf.training import add_lora, check_padding_free


def features_of(encoded, count=6):
    return [encoded[index] for index in range(count)]


def step(model, batch):
    """Outputs and gradients of one batch."""
    model.zero_grad()
    out = model(**batch)
    out.loss.backward()
    return out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma2", "gpt-neox", "qwen3-moe"])
def test_losses_and_gradients_are_the_padded_batchs(dual_of, encoded, tokenizer, name, attention):
    if name == "gemma2" and attention == "sdpa":
        attention = "eager"  # its soft cap is not in sdpa
    dual = dual_of(name, attn_implementation=attention, alpha=0.7)
    features = features_of(encoded)
    padded, flat = (DualHeadCollator(tokenizer, padding_free=free)(features) for free in (False, True))
    assert flat["input_ids"].shape == (1, padded["attention_mask"].sum())
    (expected, wanted), (found, gradients) = step(dual, padded), step(dual, flat)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    for term in ("loss", "classification_loss", "reasoning_loss"):
        torch.testing.assert_close(found[term], expected[term], rtol=1e-5, atol=1e-5)
    assert gradients.keys() == wanted.keys()
    for key, gradient in gradients.items():
        assert (gradient - wanted[key]).norm() <= 1e-5 * wanted[key].norm().clamp(min=1), key


def test_a_row_of_x_that_ends_in_the_pad_token_is_pooled_as_the_stock_classifier_does(dual_of, make_tokenizer):
    tokenizer = make_tokenizer(pad_token="<eos>")
    dual = dual_of("llama")
    dual.config.pad_token_id = 1
    features = [
        {"input_ids": [7, 8, 9, 1, 20, 21], "input_length": 4, "reasoning_targets": [7, 8, 9, 1, 20, 21]},
        {"input_ids": [7, 8, 9], "input_length": 3, "reasoning_targets": [7, 8, 9]},
        {"input_ids": [1, 1, 9], "input_length": 2, "reasoning_targets": [1, 1, 9]},
    ]
    padded, flat = (DualHeadCollator(tokenizer, padding_free=free)(features[:2]) for free in (False, True))
    expected = dual(**padded).logits
    torch.testing.assert_close(dual(**flat).logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expected[0], expected[1], rtol=1e-5, atol=1e-5)  # both pool the 9
    # Nothing but pad tokens: the stock rule falls back to the row's first token, here as well.
    all_pad = DualHeadCollator(tokenizer, padding_free=True)(features)
    alone = dual(torch.tensor([features[2]["input_ids"][:2]])).logits
    torch.testing.assert_close(dual(**all_pad).logits[2:], alone, rtol=1e-5, atol=1e-5)


def test_the_batch_is_transformers_own_with_both_heads_beside_it(encoded, tokenizer):
    features = features_of(encoded)
    flat = DualHeadCollator(tokenizer, padding_free=True)(features)
    rows = [{"input_ids": f["input_ids"], "labels": f["reasoning_targets"]} for f in features]
    stock = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(rows, return_tensors="pt")
    stock["reasoning_targets"] = stock.pop("labels")
    assert flat.keys() == {*stock, "input_length", "labels"}
    for name, value in stock.items():
        assert value == flat[name] if isinstance(value, int) else torch.equal(value, flat[name])
    assert flat["input_length"].tolist() == [f["input_length"] for f in features]
    assert flat["labels"].tolist() == [f["labels"] for f in features]
    starts = flat["cu_seq_lens_q"][:-1].long()
    assert (flat["reasoning_targets"][0, starts] == -100).all() and (flat["position_ids"][0, starts] == 0).all()


def test_what_can_not_be_flattened_is_refused(encoded, tokenizer):
    with pytest.raises(ValueError, match="leave pad_to_multiple_of out"):
        DualHeadCollator(tokenizer, pad_to_multiple_of=8, padding_free=True)
    with pytest.raises(ValueError, match="padding already"):
        DualHeadCollator(tokenizer, padding_free=True)([{"input_ids": [5, 0], "attention_mask": [1, 0]}])


@pytest.mark.parametrize("changes", [{}, {"alpha": 0.0}, {"lora": True}], ids=["dual", "baseline", "lora"])
def test_training_and_evaluation_are_the_padded_ones(dual_of, encoded, tokenizer, make_args, changes):
    changes = dict(changes)
    lora = changes.pop("lora", False)
    start = dual_of("llama", **changes)
    results = []
    for free in (False, True):
        torch.manual_seed(5)
        model = copy.deepcopy(start)
        trainer = DualHeadTrainer(
            model=add_lora(model, r=4, lora_dropout=0.0) if lora else model,
            args=make_args(
                per_device_train_batch_size=3,
                gradient_accumulation_steps=2,
                per_device_eval_batch_size=4,
                learning_rate=0.1,
            ),
            train_dataset=encoded.select(range(12)),
            eval_dataset=encoded.select(range(12, 23)),
            data_collator=DualHeadCollator(tokenizer, padding_free=free),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
        )
        trainer.train()
        predictions = trainer.predict(encoded.select(range(12, 23))).predictions
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        weights = {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
        results.append((logs, weights, trainer.evaluate(), predictions))
    (logs, weights, metrics, predictions), (logs_free, weights_free, metrics_free, predictions_free) = results
    assert len(logs) == len(logs_free) == 2
    for expected, found in zip(logs, logs_free, strict=True):
        for name in expected.keys() & {"loss", "classification_loss", "reasoning_loss"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-5), name
    for name, weight in weights.items():
        torch.testing.assert_close(weights_free[name], weight, rtol=1e-5, atol=1e-5, msg=name)
    assert predictions_free.shape == (11, 3)
    torch.testing.assert_close(torch.tensor(predictions_free), torch.tensor(predictions), rtol=1e-4, atol=1e-4)
    for name in ("eval_loss", "eval_accuracy"):
        assert metrics_free[name] == pytest.approx(metrics[name], rel=1e-4), name


@pytest.mark.parametrize("name", ["bloom", "mpt", "jamba", "qwen3_5_text"])
def test_a_family_that_mixes_the_rows_is_refused(name, encoded, tokenizer, make_args):
    torch.manual_seed(0)
    dual = AutoModelForDualHeadClassification.from_config(tiny_config(name), num_labels=3)
    with pytest.raises(ValueError, match="apart"):
        check_padding_free(dual)
    with pytest.raises(ValueError, match="apart"):
        DualHeadTrainer(
            model=dual,
            args=make_args(),
            train_dataset=encoded,
            data_collator=DualHeadCollator(tokenizer, padding_free=True),
        )


def test_rows_of_like_length_come_together(dual_of, encoded, tokenizer, make_args):
    """The stock Trainer's own strategy, for the attention implementations that need padding."""
    rows = concatenate_datasets([encoded] * 4)  # of few it sorts few at a time

    def padding(strategy):
        trainer = DualHeadTrainer(
            model=dual_of("llama"),
            args=make_args(train_sampling_strategy=strategy, per_device_train_batch_size=3),
            train_dataset=rows,
            data_collator=DualHeadCollator(tokenizer),
            processing_class=tokenizer,
        )
        masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
        return 1 - sum(mask.sum().item() for mask in masks) / sum(mask.numel() for mask in masks)

    assert padding("group_by_length") < 0.7 * padding("sequential")


def test_the_trial_runs_in_the_precision_that_training_runs_in(dual_of, make_trainer, monkeypatch):
    seen = []
    model = dual_of("llama")
    model.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    make_trainer(model, padding_free=True, bf16=True)
    make_trainer(model, padding_free=True)
    assert seen == [True] * 3 + [False] * 3
