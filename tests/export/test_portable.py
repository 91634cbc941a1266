"""What is written for tools that are not transformers 5; examples/compatibility.py opens it with the tools themselves."""

import json

import pytest
import torch
from families import tiny_config
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
from dhrd_hf.evaluation import load_classifier
from dhrd_hf.export import engines
from dhrd_hf.export.engines import export_engine
from dhrd_hf.training import add_lora

LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 3.0, 4.0, 5.0]}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def exported(config, tokenizer, folder, **kwargs):
    """The folder and config.json of a dense export of a model with random weights."""
    torch.manual_seed(0)
    model = AutoModelForDualHeadClassification.from_config(config, **{"num_labels": 3, **kwargs})
    export_classifier(model.eval(), tokenizer, folder)
    return json.loads((folder / "config.json").read_text())


def with_rope(model_type, part=None, **rope):
    config = tiny_config(model_type)
    config = type(config).from_dict(config.to_dict())  # rope_parameters of its own
    (config.rope_parameters[part] if part else config.rope_parameters).update(rope)
    return config


# What version 4 reads: the names that its configs of these families have for the same values.
ROPE = {
    "llama": (with_rope, {"rope_theta": 5e5}, {"rope_theta": 5e5}),
    "llama scaled": (
        with_rope,
        {"rope_theta": 5e5, **LLAMA3, "original_max_position_embeddings": 16},
        {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16}},
    ),
    "qwen3": (with_rope, {"rope_theta": 5e6}, {"rope_theta": 5e6}),
    "persimmon": (with_rope, {"rope_theta": 5e4}, {"rope_theta": 5e4, "partial_rotary_factor": 0.5}),
    "gpt_neox": (with_rope, {"rope_theta": 5e4}, {"rotary_emb_base": 5e4, "rotary_pct": 0.25}),
    "gemma3_text": (
        with_rope,
        {"part": "full_attention", "rope_theta": 5e5, "rope_type": "linear", "factor": 8.0},
        {
            "rope_theta": 5e5,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "phi3": (
        with_rope,
        {**LONG, "original_max_position_embeddings": 4096},
        # Three values and no more, and the length of pretraining beside them.
        {
            "rope_scaling": {"type": "longrope", **{name: LONG[name] for name in ("short_factor", "long_factor")}},
            "original_max_position_embeddings": 4096,
        },
    ),
}
_ROPE_NAMES = {name for _, _, right in ROPE.values() for name in right} | {"global_rope_theta", "local_rope_theta"}


@pytest.mark.parametrize("name", ROPE)
def test_version_4_finds_the_rope_under_its_own_names(name, tokenizer, tmp_path):
    make, changes, right = ROPE[name]
    config = make(name.split()[0], **changes)
    written = exported(config, tokenizer, tmp_path / "out")
    defaults = {"rope_theta", "partial_rotary_factor", "original_max_position_embeddings"} - right.keys()
    assert {key: written[key] for key in _ROPE_NAMES & written.keys() - defaults} == right
    opened = AutoConfig.from_pretrained(tmp_path / "out").rope_parameters
    assert {**opened, "type": None} == {**config.rope_parameters, "type": None}


def test_version_4_finds_renamed_fields_and_the_dtype(tokenizer, tmp_path):
    written = exported(tiny_config("qwen3_moe"), tokenizer, tmp_path / "moe")
    assert written["num_experts"] == written["num_local_experts"] == 4
    assert written["torch_dtype"] == written["dtype"] == "float32"
    zamba = exported(tiny_config("zamba"), tokenizer, tmp_path / "zamba")
    assert zamba["layers_block_type"] == ["mamba", "mamba", "hybrid", "mamba", "hybrid"]


@pytest.fixture(scope="module")
def chatty(make_tokenizer):
    """A chat model's tokenizer, with a special token of its own (of the vocabulary, so that the embeddings have it)."""
    return make_tokenizer(chat_template="{{ 'User: ' + messages[0].content }}", additional_special_tokens=["!"])


@pytest.mark.parametrize("kind", ["dense", "adapter", "mlp", "onnx"])  # OpenVINO's is written by the same lines
def test_a_classifiers_tokenizer_has_no_chat_template_and_a_class_that_version_4_knows(
    kind, dual_of, chatty, exported_once, tmp_path
):
    for package in engines._NEEDS.get(kind, ()):
        pytest.importorskip(package)
    model = dual_of("llama-shallow", classifier_head="mlp" if kind == "mlp" else "linear")
    if kind == "adapter":
        model = add_lora(model, r=2)
    out = export_classifier(model, chatty, tmp_path / "out", format="adapter" if kind == "adapter" else "dense")
    if kind in engines.ENGINES:
        (out / "chat_template.jinja").write_text("{{ 'a template of an older export' }}")
        export_engine(out, tmp_path / "engine", kind)
        out = tmp_path / "engine"
    assert not list(out.glob("chat_template*"))
    written = json.loads((out / "tokenizer_config.json").read_text())
    assert not written.keys() & {"chat_template", "extra_special_tokens"}
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_input_names"] == ["input_ids", "attention_mask"]
    assert written["additional_special_tokens"] == ["!"]
    opened = AutoTokenizer.from_pretrained(out)
    text = "The kiln! is cold."
    assert opened(text)["input_ids"] == chatty(text)["input_ids"] and opened.extra_special_tokens == ["!"]
    assert chatty.chat_template is not None


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_cross_encoder_is_told_the_activation(head, dual_of, tokenizer, tmp_path):
    for name, labels, problem, right in (
        ("one", 1, "regression", "torch.nn.modules.linear.Identity"),
        ("implied", 1, None, "torch.nn.modules.linear.Identity"),
        ("several", 2, "regression", "torch.nn.modules.linear.Identity"),
        ("multi", 3, "multi_label_classification", "torch.nn.modules.activation.Sigmoid"),
        ("single", 3, "single_label_classification", None),
    ):
        model = dual_of("llama", num_labels=labels, problem_type=problem, classifier_head=head)
        export_classifier(model, tokenizer, tmp_path / name)
        written = json.loads((tmp_path / name / "config.json").read_text())
        assert written.get("sentence_transformers") == (right and {"activation_fn": right})


def test_an_mlp_export_is_called_a_sequence_classifier(dual_of, tokenizer, tmp_path):
    model = dual_of("llama", classifier_head="mlp")
    export_classifier(model, tokenizer, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["DHRDForSequenceClassification"]
    assert config["auto_map"]["AutoModelForSequenceClassification"] == "modeling_dhrd.DHRDForSequenceClassification"
    # as they were called before
    config["architectures"] = ["DHRDForDualHeadClassification"]
    for name in ("AutoModel", "AutoModelForSequenceClassification"):
        config["auto_map"][name] = "modeling_dhrd.DHRDForDualHeadClassification"
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    batch = tokenizer(["Rooks."], return_tensors="pt")
    older, _ = load_classifier(tmp_path / "out")
    with_its_code = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", trust_remote_code=True)
    for opened in (older, with_its_code.eval()):
        torch.testing.assert_close(opened(**batch).logits, model(**batch).logits)
