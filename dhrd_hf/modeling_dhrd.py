"""The dual-head model: one backbone, a pooled classification head, and the language model's own head.

What the second of the two heads takes from the model's family is in `reasoning_head.py`.

This file can be shipped with a checkpoint as its remote code, so it imports nothing of this package but files that are shipped with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_dhrd import ADAPTER_CONFIG_FOLDER, DHRDConfig
from .losses import (
    IGNORE_INDEX,
    SoftTargets,
    classification_count,
    classification_loss,
    distillation_loss,
    reasoning_count,
    reasoning_loss,
)
from .pooling import pooled_in_flat, pooled_positions
from .reasoning_head import ReasoningHeadMixin

# What from_pretrained leaves on a model that is spread over devices or quantised: it must not be moved or cast.
_OF_LOADING = (
    *("hf_device_map", "hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit"),
    # ... or sharded over processes: how it is saved.
    *("_device_mesh", "_mesh_manager", "_tp_size", "_fsdp_size", "_is_distributed_loading_by_transformers"),
)
# What `from_pretrained` is told of an adapter's folder, and not of its base model.
_OF_THE_FOLDER = (
    *("adapter_kwargs", "code_revision", "ignore_mismatched_sizes", "key_mapping", "revision", "subfolder"),
    *("trust_remote_code", "_from_auto", "_from_pipeline"),
)
_PLANS = ("_tp_plan", "_ep_plan", "_fsdp_plan")


@dataclass
class DHRDOutput(ModelOutput):
    """Output of [`DHRDForDualHeadClassification`].

    Example:

    ```python
    >>> import torch
    >>> from dhrd_hf import DHRDOutput
    >>> DHRDOutput(logits=torch.tensor([[0.5, 2.0]])).logits.argmax(-1)
    tensor([1])

    ```

    Args:
        loss (`Tensor`, *optional*): `beta * classification_loss + alpha * reasoning_loss`, a float32 scalar; with soft
            targets, their weight times `distillation_loss` more.
        logits (`Tensor` of shape `[B, K]`): Class logits of x, before the softmax.
        classification_loss (`Tensor`, *optional*): Scalar; there when `labels` were given.
        reasoning_loss (`Tensor`, *optional*): Scalar; there when `reasoning_targets` were given and alpha is not 0.
        distillation_loss (`Tensor`, *optional*): Scalar; there when `soft_targets` were given.
        reasoning_logits (`Tensor` of shape `[B, L, V]`, *optional*): With `output_reasoning_logits=True`.
        past_key_values (`Cache`, *optional*): With `use_cache=True`.
        hidden_states (`tuple[Tensor]`, *optional*): With `output_hidden_states=True`: `[B, L, H]` a layer.
        attentions (`tuple[Tensor]`, *optional*): With `output_attentions=True`: `[B, heads, L, L]` a layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    classification_loss: Tensor | None = None
    reasoning_loss: Tensor | None = None
    distillation_loss: Tensor | None = None
    reasoning_logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class DHRDClassificationHead(nn.Module):
    """The paper's classification head, on the pooled hidden state: two layers; on width, activation and dropout it is silent."""

    def __init__(self, hidden_size: int, config: DHRDConfig):
        super().__init__()
        if config.classifier_activation not in ACT2FN:
            raise ValueError(
                f"classifier_activation={config.classifier_activation!r} is not one of {', '.join(sorted(ACT2FN))}."
            )
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = ACT2FN[config.classifier_activation]
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(hidden_size, config.num_labels)

    def forward(self, hidden: Tensor) -> Tensor:  # [B, H] to [B, K]
        return self.out_proj(self.dropout(self.activation(self.dense(hidden))))


class DHRDForDualHeadClassification(ReasoningHeadMixin, PreTrainedModel):
    r"""A decoder-only LM with a pooled classification head and its own LM head over one forward pass.

    Weights are named `model.*` (the backbone's own names), `score.*` and `lm_head.*`. With `config.reasoning_head=False`
    there is no `lm_head`.

    Example:

    ```python
    >>> import torch
    >>> from transformers import LlamaConfig
    >>> from dhrd_hf import DHRDConfig, DHRDForDualHeadClassification

    >>> backbone = LlamaConfig(
    ...     vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0
    ... )
    >>> model = DHRDForDualHeadClassification(DHRDConfig(backbone_config=backbone, num_labels=3))
    >>> x, suffix = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9]])
    >>> s = torch.cat([x, suffix], dim=1)
    >>> out = model(s, labels=torch.tensor([2]), input_length=torch.tensor([3]), reasoning_targets=s)
    >>> torch.equal(out.loss, out.classification_loss + out.reasoning_loss)
    True
    >>> model(x).logits.shape
    torch.Size([1, 3])

    ```

    Args:
        config ([`DHRDConfig`]): The configuration.
        causal_lm (`PreTrainedModel`, *optional*):
            A causal LM of `config.backbone_config`'s family, whose modules become this model's; a new one by default.

    Raises:
        ValueError: if the config has no backbone, or the family's causal LM is more than a backbone and an output layer.

    Source: Zhou et al. 2025, arXiv 2509.21487, section 3.
    """

    config_class = DHRDConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _auto_class = "AutoModel"  # so this file and those that it imports are saved, and pushed, with the weights
    # What the backbone does not support, it refuses itself.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_set_experts_implementation_cached_value = (
        True  # transformers would look for a decorator in this file's source
    )

    @property
    def is_gradient_checkpointing(self) -> bool:
        """As transformers', which warns of this name; PEFT 0.21 asks by it. Drop with a PEFT that does not."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def __init__(self, config: DHRDConfig, causal_lm: PreTrainedModel | None = None):
        super().__init__(config)
        if config.backbone_config is None:
            raise ValueError("DHRDConfig has no backbone_config: give it the config of a decoder-only language model.")
        if causal_lm is None:
            causal_lm = AutoModelForCausalLM.from_config(config.backbone_config)
        else:
            for module in causal_lm.modules():
                module._is_hf_initialized = True  # its weights are loaded; `post_init` must leave them alone
        names = self._keep_family(causal_lm)
        self._head_plans = {
            plan: {_renamed(key, names): style for key, style in (getattr(type(causal_lm), plan, None) or {}).items()}
            for plan in (_PLANS if config.reasoning_head else ())
        }
        lm_head = causal_lm.get_output_embeddings()
        config.backbone_config = causal_lm.config
        self.num_labels = config.num_labels
        self.model = causal_lm.get_submodule(causal_lm.base_model_prefix)
        self.lm_head = lm_head if config.reasoning_head else None
        self.score = _new_score(config, lm_head, _float_dtype(causal_lm))

        # Called in the backward pass with a loss's name and its weighted gradient at the shared hidden states.
        self.on_shared_gradient: Callable[[str, Tensor], None] | None = None
        self.generation_config = causal_lm.generation_config
        tied = {_renamed(key, names): _renamed(to, names) for key, to in (causal_lm._tied_weights_keys or {}).items()}
        self._tied_weights_keys = {
            key: to for key, to in tied.items() if config.reasoning_head or "lm_head." not in key
        }
        self.post_init()
        for name in _OF_LOADING:
            if name in causal_lm.__dict__:
                setattr(self, name, causal_lm.__dict__[name])
        if hasattr(causal_lm.config, "distributed_config"):
            config.distributed_config = causal_lm.config.distributed_config

    def init_parallel_plans(self) -> None:
        """How the LM head is sharded, as its family says; the backbone brings its own plans."""
        super().init_parallel_plans()
        for name, plan in self._head_plans.items():
            getattr(self, name).update(plan)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The LM head's output layer; `None` in an exported classifier."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a dual-head checkpoint; unlike transformers' default, weights that do not fit are an error.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub id or folder of a dual-head checkpoint; or the
                folder of an adapter with its config, a run directory or an export.
            args, kwargs: What `PreTrainedModel.from_pretrained` takes. With `output_loading_info=True`, whoever is given the
                information judges by it; without a checkpoint (`None`) there is none to fit.

        Returns:
            [`DHRDForDualHeadClassification`]: the model, in eval mode; of an exported adapter the stock classifier.

        Raises:
            ValueError: if weights are missing, left over, or of another shape; the last is a `RuntimeError` as well, as it is
                in transformers.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        folder = pretrained_model_name_or_path
        if folder is not None and (Path(folder) / "adapter_config.json").is_file():
            model, info = cls._with_adapter(folder, **kwargs)
            return (model, info) if wants_info else model
        # Mismatched sizes would be an error of transformers with a table in its log; `check_loaded` says it in a line.
        model, info = super().from_pretrained(
            pretrained_model_name_or_path,
            *args,
            output_loading_info=True,
            **{"ignore_mismatched_sizes": True, **kwargs},
        )
        if not kwargs.get("ignore_mismatched_sizes"):
            judged = wants_info or pretrained_model_name_or_path is None
            check_loaded(
                {"mismatched_keys": info["mismatched_keys"]} if judged else info, pretrained_model_name_or_path
            )
        return (model, info) if wants_info else model

    @classmethod
    def _with_adapter(cls, folder: Any, config: DHRDConfig | None = None, **kwargs: Any) -> tuple[Any, dict]:
        """The base model that an adapter names, as the config beside it says, with the adapter in it."""
        config = config or DHRDConfig.from_pretrained(folder)
        adapter = json.loads((Path(folder) / "adapter_config.json").read_text("utf-8"))
        base, revision = adapter["base_model_name_or_path"], adapter.get("revision") or config.backbone_revision
        kwargs = {name: value for name, value in kwargs.items() if name not in _OF_THE_FOLDER}
        if config.reasoning_head:
            hub = {name: kwargs[name] for name in ("cache_dir", "local_files_only", "token") if name in kwargs}
            own = AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=False, **hub)
            kwargs = {
                "dtype": config.dtype,
                **kwargs,
                "config": backbone_of_run(config, own),
                "trust_remote_code": False,
            }
            causal_lm = AutoModelForCausalLM.from_pretrained(base, revision=revision, **kwargs)
            pad_token_id, size = config.pad_token_id, config.vocab_size
            model = cls(config, causal_lm=causal_lm)
            config.pad_token_id = pad_token_id
            if config.vocab_size != size:
                model.resize_token_embeddings(size)
        else:
            stock = AutoConfig.from_pretrained(folder, subfolder=ADAPTER_CONFIG_FOLDER, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                base, revision=revision, config=stock, trust_remote_code=False, **kwargs
            )
        info = model.load_adapter(str(folder)).to_dict()
        check_loaded({**info, "unexpected_keys": ()}, folder)
        if config.reasoning_head and "score" not in (adapter.get("modules_to_save") or ()):
            raise ValueError(
                f"The adapter in {folder} has no classification head: it would be a random one. Train it with "
                "modules_to_save=['score'], as add_lora does."
            )
        return model.eval(), info

    def save_config(self, save_directory: Any, **changes: Any) -> None:
        """Save the config beside an adapter, with the code that opens the two (`trust_remote_code`)."""
        config = copy.deepcopy(self.config)
        for name, value in {**changes, "auto_map": self._auto_map()}.items():
            setattr(config, name, value)
        custom_object_save(self, save_directory, config=config)
        config.save_pretrained(save_directory)

    def _auto_map(self) -> dict[str, str]:
        """How transformers finds the code in a folder, where this package is not installed."""
        code = f"modeling_dhrd.{type(self).__name__}"
        return {
            "AutoConfig": "configuration_dhrd.DHRDConfig",
            "AutoModel": code,
            "AutoModelForSequenceClassification": code,
        }

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:
        """Save the checkpoint with the code that opens it where this package is not installed (`trust_remote_code`)."""
        self.config.auto_map = self._auto_map()
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    # The forward pass

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        input_length: Tensor | None = None,
        reasoning_targets: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_reasoning_logits: bool = False,
        cu_seq_lens_q: Tensor | None = None,
        alpha: float | None = None,
        soft_targets: SoftTargets | None = None,
        **kwargs: Any,
    ) -> DHRDOutput:
        r"""One pass of the backbone over s = [x, suffix]; pool x's last token; the LM head where there are targets.

        Args:
            input_ids (`Tensor` of shape `[B, L]`, *optional*): Token ids of s, or of x alone.
            attention_mask (`Tensor` of shape `[B, L]`, *optional*): 1 = token, 0 = padding.
            position_ids (`Tensor` of shape `[B, L]`, *optional*): Passed to the backbone.
            inputs_embeds (`Tensor` of shape `[B, L, H]`, *optional*): Instead of `input_ids`; has no pad detection.
            labels (`Tensor`, *optional*): Class ids `[B]`; floats `[B, K]` for multi label; floats for regression.
            input_length (`Tensor` of shape `[B]`, *optional*):
                Number of tokens of x in each row, left padding not counted. Absent: the whole row is x.
            reasoning_targets (`Tensor` of shape `[B, L]`, *optional*):
                Token ids aligned with `input_ids`, shifted inside; -100 = not a target.
            num_items_in_batch (`Tensor` or `int`, *optional*):
                What the losses are divided by, counted over the accumulated batch (and the ranks). Two numbers, as
                [`DualHeadTrainer`] gives: label items and reasoning targets; then both terms are exact however the
                batch is split. One number, as the stock `Trainer` gives: rows with a label; each term is then a mean of
                micro-batch means, weighted by their share of these rows, which is exact for the classification term
                without class weights. Absent: this batch's own counts.
            output_reasoning_logits (`bool`, *optional*, defaults to `False`): Return the LM head's logits as well.
            cu_seq_lens_q (`Tensor` of shape `[B + 1]`, *optional*):
                Of a padding-free batch: `input_ids`, `position_ids` and `reasoning_targets` are `[1, T]`, and row i of
                the batch is `cu_seq_lens_q[i]` to `cu_seq_lens_q[i + 1]` of it. See [`DualHeadCollator`].
            alpha (`float`, *optional*): Weight of the reasoning loss in this call, for schedules; `config.alpha` by
                default. Where that is 0 there is no reasoning loss, whatever is given here.
            soft_targets ([`SoftTargets`], *optional*): A teacher's distributions at the positions that have a target, to
                learn from as well.
            kwargs (*optional*): Passed to the backbone, such as `output_hidden_states`; `use_cache` is off by default.

        Returns:
            [`DHRDOutput`]: losses where their targets were given, and the class logits.

        Raises:
            ValueError: on inputs that would pool a wrong token or drop a loss term.
        """
        if alpha is None:
            alpha = self.config.alpha
        if (
            labels is None
            and reasoning_targets is not None
            and num_items_in_batch is not None
            and self.config.beta > 0
        ):
            raise ValueError(
                "reasoning_targets came without labels: the Trainer has taken them (label_smoothing_factor or "
                "compute_loss_func), and one loss term would vanish. Use DualHeadTrainer, or set "
                "config.label_smoothing and leave label_smoothing_factor at 0."
            )
        if not self.training and input_length is None and labels is not None and reasoning_targets is not None:
            raise ValueError(
                "reasoning_targets came without input_length: the pooled token would be the suffix's, which holds the "
                "answer. Keep the column input_length of DualHeadEncoder, or leave reasoning_targets out where the whole "
                "row is x."
            )
        if cu_seq_lens_q is not None:
            kwargs["cu_seq_lens_q"] = cu_seq_lens_q
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **{"use_cache": False, **kwargs, "return_dict": True},
        )
        shared = hidden = outputs.last_hidden_state  # [B, L, H]
        if reasoning_targets is not None and reasoning_targets.shape != hidden.shape[:-1]:
            raise ValueError(
                f"reasoning_targets has the shape {list(reasoning_targets.shape)}, and the model has read "
                f"{list(hidden.shape[:-1])} tokens. A prompt in front of the input (prompt tuning) can't be trained; else pad "
                "both alike, as DualHeadCollator does."
            )
        pad = self.config.pad_token_id
        if cu_seq_lens_q is None:
            positions = pooled_positions(hidden, input_ids, attention_mask, input_length, pad)  # [B]
            pooled = hidden[torch.arange(hidden.shape[0], device=hidden.device), positions]  # [B, H]
        else:
            pooled = hidden[0, pooled_in_flat(hidden, cu_seq_lens_q, input_ids, input_length, pad)]  # [B, H]
        if self.on_shared_gradient is not None and hidden.requires_grad:
            pooled.register_hook(partial(self.on_shared_gradient, "classification_loss"))
            hidden = hidden.view_as(hidden)  # a tensor of its own: the gradient of the other head is not in its
            hidden.register_hook(partial(self.on_shared_gradient, "reasoning_loss"))
        logits = self.score(pooled)  # [B, K]

        counts = _Counts(num_items_in_batch)
        losses: dict[str, Tensor] = {}
        if labels is not None:
            count = None if counts.share_only else counts.labels
            losses["classification_loss"] = self.classification_loss(logits, labels, count)
        if reasoning_targets is not None and self.config.alpha != 0:
            losses["reasoning_loss"] = reasoning_loss(
                hidden,
                reasoning_targets,
                lambda states: self.reasoning_logits(states, outputs),
                linear=self._linear_head(outputs),
                vocab_size=self.config.vocab_size,
                count=counts.targets,
            )
            auxiliary = self.auxiliary_loss(outputs, attention_mask)
            if auxiliary is not None:
                own = reasoning_count(reasoning_targets)
                share = own / (own if counts.targets is None else counts.targets.to(own.device)).clamp(min=1)
                losses["reasoning_loss"] = losses["reasoning_loss"] + auxiliary * share.to(auxiliary.device)
        weights = {"classification_loss": self.config.beta, "reasoning_loss": alpha}
        if soft_targets is not None and reasoning_targets is not None:
            weights["distillation_loss"] = soft_targets.weight
            losses["distillation_loss"] = distillation_loss(
                shared,
                reasoning_targets,
                lambda states: self.reasoning_logits(states, outputs),
                soft_targets,
                vocab_size=self.config.vocab_size,
                count=counts.targets,
            )
        if counts.share_only and labels is not None:
            share = labels.ne(IGNORE_INDEX).sum() / counts.labels.to(labels.device).clamp(min=1)
            for name in losses:
                losses[name] = losses[name] * share.to(losses[name].device)
        loss = sum(weights[name] * value.to(logits.device) for name, value in losses.items()) if losses else None

        return DHRDOutput(
            loss=loss,
            logits=logits,
            **losses,
            reasoning_logits=self.reasoning_logits(hidden, outputs) if output_reasoning_logits else None,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )

    def classification_loss(self, logits: Tensor, labels: Tensor, count: Tensor | None = None) -> Tensor:
        """The classification term with this config's problem type, class weights and label smoothing."""
        return classification_loss(
            logits, labels, self._problem_type(labels), self._class_weights(), self.config.label_smoothing, count
        )

    def classification_count(self, labels: Tensor) -> Tensor:
        """What this batch adds to the denominator of the classification term."""
        return classification_count(labels, self._problem_type(labels), self._class_weights())

    def _class_weights(self) -> Tensor | None:
        return (
            None if self.config.class_weights is None else torch.tensor(self.config.class_weights, dtype=torch.float32)
        )

    def _problem_type(self, labels: Tensor) -> str:
        """transformers' rule: one label is regression, integer labels are single label, others multi label."""
        if self.config.problem_type is None:
            if self.num_labels == 1:
                self.config.problem_type = "regression"
            elif labels.dtype in (torch.long, torch.int):
                self.config.problem_type = "single_label_classification"
            else:
                self.config.problem_type = "multi_label_classification"
        return self.config.problem_type


class DHRDForSequenceClassification(DHRDForDualHeadClassification):
    """An exported classifier with the paper's head, `config.reasoning_head=False`: the name says to others what it is."""


class _Counts:
    """`num_items_in_batch`, read: two numbers are exact counts, one is the stock Trainer's count of rows with a label."""

    def __init__(self, num_items: Tensor | int | None):
        self.labels: Tensor | None = None
        self.targets: Tensor | None = None
        if num_items is not None:
            numbers = torch.as_tensor(num_items).flatten()
            self.labels = numbers[0]
            self.targets = numbers[1] if numbers.numel() == 2 else None
        self.share_only = self.labels is not None and self.targets is None


def find_dual_head(model: nn.Module) -> DHRDForDualHeadClassification:
    """The dual-head model inside whatever PEFT, DDP and others have wrapped around it; a TypeError if there is none."""
    for module in model.modules():
        if isinstance(module, DHRDForDualHeadClassification):
            return module
    raise TypeError(
        f"A dual-head model is wanted, found {type(model).__name__}. "
        "Open it with AutoModelForDualHeadClassification.from_pretrained(name_or_path, ...)."
    )


def logits_tolerance(dtype: torch.dtype) -> float:
    """How far two ways to the same numbers may be apart, relative to the largest of them (at least 1).

    In float32 only the order of sums differs, and a merged adapter's rounding; the others round every weight.
    """
    return 1e-4 if dtype in (torch.float32, torch.float64) else 5e-2


def backbone_of_run(config: DHRDConfig, own: PreTrainedConfig) -> PreTrainedConfig:
    """The config to open an adapter's base model with, whose own is `own`: what was trained, on the weights that there are."""
    trained = copy.deepcopy(config.backbone_config)
    trained.get_text_config().vocab_size = own.get_text_config().vocab_size  # the embeddings grow once they are loaded
    if hasattr(trained, "quantization_config"):
        del trained.quantization_config  # the caller chooses
    if hasattr(own, "quantization_config"):
        trained.quantization_config = own.quantization_config
    return trained


class WeightsError(ValueError, RuntimeError):
    """Weights do not fit: a mistake of the user as ours are, and an error of loading as transformers' own is."""


def check_loaded(info: dict, source: Any) -> None:
    """Raise where a checkpoint did not fill the model exactly: `info` is from `output_loading_info=True`."""
    found = []
    for key, meaning in (
        ("missing_keys", "missing"),
        ("unexpected_keys", "left over"),
        ("mismatched_keys", "misshaped"),
    ):
        names = sorted(str(name) for name in info.get(key, ()))
        if names:
            found.append(f"{len(names)} {meaning} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    if found:
        raise WeightsError(
            f"The weights of {source} do not fit the model: {'; '.join(found)}. "
            "They would be random or ignored. Use the checkpoint as it was saved."
        )


def _new_score(config: DHRDConfig, lm_head: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A classification head without values, on the LM head's device: `_init_weights` makes the one random draw."""
    width = getattr(lm_head, "in_features", lm_head.weight.shape[-1])  # of the states that the LM head takes
    with torch.device("meta"):
        if config.classifier_head == "linear":  # as the stock classifiers have it
            score = nn.Linear(width, config.num_labels, bias=False)
        else:
            score = DHRDClassificationHead(width, config)
    score.to(dtype)
    return score if lm_head.weight.device.type == "meta" else score.to_empty(device=lm_head.weight.device)


def _renamed(key: str, names: dict[str, str]) -> str:
    first, dot, rest = key.partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def _float_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype of a model's floating-point weights (`model.dtype` would do, but for quantised ones)."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
