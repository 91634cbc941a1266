r"""Throughput of one classifier on torch, ONNX Runtime and OpenVINO, in float32 and int8, and in transformers' pipeline.

    python examples/benchmarks/engines.py runs/esnli/classifier-alpha-1 ../shared/data/esnli/validation.jsonl.gz

The exports are written into `--work`, in a folder of the classifier's name and contents (kept, so a second run is quick), and
need the extras `onnx` and `openvino`. All engines have torch's number of threads, and take turns on the same texts. A text goes
through `dhrd_hf.evaluation.predict_table`, or through the pipeline in batches of `--batch-size`, tokenisation included. Accuracy
is on the timed rows.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from paired import paired, ratio, report
from transformers import pipeline

from dhrd_hf.data.prompts import render_rows
from dhrd_hf.data.tables import load_table
from dhrd_hf.evaluation import load_classifier, predict_table
from dhrd_hf.export import EngineClassifier, export_engine

VARIANTS = [(engine, int8) for engine in ("onnx", "openvino") for int8 in (False, True)]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", help="folder of a dense export")
    parser.add_argument("table", help="table with the columns text and label")
    parser.add_argument("--rows", type=int, default=600, help="rows to time and to measure accuracy on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="of the pipeline")
    parser.add_argument("--work", type=Path, default=Path("runs/engines"), help="folder for the exports")
    parser.add_argument("--output", type=Path, help="JSON Lines file to add the results to")
    args = parser.parse_args()

    opened = {"torch": load_classifier(args.classifier, device="cpu")}
    sizes = {"torch": _megabytes(Path(args.classifier))}
    for engine, int8 in VARIANTS:
        name = f"{engine} {'int8' if int8 else 'float32'}"
        folder = exports_of(args.classifier, args.work) / name.replace(" ", "-")
        if not folder.exists():
            off = export_engine(args.classifier, folder, engine, int8=int8)
            print(f"{name}: logits within {off:.2g} of torch's on random inputs")
        opened[name] = EngineClassifier.from_pretrained(folder, torch.get_num_threads()), opened["torch"][1]
        sizes[name] = _megabytes(folder)

    data = load_table(args.table)
    rows = data.select(range(min(args.rows, len(data))))
    prompt = getattr(opened["torch"][0].config, "prompt_template", None) or "{text}"
    labels = predict_table(*opened["torch"], rows, prompt).labels
    model, tokenizer = opened["torch"]
    texts, stock = list(render_rows(prompt, rows)), pipeline("text-classification", model=model, tokenizer=tokenizer)
    sizes["pipeline"] = sizes["torch"]
    found = {}

    def classify(name: str) -> callable:
        def run() -> None:
            found[name] = predict_table(*opened[name], rows, prompt).logits.argmax(-1)

        return run

    def through_pipeline() -> None:
        said = stock(texts, batch_size=args.batch_size, truncation=True)
        found["pipeline"] = np.array([stock.model.config.label2id[it["label"]] for it in said])

    times = paired({name: classify(name) for name in opened} | {"pipeline": through_pipeline}, rounds=args.rounds)
    figures = []
    for name in times:
        accuracy, same = np.mean(found[name] == labels), np.mean(found[name] == found["torch"])
        median, low, high = ratio(times, "torch", name)
        figures.append(
            (
                name,
                f"{median:.2f} x torch ({low:.2f} to {high:.2f}), accuracy {accuracy:.4f}, "
                f"{same:.1%} of the labels, {sizes[name]:.0f} MB",
            )
        )
    report(
        f"Engines on {len(rows)} rows of {args.table}",
        f"python examples/benchmarks/engines.py {args.classifier} {args.table} --rounds {args.rounds} "
        f"--batch-size {args.batch_size}",
        figures,
        args.output,
    )


def exports_of(classifier: str, work: Path) -> Path:
    """The folder for a classifier's exports: another one's, or an older one of the same name, have another folder.

    Args:
        classifier: folder of a dense export.
        work: folder for all exports.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(classifier).iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return work / f"{Path(classifier).resolve().name}-{digest.hexdigest()[:8]}"


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir() if "model" in path.name) / 1e6


if __name__ == "__main__":
    main()
