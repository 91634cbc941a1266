"""Running servers held against an export's contract: each protocol as it is documented, and what servers get wrong."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest
import torch
from serving_stand_in import ServingStandIn

from dhrd_hf import export_classifier
from dhrd_hf.cli import main
from dhrd_hf.export import Contract, Server, serving, verify_server

LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
LIMIT = 60
NAMES = {
    "vllm": "vLLM",
    "infinity": "infinity",
    "tei": "text-embeddings-inference",
    "endpoint": "an Inference Endpoint",
}


@pytest.fixture(scope="module")
def export_of(dual_of, bos_tokenizer, tmp_path_factory):
    """Exports by problem type, whose probabilities tell one mistake from another."""
    made = {}

    def make(problem_type="single_label_classification"):
        if problem_type not in made:
            labels = {"num_labels": 1} if problem_type == "regression" else {"id2label": LABELS}
            model = dual_of(
                "llama", problem_type=problem_type, max_input_length=LIMIT, prompt_template="Q: {text}", **labels
            )
            with torch.no_grad():
                model.score.weight.mul_(4)
            folder = tmp_path_factory.mktemp(problem_type) / "out"
            made[problem_type] = export_classifier(model, bos_tokenizer, folder, temperature=2.5)
        return made[problem_type]

    return make


@pytest.fixture
def table(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": it["text"], "label": it["label"]}) + "\n" for it in rows))
    return path


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_server_that_does_right_is_found_out_and_passes(export_of, kind, problem_type):
    folder = export_of(problem_type)
    with ServingStandIn(folder, kind) as stand_in:
        server = Server(f"{stand_in.url}/", Contract.read(folder))
        found = verify_server(server)
    asked = ", with raw_scores" if kind == "tei" and problem_type != "single_label_classification" else ""
    assert server.kind == NAMES[kind] + asked
    assert found.faults() == [] and found.flips == 0 and found.largest_difference < 1e-5
    assert found.answered == len([it for it in Contract.read(folder).golden if it.logits])


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong order", "unknown, refuted, entailed"),
        ("names lost", "LABEL_0"),
        ("temperature again", "it divides by the temperature, 2.5, which is in the weights already"),
        ("other side", "only texts of more than 60 tokens differ: it has to cut them on the right, to 60"),
        ("longer", "only texts of more than 60 tokens differ: it has to cut them on the right, to 60"),
        ("raw", "it answers with no activation, where the contract says softmax"),
        ("specials split", "the special token <"),
        ("strips", "only texts with blanks at an end differ: it strips them, as infinity does"),
    ],
)
def test_a_server_that_does_wrong_is_told_what_it_does(export_of, capsys, kind, fault, words):
    folder = export_of()
    with ServingStandIn(folder, kind, fault) as stand_in:
        assert main(["verify", str(folder), "--server", stand_in.url]) == 1
    said = capsys.readouterr().out
    if (kind, fault) == ("vllm", "wrong order"):  # it names the best label alone
        words = "it calls 'unknown' what the contract calls 'entailed'"
    assert words in said and "DIFFERS" in said


@pytest.mark.parametrize("fault", ["nan", "null"])
@pytest.mark.parametrize("kind", ["vllm", "infinity", "endpoint"])
def test_scores_that_are_not_finite_never_pass(export_of, kind, fault):
    with ServingStandIn(export_of(), kind, fault) as stand_in:
        found = verify_server(Server(stand_in.url, Contract.read(export_of())))
    assert "a probability differs by inf, 0.01 is allowed" in found.faults()[0]


@pytest.mark.parametrize(
    "kind", ["vllm", "infinity", "endpoint"]
)  # the other's is always that, and it is asked for logits
def test_softmax_instead_of_sigmoid_is_told(export_of, kind):
    folder = export_of("multi_label_classification")
    with ServingStandIn(folder, kind, "softmax") as stand_in:
        found = verify_server(Server(stand_in.url, Contract.read(folder)))
    assert "it answers with softmax, where the contract says sigmoid" in found.faults()


def test_what_is_sent_is_what_the_servers_document(export_of):
    contract = Contract.read(export_of())
    sent = {}
    for kind in NAMES:
        with ServingStandIn(export_of(), kind) as stand_in:
            Server(stand_in.url, contract, model="mine").probabilities(["It rains.", "It snows."])
            path, _, body = stand_in.requests[-1]
            sent[kind] = (path, body)
    classify = {"input": ["It rains.", "It snows."], "truncate_prompt_tokens": -1, "model": "mine"}
    assert sent["vllm"] == sent["infinity"] == ("/classify", classify)
    assert sent["tei"] == (
        "/predict",
        {"inputs": [["It rains."], ["It snows."]], "truncate": True, "raw_scores": False},
    )
    parameters = {"top_k": 3, "truncation": True}
    assert sent["endpoint"] == ("/", {"inputs": ["It rains.", "It snows."], "parameters": parameters})


def test_nothing_is_sent_but_golden_texts_and_the_rows_named(export_of, table, rows, capsys):
    contract = Contract.read(export_of())
    allowed = {*contract.texts, *(f"Q: {it['text']}" for it in rows)}
    with ServingStandIn(export_of(), "infinity") as stand_in:
        assert main(["verify", str(export_of()), "--server", stand_in.url, "--data", str(table)]) == 0
    texts = {text for _, _, body in stand_in.requests for text in body["input"]}
    assert texts <= allowed and {f"Q: {rows[0]['text']}"} <= texts
    assert not any("authorization" in {name.lower() for name in headers} for _, headers, _ in stand_in.requests)


# Rows with labels


def test_rows_with_labels_say_how_the_accuracy_changes(export_of, table, rows, tmp_path, capsys):
    """The change and its interval against counts of our own, by the stock classifier's labels."""
    folder, target = export_of(), tmp_path / "said.json"
    with ServingStandIn(folder, "tei", "wrong order") as stand_in:
        command = ["verify", str(folder), "--server", stand_in.url, "--data", str(table), "--output", str(target)]
        assert main([*command, "--tolerance", "1", "--max-flips", "100"]) == 0
        best = [int(np.argmax(stand_in.scores(f"Q: {it['text']}"))) for it in rows]
    labels = [list(LABELS.values()).index(it["label"]) for it in rows]
    right = np.mean([a == b for a, b in zip(best, labels, strict=True)])
    served = np.mean([2 - a == b for a, b in zip(best, labels, strict=True)])
    said = json.loads(target.read_text())
    assert said["data"]["rows"] == 24 and said["kind"] == "text-embeddings-inference" and said["faults"] == []
    assert said["data"]["accuracy"]["value"] == pytest.approx(right)
    assert said["data"]["server_accuracy"]["value"] == pytest.approx(served)
    assert said["data"]["change"]["change"] == pytest.approx(served - right)
    assert said["data"]["change"]["low"] < served - right < said["data"]["change"]["high"]
    assert said["replays"]["data"]["flips"] == sum(a != 1 for a in best)
    assert "Tango's paired score interval" in capsys.readouterr().out


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_rows_on_the_folder_alone(export_of, rows, tmp_path, capsys, problem_type):
    said = {"regression": 0.5, "multi_label_classification": ["refuted"]}
    table = tmp_path / "t.jsonl"
    table.write_text(
        "".join(json.dumps({"text": it["text"], "gold": said.get(problem_type, it["label"])}) + "\n" for it in rows)
    )
    assert main(["verify", str(export_of(problem_type)), "--data", str(table), "--label-column", "gold"]) == 0
    printed = capsys.readouterr().out
    assert ("Accuracy of the folder: 0." in printed) == (problem_type != "regression")


def test_limits_decide_the_exit_code(export_of, capsys):
    folder = str(export_of())
    with ServingStandIn(folder, "vllm", "temperature again") as stand_in:
        command = ["verify", folder, "--server", stand_in.url]
        assert main([*command, "--tolerance", "1"]) == 0  # no label flips
        assert main([*command, "--tolerance", "1e-3"]) == 1
    with ServingStandIn(folder, "endpoint", "other side") as stand_in:
        command = ["verify", folder, "--server", stand_in.url, "--tolerance", "1"]
        capsys.readouterr()
        assert main([*command, "--max-flips", "100"]) == 0
        flips = int(capsys.readouterr().out.split(" labels flip")[0].split()[-1])
        assert flips > 0 and main([*command, "--max-flips", str(flips)]) == 0
        assert main([*command, "--max-flips", str(flips - 1)]) == 1 and main(command) == 1


# What is no server


def refused(capsys, *arguments):
    assert main(["verify", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("dhrd: ")]
    assert line.startswith("dhrd: error: ") and "Traceback" not in printed.err
    return line


def test_what_goes_wrong_is_one_line(export_of, capsys, tmp_path):
    folder = export_of()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert f"nothing answers at {url}" in refused(capsys, folder, "--server", url)
    for fault, words in (
        ("hangs", "has not answered within 0.3 s"),
        ("refuses", "answers with status 400: no such model"),
        ("redirect", "sends on to http://example.org/classify: name that address"),
        ("html", "is no server that is known"),
        ("cut short", "nothing answers at http://127.0.0.1"),
    ):
        with ServingStandIn(folder, "vllm", fault) as stand_in:
            wait = "0.3" if fault == "hangs" else "30"
            assert words in refused(capsys, folder, "--server", stand_in.url, "--timeout", wait), fault
    with ServingStandIn(export_of("regression"), "vllm") as stand_in:  # another model
        assert "answers for the 3 labels of the export" in refused(capsys, folder, "--server", stand_in.url)
    for arguments, words in (
        (["--server", "localhost:8000"], "is no address of a server: type one such as http://localhost:8000"),
        (["--server", "file:///etc/passwd"], "is no address of a server"),
        (["--server", "http://me:secret@localhost"], "name the address without a password or a query"),
        (["--server", "http://localhost?key=secret"], "name the address without a password or a query"),
        (["--server", "http://localhost:notaport"], "nothing answers at http://localhost:notaport"),
        (["--model", "m"], "--model goes with --server URL"),
        (["--ignore-blanks"], "--ignore-blanks goes with --server URL"),
        (["--token-env", "T"], "--token-env goes with --server URL"),
        (["--server", "http://x", "--token-env", "NO_SUCH"], "there is no environment variable 'NO_SUCH'"),
        (["--tolerance", "nan"], "--tolerance nan must be 0 or a number above it"),
        (["--max-flips", "-1"], "--max-flips -1 must be 0"),
        (["--data", tmp_path / "no.jsonl"], "no.jsonl"),
        (["--sever", "http://x"], "unknown option --sever: did you mean --server?"),
    ):
        assert words in refused(capsys, folder, *arguments), arguments


def test_an_answer_has_an_end(export_of, capsys, monkeypatch):
    """A timeout of one read would not end what comes byte after byte."""
    monkeypatch.setattr(serving, "_LONGEST_ANSWER", 2_000)
    for fault, words in (("drips", "has not answered within 0.5 s"), ("endless", "with more than 2,000 bytes")):
        with ServingStandIn(export_of(), "vllm", fault) as stand_in:
            started = time.monotonic()
            assert words in refused(capsys, export_of(), "--server", stand_in.url, "--timeout", "0.5")
            assert time.monotonic() - started < 5


ECHO = "ECHO"  # becomes what was sent as Authorization
HOSTILE = {
    "a label that is a list": (200, {"data": [[{"label": ["a"], "score": 0.5}] * 3]}, 2),
    "a label that is null": (200, {"data": [[{"label": None, "score": 0.5}] * 3]}, 2),
    "a label in one of three": (200, {"data": [[{"label": "a", "score": 0.5}, 0.2, 0.3]]}, 2),
    "a label behind numbers": (200, {"data": [[0.2, 0.3, {"label": "a", "score": 0.5}]]}, 2),
    "numbers beyond a float": (200, {"data": [{"probs": [10**400, 0, 0]}]}, 2),
    "truths": (200, {"data": [{"probs": [True, False, False]}]}, 2),
    "texts as scores": (200, [["0.1", "0.2", "0.7"]], 2),
    "depth": (200, "[" * 100_000, 2),
    "depth of an error": (400, '{"error":' * 100_000, 2),
    "named as vLLM names none": (200, {"data": [{"probs": [{"label": it, "score": 0.3} for it in "abc"]}]}, 1),
    "the token as labels": (200, {"data": [[{"label": f"{ECHO}{it}", "score": 0.3} for it in "abc"]]}, 1),
    "the token as the best label": (200, {"data": [{"probs": [0.3, 0.3, 0.4], "label": ECHO}]}, 1),
    "the token as a page": (200, f"<html>{ECHO}", 2),
    "the token and colours in an error": (500, {"error": f"\x1b[31m{ECHO}"}, 2),
    "the token on the way elsewhere": (307, "", 2),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_no_traceback_and_tells_no_token(export_of, capsys, monkeypatch, name):
    status, answer, code = HOSTILE[name]
    monkeypatch.setenv("MY_TOKEN", "tkn_aVerySecretOne")

    def hostile(self, path, headers, body):
        sent = headers["Authorization"]
        text = (answer if isinstance(answer, str) else json.dumps(answer)).replace(ECHO, sent)
        if status == 200 and "data" in answer:
            row = json.loads(text)["data"][0]
            text = json.dumps({"data": [row] * len(body.get("input", body.get("inputs")))})
        return status, text, {"Location": f"http://example.org/?token={sent}"} if status == 307 else {}

    monkeypatch.setattr(ServingStandIn, "answer", hostile)
    with ServingStandIn(export_of(), "vllm") as stand_in:
        assert main(["verify", str(export_of()), "--server", stand_in.url, "--token-env", "MY_TOKEN"]) == code
    printed = capsys.readouterr()
    assert "VerySecret" not in printed.out + printed.err and "\x1b" not in printed.err
    assert code == 1 or printed.err.startswith("dhrd: error: ") and printed.err.count("\n") == 1


def test_the_token_goes_to_the_server_named_and_is_never_told(export_of, capsys, monkeypatch):
    folder, secret = str(export_of()), "tkn_aVerySecretOne"
    monkeypatch.setenv("MY_TOKEN", secret)
    monkeypatch.setenv("HF_TOKEN", "hf_notForThisServer")
    with ServingStandIn(folder, "endpoint", token=secret) as stand_in:
        assert "wants a token: name its variable by --token-env" in refused(capsys, folder, "--server", stand_in.url)
        assert main(["verify", folder, "--server", stand_in.url, "--token-env", "MY_TOKEN"]) == 0
        sent = [headers.get("Authorization") for path, headers, _ in stand_in.requests]
        assert "hf_notForThisServer" not in str(stand_in.requests) and f"Bearer {secret}" in sent
        monkeypatch.setenv("MY_TOKEN", "tkn_wrong")
        error = refused(capsys, folder, "--server", stand_in.url, "--token-env", "MY_TOKEN")
        assert "does not accept the token (status 401)" in error and "tkn_wrong" not in error
    monkeypatch.setenv("MY_TOKEN", secret)
    with ServingStandIn(folder, "vllm", "refuses", token=secret) as stand_in:
        error = refused(capsys, folder, "--server", stand_in.url, "--token-env", "MY_TOKEN")
        assert secret not in error and "<token>" in error
    with ServingStandIn(folder, "vllm", "redirect", token=secret) as stand_in:
        refused(capsys, folder, "--server", stand_in.url, "--token-env", "MY_TOKEN")
    monkeypatch.setenv("MY_TOKEN", "two words")
    assert "copy it again" in refused(capsys, folder, "--server", "http://127.0.0.1:9", "--token-env", "MY_TOKEN")
    assert secret not in str(capsys.readouterr())


def test_the_hubs_token_is_for_the_hubs_hosts(monkeypatch):
    from dhrd_hf.cli.verify import _token

    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert _token("https://a.b.endpoints.huggingface.cloud/x", None) == "hf_mine"
    for url in ("http://localhost:8000", "https://huggingface.cloud.example.org", "https://evilhuggingface.co.org"):
        assert _token(url, None) is None
    assert _token("http://localhost:8000", "HF_TOKEN") == "hf_mine"


# A real server


@pytest.fixture
def infinity(tmp_path):
    """`infinity(folder)` serves a folder by infinity and gives its address."""
    command = os.environ.get("INFINITY_EMB") or shutil.which("infinity_emb")
    if not command:
        pytest.skip(
            "no infinity_emb: python -m venv E; E/bin/pip install 'infinity-emb[torch,server]' 'transformers<5' 'numpy<2'; "
            "INFINITY_EMB=E/bin/infinity_emb"
        )
    processes = []

    def serve(folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        log = tmp_path / f"{port}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [command, "v2", "--model-id", str(folder), "--port", str(port), "--no-model-warmup", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**own, "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
            )
        processes.append(process)
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return f"http://127.0.0.1:{port}"
            time.sleep(0.5)
        raise AssertionError("infinity did not start")

    yield serve
    for process in processes:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_infinity_serves_an_export_and_what_was_changed_in_it_is_found(export_of, infinity, table, tmp_path, capsys):
    folder = export_of()
    command = ["verify", str(folder), "--data", str(table), "--tolerance", "1e-4", "--server", infinity(folder)]
    assert main(command) == 1  # it strips blanks, which the contract does not
    assert "only texts with blanks at an end differ: it strips them, as infinity does" in capsys.readouterr().out
    assert main([*command, "--ignore-blanks"]) == 0
    said = capsys.readouterr().out
    assert "(infinity): " in said and "0 labels flip" in said and "A change of +0.00 points" in said
    other = shutil.copytree(folder, tmp_path / "other")
    path = other / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))
    config = json.loads((other / "config.json").read_text())
    names = [f"LABEL_{index}" for index in range(3)]  # without any, infinity takes it for a reranker
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    (other / "config.json").write_text(json.dumps(config))
    assert main([*command[:-1], infinity(other), "--ignore-blanks"]) == 1
    said = capsys.readouterr().out
    assert "its labels are LABEL_0, LABEL_1, LABEL_2, those of the contract entailed, refuted, unknown" in said
    assert "only texts of more than 60 tokens differ: it has to cut them on the right, to 60" in said
