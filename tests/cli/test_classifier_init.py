"""`dhrd train --classifier-init label_words` and `--early-stopping-patience`, from the table to the export."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dhrd_hf.cli import main

FAST = ["--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true", "--max-length", "256"]


@pytest.fixture
def train(lm_dir_of, rows, tmp_path):
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["train", "--model", str(lm_dir_of("llama")), "--train-data", str(table), "--output-dir"]

    def run(*options):
        return main([*given, str(tmp_path / "run"), *FAST, *map(str, options)])

    return run


@pytest.mark.parametrize("lora", [False, True])
def test_the_untrained_export_answers_as_the_language_model(train, lm_dir_of, tokenizer, tmp_path, capsys, lora):
    export = tmp_path / "classifier"
    options = ["--lora"] if lora else []
    assert train("--classifier-init", "label_words", *options, "--max-steps", 1, "--learning-rate", 0, "--export", export) == 0  # fmt: skip
    assert r"prompt      '{text}\nAnswer:'" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["prompt_template"] == "{text}\nAnswer:"
    lm = AutoModelForCausalLM.from_pretrained(lm_dir_of("llama"))
    stock = AutoModelForSequenceClassification.from_pretrained(export)
    assert type(stock).__name__ == "LlamaForSequenceClassification"
    x = AutoTokenizer.from_pretrained(export)("The lamp hums. So: it hums.\nAnswer:", return_tensors="pt")
    with torch.no_grad():
        words, found = lm(**x).logits[0, -1], stock(**x).logits[0]
    means = [words[tokenizer(f" {stock.config.id2label[k]}", add_special_tokens=False)["input_ids"]].mean() for k in range(3)]  # fmt: skip
    expected = torch.stack(means)
    torch.testing.assert_close(found, expected - expected.mean(), rtol=1e-4, atol=1e-5)


def test_words_and_a_prompt_of_ones_own(train, tmp_path, capsys):
    words = '{"entailed": "yes", "refuted": "no", "unknown": "maybe"}'
    prompt = r"{text}\nIs it so?"
    options = ["--label-words", words, "--prompt", prompt, "--max-steps", 1]
    assert train("--classifier-init", "label_words", *options) == 0
    said = capsys.readouterr().out
    assert "entailed as ' yes', refuted as ' no', unknown as ' maybe'" in said
    assert r"'{text}\nIs it so?'" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label-words", '{"entailed": "yes"}'], "--classifier-init label_words"),
        (["--classifier-init", "label_words", "--label-words", "yes"], "must be JSON"),
        (["--classifier-init", "label_words", "--label-words", '{"maybe": "so"}'], "'maybe'"),
        (["--classifier-init", "label_words", "--classifier-head", "mlp"], "linear"),
        (["--early-stopping-patience", "2"], "--eval-data"),
    ],
)
def test_what_can_not_be_is_said_before_training(train, capsys, options, said):
    assert train(*options) in (1, 2)
    assert said in capsys.readouterr().err


def test_labels_that_are_codes_are_told(train, rows, tmp_path, capsys):
    codes = {"entailed": "0", "refuted": "1", "unknown": "2"}
    table = tmp_path / "codes.jsonl"
    table.write_text("".join(json.dumps({**row, "label": codes[row["label"]]}) + "\n" for row in rows))
    assert train("--train-data", table, "--classifier-init", "label_words", "--max-steps", 1) == 0
    assert "--label-words" in capsys.readouterr().err


def test_a_trained_head_does_not_start_again(train, tmp_path, capsys):
    assert train("--max-steps", 1) == 0
    again = ["--model", tmp_path / "run", "--output-dir", tmp_path / "again", "--classifier-init", "label_words"]
    assert train(*again) in (1, 2)
    assert "leave --classifier-init out" in capsys.readouterr().err


def test_early_stopping_keeps_the_epoch_with_the_lowest_log_loss(train, tmp_path, capsys):
    table = tmp_path / "rows.jsonl"
    options = [
        "--eval-data",
        table,
        "--learning-rate",
        "0.3",
        "--num-train-epochs",
        30,
        "--lr-scheduler-type",
        "constant",
    ]
    assert train(*options, "--early-stopping-patience", 2) == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    losses = [log["eval_classification_loss"] for log in state["log_history"] if "eval_classification_loss" in log]
    best = min(losses)
    assert losses.index(best) == len(losses) - 3 and len(losses) < 30  # two more, and it stopped
    kept = re.search(r"evaluation: .*classification_loss ([\d.e-]+)", capsys.readouterr().out)
    assert float(kept[1]) == pytest.approx(best, rel=1e-3)
