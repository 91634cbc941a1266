"""`dhrd rationales audit`, from a table to a report."""

import json

import pytest
from datasets import ClassLabel, Dataset

from dhrd_hf.cli import main
from dhrd_hf.rationales import teacher

NAMES = [
    "ant",
    "bee",
    "cat",
    "dog",
    "eel",
    "fox",
    "gnu",
    "hen",
    "ibex",
    "jay",
    "kiwi",
    "lynx",
    "mole",
    "newt",
    "owl",
    "pug",
]
ROWS = [
    {
        "id": place,
        "text": f"Can the {name} swim?",
        "label": ["yes", "no"][place % 2],
        "rationale": f"People saw how a {name} sank.",
    }
    for place, name in enumerate(NAMES)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def audit(*arguments):
    return main(["rationales", "audit", *map(str, arguments)])


def test_report_json_and_page(tmp_path, capsys):
    table = write(tmp_path / "rows.jsonl", [*ROWS[:-1], ROWS[-1] | {"rationale": None}])
    assert audit(table, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html", "--other-split", table) == 0
    printed = capsys.readouterr().out
    assert "rows.jsonl: 16 rows" in printed and "aligned" in printed and "near_duplicate" in printed
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["rows"] == 16 and report["checks"]["empty"] == [15]
    assert report["matching"]["verdict"] == "aligned" and report["matching"]["mismatched"] == []
    assert {"rationale_only", "text_only", "majority"} <= set(report["label_probe"])
    assert report["duplicates"]["across_splits"][table]["rationales"] == 15
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert audit(table, "--json", "-") == 0
    on_stdout = json.loads(capsys.readouterr().out)
    assert on_stdout["checks"] == report["checks"] and on_stdout["matching"] == report["matching"]


def test_rationales_joined_to_their_texts(tmp_path, capsys):
    texts = write(tmp_path / "texts.jsonl", [{k: row[k] for k in ("id", "text", "label")} for row in ROWS])
    said = write(tmp_path / "said.jsonl", [{"key": row["id"], "rationale": row["rationale"]} for row in ROWS[:12]])
    assert audit(said, "--data", texts, "--key", "id", "--json", "-") == 0
    taken = capsys.readouterr()
    report = json.loads(taken.out)
    assert report["rows"] == 12 and report["matching"]["verdict"] == "aligned"
    assert "12 of 16 rows" in taken.err
    floats = write(
        tmp_path / "floats.jsonl", [{"key": float(n), "rationale": ROWS[n]["rationale"]} for n in range(12)]
    )
    assert audit(floats, "--data", texts, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["checks"] == report["checks"]
    empty = write(
        tmp_path / "empty.jsonl",
        [{"key": 0, "rationale": " "}, *({"key": row["id"], "rationale": row["rationale"]} for row in ROWS[1:12])],
    )
    assert audit(empty, "--data", texts, "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 12 and report["checks"]["empty"] == [0]


def test_rationales_without_keys_are_joined_in_their_order(tmp_path, capsys):
    texts = write(tmp_path / "texts.jsonl", [{k: row[k] for k in ("text", "label")} for row in ROWS])
    said = [{"rationale": row["rationale"]} for row in ROWS]
    said[3] = {"rationale": ["It sank."]}
    assert audit(write(tmp_path / "said.jsonl", said), "--data", texts, "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 16 and report["checks"]["not_text"] == [3]
    assert report["matching"]["verdict"] == "aligned" and report["matching"]["accuracy"] == 1.0


def test_lists_and_objects_are_named(tmp_path, capsys):
    rows = [dict(row) for row in ROWS]
    rows[2]["rationale"], rows[5]["rationale"] = ["It sank.", "So it is."], {"said": "It sank."}
    table = write(tmp_path / "rows.jsonl", rows)
    texts = write(tmp_path / "texts.jsonl", [{k: row[k] for k in ("id", "text", "label")} for row in ROWS])
    for joined in ([], ["--data", texts]):
        assert audit(table, *joined, "--json", tmp_path / "out.json") == 0
        report = json.loads((tmp_path / "out.json").read_text())
        assert report["checks"]["not_text"] == [2, 5] and report["checks"]["empty"] == [] and report["rows"] == 16
        assert "2 of 16 rationales (12.5%) are lists or objects" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["folder", "rows.parquet"])
def test_labels_that_are_ids_are_known_by_their_names(form, tmp_path, capsys):
    names = ["refuted", "entailed"]
    rows = [row | {"label": names[n % 2], "rationale": f"It is {names[n % 2]}: {n}."} for n, row in enumerate(ROWS)]
    text, ids = write(tmp_path / "rows.jsonl", rows), tmp_path / form
    table = Dataset.from_list(rows).cast_column("label", ClassLabel(names=names))
    table.save_to_disk(ids) if form == "folder" else table.to_parquet(ids)
    assert audit(text, "--json", "-") == 0
    expected = json.loads(capsys.readouterr().out)
    assert len(expected["checks"]["label_leak"]) == 16
    for arguments in ([ids], [ids, "--data", text], [text, "--data", ids]):
        assert audit(*arguments, "--json", "-") == 0
        assert json.loads(capsys.readouterr().out) == expected | {
            "data": arguments[0].name if arguments[0] == ids else "rows.jsonl"
        }


def test_a_judge_reads_the_labels(tmp_path, capsys, monkeypatch):
    class Judge:
        concurrency = 4

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def ask(self, messages):
            content = messages[0]["content"]
            assert "Label" not in content.partition("Which of these")[0]
            # Of the ant it says the right label, of the bee another one, of all others nothing of use.
            said = "**Yes**" if "ant sank" in content or "bee sank" in content else "Perhaps yes, perhaps no."
            return teacher.Reply(said, "judge")

    asked = []
    monkeypatch.setattr(teacher, "open_teacher", lambda *named, **options: asked.append((named, options)) or Judge())
    table = write(tmp_path / "rows.jsonl", ROWS)
    judge = ["--judge", "http://127.0.0.1:9/v1", "--judge-model", "m"]
    assert audit(table, *judge, "--json", tmp_path / "out.json") == 0
    assert "reads the row's label out of 50.0% of 2 rationales; 14 unjudged" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())["consistency"]
    assert found == {"accuracy": 0.5, "inconsistent": [1], "rows": 2, "unjudged": 14}
    assert asked[0][0][:2] == ("http://127.0.0.1:9/v1", "m")


@pytest.mark.parametrize(
    ("rows", "arguments", "said"),
    [
        ([], [], "holds no rows"),
        ([{"text": "a"}], [], "no column 'rationale'"),
        (ROWS, ["--text-column", "txt"], "did you mean 'text'"),
        (ROWS, ["--tokenizer", "./no-such-folder"], "no tokenizer"),
        (ROWS, ["--max-length", "9"], "--tokenizer"),
        (ROWS, ["--suffix", "{rationale}{label}"], "--tokenizer"),
        (ROWS, ["--key", "id"], "--data"),
        (ROWS, ["--min-words", "50", "--max-words", "3"], "leave no length between them"),
        (ROWS, ["--label-words", "yes"], "is not JSON"),
        (ROWS + ROWS, ["--id-column", "id"], "repeat"),
    ],
)
def test_mistakes_are_one_line(rows, arguments, said, tmp_path, capsys):
    assert audit(write(tmp_path / "rows.jsonl", rows), *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("dhrd: error: ") and "\n" not in error


def test_no_output_replaces_a_table_or_the_other(tmp_path, capsys):
    said, texts, dev = (write(tmp_path / f"{name}.jsonl", ROWS) for name in ("said", "texts", "dev"))
    before = (tmp_path / "said.jsonl").read_text()
    for option in ("--json", "--html"):
        for table in (said, texts, dev):
            assert audit(said, "--data", texts, "--other-split", dev, option, table) == 2
            error = capsys.readouterr().err.strip()
            assert f"can't write {table}: it is {table} itself" in error and "\n" not in error
            assert (tmp_path / table).read_text() == before
    one = tmp_path / "one.html"
    assert audit(said, "--json", one, "--html", tmp_path / "." / "one.html") == 2
    assert f"--json and --html are both {one}" in capsys.readouterr().err and not one.exists()
