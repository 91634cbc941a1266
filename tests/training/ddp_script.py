"""Train a saved dual-head model on saved rows; run by test_distributed.py, alone and under torchrun."""

import json
import sys

from datasets import load_from_disk
from transformers import AutoTokenizer

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadTrainer, DualHeadTrainingArguments

folder, batch_size, output = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tokenizer = AutoTokenizer.from_pretrained(f"{folder}/model")
rows = load_from_disk(f"{folder}/rows")
trainer = DualHeadTrainer(
    model=AutoModelForDualHeadClassification.from_pretrained(f"{folder}/model"),
    args=DualHeadTrainingArguments(
        output_dir=output,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=5,
        gradient_accumulation_steps=2,
        max_steps=3,
        optim="sgd",
        learning_rate=0.05,
        lr_scheduler_type="constant",
        warmup_steps=0,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=rows,
    eval_dataset=rows.select(range(23)),
    data_collator=DualHeadCollator(tokenizer),
    processing_class=tokenizer,
)
trainer.train()
metrics = trainer.evaluate()
trainer.save_model(output)
if trainer.is_world_process_zero():
    with open(f"{output}/log.json", "w") as file:
        json.dump({"log": trainer.state.log_history, "metrics": metrics}, file)
