"""LoRA as the paper sets it, on a dual-head model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..modeling_dhrd import DHRDForDualHeadClassification

if TYPE_CHECKING:
    from peft import PeftModel


def add_lora(
    model: DHRDForDualHeadClassification,
    r: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.1,
    target_modules: str | list[str] = "all-linear",
) -> PeftModel:
    """Wrap a dual-head model in LoRA adapters; the classification head is trained in full, the LM head not at all.

    Example:

    ```python
    >>> from dhrd_hf.training import add_lora
    >>> model = add_lora(model)  # doctest: +SKIP

    ```

    Args:
        model ([`DHRDForDualHeadClassification`]): The model.
        r (`int`, *optional*, defaults to 16): Rank of the adapters.
        lora_alpha (`int`, *optional*, defaults to 32): Their scale is `lora_alpha / r`.
        lora_dropout (`float`, *optional*, defaults to 0.1): Dropout before them.
        target_modules (`str` or `list[str]`, *optional*, defaults to `"all-linear"`): The layers that get one. The
            default is every linear layer of the backbone: the paper's q, k, v, o, up, down and gate projections.

    Returns:
        `PeftModel`: task type SEQ_CLS, so it loads onto the stock classifier as well.

    Source: Xu et al. 2025, arXiv 2509.21487, appendix E.4.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=target_modules,
        bias="none",
        modules_to_save=["score"],
    )
    return get_peft_model(model, config)
