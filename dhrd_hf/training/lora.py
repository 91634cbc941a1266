"""LoRA as the paper sets it, on a dual-head model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from ..modeling_dhrd import DHRDForDualHeadClassification
from ..opening import evaluating

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.get_logger(__name__)


def add_lora(
    model: DHRDForDualHeadClassification,
    r: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.0,
    target_modules: str | list[str] = "all-linear",
    use_dora: bool = False,
    use_rslora: bool = False,
) -> PeftModel:
    """Wrap a dual-head model in LoRA adapters; the classification head is trained in full, the LM head not at all.

    Any other method of PEFT that changes layers (LoHa, LoKr, IA3, OFT, ...) works through `peft.get_peft_model` with
    `task_type="SEQ_CLS"` and `modules_to_save=["score"]`.

    Example:

    ```python
    >>> from dhrd_hf.training import add_lora
    >>> model = add_lora(model)

    ```

    Args:
        model ([`DHRDForDualHeadClassification`]): The model.
        r (`int`, *optional*, defaults to 16): Rank of the adapters.
        lora_alpha (`int`, *optional*, defaults to 32): Their scale is `lora_alpha / r`.
        lora_dropout (`float`, *optional*, defaults to 0.0): Dropout before them; the paper took 0.1.
        target_modules (`str` or `list[str]`, *optional*, defaults to `"all-linear"`): The layers that get one. The
            default is every linear layer of the backbone: the paper's q, k, v, o, up, down and gate projections. Layers
            that the family does not call as layers (it reads Mamba's `dt_proj` as a matrix, a router returns more than a
            tensor) are left out, and a warning names them: an adapter there would do nothing until it is merged.
        use_dora (`bool`, *optional*, defaults to `False`): Weight-decomposed LoRA (DoRA, arXiv 2402.09353).
        use_rslora (`bool`, *optional*, defaults to `False`): Scale by `lora_alpha / sqrt(r)` (rsLoRA, arXiv 2312.03732).

    Returns:
        `PeftModel`: task type SEQ_CLS, so it loads onto the stock classifier as well.

    Source: Zhou et al. 2025, arXiv 2509.21487, appendix E.4.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    left_out = _not_called_as_layers(model)
    if left_out:
        logger.warning(
            f"No adapters on {len(left_out)} linear layers that {model.model.config.model_type} does not call as layers: "
            f"{', '.join(left_out[:4])}{', ...' if len(left_out) > 4 else ''}."
        )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=target_modules,
        bias="none",
        modules_to_save=["score"],
        exclude_modules=left_out or None,
        use_dora=use_dora,
        use_rslora=use_rslora,
        revision=model.config.backbone_revision,
    )
    return get_peft_model(model, config)


@torch.no_grad()
def _not_called_as_layers(model: DHRDForDualHeadClassification) -> list[str]:
    """Linear layers that did not run as layers although the module they are in ran, seen in one forward pass."""
    ran: set[str] = set()
    odd: set[str] = set()

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            ran.add(name)
            if not isinstance(output, torch.Tensor):
                odd.add(name)

        return hook

    modules = dict(model.model.named_modules())
    linear = [name for name, module in modules.items() if isinstance(module, (nn.Linear, Conv1D))]
    watched = {*linear, *(name.rpartition(".")[0] for name in linear)}
    hooks = [modules[name].register_forward_hook(watch(name)) for name in watched]
    try:
        with evaluating(model):
            model(torch.zeros(1, 2, dtype=torch.long, device=model.get_input_embeddings().weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    bypassed = {name for name in linear if name not in ran and name.rpartition(".")[0] in ran}
    return [f"model.{name}" for name in linear if name in bypassed | odd]
