"""The adapter format: a PEFT SEQ_CLS adapter, with its trained head, for the family's stock classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from ..adapters import check_no_prompt, state_for_adapter
from ..configuration_dhrd import ADAPTER_CONFIG_FOLDER, DHRDConfig
from ..families import stock_classifier
from ..modeling_dhrd import DHRDForDualHeadClassification
from .portable import widen_config


def write_adapter(
    model: nn.Module,
    dual_head: DHRDForDualHeadClassification,
    config: PreTrainedConfig,
    temperature: float,
    folder: Path,
) -> PreTrainedModel:
    """Write the adapter and its head under the stock classifier's names, and open what was written."""
    from peft import PeftModel, get_peft_model_state_dict

    peft_config = _checked(model, dual_head)
    base = _open_base(peft_config, dual_head, config)
    names = stock_classifier(dual_head.config.backbone_config).names()
    tensors = {
        f"base_model.model.{_renamed(name.removeprefix('base_model.model.'), names)}": tensor.detach()
        .contiguous()
        .cpu()
        for name, tensor in get_peft_model_state_dict(model, state_for_adapter(model), model.active_adapter).items()
        if not name.startswith("base_model.model.lm_head.")
    }
    head = [name for name in tensors if name.startswith(f"base_model.model.{names['score']}.")]
    if not head:
        raise ValueError(
            "The adapter has no classification head: it would be a random one wherever it is loaded. Train it with "
            "modules_to_save=['score'] (add_lora and dhrd train --lora do), or write format='dense'."
        )
    tensors |= {name: tensors[name] / temperature for name in head}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _stock_peft_config(model, peft_config, names).save_pretrained(folder)
    config.save_pretrained(folder / ADAPTER_CONFIG_FOLDER)
    widen_config(folder / ADAPTER_CONFIG_FOLDER)
    # Without it transformers would read the base model's config, whose labels are LABEL_0 and so on.
    dual_head.save_config(folder, reasoning_head=False)
    try:
        exported = PeftModel.from_pretrained(base, folder)
        # Where PEFT adapts a mixture's experts in another form than ours, it warns and leaves its own as they begin.
        own = [name for name in get_peft_model_state_dict(exported).keys() - tensors.keys() if ".lora_" in name]
        if own:
            raise ValueError(f"it would have {len(own)} weights that were not trained, such as {min(own)}.")
        return exported
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"PEFT can't put this adapter onto {type(base).__name__}: {_first_line(error)} Write "
            "format='dense', or train adapters on fewer layers, such as those of the attention (target_modules)."
        ) from error


def _checked(model: nn.Module, dual_head: DHRDForDualHeadClassification) -> Any:
    """The active adapter's config, filled in; an error where it can't become a stock one."""
    if dual_head.config.classifier_head != "linear":
        raise ValueError(
            f"The {dual_head.config.classifier_head!r} head has no stock classifier that an adapter could be loaded "
            "onto. Write format='dense', which carries its code, or train classifier_head='linear'."
        )
    if not hasattr(model, "peft_config"):
        raise ValueError(
            "format='adapter' wants a model with an adapter (dhrd train --lora, or peft.get_peft_model), and this one "
            "has none. Write format='dense'."
        )
    check_adapter(model)
    peft_config = copy.deepcopy(model.peft_config[model.active_adapter])
    if peft_config.base_model_name_or_path in (None, ""):
        peft_config.base_model_name_or_path = dual_head.config.name_or_path
    if peft_config.revision is None:
        peft_config.revision = dual_head.config.backbone_revision
    return peft_config


def check_adapter(model: nn.Module) -> None:
    if not hasattr(model, "active_adapter"):
        raise ValueError(
            "The model holds adapters and is no PeftModel: give the one that add_lora or peft.get_peft_model made of it "
            "(add_adapter makes none, and leaves the classification head out of the adapter)."
        )
    active = model.peft_config[model.active_adapter]
    check_no_prompt(active, "The adapter")


def _open_base(
    peft_config: Any, dual_head: DHRDForDualHeadClassification, config: PreTrainedConfig
) -> PreTrainedModel:
    name, revision = peft_config.base_model_name_or_path, peft_config.revision
    dense = "Write format='dense', which needs no base model."
    try:
        found = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The adapter's base model {name!r} can't be opened here: {_first_line(error)} {dense}"
        ) from error
    if isinstance(found, DHRDConfig):
        raise ValueError(
            f"The adapter was trained on {name}, a dual-head checkpoint, which opens nowhere without dhrd_hf. {dense}"
        )
    if found.get_text_config().vocab_size != config.get_text_config().vocab_size:
        raise ValueError(
            f"The base model {name} has {found.get_text_config().vocab_size} tokens, the trained one "
            f"{config.get_text_config().vocab_size}. {dense}"
        )
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            name,
            revision=revision,
            trust_remote_code=False,
            config=copy.deepcopy(config),
            dtype=config.dtype,
            attn_implementation=dual_head.model.config._attn_implementation,
            # As in training, or the logits would differ by what quantisation rounds.
            quantization_config=getattr(dual_head.config.backbone_config, "quantization_config", None),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The adapter's base model {name!r} can't be opened here: {_first_line(error)} {dense}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _stock_peft_config(model: nn.Module, peft_config: Any, names: Mapping[str, str]) -> Any:
    """The adapter's config with the stock classifier's module names."""
    peft_config.task_type = "SEQ_CLS"
    peft_config.inference_mode = True
    # PEFT adds both of its names for a head to every SEQ_CLS adapter; the stock classifier has one of them.
    others = {*(peft_config.modules_to_save or ())} - {"score", "classifier", "lm_head"}
    peft_config.modules_to_save = sorted({names["score"], *(_renamed(name, names) for name in others)})
    targets = getattr(peft_config, "target_modules", None)
    if targets is None or isinstance(targets, str):
        peft_config.target_modules = model.base_model.targeted_module_names
    for name in ("target_modules", "exclude_modules", "feedforward_modules"):
        value = getattr(peft_config, name, None)
        if isinstance(value, (list, set)):
            setattr(peft_config, name, sorted(_renamed(it, names) for it in value if it != "lm_head"))
    tokens = getattr(peft_config, "trainable_token_indices", None)
    if isinstance(tokens, dict):
        peft_config.trainable_token_indices = {_renamed(it, names): tokens[it] for it in tokens if it != "lm_head"}
    if getattr(peft_config, "ensure_weight_tying", False):
        peft_config.ensure_weight_tying = False  # the stock classifier has no LM head to tie
    for name in ("rank_pattern", "alpha_pattern"):
        if getattr(peft_config, name, None):
            setattr(
                peft_config, name, {_renamed(key, names): value for key, value in getattr(peft_config, name).items()}
            )
    return peft_config


def _renamed(name: str, names: Mapping[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return f"{names.get(first, first)}{dot}{rest}"
