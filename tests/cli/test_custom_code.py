"""Code that a checkpoint carries is never run by a command, whatever the standard input would answer."""

import io
import json

import pytest

from dhrd_hf import AutoModelForDualHeadClassification
from dhrd_hf.cli import main
from dhrd_hf.evaluation import load_classifier

CODE = """
from pathlib import Path
from transformers import PreTrainedConfig

Path(__file__).with_name("ran").touch()


class Own(PreTrainedConfig):
    model_type = "own"
"""
AUTO = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification"), "own.Own") | {
    "AutoTokenizer": ["own.Own", None]
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with code of its own, and a standard input that consents to all."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(CODE)
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": AUTO}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": AUTO}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield folder
    assert not list(tmp_path.rglob("ran"))


@pytest.fixture
def table(tmp_path):
    rows = [{"text": f"It is {name}.", "label": name, "rationale": "So it is."} for name in ("wet", "dry") * 3]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "rows.jsonl"


COMMANDS = {
    "train": "train --model OWN --train-data ROWS --output-dir OUT",
    "teacher": "train --model LM --teacher OWN --train-data ROWS --output-dir OUT",
    "evaluate": "evaluate --model OWN --data ROWS",
    "predict": "predict --model OWN --data ROWS --output OUT.jsonl",
    "export": "export --model OWN --output OUT",
    "calibrate": "calibrate --model OWN --data ROWS",
    "rationales": "rationales generate --data BARE --teacher OWN --output OUT.jsonl",
    "audit": "rationales audit ROWS --tokenizer OWN",
    "shorten": "rationales shorten ROWS --tokenizer OWN --max-tokens 5 --output OUT.jsonl",
    "select": "rationales select ROWS --score likelihood --model OWN --output OUT.jsonl",
    "bench": "bench --model OWN --data ROWS",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_in_a_line_that_it_does_not_run_it(command, own, table, lm_dir_of, tmp_path, capsys):
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "It is wet.", "label": "yes"}\n{"text": "It is dry.", "label": "no"}\n')
    places = {"OWN": own, "ROWS": table, "BARE": bare, "LM": lm_dir_of("llama"), "OUT": tmp_path / "out"}
    words = COMMANDS[command].split()
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dhrd: error: ")
    assert f"{own} comes with code of its own (auto_map in its config), which is not run." in error
    assert "trust_remote_code=True" in error


@pytest.mark.parametrize("opener", [AutoModelForDualHeadClassification.from_pretrained, load_classifier])
def test_python_does_not_ask_either(opener, own):
    with pytest.raises(ValueError, match="comes with code of its own"):
        opener(own)


def test_an_export_with_our_code_opens_without_it(dual_of, tokenizer, tmp_path, monkeypatch):
    from dhrd_hf import export_classifier

    monkeypatch.setattr("sys.stdin", io.StringIO())
    dual = dual_of("llama", classifier_head="mlp")
    export_classifier(dual, tokenizer, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]
    model, _ = load_classifier(tmp_path / "out", device="cpu")
    assert type(model) is type(dual)
