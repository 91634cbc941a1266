"""PEFT's adapters on a dual-head model, quantised or not: which can become a classifier, and how they are merged into it."""

from __future__ import annotations

import copy

import torch
from torch import nn

from .modeling_dhrd import DHRDForDualHeadClassification, find_dual_head


def check_no_prompt(config: object, what: str) -> None:
    """Raise where an adapter of this `PeftConfig` is a prompt in front of the input."""
    if config.is_prompt_learning:
        raise ValueError(
            f"{what} can't become a classifier: {config.peft_type.value} is a prompt in front of the input, so the token to "
            "classify by would be another one, and no export could hold it. Take adapters that change layers, such as LoRA "
            "(add_lora, dhrd train --lora)."
        )


def merged(model: nn.Module) -> nn.Module:
    """A `PeftModel`'s dual-head model with the adapters' weights added in, where its method can; the adapters are gone."""
    if not hasattr(model, "merge_and_unload"):
        return model
    _separate_tied(find_dual_head(model))
    return model.merge_and_unload()


def merged_copy(model: nn.Module) -> nn.Module:
    # An adapter that is tied to another keeps views of its parameters, which Python can't copy.
    views = [it for module in model.modules() for it in getattr(module, "kwargs", {}).get("tied_adapter", {}).values()]
    return merged(copy.deepcopy(model, {id(view): view.detach() for view in views}))


def _separate_tied(dual_head: DHRDForDualHeadClassification) -> None:
    """Give an LM head weights of its own, where adapters are on it or on the embeddings that it is tied to.

    Merged into the one tensor, the adapter of either would change the other as well, or both be added to it.
    """
    heads = (dual_head.get_input_embeddings(), dual_head.lm_head)
    if dual_head.lm_head is None or all(not hasattr(head, "active_adapters") for head in heads):
        return
    embeddings = {id(parameter) for parameter in heads[0].parameters()}
    for module in heads[1].modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in embeddings and parameter.ndim == 2 and name == "weight":
                own = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
                setattr(module, name, own)
                dual_head.config.tie_word_embeddings = False
    if not dual_head.config.tie_word_embeddings:
        dual_head._tied_weights_keys = {
            key: to for key, to in dual_head._tied_weights_keys.items() if not key.startswith("lm_head.")
        }
        dual_head.all_tied_weights_keys = dual_head.get_expanded_tied_weights_keys(all_submodels=True)


def is_quantised(model: nn.Module) -> bool:
    """Whether some weights of a model are not plain floating-point numbers, so that it can't be exported whole."""
    weights = (*model.parameters(), *model.buffers())
    return bool(getattr(model, "is_quantized", False)) or any(w.dtype in (torch.uint8, torch.int8) for w in weights)


def state_for_adapter(model: nn.Module) -> dict[str, torch.Tensor]:
    """What `state_dict` holds of a model's adapters, without asking the layers for their state."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
