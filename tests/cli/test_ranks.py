"""`dhrd predict` and `dhrd train` under torchrun write what one process writes."""

import csv
import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from strangers import run_as_ranks

from dhrd_hf import AutoModelForDualHeadClassification
from dhrd_hf.cli import main
from dhrd_hf.evaluation import load_classifier

SCRIPT = Path(__file__).with_name("ranks_run.py")
SOURCES = {"uneven.jsonl": 25, "few.csv": 5, "dates.parquet": 24, "one.jsonl": 1}
TRAINING = {"ddp-lora": ["--lora", "--lora-dropout", "0"], "fsdp": ["--fsdp"]}


@pytest.fixture(scope="module")
def base(lm_dir_of):
    return lm_dir_of("llama-tied")


def train_arguments(base, folder, where, case, batch):
    return [
        *("train", "--model", str(base), "--train-data", str(folder / "train.jsonl"), "--max-length", "256"),
        *("--eval-data", str(folder / "train.jsonl"), "--output-dir", str(folder / where / case), "--use-cpu"),
        *("--export", str(folder / where / f"{case}-export"), "--max-steps", "2", "--logging-steps", "1"),
        *("--optim", "sgd", "--learning-rate", "0.1", "--per-device-train-batch-size", str(batch)),
        *TRAINING[case],
    ]


def bench_arguments(folder):
    return [
        *("bench", "--model", str(folder / "model"), "--data", str(folder / "named.jsonl")),
        *("--device", "cpu", "--batch-sizes", "2,5", "--sort", "--repeats", "2"),
        *("--cot-rows", "4", "--max-new-tokens", "3", "--output", str(folder / "bench" / "throughput.json")),
    ]


@pytest.fixture(scope="module")
def folder(base, tokenizer, rows, tmp_path_factory):
    """Tables, a model, what one process writes in one/, and what two ranks write in two/."""
    folder = tmp_path_factory.mktemp("ranks")
    model = AutoModelForDualHeadClassification.from_pretrained(base, num_labels=3)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lines = [json.dumps({"id": index, **row}) + "\n" for index, row in enumerate(rows)]
    lines.insert(7, json.dumps({"id": None, "text": " ", "tags": ["kept"]}) + "\n")
    (folder / "uneven.jsonl").write_text("".join(lines))
    (folder / "one.jsonl").write_text(lines[0])
    (folder / "train.jsonl").write_text("".join(lines[:7] + lines[8:]))
    (folder / "broken.jsonl").write_text("".join(lines[:4]) + "{broken\n" + "".join(lines[4:]))
    named = [json.dumps({**row, "label": f"LABEL_{index % 3}"}) + "\n" for index, row in enumerate(rows)]
    (folder / "named.jsonl").write_text("".join(named))
    with (folder / "few.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([row["text"]] for row in rows[:5])])
    days = [datetime.date(2025, 1, 1 + index) for index in range(24)]
    pq.write_table(pa.table({"day": days, "text": [row["text"] for row in rows]}), folder / "dates.parquet")

    def arguments(source, target):
        target.parent.mkdir(exist_ok=True)
        return [
            *("predict", "--model", str(folder / "model"), "--device", "cpu", "--max-length", "25"),
            *("--data", str(folder / source) if source != "-" else "-", "--output", str(target)),
        ]

    cases = {source: arguments(source, folder / "two" / source) for source in SOURCES}
    bad = {"broken line": "broken.jsonl", "standard input": "-", "one fails": "uneven.jsonl"}
    cases |= {case: arguments(source, folder / "bad" / "out.jsonl") for case, source in bad.items()}
    cases["one is killed"] = arguments("few.csv", folder / "bad" / "out.csv")
    cases["throughput"] = bench_arguments(folder)
    cases |= {case: train_arguments(base, folder, "two", case, batch=4) for case in TRAINING}
    (folder / "cases.json").write_text(json.dumps(cases))
    _, (code, printed) = run_as_ranks(SCRIPT, folder)
    assert code == 9, printed  # the last case kills this rank
    return folder


def said(folder, case):
    return [json.loads((folder / f"rank{rank}.json").read_text())[case] for rank in (0, 1)]


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    lines = path.read_text().splitlines()
    return list(csv.DictReader(lines)) if path.suffix == ".csv" else [json.loads(line) for line in lines]


@pytest.mark.parametrize("source", SOURCES)
def test_two_ranks_write_what_one_process_writes(folder, source, capsys):
    one, two = folder / "one" / source, folder / "two" / source
    options = ["--model", str(folder / "model"), "--max-length", "25", "--device", "cpu"]
    assert main(["predict", *options, "--data", str(folder / source), "--output", str(one)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " rows, " in line]

    first, second = said(folder, source)
    assert (first["code"], second["code"], second["said"]) == (0, 0, [])
    assert [text.split(";")[0] for text in first["said"]] == [line.split(";")[0]]
    expected, found = read(one), read(two)
    assert len(expected) == len(found) == SOURCES[source]
    for wanted, row in zip(expected, found, strict=True):
        assert list(row) == list(wanted)
        for name, value in wanted.items():
            if name.startswith("probabilit") and value:
                numbers = [v if isinstance(v, dict) else {"": float(v)} for v in (row[name], value)]
                assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)
            else:
                assert (type(row[name]), row[name]) == (type(value), value)
    if source == "uneven.jsonl":
        assert "25 rows, 1 of them empty" in line and ", 0 cut" not in line
        assert len({str(row["probabilities"]) for row in found}) > 15
    if source.endswith(".parquet"):
        assert pq.read_schema(two) == pq.read_schema(one)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("broken line", "broken.jsonl, line 5: not JSON"),
        ("standard input", "2 ranks can't share standard input or output"),
        ("one fails", "rank 1 failed"),
    ],
)
def test_an_error_ends_all_ranks_and_is_said_once(folder, case, words):
    ranks = said(folder, case)
    assert [rank["code"] for rank in ranks] == [2, 2]
    (line,) = [line for rank in ranks for line in rank["said"]]
    assert line.startswith("dhrd: error: ") and words in line


def test_nothing_half_written_is_left_behind(folder):
    assert list((folder / "bad").iterdir()) == []
    left = sorted(path.name for path in (folder / "two").iterdir() if path.is_file() or path.name.startswith("."))
    assert left == sorted(SOURCES)


def test_throughput_is_that_of_all_ranks(folder, capsys):
    first, second = said(folder, "throughput")
    assert (first["code"], second) == (0, {"code": 0, "said": [], "printed": ""})
    two = json.loads((folder / "bench" / "throughput.json").read_text())
    assert main(bench_arguments(folder)) == 0
    one = json.loads((folder / "bench" / "throughput.json").read_text())
    assert (one["ranks"], two["ranks"], two["rounds"], two["complete"]) == (1, 2, 2, True)
    for row, alone in zip(two["rows"], one["rows"], strict=True):
        for name in ("engine", "batch_size", "sorted", "rows"):
            assert row[name] == alone[name]
        assert row["high"] == row["rows"] / min(row["seconds"])
    assert [(row["rows"], row["batch_size"]) for row in two["rows"]] == [(24, 2), (24, 5), (4, 2)]
    assert two["cot"]["rows"] == 4
    assert two["rows"][0]["accuracy"] == one["rows"][0]["accuracy"]


@pytest.mark.parametrize("case", TRAINING)
def test_two_ranks_train_and_export_what_one_process_does(folder, base, case, capsys):
    arguments = train_arguments(base, folder, "one", case, batch=8)
    assert main([word for word in arguments if word != "--fsdp"]) == 0
    printed = capsys.readouterr().out
    first, second = said(folder, case)
    assert (first["code"], second) == (0, {"code": 0, "said": [], "printed": ""})
    assert summary(first["printed"]) == summary(printed)
    one, two = (load_file(folder / where / f"{case}-export" / "model.safetensors") for where in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=name)
    # The run directory opens, and is what was exported.
    opened = load_classifier(folder / "two" / case)[0].state_dict()
    for name in two:
        torch.testing.assert_close(opened[name], two[name], rtol=1e-5, atol=1e-5, msg=name)


def summary(printed):
    """What is said before training: rows, labels, objective, parameters."""
    lines = [line.split(": ", 1)[-1] for line in printed.splitlines()]
    return lines[: next(index for index, line in enumerate(lines) if line.startswith("parameters")) + 1]
