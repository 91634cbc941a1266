"""Whether a model keeps the rows of a padding-free batch apart."""

from __future__ import annotations

import torch
from torch import nn

from ..modeling_dhrd import find_dual_head, logits_tolerance


@torch.no_grad()
def check_padding_free(model: nn.Module) -> None:
    """Raise where a model's states of a padding-free batch are not those of its rows alone.

    Whether they are depends on the family and on its attention implementation: ALiBi, recurrent layers and code that
    does not look at `position_ids` mix the rows. So it is tried, on two short rows.

    Example:

    ```python
    >>> from dhrd_hf.training import check_padding_free
    >>> check_padding_free(model)  # doctest: +SKIP

    ```

    Args:
        model ([`DHRDForDualHeadClassification`], or a wrapper around one): The model, where it will run. In mixed
            precision call this under `autocast`, as it will run.

    Raises:
        ValueError: if the rows are mixed, or the family does not take a padding-free batch.
    """
    dual_head = find_dual_head(model)
    backbone, device = dual_head.model, dual_head.get_input_embeddings().weight.device
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, dual_head.config.vocab_size, (1, n), generator=generator) for n in (6, 9))
    bounds = torch.tensor([0, 6, 15], dtype=torch.int32, device=device)
    flat = {
        "input_ids": torch.cat([first, second], dim=1).to(device),
        "position_ids": torch.cat([torch.arange(6), torch.arange(9)])[None].to(device),
        **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), bounds),
        **dict.fromkeys(("max_length_q", "max_length_k"), 9),
    }
    was_training = dual_head.training
    dual_head.eval()
    try:
        rows = [backbone(row.to(device), use_cache=False).last_hidden_state for row in (first, second)]
        alone, together = torch.cat(rows, 1), backbone(**flat, use_cache=False).last_hidden_state
        mixed = torch.is_autocast_enabled(device.type)
        off = (together - alone).abs().max().item() / max(1.0, alone.abs().max().item())
        allowed = logits_tolerance(torch.bfloat16 if mixed else alone.dtype)
        reason = None if off <= allowed else f"its states change by {off:.2g} of the largest, {allowed:.2g} allowed"
    except (TypeError, RuntimeError) as error:  # an argument or a dtype that its code does not take
        reason = str(error).strip().splitlines()[0]
    finally:
        dual_head.train(was_training)
    if reason is not None:
        attention = backbone.config._attn_implementation
        raise ValueError(
            f"{backbone.config.model_type} with {attention} attention does not keep the rows of a padding-free batch "
            f"apart ({reason}). Use DualHeadCollator(padding_free=False) with "
            "train_sampling_strategy='group_by_length', or another attn_implementation."
        )
