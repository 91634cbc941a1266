"""`export_classifier`: the same weights without `lm_head`, as a classifier that opens without this package."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..adapters import is_quantised, merged_copy
from ..configuration_dhrd import ADAPTER_CONFIG_FOLDER
from ..data.inputs import check_tokenizer, fill_settings, for_deployment, input_limit
from ..families import stock_classifier
from ..files import whole_folder
from ..modeling_dhrd import DHRDForDualHeadClassification, check_loaded, find_dual_head, logits_tolerance
from ..opening import THRESHOLDS, check_finite, evaluating, load_tokenizer
from . import FORMATS
from .adapter import check_adapter, write_adapter
from .card_facts import CardFacts, hub_name
from .contract import contract_of
from .model_card import write_model_card
from .portable import save_tokenizer, widen_config, write_with_code
from .replay import class_logits, golden_of, replay

logger = logging.get_logger(__name__)

_OF_THE_EFFECT = 2e-3  # of an adapter on the logits: what its rounding may take, which is some 1e-4 of it


def export_classifier(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | os.PathLike,
    format: str = "dense",
    *,
    temperature: float = 1.0,
    thresholds: Mapping[str, float] | None = None,
    abstention_threshold: float | None = None,
    label_set_threshold: float | None = None,
    overwrite: bool = False,
    max_shard_size: int | str = "5GB",
    card: CardFacts | None = None,
    golden: Sequence[str] = (),
) -> Path:
    r"""Write the classifier as a checkpoint that loads without this package and has no reasoning head.

    With the linear head it is a stock one of transformers, whole (`"dense"`) or as a PEFT adapter for the stock base
    model (`"adapter"`). No stock decoder has the `"mlp"` head: its dense export carries its modelling code and opens
    with `trust_remote_code=True`, or plainly where `dhrd_hf` is imported.

    What was written is loaded as a stranger would load it. Some thirty golden texts (several scripts, special tokens, up to
    and beyond the limit) have to become the same token ids as in training, and give the model's logits, in padded batches
    and alone; a folder that differs is not left behind. `dhrd_contract.json` keeps them, with what a server has to agree
    on, for [`verify_export`] and `dhrd verify`. The caller's model is not changed: an adapter is merged on a copy.

    Example:

    ```python
    >>> from dhrd_hf import export_classifier
    >>> export_classifier(trainer.model, tokenizer, "my-classifier")
    >>> from transformers import pipeline  # elsewhere, without dhrd_hf
    >>> pipeline("text-classification", "my-classifier")("It rains. So: It is wet.")

    ```

    Args:
        model ([`DHRDForDualHeadClassification`], or a `PeftModel` around one): The model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer, with a pad token. In the export `truncation=True` makes x of a
            text as training did: its `model_max_length` is `model.config.max_input_length`. What the config does not know of
            its inputs it gets from the tokenizer's [`DualHeadEncoder`].
        output_dir (`str` or `os.PathLike`): The folder to write; it must not exist or be empty.
        format (`str`, *optional*, defaults to `"dense"`): `"dense"`: all weights of the classifier, an adapter merged
            in. `"adapter"`: the adapter and the head alone, as PEFT's task type SEQ_CLS, with the name and revision of
            the base model, and the stock classifier's config (labels, pad token) in the subfolder `config`.
        temperature (`float`, *optional*, defaults to 1.0): What the head's weights are divided by, so that the exported
            classifier is as sure as it is right, from [`~dhrd_hf.evaluation.fit_temperature`]; its labels stay the same.
        thresholds (`Mapping[str, float]`, *optional*): For some of the labels, the probability from which on to accept them,
            from [`~dhrd_hf.evaluation.fit_thresholds`]; written into the config as `label_thresholds`, by which
            `dhrd predict` says which labels a row reaches.
        abstention_threshold (`float`, *optional*): The largest probability from which on a row is answered, from
            [`~dhrd_hf.evaluation.fit_abstention`]; in the config by this name, as the next.
        label_set_threshold (`float`, *optional*): The probability from which on a label belongs to a row's set, from
            [`~dhrd_hf.evaluation.fit_label_sets`].
        overwrite (`bool`, *optional*, defaults to `False`): Replace the folder if it holds something.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): As in `save_pretrained`.
        card ([`~dhrd_hf.export.CardFacts`], *optional*): What the model card, README.md, says beside what the model
            knows itself (labels, prompt template, alpha, beta, head, base model).
        golden (`Sequence[str]`, *optional*): Full inputs of one's own among the golden texts. They are written into the folder
            as they are: anybody who has it can read them.

    Returns:
        `Path`: the folder: config (labels, pad token, problem type, architecture, and `prompt_template` where the
        model's config has one), safetensors, tokenizer, contract, model card.

    Raises:
        FileExistsError: if the folder holds something and `overwrite` is off, or it is a file.
        TypeError: if the model has not two heads.
        ValueError: if the folder is one that the model was loaded from, or holds it, the temperature is not above 0, there is
            a threshold for no label or outside 0 to 1, the tokenizer has no pad token or another than the model, or is set otherwise than in training, the model
            can't be written in this format (`"dense"`: it is quantised; `"adapter"`: it has none, or no head in it, or its
            base model is not at hand), or the written classifier differs.
        FloatingPointError: if weights are not finite.

    Source: transformers `modeling_layers.py::GenericForSequenceClassification`.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is not one of {', '.join(FORMATS)}.")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be a number above 0.")
    dual_head = find_dual_head(model)
    model = next((module for module in model.modules() if hasattr(module, "peft_config")), dual_head)  # DDP's inside
    check_apart(output_dir, model.name_or_path, dual_head.name_or_path)
    check_finite(model.named_parameters(), "The model")
    pad_token_id = _checked_pad_token(dual_head, tokenizer)
    fill_settings(dual_head.config, tokenizer)
    check_tokenizer(dual_head.config, tokenizer)
    for label, threshold in (thresholds or {}).items():
        if label not in dual_head.config.label2id or not 0 <= threshold <= 1:
            raise ValueError(
                f"threshold {threshold} for {label!r}: it must be from 0 to 1, and the label one of "
                f"{', '.join(map(repr, dual_head.config.label2id))}."
            )
    found = (dict(thresholds or {}) or None, abstention_threshold, label_set_threshold)
    kept = {name: it for name, it in zip(THRESHOLDS, found, strict=True) if it is not None}
    for name in THRESHOLDS[1:]:
        if not 0 <= kept.get(name, 0) <= 1:
            raise ValueError(f"{name}={kept[name]} must be from 0 to 1.")
    with whole_folder(output_dir, overwrite) as folder:
        written = dual_head
        if format == "adapter":
            opened = write_adapter(model, dual_head, _stock_config(dual_head, pad_token_id), temperature, folder)
        else:
            written = _merged(model, dual_head)
            opened = _write_dense(written, pad_token_id, temperature, max_shard_size, folder)
        save_tokenizer(for_deployment(tokenizer, input_limit(dual_head.config, tokenizer)), folder)
        if kept:
            file = (folder / ADAPTER_CONFIG_FOLDER if format == "adapter" else folder) / "config.json"
            config = json.loads(file.read_text("utf-8")) | kept
            file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        _compare(written, opened, pad_token_id, temperature)
        _write_contract(written, tokenizer, opened, temperature, thresholds, golden, folder)
        write_model_card(folder, _facts(dual_head, temperature).updated(card or CardFacts()))
    return Path(output_dir)


def _facts(dual_head: DHRDForDualHeadClassification, temperature: float) -> CardFacts:
    config = dual_head.config
    # Without a commit it was read from a folder, whose name is nobody else's business.
    base_model = None if config.backbone_revision is None else hub_name(config.name_or_path)
    return CardFacts(
        base_model=base_model,
        base_model_revision=base_model and config.backbone_revision,
        alpha=config.alpha,
        beta=config.beta,
        classifier_head=config.classifier_head,
        temperature=None if temperature == 1 else temperature,
    )


def _write_dense(
    merged: DHRDForDualHeadClassification,
    pad_token_id: int,
    temperature: float,
    max_shard_size: int | str,
    folder: Path,
) -> PreTrainedModel:
    if merged.config.classifier_head != "linear":
        return write_with_code(merged, pad_token_id, temperature, max_shard_size, folder)
    _stock_classifier(merged, pad_token_id, temperature).save_pretrained(folder, max_shard_size=max_shard_size)
    widen_config(folder)
    opened, info = AutoModelForSequenceClassification.from_pretrained(
        folder,
        trust_remote_code=False,
        dtype=_dtype(merged),
        attn_implementation=merged.model.config._attn_implementation,
        output_loading_info=True,
    )
    check_loaded(info, "the export")
    return opened


def _checked_pad_token(dual_head: DHRDForDualHeadClassification, tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "The tokenizer has no pad token, so batches could not be padded. "
            "Set the one of training: tokenizer.pad_token = tokenizer.eos_token"
        )
    pooled_by = dual_head.config.pad_token_id
    if pooled_by is not None and pooled_by != tokenizer.pad_token_id:
        raise ValueError(
            f"The model pools by pad token id {pooled_by}, but the tokenizer pads with id {tokenizer.pad_token_id} "
            f"({tokenizer.pad_token!r}). Give the tokenizer of training."
        )
    return tokenizer.pad_token_id


def check_apart(output_dir: str | os.PathLike, *models: str | os.PathLike) -> None:
    """Raise where a folder to write is one that a model is read from, or holds it: the model would be gone."""
    target = Path(output_dir)
    if not target.is_dir():
        return
    named = [Path(model) for model in models if model]
    for folder in list(named):
        with suppress(OSError, ValueError, TypeError, KeyError):  # of no adapter
            named.append(
                Path(json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"])
            )
    for folder in filter(Path.is_dir, named):
        # By what is on the disk: there are links and "..", and file systems where RUNS is runs.
        own = folder.resolve()
        if own.samefile(target):
            what = "is a folder that the model is read from"
        elif any(it.samefile(target) for it in own.parents):
            what = f"holds {folder}, which the model is read from"
        else:
            continue
        raise ValueError(
            f"{target} {what}: it would be deleted. Name another folder, such as {folder / 'classifier'}."
        )


def _merged(model: nn.Module, dual_head: DHRDForDualHeadClassification) -> DHRDForDualHeadClassification:
    """The dual-head model with an adapter's weights added in, on a copy where there is one."""
    if is_quantised(dual_head):
        raise ValueError(
            "The model is quantised: its weights can't be written as a dense classifier, nor an adapter merged into "
            "them without loss. Write format='adapter', or reload the run directory without quantization_config."
        )
    if not hasattr(model, "peft_config"):
        return dual_head
    check_adapter(model)
    if not hasattr(model, "merge_and_unload"):
        kind = model.peft_config[model.active_adapter].peft_type.value
        raise ValueError(f"PEFT can't merge {kind} adapters into a model. Write format='adapter', or train with LoRA.")
    merged = merged_copy(model)
    _compare_merged(model, dual_head, merged)
    return merged


@torch.no_grad()
def _compare_merged(
    model: nn.Module, dual_head: DHRDForDualHeadClassification, merged: DHRDForDualHeadClassification
) -> None:
    """Raise where a merged adapter does another thing than it does beside the weights.

    A large one is rounded as it is added to them, so a share of its own effect passes. What the family reads otherwise than
    the adapter thinks, or an adapter that is added twice or not at all, is off by much of that effect.
    """
    batches = list(probe_batches(dual_head.config.vocab_size, dual_head.config.get_text_config().pad_token_id or 0))
    found, expected = _probed(merged, batches), _probed(dual_head, batches)
    with model.disable_adapter():
        without = _probed(dual_head, batches)
    effect = (expected - without).abs().max().item()
    tolerance = logits_tolerance(_dtype(dual_head))
    allowed = max(tolerance * max(1.0, expected.abs().max().item()), max(tolerance, _OF_THE_EFFECT) * effect)
    off = (found - expected).abs().max().item()
    if not off <= allowed:
        raise ValueError(
            f"The adapter, merged into the model's weights, changes logits by {off:.2g} (allowed {allowed:.2g}) from what it "
            "does beside them; nothing was written. If it is on a layer whose weights its family reads without calling it "
            "(add_lora leaves those out), it did nothing in training. Else write format='adapter'."
        )


@torch.no_grad()
def _probed(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The logits of `probe_batches` `[N, K]`, as in evaluation."""
    device = next(model.parameters()).device
    with evaluating(model):
        logits = [model(**{name: it.to(device) for name, it in batch.items()}).logits.float() for batch in batches]
    found = torch.cat(logits)
    if not found.isfinite().all():
        raise FloatingPointError("The model's logits are not finite on random inputs; nothing was written.")
    return found


def _stock_classifier(
    dual_head: DHRDForDualHeadClassification, pad_token_id: int, temperature: float
) -> PreTrainedModel:
    """The family's sequence classifier around the model's own tensors; nothing is copied but a head that is scaled."""
    config = _stock_config(dual_head, pad_token_id)
    family = stock_classifier(config)
    with torch.device("meta"):
        stock = family.model_class(config)
    names = family.names()
    tensors = {}
    for name, tensor in dual_head.state_dict().items():
        first, _, rest = name.partition(".")
        if first in names:
            scaled = first == "score" and temperature != 1
            tensors[f"{names[first]}.{rest}"] = tensor / temperature if scaled else tensor
    stock.load_state_dict(tensors, strict=True, assign=True)
    return stock


def _stock_config(dual_head: DHRDForDualHeadClassification, pad_token_id: int) -> PreTrainedConfig:
    own = dual_head.config
    config = copy.deepcopy(own.backbone_config)
    config.id2label, config.label2id = dict(own.id2label), dict(own.label2id)
    config.problem_type = own.problem_type
    config.get_text_config().pad_token_id = pad_token_id
    config.dtype = _dtype(dual_head)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # an adapter's user chooses; a dense export is not quantised
    if own.prompt_template is not None:
        config.prompt_template = own.prompt_template
    if getattr(own, "label_column", None) is not None:
        config.label_column = own.label_column
    return config


def _write_contract(
    dual_head: DHRDForDualHeadClassification,
    tokenizer: PreTrainedTokenizerBase,
    opened: PreTrainedModel,
    temperature: float,
    thresholds: Mapping[str, float] | None,
    golden: Sequence[str],
    folder: Path,
) -> None:
    """Write what a server has to agree on, with golden texts as training reads them; raise where the folder reads others."""
    limit = input_limit(dual_head.config, tokenizer)
    texts = golden_of(dual_head, tokenizer, limit, temperature, golden)
    served = load_tokenizer(folder)
    contract = contract_of(
        opened.config,
        served,
        texts,
        temperature=float(temperature),
        thresholds={**thresholds} if thresholds else None,
        engine="torch",
        dtype=str(_dtype(dual_head)).removeprefix("torch."),
    )
    found = replay(opened, served, contract, beside=lambda *batch: class_logits(dual_head, *batch) / temperature)
    faults = found.faults(max_flips=len(texts))
    if faults:
        kinds = [type(it).__name__ for it in (served, tokenizer)]
        opens = f" AutoTokenizer opens a {kinds[0]}, and this is a {kinds[1]}." if kinds[0] != kinds[1] else ""
        raise ValueError(
            f"The exported classifier does not do with text as the model and its tokenizer: {'; '.join(faults)}.{opens} "
            "Nothing was written."
        )
    replace(contract, measured=found.measured).write(folder)


def _dtype(model: DHRDForDualHeadClassification) -> torch.dtype:
    return next(model.score.parameters()).dtype


def _compare(
    written: DHRDForDualHeadClassification, opened: PreTrainedModel, pad_token_id: int, temperature: float
) -> None:
    """Raise where what was written, opened again, does not give the logits of what was to be (over the temperature)."""
    score = next(written.score.parameters())
    (opened if is_quantised(opened) else opened.to(score.device)).eval()
    batches = list(probe_batches(written.config.vocab_size, pad_token_id))
    expected, found = _probed(written, batches) / temperature, _probed(opened, batches)
    allowed = logits_tolerance(score.dtype) * max(1.0, expected.abs().max().item())
    off = (expected - found).abs().max().item()
    if not off <= allowed:
        raise ValueError(
            f"The exported classifier's logits differ from the model's by {off:.2g} (allowed {allowed:.2g}); "
            f"nothing was written. Please report it with the model type, {written.model.config.model_type!r}."
        )


def probe_batches(vocab_size: int, pad_token_id: int) -> Iterator[dict[str, Tensor]]:
    """A few inputs: rows of several lengths, right and left padded in one batch, and each alone."""
    generator = torch.Generator().manual_seed(0)
    lengths = (1, 5, 17)
    ids = torch.randint(0, vocab_size, (len(lengths), max(lengths)), generator=generator)
    ids = torch.where(ids == pad_token_id, (ids + 1) % vocab_size, ids)  # [3, 17]
    index = torch.arange(max(lengths))
    right = index < torch.tensor(lengths)[:, None]
    for mask in (right, right.flip(-1)):
        yield {"input_ids": torch.where(mask, ids, pad_token_id), "attention_mask": mask.long()}
    for row, length in zip(ids, lengths, strict=True):
        yield {"input_ids": row[None, :length], "attention_mask": torch.ones(1, length, dtype=torch.long)}
