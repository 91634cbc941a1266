"""The reasoning head: the family's own causal LM, over hidden states that are already there.

It is not re-implemented. The family's causal-LM class maps hidden states to vocabulary logits: its `forward` runs over a
stand-in backbone that returns what an earlier forward pass gave. So scaled, capped or biased logits come out as that
family makes them, and only at the positions that are asked for.

This file can be shipped with a checkpoint as its remote code, so it imports nothing of this package but files that are shipped with it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .losses import IGNORE_INDEX


class _StandIn(nn.Module):
    """A backbone that returns what an earlier forward pass gave."""

    def __init__(self, outputs: ModelOutput):
        super().__init__()
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        return self.outputs

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        return self  # some causal LMs call a part of their backbone: OPT's calls `model.decoder`


class ReasoningHeadMixin:
    """What the reasoning head gives to a dual-head model: its logits, its family's other loss, generation.

    The weights are the model's own modules, `model` and `lm_head`; of the family's causal LM only the rest is kept.
    """

    def _keep_family(self, causal_lm: PreTrainedModel) -> dict[str, str]:
        """Keep what a causal LM is besides its modules; how its children's names become those of this model."""
        backbone_name, head_name = _parts(causal_lm)
        shell = copy.copy(causal_lm)
        shell._modules = {}
        self._causal_lm = (shell, backbone_name, head_name)  # in a tuple, so that it is not registered as a submodule
        self._head_is_linear: bool | None = None
        return {backbone_name: "model", head_name: "lm_head"}

    def as_causal_lm(self) -> PreTrainedModel:
        """The family's own causal LM over this model's backbone and LM head; nothing is copied."""
        return self._family(self.model)

    def _family(self, backbone: nn.Module) -> PreTrainedModel:
        if self.lm_head is None:
            raise ValueError(
                "This is an exported classifier: it has no reasoning head. Open the dual-head checkpoint it came from."
            )
        shell, backbone_name, head_name = self._causal_lm
        view = copy.copy(shell)
        view._modules = {backbone_name: backbone, head_name: self.lm_head}
        view.config = self.config.backbone_config
        view.generation_config = self.generation_config
        view.training = self.training
        if hasattr(view, "vocab_size"):  # families with experts keep it for their loss; the embeddings may have grown
            view.vocab_size = self.config.vocab_size
        return view

    def reasoning_logits(self, hidden: Tensor, outputs: ModelOutput) -> Tensor:
        """Vocabulary logits `[..., V]` as the family's causal LM makes them from last hidden states `[..., H]` of these outputs."""
        routed = outputs.get("router_logits") is not None
        logits = self._head_forward(hidden, outputs, **({"output_router_logits": False} if routed else {})).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])

    def auxiliary_loss(self, outputs: ModelOutput, attention_mask: Tensor | None = None) -> Tensor | None:
        """What the family's causal LM adds to its token loss, weighted: the load balancing of a mixture of experts, if it is asked for.

        Found without a list of families: it is the family's own loss where no position has a target.
        """
        if outputs.get("router_logits") is None:
            return None
        hidden = outputs.last_hidden_state[:1, :1]
        no_target = torch.full((1, 1), IGNORE_INDEX, device=hidden.device)
        mask = {"attention_mask": attention_mask, "labels": no_target, "num_items_in_batch": 1}
        return self._head_forward(hidden, outputs, **mask).loss

    def _head_forward(self, hidden: Tensor, outputs: ModelOutput, **kwargs: Any) -> ModelOutput:
        """The family's causal LM over hidden states that are already there."""
        replaced = {**outputs, "last_hidden_state": hidden.reshape(1, -1, hidden.shape[-1])}
        lm = self._family(_StandIn(type(outputs)(**replaced)))
        # The class's own forward: hooks that a dispatcher put on the instance belong to the whole model.
        return type(lm).forward(lm, use_cache=False, return_dict=True, **kwargs)

    def _linear_head(self, outputs: ModelOutput) -> nn.Linear | None:
        """The LM head, where the family's logits are nothing but its product: found by comparing the two."""
        head = self.lm_head
        if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter:  # another kind of tensor is sharded
            return None
        if self._head_is_linear is None:
            with torch.no_grad():
                # Large logits, since a soft cap is the identity on small ones; deterministic, to leave the RNG alone.
                hidden = head.weight[:4].detach().clone()
                hidden = hidden * (1e3 / head(hidden).abs().amax().clamp(min=1e-6))
                expected, found = head(hidden), self.reasoning_logits(hidden, outputs)
                self._head_is_linear = expected.shape == found.shape and torch.allclose(expected, found, rtol=1e-2)
        return head if self._head_is_linear else None

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate text with the reasoning head: how one reads what the model has learned to reason."""
        return self.as_causal_lm().generate(*args, **kwargs)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The family's own, for whoever wraps a causal LM, such as PEFT's task type CAUSAL_LM."""
        return self.as_causal_lm().prepare_inputs_for_generation(*args, **kwargs)

    @classmethod
    def can_generate(cls) -> bool:
        """Whether `generate` works: always, through the LM head."""
        return True


def _parts(causal_lm: PreTrainedModel) -> tuple[str, str]:
    """Names of the backbone and of the output layer among the children of a causal LM, which has no others."""
    backbone_name = causal_lm.base_model_prefix
    head = causal_lm.get_output_embeddings()
    children = dict(causal_lm.named_children())
    head_name = next((name for name, child in children.items() if child is head), None)
    others = sorted(set(children) - {backbone_name, head_name}) + [
        name for name, _ in (*causal_lm.named_parameters(recurse=False), *causal_lm.named_buffers(recurse=False))
    ]
    if head_name is None or backbone_name not in children or others:
        raise ValueError(
            f"{type(causal_lm).__name__} ({causal_lm.config.model_type}) is not a backbone and an output layer: it has "
            f"{', '.join(children)}. Only decoder-only language models of that form can carry two heads."
        )
    return backbone_name, head_name
