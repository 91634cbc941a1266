"""`dhrd rationales filter`, `select`, `shorten` and `ablate`, from file to file."""

import csv
import io
import json
import time
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset

from dhrd_hf.cli import main
from dhrd_hf.data.ablations import ABLATIONS, ablate
from dhrd_hf.data.tables import load_table
from dhrd_hf.rationales import select

GOOD = "Whatever is as cold as the yard around it gives off no light of its own at night."
CUT = "Whatever is as cold as the yard gives off no light. It would first have to be hea"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def rationales(tmp_path):
    rows = [
        {"id": "a", "text": "The kiln glows.", "label": "refuted", "rationale": GOOD},
        {"id": "b", "text": "The lamp glows.", "label": "refuted", "rationale": CUT},
        {"id": "c", "text": "The lamp hums.", "label": "entailed", "rationale": "N/A"},
        {"id": "d", "text": "The goat sleeps.", "label": "entailed", "rationale": None, "note": "kept"},
    ]
    return write(tmp_path / "rationales.jsonl", rows)


def fails(capsys, *argv):
    """The one line that a command fails with."""
    assert main(["rationales", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("dhrd: error: ") and "Traceback" not in captured.err
    return error


# filter


def test_filter(rationales, tmp_path, capsys):
    out = tmp_path / "checked.jsonl"
    assert main(["rationales", "filter", rationales, "--output", str(out)]) == 0
    before, after = read(tmp_path / "rationales.jsonl"), read(out)
    assert [row["rationale"] for row in after] == [GOOD, None, None, None]
    assert [{**row, "rationale": None} for row in after] == [{**row, "rationale": None} for row in before]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4 rows in, 4 out; 3 rationales in, 1 out, 0 of them changed" in captured.err
    assert "empty: 1 dropped; truncated: 1 dropped" in captured.err
    assert "entailed: 1 in, 0 out; refuted: 2 in, 1 out" in captured.err


def test_filter_repairs_drops_rows_and_keeps_what_it_rejects(rationales, tmp_path, capsys):
    out, rejected = tmp_path / "checked.csv", tmp_path / "rejected.jsonl"
    options = ["--repair", "--drop", "rows", "--rejected", str(rejected), "--output", str(out)]
    assert main(["rationales", "filter", rationales, *options]) == 0
    with open(out, newline="") as file:
        after = list(csv.DictReader(file))
    assert [row["id"] for row in after] == ["a", "b"] and after[1]["rationale"] == CUT.partition(". ")[0] + "."
    assert list(after[0]) == ["id", "text", "label", "rationale", "note"]
    assert [(row["id"], list(row["reasons"])) for row in read(rejected)] == [("c", ["empty"]), ("d", ["empty"])]
    assert "4 rows in, 2 out; 3 rationales in, 2 out, 1 of them changed" in capsys.readouterr().err


def test_filter_in_a_pipe(rationales, capsys, monkeypatch):
    with open(rationales, "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    assert main(["rationales", "filter", "-", "--checks", "empty", "--output", "-"]) == 0
    piped = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rationale"] for row in piped] == [GOOD, CUT, None, None]


def test_filter_reads_names_of_a_class_label_and_other_columns(tmp_path, capsys):
    rows = Dataset.from_dict(
        {"claim": ["The kiln glows."] * 2, "gold": [0, 1], "why": [GOOD, f"It is refuted. {GOOD}"]}
    )
    rows.cast_column("gold", ClassLabel(names=["entailed", "refuted"])).save_to_disk(tmp_path / "folder")
    options = ["--label-column", "gold", "--rationale-column", "why", "--text-column", "claim"]
    out = tmp_path / "checked.jsonl"
    assert main(["rationales", "filter", str(tmp_path / "folder"), *options, "--output", str(out)]) == 0
    assert [(row["gold"], row["why"]) for row in read(out)] == [("entailed", GOOD), ("refuted", None)]
    assert "label_leak: 1 dropped" in capsys.readouterr().err


def test_filter_says_what_it_can_not_check(tmp_path, capsys):
    table = write(tmp_path / "bare.jsonl", [{"label": "x", "rationale": GOOD}])
    assert main(["rationales", "filter", table, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert "no column 'text': copy and wrong_language are not checked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checks", "empty,trunkated"], "no check 'trunkated': did you mean truncated?"),
        (["--rationale-column", "why"], "no column 'why'. The table has: 'id', 'text', 'label', 'rationale', 'note'"),
        (["--text-column", "txt"], "no column 'txt': did you mean 'text'?"),
        (["--drop", "all"], "invalid choice: 'all'"),
        (["--checks", ","], "--checks ',' holds no name"),
        (["--min-words", "50", "--max-words", "3"], "min_words=50 and max_words=3 leave no length between them"),
        (["--min-words", "200"], "min_words=200 and max_words=150 leave no length"),
        (["--rejcted", "x"], "unknown option --rejcted: did you mean --rejected?"),
    ],
)
def test_filter_bad_input(rationales, tmp_path, capsys, options, message):
    out = tmp_path / "out.jsonl"
    assert message in fails(capsys, "filter", rationales, "--output", out, *options)
    assert not out.exists()


def test_files_that_are_not_there_or_one_too_often(rationales, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    missing = tmp_path / "rationale.jsonl"
    assert f"did you mean {rationales}?" in fails(capsys, "filter", missing, "--output", out)
    for rejected in (rationales, Path(rationales).parent / "." / Path(rationales).name, out):
        assert "Name another file" in fails(capsys, "filter", rationales, "--output", out, "--rejected", str(rejected))
    assert "can't write" in fails(
        capsys, "shorten", rationales, *["--output", "x.txt", "--max-tokens", "9", "--tokenizer", "y"]
    )


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("filter", []),
        ("select", ["--model", "x"]),
        ("shorten", ["--max-tokens", "9", "--tokenizer", "x"]),
        ("ablate", ["--kind", "label_only"]),
    ],
)
def test_the_table_is_never_replaced_by_what_is_made_of_it(command, options, rationales, capsys, monkeypatch):
    before = Path(rationales).read_text()
    monkeypatch.chdir(Path(rationales).parent)
    for again in (rationales, Path(rationales).name):
        said = fails(capsys, command, rationales, "--output", again, *options)
        assert f"it is {rationales} itself, which would be lost. Name another file" in said
    assert Path(rationales).read_text() == before


# select


def test_select_by_likelihood(lm_dir_of, tmp_path, capsys):
    texts = {"a": "The kiln glows.", "b": "The lamp hums."}
    rows = [
        {"id": key, "text": text, "label": "refuted", "rationale": why}
        for key, text in texts.items()
        for why in ("It does not.", GOOD, "A kiln is a kiln.", "Lamps may hum, or not.")[: 4 if key == "a" else 2]
    ]
    table, out = write(tmp_path / "samples.jsonl", rows), tmp_path / "best.jsonl"
    model = str(lm_dir_of("llama"))
    options = ["--best-of", "4", "--score", "likelihood", "--model", model, "--device", "cpu", "--output", str(out)]
    assert main(["rationales", "select", table, *options]) == 0
    score = select.LikelihoodScore.from_pretrained(model, ["refuted"], device="cpu")
    best = read(out)
    assert [row["id"] for row in best] == ["a", "b"]
    for row in best:
        found = {it["rationale"]: score([it])[0] for it in rows if it["id"] == row["id"]}
        assert row["rationale"] == max(found, key=found.get)
        assert row["rationale_score"] == pytest.approx(max(found.values()), abs=1e-5)
    told = capsys.readouterr().err
    assert "6 rows in, 2 out; 6 rationales in, 2 out" in told
    assert "another is better: 4 dropped" in told
    assert "1 of 2 rows have fewer than 4 samples" in told
    # Lists of samples, and no key.
    lists = [
        {"text": t, "label": "refuted", "rationale": [r["rationale"] for r in rows if r["id"] == k]}
        for k, t in texts.items()
    ]
    table = write(tmp_path / "lists.jsonl", lists)
    assert main(["rationales", "select", table, *options]) == 0
    assert [row["rationale"] for row in read(out)] == [row["rationale"] for row in best]


def test_select_with_labels_that_are_numbers_from_one(lm_dir_of, tmp_path):
    why = ("It does not.", GOOD)
    rows = [{"id": n, "text": "The kiln glows.", "label": 1 + n, "rationale": it} for n in range(3) for it in why]
    names = [{**row, "label": str(row["label"])} for row in rows]
    options = ["--model", str(lm_dir_of("llama")), "--device", "cpu"]
    found = []
    for name, table in (("numbers", rows), ("names", names)):
        data, out = write(tmp_path / f"{name}.jsonl", table), tmp_path / f"{name} out.jsonl"
        assert main(["rationales", "select", data, *options, "--output", str(out)]) == 0
        found.append([(row["rationale"], row["rationale_score"]) for row in read(out)])
    assert found[0] == found[1] and [row["label"] for row in read(tmp_path / "numbers out.jsonl")] == [1, 2, 3]


def test_select_and_filter_with_several_labels_a_row(lm_dir_of, tmp_path, capsys):
    why = ("It does not.", GOOD, f"It is spoken. {GOOD}")
    rows = [
        {"id": n, "text": "The lamp hums.", "label": ["spoken", "heard"][n:], "rationale": it}
        for n in range(2)
        for it in why
    ]
    table, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["rationales", "filter", table, "--output", str(out)]) == 0
    assert [row["rationale"] for row in read(out)] == [*why[:2], None] * 2
    assert "heard: 6 in, 4 out; spoken: 3 in, 2 out" in capsys.readouterr().err
    model = str(lm_dir_of("llama"))
    assert main(["rationales", "select", table, "--model", model, "--device", "cpu", "--output", str(out)]) == 0
    # The answer of a row with several labels is their names.
    score = select.LikelihoodScore.from_pretrained(model, ["heard, spoken", "heard"], device="cpu")
    for row, answer in zip(read(out), ("heard, spoken", "heard"), strict=True):
        found = score([row | {"label": answer, "rationale": it} for it in why])
        assert (row["rationale"], row["rationale_score"]) == (
            why[found.index(max(found))],
            pytest.approx(max(found), abs=1e-5),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score", "likelihood"], "the following arguments are required: --model"),
        (["--score", "judge", "--model", "x"], "invalid choice: 'judge'"),
        (["--best-of", "0", "--model", "x"], "--best-of 0 must be 1 or greater"),
        (["--max-length", "0", "--model", "x"], "--max-length 0 must be 1 or greater"),
        (["--batch-tokens", "-5", "--model", "x"], "--batch-tokens -5 must be 1 or greater"),
        (["--score", "length", "--model", "x"], "invalid choice: 'length'"),
        (["--id-column", "key", "--model", "x"], "no column 'key'"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_select_bad_input(rationales, tmp_path, capsys, options, message):
    assert message in fails(capsys, "select", rationales, "--output", tmp_path / "out.jsonl", *options)


def test_select_more_samples_than_there_are(rationales, lm_dir_of, tmp_path, capsys):
    options = ["--best-of", "3", "--model", lm_dir_of("llama"), "--output", tmp_path / "out.jsonl"]
    assert "all 4 rows have fewer samples, 1 at most" in fails(capsys, "select", rationales, *options)


# shorten


def test_shorten(rationales, lm_dir_of, tokenizer, tmp_path, capsys):
    out = tmp_path / "short.jsonl"
    first = CUT.partition(". ")[0] + "."
    limit = len(tokenizer(first)["input_ids"])
    options = ["--max-tokens", str(limit), "--tokenizer", str(lm_dir_of("llama")), "--output", str(out)]
    assert main(["rationales", "shorten", rationales, *options]) == 0
    after = read(out)
    assert [row["rationale"] for row in after] == [None, first, "N/A", None]
    told = capsys.readouterr().err
    assert "4 rows in, 4 out; 3 rationales in, 2 out, 1 of them changed" in told
    assert "first sentence too long: 1 dropped" in told
    bad = [*options[:1], "0", *options[2:]]
    assert "--max-tokens 0 must be 1 or greater" in fails(capsys, "shorten", rationales, *bad)
    bad = [*options[:2], "--tokenizer", "./nowhere", *options[4:]]
    assert "--tokenizer ./nowhere: no tokenizer can be read there" in fails(capsys, "shorten", rationales, *bad)


# ablate


@pytest.mark.parametrize("kind", ABLATIONS)
def test_ablate(kind, rows, tmp_path, capsys):
    table, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["rationales", "ablate", table, "--kind", kind, "--seed", "3", "--output", str(out)]) == 0
    expected = ablate(load_table(table), kind, seed=3)
    assert read(out) == expected.to_list()
    told = capsys.readouterr().err
    had = [row["rationale"] for row in rows if row["rationale"]]
    left = sum(row["rationale"] is not None for row in expected if row["rationale"] != "")
    assert f"24 rows in, 24 out; {len(had)} rationales in, {left} out" in told
    assert ("--rationale-after-label" in told) == (kind == "rationale_after_label")
    if kind == "shuffled_rationale_and_label":
        assert Counter(row["label"] for row in rows) == Counter(expected["label"])


@pytest.mark.parametrize("kind", ABLATIONS)
def test_ablate_leaves_the_other_columns_as_they_are(kind, tmp_path):
    others = [
        {"score": 12, "meta": {"b": [1]}},
        {"score": 12.5, "note": "kept"},
        {"meta": {"a": 1}},
        {"score": "none"},
    ]
    rows = [{"label": n % 2, "rationale": f"It is {n} of the words."} | its for n, its in enumerate(others)]
    table, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["rationales", "ablate", table, "--kind", kind, "--output", str(out)]) == 0
    after = read(out)
    assert [{**row, "rationale": 0, "label": 0} for row in after] == [
        {**row, "rationale": 0, "label": 0} for row in rows
    ]
    pair_of = {row["rationale"]: row["label"] for row in rows}
    if kind == "shuffled_rationale_and_label":
        assert [row["label"] for row in after] == [pair_of[row["rationale"]] for row in after] != [0, 1, 0, 1]
    else:
        assert [row["label"] for row in after] == [row["label"] for row in rows]
    if kind == "same_label_rationale":
        assert [row["rationale"] for row in after] == [rows[place]["rationale"] for place in (2, 3, 0, 1)]


def test_ablate_bad_input(rationales, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    error = fails(capsys, "ablate", rationales, "--kind", "shuffeled_rationale", "--output", out)
    assert "did you mean shuffled_rationale?" in error
    assert "keep=2.0" in fails(
        capsys, "ablate", rationales, *["--kind", "keywords_only", "--keep", "2", "--output"], out
    )
    assert not out.exists()


@pytest.mark.parametrize("command", ["filter", "select", "shorten", "ablate"])
def test_help_is_quick_and_names_the_options(command, capsys):
    started = time.process_time()
    assert main(["rationales", command, "--help"]) == 0
    assert time.process_time() - started < 2
    said = capsys.readouterr().out
    assert "--output OUT" in said and "examples:" in said and f"dhrd rationales {command}" in said
