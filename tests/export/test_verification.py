"""The contract in an export, its replay, and servers held against it."""

import json
import shutil

import pytest
import torch
from families import tiny_config
from safetensors.torch import load_file, save_file
from test_export import moved_lora
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dhrd_hf import AutoModelForDualHeadClassification, export_classifier, push_classifier
from dhrd_hf.cli import main
from dhrd_hf.export import Contract, hub, verify_export
from dhrd_hf.export.contract import CONTRACT
from dhrd_hf.export.golden import golden_texts, text_of

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
LIMIT = 60
FILE = {
    "max_length": LIMIT,
    "truncation_side": "right",
    "padding_side": "right",
    "pad_token": "<pad>",
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def dense(dual_of, bos_tokenizer, tmp_path_factory):
    """A dense export with a bos token, a temperature and thresholds."""
    model = dual_of("llama", id2label=LABELS, prompt_template="Q: {text}\nA:", max_input_length=LIMIT)
    with torch.no_grad():
        model.score.weight.mul_(4)  # probabilities that tell one mistake from another
    folder = tmp_path_factory.mktemp("dense") / "out"
    return export_classifier(model, bos_tokenizer, folder, temperature=2.5, thresholds={"refuted": 0.75})


@pytest.fixture
def folder(dense, tmp_path):
    return shutil.copytree(dense, tmp_path / "copy")


@pytest.fixture(scope="module")
def multi(dual_of, tokenizer, tmp_path_factory):
    model = dual_of("llama", id2label=LABELS, problem_type="multi_label_classification", max_input_length=LIMIT)
    with torch.no_grad():
        model.score.weight.mul_(4)
    return export_classifier(model, tokenizer, tmp_path_factory.mktemp("multi") / "out")


def raw(folder):
    return json.loads((folder / CONTRACT).read_text())


def rewrite(folder, change):
    found = raw(folder)
    change(found)
    (folder / CONTRACT).write_text(json.dumps(found))


# The file


def test_the_contract_says_what_a_server_must_agree_on(dense):
    found = raw(dense)
    golden = found.pop("golden")
    assert {name: found[name] for name in FILE} == FILE
    assert found["labels"] == ["entailed", "refuted", "unknown"] and found["activation"] == "softmax"
    assert found["problem_type"] == "single_label_classification" and found["prompt_template"] == "Q: {text}\nA:"
    assert (found["prepended_ids"], found["appended_ids"], found["split_special_tokens"]) == ([2], [], False)
    assert (found["temperature"], found["temperature_is_in_the_weights"]) == (2.5, True)
    assert found["thresholds"] == {"refuted": 0.75} and found["format_version"] == 1
    assert (found["engine"], found["dtype"]) == ("torch", "float32") and found["pooled_token"].startswith(
        "the last one"
    )
    assert 30 <= len(golden) <= 45 and (dense / CONTRACT).stat().st_size < 60_000
    assert all(byte < 128 for byte in (dense / CONTRACT).read_bytes())  # nothing that an editor could normalise
    abouts = [it["about"] for it in golden]
    assert {
        "one letter",
        "accents, decomposed",
        "Thai",
        "emoji",
        "the special token <pad>",
        "empty",
        "the prompt",
    } <= {*abouts}


def test_the_golden_ids_and_logits_are_a_strangers(dense):
    """The stock library alone, text by text."""
    tokenizer = AutoTokenizer.from_pretrained(dense)
    model = AutoModelForSequenceClassification.from_pretrained(dense).eval()
    seen = {"cut": 0, "answered": 0}
    for it in raw(dense)["golden"]:
        text = it["text"] if isinstance(it["text"], str) else "".join(piece * times for piece, times in it["text"])
        assert tokenizer(text, truncation=True)["input_ids"] == it["input_ids"]
        assert it["cut"] == (len(tokenizer(text)["input_ids"]) > LIMIT)
        seen["cut"] += it["cut"]
        if it["about"] == "empty":
            assert it["logits"] is None and it["input_ids"] == [2]
            continue
        with torch.no_grad():
            logits = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
        torch.testing.assert_close(torch.tensor(it["logits"]), logits, rtol=1e-4, atol=1e-5)
        seen["answered"] += 1
    assert seen["cut"] >= 2 and seen["answered"] == len(raw(dense)["golden"]) - 1
    lengths = {it["about"]: len(it["input_ids"]) for it in raw(dense)["golden"]}
    assert lengths["one letter"] == 2 and lengths["just beyond the limit"] == lengths["far beyond the limit"] == LIMIT
    assert LIMIT - 12 < lengths["as long as the limit"] <= LIMIT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: it.update(format_version=2), "format_version is 2, and this dhrd_hf"),
        (lambda it: it.pop("labels"), "labels is missing"),
        (lambda it: it.update(labels="entailed"), "labels holds 'entailed', not list"),
        (lambda it: it.update(labels=["a", "a", "b"]), "doubled"),
        (lambda it: it.update(max_length="60"), "max_length holds '60', not int"),
        (lambda it: it.update(max_length=True), "max_length holds True"),
        (lambda it: it.update(truncation_side="middle"), "truncation_side is 'middle', not one of left, right"),
        (lambda it: it.update(temperature=float("nan")), "temperature holds nan"),
        (lambda it: it.update(thresholds={"refuted": "0.5"}), "thresholds.refuted holds '0.5', not float"),
        (lambda it: it["golden"][0].update(logits=[1.0]), "'one letter' has not one logit for each"),
        (lambda it: it["golden"][0].update(logits=[1.0, None, 2.0]), r"golden\[0\].logits\[1\] holds None"),
        (lambda it: it["golden"][0].update(input_ids=7), r"golden\[0\].input_ids holds 7"),
        (lambda it: it["golden"][0].update(text=[["x", 10**12]]), r"golden\[0\].text holds \[\['x'"),
        (lambda it: it["golden"][0].update(logits=[10**400, 0, 0]), "int too large to convert to float"),
        (lambda it: [golden.update(logits=None) for golden in it["golden"]], "no golden text has logits"),
        (lambda it: it["golden"][0].update(input_ids={}), r"input_ids holds \{\}, not ids or their ends and digest"),
        (lambda it: it["golden"][0].update(text="\ud800"), r"golden\[0\].text holds half a character"),
        (lambda it: it["golden"][0].update(text=[["ab", 499_000_000]]), "not a text or its pieces"),
        (lambda it: it.update(activation="sigmoid"), "activation is 'sigmoid' for problem_type 'single_label_cla"),
        (lambda it: it.update(problem_type="sorting"), "activation is 'softmax' for problem_type 'sorting'"),
        (lambda it: it.update(temperature_is_in_the_weights=False), "or not in the weights"),
        (lambda it: it.update(temperature=-1.0), "temperature is not above 0"),
        (lambda it: it.update(measured={"flips": -3}), "no difference is below 0"),
        (lambda it: it.update(golden=[]), "golden texts are missing"),
        (lambda it: it.update(golden=[[]]), r"golden\[0\]. holds \[\], not an object"),
    ],
)
def test_a_mutated_contract_is_one_line(folder, capsys, change, words):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=words):
        Contract.read(folder)
    assert main(["verify", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dhrd: error: ") and error.count("\n") == 1 and "Write the export anew" in error


@pytest.mark.parametrize("text", ["", "[1]", "{", "\ufeff{}", "[" * 100_000, '{"format_version": 1e999}'])
def test_what_is_no_contract_is_one_line(folder, capsys, text):
    (folder / CONTRACT).write_text(text)
    assert main(["verify", str(folder)]) == 2
    error = capsys.readouterr().err
    assert f"{CONTRACT} is not a contract of an export" in error and error.count("\n") == 1


def test_an_older_export_says_what_to_type(folder, tmp_path, capsys):
    (folder / CONTRACT).unlink()
    for target, words in (
        (folder, f"dhrd export --model RUN --output {folder} --overwrite"),
        (tmp_path / "no", "no such"),
    ):
        assert main(["verify", str(target)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


# The replay


@pytest.mark.parametrize("kind", ["dense", "multi", "regression", "mlp", "adapter", "gpt2", "bfloat16", "left"])
def test_every_export_is_as_its_contract_says(request, dual_of, make_tokenizer, tokenizer, tmp_path, kind):
    out = tmp_path / "out"
    if kind in ("dense", "multi"):
        out = request.getfixturevalue(kind)
    elif kind == "left":  # cut on the left, for prompts that end in their question; padded on the left in training
        left = make_tokenizer(truncation_side="left", padding_side="left")
        export_classifier(dual_of("gpt2", id2label=LABELS, max_input_length=LIMIT), left, out)
        assert raw(out)["truncation_side"] == "left" and raw(out)["padding_side"] == "right"
        ends = {it["about"]: it["input_ids"][-5:] for it in raw(out)["golden"]}
        assert ends["far beyond the limit"] == tokenizer("the bell rang twice.")["input_ids"][-5:]
    else:
        options = {"mlp": {"classifier_head": "mlp"}, "regression": {"num_labels": 1, "problem_type": "regression"}}
        options = options.get(kind, {"id2label": LABELS, "dtype": getattr(torch, kind, torch.float32)})
        model = dual_of("gpt2" if kind == "gpt2" else "llama", max_input_length=LIMIT, **options)
        model = moved_lora(model) if kind == "adapter" else model
        export_classifier(model, tokenizer, out, "adapter" if kind == "adapter" else "dense")
    found = verify_export(out)
    assert found.faults() == [] and (found.wrong_ids, found.flips) == ([], 0)
    assert found.texts >= 30 and found.largest_difference < (0.1 if kind == "bfloat16" else 1e-4)


def test_ones_own_texts_are_there_when_asked_for(dual_of, tokenizer, tmp_path):
    model = dual_of("llama", id2label=LABELS, max_input_length=LIMIT)
    export_classifier(model, tokenizer, tmp_path / "out", golden=["A private remark."])
    assert Contract.read(tmp_path / "out").own_texts == ["A private remark."]
    export_classifier(model, tokenizer, tmp_path / "none")
    assert Contract.read(tmp_path / "none").own_texts == []


def swap_labels(folder):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "refuted", "1": "entailed", "2": "unknown"}
    config["label2id"] = {"refuted": 0, "entailed": 1, "unknown": 2}
    (folder / "config.json").write_text(json.dumps(config))


def change_tokenizer(**changes):
    def change(folder):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_contract(**changes):
    return lambda folder: rewrite(folder, lambda found: found.update(changes))


def change_score(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"] = tensors["score.weight"].roll(1, 0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def lose_bos(folder):
    found = json.loads((folder / "tokenizer.json").read_text())
    found["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            swap_labels,
            "labels: ['refuted', 'entailed', 'unknown'] in the folder, ['entailed', 'refuted', 'unknown'] in",
        ),
        (change_tokenizer(model_max_length=50), "max_length: 50 in the folder, 60 in the contract"),
        (change_tokenizer(model_max_length=10**30), "(from id 60 on expected [] of 60, found ["),
        (
            change_tokenizer(truncation_side="left"),
            "truncation_side: 'left' in the folder, 'right' in the contract",
        ),
        (change_tokenizer(split_special_tokens=True), "the special token <pad> (from id 1 on"),
        (change_tokenizer(pad_token=None), "the tokenizer has no pad token"),
        (change_contract(pad_token="</s>"), "pad_token: '<pad>' in the folder, '</s>' in the contract"),
        (change_contract(prepended_ids=[7]), "prepended_ids: [2] in the folder, [7] in the contract"),
        (
            change_contract(split_special_tokens=True),
            "split_special_tokens: False in the folder, True in the contract",
        ),
        (change_contract(pooled_token="the first one"), "'the first one' in the contract"),
        (change_contract(dtype="float16"), "dtype: 'float32' in the folder, 'float16' in the contract"),
        (change_contract(engine="onnx"), "engine: 'torch' in the folder, 'onnx' in the contract"),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content }}"),
            "the folder has a chat template, into which CrossEncoder puts every text",
        ),
        (change_score, "labels flip, 0 may"),
        (lose_bos, "texts become other token ids: one letter (from id 0 on expected [2, "),
    ],
)
def test_what_was_changed_afterwards_is_found(folder, capsys, spoil, words):
    spoil(folder)
    assert main(["verify", str(folder)]) == 1
    said = capsys.readouterr().out
    assert words in said and said.endswith("Not as the contract says.\n")
    with pytest.raises(ValueError, match="is not what its dhrd_contract.json says"):
        push_classifier(folder, "ada/entail", dry_run=True)


@pytest.mark.parametrize("limit", ["60", 0, -1, True])
def test_a_limit_that_is_none_is_one_line(folder, capsys, limit):
    change_tokenizer(model_max_length=limit)(folder)
    assert main(["verify", str(folder)]) == 2
    error = capsys.readouterr().err
    assert f"a tokenizer whose model_max_length is {limit!r}, not a number" in error and error.count("\n") == 1


@pytest.mark.parametrize(("limit", "longest"), [(8192, 8192), (131_072, 200)])
def test_a_high_limit_takes_no_enormous_texts(tokenizer, limit, longest):
    texts = {about: text_of(text) for about, text in golden_texts(tokenizer, limit, None)}
    lengths = {about: len(tokenizer(text, verbose=False)["input_ids"]) for about, text in texts.items()}
    assert longest / 2 < max(lengths.values()) < longest + 5_000
    assert ("far beyond the limit" in texts) == (limit == 8192) and len(texts) >= 30


def test_an_export_without_a_contract_is_pushed_with_a_warning(folder, monkeypatch):
    told = []
    monkeypatch.setattr(hub.logger, "warning", told.append)
    assert CONTRACT in push_classifier(folder, "ada/entail", dry_run=True).files and told == []
    (folder / CONTRACT).unlink()
    push_classifier(folder, "ada/entail", dry_run=True)
    (line,) = told
    assert f"{folder} has no {CONTRACT}: it is pushed as it is, without a replay" in line


def test_a_tokenizer_that_opens_as_another_is_refused(dual_of, tokenizer, lm_dir_of, tmp_path):
    """Qwen2's class, which AutoTokenizer takes whatever the folder says, composes accents and knows <|endoftext|>."""
    folder = shutil.copytree(lm_dir_of("qwen3"), tmp_path / "lm")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("qwen2")).save_pretrained(folder)
    model = AutoModelForDualHeadClassification.from_pretrained(folder, num_labels=3)
    with pytest.raises(
        ValueError, match="become other token ids: .*AutoTokenizer opens a Qwen2Tokenizer, and this is a"
    ):
        export_classifier(model, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_classifier(model, AutoTokenizer.from_pretrained(folder), tmp_path / "out")


def test_logits_that_are_not_finite_are_refused(dual_of, tokenizer, tmp_path):
    model = dual_of("llama", num_labels=3)
    with torch.no_grad():
        model.score.weight.fill_(3e38)  # finite, and what it gives is not
    with pytest.raises((ValueError, FloatingPointError), match="not finite|differ"):
        export_classifier(model, tokenizer, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command_takes_ones_own_rows(dual_of, tokenizer, tmp_path, capsys):
    model = dual_of("llama", id2label=LABELS, prompt_template="Q: {question}", max_input_length=LIMIT)
    model.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "Who sang?"}) + "\n")
    command = ["export", "--model", str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--golden", str(rows)]
    assert main(command) == 0
    assert Contract.read(tmp_path / "out").own_texts == ["Q: Who sang?"]
    assert main([*command, "--format", "onnx", "--overwrite"]) == 2
    assert "--golden goes with --format dense or adapter" in capsys.readouterr().err


@pytest.mark.parametrize(("scale", "right"), [(1 + 1e-6, True), (0.999, False), (1.01, False)])
def test_weights_that_turn_no_label_are_found_too(folder, scale, right):
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"] *= scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    replay = verify_export(folder)
    assert replay.flips == 0 and (replay.faults() == []) == right
