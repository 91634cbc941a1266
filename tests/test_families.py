"""Every decoder family of transformers, against its own causal LM and its own sequence classifier."""

import functools
import re
from pathlib import Path
from types import SimpleNamespace

import families
import pytest
import torch
import torch.nn.functional as F
from peft import AutoPeftModelForSequenceClassification, PeftModel
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from dhrd_hf import AutoModelForDualHeadClassification, DHRDConfig, export_classifier
from dhrd_hf.evaluation import load_classifier
from dhrd_hf.export.golden import golden_texts
from dhrd_hf.families import check_decoder
from dhrd_hf.training import add_lora

LENGTHS, INPUT_LENGTHS = (14, 9, 5), (6, 4, 5)
LABELS = torch.tensor([0, 2, 1])
close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", autouse=True)
def fewer_golden_texts():
    """They try a tokenizer; a family is as well tried on a third of them, of each length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dhrd_hf.export.replay.golden_texts", lambda *given: golden_texts(*given)[::3])
        yield


@pytest.fixture(scope="module", params=families.SUPPORTED)
def case(request, tokenizer, tmp_path_factory):
    """A family's saved causal LM, opened three ways: as it is, as a dual-head model, as the stock classifier."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(families.tiny_config(request.param)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lm = AutoModelForCausalLM.from_pretrained(folder)
    dual = AutoModelForDualHeadClassification.from_pretrained(folder, num_labels=3)
    nn.init.normal_(dual.score.weight)
    # The stock classifier reads its backbone from the LM's folder by itself; its new head gets our values.
    stock = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    stock.config.get_text_config().pad_token_id = 0
    stock_head(stock).weight.data.copy_(dual.score.weight)

    rows = torch.randint(3, 390, (3, max(LENGTHS)))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return SimpleNamespace(
        name=request.param,
        folder=folder,
        tokenizer=AutoTokenizer.from_pretrained(folder),  # as training opens it: Qwen2's is of a class of its own
        lm=lm,
        dual=dual,
        stock=stock,
        ids=rows * mask,
        mask=mask,
        targets=torch.where(mask == 1, rows, -100),
        lengths=torch.tensor(INPUT_LENGTHS),
    )


def stock_head(stock):
    """The only linear layer beside the backbone."""
    (head,) = (child for child in stock.children() if isinstance(child, nn.Linear))
    return head


def inputs_alone(case, left=False):
    """x of each row, padded to the longest."""
    size = max(INPUT_LENGTHS)
    ids, mask = torch.zeros(3, size, dtype=torch.long), torch.zeros(3, size, dtype=torch.long)
    for row, length in enumerate(INPUT_LENGTHS):
        where = slice(size - length, size) if left else slice(0, length)
        ids[row, where], mask[row, where] = case.ids[row, :length], 1
    return {"input_ids": ids, "attention_mask": mask}


def whole(case):
    """x and suffix of each row, with all that the objective wants."""
    return {
        "input_ids": case.ids,
        "attention_mask": case.mask,
        "input_length": case.lengths,
        "reasoning_targets": case.targets,
        "labels": LABELS,
    }


def test_the_losses_and_their_gradients_are_the_familys_own(case):
    for model in (case.dual, case.lm, case.stock):
        model.zero_grad()
    out = case.dual(**whole(case), output_reasoning_logits=True)
    out.loss.backward()

    reference = case.lm(case.ids, attention_mask=case.mask, labels=case.targets)
    reference.loss.backward()
    alone = torch.cat([case.stock(case.ids[i : i + 1, :n]).logits for i, n in enumerate(INPUT_LENGTHS)])
    classification = F.cross_entropy(alone, LABELS)
    classification.backward()

    close(out.reasoning_loss, reference.loss)
    close(out.reasoning_logits[case.mask.bool()], reference.logits[case.mask.bool()])
    close(out.logits, alone)
    close(out.classification_loss, classification)
    close(case.dual.score.weight.grad, stock_head(case.stock).weight.grad)
    assert case.dual.lm_head.weight.grad.norm() > 0
    ours, lm, stock = (dict(m.base_model.named_parameters()) for m in (case.dual, case.lm, case.stock))
    if ours.keys() == stock.keys():  # but where the stock classifier is a composite and the LM its text model
        for name, parameter in ours.items():
            parts = [p.grad for p in (lm[name], stock[name]) if p.grad is not None]
            assert (parameter.grad is None) == (not parts), name
            if parts:
                off, size = (parameter.grad - sum(parts)).norm(), sum(parts).norm()
                assert off <= 1e-5 * size.clamp(min=1), f"{name}: {off} of {size}"


@torch.no_grad()
def test_the_class_logits_are_the_stock_classifiers_before_and_after_export(case, tmp_path):
    export_classifier(case.dual, case.tokenizer, tmp_path / "out")
    exported, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(exported).__name__ == families.exported_class(case.name)
    assert type(exported).__module__.startswith("transformers.")
    for left in (False, True):
        batch = inputs_alone(case, left)
        expected = case.stock(**batch).logits
        close(case.dual(**batch).logits, expected)
        close(exported(**batch).logits, expected)


@torch.no_grad()
def test_what_follows_x_does_not_reach_its_logits(case):
    before = case.dual(**whole(case)).logits
    changed = case.ids.clone()
    for row, (start, end) in enumerate(zip(INPUT_LENGTHS, LENGTHS, strict=True)):
        changed[row, start:end] = torch.randint(3, 390, (end - start,))
    after = case.dual(**{**whole(case), "input_ids": changed}).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_saved_model_reloads_as_it_was(case, tmp_path):
    case.dual.save_pretrained(tmp_path)
    again = AutoModelForDualHeadClassification.from_pretrained(tmp_path)
    before, after = case.dual(**whole(case)), again(**whole(case))
    assert torch.equal(after.logits, before.logits) and torch.equal(after.reasoning_loss, before.reasoning_loss)


def test_it_generates_what_the_familys_causal_lm_does(case):
    prompt, wanted = case.ids[:1, :5], {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(case.dual.generate(prompt, **wanted), case.lm.generate(prompt, **wanted))


def test_an_adapter_exports_in_both_formats(case, tmp_path):
    dual = AutoModelForDualHeadClassification.from_pretrained(case.folder, id2label={0: "a", 1: "b", 2: "c"})
    model = add_lora(dual, r=4).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    batch = inputs_alone(case)
    with torch.no_grad():
        expected = model(**batch).logits

    if case.name in families.NO_DENSE_LORA:
        with pytest.raises(ValueError, match="merged into the model's weights, changes logits"):
            export_classifier(model, case.tokenizer, tmp_path / "dense")
        assert not list(tmp_path.iterdir())
    else:
        export_classifier(model, case.tokenizer, tmp_path / "dense")
        dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
        assert dense.config.id2label == {0: "a", 1: "b", 2: "c"}
        torch.testing.assert_close(dense(**batch).logits, expected, rtol=1e-4, atol=1e-4)

    if case.name in families.NO_ADAPTER:
        with pytest.raises(ValueError, match="PEFT can't put this adapter.*format='dense'"):
            export_classifier(model, case.tokenizer, tmp_path / "adapter", format="adapter")
        assert not (tmp_path / "adapter").exists()
        return
    out = tmp_path / "adapter"
    export_classifier(model, case.tokenizer, out, format="adapter")
    config = AutoConfig.from_pretrained(out, subfolder="config")
    base = AutoModelForSequenceClassification.from_pretrained(case.folder, config=config)
    opened = {
        "PeftModel": PeftModel.from_pretrained(base, out),
        "transformers": AutoModelForSequenceClassification.from_pretrained(out, num_labels=3),
        "AutoPeftModel": AutoPeftModelForSequenceClassification.from_pretrained(out, num_labels=3),
    }
    for how, found in opened.items():
        found.config.get_text_config().pad_token_id = 0
        torch.testing.assert_close(found.eval()(**batch).logits, expected, rtol=1e-5, atol=1e-5, msg=how)
    if case.name not in families.NO_DENSE_LORA:
        ours, _ = load_classifier(out)
        torch.testing.assert_close(ours(**batch).logits, expected, rtol=1e-4, atol=1e-4)


ROUTED = [name for name in families.SUPPORTED if "output_router_logits" in vars(families.tiny_config(name))]


@pytest.mark.parametrize("name", ROUTED)
def test_a_mixture_of_experts_has_its_familys_auxiliary_loss(name):
    config = families.tiny_config(name)
    config.output_router_logits = True
    torch.manual_seed(0)
    dual = AutoModelForDualHeadClassification.from_config(config, num_labels=3).eval()
    lm = dual.as_causal_lm()
    assert isinstance(lm, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    ids = torch.randint(3, 390, (3, 14))
    mask = (torch.arange(14) < torch.tensor(LENGTHS)[:, None]).long()
    targets = torch.where(mask == 1, ids, -100)
    expected = lm(ids * mask, attention_mask=mask, labels=targets)
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": LABELS, "reasoning_targets": targets}
    batch["input_length"] = torch.tensor(LENGTHS) - 1
    found = dual(**batch)
    close(found.reasoning_loss, expected.loss)
    if expected.get("aux_loss") is not None:
        assert expected.aux_loss > 0
        # Split into micro-batches, the shares of the targets add up to one.
        count = torch.tensor([3.0, float((targets[:, 1:] != -100).sum())])
        close(dual(**batch, num_items_in_batch=count * 2).reasoning_loss * 2, expected.loss)


def test_most_families_are_supported():
    assert len(families.DECODERS) == 63 and len(families.SUPPORTED) >= 58


@pytest.mark.parametrize("name", [*families.NOT_DECODERS, *families.REFUSED])
def test_what_is_no_decoder_with_a_plain_head_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=rf"^{re.escape(CONFIG_MAPPING[name].model_type)}\b.*(encoder|head)") as error:
        check_decoder(CONFIG_MAPPING[name]())
    assert "Take a decoder-only language model" in str(error.value)


WITHOUT_CLASSIFIER = sorted(
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys()
)


@pytest.mark.parametrize("name", WITHOUT_CLASSIFIER)
def test_a_decoder_without_a_stock_classifier_is_refused_by_its_name(name):
    cls = CONFIG_MAPPING[name]
    # The class is all that is looked at; some of these configs cannot be made from defaults.
    config = cls.__new__(cls)
    object.__setattr__(config, "is_encoder_decoder", getattr(cls, "is_encoder_decoder", False) is True)
    with pytest.raises(ValueError, match=rf"^{re.escape(cls.model_type)}\b.*(no sequence classifier|seq2seq)"):
        check_decoder(config)


def test_a_family_without_a_stock_classifier_can_have_the_papers_head(tmp_path):
    config = CONFIG_MAPPING["granite"](
        **families.COMMON, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=3.0,
    )  # fmt: skip
    dual = AutoModelForDualHeadClassification.from_config(config, num_labels=3, classifier_head="mlp").eval()
    ids = torch.randint(3, 390, (2, 9))
    close(dual(ids, reasoning_targets=ids).reasoning_loss, dual.as_causal_lm()(ids, labels=ids).loss)
    assert isinstance(dual.config, DHRDConfig)


def test_the_page_of_families_has_the_table_as_it_is_generated():
    page = (Path(__file__).parent.parent / "docs" / "families.md").read_text()
    assert families.table() in page
