"""`AutoModelForDualHeadClassification`: a dual-head model from whatever checkpoint one has."""

from __future__ import annotations

import contextlib
import copy
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.utils import find_adapter_config_file, logging
from transformers.utils.hub import cached_file, resolve_revision

from .adapters import check_no_prompt
from .configuration_dhrd import ADAPTER_CONFIG_FOLDER, DHRDConfig
from .families import check_decoder
from .files import near_path
from .modeling_dhrd import DHRDForDualHeadClassification, WeightsError, backbone_of_run, check_loaded
from .opening import check_config, no_such_model, readable_model, without_its_code

logger = logging.get_logger(__name__)

# What belongs to the dual-head config, and not to the language model's `from_pretrained`.
_CONFIG_NAMES = (
    *("num_labels", "id2label", "label2id", "problem_type", "classifier_head", "classifier_activation"),
    *("classifier_dropout", "alpha", "beta", "class_weights", "label_smoothing", "prompt_template"),
    *("suffix_template", "rationale_after_label", "max_input_length", "tokenizer_settings"),
)
# What `AutoConfig.from_pretrained` and `find_adapter_config_file` understand of it.
_HUB_NAMES = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
# What a model is loaded with, and its config is not to be asked about.
_OF_WEIGHTS = ("dtype", "torch_dtype", "quantization_config", "output_loading_info")
_OF_BOTH = ("gguf_file", "trust_remote_code", "code_revision")


class AutoModelForDualHeadClassification(_BaseAutoModelClass):
    r"""Open a causal LM, a dual-head checkpoint, or a run directory with an adapter as a dual-head model.

    Example:

    ```python
    >>> from dhrd_hf import AutoModelForDualHeadClassification

    >>> model = AutoModelForDualHeadClassification.from_pretrained(
    ...     "Qwen/Qwen3-0.6B", id2label={0: "entailment", 1: "neutral", 2: "contradiction"}, alpha=1.0, beta=1.0
    ... )

    ```
    """

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
        r"""Load a dual-head model; a causal LM keeps its pretrained LM head as the reasoning head.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A Hub id or folder of a decoder-only causal LM (also GGUF, with `gguf_file=`), of a dual-head
                checkpoint, or of a run directory with a PEFT adapter.
            num_labels (`int`, *optional*), id2label (`dict[int, str]`, *optional*),
            label2id (`dict[str, int]`, *optional*), problem_type (`str`, *optional*): As in transformers.
            classifier_head, classifier_activation, classifier_dropout, alpha, beta, class_weights, label_smoothing,
            prompt_template, suffix_template, rationale_after_label, max_input_length: As in [`DHRDConfig`].
            kwargs (*optional*):
                What `AutoModelForCausalLM.from_pretrained` takes: `dtype`, `device_map`, `quantization_config`,
                `attn_implementation`, `revision`, ..., and overrides of the language model's config, such as
                `attention_dropout=0.1`. For an adapter also `is_trainable` (default `False`). Code that a checkpoint
                carries is run with `trust_remote_code=True` alone; nobody is asked.

        Returns:
            [`DHRDForDualHeadClassification`], or a `PeftModel` around one for a run directory with an adapter. With
            `output_loading_info=True` it comes with the dictionary of what was loaded, of an adapter's base model.

        Raises:
            FileNotFoundError: if there is no such folder, or no model in it, and the Hub gives none of that name.
            ValueError: if the model is not a decoder-only causal LM, has no stock sequence classifier, lacks its LM
                head's weights, or the labels disagree with each other or with the checkpoint.
            TypeError: on an argument that neither the config nor the model knows.
        """
        own = {name: kwargs.pop(name) for name in _CONFIG_NAMES if name in kwargs}
        hub = {name: kwargs[name] for name in _HUB_NAMES if name in kwargs}
        path = os.fspath(pretrained_model_name_or_path)

        kwargs.setdefault("trust_remote_code", False)
        adapter = find_adapter(path, **hub)
        if adapter is not None:
            return cls._from_adapter(path, adapter, own, hub, kwargs)
        config, overridden = kwargs.pop("config", None), False
        if config is None:
            config, overridden, kwargs = _config_and_rest(path, kwargs)
        if isinstance(config, DHRDConfig):
            if not config.reasoning_head:
                raise ValueError(
                    f"{path} is an exported classifier: its reasoning head was left out. Open it with "
                    "AutoModelForSequenceClassification, or train on from the dual-head checkpoint it came from."
                )
            wants_info, any_size = (
                kwargs.pop("output_loading_info", False),
                kwargs.get("ignore_mismatched_sizes", False),
            )
            model, info = DHRDForDualHeadClassification.from_pretrained(
                path, *model_args, config=_updated(config, own, any_size), output_loading_info=True, **kwargs
            )
            if not any_size:  # fewer layers than it has are taken as they are asked for
                check_loaded({**info, "unexpected_keys": ()} if overridden else info, path)
            return (model, info) if wants_info else model
        return cls._from_causal_lm(path, config, own, kwargs)

    @classmethod
    def from_config(cls, config: PreTrainedConfig, **kwargs: Any) -> DHRDForDualHeadClassification:
        """A dual-head model with random weights.

        Args:
            config ([`DHRDConfig`] or the config of a causal LM): What to build.
            kwargs (*optional*): `dtype`, `attn_implementation`; for a causal LM's config also [`DHRDConfig`]'s own.

        Returns:
            [`DHRDForDualHeadClassification`]: the model.

        Raises:
            ValueError: as [`~AutoModelForDualHeadClassification.from_pretrained`].
        """
        own = {name: kwargs.pop(name) for name in _CONFIG_NAMES if name in kwargs}
        if isinstance(config, DHRDConfig):
            return DHRDForDualHeadClassification._from_config(_updated(config, own), **kwargs)
        check_decoder(config, own.get("classifier_head", "linear"))
        return DHRDForDualHeadClassification._from_config(_new_config(config, own), **kwargs)

    @classmethod
    def _from_causal_lm(
        cls, path: str, config: PreTrainedConfig, own: dict, kwargs: dict
    ) -> DHRDForDualHeadClassification:
        check_decoder(config, own.get("classifier_head", "linear"))
        if kwargs.get("gguf_file") is not None and "quantization_config" not in kwargs:
            from transformers import GgufConfig

            kwargs["quantization_config"] = GgufConfig(dequantize=True)  # else it could neither be trained nor saved
        wants_info = kwargs.pop("output_loading_info", False)
        hub = {name: kwargs[name] for name in ("revision", "token", "local_files_only", "cache_dir") if name in kwargs}
        revision = resolve_revision(path, **hub)
        any_size = kwargs.pop("ignore_mismatched_sizes", False)
        causal_lm, info = AutoModelForCausalLM.from_pretrained(
            path, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
        # A causal LM without its LM head would get a random one, and "reasoning" would train noise.
        check_loaded({**info, "unexpected_keys": (), **({"mismatched_keys": ()} if any_size else {})}, path)
        if any(name.startswith("score.") for name in map(str, info["unexpected_keys"])):
            raise ValueError(
                f"{path} is a sequence classifier: its trained classification head would be thrown away. Start from the "
                "language model, or from the dual-head checkpoint it was exported from."
            )
        own["backbone_revision"] = getattr(revision, "resolved", revision)
        model = DHRDForDualHeadClassification(_new_config(causal_lm.config, own), causal_lm=causal_lm)
        if model._device_mesh is not None:  # sharded over processes, of which each has drawn a head
            for parameter in model.score.parameters():
                torch.distributed.broadcast(parameter.data, src=0)
        model.eval()
        return (model, info) if wants_info else model

    @classmethod
    def _from_adapter(cls, path: str, subfolder: str, own: dict, hub: dict, kwargs: dict) -> Any:
        from peft import PeftConfig, PeftModel

        is_trainable, wants_info = kwargs.pop("is_trainable", False), kwargs.pop("output_loading_info", False)
        of_adapter = {**hub, "subfolder": subfolder} if subfolder else hub
        adapter = PeftConfig.from_pretrained(path, **of_adapter)
        check_no_prompt(adapter, f"The adapter in {path}")
        config, _, kwargs = _run_config(path, kwargs)
        weights = cached_file(path, "adapter_model.safetensors", **of_adapter)
        with safe_open(weights, framework="pt") as file:
            if not any(".score." in name for name in file.keys()):  # noqa: SIM118 (it is no dictionary)
                raise ValueError(
                    f"The adapter in {path} has no classification head: it would be a random one. "
                    "Train it with modules_to_save=['score'], as add_lora does."
                )
        config = _updated(config, own)
        base_own = {name: getattr(config, name) for name in _CONFIG_NAMES if name not in ("num_labels", "label2id")}
        # The base model is another repository: of what says where to look, its revision and folder are its own.
        kwargs = {key: value for key, value in kwargs.items() if key not in ("revision", "subfolder")}
        base = adapter.base_model_name_or_path
        revision = adapter.revision or config.backbone_revision
        if kwargs.get("dtype", kwargs.get("torch_dtype", "auto")) == "auto":
            kwargs["dtype"] = config.dtype  # as it was trained, whatever the base model is saved in
        try:
            kwargs["config"] = _config_of_base(path, base, config, {**kwargs, "revision": revision})
            model, info = cls.from_pretrained(base, revision=revision, output_loading_info=True, **base_own, **kwargs)
        except OSError as error:
            raise OSError(
                f"{path} is an adapter of {base}, which can't be opened here: {str(error).splitlines()[0]}"
            ) from error
        except WeightsError as error:
            raise ValueError(_OTHER_BASE.format(path=path, base=base, error=error)) from error
        model.config.pad_token_id = config.pad_token_id
        if model.config.vocab_size != config.vocab_size:
            model.resize_token_embeddings(config.vocab_size)
        name = Path(subfolder).name or "default"
        try:
            opened = PeftModel.from_pretrained(model, path, name, is_trainable=is_trainable, **of_adapter)
        except RuntimeError as error:  # sizes that differ
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(_OTHER_BASE.format(path=path, base=base, error=reason)) from error
        opened.name_or_path = path  # as of a whole model; PEFT knows the base's alone
        return (opened, info) if wants_info else opened


_OTHER_BASE = (
    "The adapter in {path} does not fit {base}, which is another model than the one it was trained on: {error}"
)


def find_adapter(name_or_path: str | os.PathLike, **hub: Any) -> str | None:
    """Where in a folder or repository its adapter is: `""` at its top, the subfolder that PEFT calls by its name, or nowhere."""
    path, subfolder = Path(name_or_path), hub.get("subfolder") or ""
    if (path / subfolder / "adapter_config.json").is_file():  # transformers 5.18 looks at its top alone
        return subfolder
    with contextlib.suppress(OSError):  # no such folder or repository: `load_config` says it better
        if find_adapter_config_file(os.fspath(path), **{k: v for k, v in hub.items() if k != "force_download"}):
            return subfolder
    if not path.is_dir() or (path / "config.json").is_file() and any(path.glob("model*.safetensors*")):
        return None
    named = [it.parent.name for it in sorted(path.glob("*/adapter_config.json"))]
    named = [name for name in named if not name.startswith("checkpoint-")]  # of the Trainer
    if len(named) > 1:
        raise ValueError(
            f"{path} holds {len(named)} adapters ({', '.join(named)}): say which one is meant with "
            f"subfolder={named[0]!r}, or save it alone (save_pretrained(..., selected_adapters=[{named[0]!r}]))."
        )
    return named[0] if named else None


def load_config(name_or_path: str | os.PathLike, **kwargs: Any) -> PreTrainedConfig:
    """The config of a checkpoint or exported adapter, or an error that says what was looked for and where."""
    with readable_model(name_or_path):
        found = _read_config(name_or_path, **kwargs)
        check_config(found[0] if isinstance(found, tuple) else found, name_or_path)
    return found


def _read_config(name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
    path = Path(name_or_path)
    kwargs.setdefault("trust_remote_code", False)
    try:
        with without_its_code(name_or_path):
            found = AutoConfig.from_pretrained(name_or_path, **kwargs)
            config = found[0] if isinstance(found, tuple) else found
            if isinstance(config, DHRDConfig) and (config.reasoning_head, config.classifier_head) == (False, "linear"):
                return AutoConfig.from_pretrained(name_or_path, **{**kwargs, "subfolder": ADAPTER_CONFIG_FOLDER})
        return found
    except (OSError, ValueError) as error:
        elsewhere = {"gguf_file", "subfolder"} & kwargs.keys()
        if not elsewhere and (path.is_dir() or "does not appear to have a file" in str(error)):
            with contextlib.suppress(OSError, ValueError):  # where an exported adapter keeps it
                return AutoConfig.from_pretrained(name_or_path, **{**kwargs, "subfolder": ADAPTER_CONFIG_FOLDER})
        if path.is_dir():
            if not elsewhere and not (path / "config.json").exists():
                raise FileNotFoundError(f"the folder {path} holds no model: it has no config.json") from error
            raise
        if str(name_or_path).startswith((".", "/", "~")) or str(name_or_path).count("/") > 1:  # no Hub id
            raise FileNotFoundError(f"no such folder: {name_or_path}{near_path(path)}") from error
        raise FileNotFoundError(no_such_model(str(name_or_path), error)) from error


AutoModelForDualHeadClassification.register(DHRDConfig, DHRDForDualHeadClassification)


def _config_and_rest(path: str, kwargs: dict) -> tuple[PreTrainedConfig, bool, dict]:
    """A checkpoint's config with the caller's overrides, whether there are any, and the arguments that are left."""
    asked = {name: value for name, value in kwargs.items() if name not in _OF_WEIGHTS}
    config, rest = load_config(path, return_unused_kwargs=True, **asked)
    kept = {name: kwargs[name] for name in (*_HUB_NAMES, *_OF_WEIGHTS, *_OF_BOTH) if name in kwargs}
    overridden = bool(asked.keys() - rest.keys() - kept.keys() - {"attn_implementation", "experts_implementation"})
    return config, overridden, {**rest, **kept}


def _run_config(path: str, kwargs: dict) -> tuple[DHRDConfig, bool, dict]:
    """The dual-head config that DualHeadTrainer writes beside an adapter, or above its subfolder, as `_config_and_rest`."""
    kwargs = {name: value for name, value in kwargs.items() if name != "config"}
    found = (None, False, kwargs)
    for place in (kwargs, {name: value for name, value in kwargs.items() if name != "subfolder"}):
        with contextlib.suppress(OSError, ValueError):
            found = _config_and_rest(path, place)
            break
    config = found[0]
    if not isinstance(config, DHRDConfig):
        what = "none" if config is None else f"one of a {config.model_type} model"
        raise ValueError(
            f"{path} holds an adapter, but no dual-head config beside it (found {what}). Name the run directory that "
            "DualHeadTrainer wrote; an adapter that export_classifier wrote opens with PEFT on the stock classifier."
        )
    return found


def _config_of_base(path: str, base: str, config: DHRDConfig, kwargs: dict) -> PreTrainedConfig:
    """The config to open an adapter's base model with: what it was trained with, on the weights that there are."""
    found = load_config(base, **{name: kwargs[name] for name in (*_HUB_NAMES, *_OF_BOTH) if name in kwargs})
    dual = isinstance(found, DHRDConfig)
    own, trained = found.backbone_config if dual else found, config.backbone_config.model_type
    if trained not in (own.model_type, own.get_text_config().model_type):
        raise ValueError(
            f"The adapter in {path} was trained on a {trained} model, and {base} is a {own.model_type} one."
        )
    backbone = backbone_of_run(config, own)
    if not dual:
        return backbone
    found.backbone_config = backbone
    return found


def _new_config(backbone: PreTrainedConfig, own: dict) -> DHRDConfig:
    if all(own.get(name) is None for name in ("num_labels", "id2label", "label2id")):  # as stock classifiers take them
        own = {**own, "id2label": backbone.id2label}
    if own.get("problem_type") is None:
        own = {**own, "problem_type": getattr(backbone, "problem_type", None)}
    own |= {name: getattr(backbone, name) for name in ("return_dict", "output_hidden_states")}
    return DHRDConfig(backbone_config=backbone, name_or_path=backbone.name_or_path, dtype=backbone.dtype, **own)


def _updated(config: DHRDConfig, own: dict, new_head: bool = False) -> DHRDConfig:
    """The checkpoint's config with what the caller said; labels must be the checkpoint's, unless its head may be drawn anew."""
    config, own = copy.deepcopy(config), dict(own)  # the caller's stays as it is
    labels = {name: own.pop(name) for name in ("num_labels", "id2label", "label2id") if own.get(name) is not None}
    checked = DHRDConfig(backbone_config=None, **labels) if labels else config
    if checked.num_labels != config.num_labels and new_head:
        config.id2label, config.label2id, labels = checked.id2label, checked.label2id, {}
    elif checked.num_labels != config.num_labels:
        raise ValueError(
            f"The checkpoint's classification head has {config.num_labels} labels ({config.id2label}), "
            f"but {checked.num_labels} were asked for. Drop num_labels, id2label and label2id, or start from the LM."
        )
    if "id2label" in labels or "label2id" in labels:
        unnamed = all(name == f"LABEL_{index}" for index, name in config.id2label.items())
        if not unnamed and checked.id2label != config.id2label:
            raise ValueError(
                f"The checkpoint's classification head was trained for {config.id2label}, but {checked.id2label} was "
                "asked for: its rows would change their meaning. Drop id2label and label2id; to rename labels on "
                "purpose, set model.config.id2label and label2id after loading."
            )
        config.id2label, config.label2id = checked.id2label, checked.label2id
    if own.get("classifier_head", config.classifier_head) != config.classifier_head:
        raise ValueError(
            f"The checkpoint has the {config.classifier_head!r} head, but classifier_head={own['classifier_head']!r} was "
            "asked for. Drop it, or start from the LM."
        )
    asked = own.get("problem_type")
    if None not in (asked, config.problem_type) and asked != config.problem_type:
        raise ValueError(
            f"The checkpoint's classification head was trained for {config.problem_type}, but problem_type={asked!r} was "
            "asked for. Drop it, or start from the LM."
        )
    for name, value in own.items():
        if value is not None or name == "class_weights":
            setattr(config, name, value)
    config._check_objective()
    return config
