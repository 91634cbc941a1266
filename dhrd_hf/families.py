"""What transformers has for a model family: a causal LM, and the stock sequence classifier that an export becomes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

_HINT = "Take a decoder-only language model, such as Qwen/Qwen3-0.6B or HuggingFaceTB/SmolLM2-135M."
_MLP_HINT = 'classifier_head="mlp" needs none: its export carries its own code.'


@dataclass(frozen=True)
class StockClassifier:
    """The sequence classifier that transformers has for a family, with the names of its backbone and of its head."""

    model_class: type[PreTrainedModel]
    backbone: str
    head: str

    def names(self) -> dict[str, str]:
        """How `model` and `score` of a dual-head model are called in this class; the LM head has no counterpart."""
        return {"model": self.backbone, "score": self.head}


def stock_classifier(config: PreTrainedConfig) -> StockClassifier:
    """The stock sequence classifier of a family, found by looking at an instance without weights; a ValueError if there is none."""
    kind = config.model_type
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{kind} has no sequence classifier in transformers, so it could not be exported as a stock one. {_MLP_HINT}"
        )
    model_class = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with torch.device("meta"):
        stock = model_class(config)
    backbone = stock.base_model_prefix
    heads = {name: child for name, child in stock.named_children() if name != backbone}
    plain = [name for name, child in heads.items() if type(child) is nn.Linear and child.bias is None]
    if len(heads) != 1 or len(plain) != 1:
        encoder = getattr(config, "is_decoder", None) is False
        raise ValueError(
            f"{kind} is an encoder: its tokens see what comes after them, so the label would leak. {_HINT}"
            if encoder
            else f"{kind}: the head of {model_class.__name__} is not one linear layer on the pooled token (it has "
            f"{', '.join(heads)}), so a trained `score` could not be exported to it. {_HINT}"
        )
    return StockClassifier(model_class, backbone, plain[0])


def check_decoder(config: PreTrainedConfig, classifier_head: str = "linear") -> None:
    """Raise where a model is not a decoder-only causal LM, or the head that it is to get could not be exported."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{kind} is an encoder-decoder (seq2seq) model: it has no single pass over input and rationale. {_HINT}"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{kind} has no causal language model in transformers, so it has no reasoning head. {_HINT}")
    if classifier_head == "linear" or type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        stock_classifier(config)
    elif getattr(config, "is_decoder", None) is False:
        raise ValueError(f"{kind} is not a decoder (its config says is_decoder=False). {_HINT}")
