"""Open exports as a stranger does: run by `examples/compatibility.py` in each tool's own environment, without dhrd_hf.

    python open.py TOOL EXPORTS.json     # prints one line of JSON for each export

An export is `{"name", "kind", "folder", "labels"}`; a line has its `logits`, or its `probabilities` where the tool gives no
logits, and `answers`, what the tool says of each text by default.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path


def of_pipeline(classify, texts, export):
    """The logits and the answers of transformers' text-classification pipeline."""
    raw = classify(texts, top_k=None, function_to_apply="none", truncation=True, batch_size=4)
    order = {name: index for index, name in enumerate(export["labels"])}
    logits = [[it["score"] for it in sorted(row, key=lambda it: order[it["label"]])] for row in raw]
    if export["kind"] == "multi label":
        rows = classify(texts, top_k=None, truncation=True, batch_size=4)
        answers = [sorted(it["label"] for it in row if it["score"] > 0.5) for row in rows]
    else:
        key = "score" if export["kind"] == "regression" else "label"
        answers = [it[key] for it in classify(texts, truncation=True, batch_size=4)]
    return {"logits": logits, "answers": answers}


def transformers(export, texts):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    trust = {"trust_remote_code": True} if export["kind"] == "mlp" else {}
    options = {**trust, **export.get("options", {})}
    model = AutoModelForSequenceClassification.from_pretrained(export["folder"], **options).eval()
    tokenizer = AutoTokenizer.from_pretrained(export["folder"], **trust)
    found = of_pipeline(pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu"), texts, export)
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        found["logits"] = model(**batch).logits.tolist()
    return found


def sentence_transformers(export, texts):
    import torch
    from sentence_transformers import CrossEncoder

    trust = {"trust_remote_code": True} if export["kind"] == "mlp" else {}
    model = CrossEncoder(export["folder"], device="cpu", **trust)
    pairs = [(text, "") for text in texts]  # it takes a list for pairs
    logits = model.predict(pairs, activation_fn=torch.nn.Identity()).reshape(len(texts), -1)
    by_default = model.predict(pairs)
    if export["kind"] == "regression":
        answers = by_default.reshape(-1).tolist()
    elif export["kind"] == "multi label":
        answers = [sorted(n for n, p in zip(export["labels"], row, strict=True) if p > 0.5) for row in by_default]
    else:
        answers = [export["labels"][row.argmax()] for row in by_default]
    return {"logits": logits.tolist(), "answers": answers}


def peft(export, texts):
    import torch
    from peft import AutoPeftModelForSequenceClassification, PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = export["folder"]
    config = AutoConfig.from_pretrained(folder, subfolder="config")
    name = json.loads(Path(folder, "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    base = AutoModelForSequenceClassification.from_pretrained(name, config=config)
    labels = {"id2label": config.id2label, "label2id": config.label2id}
    opened = [
        PeftModel.from_pretrained(base, folder).eval(),
        AutoPeftModelForSequenceClassification.from_pretrained(folder, **labels).eval(),
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        batches = [tokenizer([text], truncation=True, return_tensors="pt") for text in texts]
        logits, again = ([model(**batch).logits[0].tolist() for batch in batches] for model in opened)
    off = max(
        abs(one - other) for row, same in zip(logits, again, strict=True) for one, other in zip(row, same, strict=True)
    )
    if off > 1e-5:
        raise ValueError(f"AutoPeftModelForSequenceClassification differs from PeftModel by {off:.2g}")
    names = opened[1].base_model.model.config.id2label
    return {"logits": logits, "answers": [names[max(range(len(row)), key=row.__getitem__)] for row in logits]}


def optimum_onnx(export, texts):
    from optimum.onnxruntime import ORTModelForSequenceClassification

    return _optimum(ORTModelForSequenceClassification.from_pretrained(export["folder"]), export, texts)


def optimum_intel(export, texts):
    from optimum.intel import OVModelForSequenceClassification

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    return _optimum(OVModelForSequenceClassification.from_pretrained(export["folder"], ov_config=hint), export, texts)


def _optimum(model, export, texts):
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(export["folder"])
    return of_pipeline(pipeline("text-classification", model=model, tokenizer=tokenizer), texts, export)


def infinity(export, texts):
    from infinity_emb import AsyncEngineArray, EngineArgs

    async def classify():
        options = EngineArgs(
            model_name_or_path=export["folder"],
            engine="torch",
            device="cpu",
            dtype="float32",
            bettertransformer=False,
            model_warmup=False,
        )
        engine = AsyncEngineArray.from_args([options])[0]
        async with engine:
            return (await engine.classify(sentences=texts))[0]

    rows = asyncio.run(classify())
    order = {name: index for index, name in enumerate(export["labels"])}
    scores = [[it["score"] for it in sorted(row, key=lambda it: order[it["label"]])] for row in rows]
    if export["kind"] == "regression":
        return {"logits": scores, "answers": [row[0] for row in scores]}
    if export["kind"] == "multi label":
        answers = [sorted(it["label"] for it in row if it["score"] > 0.5) for row in rows]
    else:
        answers = [max(row, key=lambda it: it["score"])["label"] for row in rows]
    return {"probabilities": scores, "answers": answers}


def mlflow(export, texts):
    import mlflow
    from transformers import pipeline

    classify = pipeline("text-classification", export["folder"], device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        # Else it looks for what to install, PyTorch's vision among it.
        mlflow.transformers.save_model(classify, f"{folder}/model", pip_requirements=["transformers", "torch"])
        return of_pipeline(mlflow.transformers.load_model(f"{folder}/model"), texts, export)


def onnxruntime(export, texts):
    import numpy as np
    import onnxruntime as ort
    from tokenizers import Tokenizer

    folder = Path(export["folder"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(settings["model_max_length"]), direction=settings.get("truncation_side", "right"))
    session = ort.InferenceSession(str(folder / "model.onnx"))
    logits = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        logits.append(session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0].tolist())
    labels = export["labels"]
    return {"logits": logits, "answers": [labels[max(range(len(row)), key=row.__getitem__)] for row in logits]}


def main() -> None:
    tool, file = sys.argv[1:]
    given = json.loads(Path(file).read_text("utf-8"))
    for export in given["exports"]:
        try:
            found = globals()[tool](export, given["texts"][export["name"]])
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        print("RESULT " + json.dumps({"name": export["name"], **found}), flush=True)
    assert "dhrd_hf" not in sys.modules


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its own names are not packages
    main()
