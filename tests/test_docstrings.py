"""Every example in a docstring runs, and prints what it says. Where that is of a trained model, a server or a table of the
user's, tiny ones stand in, and that it runs is what is tested."""

import doctest
import importlib
import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from chat_stand_in import ChatStandIn
from chat_stand_in import rows as chat_rows
from hub_stand_in import HubStandIn
from serving_stand_in import ServingStandIn
from strangers import run_as_a_stranger
from test_import import MODULES

from dhrd_hf import DualHeadEncoder, DualHeadTrainer, export_classifier
from dhrd_hf.export import export_engine

RESULTS = Path(__file__).parents[1] / "examples/benchmarks/results/smollm2.jsonl"
STUDY = """\
name: mine
model: {model}
data: {{chat: {{train: train.jsonl, eval: train.jsonl}}}}
train: {{max_steps: 1, use_cpu: true, report_to: none}}
grid: [{{data: chat, setting: [pooled]}}]
"""
# These use what only their reader has: none of what they print is compared.
OWN = [
    "auto.AutoModelForDualHeadClassification",
    "cli.main.main",
    "data.encoding.DualHeadEncoder",
    "data.encoding.DualHeadEncoder.encode_dataset",
    "data.inputs.ensure_pad_token",
    "estimator.DualHeadClassifier",
    "evaluation.cot.decode_answers",
    "evaluation.loading.load_classifier",
    "evaluation.prediction.predict_table",
    "evaluation.prediction.predict_texts",
    "evaluation.verdict.compare_on_rows",
    "export.classifier.export_classifier",
    "export.contract.Contract",
    "export.engines.EngineClassifier",
    "export.engines.export_engine",
    "export.hub.push_classifier",
    "export.model_card.make_model_card",
    "export.model_card.write_model_card",
    "export.serving.Server",
    "export.serving.verify_server",
    "export.verification.verify_export",
    "rationales.filter.shorten",
    "rationales.generate.generate_rationales",
    "study.plan.Study",
    "study.plan.read_study",
    "study.runner.run_study",
    "study.statistics.mean_relative_gain",
    "training.label_words.init_classifier_from_label_words",
    "training.lora.add_lora",
    "training.rows.check_padding_free",
    "training.soft_targets.Teacher",
    "training.trainer.DualHeadTrainer",
]
MODELS = r"Qwen/Qwen3-0\.6B|HuggingFaceTB/SmolLM2-1\.7B-Instruct"  # a tiny one stands in for them


def examples():
    """The docstrings with examples, by the names of what they are of."""
    found = [it for module in MODULES for it in doctest.DocTestFinder().find(importlib.import_module(module))]
    return {it.name.removeprefix("dhrd_hf."): it for it in found if it.examples}


EXAMPLES = examples()


def test_there_are_examples_and_those_of_which_nothing_is_compared_are_among_them():
    assert len(EXAMPLES) > 70 and set(OWN) < set(EXAMPLES)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in OWN])
def test_an_example_prints_what_it_says(name, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    assert not any(example.options.get(doctest.SKIP) for example in EXAMPLES[name].examples)
    EXAMPLES[name].globs["tokenizer"] = tokenizer
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(EXAMPLES[name]).failed == 0


@pytest.fixture(scope="module")
def own_tokenizer(make_tokenizer):
    """What an encoder was told is remembered with its tokenizer, and the others' is for all tests."""
    return make_tokenizer()


@pytest.fixture(scope="module")
def folder(dual_of, lm_dir_of, own_tokenizer, label2id, dataset, exported_once, tmp_path_factory):
    """What the readers of these examples have on their disks: an export, runs, tables, a study."""
    here = tmp_path_factory.mktemp("reader")
    dual = dual_of("llama-shallow", id2label={index: name for name, index in label2id.items()})
    DualHeadEncoder(own_tokenizer, model=dual, max_length=256)
    for run in ("rte", "cot"):
        dual.save_pretrained(here / "runs" / run)
        own_tokenizer.save_pretrained(here / "runs" / run)
    export_classifier(dual, own_tokenizer, here / "my-classifier")
    dataset.select_columns("text").to_csv(here / "new.csv", index=False)
    (here / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat_rows(12)))
    (here / "study.yaml").write_text(STUDY.format(model=lm_dir_of("llama-shallow")))
    return here


@pytest.mark.parametrize("name", OWN)
def test_an_example_runs_where_its_reader_has_what_it_uses(
    name, folder, lm_dir_of, dual_of, own_tokenizer, make_args, dataset, label2id, tmp_path, monkeypatch
):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "here"))
    monkeypatch.setattr("dhrd_hf.embedded.smollm2_path", lambda: lm_dir_of("llama-shallow"))
    text = EXAMPLES[name].docstring
    if "onnx" in text:
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    if "EngineClassifier.from_pretrained(" in text:
        export_engine("my-classifier", "my-classifier-onnx", engine="onnx")
    if "export_classifier(" in text or ".export(" in text:
        shutil.rmtree("my-classifier")
    labels = ("entailment", "contradiction", "neutral") if "label_words" in text else label2id
    model = dual_of("llama-shallow", id2label=dict(enumerate(labels)))
    names = {"model": model, "tokenizer": own_tokenizer, "table": dataset, "dataset": dataset}
    if "{passage}" in text:
        names["dataset"] = dataset.add_column("passage", dataset["text"]).add_column("question", dataset["text"])
    names["encode"] = DualHeadEncoder(own_tokenizer, label2id, max_length=256)
    names["train"] = names["dev"] = train = names["encode"].encode_dataset(dataset)
    names["trainer"] = DualHeadTrainer(
        model=model, args=make_args(), train_dataset=train, processing_class=own_tokenizer
    )
    names |= {"texts": dataset["text"][:], "labels": dataset["label"][:], "rationales": dataset["rationale"][:]}
    names |= {"more_texts": names["texts"], "more_labels": names["labels"]}
    names["rows"] = [row for row in map(json.loads, RESULTS.read_text().splitlines()) if row["data"] == "cb"]
    with ExitStack() as servers:
        others = {}
        if "localhost" in text:
            chat = servers.enter_context(ChatStandIn())
            vllm = servers.enter_context(ServingStandIn(folder / "my-classifier", "vllm"))
            others = {"http://localhost:8000/v1": chat.url, "http://localhost:8000": vllm.url}
        if "push_classifier(" in text:
            hub = servers.enter_context(HubStandIn({"hf_token": "user"}))
            return run_beside(hub, [example.source for example in EXAMPLES[name].examples], tmp_path)
        for example in EXAMPLES[name].examples:
            source = re.sub(MODELS, str(lm_dir_of("llama-shallow")), example.source)
            for url, stand_in in others.items():
                source = source.replace(f'"{url}"', f'"{stand_in}"')
            exec(compile(source, name, "single"), names)


def run_beside(hub, lines, folder):
    """In a process of its own, for which the Hub is elsewhere."""
    where = {"HF_ENDPOINT": hub.url, "HF_HOME": folder / "home", "HF_TOKEN": "hf_token"}
    run_as_a_stranger("".join(lines), **where, HF_HUB_OFFLINE=0, HF_HUB_DISABLE_XET=1)
