"""`dhrd study`, and what it needs of `dhrd train`."""

import functools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dhrd_hf.study
from dhrd_hf import DualHeadTrainer
from dhrd_hf.cli import main
from dhrd_hf.cli.study import after_interrupt, ended_as_by_ctrl_c
from dhrd_hf.data.tables import load_table
from dhrd_hf.evaluation import decode
from dhrd_hf.modeling_dhrd import find_dual_head
from dhrd_hf.study import run
from dhrd_hf.study.machines import Ended, Processes

STAND_IN = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "study" / "train_stand_in.py")]
TRAIN = ["--learning-rate", "1e-2", "--per-device-train-batch-size", "4", "--use-cpu", "--disable-tqdm", "true"]
TRAIN += ["--save-strategy", "no", "--eval-strategy", "no", "--per-device-eval-batch-size", "5"]


@pytest.fixture(scope="module")
def base(lm_dir_of):
    return str(lm_dir_of("llama"))


@pytest.fixture
def table(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(rows)))
    return str(path)


@pytest.fixture
def study(base, table, tmp_path):
    """Writes a study of the invented rows; `{label: ...}` and so on are options of dhrd train."""

    def write(*blocks, name="study.yaml", **keys):
        head = {
            "name": "first",
            "model": base,
            "data": {"tales": {"train": "rows.jsonl", "eval": "rows.jsonl"}},
            "train": {"max_steps": 6, "learning_rate": "1e-2", "per_device_train_batch_size": 4, "use_cpu": True},
            **keys,
        }
        lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
        (tmp_path / name).write_text("\n".join([*lines, "grid:", *(f"  - {block}" for block in blocks)]))
        return str(tmp_path / name)

    return write


@pytest.fixture
def quick(monkeypatch):
    """Stand-ins for `dhrd train`, and its options checked in this process, which has the imports."""
    monkeypatch.setattr(dhrd_hf.study, "run_study", functools.partial(dhrd_hf.study.run_study, launch=STAND_IN))
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", lambda number, **_: ThreadPoolExecutor(number))


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# dhrd train


def test_predictions_are_of_the_rows_in_their_order_and_of_the_last_evaluation(base, table, tmp_path):
    train = ["train", "--model", base, "--train-data", table, "--eval-data", table, *TRAIN, "--max-steps", "12"]
    out, said = tmp_path / "run", tmp_path / "said.jsonl"
    options = ["--train-sampling-strategy", "group_by_length", "--predictions", str(said), "--output-dir", str(out)]
    assert main([*train, *options]) == 0
    found, known = read(said), read(table)
    assert [(row["id"], row["label"]) for row in found] == [(row["id"], row["label"]) for row in known]
    right = [row["label"] == row["predicted_label"] for row in found]
    evaluated = json.loads((out / "eval_results.json").read_text())
    assert 0 < sum(right) < len(right) and sum(right) / len(right) == pytest.approx(evaluated["eval_accuracy"])
    # By another way to the same model: row for row.
    other = tmp_path / "other.jsonl"
    assert main(["predict", "--model", str(out), "--data", table, "--output", str(other)]) == 0
    for row, expected in zip(found, read(other), strict=True):
        assert row["predicted_label"] == expected["predicted_label"]
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)


def test_predictions_of_a_flat_file_have_a_column_a_label(base, table, tmp_path):
    said = tmp_path / "said.csv"
    train = ["train", "--model", base, "--train-data", table, "--eval-data", table, *TRAIN, "--max-steps", "1"]
    assert main([*train, "--predictions", str(said), "--output-dir", str(tmp_path / "run")]) == 0
    (first, *_) = rows = load_table(said).to_list()
    assert len(rows) == 24
    assert list(first)[:3] == ["id", "label", "predicted_label"]
    assert sum(first[f"probability_{name}"] for name in ("entailed", "refuted", "unknown")) == pytest.approx(1)


def test_predictions_need_rows_and_a_file_that_can_be_written(base, table, tmp_path, capsys):
    train = ["train", "--model", base, "--train-data", table, "--output-dir", str(tmp_path / "run")]
    assert main([*train, "--predictions", "said.jsonl"]) == 2
    assert "add --eval-data TABLE" in capsys.readouterr().err
    assert main([*train, "--eval-data", table, "--predictions", "said.txt"]) == 2
    assert "can't write said.txt" in capsys.readouterr().err


GROUPED = ["--train-sampling-strategy", "group_by_length", "--length-column-name", "input_length"]


@pytest.mark.parametrize("options", [[], ["--lora-dropout", "0.1", *GROUPED]], ids=["random", "grouped, dropout"])
def test_settings_start_from_one_head_and_see_the_rows_in_one_order(base, table, tmp_path, monkeypatch, options):
    seen = {}
    compute_loss = DualHeadTrainer.compute_loss

    def look(self, model, inputs, *args, **kwargs):
        if model.training:
            heads.append(find_dual_head(model).score.weight.detach().clone())
            lengths = inputs.get("input_length", inputs["attention_mask"].sum(-1))  # pooled rows end with x
            starts = zip(inputs["input_ids"].tolist(), lengths.tolist(), strict=True)
            batches.append(([row[:length] for row, length in starts], inputs["labels"].tolist()))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DualHeadTrainer, "compute_loss", look)
    for alpha, seed in (("0", "1"), ("1", "1"), ("0", "2")):
        heads, batches = [], []
        run = ["--alpha", alpha, "--seed", seed, "--output-dir", str(tmp_path / f"{alpha}-{seed}"), "--lora"]
        run += ["--max-steps", "13", *options]
        assert main(["train", "--model", base, "--train-data", table, *TRAIN, *run]) == 0
        seen[alpha, seed] = heads, batches
    (pooled_heads, pooled), (dual_heads, dual), (other_heads, other) = seen.values()
    assert (pooled_heads[0] == dual_heads[0]).all() and not (pooled_heads[-1] == dual_heads[-1]).all()
    assert pooled == dual and len(dual) == 13
    assert dual[:6] != dual[6:12] and sorted(sum((rows for _, rows in dual[:6]), [])) == sorted(
        sum((rows for _, rows in dual[6:12]), [])
    )
    assert pooled != other and not (pooled_heads[0] == other_heads[0]).all()


# dhrd study


def _in_this_process(self, command, folder, log, started=None, environment=None):
    """As `Processes.run`, without the seconds that a new process imports for."""
    place = os.getcwd()
    os.chdir(folder)
    try:
        if command[: len(run.LAUNCH)] == list(run.LAUNCH):
            code = main(["train", *command[len(run.LAUNCH) :]])
        else:
            code = decode.main(command[3:])
    finally:
        os.chdir(place)
    log.write_text("")
    return Ended(code, 1.0)


def test_a_study_of_real_runs(study, table, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "run", _in_this_process)
    other = {"label": "gold", "rationale": "why"}
    renamed = [{other.get(name, name): it for name, it in row.items()} for row in rows]
    Path(table).write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(renamed)))
    names = {"label_column": "gold", "rationale_column": "why"}
    far = {"entailed": "yes", "refuted": "no", "unknown": "who knows"}
    other_rows = [{**row, "gold": far[row["gold"]], "text": row["text"] + "!"} for row in renamed[::-1][:7]]
    (tmp_path / "far.jsonl").write_text(
        "".join(json.dumps({"id": f"f{i}", **row}) + "\n" for i, row in enumerate(other_rows))
    )
    sets = {"eval": {"validation": "rows.jsonl", "far": "far.jsonl"}}
    names |= {"label_map": {"far": {other: ours for ours, other in far.items()}}}
    path = study(
        "{setting: [pooled, rationale_after_label, cot_decoding], train_size: 20}",
        data={"tales": {"train": "rows.jsonl", **sets, **names}},
        cot_eval_size=4,
        cot_max_new_tokens=12,
    )
    out = tmp_path / "out"
    outcome = dhrd_hf.study.run_study(dhrd_hf.study.read_study(path), out, say=lambda _: None)
    table = {row["setting"]: row for row in read(out / "results.jsonl")}
    assert outcome.done == 3, [row["error"] for row in table.values()]
    for row in table.values():
        size = 4 if row["setting"] == "cot_decoding" else 24
        assert row["train_rows"] == 20 and len(row["labels"]) == len(row["predictions"]) == row["eval_rows"] == size
        right = sum(one == other for one, other in zip(row["labels"], row["predictions"], strict=True))
        assert row["score"] == right / size and row["train_seconds"] > 0 and row["evaluate_seconds"] > 0
    after = table["rationale_after_label"]
    assert after["metrics"]["classification_loss"] != table["pooled"]["metrics"]["classification_loss"]
    assert "--rationale-after-label true" in after["command"]
    assert len(list((out / "encoded").glob("*.arrow"))) == 6  # three tables, encoded in two ways
    for row in (table["pooled"], after):
        assert row["logits"] == f"logits/{row['cell']}.parquet" and row["label_names"] == sorted(far)
        kept = pq.read_table(out / row["logits"])
        assert [(f.name, str(f.type)) for f in kept.schema] == [
            ("set", "string"),
            ("row", "int32"),
            ("label", "int32"),
            ("logits", "list<element: float>"),
        ]
        kept = kept.to_pylist()
        of_main, transfer = ([it for it in kept if it["set"] == name] for name in ("eval", "far"))
        assert len(of_main) + len(transfer) == len(kept) == 24 + 7 and [it["row"] for it in of_main] == list(range(24))
        assert [it["label"] for it in of_main] == row["labels"]
        assert [int(np.argmax(it["logits"])) for it in of_main] == row["predictions"]
        # By hand: the loss of the stock library, the accuracy from the logits, the labels from the file.
        for part, found in (
            (of_main, row["metrics"]["classification_loss"]),
            (transfer, row["eval_sets"]["far"]["metrics"]["loss"]),
        ):
            logits, labels = torch.tensor([it["logits"] for it in part]), torch.tensor([it["label"] for it in part])
            assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(found, abs=1e-4)
        folder = next((out / "data").glob("tales-*"))
        written = read(folder / "eval-far-all.jsonl")
        assert [row["label_names"][it["label"]] for it in transfer] == [it["gold"] for it in written]
        assert sorted(far[it["gold"]] for it in written) == sorted(it["gold"] for it in other_rows)
        scores = row["eval_sets"]["far"]
        right = [int(np.argmax(it["logits"])) == it["label"] for it in transfer]
        assert scores["rows"] == 7 and scores["metrics"]["accuracy"] == pytest.approx(sum(right) / 7)
    cot = table["cot_decoding"]
    assert cot["logits"] is None and cot["eval_sets"] == {}
    assert cot["labels"] == table["pooled"]["labels"][:4] and 0 < cot["metrics"]["new_tokens"] <= 12
    assert "--alpha 1 --beta 0" in cot["command"] and set(cot["predictions"]) <= {-1, 0, 1, 2}
    # The command in the table does the same once more.
    words = after["command"].split()[1:]
    before = [row["predicted_label"] for row in read(out / "runs" / after["cell"] / "predictions.jsonl")]
    monkeypatch.chdir(out)
    assert main(words) == 0
    assert [row["predicted_label"] for row in read(words[words.index("--predictions") + 1])] == before


def test_a_study_runs_goes_on_and_says_how_it_went(study, tmp_path, quick, capsys):
    path, out = study("{setting: [pooled, dual_head], seed: [0, 7]}"), tmp_path / "out"
    command = ["study", path, "--output-dir", str(out)]
    handler = signal.getsignal(signal.SIGTERM)
    assert main([*command, "--limit", "1"]) == 0
    assert "1 runs; of 4 1 are done and 0 failed" in capsys.readouterr().err
    assert main(command) == 1
    said = capsys.readouterr().err
    assert said.startswith("study first: 4 runs, 1 done, 0 failed, 3 to run")
    assert "3 runs; of 4 2 are done and 2 failed" in said and "bad luck" in said
    assert main([*command, "--retry-failed"]) == 1
    assert "2 runs; of 4" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is handler
    assert after_interrupt(command[1:]).endswith(f"To go on: dhrd study {path} --output-dir {out}")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_polite_kill_and_a_closed_terminal_are_ctrl_c_but_for_nohup(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # also where the tests themselves are under nohup
    try:
        with pytest.raises(KeyboardInterrupt), ended_as_by_ctrl_c():
            os.kill(os.getpid(), number)
        signal.signal(number, signal.SIG_IGN)
        with ended_as_by_ctrl_c():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_dry_run_lists_the_cells_in_order_and_runs_none(study, tmp_path, quick, capsys):
    path = study("{setting: [dual_head, pooled], seed: [0, 1]}")
    assert main(["study", path, "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 2)[2].strip() for line in printed[::2]] == [
        f"tales {setting} seed={seed}" for setting in ("dual_head", "pooled") for seed in (0, 1)
    ]
    assert all(line.startswith("    dhrd train --model") for line in printed[1::2])
    assert not (tmp_path / "out" / "runs").exists()


def test_the_process_that_checks_options_prints_nothing_of_other_libraries(study, tmp_path, capfd):
    assert main(["study", study("{setting: pooled}"), "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("1 runs. ")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{learning_raet: 1}", "unknown option --learning-raet: did you mean --learning-rate?"),
        ("{alpha: [0.5, lots]}", "'lots' is neither a number nor 'auto'"),
        ("{seed: []}", "seed is an empty list"),
        ("{setting: dual}", "unknown setting 'dual'"),
        ("{help: true}", "'help', which is said by dhrd train --help"),
    ],
)
def test_a_wrong_study_is_told_in_a_line_before_anything_runs(study, tmp_path, quick, capsys, block, message):
    out = tmp_path / "out"
    assert main(["study", study("{setting: pooled}", block), "--output-dir", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dhrd: error: ") and message in error and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    "keys",
    [
        {"data": {"../../x": {"train": "rows.jsonl", "eval": "rows.jsonl"}}},
        {"data": {"/tmp/x": {"train": "rows.jsonl", "eval": "rows.jsonl"}}},
        {"data": {"x": {"train": "rows.jsonl", "eval": {"main": "rows.jsonl", "../y": "rows.jsonl"}}}},
        {"train": {"export": "../elsewhere"}},
        {"train": {"export=../elsewhere": []}},
        {"train": {"run_name": "--export=../elsewhere", "project": "../x"}},
        {"train": {"config": "recipe.yaml"}},
    ],
)
def test_what_would_write_elsewhere_is_refused(study, tmp_path, quick, capsys, keys, dry):
    (tmp_path / "recipe.yaml").write_text("export: ../elsewhere\n")
    path = study("{setting: pooled}", **keys)
    before = sorted(tmp_path.rglob("*"))
    assert main(["study", path, "--output-dir", str(tmp_path / "a" / "out"), *dry]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dhrd: error: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_value_that_looks_like_an_option_is_a_value(study, tmp_path, quick, capsys):
    path = study("{setting: pooled}", train={"run_name": "--export=elsewhere"})
    assert main(["study", path, "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "--run-name=--export=elsewhere" in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["results.jsonl", "encoded", "logits", "locks", "data", "cells", "runs", "data/*", "runs/*"]
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_link_that_leads_out_of_the_folder_is_refused(study, tmp_path, quick, capsys, name, dry):
    path, out, elsewhere = study("{setting: pooled}"), tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = dhrd_hf.study.read_study(path)
    name = name.replace("data/*", f"data/{found.data['tales'].folder_name}").replace(
        "runs/*", f"runs/{found.runs[0].id}"
    )
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(elsewhere)
    assert main(["study", path, "--output-dir", str(out), *dry]) == 2
    assert f"{out / name} is a link to {elsewhere}, outside {out}" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())
    (out / name).unlink()
    (out / "inside").mkdir()
    if name != "results.jsonl":  # of which a link is a folder here
        (out / name).symlink_to(out / "inside")
        assert main(["study", path, "--output-dir", str(out), *dry]) == 0


def test_the_help_and_a_wrong_call(study, capsys):
    assert main(["study", "--help"]) == 0
    assert "--retry-failed" in capsys.readouterr().out
    assert main(["study", "absent.yaml"]) == 2
    assert "absent.yaml" in capsys.readouterr().err
    assert main(["study", study("{}"), "--limit", "0"]) == 2
    assert "--limit 0 must be 1 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_in_processes_of_its_own(study, tmp_path):
    path, out = study("{setting: [pooled, dual_head], train_size: 20}", "{nonsense: 1}"), tmp_path / "out"
    command = [sys.executable, "-m", "dhrd_hf.cli", "study", path, "--output-dir", str(out)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "unknown option --nonsense" in refused.stderr
    path = study("{setting: [pooled, dual_head], train_size: 20}")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = read(out / "results.jsonl")
    assert [row["setting"] for row in found] == ["pooled", "dual_head"]
    assert all(row["peak_memory_mb"] > 100 for row in found)
    assert len(load_table(out / "results.jsonl")) == 2
