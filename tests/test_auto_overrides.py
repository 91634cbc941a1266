"""Overrides of the config, where a dual-head model is opened: taken as the stock classifier takes them."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
from dhrd_hf.modeling_dhrd import find_dual_head
from dhrd_hf.training import add_lora

open_dual = AutoModelForDualHeadClassification.from_pretrained

# What a stock classifier takes beside its weights, each with what it changes in the language model's config.
OVERRIDES = {
    "dropout": {"attention_dropout": 0.25},
    "fewer layers": {"num_hidden_layers": 1},
    "rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    "no cache": {"use_cache": False},
    "hidden states": {"output_hidden_states": True},
    "attentions": {"output_attentions": True, "attn_implementation": "eager"},
    "token": {"pad_token_id": 7},
}


@pytest.fixture(scope="module")
def opened_as(dual_of, lm_dir_of, tokenizer, tmp_path_factory):
    """Of each kind of source its folder, and that of the stock classifier with the same weights."""
    folder = tmp_path_factory.mktemp("overrides")
    dual = dual_of("llama")
    for kind in ("checkpoint", "adapter"):
        model = dual if kind == "checkpoint" else add_lora(dual_of("llama", seed=1), r=2)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder / kind)
        find_dual_head(model).config.save_pretrained(folder / kind)
        export_classifier(model, tokenizer, folder / f"{kind}-stock")
    return {
        "causal LM": (lm_dir_of("llama"), lm_dir_of("llama")),
        **{kind: (folder / kind, folder / f"{kind}-stock") for kind in ("checkpoint", "adapter")},
    }


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("kind", ["causal LM", "checkpoint", "adapter"])
def test_the_config_is_overridden_as_a_stock_classifiers(opened_as, kind, override):
    folder, stock_folder = opened_as[kind]
    changes = OVERRIDES[override]
    dual = open_dual(folder, num_labels=3, **changes)
    stock = AutoModelForSequenceClassification.from_pretrained(stock_folder, num_labels=3, **changes)
    if kind == "causal LM":
        stock.score.weight = dual.score.weight
    backbone = find_dual_head(dual).config.backbone_config
    for name in changes.keys() - {"attn_implementation"}:
        assert getattr(backbone, name) == getattr(stock.config, name)
    assert backbone._attn_implementation == stock.config._attn_implementation
    ids = torch.tensor([[5, 9, 7, 11, 3]])
    expected, found = stock(ids), find_dual_head(dual)(ids)
    for name in ("logits", "hidden_states", "attentions"):
        assert (name in found) == (name in expected)
        if name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_a_config_that_asks_for_tuples_gives_them(opened_as):
    """transformers' own classifiers end in an AttributeError: their backbone gives a tuple as well."""
    folder, _ = opened_as["causal LM"]
    dual, ids = open_dual(folder, num_labels=3, return_dict=False), torch.tensor([[5, 9, 7]])
    assert isinstance(dual(ids), tuple)
    assert torch.equal(dual(ids)[0], dual(ids, return_dict=True).logits)


@pytest.mark.parametrize("kind", ["causal LM", "checkpoint", "adapter"])
def test_an_argument_that_nothing_knows_is_a_type_error_as_in_transformers(opened_as, kind):
    folder, stock_folder = opened_as[kind]
    with pytest.raises(TypeError, match="unexpected keyword argument 'attention_dropuot'"):
        AutoModelForSequenceClassification.from_pretrained(stock_folder, attention_dropuot=0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'attention_dropuot'"):
        open_dual(folder, num_labels=3, attention_dropuot=0.1)


def test_a_part_of_the_nested_config_is_overridden_and_the_rest_kept(opened_as):
    folder, _ = opened_as["checkpoint"]
    config = open_dual(folder, backbone_config={"attention_dropout": 0.25}).config.backbone_config
    assert config.attention_dropout == 0.25
    assert {**config.to_dict(), "attention_dropout": 0.0} == open_dual(folder).config.backbone_config.to_dict()


def test_a_run_on_an_overridden_model_reopens_as_it_was_trained(lm_dir_of, tmp_path):
    """The base model's own config has two layers and another base of the positions' angles."""
    changes = {**OVERRIDES["fewer layers"], **OVERRIDES["rope"]}
    model = add_lora(open_dual(lm_dir_of("llama"), num_labels=3, **changes), r=2)
    model.save_pretrained(tmp_path)
    find_dual_head(model).config.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 9, 7, 11, 3]])
    for opener in (open_dual, AutoModelForSequenceClassification.from_pretrained):
        torch.testing.assert_close(opener(tmp_path)(ids).logits, model.eval()(ids).logits, rtol=1e-5, atol=1e-5)


def test_an_adapter_reopens_in_the_dtype_that_it_was_trained_in(make_lm, tmp_path):
    make_lm("llama").to(torch.bfloat16).save_pretrained(tmp_path / "lm")
    model = add_lora(open_dual(tmp_path / "lm", num_labels=3, dtype=torch.float32), r=2)
    model.save_pretrained(tmp_path / "run")
    find_dual_head(model).config.save_pretrained(tmp_path / "run")
    assert find_dual_head(open_dual(tmp_path / "run")).model.dtype == torch.float32
    assert find_dual_head(open_dual(tmp_path / "run", dtype=torch.bfloat16)).model.dtype == torch.bfloat16


def test_a_head_of_another_size_is_drawn_where_that_is_asked_for(opened_as):
    """As in transformers."""
    folder, _ = opened_as["checkpoint"]
    dual = open_dual(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert dual.score.weight.shape[0] == dual.config.num_labels == len(dual.config.id2label) == 5
    assert torch.equal(dual.model.embed_tokens.weight, open_dual(folder).model.embed_tokens.weight)
