"""The paper's head: trained, saved, and exported with the code that opens it."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from strangers import run_as_a_stranger
from transformers import AutoModelForSequenceClassification, pipeline

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
from dhrd_hf.evaluation import load_classifier
from dhrd_hf.training import add_lora

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
TEXTS = ["Oto owns a boat.", "The kiln is cold. So: the kiln glows.", "Rooks."]


@pytest.fixture(params=["llama", "llama-tied", "gpt2"])
def dual(request, dual_of):
    model = dual_of(request.param, classifier_head="mlp", id2label=LABELS)
    torch.nn.init.normal_(model.score.dense.weight, std=0.3)
    torch.nn.init.normal_(model.score.out_proj.weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def batch(tokenizer):
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


def test_the_logits_are_two_layers_on_the_stock_pooled_state(dual, batch):
    last = batch["attention_mask"].sum(-1) - 1
    pooled = dual.model(**batch).last_hidden_state[torch.arange(3), last]
    score = dual.score
    between = F.gelu(pooled @ score.dense.weight.T + score.dense.bias)
    expected = between @ score.out_proj.weight.T + score.out_proj.bias
    torch.testing.assert_close(dual(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    assert score.dense.weight.shape == (32, 32) and score.out_proj.weight.shape == (3, 32)


def test_dropout_and_activation_are_the_configs(dual_of, batch):
    dual = dual_of("llama", classifier_head="mlp", classifier_dropout=0.5, classifier_activation="relu")
    dual.score.dense.weight.data.zero_()
    dual.score.dense.bias.data.fill_(1.0)
    dual.train()
    assert not torch.equal(dual(**batch).logits, dual(**batch).logits)
    dual.score.dense.bias.data.fill_(-1.0)  # relu lets nothing through
    assert torch.equal(dual(**batch).logits, dual.score.out_proj.bias.expand(3, 3))
    for wrong, match in (
        ({"classifier_dropout": 1.0}, "classifier_dropout"),
        ({"classifier_activation": "x"}, "gelu"),
    ):
        with pytest.raises(ValueError, match=match):
            dual_of("llama", classifier_head="mlp", **wrong)


def test_all_of_it_is_trained_and_saved(dual, batch, tmp_path):
    dual(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in dual.score.parameters())
    dual.save_pretrained(tmp_path)
    again = AutoModelForDualHeadClassification.from_pretrained(tmp_path)
    assert again.config.classifier_head == "mlp"
    assert torch.equal(again(**batch).logits, dual(**batch).logits)
    with pytest.raises(ValueError, match="'mlp' head, but classifier_head='linear'"):
        AutoModelForDualHeadClassification.from_pretrained(tmp_path, classifier_head="linear")


OPEN_AS_A_STRANGER = """
import sys
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

folder, found, how = sys.argv[1:]
trust = {}
if how == "dhrd_hf":
    import dhrd_hf
elif how == "remote":
    trust = {"trust_remote_code": True}
try:
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True, **trust)
except ValueError as error:
    torch.save(str(error), found)
    sys.exit()
assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
texts = torch.load(found)
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert torch.equal(AutoModel.from_pretrained(folder, **trust)(**tokenizer(texts[0], return_tensors="pt")).logits,
                       model(**tokenizer(texts[0], return_tensors="pt")).logits)
classify = pipeline("text-classification", folder, device="cpu", **trust)
assert ("dhrd_hf" in sys.modules) == (how == "dhrd_hf")
torch.save((logits, [p["label"] for p in classify(texts)]), found)
"""


@pytest.mark.parametrize("how", ["remote", "dhrd_hf"])
def test_a_stranger_opens_it_with_its_code_or_with_ours(dual, batch, tokenizer, tmp_path, how):
    out = export_classifier(dual, tokenizer, tmp_path / "out")
    torch.save(TEXTS, tmp_path / "found.pt")
    run_as_a_stranger(OPEN_AS_A_STRANGER, out, tmp_path / "found.pt", how)
    logits, labels = torch.load(tmp_path / "found.pt")
    expected = dual(**batch).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert labels == [LABELS[index] for index in expected.argmax(-1).tolist()]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_training_checkpoint_carries_its_code_as_well(dual_of, batch, tokenizer, tmp_path, head):
    dual = dual_of("llama", classifier_head=head, id2label=LABELS)
    dual.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    torch.save(TEXTS, tmp_path / "found.pt")
    run_as_a_stranger(OPEN_AS_A_STRANGER, tmp_path / "run", tmp_path / "found.pt", "remote")
    logits, _ = torch.load(tmp_path / "found.pt")
    torch.testing.assert_close(logits, dual(**batch).logits, rtol=1e-5, atol=1e-5)


def test_without_either_it_is_an_error_and_the_folder_says_both_ways(dual_of, tokenizer, tmp_path):
    out = export_classifier(dual_of("llama", classifier_head="mlp"), tokenizer, tmp_path / "out")
    run_as_a_stranger(OPEN_AS_A_STRANGER, out, tmp_path / "found.pt", "neither")
    error = torch.load(tmp_path / "found.pt")
    assert "trust_remote_code=True" in error and str(out) in error
    readme = (out / "README.md").read_text()
    assert "trust_remote_code=True" in readme and "import dhrd_hf" in readme


def test_the_files_hold_no_lm_head_and_the_code(dual, tokenizer, tmp_path):
    export_classifier(dual, tokenizer, tmp_path / "out")
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"model", "score"}
    assert {path.name for path in (tmp_path / "out").glob("*.py")} == {
        "configuration_dhrd.py", "modeling_dhrd.py", "losses.py", "pooling.py", "reasoning_head.py",
    }  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["reasoning_head"] is False and set(config["auto_map"]) >= {"AutoConfig", "AutoModel"}
    assert dual.config.reasoning_head


def test_an_export_does_not_pretend_to_reason(dual_of, batch, tokenizer, tmp_path):
    out = export_classifier(dual_of("llama", classifier_head="mlp"), tokenizer, tmp_path / "out")
    classifier = AutoModelForSequenceClassification.from_pretrained(out)
    assert classifier.get_output_embeddings() is None
    for reason in (
        lambda: classifier.generate(batch["input_ids"][:1], max_new_tokens=2),
        lambda: classifier(**batch, reasoning_targets=batch["input_ids"]),
        lambda: classifier(**batch, output_reasoning_logits=True),
    ):
        with pytest.raises(ValueError, match="no reasoning head"):
            reason()
    with pytest.raises(ValueError, match="reasoning head was left out"):
        AutoModelForDualHeadClassification.from_pretrained(out)


@torch.no_grad()
def test_an_adapter_is_merged_and_predict_opens_it(dual_of, batch, tokenizer, tmp_path):
    model = add_lora(dual_of("llama", classifier_head="mlp", id2label=LABELS), r=4).eval()
    assert not [name for name, _ in model.named_parameters() if "lora" in name and "score" in name]
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    out = export_classifier(model, tokenizer, tmp_path / "out")
    opened, _ = load_classifier(out)
    torch.testing.assert_close(opened(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)
    predicted = pipeline("text-classification", str(out), device="cpu")(TEXTS[0])[0]["label"]
    assert predicted == LABELS[model(**batch).logits[0].argmax().item()]
