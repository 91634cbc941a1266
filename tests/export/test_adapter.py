"""`format="adapter"`: a PEFT adapter with its head, which the stock base model takes in a stranger's process."""

import json
import shutil

import peft
import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file
from strangers import run_as_a_stranger
from transformers import AutoModelForSequenceClassification

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
from dhrd_hf.evaluation import load_classifier
from dhrd_hf.modeling_dhrd import find_dual_head
from dhrd_hf.training import add_lora

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
TEXTS = ["Oto owns a boat.", "The kiln is cold. So: the kiln glows.", "Rooks."]
COMMON = {"task_type": "SEQ_CLS", "target_modules": "all-linear", "modules_to_save": ["score"]}
METHODS = {
    "lora": lambda: peft.LoraConfig(r=4, **COMMON),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, **COMMON),
    "rslora": lambda: peft.LoraConfig(r=4, use_rslora=True, **COMMON),
    "patterns": lambda: peft.LoraConfig(r=4, rank_pattern={"q_proj": 8}, alpha_pattern={"q_proj": 3}, **COMMON),
    "by-name": lambda: peft.LoraConfig(r=4, **{**COMMON, "target_modules": ["q_proj", "up_proj"]}),
    "by-regex": lambda: peft.LoraConfig(r=4, **{**COMMON, "target_modules": r"model\.layers\.1\..*(q|v)_proj"}),
    "lm-head-too": lambda: peft.LoraConfig(r=4, **{**COMMON, "target_modules": ["q_proj", "lm_head"]}),
    "loha": lambda: peft.LoHaConfig(r=4, **COMMON),
    "lokr": lambda: peft.LoKrConfig(r=4, **COMMON),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=4, **COMMON),
    "ia3": lambda: peft.IA3Config(
        **{**COMMON, "target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    ),
    "vera": lambda: peft.VeraConfig(r=4, **{**COMMON, "target_modules": ["q_proj", "o_proj"]}),
}


def moved(model, seed=7):
    """Adapter and head away from where they begin."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture
def with_lora(dual_of):
    def make(family="llama", **kwargs):
        return moved(add_lora(dual_of(family, id2label=LABELS, **kwargs), r=4))

    return make


@pytest.fixture(scope="module")
def batch(tokenizer):
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_logits_in_both_formats(method, dual_of, lm_dir_of, tokenizer, batch, tmp_path):
    model = moved(peft.get_peft_model(dual_of("llama", id2label=LABELS), METHODS[method]()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(**batch).logits
    assert not torch.allclose(expected, dual_of("llama", id2label=LABELS)(**batch).logits, atol=1e-2)

    export_classifier(model, tokenizer, tmp_path / "dense")
    export_classifier(model, tokenizer, tmp_path / "adapter", format="adapter")
    dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
    base = AutoModelForSequenceClassification.from_pretrained(lm_dir_of("llama"), num_labels=3)
    base.config.pad_token_id = 0
    adapter = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(dense(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adapter(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


OPEN_AS_A_STRANGER = """
import sys
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

base, out, found = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(out)(torch.load(found), padding=True, return_tensors="pt")
config = AutoConfig.from_pretrained(out, subfolder="config")
opened = {
    "peft": PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base, config=config), out),
    "auto": AutoPeftModelForSequenceClassification.from_pretrained(out, num_labels=3),
    "transformers": AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True),
}
assert "dhrd_hf" not in sys.modules
with torch.no_grad():
    logits = {how: model.eval()(**batch).logits for how, model in opened.items()}
torch.save((logits, config.id2label, config.pad_token_id), found)
"""


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_stranger_opens_it_in_three_ways(family, with_lora, lm_dir_of, tokenizer, batch, tmp_path):
    model = with_lora(family, prompt_template="Q: {text}", max_input_length=50)
    out = export_classifier(model, tokenizer, tmp_path / "out", format="adapter")
    torch.save(TEXTS, tmp_path / "found.pt")
    run_as_a_stranger(OPEN_AS_A_STRANGER, lm_dir_of(family), out, tmp_path / "found.pt")
    logits, id2label, pad_token_id = torch.load(tmp_path / "found.pt")
    with torch.no_grad():
        expected = model(**batch).logits
    for how, found in logits.items():
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=how)
    assert (id2label, pad_token_id) == (LABELS, 0)


OPEN_WITH_THE_LABELS = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

found, *folders = sys.argv[1:]
texts, results = torch.load(found), {}
for folder in folders:
    for opens in (AutoModelForSequenceClassification.from_pretrained, lambda it: pipeline("text-classification", it)):
        try:
            raise AssertionError(opens(folder))
        except ValueError as error:
            assert str(error).splitlines()[-1].startswith("Please pass the argument `trust_remote_code=True`"), error
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    classify = pipeline("text-classification", folder, trust_remote_code=True, device="cpu")
    with torch.no_grad():
        batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        logits = model(**batch).logits
    results[folder] = logits, model.config.id2label, [it["label"] for it in classify(texts)]
assert "dhrd_hf" not in sys.modules
torch.save(results, found)
"""


@torch.no_grad()
@pytest.mark.parametrize("labels", [{0: "no", 1: "yes"}, LABELS])
def test_transformers_opens_an_adapter_and_a_run_with_the_label_names_or_says_what_to_type(
    labels, dual_of, tokenizer, batch, tmp_path
):
    """Two labels as well: as many as transformers would take LABEL_0 and LABEL_1 for."""
    model = moved(add_lora(dual_of("gpt2", id2label=labels, num_labels=len(labels)), r=4))
    model.save_pretrained(tmp_path / "run")
    find_dual_head(model).save_config(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    export_classifier(model, tokenizer, tmp_path / "adapter", format="adapter")
    expected = model(**batch).logits
    folders = [str(tmp_path / name) for name in ("run", "adapter")]
    torch.save(TEXTS, tmp_path / "found.pt")
    run_as_a_stranger(OPEN_WITH_THE_LABELS, tmp_path / "found.pt", *folders)
    found = torch.load(tmp_path / "found.pt")
    for folder in folders:
        logits, names, said = found[folder]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        assert names == labels and said == [labels[index] for index in expected.argmax(-1).tolist()]
        ours = AutoModelForSequenceClassification.from_pretrained(folder)  # where dhrd_hf is imported
        torch.testing.assert_close(ours(**batch).logits, expected, rtol=1e-5, atol=1e-5)
        assert ours.config.id2label == labels


def test_a_run_whose_adapter_has_no_head_is_a_line(dual_of, tmp_path):
    model = peft.get_peft_model(dual_of("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    find_dual_head(model).save_config(tmp_path)
    with pytest.raises(ValueError, match="has no classification head.*modules_to_save"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_it_holds_the_adapter_and_the_head_and_says_of_what(with_lora, lm_dir_of, tokenizer, tmp_path):
    model = with_lora()
    model.peft_config["default"].revision = "main"
    out = export_classifier(model, tokenizer, tmp_path / "out", format="adapter")
    tensors = load_file(out / "adapter_model.safetensors")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(tensor.numel() for tensor in tensors.values()) == trained
    assert {name for name in tensors if "lora" not in name} == {"base_model.model.score.weight"}
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["inference_mode"]
    assert config["modules_to_save"] == ["score"]  # servers look for it by this name
    assert (config["base_model_name_or_path"], config["revision"]) == (str(lm_dir_of("llama")), "main")
    readme = (out / "README.md").read_text()
    assert f'from_pretrained("{lm_dir_of("llama")}", revision="main", config=config)' in readme
    assert json.loads((out / "config.json").read_text())["reasoning_head"] is False
    assert "lora" in metadata_load(out / "README.md")["tags"]


def test_the_commit_of_the_base_model_is_recorded(make_lm, tokenizer, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--someone--tiny"
    snapshot = repo / "snapshots" / commit
    make_lm("llama").save_pretrained(snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    dual = AutoModelForDualHeadClassification.from_pretrained("someone/tiny", num_labels=3, cache_dir=tmp_path)
    assert dual.config.backbone_revision == commit
    adapter = add_lora(dual).peft_config["default"]
    assert (adapter.base_model_name_or_path, adapter.revision) == ("someone/tiny", commit)


def test_predict_opens_it_with_its_labels_and_prompt(with_lora, tokenizer, batch, tmp_path):
    model = with_lora(prompt_template="Q: {text}")
    out = export_classifier(model, tokenizer, tmp_path / "out", format="adapter")
    opened, _ = load_classifier(out)
    assert (opened.config.id2label, opened.config.prompt_template) == (LABELS, "Q: {text}")
    with torch.no_grad():
        torch.testing.assert_close(opened(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


def refused(model, tokenizer, out, match, format="adapter"):
    with pytest.raises(ValueError, match=match):
        export_classifier(model, tokenizer, out, format=format)
    assert not out.exists() and not list(out.parent.glob(".out*"))


def test_no_adapter_is_refused(dual_of, tokenizer, tmp_path):
    refused(dual_of("llama"), tokenizer, tmp_path / "out", "wants a model with an adapter")


def test_an_adapter_without_its_head_is_refused(dual_of, tokenizer, tmp_path):
    config = peft.LoraConfig(target_modules=["q_proj"])
    refused(peft.get_peft_model(dual_of("llama"), config), tokenizer, tmp_path / "out", "no classification head")


def test_a_prompt_is_refused(dual_of, tokenizer, tmp_path):
    config = peft.PromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=3,
        num_layers=2,
        token_dim=32,
        num_attention_heads=4,
        modules_to_save=["score"],
    )
    model = peft.get_peft_model(dual_of("llama"), config)
    for format in ("adapter", "dense"):
        refused(model, tokenizer, tmp_path / "out", "PROMPT_TUNING is a prompt", format)


def test_adapters_without_their_peft_model_are_refused(dual_of, with_lora, tokenizer, tmp_path):
    injected = dual_of("llama")
    injected.add_adapter(peft.LoraConfig(target_modules=["q_proj"]))
    for model in (injected, with_lora().base_model.model):
        for format in ("adapter", "dense"):
            refused(model, tokenizer, tmp_path / "out", "is no PeftModel: give the one that add_lora", format)


@torch.no_grad()
@pytest.mark.parametrize("format", ["adapter", "dense"])
def test_a_peft_model_is_found_in_what_was_wrapped_around_it(format, with_lora, tokenizer, batch, tmp_path):
    model = with_lora()
    wrapped = torch.nn.ModuleDict({"module": model})  # as DistributedDataParallel has it
    opened, _ = load_classifier(export_classifier(wrapped, tokenizer, tmp_path / "out", format=format))
    torch.testing.assert_close(opened(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


def test_the_papers_head_is_refused(with_lora, tokenizer, tmp_path):
    refused(with_lora(classifier_head="mlp"), tokenizer, tmp_path / "out", "'mlp' head has no stock classifier")


def test_a_base_model_that_is_gone_is_refused(make_lm, tokenizer, tmp_path):
    make_lm("llama").save_pretrained(tmp_path / "base")
    model = add_lora(AutoModelForDualHeadClassification.from_pretrained(tmp_path / "base", num_labels=3))
    shutil.rmtree(tmp_path / "base")
    refused(model, tokenizer, tmp_path / "out", "base model .*base' can't be opened here: .*format='dense'")


def test_a_dual_head_base_is_refused(dual_of, tokenizer, tmp_path):
    dual_of("llama").save_pretrained(tmp_path / "base")
    model = add_lora(AutoModelForDualHeadClassification.from_pretrained(tmp_path / "base"))
    refused(model, tokenizer, tmp_path / "out", "a dual-head checkpoint.*format='dense'")


def test_other_tokens_than_the_base_models_are_refused(dual_of, tokenizer, tmp_path):
    dual = dual_of("llama")
    dual.resize_token_embeddings(408)
    refused(add_lora(dual), tokenizer, tmp_path / "out", "has 400 tokens, the trained one 408")


def test_qlora_trains_a_plain_head_and_exports_its_adapter_alone(make_lm, tokenizer, batch, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    # With AVX512-BF16 bitsandbytes repacks whole blocks of 64 values, which a narrower layer has not.
    make_lm("llama", hidden_size=128, intermediate_size=128, head_dim=32).save_pretrained(tmp_path / "lm")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    dual = AutoModelForDualHeadClassification.from_pretrained(
        tmp_path / "lm", num_labels=3, quantization_config=four_bits
    )
    assert type(dual.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert type(dual.score) is torch.nn.Linear and dual.score.weight.dtype == torch.float32
    model = add_lora(peft.prepare_model_for_kbit_training(dual, use_gradient_checkpointing=False), r=4)
    length = torch.tensor([3, 4, 5])
    out = model(**batch, labels=torch.tensor([0, 1, 2]), input_length=length, reasoning_targets=batch["input_ids"])
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model = moved(model)

    with pytest.raises(ValueError, match="quantised.*format='adapter'"):
        export_classifier(model, tokenizer, tmp_path / "dense")
    assert not (tmp_path / "dense").exists()
    export_classifier(model, tokenizer, tmp_path / "adapter", format="adapter")
    assert "quantization" not in (tmp_path / "adapter" / "config" / "config.json").read_text()
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "lm", num_labels=3, quantization_config=four_bits
    )
    base.config.pad_token_id = 0
    found = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(found(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)
