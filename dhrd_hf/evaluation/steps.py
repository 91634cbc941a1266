"""A training step on one batch, in the ways that `compare_steps` compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase
from transformers.utils import logging

from ..auto import AutoModelForDualHeadClassification
from ..data import DualHeadCollator, input_only
from ..device import put_on

WAYS = {
    "causal_lm": "the plain causal LM on x with its rationale",
    "ours": "one forward pass over x with its rationale, both heads",
    "two_pass": "a pass over x for the label, another over x with its rationale for the tokens",
    "classifier": "the stock classifier on x alone",
}
# Small enough for the weights to stay where they are; the step costs the same.
_LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class StepSetup:
    """What the steps have in common."""

    model: str
    num_labels: int
    pad_token_id: int
    lora: bool = False
    device: str | None = None
    dtype: str = "float32"

    @property
    def torch_device(self) -> torch.device:
        """Where the models are; a `ValueError` where torch has no such kind of device."""
        if self.device is not None:
            try:
                return torch.device(self.device)
            except RuntimeError as error:
                raise ValueError(f"device {self.device!r} is not one of torch's: say cpu, cuda or cuda:1.") from error
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


class Step:
    """Steps of training on batches: forward, backward, clipping and AdamW."""

    def __init__(self, way: str, setup: StepSetup, shared: Step | None = None):
        self.way, self.device = way, setup.torch_device
        if shared is not None:
            self.model, self.optimizer = shared.model, shared.optimizer
            return
        opened = _opened(way, setup)
        opened.config.get_text_config().pad_token_id = setup.pad_token_id
        self.model = put_on(_with_lora(opened, way) if setup.lora else opened, self.device).train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=_LEARNING_RATE, weight_decay=0.01)

    def losses(self, batch: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Tensor]:
        """The loss of each pass over a batch, which runs when it is asked for."""
        x, s, labels = (
            {name: it.to(self.device) for name, it in batch[part].items()} for part in ("x", "s", "labels")
        )
        inputs = {name: s[name] for name in ("input_ids", "attention_mask")}
        if self.way == "ours":
            yield self.model(**s, **labels).loss
        elif self.way == "causal_lm":
            yield self.model(**inputs, labels=s["reasoning_targets"], use_cache=False).loss
        elif self.way == "classifier":
            yield self.model(**x, **labels, use_cache=False).loss
        else:
            yield self.model(**x, **labels).loss
            yield self.model(**inputs, reasoning_targets=s["reasoning_targets"]).loss

    def backward(self, batch: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Add a batch's gradients, of one pass after the other."""
        for loss in self.losses(batch):
            loss.backward()

    def __call__(self, batch: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.backward(batch)
        torch.nn.utils.clip_grad_norm_([it for group in self.optimizer.param_groups for it in group["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def _opened(way: str, setup: StepSetup) -> nn.Module:
    kwargs: dict[str, Any] = {"dtype": setup.dtype, "trust_remote_code": False}
    if way == "causal_lm":
        return AutoModelForCausalLM.from_pretrained(setup.model, **kwargs)
    if way != "classifier":
        return AutoModelForDualHeadClassification.from_pretrained(setup.model, num_labels=setup.num_labels, **kwargs)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report that the head is new, which it has to be
    try:
        return AutoModelForSequenceClassification.from_pretrained(setup.model, num_labels=setup.num_labels, **kwargs)
    finally:
        logging.set_verbosity(verbosity)


def _with_lora(model: nn.Module, way: str) -> nn.Module:
    from peft import LoraConfig, TaskType, get_peft_model

    classifies = way != "causal_lm"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if classifies else TaskType.CAUSAL_LM,
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=["score"] if classifies else None,
    )
    return get_peft_model(model, config)


def random_rows(
    count: int, lengths: tuple[int, int], vocab_size: int, pad: int, num_labels: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of random tokens whose x and suffix have half to one and a half times the given numbers of tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, size: int = 1) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()

    rows = []
    for _ in range(count):
        x, suffix = (draw((mean + 1) // 2, mean + mean // 2 + 1)[0] for mean in lengths)
        ids = [token + (token >= pad) for token in draw(0, vocab_size - 1, x + suffix)]
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "input_length": x, "reasoning_targets": ids}
        rows.append({**row, "labels": draw(0, num_labels)[0]})
    return rows


def step_batch(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, Tensor]]:
    """Encoded rows as one batch for every way to train on them."""
    collate = DualHeadCollator(tokenizer)
    s, x = collate(list(rows)), collate([input_only(row) for row in rows])
    labels = {"labels": s.pop("labels")}
    return {"x": {name: it for name, it in x.items() if name != "labels"}, "s": s, "labels": labels}
