"""The model card: its snippets run, its numbers are scikit-learn's, its metadata is the Hub's, and nothing is invented."""

import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from scipy.special import softmax
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss
from strangers import run_as_a_stranger

from dhrd_hf import export_classifier
from dhrd_hf.evaluation import evaluation_report
from dhrd_hf.export import CardFacts, make_model_card, write_model_card
from dhrd_hf.export.card_facts import inherited_license
from dhrd_hf.export.exported_files import checked_files
from dhrd_hf.training import add_lora

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
PROMPT = 'Say "so".\n{premise} So: {the claim}'
KINDS = ("dense", "adapter", "code")


@pytest.fixture(scope="module")
def predicted():
    """Logits and labels of 60 rows that are right at times, and a group for each."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 60)
    logits = generator.normal(size=(60, 3)) + 1.5 * np.eye(3)[labels]
    return logits, labels, [["north", "south|east", None][index % 3] for index in range(60)]


@pytest.fixture(scope="module")
def facts(predicted):
    logits, labels, groups = predicted
    return CardFacts(
        model_name="Herons",
        license="apache-2.0",
        language=["en"],
        datasets=["someone/herons"],
        rationale_source="written by a teacher model",
        intended_use=["Sorting notes on herons."],
        limits=["Not for other birds."],
        train_data="train.jsonl",
        train_rows=100,
        rows_without_rationale=10,
        hyperparameters={"learning_rate": 2e-4, "odd|name": "a\nb"},
        versions={"torch": "2.13.0"},
        calibration_data="calibration.jsonl",
        calibration_rows=40,
        eval_data="someone/herons:plain@test",
        results=evaluation_report(
            logits,
            labels,
            temperature=2.0,
            groups=groups,
            label_names=list(LABELS.values()),
            others={"always the first": np.zeros_like(labels)},
        ),
        inputs_cut=2,
        group_column="region",
    )


@pytest.fixture(scope="module")
def make_export(dual_of, tokenizer, tmp_path_factory):
    """An export of a kind, with what its card says."""

    def make(kind, facts=None, temperature=1.0, **kwargs):
        head = {"classifier_head": "mlp"} if kind == "code" else {}
        kwargs = {"id2label": LABELS, "prompt_template": PROMPT, "max_input_length": 77, **head, **kwargs}
        model = dual_of("llama", **kwargs)
        if kind == "adapter":
            model = add_lora(model, r=4)
        out = tmp_path_factory.mktemp(kind) / "out"
        format = "adapter" if kind == "adapter" else "dense"
        return export_classifier(model, tokenizer, out, format, temperature=temperature, card=facts)

    return make


@pytest.fixture(scope="module", params=KINDS)
def full(request, make_export, facts):
    return request.param, make_export(request.param, facts, temperature=2.0)


def rows_of(text, heading):
    """The rows of the first table behind a heading, as lists of cells."""
    lines = text[text.index(heading) :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            return table[2:]
        table.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table[2:]


RUN_AS_A_STRANGER = """
import os, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    text = open("README.md").read()
    print(">>>")
    exec(text.split("```python\\n")[1].split("```")[0])
assert "dhrd_hf" not in sys.modules
"""


def test_the_snippets_run_where_dhrd_hf_was_never_heard_of(make_export):
    multi_label = {"problem_type": "multi_label_classification"}
    regression = {"problem_type": "regression", "id2label": {0: "price"}, "num_labels": 1}
    cases = [(kind, kwargs) for kwargs in (multi_label, regression) for kind in ("dense", "adapter")]
    cases += [("dense", {"prompt_template": "{text}"}), *((kind, {}) for kind in KINDS)]
    folders = [make_export(kind, **kwargs) for kind, kwargs in cases]
    printed = run_as_a_stranger(RUN_AS_A_STRANGER, *folders).split(">>>\n")[1:]
    for (kind, kwargs), folder, said in zip(cases, folders, printed, strict=True):
        if kwargs is not regression:
            named = [name in said for name in LABELS.values()]
            assert all(named) if kwargs is multi_label else any(named)
        assert any(character.isdigit() for character in said)
        text = (folder / "README.md").read_text()
        assert ("name, trust_remote_code=True" in text) == (kind == "code")
        assert ("## Labels" in text) == (kwargs is not regression)
        assert ("## Prompt" in text) == ("prompt_template" not in kwargs)


def test_the_metadata_is_what_the_hub_reads(full, lm_dir_of):
    kind, folder = full
    found = metadata_load(folder / "README.md")
    assert found["pipeline_tag"] == "text-classification"
    assert found["library_name"] == ("peft" if kind == "adapter" else "transformers")
    assert found["tags"] == ["dual-head-reasoning-distillation", *(["lora"] if kind == "adapter" else [])]
    assert (found["license"], found["language"], found["datasets"]) == ("apache-2.0", ["en"], ["someone/herons"])
    assert "base_model" not in found  # a folder here
    card = ModelCard.load(folder / "README.md")
    assert ModelCardData(**yaml_of(card)).to_dict() == card.data.to_dict() == found
    name, results = model_index_to_eval_results(found["model-index"])
    assert eval_results_to_model_index(name, results) == found["model-index"]
    assert name == "Herons" and [result.metric_type for result in results] == ["accuracy", "f1"]
    where = {(r.task_type, r.dataset_type, r.dataset_config, r.dataset_split) for r in results}
    assert where == {("text-classification", "someone/herons", "plain", "test")}


def yaml_of(card):
    data = card.data.to_dict()
    name, results = model_index_to_eval_results(data.pop("model-index"))
    return {**data, "model_name": name, "eval_results": results}


@pytest.fixture(scope="module")
def bounds_of_f1(predicted):
    """Another generator's bootstrap: the same up to what chance does to percentiles."""
    logits, labels, _ = predicted
    generator = np.random.default_rng(99)
    picks = [generator.integers(0, len(labels), len(labels)) for _ in range(1000)]
    found = [f1_score(labels[pick], logits.argmax(-1)[pick], average="macro") for pick in picks]
    return np.percentile(found, [2.5, 97.5])


def test_its_numbers_are_scikit_learns(full, predicted, bounds_of_f1):
    _, folder = full
    text = (folder / "README.md").read_text()
    logits, labels, groups = predicted
    said = logits.argmax(-1)
    results = {
        name: (float(value), *map(float, interval.split(" to ")))
        for name, value, interval in rows_of(text, "## Results")
    }
    accuracy, f1 = accuracy_score(labels, said), f1_score(labels, said, average="macro")
    assert results["accuracy"][0] == pytest.approx(accuracy, abs=5e-5)
    assert results["macro F1"][0] == pytest.approx(f1, abs=5e-5)
    # Wilson's formula, by hand.
    n, z = len(labels), 1.959963985
    middle, half = (accuracy + z**2 / (2 * n)), z * (accuracy * (1 - accuracy) / n + z**2 / (4 * n**2)) ** 0.5
    bounds = [(middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert results["accuracy"][1:] == pytest.approx(bounds, abs=6e-5)
    assert results["macro F1"][1:] == pytest.approx(bounds_of_f1, abs=0.02)
    for index, (name, *values) in enumerate(rows_of(text, "## Calibration")):
        for value, scaled in zip(values, (logits, logits / 2.0), strict=True):
            probabilities = softmax(scaled, -1)
            expected = [
                expected_calibration_error(probabilities, labels),
                brier_score_loss(labels, probabilities, scale_by_half=False),
                log_loss(labels, probabilities),
            ][index]
            assert float(value) == pytest.approx(expected, abs=6e-5), name
    by_group = rows_of(text, "By `region`")
    assert [row[0] for row in by_group] == ["no value", "north", "south|east"]
    for name, rows, value, _ in by_group:
        own = [index for index, group in enumerate(groups) if (group or "no value") == name]
        assert (int(rows), float(value)) == (20, pytest.approx(accuracy_score(labels[own], said[own]), abs=5e-5))
    metadata = metadata_load(folder / "README.md")
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(accuracy, abs=1e-6)


def expected_calibration_error(probabilities, labels, bins=15):
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        total += abs(right[inside].sum() - confidence[inside].sum())
    return total / len(labels)


def test_it_says_what_is_known_and_shows_no_path(full, lm_dir_of):
    kind, folder = full
    text = (folder / "README.md").read_text()
    for words in (
        "# Herons\n",
        "`entailed`, `refuted`, `unknown`",
        f"```text\n{PROMPT}\n```",
        "100 rows of train.jsonl",
        "90 of the rows have one",
        "written by a teacher model",
        "1 * classification loss + 1 * reasoning loss",
        "| learning_rate | 0.0002 |",
        "| odd\\|name | a b |",
        "Versions: torch 2.13.0",
        "On 60 rows of someone/herons:plain@test",
        "2 of the texts were cut",
        "the temperature 2.0000",
        "fitted on 40 rows of calibration.jsonl",
        "- Sorting notes on herons.\n- Not for other birds.",
        "cut to 77 tokens",
        "arXiv 2509.21487",
        "title = {Dual-Head Reasoning Distillation: Improving Classifier Accuracy with Train-Time-Only Reasoning},",
        "author = {Zhou, D. and Xu, J. and Ruan, J. and Lakshmanan, K. and Lin, S. and Shukla, V. and Zou, W. and Yang, Y. "
        "and Liu, Y.},",
    ):
        assert words in text, words
    if kind == "adapter":  # opens on the folder that it was trained on, and on no other
        text = text.replace(str(lm_dir_of("llama")), "BASE")
    assert not re.search(r"(?<![\w:/.])/(?!/)\w+/", text), "a path"
    assert "hf_" not in text.replace("dhrd_hf", "")


def test_the_pictures_are_light_or_dark_as_their_reader_is(full):
    _, folder = full
    text = (folder / "README.md").read_text()
    for name, what in (("reliability.svg", "after temperature"), ("confusion.svg", "predicted")):
        assert f"]({name})" in text
        drawn = (folder / name).read_text()
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
        assert what in drawn and "prefers-color-scheme: dark" in drawn and "<script" not in drawn


def test_results_on_a_data_set_of_the_hub_are_where_it_reads_them(make_export, facts):
    folder = make_export("dense", facts)
    (file,) = (folder / ".eval_results").iterdir()
    (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    accuracy = facts.results["metrics"]["accuracy"]
    assert (file.name, entry.dataset_id, entry.task_id) == ("someone--herons.yaml", "someone/herons", "plain")
    assert entry.value == pytest.approx(100 * accuracy["value"], abs=0.01)
    assert f"{100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f}" in entry.notes
    assert f".eval_results/{file.name}" in checked_files(folder)


def test_results_on_a_file_are_none_of_the_hubs(make_export, facts):
    assert not (make_export("dense", dataclasses.replace(facts, eval_data="test.jsonl")) / ".eval_results").exists()


def test_a_card_says_what_a_verdict_does(full, facts):
    text = (full[1] / "README.md").read_text()
    (name, accuracy, _, lead), *_ = rows_of(text, "Beside other answers")
    other = facts.results["others"][0]
    assert name == "always the first" and accuracy.startswith(f"{other['metrics']['accuracy']['value']:.4f} (")
    assert lead.startswith(f"{other['accuracy_lead']['value']:+.4f} (")
    classes = [row[:3] for row in rows_of(text, "| class | rows")]
    assert classes == [[f"`{it['label']}`", str(it["rows"]), str(it["predicted"])] for it in facts.results["classes"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_export_says_what_its_folder_holds_and_no_more(kind, make_export):
    folder = make_export(kind)
    text = (folder / "README.md").read_text()
    headings = re.findall(r"^#+ .*", text, re.M)
    assert headings == [
        "# Text classifier", "## How to use", "## Labels", "## Prompt", "## Training",
        "## Intended use and limits", "## Citation",
    ]  # fmt: skip
    assert set(metadata_load(folder / "README.md")) == {"library_name", "pipeline_tag", "tags"}
    assert {path.name for path in folder.glob("*.svg")} == set()
    assert "were not calibrated" in text


@pytest.mark.parametrize("missing", [field.name for field in dataclasses.fields(CardFacts)])
def test_a_fact_that_is_missing_leaves_no_trace(missing, make_export, facts):
    folder = _bare(make_export)
    text = str(make_model_card(folder, dataclasses.replace(facts, **{"temperature": 2.0, missing: None})))
    body = text[text.index("# ") :]
    assert not re.search(r"\b(None|null|unknown(?!`)|nan|Undefined|TODO)\b", text), text
    assert not re.search(r"^#+ .*\n+(?=#|\Z)", body, re.M), "an empty heading"
    assert not re.search(r"\n{4,}|\(\)|  of |: \n|^- $", body, re.M), text


_made = {}


def _bare(make_export):
    if "dense" not in _made:
        _made["dense"] = make_export("dense")
    return _made["dense"]


def test_the_last_evaluation_of_training_stands_in_for_results(make_export):
    folder = _bare(make_export)
    dev = CardFacts(model_name="Herons", dev_data="dev.jsonl", dev_rows=7, dev_metrics={"accuracy": 0.75})
    card = make_model_card(folder, dev)
    assert rows_of(str(card), "7 rows of dev.jsonl, on which it was watched") == [["accuracy", "0.7500"]]
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in card.data.eval_results] == [
        ("accuracy", 0.75, "dev.jsonl")
    ]
    assert make_model_card(folder, dataclasses.replace(dev, model_name=None)).data.eval_results is None


def test_a_base_model_of_the_hub_is_named_with_its_relation(make_export, facts, tmp_path):
    dense = _bare(make_export)
    named = dataclasses.replace(facts, base_model="someone/tiny", base_model_revision="0123abc")
    card = make_model_card(dense, named)
    assert (card.data.base_model, card.data.base_model_relation) == ("someone/tiny", "finetune")
    assert "[someone/tiny](https://huggingface.co/someone/tiny) (revision `0123abc`)" in str(card)
    adapter = make_export("adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "someone/tiny", "revision": "v1"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    card = make_model_card(adapter, facts)
    assert (card.data.base_model, card.data.base_model_relation) == ("someone/tiny", "adapter")
    assert 'from_pretrained("someone/tiny", revision="v1", config=config)' in str(card)


def test_the_license_is_the_base_models_where_its_card_is_at_hand(make_export, monkeypatch, tmp_path):
    folder = _bare(make_export)
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text(
        "---\nlicense: other\nlicense_name: birds\nlicense_link: LICENSE\n---\n# Tiny\n"
    )
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    data = make_model_card(folder, CardFacts(base_model="someone/tiny")).data
    assert (data.license, data.license_name) == ("other", "birds")
    assert data.license_link == "https://huggingface.co/someone/tiny/blob/main/LICENSE"
    own = make_model_card(folder, CardFacts(base_model="someone/tiny", license="mit")).data.to_dict()
    assert own["license"] == "mit" and "license_name" not in own
    assert inherited_license("someone/tiny", "def") == inherited_license("someone/other") == CardFacts()
    assert inherited_license(str(snapshot)).license_link is None  # a folder here
    for broken in ("no metadata", "---\n[: \n---\n", "---\n- a list\n---\n", "---\nlicense: [mit]\n---\n"):
        (snapshot / "README.md").write_text(broken)
        assert inherited_license("someone/tiny") == CardFacts()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("licence: mit", ["unknown key 'licence': did you mean 'license'?"]),
        ("alpha: 1", ["unknown key 'alpha'", "rationale_source"]),
        ("language: no", ["language must be text or a list of texts", "holds False", "quotes"]),
        ("language: English", ["'English' is no ISO 639 code"]),
        ("license: Apache 2.0", ["'Apache 2.0' is not an identifier", "apache-2.0", "license: other"]),
        ("license: my-own-license", ["'my-own-license' is not an identifier of the Hub's", "license: other"]),
        ("license: apache2.0", ["did you mean apache-2.0?"]),
        ("license: other", ["license_name: NAME"]),
        ("license: mit\nlicense_name: birds", ["goes with license: other"]),
        ("license_name: birds", ["license: other"]),
        ("model_name:", ["model_name must be text", "None"]),
        ("- mit", ["holds list"]),
        ("license: [", ["is not YAML"]),
    ],
)
def test_wrong_facts_are_one_line(text, words, tmp_path):
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(ValueError) as raised:
        CardFacts.from_yaml(tmp_path / "card.yaml")
    assert all(word in str(raised.value) for word in words), raised.value


def test_facts_come_back_from_their_files(facts, tmp_path):
    facts.save(tmp_path / "facts.json")
    assert CardFacts.load(tmp_path / "facts.json") == facts
    assert [path.name for path in tmp_path.iterdir()] == ["facts.json"]
    (tmp_path / "facts.json").write_text('{"nothing": 1}')
    with pytest.raises(ValueError, match="does not hold the facts of a model card.*remove it"):
        CardFacts.load(tmp_path / "facts.json")
    (tmp_path / "card.yaml").write_text("language: en\nlimits: [one, two]\nlicense: other\nlicense_name: birds\n")
    found = CardFacts.from_yaml(tmp_path / "card.yaml")
    assert found == CardFacts(language=["en"], limits=["one", "two"], license="other", license_name="birds")


def test_a_broken_fact_leaves_no_export(dual_of, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="is not an identifier"):
        export_classifier(dual_of("llama"), tokenizer, tmp_path / "out", card=CardFacts(license="MIT license"))
    assert list(tmp_path.iterdir()) == []


def test_a_card_is_written_anew_beside_an_export(make_export):
    folder = make_export("dense")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_model_card(folder, CardFacts(license="mit")) == folder / "README.md"
    assert metadata_load(folder / "README.md")["license"] == "mit"
    changed = [path.name for path in folder.iterdir() if before.get(path) != path.stat().st_mtime_ns]
    assert changed == ["README.md"]


def test_the_card_of_our_own_run_is_one_of_these():
    folder = Path(__file__).parents[2] / "model_cards" / "smollm2-135m-errands"
    card = ModelCard.load(folder / "README.md")
    headings = re.findall("^## .*", card.text, re.M)
    assert headings == [
        "## How to use",
        "## Labels",
        "## Prompt",
        "## Training",
        "## Results",
        "## Calibration",
        "## Thresholds",
        "## Intended use and limits",
        "## Citation",
    ]
    (accuracy, _) = card.data.eval_results
    assert accuracy.dataset_name == "test.jsonl" and "trained with dual-head reasoning distillation" in card.text
    assert f"| accuracy | {accuracy.metric_value:.4f} |" in card.text
    shown = re.findall(r"!\[.*\]\((.*)\)", card.text)
    assert len(shown) == 2 and all((folder / name).is_file() for name in shown)


def test_the_template_is_shipped_in_the_wheel():
    import tomllib

    root = Path(__file__).parents[2]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        assert (root / source).is_file() and target == f"dhrd_hf/export/{Path(source).name}"


# The report


def test_reports_of_other_problems(predicted):
    generator = np.random.default_rng(5)
    targets = generator.normal(size=40)
    values = targets + generator.normal(size=40)
    report = evaluation_report(values[:, None], targets)
    assert set(report) == {"rows", "metrics"} and set(report["metrics"]) == {"mse", "mae"}
    assert report["metrics"]["mae"]["value"] == pytest.approx(np.abs(values - targets).mean())
    assert all(it["low"] < it["value"] < it["high"] for it in report["metrics"].values())

    several = (generator.random((40, 3)) > 0.5).astype(float)
    logits = generator.normal(size=(40, 3)) + 2 * several
    report = evaluation_report(logits, several, groups=["a", "b"] * 20)
    assert report["metrics"]["accuracy"]["value"] == accuracy_score(several, logits > 0)
    assert np.mean([row["value"] for row in report["groups"]]) == pytest.approx(accuracy_score(several, logits > 0))
    assert set(report["calibration"]) == {"before"}
    logits, labels, _ = predicted
    assert evaluation_report(logits, labels) == evaluation_report(logits, labels)  # a fixed seed


@pytest.mark.parametrize(
    ("rows", "groups", "words"),
    [(1, None, "at least two rows"), (60, range(60), "60 values in 60 rows"), (60, "ab", "60 rows and 2 groups")],
)
def test_reports_that_cannot_be(predicted, rows, groups, words):
    logits, labels, _ = predicted
    with pytest.raises(ValueError, match=words):
        evaluation_report(logits[:rows], labels[:rows], groups=groups)
    with pytest.raises(ValueError, match="regression"):
        evaluation_report(torch.rand(4, 1).numpy(), np.arange(4) / 3, groups="abab")
