"""What other tools read elsewhere than transformers 5 writes it: version 4, CrossEncoder and what is built on them; and a
head that no stock decoder has, which carries its own modelling code."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..modeling_dhrd import DHRDForDualHeadClassification, DHRDForSequenceClassification

# Of these version 4 (4.57) has no sequence classifier; examples/compatibility.py opens one of every other family there.
NOT_IN_VERSION_4 = (
    "axk1",
    "axk2",
    "cohere_compass_text",
    "minicpm3",
    "ministral3",
    "olmo",
    "olmo2",
    "olmo3",
    "qwen3_5_text",
)
_PRETRAINED_LENGTH = "original_max_position_embeddings"
_ACTIVATIONS = {
    "regression": "torch.nn.modules.linear.Identity",
    "multi_label_classification": "torch.nn.modules.activation.Sigmoid",
}


def widen_config(folder: Path) -> None:
    """Add to config.json the names by which others read what is in it, with the same values."""
    path = folder / "config.json"
    values = _widened(json.loads(path.read_text("utf-8")))
    problem = values.get("problem_type") or ("regression" if len(values.get("id2label") or (0, 1)) == 1 else None)
    if (activation := _ACTIVATIONS.get(problem)) is not None:
        # CrossEncoder would go by the number of labels.
        values["sentence_transformers"] = {"activation_fn": activation}
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a classifier's tokenizer under names that version 4 knows, without a chat template.

    CrossEncoder would put every text into a chat template that lies in the folder.
    """
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text("utf-8"))
    values.pop("chat_template", None)
    if tokenizer.is_fast:
        # tokenizer.json as it is: the classes of a family build their own from its vocabulary, each version another.
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
        values["model_input_names"] = list(tokenizer.model_input_names)  # version 4's own default has token_type_ids
    if isinstance(values.get("extra_special_tokens"), list):
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _widened(values: dict[str, Any]) -> dict[str, Any]:
    values = {name: _widened(it) if isinstance(it, dict) else it for name, it in values.items()}
    config_class = CONFIG_MAPPING[values["model_type"]] if values.get("model_type") in CONFIG_MAPPING else None
    if config_class is None:
        return values
    more = _rope_of_version_4(config_class, values)
    if "layers_block_type" in values:
        named = {"linear_attention": "mamba"}
        values["layers_block_type"] = [named.get(it, it) for it in values["layers_block_type"]]
    if "dtype" in values:
        more["torch_dtype"] = values["dtype"]
    # A name that is an alias in version 5 may be the field itself in version 4.
    for alias, name in config_class.attribute_map.items():
        if name in values:
            more[alias] = values[name]
    return {**more, **values}


def _rope_of_version_4(config_class: type[PreTrainedConfig], values: dict[str, Any]) -> dict[str, Any]:
    """Version 4's fields for `rope_parameters`, as far as the family has them: what version 5 reads of old configs."""
    rope = values.get("rope_parameters")
    if not rope:
        return {}
    full, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    theta, share = full.get("rope_theta"), full.get("partial_rotary_factor")
    found = {
        "rope_theta": theta,
        "rotary_emb_base": theta,
        "global_rope_theta": theta,
        "rope_local_base_freq": local.get("rope_theta"),
        "local_rope_theta": local.get("rope_theta"),
        "partial_rotary_factor": share,
        "rotary_pct": share,
    }
    found = {name: value for name, value in found.items() if value is not None}
    kind = full.get("rope_type", "default")
    if kind != "default":
        elsewhere = {"rope_theta", "partial_rotary_factor", "rope_type", "type"}
        if hasattr(config_class, _PRETRAINED_LENGTH):  # a field of its own, which version 4 does not take here as well
            elsewhere.add(_PRETRAINED_LENGTH)
        found["rope_scaling"] = {name: value for name, value in full.items() if name not in elsewhere}
        found["rope_scaling"]["type" if kind == "longrope" else "rope_type"] = kind
    rest = {name: value for name, value in values.items() if name not in ("rope_parameters", *found)}

    def read(**changes: Any) -> Any:
        try:
            return config_class.from_dict(copy.deepcopy({**rest, **found, **changes})).rope_parameters
        except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
            return error  # a value that the family checks is one that it reads

    as_it_is = read()
    numbers = [name for name, value in found.items() if isinstance(value, float | int)]
    unread = {name for name in numbers if read(**{name: found[name] / 2}) == as_it_is}
    return {name: value for name, value in found.items() if name not in unread}


def write_with_code(
    dual_head: DHRDForDualHeadClassification,
    pad_token_id: int,
    temperature: float,
    max_shard_size: int | str,
    folder: Path,
) -> PreTrainedModel:
    """Write the model without its reasoning head, with the code that opens it, and open what was written."""
    config = copy.deepcopy(dual_head.config)
    config.reasoning_head = False
    config.pad_token_id = pad_token_id
    config.dtype = next(dual_head.score.parameters()).dtype
    with torch.device("meta"):
        classifier = DHRDForSequenceClassification(config)
    tensors = {name: tensor for name, tensor in dual_head.state_dict().items() if not name.startswith("lm_head.")}
    for name in ("score.out_proj.weight", "score.out_proj.bias"):
        tensors[name] = tensors[name] / temperature
    classifier.load_state_dict(tensors, strict=True, assign=True)
    classifier.save_pretrained(folder, max_shard_size=max_shard_size)
    widen_config(folder)
    return DHRDForSequenceClassification.from_pretrained(
        folder, dtype=config.dtype, attn_implementation=dual_head.model.config._attn_implementation
    )
