"""The same classifier on ONNX Runtime and OpenVINO."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dhrd_hf import export_classifier
from dhrd_hf.evaluation import load_classifier, predict_texts
from dhrd_hf.export import Contract, engines, verify_export
from dhrd_hf.export.engines import EngineClassifier, export_engine

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
TEXTS = ["Oto owns a boat.", "The kiln is cold. So: the kiln glows.", "Rooks.", "All rooks in the yard sleep. " * 4]


@pytest.fixture(scope="module")
def classifier(dual_of, tokenizer, exported_once, tmp_path_factory):
    """A dense export."""
    model = dual_of("llama-shallow", id2label=LABELS, prompt_template="Q: {text}", max_input_length=60)
    folder = tmp_path_factory.mktemp("dense") / "classifier"
    return export_classifier(model, tokenizer, folder, temperature=1.5, golden=["A text of one's own."])


@pytest.fixture(scope="module", params=engines.ENGINES)
def exported(request, classifier, tmp_path_factory):
    """The engine, its folder, and how far its logits are from torch's."""
    for package in engines._NEEDS[request.param]:
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp(request.param) / "out"
    return request.param, folder, export_engine(classifier, folder, request.param)


@torch.no_grad()
def test_any_batch_and_length_gives_torchs_logits(exported, classifier):
    _, folder, off = exported
    assert off < 1e-5
    stock, engine = (
        AutoModelForSequenceClassification.from_pretrained(classifier),
        EngineClassifier.from_pretrained(folder),
    )
    for batch, length in ((1, 1), (1, 23), (4, 7), (3, 40)):
        ids = torch.randint(3, 390, (batch, length))
        mask = torch.ones_like(ids)
        mask[0, length // 2 + 1 :] = 0
        ids = ids * mask
        expected = stock(ids, attention_mask=mask).logits
        torch.testing.assert_close(engine(ids, attention_mask=mask).logits, expected, rtol=1e-4, atol=1e-5)


def test_predict_runs_it_with_the_same_labels_and_cuts(exported, classifier):
    _, folder, _ = exported
    torch_side, engine_side = (list(predict_texts(*load_classifier(name), TEXTS)) for name in (classifier, folder))
    for expected, found in zip(torch_side, engine_side, strict=True):
        assert (found.label, found.cut) == (expected.label, expected.cut)
        assert found.logits == pytest.approx(expected.logits, rel=1e-4, abs=1e-5)
    opened, _ = load_classifier(folder)
    assert (opened.config.id2label, opened.config.prompt_template) == (LABELS, "Q: {text}")
    with pytest.raises(ValueError, match="runs on the CPU"):
        load_classifier(folder, device="cuda")


@torch.no_grad()
def test_its_card_says_how_it_opens_and_that_works(exported, classifier):
    """The snippet is run as it stands; what the classifier's own card says is still there."""
    engine, folder, _ = exported
    card = (folder / "README.md").read_text()
    assert ("INFERENCE_PRECISION_HINT" in card) == (engine == "openvino")
    assert card.split("## Labels")[1] == (classifier / "README.md").read_text().split("## Labels")[1]
    found = {}
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace('name = "."', f"name = {str(folder)!r}"), found)
    stock = AutoModelForSequenceClassification.from_pretrained(classifier)
    expected = stock(**AutoTokenizer.from_pretrained(classifier)(found["text"], return_tensors="pt")).logits
    assert found["logits"].tolist()[0] == pytest.approx(expected[0].tolist(), abs=1e-5)


def test_its_contract_is_torchs_and_is_replayed(exported, classifier, tmp_path):
    engine, folder, _ = exported
    dense, contract = Contract.read(classifier), Contract.read(folder)
    assert (contract.engine, contract.dtype, contract.temperature) == (engine, "float32", 1.5)
    assert [(it.about, it.text, it.input_ids) for it in contract.golden] == [
        (it.about, it.text, it.input_ids) for it in dense.golden
    ]
    assert contract.own_texts == ["A text of one's own."]
    found = verify_export(folder)
    assert found.faults() == [] and found.answered > 30 and found.largest_difference < 1e-4
    other = shutil.copytree(folder, tmp_path / "other")
    text = (other / "tokenizer_config.json").read_text()
    (other / "tokenizer_config.json").write_text(json.dumps(json.loads(text) | {"truncation_side": "left"}))
    assert any("become other token ids" in fault for fault in verify_export(other).faults())


def test_it_has_as_many_threads_as_asked_for(exported):
    _, folder, _ = exported
    with pytest.raises(
        ValueError, match="is an export for another engine, which runs as it was exported: leave dtype out"
    ):
        load_classifier(folder, dtype="bfloat16")
    opened = EngineClassifier.from_pretrained(folder, threads=1)
    assert (opened.threads, opened.dtype) == (1, torch.float32)


def test_the_benchmark_keeps_exports_apart(classifier, dual_of, tokenizer, tmp_path, monkeypatch):
    """Of one name in two folders, and one that was trained again in its folder."""
    examples = Path(__file__).parents[2] / "examples" / "benchmarks"
    monkeypatch.syspath_prepend(str(examples))
    spec = importlib.util.spec_from_file_location("benchmark_of_engines", examples / "engines.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    other = export_classifier(dual_of("llama-shallow", id2label=LABELS, seed=1), tokenizer, tmp_path / classifier.name)
    folders = [benchmark.exports_of(str(it), tmp_path) for it in (classifier, other)]
    assert folders[0] != folders[1] and all(it.name.startswith(f"{classifier.name}-") for it in folders)
    assert benchmark.exports_of(f"{classifier}/", tmp_path) == folders[0]
    export_classifier(dual_of("llama-shallow", id2label=LABELS, seed=2), tokenizer, other, overwrite=True)
    assert benchmark.exports_of(str(other), tmp_path) not in folders


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_int8_is_rounded_and_near(classifier, tmp_path, engine):
    for package in engines._NEEDS[engine]:
        pytest.importorskip(package)
    off = export_engine(classifier, tmp_path / "out", engine, int8=True)
    assert 1e-5 < off < 0.5  # rounded, but the same model
    assert EngineClassifier.from_pretrained(tmp_path / "out").dtype == torch.int8
    contract, dense = Contract.read(tmp_path / "out"), Contract.read(classifier)
    assert contract.dtype == "int8" and 1e-5 < contract.measured["logits"] < 0.5
    for rounded, whole in zip(contract.golden, dense.golden, strict=True):  # torch's, not what int8 makes of them
        assert (rounded.logits or []) == pytest.approx(whole.logits or [], rel=1e-4, abs=1e-5)
    assert verify_export(tmp_path / "out").faults() == []
    assert verify_export(tmp_path / "out", tolerance=1e-6).faults() != []


@pytest.fixture(scope="module")
def for_javascript(classifier, tmp_path_factory):
    """An export in the layout of transformers.js."""
    for package in engines._NEEDS["onnx"]:
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("javascript") / "out"
    export_engine(classifier, folder, "onnx", layout="transformers.js")
    return folder


def test_the_layout_of_transformers_js(for_javascript, classifier):
    files = {path.relative_to(for_javascript).as_posix() for path in for_javascript.rglob("*") if path.is_file()}
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx", "config.json", "tokenizer.json", "README.md"} <= files
    assert not files & {"model.onnx", "model.onnx.data", "chat_template.jinja"}
    config = json.loads((for_javascript / "config.json").read_text())
    # A class that transformers.js has, and that hands ids and mask to the graph.
    assert config["model_type"] == "distilbert" and config["architectures"] == ["DistilBertForSequenceClassification"]
    assert config["id2label"] == {"0": "entailed", "1": "refuted", "2": "unknown"}
    assert config["max_position_embeddings"] == 512 and config["prompt_template"] == "Q: {text}"
    assert "transformers.js_config" not in config
    opened, tokenizer = load_classifier(for_javascript)
    stock, _ = load_classifier(classifier)
    for expected, found in zip(*(predict_texts(it, tokenizer, TEXTS) for it in (stock, opened)), strict=True):
        assert found.logits == pytest.approx(expected.logits, abs=1e-5)
    assert "@huggingface/transformers" in (for_javascript / "README.md").read_text()


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)  # whose layout it is
def test_weights_too_large_for_one_file_lie_beside_the_graph(exported, classifier, tmp_path, monkeypatch):
    _, folder, _ = exported
    large, small = (shutil.copytree(folder, tmp_path / name) for name in ("large", "small"))
    with open(large / "model.onnx.data", "ab") as file:
        file.write(bytes(1_000_000))  # which the graph does not refer to
    monkeypatch.setattr(engines, "_ONE_FILE", 1_000_000)
    engines.rearrange(large, small)
    config = json.loads((large / "config.json").read_text())
    assert config["transformers.js_config"] == {"use_external_data_format": {"model.onnx": 1}}
    weights = (classifier / "model.safetensors").stat().st_size
    assert (large / "onnx" / "model.onnx_data").stat().st_size > 0.9 * weights
    assert not (large / "onnx" / "model_quantized.onnx_data").exists()


def test_a_layout_that_is_not_there_is_a_line(classifier, tmp_path):
    for engine, layout, int8 in (("openvino", "transformers.js", False), ("onnx", "web", False)):
        with pytest.raises(ValueError, match="there is 'transformers.js', for engine='onnx'"):
            export_engine(classifier, tmp_path / "out", engine, layout=layout, int8=int8)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_node_gives_torchs_logits(for_javascript, classifier, tmp_path):
    """DHRD_TRANSFORMERS_JS names a folder where `npm install --ignore-scripts @huggingface/transformers` was run."""
    packages = os.environ.get("DHRD_TRANSFORMERS_JS")
    if packages is None or shutil.which("node") is None:
        pytest.skip("set DHRD_TRANSFORMERS_JS to a folder with the npm package @huggingface/transformers")
    script = Path(__file__).parents[2] / "examples" / "compatibility" / "open.mjs"
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    command = ["node", script, packages, for_javascript, tmp_path / "texts.json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    stock, tokenizer = load_classifier(classifier)
    predicted = list(predict_texts(stock, tokenizer, TEXTS))
    assert sum(found["logits"], []) == pytest.approx([it for row in predicted for it in row.logits], abs=1e-4)
    assert found["labels"] == [it.label for it in predicted]


def test_the_classifiers_own_folder_is_refused(classifier, monkeypatch):
    monkeypatch.setitem(engines._NEEDS, "onnx", ())
    before = {path: path.read_bytes() for path in classifier.rglob("*") if path.is_file()}
    for folder, verb in ((classifier, "is"), (classifier.parent, "holds")):
        with pytest.raises(ValueError, match=f"{verb} .*the model is read from"):
            export_engine(classifier, folder, "onnx", overwrite=True)
    assert {path: path.read_bytes() for path in classifier.rglob("*") if path.is_file()} == before


def test_what_can_not_be_done_is_a_line_and_leaves_nothing(classifier, tmp_path, monkeypatch):
    for package in engines._NEEDS["onnx"]:
        pytest.importorskip(package)
    with pytest.raises(ValueError, match="'tensorrt' is not one of onnx, openvino"):
        export_engine(classifier, tmp_path / "out", "tensorrt")
    monkeypatch.setitem(engines._NEEDS, "onnx", ("no_such_package",))
    with pytest.raises(ModuleNotFoundError, match=r"onnx needs no_such_package: pip install 'dhrd-hf\[onnx\]'"):
        export_engine(classifier, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="no export for another engine"):
        EngineClassifier.from_pretrained(tmp_path)


def test_a_family_that_the_exporter_lacks_is_a_line_and_leaves_nothing(classifier, tmp_path, monkeypatch):
    for package in engines._NEEDS["onnx"]:
        pytest.importorskip(package)
    exporters = importlib.import_module("transformers.exporters")

    def export(*args):
        raise NotImplementedError("no translation for aten.strange\nand a long story")

    monkeypatch.setattr(exporters.OnnxExporter, "export", export)
    with pytest.raises(ValueError, match="llama can't be exported for onnx: no translation for aten.strange. Use"):
        export_engine(classifier, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())
