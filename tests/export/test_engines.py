"""The same classifier on ONNX Runtime and OpenVINO."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dhrd_hf import export_classifier
from dhrd_hf.evaluation import load_classifier, predict_texts
from dhrd_hf.export import engines
from dhrd_hf.export.engines import EngineClassifier, export_engine

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
TEXTS = ["Oto owns a boat.", "The kiln is cold. So: the kiln glows.", "Rooks.", "All rooks in the yard sleep. " * 4]


@pytest.fixture(scope="module")
def classifier(dual_of, tokenizer, tmp_path_factory):
    """A dense export."""
    model = dual_of("llama", id2label=LABELS, prompt_template="Q: {text}", max_input_length=60)
    return export_classifier(model, tokenizer, tmp_path_factory.mktemp("dense") / "classifier")


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
    other = export_classifier(dual_of("llama", id2label=LABELS, seed=1), tokenizer, tmp_path / classifier.name)
    folders = [benchmark.exports_of(str(it), tmp_path) for it in (classifier, other)]
    assert folders[0] != folders[1] and all(it.name.startswith(f"{classifier.name}-") for it in folders)
    assert benchmark.exports_of(f"{classifier}/", tmp_path) == folders[0]
    export_classifier(dual_of("llama", id2label=LABELS, seed=2), tokenizer, other, overwrite=True)
    assert benchmark.exports_of(str(other), tmp_path) not in folders


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_int8_is_rounded_and_near(classifier, tmp_path, engine):
    for package in engines._NEEDS[engine]:
        pytest.importorskip(package)
    off = export_engine(classifier, tmp_path / "out", engine, int8=True)
    assert 1e-5 < off < 0.5  # rounded, but the same model
    assert EngineClassifier.from_pretrained(tmp_path / "out").dtype == torch.int8


def test_the_classifiers_own_folder_is_refused(classifier, monkeypatch):
    monkeypatch.setitem(engines._NEEDS, "onnx", ())
    before = {path: path.read_bytes() for path in classifier.rglob("*") if path.is_file()}
    for folder, verb in ((classifier, "is"), (classifier.parent, "holds")):
        with pytest.raises(ValueError, match=f"{verb} .*the model is read from"):
            export_engine(classifier, folder, "onnx", overwrite=True)
    assert {path: path.read_bytes() for path in classifier.rglob("*") if path.is_file()} == before


def test_what_can_not_be_done_is_a_line_and_leaves_nothing(classifier, tmp_path, monkeypatch):
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
