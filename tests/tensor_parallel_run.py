"""The same models whole, or with `tp_plan="auto"` under torchrun: writes their logits, losses and gradients.

The Trainer is not tried: accelerate shards a model so on accelerators only. Called by test_tensor_parallel.py: `tensor_parallel_run.py OUTPUT ROWS NAME=FOLDER ...`.
"""

import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator

SHARDED = {"tp_plan": "auto"} if "WORLD_SIZE" in os.environ else {}


def one_pass(name, folder, batch):
    """Of a model, or of a stock classifier."""
    torch.manual_seed(int(os.environ.get("RANK", 0)))  # the ranks draw other numbers
    stock = name.startswith("stock")
    own = {} if stock else {"num_labels": 3}
    model = (AutoModelForSequenceClassification if stock else AutoModelForDualHeadClassification).from_pretrained(
        folder, **own, **SHARDED
    )
    batch = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")} if stock else batch
    outputs = model(**batch)
    outputs.loss.backward()
    found = {
        key: outputs[key] for key in ("logits", "loss", "classification_loss", "reasoning_loss") if key in outputs
    }
    found |= {f"{key} gradient": parameter.grad for key, parameter in model.named_parameters()}
    return {key: whole(tensor) for key, tensor in found.items()}, model


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def main(output, rows_folder, *models):
    output, rows = Path(output), Dataset.load_from_disk(rows_folder)
    torch.set_num_threads(1)
    found = {}
    for name, folder in (model.split("=", 1) for model in models):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        found[name], model = one_pass(name, folder, DualHeadCollator(tokenizer)([rows[place] for place in range(5)]))
        if name == "new":  # its head was drawn at random
            model.save_pretrained(output / "drawn")
            tokenizer.save_pretrained(output / "drawn")
    if os.environ.get("RANK", "0") == "0":
        torch.save(found, output / "found.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
