"""`dhrd rationales generate`: options, what is printed, and bad input in one line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_stand_in import ChatStandIn, rows
from datasets import ClassLabel, Dataset

from dhrd_hf.cli import main
from dhrd_hf.cli.rationales.generate import _settings, after_interrupt
from dhrd_hf.data.table_writing import write_rows


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows("rows.jsonl", rows(20))
    return tmp_path


def generate(*options, data="rows.jsonl", output="rationales.jsonl"):
    return main(["rationales", "generate", "--data", data, "--output", output, *options])


def error_of(capsys, *options, **names):
    assert generate(*options, **names) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("dhrd: error: ") for line in said) == 1
    return said[-1]


def test_a_table_gets_its_rationales(capsys):
    with ChatStandIn(lambda row: ["leak"] if row == 3 else []) as chat:
        assert generate("--teacher", chat.url) == 0
    assert "accepted 20 + rejected 0 + pending 0 = 20 rows" in capsys.readouterr().err
    assert Path("rejected.jsonl").read_text() == ""
    assert len(Path("rationales.jsonl").read_text().splitlines()) == 20


def test_a_dry_run_shows_three_prompts_and_asks_nothing(capsys):
    with ChatStandIn() as chat:
        options = ["--dry-run", "--settings", "price_input: 1, price_output: 2", "--samples", "2"]
        assert main(["rationales", "generate", "--data", "rows.jsonl", "--teacher", chat.url, *options]) == 0
        assert not chat.authorizations
    printed = capsys.readouterr().out
    assert printed.count("Right label:") == 3 and "40 requests" in printed and "Price: about 0." in printed
    assert os.listdir() == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "samples=0 must be above 0"),
        (["--settings", "retries: -1"], "retries=-1 not negative"),
        (["--samples", "2", "--settings", "temperature: 0"], "all the same at temperature 0"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_dry_run_refuses_what_the_run_refuses(capsys, options, message, dry):
    assert message in error_of(capsys, "--teacher", "http://127.0.0.1:9/v1", *options, *dry)


def test_examples_in_a_saved_folder_are_shown_with_the_names_of_their_labels(capsys):
    examples = [row | {"rationale": f"It is about {row['text'][:9]}."} for row in rows(2)]
    names = sorted({row["label"] for row in rows(20)})
    Dataset.from_list(examples).cast_column("label", ClassLabel(names=names)).save_to_disk("examples")
    assert generate("--teacher", "http://127.0.0.1:9/v1", "--dry-run", "--settings", "examples: examples") == 0
    assert examples[0]["rationale"] in capsys.readouterr().out


def test_numbers_need_names_and_other_spellings_are_taken(capsys):
    numbered = [row | {"label": int(row["label"] == "soaked")} for row in rows(6)]
    write_rows("numbers.jsonl", numbered)
    with ChatStandIn() as chat:
        said = error_of(capsys, "--teacher", chat.url, data="numbers.jsonl")
        assert "can't name the labels in column 'label': 0, 1 are numbers" in said and "--label-map" in said
        names = json.dumps({"0": ["arid"], "1": ["wet", "soaked"]})
        assert generate("--teacher", chat.url, "--label-map", names, data="numbers.jsonl") == 0
    written = [json.loads(line) for line in Path("rationales.jsonl").read_text().splitlines()]
    assert [row["label"] for row in written] == [row["label"] for row in numbered]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "Row 5: it has no label, in bad.jsonl, column 'label'. 1 of 6 rows"),
        (["soaked", "arid"], "row 5: ['soaked', 'arid'] are several"),
        ({"wet": 1}, "row 5: its label holds an object"),
        (0.5, "holds 0.5: name them by --label-map"),
    ],
)
def test_labels_that_can_not_be_named(capsys, label, message):
    write_rows("bad.jsonl", [*rows(5), rows(6)[5] | {"label": label}])
    said = error_of(capsys, "--teacher", "http://127.0.0.1:9/v1", data="bad.jsonl")
    assert message in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "http://127.0.0.1:9/v1"], "nothing answers at http://127.0.0.1:9/v1"),
        (["--teacher", "http://127.0.0.1:9/v1", "--prompt", "{txt}"], "no column 'txt': did you mean 'text'?"),
        (["--teacher", "http://127.0.0.1:9/v1", "--api-key-env", "NOPE"], "no environment variable 'NOPE'"),
        (["--teacher", "http://127.0.0.1:9/v1", "--settings", "{"], "--settings is no YAML"),
        (["--teacher", "http://127.0.0.1:9/v1", "--settings", "nowhere.yaml"], "neither a file nor settings"),
        (["--teacher", "http://127.0.0.1:9/v1", "--settings", "retrys: 2"], "no 'retrys': did you mean retries?"),
        (["--teacher", "http://127.0.0.1:9/v1", "--settings", "retries: two"], "retries is 'two', and must be a whole"),
        (["--teacher", "http://127.0.0.1:9/v1", "--settings", "label_words: two"], "must be by label"),
        (["--teacher", "http://127.0.0.1:9/v1", "--settings", "skip_check: x"], "no check 'x'"),
        (["--teacher", "http://127.0.0.1:9/v1", "--extra-body", "[1]"], "--extra-body is neither JSON in braces"),
        (["--teacher", "http://127.0.0.1:9/v1", "--max-cost", "1"], "needs the prices"),
        (["--teacher", "./nowhere"], "there is no such folder"),
        (["--teacher", "rows.jsonl"], "to take the rationales in it, --teacher file:rows.jsonl"),
        (["--teacher", "column:why"], "no column 'why'"),
        (["--teacher", "hftp://x"], "is none of"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(capsys, options, message):
    assert message in error_of(capsys, *options)
    assert not Path("rationales.jsonl").exists()


def test_rationales_that_are_there(capsys):
    texts = ["Clouds bring water to the ground.", "It is soaked, so boots help there.", ""]
    write_rows("given.jsonl", [{"key": f"r{n}", "rationale": text} for n, text in enumerate(texts)])
    assert generate("--teacher", "file:given.jsonl") == 0
    said = capsys.readouterr().err
    assert "accepted 1 + rejected 1 + pending 18 = 20 rows; rejected for: label_leak 1" in said
    write_rows("foreign.jsonl", [{"key": "other", "rationale": texts[0]}])
    said = error_of(capsys, "--teacher", "file:foreign.jsonl", output="x/rationales.jsonl")
    assert "another data set: 0 of its 1 keys" in said
    write_rows("column.jsonl", [row | {"why": texts[0]} for row in rows(4)])
    assert generate("--teacher", "column:why", data="column.jsonl", output="y/rationales.jsonl") == 0
    assert "accepted 4" in capsys.readouterr().err


def test_ctrl_c_says_how_it_stands_and_how_to_go_on(folder):
    with ChatStandIn(latency=0.2) as chat:
        write_rows("many.jsonl", rows(3000))
        command = [sys.executable, "-m", "dhrd_hf.cli", "rationales", "generate", "--data", "many.jsonl"]
        command += ["--teacher", chat.url, "--output", "rationales.jsonl"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  in the background of a shell it is not
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard)
        deadline = time.monotonic() + 60
        while sum(chat.finished.values()) < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "= 3000 rows" in said and "To go on: dhrd rationales generate --data many.jsonl" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ["--teacher", "http://user:pass-word@host/v1"],
        ["--teacher", "http://host/v1?key=pass-word"],
        ["--teacher", "http://host/v1", "--extra-body", '{"api_key": "pass-word"}'],
    ],
)
def test_what_is_said_after_ctrl_c_holds_no_secret(words):
    said = after_interrupt(["--data", "rows.jsonl", *words, "--overwrite"])
    assert "pass-word" not in said and "To go on: the same command, without --overwrite" in said


def test_there_are_twenty_options_and_yaml_keeps_the_names_of_labels(capsys):
    assert main(["rationales", "generate", "--help"]) == 0
    assert len(set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))) == 20
    settings = _settings("{label_words: {yes: [sure], no: never}, skip_check: length, retries: 2, top_p: 0.5}")
    words = {"label_words": {"yes": ["sure"], "no": "never"}, "skip_check": ["length"], "retries": 2, "top_p": 0.5}
    assert settings == words
    Path("settings.yaml").write_text("temperature: 0\nsystem: ''\n")
    assert _settings("settings.yaml") == {"temperature": 0.0, "system": ""}
