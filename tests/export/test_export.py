"""Promise 5: what is exported opens as a stock classifier, in a process that never heard of dhrd_hf."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from strangers import run_as_a_stranger
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaForSequenceClassification

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
from dhrd_hf.evaluation import load_classifier
from dhrd_hf.export import classifier
from dhrd_hf.modeling_dhrd import find_dual_head
from dhrd_hf.training import add_lora

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
PROMPT = "Say whether it follows. {text}"
TEXTS = ["Oto owns a boat.", "The kiln is cold. So: the kiln glows.", "Rooks."]
KINDS = ("llama", "llama-tied", "gpt2", "gemma2", "gpt-neox", "llama-lora")

OPEN_AS_A_STRANGER = """
import sys
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

found = {}
for folder in sys.argv[1:]:
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tokenizer = AutoTokenizer.from_pretrained(folder)
    classify = pipeline("text-classification", folder, device="cpu")
    texts = torch.load(folder + "/../texts.pt")
    with torch.no_grad():
        found[folder] = {
            "class": type(model).__name__,
            "right": model(**tokenizer(texts, padding=True, return_tensors="pt")).logits,
            "left": model(**tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")).logits,
            "alone": torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts]),
            "pipeline": classify(texts, batch_size=2),
            "hidden": AutoModel.from_pretrained(folder)(**tokenizer(texts[0], return_tensors="pt")).last_hidden_state,
        }
assert "dhrd_hf" not in sys.modules
torch.save(found, sys.argv[1] + "/../found.pt")
"""


def moved_lora(model):
    """LoRA adapters that are not the identity that they begin as."""
    model = add_lora(model, r=4)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def make_model(dual_of):
    def make(kind, **kwargs):
        model = dual_of(
            kind.removesuffix("-lora"), id2label=LABELS, prompt_template=PROMPT, max_input_length=77, **kwargs
        )
        return moved_lora(model) if kind.endswith("-lora") else model

    return make


@pytest.fixture(scope="module")
def exported(make_model, tokenizer, tmp_path_factory):
    """For each kind of model: the model, its exported folder, and what a stranger's process found in it."""
    folder = tmp_path_factory.mktemp("exports")
    torch.save(TEXTS, folder / "texts.pt")
    models = {kind: make_model(kind) for kind in KINDS}
    for kind, model in models.items():
        assert export_classifier(model, tokenizer, folder / kind, max_shard_size="40KB") == folder / kind
    run_as_a_stranger(OPEN_AS_A_STRANGER, *(folder / kind for kind in KINDS))
    found = torch.load(folder / "found.pt")
    return {kind: (model, folder / kind, found[str(folder / kind)]) for kind, model in models.items()}


def tensors_in(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_gets_the_dual_heads_logits(exported, tokenizer, kind):
    model, _, found = exported[kind]
    with torch.no_grad():
        for side in ("right", "left"):
            batch = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
            expected = model(batch["input_ids"], batch["attention_mask"]).logits
            torch.testing.assert_close(found[side], expected, rtol=1e-5, atol=1e-5)
        alone = torch.cat([model(tokenizer(text, return_tensors="pt")["input_ids"]).logits for text in TEXTS])
        torch.testing.assert_close(found["alone"], alone, rtol=1e-5, atol=1e-5)
        for prediction, logits in zip(found["pipeline"], alone, strict=True):
            assert prediction["label"] == LABELS[logits.argmax().item()]
            assert prediction["score"] == pytest.approx(logits.softmax(-1).max().item(), rel=1e-4)
        ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
        expected = model(ids, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(found["hidden"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_hold_the_classifier_and_no_lm_head(exported, kind):
    _, folder, found = exported[kind]
    names = set(tensors_in(folder))
    prefix = {"gpt2": "transformer", "gpt-neox": "gpt_neox"}.get(kind, "model")
    assert {name.split(".")[0] for name in names} == {prefix, "score"}
    assert not any("lora" in name or "lm_head" in name or "embed_out" in name for name in names)
    assert len(list(folder.glob("*.safetensors"))) > 1 and (folder / "model.safetensors.index.json").exists()
    assert not (folder / "adapter_config.json").exists()

    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [found["class"]]
    assert config["id2label"] == {str(index): name for index, name in LABELS.items()}
    assert config["label2id"] == {name: index for index, name in LABELS.items()}
    assert config["pad_token_id"] == 0
    assert config["prompt_template"] == PROMPT
    assert config["model_type"] != "dhrd" and "auto_map" not in config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 77 and tokenizer.pad_token_id == 0


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_the_problem_type_is_carried(dual_of, tokenizer, tmp_path, problem_type):
    export_classifier(dual_of("llama", problem_type=problem_type), tokenizer, tmp_path / "out")
    stock = LlamaForSequenceClassification.from_pretrained(tmp_path / "out")
    assert stock.config.problem_type == problem_type


def test_bf16_stays_bf16(dual_of, tokenizer, tmp_path):
    model = dual_of("llama", dtype=torch.bfloat16)
    export_classifier(model, tokenizer, tmp_path / "out")
    tensors = tensors_in(tmp_path / "out")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert torch.equal(tensors["score.weight"], model.score.weight)


@pytest.mark.parametrize("kind", ["llama", "llama-lora"])
@pytest.mark.parametrize("training", [True, False])
def test_the_callers_model_and_tokenizer_are_left_as_they_were(make_model, make_tokenizer, tmp_path, kind, training):
    model, tokenizer = make_model(kind).train(training), make_tokenizer()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    limit = tokenizer.model_max_length
    export_classifier(model, tokenizer, tmp_path / "out")
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trainable
    assert model.training == training and tokenizer.model_max_length == limit
    if kind == "llama-lora":
        assert {"lora_A", "lora_B"} <= {part for name in after for part in name.split(".")}


def test_with_eos_as_pad_the_export_pools_as_the_model_does(dual_of, pad_is_eos_tokenizer, tmp_path):
    model = dual_of("llama")
    model.config.pad_token_id = pad_is_eos_tokenizer.pad_token_id
    export_classifier(model, pad_is_eos_tokenizer, tmp_path / "out")
    stock = LlamaForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert stock.config.pad_token_id == 1
    x = torch.tensor([[7, 8, 9, 1]])
    torch.testing.assert_close(stock(x).logits, model(x).logits, rtol=1e-5, atol=1e-5)


# A folder is whole, or it is not there


def all_files(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def occupied(tmp_path):
    """A folder with something in it, among others."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("an older classifier")
    return tmp_path


def test_a_folder_with_something_in_it_is_refused(dual_of, tokenizer, occupied):
    before = all_files(occupied)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_classifier(dual_of("llama"), tokenizer, occupied / "out")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="precious.txt is a file, which is never replaced by a folder"):
            export_classifier(dual_of("llama"), tokenizer, occupied / "out/precious.txt", overwrite=overwrite)
    assert all_files(occupied) == before


def test_overwriting_replaces_the_folder(dual_of, tokenizer, occupied):
    export_classifier(dual_of("llama"), tokenizer, occupied / "out", overwrite=True)
    assert (occupied / "out" / "config.json").exists() and not (occupied / "out" / "precious.txt").exists()
    assert os.listdir(occupied) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["llama", "llama-lora"])
def test_the_models_own_folder_is_refused(make_model, lm_dir_of, tokenizer, tmp_path, monkeypatch, kind, overwrite):
    run = tmp_path / "runs" / "mine"
    model = make_model(kind)
    if kind == "llama-lora":  # a base of its own, which the export would delete as well
        base = shutil.copytree(lm_dir_of("llama"), tmp_path / "bases" / "llama")
        model = moved_lora(AutoModelForDualHeadClassification.from_pretrained(base, id2label=LABELS))
    model.save_pretrained(run)
    find_dual_head(model).config.save_pretrained(run)
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(run)
    opened, before = AutoModelForDualHeadClassification.from_pretrained(run), all_files(tmp_path)
    refused = {"is": [run, tmp_path / "link", "."], "holds": [run / "..", run.parent, tmp_path]}
    if kind == "llama-lora":
        refused["is"].append(base)
        refused["holds"].append(base.parent)
    for verb, folders in refused.items():
        for folder in folders:
            with pytest.raises(
                ValueError, match=f"{verb} .*the model is read from.*Name another folder, such as"
            ) as error:
                export_classifier(opened, tokenizer, folder, overwrite=overwrite)
            assert "\n" not in str(error.value) and "--overwrite" not in str(error.value)
    assert all_files(tmp_path) == before
    for folder in (run / "classifier", run.parent / "mine-classifier"):
        export_classifier(opened, tokenizer, folder)
        export_classifier(opened, tokenizer, folder, overwrite=True)
    kept = all_files(tmp_path)
    assert all(kept[name] == file for name, file in before.items())


def test_an_empty_folder_and_missing_parents_are_filled(dual_of, tokenizer, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        export_classifier(dual_of("llama"), tokenizer, str(folder))
        assert (folder / "config.json").exists()
    assert sorted(os.listdir(tmp_path)) == ["a", "empty"]


def spoil_weights(save):
    """A `save_pretrained` whose file holds another score than the model has."""

    def spoiled(self, folder, **kwargs):
        save(self, folder, **kwargs)
        tensors = load_file(f"{folder}/model.safetensors")
        tensors["score.weight"] = tensors["score.weight"] + 0.01
        save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})

    return spoiled


def spoil_config(save):
    """A `save_pretrained` whose config names another pad token, so that the classifier pools padding."""

    def spoiled(self, folder, **kwargs):
        save(self, folder, **kwargs)
        config = json.loads(Path(folder, "config.json").read_text())
        with open(f"{folder}/config.json", "w") as file:
            json.dump({**config, "pad_token_id": 5}, file)

    return spoiled


def interrupt(save):
    def interrupted(self, folder, **kwargs):
        save(self, folder, **kwargs)
        raise KeyboardInterrupt

    return interrupted


@pytest.mark.parametrize(
    ("sabotage", "error"), [(spoil_weights, ValueError), (spoil_config, ValueError), (interrupt, KeyboardInterrupt)]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_spoiled_or_interrupted_export_leaves_no_trace(
    dual_of, tokenizer, occupied, monkeypatch, sabotage, error, overwrite
):
    before = all_files(occupied)
    save = LlamaForSequenceClassification.save_pretrained
    monkeypatch.setattr(LlamaForSequenceClassification, "save_pretrained", sabotage(save))
    with pytest.raises(error):
        export_classifier(dual_of("llama"), tokenizer, occupied / ("out" if overwrite else "new"), overwrite=overwrite)
    assert all_files(occupied) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_classifier_that_is_built_wrong_is_not_left_behind(dual_of, tokenizer, occupied, monkeypatch, overwrite):
    before, model = all_files(occupied), dual_of("llama")
    score, build = model.score.weight.detach().clone(), classifier._stock_classifier

    def build_wrong(*args):
        stock = build(*args)
        stock.score.weight = torch.nn.Parameter(stock.score.weight.detach() + 0.01)  # not in place: it is the model's
        return stock

    monkeypatch.setattr(classifier, "_stock_classifier", build_wrong)
    with pytest.raises(ValueError, match="logits differ"):
        export_classifier(model, tokenizer, occupied / ("out" if overwrite else "new"), overwrite=overwrite)
    assert all_files(occupied) == before
    assert torch.equal(model.score.weight, score)


# float32 rounds what is added to the weights: the second's and third's logits are off by 1.0 and 1.4e-4 of the largest.
@pytest.mark.parametrize(
    ("family", "std", "seed"), [("llama", 0.1, 0), ("llama", 0.5, 4), ("llama", 0.7, 11), ("gpt2", 1.0, 0)]
)
def test_an_adapter_of_any_size_is_merged_and_one_that_is_merged_wrongly_is_refused(
    dual_of, tokenizer, tmp_path, monkeypatch, family, std, seed
):
    model = add_lora(dual_of(family, max_input_length=60), r=8)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=std)
    export_classifier(model, tokenizer, tmp_path / "out")
    # What is in the folder is the merged model, to the rounding of sums alone.
    merged = classifier.merged_copy(model)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    ids = tokenizer("It rains. So the street is wet.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, merged(ids).logits, rtol=1e-5, atol=1e-5)

    def merged_in_part(model):
        found = copy.deepcopy(model)
        for module in found.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: 0.8 * value for name, value in module.scaling.items()}
        return found.merge_and_unload()

    monkeypatch.setattr(classifier, "merged_copy", merged_in_part)
    with pytest.raises(ValueError, match="The adapter, merged into the model's weights, changes logits by"):
        export_classifier(model, tokenizer, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_failed_last_rename_gives_the_old_folder_back(dual_of, tokenizer, occupied, monkeypatch):
    before, replace, failed = all_files(occupied), os.replace, []

    def fail_once(source, target, **kwargs):
        if os.fspath(target) == str(occupied / "out") and not failed:
            failed.append(source)
            raise OSError("the disk is gone")
        return replace(source, target, **kwargs)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="the disk is gone"):
        export_classifier(dual_of("llama"), tokenizer, occupied / "out", overwrite=True)
    assert failed and all_files(occupied) == before


# What is refused


def test_another_pad_token_than_the_models_is_refused(dual_of, pad_is_eos_tokenizer, make_tokenizer, tmp_path):
    with pytest.raises(ValueError, match="pad token id 0.*id 1"):
        export_classifier(dual_of("llama"), pad_is_eos_tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="no pad token"):
        export_classifier(dual_of("llama"), make_tokenizer(pad_token=None), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_model_with_one_head_and_an_unknown_format_are_refused(make_lm, dual_of, tokenizer, tmp_path):
    with pytest.raises(TypeError, match="LlamaForCausalLM"):
        export_classifier(make_lm("llama"), tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="'gguf'.*dense"):
        export_classifier(dual_of("llama"), tokenizer, tmp_path / "out", format="gguf")
    assert os.listdir(tmp_path) == []


# Calibrated


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "llama-lora", "mlp"])
@pytest.mark.parametrize("format", ["dense", "adapter"])
def test_the_temperature_is_in_the_heads_weights(make_model, dual_of, tokenizer, tmp_path, kind, format):
    if format == "adapter" and kind != "llama-lora":
        return
    model = dual_of("llama", classifier_head="mlp") if kind == "mlp" else make_model(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_classifier(model, tokenizer, tmp_path / "out", format, temperature=2.5)
    opened, _ = load_classifier(tmp_path / "out")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    expected = model(**batch).logits
    torch.testing.assert_close(opened(**batch).logits, expected / 2.5, rtol=1e-4, atol=1e-4)
    assert torch.equal(opened(**batch).logits.argmax(-1), expected.argmax(-1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            export_classifier(model, tokenizer, tmp_path / "other", temperature=wrong)
