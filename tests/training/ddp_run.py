"""Train and evaluate a few tiny runs, in one process or in two under torchrun; called by test_distributed.py."""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from fsdp_on_cpu import shard_on_cpu
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadTrainer,
    DualHeadTrainingArguments,
)
from dhrd_hf.evaluation import compute_metrics
from dhrd_hf.training import Teacher, add_lora

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))
RUNS = {
    "dual": {"alpha": 0.7, "beta": 1.3, "class_weights": [1.0, 4.0, 0.5]},
    "targets-on-one-rank": {},
    "baseline": {"alpha": 0.0},
    "lora": {},
    "padding-free": {},
    "auto": {},
    "soft-targets": {"alpha": 0.7},
    "soft-targets-cached": {"alpha": 0.7},
    # In one process not sharded.
    "fsdp-tied": {"alpha": 0.7, "beta": 1.3},
    "fsdp-baseline": {"alpha": 0.0},
    "fsdp-lora": {},
    "fsdp-soft-targets": {"alpha": 0.7},
    "fsdp-bf16": {},
}


def main(lm_folder, tied_lm_folder, rows_folder, output, batch, accumulation):
    rows = Dataset.load_from_disk(rows_folder)
    tokenizer = AutoTokenizer.from_pretrained(lm_folder)
    for name, config in RUNS.items():
        torch.manual_seed(3)
        base = tied_lm_folder if name == "fsdp-tied" else lm_folder
        model = AutoModelForDualHeadClassification.from_pretrained(base, num_labels=3, **config)
        counts = []
        if name == "fsdp-bf16":
            model.register_forward_pre_hook(
                lambda module, args, kwargs, counts=counts: counts.append(kwargs.get("num_items_in_batch")),
                with_kwargs=True,
            )
        if name.endswith("lora"):
            model = add_lora(model, r=4, lora_dropout=0.0)
        train = rows.select(range(16))
        if name == "targets-on-one-rank":
            # Of the eight rows of the first step, two ranks of 2 x 2 see 0, 1, 4, 5 and 2, 3, 6, 7.
            train = train.map(
                lambda row, index: _without_targets(row) if index in (0, 1, 4, 5) else row, with_indices=True
            )
        teacher, learn_from_it = None, {"alpha_schedule": "auto"} if name == "auto" else {}
        if "soft-targets" in name:
            cache = f"{output}/{name}/cache" if name.endswith("cached") else None
            teacher = Teacher(AutoModelForCausalLM.from_pretrained(tied_lm_folder), cache_dir=cache, top_k=5)
            learn_from_it = {"distillation_weight": 0.7, "temperature": 2.0}
        args = DualHeadTrainingArguments(
            **learn_from_it,
            output_dir=f"{output}/{name}",
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            per_device_eval_batch_size=3,
            optim="sgd",
            learning_rate=0.1,
            lr_scheduler_type="constant",
            warmup_steps=0,
            weight_decay=0.0,
            max_grad_norm=0.0,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=name.endswith("bf16"),
            fsdp=name.startswith("fsdp") and WORLD_SIZE > 1,
            eval_strategy="steps" if name.startswith("fsdp") else "no",
            eval_steps=1,
        )
        trainer = DualHeadTrainer(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=rows.select(range(16, 23)),
            # One process pads, the ranks do not.
            data_collator=DualHeadCollator(tokenizer, padding_free=name == "padding-free" and args.world_size > 1),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            teacher=teacher,
        )
        trainer.train()
        metrics = trainer.evaluate()
        folder = Path(output, name)
        trainer.save_model(folder / "saved")
        if trainer.is_world_process_zero():
            result = {"logs": trainer.state.log_history, "metrics": metrics, "ranks": args.world_size}
            result["counts"] = [torch.as_tensor(count).tolist() for count in counts if count is not None]
            result["sharded"] = any(isinstance(p, DTensor) for p in trainer.model.parameters())
            (folder / "result.json").write_text(json.dumps(result))
            saved = AutoModelForDualHeadClassification.from_pretrained(folder / "saved")
            torch.save({key: value.detach() for key, value in saved.named_parameters()}, folder / "weights.pt")


def _without_targets(row):
    return {**row, "reasoning_targets": [-100] * len(row["input_ids"])}


if __name__ == "__main__":
    shard_on_cpu()
    main(*sys.argv[1:5], *map(int, sys.argv[5:7]))
