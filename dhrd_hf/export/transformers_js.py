"""The layout in which transformers.js opens an ONNX export, in Node and in browsers."""

from __future__ import annotations

import json
from pathlib import Path

LAYOUT = "transformers.js"

# It has no decoder among its sequence classifiers. This one hands ids and mask to the graph and takes its logits.
_CLASS = ("distilbert", "DistilBertForSequenceClassification")
_KEPT = ("id2label", "label2id", "problem_type", "pad_token_id", "prompt_template", "label_thresholds", "vocab_size")
_NO_LIMIT = 1_000_000_000  # of positions, where the model has none; without a number it would be that class's 512
# What one protobuf message may hold; larger weights lie beside the graph.
_ONE_FILE = 2_000_000_000


def rearrange(folder: Path, quantised: Path, manifest: str) -> None:
    """Turn a whole float32 ONNX export, with an int8 one of the same classifier, into that layout."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    beside = {
        f"{name}.onnx": 1
        for name, source in (("model", folder), ("model_quantized", quantised))
        if _write(source / "model.onnx", folder / "onnx" / f"{name}.onnx")
    }
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).unlink(missing_ok=True)
    (folder / "onnx" / "model.onnx.data").touch()  # transformers' runner asks for it, also where it would hold nothing
    positions = config.get("max_position_embeddings", _NO_LIMIT)
    config = {name: config[name] for name in _KEPT if name in config}
    config |= {"model_type": _CLASS[0], "architectures": [_CLASS[1]], "max_position_embeddings": positions}
    if beside:
        config["transformers.js_config"] = {"use_external_data_format": beside}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    entries = json.loads((folder / manifest).read_text("utf-8"))
    entries["components"]["model"]["file"] = "onnx/model.onnx"
    (folder / manifest).write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


def _write(source: Path, target: Path) -> bool:
    """Write a graph with its weights; whether they lie beside it."""
    import onnx

    target.parent.mkdir(exist_ok=True)
    data = source.with_name(f"{source.name}.data")
    beside = data.is_file() and data.stat().st_size + source.stat().st_size > _ONE_FILE
    graph = onnx.load(source)
    if beside:
        onnx.save_model(graph, target, save_as_external_data=True, location=f"{target.name}_data")
    else:
        onnx.save_model(graph, target)
    return beside
