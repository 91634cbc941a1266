"""Is it any good? What `dhrd train`, `evaluate` and `calibrate` say of it, on a tiny model."""

import json
import re
import shutil

import numpy as np
import pytest

from dhrd_hf.cli import main
from dhrd_hf.evaluation import baseline_answers, compute_metrics, load_classifier, predict_table
from dhrd_hf.evaluation.baselines import TFIDF

FAST = ["--per-device-train-batch-size", "8", "--use-cpu", "--disable-tqdm", "true", "--max-length", "128"]
WORDS = {"entailed": "rains", "refuted": "snows", "unknown": "hums"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Rows whose label a word gives away; the first of the training rows is labelled wrongly."""
    folder = tmp_path_factory.mktemp("tables")
    names = list(WORDS)
    for name, count, start in (("train", 45, 0), ("dev", 24, 100)):
        labels = [names[place % 3] for place in range(count)]
        rows = [
            {
                "text": f"Place {start + place}: it {WORDS[label]}.",
                "label": label,
                "rationale": f"It {WORDS[label]} there.",
            }
            for place, label in enumerate(labels)
        ]
        if name == "train":
            rows[0]["label"] = "refuted"
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def run(lm_dir_of, tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    data = ["--train-data", str(tables / "train.jsonl"), "--eval-data", str(tables / "dev.jsonl")]
    options = ["--classifier-init", "label_words", "--max-steps", "4", "--logging-steps", "1"]
    assert (
        main(["train", "--model", str(lm_dir_of("llama")), *data, "--output-dir", str(folder), *FAST, *options]) == 0
    )
    return folder


def texts_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [f"{row['text']}\nAnswer:" for row in rows], np.array([list(WORDS).index(row["label"]) for row in rows])


def test_training_rows_that_are_gone_leave_the_baselines_out(run, tables, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    verdict = json.loads((run / "verdict.json").read_text())
    (tmp_path / "run" / "verdict.json").write_text(json.dumps({**verdict, "train_data": "gone.jsonl"}))
    assert main(["evaluate", "--model", str(tmp_path / "run"), "--data", str(tables / "dev.jsonl")]) == 0
    assert "gone.jsonl, can't be read any more" in capsys.readouterr().err


def test_a_run_leaves_its_verdict(run, tables):
    verdict = json.loads((run / "verdict.json").read_text())
    names = [it["name"] for it in verdict["others"]]
    assert names == ["commonest label", TFIDF, "untrained (zero-shot)"]
    train, dev = texts_of(tables / "train.jsonl"), texts_of(tables / "dev.jsonl")
    said = baseline_answers(*train, dev[0])
    for it in verdict["others"][:2]:
        assert it["metrics"]["accuracy"]["value"] == pytest.approx((said[it["name"]] == dev[1]).mean())
    metrics = json.loads((run / "eval_results.json").read_text())
    assert metrics["eval_accuracy"] == pytest.approx(verdict["metrics"]["accuracy"]["value"])
    assert metrics["eval_macro_f1"] == pytest.approx(verdict["metrics"]["macro_f1"]["value"])
    page = (run / "report.html").read_text()
    for words in (
        "Classification loss",
        "Reasoning loss",
        "Training rows whose label looks wrong",
        "Confusion matrix",
    ):
        assert words in page, words
    doubts = page[page.index('id="doubts"') :]
    assert re.search(r'<th scope="row">0</th><td>refuted</td><td>entailed</td>', doubts)


def test_the_untrained_line_is_the_model_before_its_training(run, tables, lm_dir_of, tmp_path):
    data = ["--train-data", str(tables / "train.jsonl"), "--eval-data", str(tables / "dev.jsonl"), "--max-steps", "1"]
    options = ["--classifier-init", "label_words", "--learning-rate", "0"]
    assert (
        main(
            [
                "train",
                "--model",
                str(lm_dir_of("llama")),
                *data,
                "--output-dir",
                str(tmp_path / "run"),
                *FAST,
                *options,
            ]
        )
        == 0
    )
    (untrained,) = json.loads((tmp_path / "run" / "verdict.json").read_text())["others"][2:]
    frozen = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert untrained["metrics"]["accuracy"]["value"] == pytest.approx(frozen["eval_accuracy"])
    trained = json.loads((run / "verdict.json").read_text())["others"][2]
    for name in ("accuracy", "macro_f1"):  # whatever came after
        assert trained["metrics"][name]["value"] == untrained["metrics"][name]["value"]


def test_evaluate_judges_again_beside_another_run(run, tables, tmp_path, capsys):
    report, output = tmp_path / "report.html", tmp_path / "metrics.json"
    command = ["evaluate", "--model", str(run), "--data", str(tables / "dev.jsonl"), "--baseline", str(run)]
    assert main([*command, "--report", str(report), "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    metrics, written = json.loads(out), json.loads(output.read_text())
    assert {name: written[name] for name in metrics} == metrics and "this classifier" in err and str(report) in err
    verdict = written["verdict"]
    before = json.loads((run / "verdict.json").read_text())
    assert verdict["others"][:2] == before["others"][:2]  # its training rows are known, and others change nothing
    assert verdict["metrics"] == before["metrics"] and verdict["others"][2]["accuracy_lead"]["value"] == 0
    assert "Reasoning loss" in report.read_text() and "0 of 24 texts were cut" in report.read_text()


def test_evaluate_says_that_it_knows_no_training_rows(run, tables, tmp_path, capsys):
    assert main(["export", "--model", str(run), "--output", str(tmp_path / "out")]) == 0
    command = ["evaluate", "--model", str(tmp_path / "out"), "--data", str(tables / "dev.jsonl")]
    assert main(command) == 0
    assert "add --train-data TABLE" in capsys.readouterr().err
    assert main([*command, "--train-data", str(tables / "train.jsonl")]) == 0
    assert TFIDF in capsys.readouterr().err


def test_a_dry_run_looks_and_trains_nothing(lm_dir_of, tables, tmp_path, capsys):
    rows = [json.loads(line) for line in (tables / "train.jsonl").read_text().splitlines()]
    rows += [rows[1], {**rows[2], "label": "refuted"}, {"text": "Odd.", "label": "odd"}]
    table, dev = tmp_path / "rows.jsonl", tmp_path / "dev.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dev.write_text(json.dumps({**rows[4], "rationale": None}) + "\n")
    folder = tmp_path / "run"
    command = ["train", "--model", str(lm_dir_of("llama")), "--train-data", str(table), "--eval-data", str(dev)]
    assert main([*command, "--output-dir", str(folder), *FAST, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "48 to train on, 1 to evaluate on" in out and "Nothing was trained" in out and not folder.exists()
    assert "row 0: refuted, looks like entailed" in out
    for words in ("odd 1", "2 training rows repeat the text", "1 texts have several labels: rows 2, 46", "1 of the 1 evaluation rows have the text"):  # fmt: skip
        assert words in err, words


def test_calibrate_promises_and_says_what_it_cannot(run, tables, tmp_path, capsys):
    rows = [json.loads(line) for line in (tables / "dev.jsonl").read_text().splitlines()]
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        some = [{**rows[place % 24], "text": f"{name} {place} {rows[place % 24]['text']}"} for place in range(160)]
        for row in some:
            row["label"] = rng.choice(list(WORDS))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    data = ["--data", str(tmp_path / "one.jsonl"), "--eval-data", str(tmp_path / "two.jsonl")]
    asked = ["--precision", "0.9", "--min-accuracy", "0.2", "--label-sets", "0.8"]
    assert main(["calibrate", "--model", str(run), *data, *asked]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    # Labels drawn at random: no precision, sets of nearly all labels, and an accuracy by chance.
    assert all(it["threshold"] is None for it in said["thresholds"]["test"].values())
    assert err.count("No threshold promises") == 3 and "more rows alone would hardly do" in err
    assert said["abstention"]["test"]["coverage"]["value"] > 0.5
    assert said["abstention"]["calibration"]["accuracy"]["low"] >= 0.2
    assert (
        0.65 < said["label_sets"]["test"]["coverage"]["value"] <= 1 and said["label_sets"]["test"]["mean_size"] > 1.5
    )
    worse = [name for name in ("expected_calibration_error", "brier_score") if said["test"]["after"][name] > said["test"]["before"][name]]  # fmt: skip
    assert ("worse on the 160 rows" in err) == bool(worse)
    assert main(["calibrate", "--model", str(run), *data[:2], "--label-sets", "0.8"]) == 2
    assert "add --eval-data TABLE" in capsys.readouterr().err
    # The export keeps what was found, by which its predictions are judged.
    out = tmp_path / "kept"
    assert main(["calibrate", "--model", str(run), *data, *asked, "--output", str(out)]) == 0
    kept = {
        "abstention_threshold": said["abstention"]["threshold"],
        "label_set_threshold": said["label_sets"]["threshold"],
    }
    config = json.loads((out / "config.json").read_text())
    assert {name: config[name] for name in kept} == pytest.approx(kept) and "label_thresholds" not in config
    written = tmp_path / "said.jsonl"
    assert main(["predict", "--model", str(out), "--data", data[3], "--output", str(written)]) == 0
    found = [json.loads(line) for line in written.read_text().splitlines()]
    test = said["abstention"]["test"], said["label_sets"]["test"]
    assert 1 - np.mean([it["abstains"] for it in found]) == pytest.approx(test[0]["coverage"]["value"])
    assert np.mean([len(it["label_set"]) for it in found]) == pytest.approx(test[1]["mean_size"])
    assert np.mean([it["label"] in it["label_set"] for it in found]) == pytest.approx(test[1]["coverage"]["value"])


def test_the_numbers_are_those_of_the_model(run, tables):
    from datasets import load_dataset

    table = load_dataset("json", data_files=str(tables / "dev.jsonl"), split="train")
    model, tokenizer = load_classifier(run)
    found = predict_table(model, tokenizer, table, model.config.prompt_template)
    verdict = json.loads((run / "verdict.json").read_text())
    for name, value in compute_metrics((found.logits, found.labels)).items():
        assert verdict["metrics"][name]["value"] == pytest.approx(value)


def test_a_run_that_held_rows_out_is_judged_on_them_by_a_linear_model_of_the_others(
    lm_dir_of, tables, tmp_path, capsys
):
    rows = [json.loads(line) for line in (tables / "train.jsonl").read_text().splitlines()]
    rows += [{**row, "text": f"Again, {row['text']}"} for row in rows]
    table, folder, output = tmp_path / "all.jsonl", tmp_path / "run", tmp_path / "metrics.json"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--train-data", str(table), "--output-dir", str(folder), "--max-steps", "1"]
    assert main(["train", "--model", str(lm_dir_of("llama")), *data, *FAST]) == 0
    assert f"The page: {folder / 'report.html'}" in capsys.readouterr().out
    assert main(["evaluate", "--model", str(folder), "--output", str(output)]) == 0
    before, after = json.loads((folder / "verdict.json").read_text()), json.loads(output.read_text())["verdict"]
    assert before["rows"] == after["rows"] == 18 and before["others"] == after["others"] and len(after["others"]) == 2
