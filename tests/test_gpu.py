"""What runs on a GPU, against the same on the CPU in float32: `pytest -m gpu`. Skipped where there is none."""

import copy
import importlib.util
import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig
from transformers.utils import is_flash_attn_2_available

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    export_classifier,
    init_classifier_from_label_words,
)
from dhrd_hf.cli import main
from dhrd_hf.training import add_lora

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU"),
]


def batch_of(encoded, tokenizer, device, padding_free=False):
    batch = DualHeadCollator(tokenizer, padding_free=padding_free)([encoded[index] for index in range(6)])
    return {name: it.to(device) if torch.is_tensor(it) else it for name, it in batch.items()}


def step(model, batch):
    """The losses and gradients of one batch, on the CPU."""
    model.zero_grad()
    out = model(**batch)
    out.loss.backward()
    losses = {name: out[name].item() for name in ("loss", "classification_loss", "reasoning_loss")}
    return losses, {name: it.grad.float().cpu() for name, it in model.named_parameters() if it.grad is not None}


def distance(found, expected):
    """How far all gradients are from those expected, as a share of their norm."""
    difference = sum((found[name] - it).square().sum() for name, it in expected.items())
    return (difference / sum(it.square().sum() for it in expected.values())).sqrt().item()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_losses_and_gradients_are_the_cpus(dual_of, encoded, tokenizer, family, dtype, near):
    dual = dual_of(family, alpha=0.7)
    expected, wanted = step(dual, batch_of(encoded, tokenizer, "cpu"))
    found, gradients = step(copy.deepcopy(dual).to(DEVICE, dtype), batch_of(encoded, tokenizer, DEVICE))
    assert found == pytest.approx(expected, rel=near)
    assert gradients.keys() == wanted.keys() and distance(gradients, wanted) < 2 * near


@pytest.mark.skipif(not is_flash_attn_2_available(), reason="flash-attn is not installed")
@pytest.mark.parametrize("lora", [False, True])
def test_flash_attention_without_padding_is_the_padded_batch(lm_dir_of, encoded, tokenizer, lora):
    options = {"num_labels": 3, "dtype": torch.bfloat16, "alpha": 0.7}
    torch.manual_seed(0)
    padded = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), **options).to(DEVICE)
    flat = AutoModelForDualHeadClassification.from_pretrained(
        lm_dir_of("llama"), attn_implementation="flash_attention_2", **options
    ).to(DEVICE)
    flat.load_state_dict(padded.state_dict())
    if lora:
        padded, flat = add_lora(padded), add_lora(flat)
        flat.load_state_dict(padded.state_dict())
    expected, wanted = step(padded, batch_of(encoded, tokenizer, DEVICE))
    found, gradients = step(flat, batch_of(encoded, tokenizer, DEVICE, padding_free=True))
    assert found == pytest.approx(expected, rel=0.03)
    assert distance(gradients, wanted) < 0.1


def trained(model, encoded, tokenizer, folder, **changes):
    args = DualHeadTrainingArguments(
        output_dir=str(folder),
        max_steps=20,
        learning_rate=5e-3,
        per_device_train_batch_size=8,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        use_cpu=DEVICE == "cpu",
        **changes,
    )
    trainer = DualHeadTrainer(
        model=model,
        args=args,
        train_dataset=encoded,
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_training_in_bf16_follows_float32(dual_of, encoded, tokenizer, tmp_path):
    losses = {bf16: trained(dual_of("llama"), encoded, tokenizer, tmp_path, bf16=bf16) for bf16 in (False, True)}
    assert losses[True] == pytest.approx(losses[False], rel=0.1)
    assert losses[True][-1] < losses[True][0]


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
def test_liger_kernels_train_alike(dual_of, encoded, tokenizer, tmp_path):
    losses = {
        liger: trained(dual_of("llama"), encoded, tokenizer, tmp_path, use_liger_kernel=liger)
        for liger in (False, True)
    }
    assert losses[True] == pytest.approx(losses[False], rel=0.02)


def test_qlora_trains_and_exports(make_lm, encoded, tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    peft = pytest.importorskip("peft")
    make_lm("llama", hidden_size=128, intermediate_size=128, head_dim=32).save_pretrained(tmp_path / "lm")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    dual = AutoModelForDualHeadClassification.from_pretrained(
        tmp_path / "lm", num_labels=3, quantization_config=four_bits, device_map=DEVICE
    )
    model = add_lora(peft.prepare_model_for_kbit_training(dual, use_gradient_checkpointing=False), r=4)
    losses = trained(model, encoded, tokenizer, tmp_path / "run", bf16=True)
    assert losses[-1] < losses[0]
    export_classifier(model, tokenizer, tmp_path / "adapter", format="adapter")
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "lm", num_labels=3, quantization_config=four_bits, device_map=DEVICE
    )
    base.config.pad_token_id = 0
    found = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    x = torch.tensor([[5, 9, 11, 30]], device=DEVICE)
    with torch.no_grad():
        torch.testing.assert_close(found(x).logits.float(), model.eval()(x).logits.float(), rtol=0.02, atol=0.02)


def test_label_words_on_the_device_are_the_cpus(dual_of, tokenizer):
    names = {0: "entailed", 1: "refuted", 2: "unknown"}
    here, there = (dual_of("gemma2", id2label=names, num_labels=3) for _ in range(2))
    init_classifier_from_label_words(here, tokenizer)
    init_classifier_from_label_words(there.to(DEVICE), tokenizer)
    torch.testing.assert_close(there.score.weight.cpu(), here.score.weight, rtol=1e-6, atol=1e-8)


def test_from_a_table_to_labels(lm_dir_of, rows, tmp_path):
    table, run, labels = tmp_path / "rows.jsonl", tmp_path / "run", tmp_path / "labels.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--model", str(lm_dir_of("llama")), "--train-data", str(table), "--eval-data", str(table)]
    options += ["--lora", "--max-steps", "4", "--bf16", "--output-dir", str(run), "--export", str(tmp_path / "out")]
    assert main(["train", *options]) == 0
    for model in (run, tmp_path / "out"):
        command = ["predict", "--model", str(model), "--data", str(table), "--output", str(labels), "--device", DEVICE]
        assert main(command) == 0
        assert len(labels.read_text().splitlines()) == len(rows)
