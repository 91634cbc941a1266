"""A stock classifier for other engines: ONNX Runtime and OpenVINO, through transformers' own exporters."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ..data.inputs import known_limit
from ..modeling_dhrd import logits_tolerance
from ..opening import THRESHOLDS, check_finite, load_tokenizer, open_stock, readable_model
from . import ENGINES
from .classifier import check_apart, probe_batches, whole_folder
from .contract import CONTRACT, Contract, contract_of
from .model_card import write_engine_card
from .portable import save_tokenizer, widen_config
from .replay import golden_of, replay

# What each engine imports, and how it is installed.
_NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "nncf")}
# The file in which transformers' exporters say what they wrote.
MANIFEST = "export.json"
# The layout in which transformers.js opens an ONNX export, in Node and in browsers.
LAYOUT = "transformers.js"

# It has no decoder among its sequence classifiers. This one hands ids and mask to the graph and takes its logits.
_CLASS = ("distilbert", "DistilBertForSequenceClassification")
_KEPT = ("id2label", "label2id", "problem_type", "pad_token_id", "prompt_template", *THRESHOLDS, "vocab_size")
_NO_LIMIT = 1_000_000_000  # of positions, where the model has none; without a number it would be that class's 512
# What one protobuf message may hold; larger weights lie beside the graph.
_ONE_FILE = 2_000_000_000


class EngineClassifier(nn.Module):
    """A classifier that runs on another engine, called as the model it came from.

    Example:

    ```python
    >>> from dhrd_hf.export import EngineClassifier
    >>> classify = EngineClassifier.from_pretrained("my-classifier-onnx")
    >>> classify(**tokenizer("It rains.", return_tensors="pt")).logits

    ```

    Args:
        exported (`transformers.exporters.ExportedModel`): What transformers exported, on its engine.
    """

    score = None  # a decoder's classifier: `predict_texts` pads it on the right

    def __init__(self, exported: Any):
        super().__init__()
        self.exported = exported
        self.config = exported.config
        self.eval()

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, threads: int | None = None) -> EngineClassifier:
        """Open what [`export_engine`] wrote."""
        from transformers.exporters import ExportedModel

        engine = engine_of(folder)
        if engine not in ENGINES:
            raise FileNotFoundError(f"{folder} holds no export for another engine: it has no {MANIFEST}.")
        _require(engine)
        return cls(ExportedModel.from_pretrained(folder, device="cpu", **_runner_options(engine, threads)))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        program = self.exported.program
        if self.exported.export_format == "onnx":
            constants = (it.const_value for it in program.graph.initializers.values())
            held = {it.dtype.name.lower() for it in constants if it is not None}
        else:
            constants = (it for it in program.get_ordered_ops() if it.get_type_name() == "Constant")
            held = {it.get_element_type().get_type_name() for it in constants}
        return torch.int8 if held & {"int8", "uint8", "i8", "u8"} else torch.float32

    @property
    def threads(self) -> int:
        """Number of threads of a computation, as the engine says; 0: ONNX Runtime takes one for each core."""
        (runner,) = self.exported.runners.values()
        if self.exported.export_format == "onnx":
            return runner.session.get_session_options().intra_op_num_threads
        return runner.compiled_model.get_property("INFERENCE_NUM_THREADS")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Class logits of inputs of any size `[B, L]`."""
        output = self.exported(input_ids=input_ids, attention_mask=attention_mask)
        return SequenceClassifierOutput(logits=torch.as_tensor(output.logits))


def engine_of(classifier: str | os.PathLike) -> str:
    manifest = Path(classifier) / MANIFEST
    return json.loads(manifest.read_text("utf-8"))["export_format"] if manifest.is_file() else "torch"


@torch.no_grad()
def export_engine(
    classifier: str | os.PathLike,
    output_dir: str | os.PathLike,
    engine: str = "onnx",
    *,
    int8: bool = False,
    layout: str | None = None,
    overwrite: bool = False,
) -> float:
    """Write a classifier that `export_classifier` wrote for another engine, and compare the two.

    The graph takes any batch size and length. With float32 weights logits that differ from torch's, on golden texts and a few
    random inputs, are refused; int8
    rounds, so measure what it costs on your own rows (`dhrd export --int8 --eval-data`). OpenVINO rounds the weights
    alone. ONNX Runtime multiplies in integers, weights of 7 bits and activations of 8, except where a layer's inputs
    outnumber its outputs, as after a feed-forward layer's activation: a few values there are some thousand times the others,
    which 8 bits can't hold.

    Example:

    ```python
    >>> from dhrd_hf.export import export_engine
    >>> export_engine("my-classifier", "my-classifier-onnx", engine="onnx")
    2.1e-06

    ```

    Args:
        classifier (`str` or `os.PathLike`): Folder of a dense export, or of another stock sequence classifier.
        output_dir (`str` or `os.PathLike`): The folder to write; it must not exist or be empty.
        engine (`str`, *optional*, defaults to `"onnx"`): `"onnx"` (ONNX Runtime) or `"openvino"`.
        int8 (`bool`, *optional*, defaults to `False`): Weights of a byte.
        layout (`str`, *optional*): `"transformers.js"`: with ONNX, the names that transformers.js looks for:
            `onnx/model.onnx`, an int8 one beside it (`onnx/model_quantized.onnx`, which it takes in browsers), and a config
            of a model type that is a sequence classifier there.
        overwrite (`bool`, *optional*, defaults to `False`): Replace the folder if it holds something.

    Returns:
        `float`: the largest difference of a logit on golden texts and a few random inputs, relative to the largest logit (at
            least 1).

    Raises:
        ModuleNotFoundError: if the engine is not installed.
        FileExistsError: if the folder holds something and `overwrite` is off, or it is a file.
        ValueError: if the engine or the layout is unknown or they don't go together, the folder is the classifier's own or holds it, the family can't be exported for
            the engine, or float32 logits differ.
        FloatingPointError: if weights or logits are not finite.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is not one of {', '.join(ENGINES)}.")
    if layout is not None and (layout, engine, int8) != (LAYOUT, "onnx", False):
        raise ValueError(f"layout={layout!r}: there is {LAYOUT!r}, for engine='onnx', float32 and int8 side by side.")
    check_apart(output_dir, classifier)
    _require(engine)
    with readable_model(classifier):
        tokenizer = load_tokenizer(classifier)
        model = open_stock(classifier, dtype=torch.float32)
    check_finite(model.named_parameters(), classifier)
    model.config.use_cache = False  # no cache among the outputs
    text_config = model.config.get_text_config()
    batches = list(probe_batches(text_config.vocab_size, text_config.pad_token_id))
    logits = [model(**batch).logits for batch in batches]
    _check_finite_logits(logits, str(classifier))
    with whole_folder(output_dir, overwrite) as folder:
        _export(model, batches[0], engine, int8).save_pretrained(folder)
        widen_config(folder)
        save_tokenizer(tokenizer, folder)
        if layout is not None:
            with tempfile.TemporaryDirectory(dir=folder) as quantised:
                _export(model, batches[0], engine, True).save_pretrained(quantised)
                rearrange(folder, Path(quantised))
        opened = EngineClassifier.from_pretrained(folder)
        answers = [opened(**batch).logits for batch in batches]
        _check_finite_logits(answers, f"the {engine} export")
        off = max(
            (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())
            for expected, found in zip(logits, answers, strict=True)
        )
        if not int8 and not off <= logits_tolerance(torch.float32):
            raise ValueError(
                f"The {engine} export's logits differ from torch's by {off:.2g} of the largest; nothing was written. "
                f"Please report it with the model type, {model.config.model_type!r}."
            )
        off = max(off, _write_contract(classifier, model, tokenizer, opened, engine, int8, folder))
        write_engine_card(Path(classifier), folder)
    return off


def _check_finite_logits(logits: list[Tensor], where: str) -> None:
    if not all(it.isfinite().all() for it in logits):  # which compares with nothing
        raise FloatingPointError(f"The logits of {where} are not finite on random inputs; nothing was written.")


def _write_contract(
    classifier: str | os.PathLike,
    model: PreTrainedModel,
    tokenizer: Any,
    opened: Any,
    engine: str,
    int8: bool,
    folder: Path,
) -> float:
    """Write the contract with torch's logits, and how far the engine's are, relative to the largest."""
    before = Contract.read(classifier) if (Path(classifier) / CONTRACT).is_file() else None
    own = [] if before is None else before.own_texts
    golden = golden_of(model, tokenizer, known_limit(tokenizer), own=own)
    pooled = {} if hasattr(model, "score") else {"pooled_token": f"as in {type(model).__name__}"}
    contract = contract_of(
        model.config,
        tokenizer,
        golden,
        temperature=1.0 if before is None else before.temperature,
        thresholds=getattr(model.config, "label_thresholds", None),
        engine=engine,
        dtype="int8" if int8 else "float32",
        **pooled,
    )
    served = load_tokenizer(folder)
    found = replay(opened, served, contract, sys.float_info.max if int8 else None)
    faults = found.faults(max_flips=len(golden))
    if faults:
        raise ValueError(f"The {engine} export is not torch's classifier: {'; '.join(faults)}. Nothing was written.")
    replace(contract, measured=found.measured).write(folder)
    return found.measured["logits"] / max([1.0, *(abs(it) for text in golden for it in text.logits or ())])


def _export(model: PreTrainedModel, sample: dict[str, Tensor], engine: str, int8: bool) -> Any:
    from transformers import exporters

    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    config: dict[str, Any] = {"dynamic": True, "dynamic_shapes": {name: dict(shape) for name in sample}}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where the exporters' chatter belongs
            if engine == "onnx":
                if int8:
                    config["quantizer"] = _onnx_quantizer()
                return exporters.OnnxExporter().export(model, sample, exporters.OnnxConfig(**config))
            if int8:
                config["quantizer"] = exporters.NNCFOpenVINOQuantizer(exporters.NNCFWeightCompressionConfig())
            return exporters.OpenVINOExporter().export(model, sample, exporters.OpenVINOConfig(**config))
    except Exception as error:  # torch.export, onnxscript, nncf: each has its own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{model.config.model_type} can't be exported for {engine}: {reason}. Use the dense export with torch."
        ) from error


def _onnx_quantizer() -> Any:
    """ONNX Runtime's dynamic int8, which leaves the layers that read more values than they write in float32."""
    from transformers import exporters

    class Quantizer(exporters.OnnxRuntimeQuantizer):
        def quantize(self, model: Any, sample_inputs: dict[str, Any], export_format: Any) -> Any:
            # Processors without VNNI add two products in 16 bits, which full 8-bit weights overflow: reduce_range.
            self.config = exporters.OnnxRuntimeDynamicConfig(
                per_channel=True,
                reduce_range=True,
                nodes_to_exclude=[node.name for node in model.graph if _narrows(node)],
            )
            return super().quantize(model, sample_inputs, export_format)

    return Quantizer()


def _narrows(node: Any) -> bool:
    """Whether a node of an ONNX graph multiplies by a constant matrix with more inputs than outputs."""
    if node.op_type not in ("MatMul", "Gemm") or node.inputs[1].const_value is None:
        return False
    rows, columns = node.inputs[1].const_value.shape
    transposed = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    return rows < columns if transposed else rows > columns


def _runner_options(engine: str, threads: int | None) -> dict[str, Any]:
    if engine == "openvino":
        # It would compute in bfloat16 on processors that have it.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        return {"config": config if threads is None else config | {"INFERENCE_NUM_THREADS": threads}}
    if threads is None:
        return {}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"session_options": options}


def _require(engine: str) -> None:
    """Raise where an engine's packages are missing, saying what to type."""
    missing = [name for name in _NEEDS.get(engine, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"{engine} needs {', '.join(missing)}: pip install 'dhrd-hf[{engine}]'")


def rearrange(folder: Path, quantised: Path) -> None:
    """Turn a whole float32 ONNX export, with an int8 one of the same classifier, into that layout."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    beside = {
        f"{name}.onnx": 1
        for name, source in (("model", folder), ("model_quantized", quantised))
        if _write_graph(source / "model.onnx", folder / "onnx" / f"{name}.onnx")
    }
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).unlink(missing_ok=True)
    (folder / "onnx" / "model.onnx.data").touch()  # transformers' runner asks for it, also where it would hold nothing
    positions = config.get("max_position_embeddings", _NO_LIMIT)
    config = {name: config[name] for name in _KEPT if name in config}
    config |= {"model_type": _CLASS[0], "architectures": [_CLASS[1]], "max_position_embeddings": positions}
    if beside:
        config["transformers.js_config"] = {"use_external_data_format": beside}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    entries = json.loads((folder / MANIFEST).read_text("utf-8"))
    entries["components"]["model"]["file"] = "onnx/model.onnx"
    (folder / MANIFEST).write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


def _write_graph(source: Path, target: Path) -> bool:
    import onnx

    target.parent.mkdir(exist_ok=True)
    data = source.with_name(f"{source.name}.data")
    beside = data.is_file() and data.stat().st_size + source.stat().st_size > _ONE_FILE
    graph = onnx.load(source)
    if beside:
        onnx.save_model(graph, target, save_as_external_data=True, location=f"{target.name}_data")
    else:
        onnx.save_model(graph, target)
    return beside
