"""`AutoModelForDualHeadClassification`: what it opens, what it keeps, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from dhrd_hf import AutoModelForDualHeadClassification, DHRDConfig, DHRDForDualHeadClassification, embedded
from dhrd_hf.training import add_lora

open_dual = AutoModelForDualHeadClassification.from_pretrained
SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_a_causal_lm_keeps_all_its_weights(lm_dir, family):
    lm = AutoModelForCausalLM.from_pretrained(lm_dir)
    dual = open_dual(lm_dir, num_labels=3)
    assert torch.equal(dual.lm_head.weight, lm.get_output_embeddings().weight)
    ours, theirs = dual.model.state_dict(), lm.base_model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert dual.config.tie_word_embeddings == lm.config.tie_word_embeddings
    assert not dual.training


def test_the_same_seed_gives_the_stock_classifiers_fresh_head(lm_dir, family):
    torch.manual_seed(11)
    stock = AutoModelForSequenceClassification.from_pretrained(lm_dir, num_labels=3)
    torch.manual_seed(11)
    dual = open_dual(lm_dir, num_labels=3)
    assert dual.score.weight.std() > 0
    assert torch.equal(dual.score.weight, stock.score.weight)
    x = torch.arange(5, 12)[None]
    torch.testing.assert_close(dual(x).logits, stock(x).logits, rtol=1e-5, atol=1e-5)


def test_a_dual_head_checkpoint_reopens_with_its_labels_and_objective(dual_of, tmp_path):
    labels = {0: "no", 1: "yes"}
    dual = dual_of("llama", num_labels=2, id2label=labels, alpha=0.25, beta=2.0, prompt_template="Q: {text}")
    dual.save_pretrained(tmp_path)
    again = open_dual(tmp_path)
    assert isinstance(again, DHRDForDualHeadClassification)
    assert torch.equal(again.score.weight, dual.score.weight)
    assert torch.equal(again.lm_head.weight, dual.lm_head.weight)
    assert (again.config.id2label, again.config.label2id) == (labels, {"no": 0, "yes": 1})
    assert (again.config.alpha, again.config.beta, again.config.prompt_template) == (0.25, 2.0, "Q: {text}")
    assert open_dual(tmp_path, alpha=0.0).config.alpha == 0.0
    assert open_dual(tmp_path, num_labels=2).config.id2label == labels


def test_other_labels_on_reload_are_refused(dual_of, tmp_path):
    dual_of("llama", id2label={0: "no", 1: "yes"}, num_labels=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="2 labels.*3 were asked for"):
        open_dual(tmp_path, num_labels=3)
    with pytest.raises(ValueError, match="2 labels"):
        open_dual(tmp_path, id2label={0: "a", 1: "b", 2: "c"})
    # The head's rows would change their meaning.
    for names in ({0: "yes", 1: "no"}, {0: "a", 1: "b"}):
        with pytest.raises(ValueError, match="yes"):
            open_dual(tmp_path, id2label=names)


MODELS = {
    "bert": (lambda: BertForMaskedLM(BertConfig(**SMALL)), "bert"),
    "t5": (
        lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
        ),
        "t5",
    ),
    "bart": (
        lambda: BartForConditionalGeneration(
            BartConfig(
                vocab_size=40,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=16,
                max_position_embeddings=32,
            )
        ),
        "bart",
    ),
    "granite": (lambda: GraniteForCausalLM(GraniteConfig(**SMALL)), "granite"),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_carry_two_heads_is_refused_by_its_model_type(name, tmp_path):
    make, model_type = MODELS[name]
    make().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"\b{model_type}\b") as error:
        open_dual(tmp_path, num_labels=2)
    assert "decoder" in str(error.value) or "classifier" in str(error.value)


def _causal_lm_config(folder):
    """A config that says the folder is a causal LM, whatever weights it has."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["LlamaForCausalLM"]}))


@pytest.mark.parametrize("model_class", [LlamaForSequenceClassification, LlamaModel])
def test_a_checkpoint_without_lm_head_gets_no_random_one(model_class, tmp_path):
    model_class(LlamaConfig(**SMALL, pad_token_id=0, tie_word_embeddings=False)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="missing.*lm_head"):
        open_dual(tmp_path, num_labels=2)
    _causal_lm_config(tmp_path)
    with pytest.raises(ValueError, match="missing.*lm_head"):
        open_dual(tmp_path, num_labels=2)


def test_a_trained_classifier_is_not_thrown_away(tmp_path):
    LlamaForSequenceClassification(LlamaConfig(**SMALL, pad_token_id=0, tie_word_embeddings=True)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="trained classification head would be thrown away"):
        open_dual(tmp_path, num_labels=2)


@pytest.fixture
def saved_dual(dual_of, tmp_path):
    dual_of("llama").save_pretrained(tmp_path)
    return tmp_path


def _edit_weights(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("opener", [open_dual, AutoModelForSequenceClassification.from_pretrained])
@pytest.mark.parametrize("name", ["score.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_missing_weights_are_refused(saved_dual, opener, name):
    _edit_weights(saved_dual, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"missing.*{name}"):
        opener(saved_dual)


def test_left_over_weights_are_refused(saved_dual):
    _edit_weights(saved_dual, lambda tensors: tensors.update({"score.bias": torch.zeros(3)}))
    with pytest.raises(ValueError, match="left over.*score.bias"):
        open_dual(saved_dual)


def test_weights_of_another_shape_are_refused(saved_dual):
    _edit_weights(saved_dual, lambda tensors: tensors.update({"score.weight": torch.zeros(5, 32)}))
    with pytest.raises(ValueError, match="misshaped.*score.weight"):
        open_dual(saved_dual)


def test_a_newer_format_is_refused(saved_dual):
    path = saved_dual / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "format_version": config["format_version"] + 1}))
    with pytest.raises(ValueError, match="pip install"):
        open_dual(saved_dual)


@pytest.mark.parametrize(
    "labels",
    [
        {"num_labels": 3, "id2label": {0: "no", 1: "yes"}},
        {"num_labels": 3, "label2id": {"no": 0, "yes": 1}},
        {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 1, "yes": 0}},
        {"id2label": {1: "no", 2: "yes"}},
        {"id2label": {0: "no", 1: "no"}},
    ],
)
def test_labels_that_disagree_are_refused(lm_dir_of, labels):
    with pytest.raises(ValueError, match="id2label|label2id"):
        open_dual(lm_dir_of("llama"), **labels)


@pytest.mark.parametrize("labels", [{"num_labels": 3}, {"id2label": {0: "no", 1: "maybe", 2: "yes"}}])
def test_labels_of_a_config_are_those_of_the_head(lm_dir_of, labels):
    """As the stock classifiers take them, and every example script gives them."""
    config = AutoConfig.from_pretrained(lm_dir_of("llama"), **labels)
    stock = AutoModelForSequenceClassification.from_pretrained(lm_dir_of("llama"), config=config)
    dual = open_dual(lm_dir_of("llama"), config=config)
    assert dual.config.id2label == stock.config.id2label and dual.score.weight.shape == stock.score.weight.shape
    assert open_dual(lm_dir_of("llama"), config=config, num_labels=4).config.num_labels == 4


@pytest.mark.parametrize("labels", [{"id2label": {0: "no", 1: "yes"}}, {"label2id": {"no": 0, "yes": 1}}])
def test_one_label_map_is_enough(lm_dir_of, labels):
    dual = open_dual(lm_dir_of("llama"), **labels)
    assert dual.config.id2label == {0: "no", 1: "yes"} and dual.config.label2id == {"no": 0, "yes": 1}
    assert dual.score.weight.shape[0] == dual.config.num_labels == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -1.0},
        {"beta": float("nan")},
        {"label_smoothing": 1.0},
        {"class_weights": [1.0]},
        {"class_weights": [1.0, float("inf"), 1.0]},
        {"class_weights": [0.0, 0.0, 0.0]},
    ],
)
def test_an_objective_out_of_range_is_refused(lm_dir_of, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        open_dual(lm_dir_of("llama"), num_labels=3, **wrong)


@pytest.mark.parametrize(
    "given",
    [
        {"problem_type": "regression", "class_weights": [1.0, 2.0]},
        {"problem_type": "multi_label_classification", "label_smoothing": 0.1},
    ],
)
def test_options_of_another_kind_of_labels_are_refused(given):
    with pytest.raises(ValueError, match=f"{list(given)[1]} does nothing in {given['problem_type']}: leave it out"):
        DHRDConfig(num_labels=2, **given)
    DHRDConfig(num_labels=2, **{**given, "problem_type": "single_label_classification"})


def test_a_trained_head_stays_of_its_kind(dual_of, tmp_path):
    dual_of("llama", problem_type="single_label_classification").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="was trained for single_label_classification, but problem_type='regression'"):
        open_dual(tmp_path, problem_type="regression")


@pytest.mark.parametrize("name", ["alpha", "beta"])
@pytest.mark.parametrize("value", ["x", "0.5", None, [1.0], -0.5, float("inf"), float("nan")])
def test_weights_of_the_losses_are_finite_numbers(name, value):
    with pytest.raises(ValueError, match=rf"^{name}=.* must be (a number, )?0 or greater"):
        DHRDConfig(**{name: value})


def test_a_weight_that_is_balanced_is_the_trainings():
    with pytest.raises(ValueError, match="alpha='auto' must be a number, 0 or greater: .* alpha_schedule='auto'"):
        DHRDConfig(alpha="auto")


def test_an_unknown_head_is_refused(lm_dir_of):
    with pytest.raises(ValueError, match="linear"):
        open_dual(lm_dir_of("llama"), num_labels=3, classifier_head="forest")


def test_from_config_builds_random_weights(make_config, family):
    torch.manual_seed(0)
    dual = AutoModelForDualHeadClassification.from_config(make_config(family), num_labels=4, alpha=0.5)
    assert dual.score.weight.shape == (4, 32) and dual.config.alpha == 0.5
    again = AutoModelForDualHeadClassification.from_config(
        DHRDConfig(backbone_config=make_config(family), num_labels=4)
    )
    assert again.state_dict().keys() == dual.state_dict().keys()


@pytest.mark.slow
def test_smollm2_from_its_gguf_file(tmp_path):
    pytest.importorskip("gguf")
    folder = embedded.smollm2_path()
    lm = AutoModelForCausalLM.from_pretrained(folder)
    wheel, name = embedded._gguf_file()
    dual = open_dual(wheel, gguf_file=name, num_labels=3, dtype=torch.float32)
    assert isinstance(lm, LlamaForCausalLM) and torch.equal(dual.lm_head.weight, lm.lm_head.weight)
    ids = torch.arange(100, 120)[None]
    torch.testing.assert_close(
        dual(ids, output_reasoning_logits=True).reasoning_logits, lm(ids).logits, rtol=1e-5, atol=1e-4
    )
    dual.save_pretrained(tmp_path)
    assert torch.equal(open_dual(tmp_path)(ids).logits, dual(ids).logits)


def test_a_folder_without_a_model_is_said_to_be_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model: it has no config.json"):
        open_dual(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere"):
        open_dual(tmp_path / "nowhere")


@pytest.fixture
def run_dir(dual_of, tmp_path):
    """What a LoRA run leaves: the adapter, and the dual-head config beside it."""
    dual = dual_of("llama", id2label={0: "no", 1: "yes"}, num_labels=2)
    add_lora(dual, r=2).save_pretrained(tmp_path / "run")
    dual.config.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_other_labels_or_another_head_are_refused_for_an_adapter_as_for_a_whole_model(run_dir):
    assert open_dual(run_dir, num_labels=2, alpha=0.25).config.alpha == 0.25
    assert open_dual(run_dir, label2id={"no": 0, "yes": 1}).config.id2label == {0: "no", 1: "yes"}
    for labels in ({"id2label": {0: "yes", 1: "no"}}, {"label2id": {"yes": 0, "no": 1}}):
        with pytest.raises(ValueError, match="rows would change their meaning"):
            open_dual(run_dir, **labels)
    with pytest.raises(ValueError, match="2 labels.*3 were asked for"):
        open_dual(run_dir, num_labels=3)
    with pytest.raises(ValueError, match="'linear' head, but classifier_head='mlp'"):
        open_dual(run_dir, classifier_head="mlp")


@pytest.mark.parametrize("kind", ["causal LM", "checkpoint", "adapter"])
def test_loading_info_comes_with_the_model_as_in_transformers(kind, run_dir, dual_of, lm_dir_of, tmp_path):
    dual_of("llama").save_pretrained(tmp_path / "checkpoint")
    folder = {"causal LM": lm_dir_of("llama"), "checkpoint": tmp_path / "checkpoint", "adapter": run_dir}[kind]
    model, info = open_dual(folder, output_loading_info=True)
    assert type(model) is type(open_dual(folder))
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= info.keys()
    assert not info["missing_keys"] and not info["mismatched_keys"]


def test_an_adapter_says_which_folder_it_was_loaded_from(run_dir, lm_dir_of):
    opened = open_dual(run_dir)
    assert opened.name_or_path == str(run_dir)
    assert opened.get_base_model().name_or_path == str(lm_dir_of("llama"))


def test_an_adapters_base_model_is_looked_for_where_the_adapter_was(run_dir, make_lm, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "cache" / "models--someone--tiny"
    make_lm("llama").save_pretrained(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    path = run_dir / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "someone/tiny"}))
    opened = open_dual(run_dir, cache_dir=tmp_path / "cache", local_files_only=True)
    assert opened.config.backbone_revision == commit


def test_the_callers_config_stays_as_it_is_and_none_keeps_the_checkpoints(dual_of, tmp_path):
    dual_of("llama", problem_type="multi_label_classification", prompt_template="Q: {text}").save_pretrained(tmp_path)
    config = DHRDConfig.from_pretrained(tmp_path)
    for opened in (
        open_dual(tmp_path, config=config, alpha=0.1, problem_type=None, prompt_template=None),
        AutoModelForDualHeadClassification.from_config(config, alpha=0.1),
    ):
        assert opened.config.alpha == 0.1 and opened.config.prompt_template == "Q: {text}"
        assert opened.config.problem_type == "multi_label_classification"
    assert config.alpha == 1.0
