"""Pushing an export: huggingface_hub's own client against a Hub on loopback, with faults; then strangers read it."""

import json
import logging
import os
import shutil
import traceback

import huggingface_hub.lfs
import pytest
import torch
from hub_stand_in import HubStandIn
from huggingface_hub import ModelCard, constants
from strangers import run_as_a_stranger
from transformers import AutoModelForSequenceClassification

from dhrd_hf import export_classifier, push_classifier
from dhrd_hf.cli import main
from dhrd_hf.export import CardFacts

TOKEN = "hf_aVerySecretTokenOfAda"
LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
TEXTS = ["Oto owns a boat.", "The kiln is cold. So: the kiln glows.", "Rooks."]
NAME = "ada/entail"


@pytest.fixture
def hub(monkeypatch):
    with HubStandIn({TOKEN: "ada", "hf_bob": "bob"}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def waits(monkeypatch):
    """The seconds that huggingface_hub and we would have slept."""
    found = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture(autouse=True)
def the_token_is_never_told(capfd, caplog):
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "huggingface_hub")
    yield
    printed = capfd.readouterr()
    assert TOKEN not in printed.out + printed.err + caplog.text


@pytest.fixture(scope="module")
def exports(dual_of, tokenizer, tmp_path_factory):
    """A stock classifier in one file, in several, and one with the paper's head and its code."""
    folder = tmp_path_factory.mktemp("exports")
    export_classifier(dual_of("llama", id2label=LABELS), tokenizer, folder / "whole")
    export_classifier(dual_of("llama", id2label=LABELS), tokenizer, folder / "shards", max_shard_size="40KB")
    mlp = dual_of("llama", id2label=LABELS, classifier_head="mlp")
    torch.nn.init.normal_(mlp.score.out_proj.weight, std=0.3)
    export_classifier(mlp, tokenizer, folder / "mlp")
    return folder


@pytest.fixture
def folder(exports, tmp_path):
    """A copy of the export in one file, with a card."""
    shutil.copytree(exports / "whole", tmp_path / "whole")
    (tmp_path / "whole" / "README.md").write_text("---\nlicense: mit\n---\n# Entail\n")
    return tmp_path / "whole"


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def as_pushed(folder, repo=NAME):
    """The files of an export as they are on the Hub, where the card's snippet names the repository."""
    here = contents(folder)
    card = here["README.md"].replace(b'name = "."  # this folder, or its name on the Hub', f'name = "{repo}"'.encode())
    return {**here, "README.md": card}


def refused(error, *arguments, **options):
    """The line that a push is refused with; nothing behind the error holds the token either."""
    with pytest.raises(error) as caught:
        push_classifier(*arguments, **options)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# One commit


def test_all_files_come_in_one_commit(hub, exports):
    pushed = push_classifier(exports / "shards", NAME, commit_message="First")
    here = as_pushed(exports / "shards")
    assert here != contents(exports / "shards")
    assert len([name for name in here if name.endswith(".safetensors")]) > 2
    assert hub.files(NAME) == here
    (commit,) = hub.commits(NAME)
    assert commit["message"] == "First" and hub.counted("POST .*/commit/") == 1
    assert pushed.commit_url == f"{hub.url}/{NAME}/commit/{commit['id']}"
    assert pushed.files == {name: len(content) for name, content in here.items()}
    assert hub.repos[NAME]["private"] is False


def test_the_same_push_again_makes_no_commit(hub, exports):
    first = push_classifier(exports / "shards", NAME)
    sent = hub.counted("PUT /lfs/")
    assert push_classifier(exports / "shards", NAME).commit_url == first.commit_url
    assert len(hub.commits(NAME)) == 1 and hub.counted("PUT /lfs/") == sent


def test_what_would_be_opened_instead_is_removed_and_the_rest_stays(hub, exports, folder):
    older = dict.fromkeys(("adapter_config.json", "pytorch_model.bin", "eval/config.json", "notes.md"), b"{}")
    hub.add_repo(NAME, older)
    first = push_classifier(exports / "shards", NAME)
    assert first.removed == ("adapter_config.json", "pytorch_model.bin")
    second = push_classifier(folder, NAME)
    shards = {name for name in contents(exports / "shards") if name.startswith("model")}
    assert set(second.removed) == shards and len(shards) > 3
    assert hub.files(NAME) == {**contents(folder), "eval/config.json": b"{}", "notes.md": b"{}"}
    assert len(hub.commits(NAME)) == 3


def test_private_and_branches(hub, exports, folder):
    push_classifier(exports / "whole", NAME, private=True)
    assert hub.repos[NAME]["private"] is True
    for _ in range(2):  # a branch that is new, and one that is there
        pushed = push_classifier(folder, NAME, private=True, revision="v2/more")
    assert pushed.revision == "v2/more"
    cards = [hub.files(NAME, *branch)["README.md"] for branch in (("v2/more",), ())]
    assert ["# Entail" in card.decode() for card in cards] == [True, False]

    hub.add_repo("ada/public")
    line = refused(PermissionError, folder, "ada/public", private=True)
    assert "is public" in line and "--private" in line and hub.url in line
    assert hub.commits("ada/public") == [] and not hub.counted("ada/public/preupload")


def test_an_export_without_a_card_gets_one_on_the_hub(hub, folder):
    (folder / "README.md").unlink()
    assert "README.md" in push_classifier(folder, NAME).files
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert card.data.pipeline_tag == "text-classification" and f'name = "{NAME}"' in card.text
    assert not (folder / "README.md").exists()


def test_a_models_card_says_what_is_given(hub, dual_of, tokenizer):
    push_classifier(dual_of("llama", id2label=LABELS), NAME, tokenizer, card=CardFacts(license="mit", language=["en"]))
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert (card.data.license, card.data.language) == ("mit", ["en"])
    with pytest.raises(ValueError, match="has its model card in it"):
        push_classifier("folder", NAME, card=CardFacts())


def test_hidden_files_stay_here(hub, folder):
    (folder / ".env").write_text("HF_TOKEN=secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("")
    push_classifier(folder, NAME)
    assert ".env" not in hub.files(NAME) and ".git/config" not in hub.files(NAME)


# Faults that pass


@pytest.mark.parametrize(
    ("request_", "answer", "wait"),
    [
        ("POST /api/repos/create", {"status": 429, "headers": {"Retry-After": "7"}}, 7),
        ("POST /api/repos/create", {"status": 429, "headers": {"RateLimit": '"api";r=0;t=11'}}, 11),
        ("POST /api/repos/create", {"status": 500}, 1),
        ("POST /api/repos/create", {"drop": "after"}, 1),
        ("GET /api/models/ada/entail", {"status": 503}, 1),
        ("POST .*/branch/", {"status": 502}, 1),
        ("POST .*/preupload/", {"status": 500}, 1),
        ("POST .*/objects/batch", {"status": 429, "headers": {"Retry-After": "0"}}, 1),
        ("PUT /lfs/", {"status": 500}, 1),
        ("PUT /lfs/", {"drop": "before"}, 1),
        ("POST /api/validate-yaml", {"status": 504}, 1),
        ("POST .*/commit/", {"status": 500}, 1),
        ("POST .*/commit/", {"status": 429, "headers": {"Retry-After": "3"}}, 3),
        ("POST .*/commit/", {"drop": "before"}, 1),
        ("POST .*/commit/", {"drop": "after"}, 1),  # the commit is made, its answer is lost
    ],
)
def test_a_fault_that_passes_is_waited_for_once(hub, waits, folder, caplog, request_, answer, wait):
    hub.fail(request_, **answer)
    pushed = push_classifier(folder, NAME, revision="dev")
    assert hub.files(NAME, "dev") == contents(folder) and len(hub.commits(NAME, "dev")) == 1
    assert pushed.commit_url.endswith(hub.commits(NAME, "dev")[0]["id"])
    (waited,) = waits
    assert waited == pytest.approx(wait, rel=0.26)
    assert "again" in caplog.text or "Retry" in caplog.text


# Faults that stay


@pytest.mark.parametrize(
    ("request_", "tries"),
    # Ours: five tries. huggingface_hub's own: six, which are not multiplied by ours.
    [("POST /api/repos/create", 5), ("POST .*/preupload/", 6), ("PUT /lfs/", 6), ("POST .*/commit/", 5)],
)
@pytest.mark.parametrize("answer", [{"status": 503}, {"drop": "before"}], ids=["503", "dropped"])
def test_a_fault_that_stays_leaves_the_branch_as_it_was(hub, waits, folder, request_, tries, answer):
    hub.add_repo(NAME, {"config.json": b"{}"})
    hub.fail(request_, times=1000, **answer)
    line = refused(OSError if "status" in answer else ConnectionError, folder, NAME)
    assert hub.files(NAME) == {"config.json": b"{}"} and len(hub.commits(NAME)) == 1
    assert hub.counted(request_) == tries and len(waits) == tries - 1
    assert waits == sorted(waits) and sum(waits) < 60
    assert ("503" in line) == ("status" in answer)
    assert ("harm" in line) == ("/commit/" in request_) != ("Nothing was committed." in line)


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(hub, waits, folder):
    hub.fail("POST .*/commit/", status=429, headers={"Retry-After": "3600"})
    assert "Push again in 3600 s" in refused(OSError, folder, NAME)
    assert waits == [] and hub.commits(NAME) == []


def test_no_hub_at_all(waits, folder, monkeypatch):
    with HubStandIn({}) as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "Unset it" in refused(ConnectionError, folder, NAME)  # HF_HUB_OFFLINE is set for the tests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    line = refused(ConnectionError, folder, NAME)
    assert "can't be reached" in line and gone.url in line and "HTTPS_PROXY" in line
    assert len(waits) == 4


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (("POST /api/repos/create", 401), PermissionError, ["401", "does not accept the token", "hf auth login"]),
        (("POST .*/commit/", 403), PermissionError, ["403", "may not write", "hf auth whoami"]),
        (("POST .*/commit/", 409), OSError, ["409", "meanwhile", "Push again"]),
        (("POST .*/commit/", 412), OSError, ["412", "meanwhile", "Push again"]),
        (("POST .*/commit/", 413), ValueError, ["413"]),
        (("POST /api/repos/create", 400), ValueError, ["400"]),
    ],
)
def test_a_refusal_is_a_line_without_the_token(hub, waits, folder, fault, error, words):
    for echo in (False, True):
        hub.fail(fault[0], status=fault[1], said="not like this", echo=echo)
        line = refused(error, folder, NAME)
        assert all(word in line for word in [*words, "Nothing was committed.", NAME]), line
        assert ("<token>" in line) == echo != ("not like this" in line)
    assert waits == [] and (NAME not in hub.repos or hub.commits(NAME) == [])


def test_a_commit_of_someone_else_meanwhile_is_not_buried(hub, folder, monkeypatch):
    upload = huggingface_hub.lfs._upload_single_part

    def slowly(**arguments):
        hub.commit(NAME, "main", {"config.json": b"theirs"}, "theirs")
        return upload(**arguments)

    monkeypatch.setattr(huggingface_hub.lfs, "_upload_single_part", slowly)
    assert "Push again" in refused(OSError, folder, NAME)
    assert hub.files(NAME) == {"config.json": b"theirs"}


def test_xet_that_fails_is_a_line(hub, folder, monkeypatch):
    """The stand-in has no such storage; hf_xet tries again itself."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    line = refused(ConnectionError, folder, NAME)
    assert "uploading" in line and "the token may write" in line and "Nothing was committed." in line
    assert hub.counted("xet-write-token") == 1 and hub.commits(NAME) == []


def test_names_of_others_and_a_card_that_the_hub_refuses(hub, folder):
    line = refused(PermissionError, folder, "bob/entail")
    assert "You don't have the rights to write to bob/entail" in line and "hf auth whoami" in line
    hub.other_types.add("ada/data")
    assert "another type of repository" in refused(FileNotFoundError, folder, "ada/data")
    (folder / "README.md").write_text("---\nlicense: nonsense\n---\n")
    assert '"license" must be one of' in refused(ValueError, folder, NAME)
    assert hub.commits(NAME) == []


def test_tokens_that_are_none(hub, folder, monkeypatch, tmp_path):
    assert "blank" in refused(ValueError, folder, NAME, token=f"{TOKEN} ")
    assert "blank" in refused(ValueError, folder, NAME, token=f"{TOKEN}\u2026")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for token in (None, True, False):
        assert "hf auth login" in refused(PermissionError, folder, NAME, token=token)
    assert hub.requests == []
    push_classifier(folder, NAME, token=TOKEN)
    assert hub.files(NAME) == contents(folder)


# What is refused here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repo_id": "entail"}, ["no owner", "user/entail"]),
        ({"repo_id": "ada/en tail"}, ["'ada/en tail'", "user/name"]),
        ({"repo_id": "models/ada/entail"}, ["models/ada/entail", "user/name"]),
        ({"repo_id": "ada/entail.git"}, [".git"]),
        ({"revision": ""}, ["''", "branch"]),
        ({"revision": "a" * 40}, ["branch"]),
        ({"commit_message": " "}, ["commit message"]),
        ({"tokenizer": "mine"}, ["folder alone"]),
    ],
)
def test_wrong_names_never_reach_the_network(hub, exports, options, words):
    for dry_run in (True, False):
        line = refused(ValueError, exports / "whole", **{"repo_id": NAME, "dry_run": dry_run, **options})
        assert all(word in line for word in words), line
    assert hub.requests == []


def change(name, **values):
    def to(folder):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))

    return to


NOT_EXPORTS = {
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], ["no config.json", "dhrd export"]),
    "language model": (change("config.json", architectures=["LlamaForCausalLM"]), ["LlamaForCausalLM"]),
    "checkpoint": (change("config.json", model_type="dhrd"), ["training checkpoint", "dhrd export --model"]),
    "no code": (
        change("config.json", model_type="dhrd", reasoning_head=False, auto_map={"AutoModel": "modeling_dhrd.M"}),
        ["lacks modeling_dhrd.py"],
    ),
    "not json": (lambda folder: (folder / "config.json").write_text("{"), ["config.json is not JSON"]),
    "pickle": (lambda folder: (folder / "training_args.bin").touch(), ["training_args.bin", "run code"]),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ["no weights in safetensors"]),
    "cut weights": (
        lambda folder: os.truncate(folder / "model.safetensors", 4000),
        ["model.safetensors is not a whole"],
    ),
    "a shard lacks": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        ),
        ["no model-1.safetensors"],
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer_config.json").unlink(), ["no tokenizer"]),
    "other adapter": (
        lambda folder: (folder / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM"}'),
        ["CAUSAL_LM", "SEQ_CLS"],
    ),
    "adapter on a folder": (
        lambda folder: (
            (folder / "adapter_config.json").write_text(
                '{"task_type": "SEQ_CLS", "base_model_name_or_path": "/tmp/base"}'
            ),
            (folder / "config").mkdir(),
            (folder / "config.json").rename(folder / "config" / "config.json"),
            (folder / "model.safetensors").rename(folder / "adapter_model.safetensors"),
        ),
        ["'/tmp/base', a folder here", "--format dense"],
    ),
    "run with an adapter": (
        lambda folder: (
            (folder / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}'),
            change("config.json", model_type="dhrd")(folder),
        ),
        ["training checkpoint"],
    ),
}


@pytest.mark.parametrize("case", NOT_EXPORTS)
def test_a_folder_that_is_no_export_never_reaches_the_network(hub, folder, case):
    spoil, words = NOT_EXPORTS[case]
    spoil(folder)
    for dry_run in (True, False):
        line = refused(ValueError, folder, NAME, dry_run=dry_run)
        assert all(word in line for word in words), line
    assert hub.requests == []


def test_no_folder_and_no_tokenizer(hub, folder, dual_of):
    assert "no such folder" in refused(FileNotFoundError, folder / "nowhere", NAME)
    assert "tokenizer beside it" in refused(ValueError, dual_of("llama"), NAME)


def test_a_dry_run_asks_nobody(hub, exports, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    found = push_classifier(exports / "mlp", NAME, dry_run=True)
    assert found.files == {name: len(content) for name, content in as_pushed(exports / "mlp").items()}
    assert "modeling_dhrd.py" in found.files and found.commit_url is None and hub.requests == []


# The command


def test_the_command(hub, waits, folder, capfd, monkeypatch):
    arguments = ["push", "--model", str(folder), "--repo", NAME]
    assert main([*arguments, "--dry-run"]) == 0
    out = capfd.readouterr().out
    size = (folder / "model.safetensors").stat().st_size
    assert f"{size / 1000:.3g} kB  model.safetensors" in out and "Nothing was sent" in out and hub.requests == []

    hub.fail("POST .*/commit/", status=500)
    assert main([*arguments, "--private", "--revision", "dev", "--commit-message", "Mine"]) == 0
    printed = capfd.readouterr()
    assert f"Pushed to {NAME}, branch dev: {len(contents(folder))} files" in printed.out
    assert hub.commits(NAME, "dev")[0]["message"] == "Mine" and hub.repos[NAME]["private"]

    hub.fail("POST .*/commit/", status=401, echo=True, times=2)
    for debug in ([], ["--debug"]):
        if debug:
            with pytest.raises(PermissionError, match="hf auth login"):
                main([*debug, *arguments])
        else:
            assert main(arguments) == 2
            (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("dhrd: ")]
            assert "does not accept the token" in line and TOKEN not in line
    assert main([*arguments, "--token", TOKEN]) == 2
    assert "unknown option --token" in capfd.readouterr().err
    assert main(["push", "--help"]) == 0
    assert "examples:\n  dhrd push" in capfd.readouterr().out

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.lfs._upload_single_part", stop)
    (folder / "README.md").write_text("# Other\n")
    hub.objects.clear()
    assert main([*arguments, "--revision", "new"]) == 130
    assert "all in the repository or none is" in capfd.readouterr().err
    assert hub.commits(NAME, "new") == []


# Strangers read it

PUSH = """
import sys
import torch
from transformers import AutoTokenizer
from dhrd_hf import AutoModelForDualHeadClassification, push_classifier
from dhrd_hf.cli import main
from dhrd_hf.export import CardFacts
from dhrd_hf.training import add_lora

exports, out = sys.argv[1:]
for kind in ("shards", "mlp"):
    assert main(["push", "--model", f"{exports}/{kind}", "--repo", f"ada/{kind}"]) == 0
labels = {0: "entailed", 1: "refuted", 2: "unknown"}
model = add_lora(AutoModelForDualHeadClassification.from_pretrained("org/base", num_labels=3, id2label=labels), r=4)
torch.manual_seed(7)
for parameter in model.parameters():
    if parameter.requires_grad:
        torch.nn.init.normal_(parameter, std=0.1)
tokenizer = AutoTokenizer.from_pretrained("org/base")
texts = torch.load(out + "/texts.pt")
torch.save(model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits, out + "/adapter.pt")
push_classifier(model, "ada/adapter", tokenizer, format="adapter")

training = AutoModelForDualHeadClassification.from_pretrained("org/base", num_labels=3, id2label=labels).eval()
torch.nn.init.normal_(training.score.weight, std=0.1)
batch = tokenizer(texts, padding=True, return_tensors="pt")
both = training(**batch, output_reasoning_logits=True)
torch.save((both.logits, both.reasoning_logits), out + "/training.pt")
training.push_to_hub("ada/training")
tokenizer.push_to_hub("ada/training")
"""

OPEN_TRAINING = """
import sys
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

out, how = sys.argv[1:]
classes = [AutoModel, AutoModelForSequenceClassification]
if how == "installed":
    from dhrd_hf import AutoModelForDualHeadClassification

    classes.append(AutoModelForDualHeadClassification)
trust = {} if how == "installed" else {"trust_remote_code": True}
batch = AutoTokenizer.from_pretrained("ada/training")(torch.load(out + "/texts.pt"), padding=True, return_tensors="pt")
for auto in classes:
    model = auto.from_pretrained("ada/training", **trust)
    with torch.no_grad():
        found = model.eval()(**batch, output_reasoning_logits=True)
    for one, other in zip((found.logits, found.reasoning_logits), torch.load(out + "/training.pt"), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert model.config.id2label == {0: "entailed", 1: "refuted", 2: "unknown"}
assert ("dhrd_hf" in sys.modules) == (how == "installed")
"""

READ = """
import os
import sys
import torch
from huggingface_hub import hf_hub_download
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

out = sys.argv[1]
texts = torch.load(out + "/texts.pt")
found = {}
for kind in ("shards", "mlp", "adapter"):
    name = f"ada/{kind}"
    tokenizer = AutoTokenizer.from_pretrained(name)
    if kind == "adapter":
        config = AutoConfig.from_pretrained(name, subfolder="config")
        base = AutoModelForSequenceClassification.from_pretrained("org/base", config=config)
        model = PeftModel.from_pretrained(base, name).eval()
        classify = pipeline("text-classification", model, tokenizer=tokenizer, device="cpu")
    else:
        trust = {"trust_remote_code": True} if kind == "mlp" else {}
        model = AutoModelForSequenceClassification.from_pretrained(name, **trust)
        classify = pipeline("text-classification", name, device="cpu", **trust)
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.detach()
    found[kind] = {"logits": logits, "labels": [answer["label"] for answer in classify(texts)]}
snippet = open(hf_hub_download("ada/shards", "README.md")).read().split("```python")[1].split("```")[0]
assert 'name = "ada/shards"' in snippet
exec(snippet)
assert "dhrd_hf" not in sys.modules and "HF_TOKEN" not in os.environ
torch.save(found, out + "/found.pt")
"""


def test_strangers_read_what_was_pushed(exports, lm_dir_of, tokenizer, tmp_path):
    torch.save(TEXTS, tmp_path / "texts.pt")
    with HubStandIn({TOKEN: "ada"}) as hub:
        hub.add_repo("org/base", contents(lm_dir_of("llama")))
        hub.fail("PUT /lfs/", drop="before")
        there = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        own = {"HF_HOME": tmp_path / "home", "HF_TOKEN": TOKEN}
        assert TOKEN not in run_as_a_stranger(PUSH, exports, tmp_path, **there, **own)
        assert all(len(hub.commits(f"ada/{kind}")) == 1 for kind in ("shards", "mlp", "adapter"))
        assert all(TOKEN.encode() not in c for repo in hub.repos for c in hub.files(repo).values())
        assert hub.counted("POST .*/commit/") == 5  # a training checkpoint and its tokenizer are one each
        assert not any(TOKEN.encode() in content for content in contents(tmp_path).values())

        there["HF_HOME"] = tmp_path / "elsewhere"
        run_as_a_stranger(READ + OPEN_TRAINING, tmp_path, "remote code", **there)
        run_as_a_stranger(OPEN_TRAINING, tmp_path, "installed", **there)
    found = torch.load(tmp_path / "found.pt")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = {
            kind: AutoModelForSequenceClassification.from_pretrained(exports / kind)(**batch).logits
            for kind in ("shards", "mlp")
        }
    expected["adapter"] = torch.load(tmp_path / "adapter.pt")
    for kind, logits in expected.items():
        tolerance = 1e-5 if kind == "adapter" else 0
        torch.testing.assert_close(found[kind]["logits"], logits, rtol=tolerance, atol=tolerance)
        assert found[kind]["labels"] == [LABELS[index] for index in logits.argmax(-1).tolist()]
    assert not torch.equal(expected["adapter"], expected["shards"])
