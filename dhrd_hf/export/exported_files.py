"""The files of an export that go to the Hub, checked to be whole, and safe to open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from ..configuration_dhrd import ADAPTER_CONFIG_FOLDER
from ..opening import check_finite
from .card_facts import CardFacts, hub_name

# Weights that run code when they are opened, or that are of another framework.
_NOT_SAFETENSORS = {".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".pickle", ".pkl", ".pt", ".pth"}
EVAL_RESULTS = ".eval_results"  # the one hidden folder that the Hub reads
_EXPORT = "Write one first: dhrd export --model RUN --output FOLDER"


def checked_files(folder: Path) -> dict[str, int]:
    """The files that a push uploads; hidden ones are not among them, but for the results that the Hub reads."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}. Name one that export_classifier (dhrd export) wrote.")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in paths
        if path.parent == folder / EVAL_RESULTS
        or not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    }
    if "adapter_config.json" in files:
        _check_adapter(folder, files)
    elif "config.json" in files:
        _check_dense(folder, files)
    else:
        raise ValueError(f"{folder} is not an export: it has no config.json and no adapter_config.json. {_EXPORT}")
    for name in files:
        suffix = Path(name).suffix.lower()
        if suffix in _NOT_SAFETENSORS and not (suffix == ".bin" and f"{name[:-4]}.xml" in files):  # OpenVINO's
            raise ValueError(
                f"{folder} holds {name}, which is not safetensors and may run code where it is opened. Remove it, or "
                "push the folder that export_classifier (dhrd export) wrote, which has none."
            )
    if "tokenizer_config.json" not in files:
        raise ValueError(f"{folder} has no tokenizer (tokenizer_config.json): texts could not be read. {_EXPORT}")
    return files


def _check_dense(folder: Path, files: dict[str, int]) -> None:
    config = _read_json(folder / "config.json")
    architecture = (
        str((config.get("architectures") or ["?"])[0]) if isinstance(config.get("architectures"), list) else "?"
    )
    if config.get("model_type") == "dhrd":
        if config.get("reasoning_head", True):
            raise ValueError(_training_checkpoint(folder))
        for module in {str(name).partition(".")[0] for name in (config.get("auto_map") or {}).values()}:
            if "--" not in module and f"{module}.py" not in files:
                raise ValueError(f"{folder} lacks {module}.py, the code that opens it: it is not whole. {_EXPORT}")
    elif not architecture.endswith("ForSequenceClassification"):
        raise ValueError(
            f"{folder} holds a {architecture} ({config.get('model_type')}), not a sequence classifier. {_EXPORT}"
        )
    if "model.safetensors" in files:
        shards = {"model.safetensors"}
    elif "model.safetensors.index.json" in files:
        shards = set(_read_json(folder / "model.safetensors.index.json").get("weight_map", {}).values())
    else:
        raise ValueError(f"{folder} has no weights in safetensors (model.safetensors). {_EXPORT}")
    for shard in sorted(shards):
        _check_safetensors(folder, shard, files)


def _check_adapter(folder: Path, files: dict[str, int]) -> None:
    config = _read_json(folder / "config.json") if "config.json" in files else {}
    if config.get("model_type") == "dhrd" and config.get("reasoning_head", True):
        raise ValueError(_training_checkpoint(folder))
    adapter = _read_json(folder / "adapter_config.json")
    if adapter.get("task_type") != "SEQ_CLS" or f"{ADAPTER_CONFIG_FOLDER}/config.json" not in files:
        raise ValueError(
            f"{folder} holds an adapter of task type {adapter.get('task_type')}, not the export of a classifier "
            f"(SEQ_CLS, with {ADAPTER_CONFIG_FOLDER}/config.json). {_EXPORT} --format adapter"
        )
    _check_safetensors(folder, "adapter_model.safetensors", files)
    base = adapter.get("base_model_name_or_path")
    try:
        validate_repo_id(base)
        on_the_hub = base is not None and not Path(base).exists()
    except HFValidationError:
        on_the_hub = False
    if not on_the_hub:
        raise ValueError(
            f"The adapter's base model is {base!r}, a folder here, which nobody else can open. Push the dense export "
            "(dhrd export --format dense), or write the base's name on the Hub into adapter_config.json and README.md."
        )


def _check_safetensors(folder: Path, name: str, files: dict[str, int]) -> None:
    if name not in files:
        raise ValueError(f"{folder} has no {name}: the export is not whole. {_EXPORT}")
    try:
        with safe_open(folder / name, framework="pt") as file:
            check_finite(((it, file.get_tensor(it)) for it in file.keys()), folder)  # noqa: SIM118 (it is no dictionary)
    except SafetensorError as error:
        raise ValueError(f"{folder / name} is not a whole safetensors file ({error}). {_EXPORT}") from error


def _training_checkpoint(folder: Path) -> str:
    return (
        f"{folder} is a dual-head training checkpoint, not the export of a classifier. Type: dhrd export --model "
        f"{folder} --output FOLDER, and push FOLDER (to share the checkpoint itself: model.push_to_hub)."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} should hold a JSON object, and holds a {type(found).__name__}.")
    return found


def write_eval_results(folder: Path, facts: CardFacts) -> None:
    """Write the results on a data set of the Hub in the form that its model page and leaderboards read."""
    where, _, split = (facts.eval_data or "").partition("@")
    where, _, name = where.partition(":")
    accuracy = (facts.results or {}).get("metrics", {}).get("accuracy")
    if accuracy is None or hub_name(where) is None or "/" not in where:
        return
    low, high = 100 * accuracy["low"], 100 * accuracy["high"]
    entry = EvalResultEntry(
        dataset_id=where,
        task_id=name or "default",
        value=round(100 * accuracy["value"], 2),
        notes=f"accuracy in %, 95% interval {low:.2f} to {high:.2f}, {facts.results['rows']} rows{f' of {split}' if split else ''}",
    )
    (folder / EVAL_RESULTS).mkdir(exist_ok=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
    (folder / EVAL_RESULTS / f"{where.replace('/', '--')}.yaml").write_text(text, encoding="utf-8")
