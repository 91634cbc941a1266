"""What a checkpoint was trained with, in numbers that are cheap to compare: digests of a model and of rows, and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..configuration_dhrd import DHRDConfig
from ..modeling_dhrd import find_dual_head
from ..version import __version__

_CONFIG = (
    *("classifier_head", "classifier_activation", "classifier_dropout", "alpha", "beta", "label_smoothing"),
    *("prompt_template", "suffix_template", "rationale_after_label", "max_input_length", "pad_token_id"),
)
_ADAPTER = (
    *("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora", "bias"),
    *("modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform"),
)
_OF_A_SESSION = ("name_or_path", "transformers_version", "dtype", "architectures", "use_cache", "quantization_config")
_SHOWN_LABELS = 20
_SAMPLES = 64  # values of a tensor that tell two models apart


def identity(model: nn.Module) -> list[str]:
    """The name of a model and a digest of the weights that its heads and adapters were added to."""
    dual_head = find_dual_head(model)
    adapter = getattr(getattr(model, "base_model", None), "prefix", None)
    digest = hashlib.blake2b(digest_size=8)
    wrapped = {name.replace(".base_layer.", "."): weight for name, weight in dual_head.named_parameters()}
    for name, weight in sorted(wrapped.items()):
        if name.startswith("score.") or ".modules_to_save." in name or (adapter and adapter in name):
            continue
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        # A tensor that is elsewhere, or in shares, is known by its shape alone.
        if weight.numel() and weight.device.type != "meta" and not hasattr(weight, "to_local"):
            flat = weight.detach().reshape(-1)
            digest.update(flat[:: max(1, flat.numel() // _SAMPLES)].float().cpu().numpy().tobytes())
    name = dual_head.name_or_path or dual_head.config.backbone_config.name_or_path
    return [Path(name).name if Path(name).exists() else name, digest.hexdigest()]


def run_readme(model: nn.Module) -> str:
    """What the folder of a run says of itself, in whose place PEFT would write a template to fill in."""
    config = find_dual_head(model).config
    base = config.backbone_config.name_or_path or config.name_or_path
    kind = "LoRA adapters and a classification head on" if hasattr(model, "peft_config") else "all weights, from"
    labels = ", ".join(f"`{name}`" for name in [*config.id2label.values()][:_SHOWN_LABELS])
    more = len(config.id2label) - _SHOWN_LABELS
    prompt = (config.prompt_template or "{text}").replace("\n", "\\n")
    return f"""# A dual-head classifier as it was trained

This folder is a run of [dhrd_hf](https://pypi.org/project/dhrd-hf/) {__version__}, with both heads: {kind} `{base}`.
It is for going on from. What is to be deployed is its export, a stock classifier with a model card of its own.

- labels: {labels}{f" and {more} more" if more > 0 else ""}
- input: `{prompt}`, at most {config.max_input_length} tokens
- weight of the reasoning loss: {config.alpha}, of the classification loss: {config.beta}

```bash
dhrd evaluate --model FOLDER --data TABLE
dhrd export --model FOLDER --output my-classifier
dhrd predict --model my-classifier --data TABLE --output predictions.jsonl
```
"""


def rows_digest(dataset: Any) -> dict[str, Any]:
    """Digests of encoded rows: of their inputs, their labels, and what follows the inputs; of others their number."""
    if not {"input_ids", "labels"} <= {*(getattr(dataset, "column_names", None) or ())} or not hasattr(
        dataset, "with_format"
    ):
        return {"training rows": len(dataset)} if hasattr(dataset, "__len__") else {}
    parts = {name: hashlib.blake2b(digest_size=8) for name in ("inputs", "labels", "rationales and answers")}
    for batch in dataset.with_format("arrow").iter(batch_size=1000):
        columns = {name: batch.column(name).combine_chunks() for name in batch.column_names}
        ids, lengths = _numbers(columns["input_ids"])
        of_x = lengths if "input_length" not in columns else _numbers(columns["input_length"])[0]
        place = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        in_x = place < np.repeat(of_x, lengths)
        targets = _numbers(columns["reasoning_targets"]) if "reasoning_targets" in columns else ()
        for part, numbers in zip(
            parts.values(),
            ((of_x, ids[in_x]), _numbers(columns["labels"]), (lengths, ids[~in_x], *targets)),
            strict=True,
        ):
            for it in numbers:
                part.update(it.astype(np.float64 if it.dtype.kind == "f" else np.int64).tobytes())
    return {"training rows": len(dataset)} | {
        f"digest of the rows' {name}": it.hexdigest() for name, it in parts.items()
    }


def _numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of an Arrow column, and how many each row has."""
    if not hasattr(column, "flatten") or not hasattr(column.type, "value_type"):
        return column.to_numpy(zero_copy_only=False), np.ones(len(column), dtype=np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), column.value_lengths().to_numpy(zero_copy_only=False)


def differing_settings(then: dict[str, Any], now: dict[str, Any], own_base: bool) -> Iterator[str]:
    for name in [it for it in then if it in now and it != "per_device_train_batch_size"]:
        before, after = then[name], now[name]
        if name in ("base model", "teacher") and before and after:  # by their weights: a folder may be renamed
            if before[1] != after[1] and not (own_base and name == "base model"):
                yield f"{name} was {before[0]} (weights {before[1]}), is {after[0]} (weights {after[1]})"
        elif before != after:
            yield f"{name} was {before}, is {after}"


def differing_files(checkpoint: Path, model: nn.Module) -> Iterator[str]:
    """What the configs of a checkpoint and its adapter have otherwise than a model."""
    adapters = getattr(model, "peft_config", {})
    saved = next(iter(sorted(checkpoint.glob("**/adapter_config.json"))), None)
    if (saved is not None) != bool(adapters):
        yield "it holds an adapter, and this run trains all weights" if saved else "it has no adapter, as this run has"
    elif saved is not None:
        then, now = json.loads(saved.read_text("utf-8")), next(iter(adapters.values())).to_dict()
        for name in _ADAPTER:
            before, after = _plain(then.get(name)), _plain(now.get(name))
            if name in then and before != after:
                yield f"{name} was {before}, is {after}"
    folder = next((it for it in (checkpoint, checkpoint.parent) if (it / "config.json").is_file()), None)
    if folder is None:
        return
    then, now = DHRDConfig.from_pretrained(folder), find_dual_head(model).config
    # A head that was never trained may not know its kind of labels yet.
    other_kind = None not in (then.problem_type, now.problem_type) and then.problem_type != now.problem_type
    if other_kind or then.id2label != now.id2label:
        yield " and ".join(
            f"its labels {when} {it.problem_type} of {', '.join(map(repr, it.id2label.values()))}"
            for when, it in (("were", then), ("are", now))
        )
    for name in _CONFIG:
        before, after = getattr(then, name), getattr(now, name)
        if None not in (before, after) and before != after:
            yield f"{name} was {before!r}, is {after!r}"
    if then.class_weights != now.class_weights:
        yield f"class_weights were {then.class_weights}, are {now.class_weights}"
    before, after = then.backbone_config.to_dict(), now.backbone_config.to_dict()
    for name in sorted(before.keys() & after.keys()):
        if not name.startswith("_") and name not in _OF_A_SESSION and _plain(before[name]) != _plain(after[name]):
            yield f"the language model's {name} was {before[name]}, is {after[name]}"


def _plain(value: Any) -> Any:
    value = sorted(value) if isinstance(value, (set, frozenset)) else getattr(value, "value", value)
    return sorted(value) if isinstance(value, list) and all(isinstance(it, str) for it in value) else value
