"""`dhrd pilot`, and what it needs of `dhrd train`."""

import json

import pytest
import torch

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadEncoder
from dhrd_hf.cli import main
from dhrd_hf.files import load_tokenizer

TRAIN = ["--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true", "--lora"]


@pytest.fixture(scope="module")
def base(lm_dir_of):
    return str(lm_dir_of("llama"))


@pytest.fixture
def write(tmp_path):
    def table(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(rows)))
        return str(path)

    return table


def loss_of(run, rows):
    model = AutoModelForDualHeadClassification.from_pretrained(run).eval()
    encode = DualHeadEncoder(load_tokenizer(run), model=model)
    features = [encode({name: [it] for name, it in row.items()}) for row in rows]
    batch = DualHeadCollator(load_tokenizer(run))([{name: its[0] for name, its in it.items()} for it in features])
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(**batch).logits, batch["labels"]).item()


def test_the_best_epoch_is_chosen_on_rows_that_the_last_evaluation_does_not_read(base, rows, write, tmp_path):
    parts = {"train": rows[:8], "validation": rows[8:], "dev": rows[:3]}
    tables = {name: write(f"{name}.jsonl", its) for name, its in parts.items()}
    run = tmp_path / "run"
    argv = ["--train-data", tables["train"], "--eval-data", tables["dev"], "--validation-data", tables["validation"]]
    argv += ["--output-dir", str(run), "--num-train-epochs", "6", "--learning-rate", "0.1", "--load-best-model-at-end"]
    argv += ["--save-strategy", "best", "--metric-for-best-model", "eval_classification_loss", "--seed", "3"]
    assert (
        main(
            [
                "train",
                "--model",
                base,
                *argv,
                *TRAIN,
                "--dataloader-persistent-workers",
                "--dataloader-num-workers",
                "1",
            ]
        )
        == 0
    )
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    losses = [it["eval_classification_loss"] for it in history if "eval_classification_loss" in it]
    assert len(losses) == 6 and min(losses) < losses[-1] - 0.01  # else the last would do
    assert loss_of(run, parts["validation"]) == pytest.approx(min(losses), abs=1e-4)
    found = json.loads((run / "eval_results.json").read_text())
    assert found["eval_classification_loss"] == pytest.approx(loss_of(run, parts["dev"]), abs=1e-4)
    facts = json.loads(next(run.glob("*facts*.json")).read_text())
    assert facts["dev_rows"] == 3


def test_validation_rows_need_rows_for_the_last_evaluation(base, rows, write, tmp_path, capsys):
    table = write("rows.jsonl", rows)
    argv = ["--train-data", table, "--validation-data", table, "--output-dir", str(tmp_path / "run")]
    assert main(["train", "--model", base, *argv, *TRAIN]) == 2
    assert "--eval-data" in capsys.readouterr().err
