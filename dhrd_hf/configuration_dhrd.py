"""Configuration of a dual-head model: the language model's own config, and what the two heads add to it.

This file can be shipped with a checkpoint as its remote code, so it imports nothing of this package.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

# Raised by one whenever a checkpoint written today could be misread by the code of yesterday.
FORMAT_VERSION = 1

CLASSIFIER_HEADS = ("linear", "mlp")
CLASSIFIER_INITS = ("random", "label_words")

# Where an exported adapter keeps the stock classifier's config (labels, pad token). In the adapter's own folder
# transformers would take it for a whole model's, and look for the weights there.
ADAPTER_CONFIG_FOLDER = "config"

_LABELS = ("num_labels", "id2label", "label2id")
# What both the dual-head config and the language model's have, and both must say alike.
_OF_BOTH = ("output_hidden_states", "output_attentions", "return_dict")


def _delegated(name: str) -> property:
    """A property that reads and writes `name` on the text config of the backbone, as a stock model's config would."""

    def fget(self: DHRDConfig) -> Any:
        text_config = self.get_text_config()
        return None if text_config is self else getattr(text_config, name, None)

    def fset(self: DHRDConfig, value: Any) -> None:
        text_config = self.get_text_config()
        if text_config is self:
            raise AttributeError(f"{name} belongs to the language model's config: set backbone_config first.")
        setattr(text_config, name, value)

    return property(fget, fset, doc=f"`{name}` of the backbone's text config.")


class DHRDConfig(PreTrainedConfig):
    r"""Configuration of [`DHRDForDualHeadClassification`]: a decoder-only LM, a classification head and their objective.

    Token ids (`pad_token_id`, `bos_token_id`, `eos_token_id`), `vocab_size`, `hidden_size` and `tie_word_embeddings`
    are read from, and written to, the config of the language model: they exist once.

    Example:

    ```python
    >>> from transformers import LlamaConfig
    >>> from dhrd_hf import DHRDConfig

    >>> backbone = LlamaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0)
    >>> config = DHRDConfig(backbone_config=backbone, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    >>> config.model_type, config.num_labels, config.pad_token_id
    ('dhrd', 2, 0)

    ```

    Args:
        backbone_config (`PreTrainedConfig` or `dict`):
            Config of the decoder-only language model.
        classifier_head (`str`, *optional*, defaults to `"linear"`):
            `"linear"`: one bias-free layer, exactly the head of transformers' decoder classifiers, so it exports to
            one of them. `"mlp"`: the paper's two layers, `dense` (H to H), activation, dropout, `out_proj` (H to K), both
            with bias; no stock decoder has it, so its export carries its own code.
        classifier_activation (`str`, *optional*, defaults to `"gelu"`):
            Activation of the `"mlp"` head, by transformers' name of it.
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout after it, in training.
        reasoning_head (`bool`, *optional*, defaults to `True`):
            Whether the model has its LM head; an exported classifier with the `"mlp"` head has none.
        alpha (`float`, *optional*, defaults to 1.0):
            Weight of the reasoning loss, `>= 0` and finite. At 0 the reasoning head never runs: the pooled baseline.
        beta (`float`, *optional*, defaults to 1.0):
            Weight of the classification loss, `>= 0` and finite.
        class_weights (`list[float]` of length `num_labels`, *optional*):
            Weight of each class in the classification loss, as `torch.nn.CrossEntropyLoss(weight=...)` (single label)
            or `torch.nn.BCEWithLogitsLoss(pos_weight=...)` (multi label).
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Label smoothing of the single-label classification loss, in `[0, 1)`. The reasoning loss is never smoothed.
        prompt_template (`str`, *optional*):
            The template over a row's columns that made the classifier's input, for whoever serves the model.
        suffix_template (`str`, *optional*):
            The template of what followed the input in training, for whoever lets the model write its reasons; by default the
            paper's.
        rationale_after_label (`bool`, *optional*, defaults to `False`):
            Whether the label stood before the rationale in it.
        max_input_length (`int`, *optional*):
            Number of tokens to which the classifier's input was cut in training.
        tokenizer_settings (`dict`, *optional*):
            How the tokenizer that made the classifier's input was set: its `truncation_side`, `split_special_tokens`, and the
            `added_tokens` (ids) of an empty text. A tokenizer that is set otherwise is not exported with the model.
        backbone_revision (`str`, *optional*):
            Commit of the Hub repository from which the language model was loaded; an exported adapter names it.
        format_version (`int`, *optional*):
            Version of the checkpoint format; set when saving.
        kwargs (*optional*):
            What `PreTrainedConfig` takes: `num_labels`, `id2label`, `label2id`, `problem_type`, ...

    Raises:
        ValueError: if a value is out of its range, the labels disagree with each other, or the checkpoint was written
            by a newer version of this package.

    Source: Zhou et al. 2025, arXiv 2509.21487, section 3 (heads) and eqs. 2-4 (alpha, beta).
    """

    model_type = "dhrd"
    sub_configs = {"backbone_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "classification_loss",
        "reasoning_loss",
        "distillation_loss",
        "reasoning_logits",
        "past_key_values",
        "hidden_states",
        "attentions",
    ]

    backbone_config: dict | PreTrainedConfig | None = None
    classifier_head: str = "linear"
    classifier_activation: str = "gelu"
    classifier_dropout: float = 0.1
    reasoning_head: bool = True
    alpha: float = 1.0
    beta: float = 1.0
    class_weights: list[float] | None = None
    label_smoothing: float = 0.0
    prompt_template: str | None = None
    suffix_template: str | None = None
    rationale_after_label: bool = False
    max_input_length: int | None = None
    tokenizer_settings: dict | None = None
    backbone_revision: str | None = None
    format_version: int = FORMAT_VERSION

    pad_token_id = _delegated("pad_token_id")
    bos_token_id = _delegated("bos_token_id")
    eos_token_id = _delegated("eos_token_id")
    vocab_size = _delegated("vocab_size")
    hidden_size = _delegated("hidden_size")
    tie_word_embeddings = _delegated("tie_word_embeddings")

    def __post_init__(self, **kwargs: Any) -> None:
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"This checkpoint has format_version {self.format_version}; the installed dhrd_hf reads up to "
                f"{FORMAT_VERSION}. Update it: pip install --upgrade dhrd-hf"
            )
        if isinstance(self.backbone_config, dict):
            self.backbone_config = _config_from_dict(self.backbone_config)
        _check_labels(self.id2label, self.label2id, kwargs.get("num_labels"))
        if self.id2label is not None and self.label2id is None:
            self.label2id = {name: int(index) for index, name in self.id2label.items()}
        elif self.label2id is not None and self.id2label is None:
            self.id2label = {int(index): name for name, index in self.label2id.items()}
        if self.backbone_config is not None:
            # The base class sets these on all sub-configs, to None where they are not given: keep a live model's choice.
            for name in ("attn_implementation", "experts_implementation"):
                kwargs.setdefault(name, getattr(self.backbone_config, f"_{name}"))
        super().__post_init__(**kwargs)
        self._check_objective()

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The dictionary of a saved config; that of a language model becomes the backbone (PEFT opens a base model so)."""
        values, left = super().get_config_dict(*args, **kwargs)
        if values.get("model_type", cls.model_type) != cls.model_type:
            values = {"model_type": cls.model_type, "backbone_config": values}
        return values, left

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A config of saved values; what overrides a field of the language model's config goes there."""
        wants_unused = kwargs.pop("return_unused_kwargs", False)
        labels = {name: kwargs.pop(name) for name in _LABELS if kwargs.get(name) is not None}
        saved = len(config_dict.get("id2label") or ())
        if config_dict.get("alpha") == "auto":  # of 0.1: now `alpha_schedule` of a training says so
            config_dict = {**config_dict, "alpha": 1.0}
        if labels and (labels.keys() != {"num_labels"} or labels["num_labels"] != saved):
            config_dict = {name: value for name, value in config_dict.items() if name not in _LABELS} | labels
        config, unused = super().from_dict(dict(config_dict), return_unused_kwargs=True, **kwargs)
        backbone = config.backbone_config
        for name in kwargs.keys() & {*unused, *_OF_BOTH}:
            if hasattr(backbone, name):
                value, current = kwargs[name], getattr(backbone, name)
                if isinstance(current, PreTrainedConfig) and isinstance(value, dict):
                    value = type(current)(**{**current.to_dict(), **value})
                setattr(backbone, name, value)
                unused.pop(name, None)
        config._check_objective()
        return (config, unused) if wants_unused else config

    def _check_objective(self) -> None:
        if self.classifier_head not in CLASSIFIER_HEADS:
            raise ValueError(f"classifier_head={self.classifier_head!r} is not one of {', '.join(CLASSIFIER_HEADS)}.")
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout={self.classifier_dropout} must be in [0, 1).")
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            try:
                fits = math.isfinite(value) and value >= 0
            except TypeError:
                more = "" if value != "auto" else ": a trainer balances it with alpha_schedule='auto'"
                raise ValueError(f"{name}={value!r} must be a number, 0 or greater{more}.") from None
            if not fits:
                raise ValueError(f"{name}={value} must be 0 or greater, and finite.")
            setattr(self, name, float(value))  # of NumPy or torch, which JSON does not hold
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be in [0, 1).")
        if self.class_weights is not None:
            try:
                self.class_weights = [float(weight) for weight in self.class_weights]
            except (TypeError, ValueError):
                raise ValueError(f"class_weights={self.class_weights!r} must be a list of numbers.") from None
            if len(self.class_weights) != self.num_labels:
                raise ValueError(
                    f"class_weights has {len(self.class_weights)} values for {self.num_labels} labels; give one a label."
                )
            if not all(0 <= weight < math.inf for weight in self.class_weights):
                raise ValueError(f"class_weights={self.class_weights} must all be 0 or greater, and finite.")
            if not any(self.class_weights):
                raise ValueError(
                    "class_weights are all 0: nothing would be learned. Give a label that counts more than 0."
                )
        for name in ("label_smoothing", "class_weights"):
            of = ("regression",) if name == "class_weights" else ("regression", "multi_label_classification")
            if getattr(self, name) and self.problem_type in of:
                raise ValueError(f"{name} does nothing in {self.problem_type}: leave it out.")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The text config of the backbone, where `pad_token_id`, `vocab_size` and the like live; itself where there is none yet."""
        backbone = self.__dict__.get("backbone_config")
        return backbone.get_text_config(decoder=decoder, encoder=encoder) if backbone is not None else self


def _config_from_dict(values: dict) -> PreTrainedConfig:
    model_type = values.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"backbone_config has model_type {model_type!r}, which the installed transformers does not know. "
            "Update it (pip install --upgrade transformers), or name a model type it has."
        )
    return CONFIG_MAPPING[model_type].from_dict(values)


def _check_labels(id2label: dict | None, label2id: dict | None, num_labels: int | None) -> None:
    """Raise where num_labels, id2label and label2id do not describe the same labels."""
    if id2label is not None:
        ids = sorted(int(index) for index in id2label)
        if ids != list(range(len(ids))):
            raise ValueError(f"id2label has the ids {ids}; expected 0 to {len(ids) - 1}, each once.")
        if len(set(id2label.values())) != len(id2label):
            raise ValueError(f"id2label names a label twice: {list(id2label.values())}.")
    for name, labels in (("id2label", id2label), ("label2id", label2id)):
        if labels is not None and num_labels is not None and len(labels) != num_labels:
            raise ValueError(
                f"num_labels={num_labels}, but {name} has {len(labels)} labels: {labels}. Give one of them."
            )
    if id2label is not None and label2id is not None:
        expected = {name: int(index) for index, name in id2label.items()}
        given = {name: int(index) for name, index in label2id.items()}
        if expected != given:
            raise ValueError(f"label2id={given} is not the inverse of id2label={id2label}.")
