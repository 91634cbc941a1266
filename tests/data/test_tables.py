"""Tables in every form that is read and written, and each way in which one can be broken."""

import csv
import gzip
import io
import json
import os
import stat
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from strangers import run_as_a_stranger

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.data.tables import TableError, check_columns, iter_rows, load_table, peek_columns
from dhrd_hf.data.text_tables import reading

ROWS = [
    {"text": 'fine, "really"', "label": "good"},
    {"text": "two\nlines", "label": "bad"},
    {"text": "Ünï", "label": None},
]


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write a file into an empty working folder, and give its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def put(name, content):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return name

    return put


# Forms


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet"])
def test_rows_that_are_written_are_read_back(put, ending):
    assert write_rows(f"new/rows.{ending}", iter(ROWS)) == 3
    assert load_table(f"new/rows.{ending}").to_list() == ROWS
    assert list(iter_rows(f"new/rows.{ending}")) == ROWS


def test_another_library_reads_what_is_written(put):
    write_rows("rows.csv", ROWS)
    write_rows("rows.jsonl", ROWS)
    write_rows("rows.parquet", ROWS)
    assert datasets.Dataset.from_csv("rows.csv").to_list() == ROWS
    assert datasets.Dataset.from_json("rows.jsonl").to_list() == ROWS
    assert pq.read_table("rows.parquet").to_pylist() == ROWS


def test_a_json_file_is_lines_or_one_list(put):
    put("lines.json", '\n{"a": 1}\n\n{"a": 2}\n')
    put("list.json", '\ufeff [\n {"a": 1},\n {"a": 2}]')
    for name in ("lines.json", "list.json"):
        assert load_table(name).to_list() == list(iter_rows(name)) == [{"a": 1}, {"a": 2}]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_passed_over(put):
    put("rows.jsonl", '\ufeff{"a": 1}\r\n\r\n{"a": 2}\r\n')
    put("rows.csv", "\ufeffa,b\r\n1,x\r\n\r\n2,y\r\n")
    assert load_table("rows.jsonl").to_list() == [{"a": 1}, {"a": 2}]
    assert load_table("rows.csv").to_list() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_a_key_that_a_row_lacks_is_none(put):
    put("rows.jsonl", '{"a": 1}\n{"b": "x"}\n{"a": 2, "c": null}\n')
    assert load_table("rows.jsonl").to_list() == [
        {"a": 1, "b": None, "c": None},
        {"a": None, "b": "x", "c": None},
        {"a": 2, "b": None, "c": None},
    ]


def test_csv_columns_of_numbers_only_are_numbers(put):
    put("rows.csv", "label,score,code,text,gap\n0,1.0,007,NA,\n-1,2.5,1,None,3\n")
    table = load_table("rows.csv")
    assert table.to_list() == [
        {"label": 0, "score": 1.0, "code": "007", "text": "NA", "gap": None},
        {"label": -1, "score": 2.5, "code": "1", "text": "None", "gap": 3},
    ]
    assert table.features["label"].dtype == table.features["gap"].dtype == "int64"
    assert next(iter_rows("rows.csv")) == {"label": "0", "score": "1.0", "code": "007", "text": "NA", "gap": None}


def test_numbers_of_too_many_digits_stay_text(put):
    put("rows.csv", "id,n\n9999999999999999999,999999999999999999\n1,1\n")
    assert load_table("rows.csv").to_list()[0] == {"id": "9999999999999999999", "n": 999999999999999999}


NUMBERS = {
    "prices": ["12.50", "3000"],
    "whole and not": ["12.5", "3000"],
    "floats": ["12.5", "3000.0"],
    "whole": ["12", "-3000"],
    "powers": ["2.5e3", "1e-05"],
    "minus nothing": ["-0", "1"],
    "too many digits": ["0.1", "0.12345678901234567890"],
    "large": ["12345678901234567890", "0.5"],
    "gaps": ["12.5", "", "3"],
}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("cells", NUMBERS.values(), ids=NUMBERS)
def test_a_prompt_reads_the_same_for_training_and_for_prediction(put, cells, ending):
    if ending == "csv":
        put("rows.csv", "price\n" + "".join(f'"{cell}"\n' for cell in cells))
    else:
        put("rows.jsonl", "".join(f'{{"price": {cell or "null"}}}\n' for cell in cells))
    streamed = [row["price"] for row in iter_rows(f"rows.{ending}")]
    if ending == "csv":
        assert streamed == [cell or None for cell in cells]
    whole = load_table(f"rows.{ending}")["price"][:]
    assert [None if it is None else str(it) for it in whole] == [None if it is None else str(it) for it in streamed]


def test_json_numbers_of_two_kinds_are_text_and_of_one_kind_are_numbers(put):
    rows = [{"a": 12.5, "b": 1, "c": 1.0, "d": 1, "e": 0.5}, {"a": 3000, "b": 2, "c": 2.5, "d": float("nan")}]
    put("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = load_table("rows.jsonl")
    assert table.to_list() == [
        {"a": "12.5", "b": 1, "c": 1.0, "d": 1, "e": 0.5},
        {"a": "3000", "b": 2, "c": 2.5, "d": None, "e": None},
    ]
    assert [table.features[name].dtype for name in "abcde"] == ["string", "int64", "float64", "int64", "float64"]


def test_a_nan_is_an_empty_cell(put):
    put("rows.jsonl", '{"text": "fine", "n": Infinity}\n{"text": NaN, "n": 0.5}\n')
    rows = [{"text": "fine", "n": float("inf")}, {"text": None, "n": 0.5}]
    assert load_table("rows.jsonl").to_list() == list(iter_rows("rows.jsonl")) == rows


def test_characters_of_two_halves_and_what_only_looks_like_one_are_read(put):
    put("rows.jsonl", '{"a": "\\ud83d\\ude00"}\n{"a": "\\\\ud83d"}\n')
    assert [row["a"] for row in iter_rows("rows.jsonl")] == ["\U0001f600", "\\ud83d"]


def test_a_csv_cell_may_be_long(put):
    long = "x" * 200_000
    put("rows.csv", f"text,label\n{long},a\n")
    assert load_table("rows.csv").to_list() == list(iter_rows("rows.csv")) == [{"text": long, "label": "a"}]


def test_a_limit_that_others_set_for_csv_cells_is_not_lowered(put):
    put("rows.csv", "text\nfine\n")
    before = csv.field_size_limit(2**31 - 1)
    try:
        load_table("rows.csv")
        assert csv.field_size_limit() == 2**31 - 1
    finally:
        csv.field_size_limit(before)


def test_the_index_that_pandas_writes_has_the_name_that_pandas_gives_it(put):
    put("rows.csv", ",text\n0,fine\n")
    assert load_table("rows.csv").to_list() == [{"Unnamed: 0": 0, "text": "fine"}]


def test_a_long_csv_file_is_the_same_table_part_by_part(put, monkeypatch, tmp_path):
    rows = [("x" * (n % 5), n, n / 2, "12.50" if n == 24 else "1.5", "") for n in range(25)]
    put("rows.csv", "text,whole,half,price,none\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    whole = load_table("rows.csv")
    monkeypatch.setattr("dhrd_hf.data.tables._PART", 10)
    parts = load_table("rows.csv")
    assert parts.to_list() == whole.to_list() and parts.features == whole.features
    assert [whole.features[name].dtype for name in whole.column_names] == [
        "string",
        "int64",
        "float64",
        "string",
        "null",
    ]
    assert not list((tmp_path / "cache").glob("*.arrow"))
    put("ragged.csv", "a,b\n" + "1,2\n" * 24 + "1\n")
    with pytest.raises(TableError, match="ragged.csv, line 26: 1 fields"):
        load_table("ragged.csv")
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_saved_folders(put, tmp_path):
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk("one")
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk("two")
    datasets.DatasetDict({"dev": one.select([2])}).save_to_disk("single")
    assert load_table(tmp_path / "one").to_list() == list(iter_rows("one")) == ROWS
    assert load_table("two", split="test").to_list() == list(iter_rows("two@test")) == ROWS[1:2]
    assert load_table("single").to_list() == ROWS[2:]
    with pytest.raises(TableError, match="two has several splits: choose one of train, test, as in two@train"):
        load_table("two")
    with pytest.raises(TableError, match="no split 'dev' in two: choose one of train, test"):
        load_table("two@dev")
    with pytest.raises(TableError, match="one is one data set, which has no splits: leave 'dev' out"):
        load_table("one", split="dev")


def test_a_parquet_file_keeps_its_features(put):
    labels = datasets.Features({"label": datasets.ClassLabel(names=["bad", "good"])})
    datasets.Dataset.from_dict({"label": [1, 0]}, features=labels).to_parquet("rows.parquet")
    assert load_table("rows.parquet").features == labels


def test_standard_input_is_json_lines(put, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"a": 1}\n{"a": 2}\n')))
    assert list(iter_rows("-")) == [{"a": 1}, {"a": 2}]


def test_rows_are_streamed(put):
    # Were the file read ahead, the broken second line would be met before the first row comes.
    rows = iter_rows(put("rows.jsonl", '{"a": 1}\nbroken\n'))
    assert next(rows) == {"a": 1}
    with pytest.raises(TableError, match="line 2"):
        next(rows)


# The Hub


@pytest.mark.parametrize(
    ("source", "arguments", "called"),
    [
        ("user/name", {}, ("user/name", None, None)),
        ("user/na.me:en-US", {}, ("user/na.me", "en-US", None)),
        ("user/name@train[:10]", {}, ("user/name", None, "train[:10]")),
        ("user/name:en@test", {}, ("user/name", "en", "test")),
        ("user/name", {"name": "en", "split": "test"}, ("user/name", "en", "test")),
    ],
)
def test_a_hub_name_is_handed_to_load_dataset(put, monkeypatch, source, arguments, called):
    calls = []

    def load_dataset(path, *, name, split, streaming):
        calls.append((path, name, split, streaming))
        one = datasets.Dataset.from_list(ROWS)
        return one if split else datasets.DatasetDict(train=one)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_table(source, **arguments).to_list() == list(iter_rows(source, **arguments)) == ROWS
    assert calls == [(*called, False), (*called, True)]


def test_a_hub_failure_is_one_line_that_keeps_the_reason(put, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(TableError, match="user/name is no file or folder here.*OfflineModeIsEnabled") as error:
        load_table("user/name")
    assert "\n" not in str(error.value)


# Broken tables

BROKEN = {
    "not JSON": ("x.jsonl", '{"a": 1}\n\n{"a": 1,\n', r"x\.jsonl, line 3: not JSON: .*column 9"),
    "one line of two objects": ("x.jsonl", '{"a": 1} {"a": 2}\n', r"x\.jsonl, line 1: not JSON: Extra data"),
    "not an object": ("x.jsonl", '{"a": 1}\n[1, 2]\n', r"line 2: a row has to be a JSON object, and this is a list"),
    "null": ("x.jsonl", "null\n", r"line 1: a row has to be a JSON object, and this is null"),
    "list item": ("x.json", '[{"a": 1}, 3]', r"x\.json, item 2: a row has to be a JSON object, and this is a number"),
    "list not JSON": ("x.json", '[{"a": 1},\n{"a" 2}]', r"x\.json, line 2: not JSON"),
    "not UTF-8": (
        "x.jsonl",
        b'{"a": 1}\n{"a": "\xff"}\n',
        r"x\.jsonl, line 2: not UTF-8 text.*save the file as UTF-8",
    ),
    "not UTF-8 CSV": ("x.csv", b"a\nx\n\xe9\n", r"x\.csv, line 3: not UTF-8 text"),
    "cut gzip": ("x.jsonl", None, r"x\.jsonl\.gz: can't be read past line \d+"),
    "too few fields": ("x.csv", "a,b\n1,2\n3\n", r"x\.csv, line 3: 1 fields, and the header has 2: a, b"),
    "too many fields": ("x.csv", 'a,b\n"1\n1",2\nso, well,3\n', r"x\.csv, line 4: 3 fields, .*around a field"),
    "too many in TSV": ("x.tsv", "a\tb\n1\t2\t3\n", r"x\.tsv, line 2: 3 fields"),
    "open quote": ("x.csv", 'a,b\n1,2\n"3,4\n5,6\n', r"x\.csv, line 3: the row that begins here is not CSV"),
    "header twice": ("x.csv", "a,b,a\n1,2,3\n", r"x\.csv, line 1: the header has one name twice: a, b, a"),
    "empty": ("x.jsonl", "", r"x\.jsonl holds no rows"),
    "blank": ("x.json", "\n \n", r"x\.json holds no rows"),
    "empty list": ("x.json", "[]", r"x\.json holds no rows"),
    "empty CSV": ("x.csv", "", r"x\.csv holds no rows"),
    "header only": ("x.csv", "a,b\n", r"x\.csv holds no rows"),
    "legacy CSV": (
        "x.csv",
        "a,b\n1,caf\xe9 noir\n".encode("cp1252"),
        r"x\.csv, line 2: .*'1,café noir'.*--encoding cp1252",
    ),
    "half a character": (
        "x.jsonl",
        '{"a": "\\ud83d\\ude00"}\n{"a": "cut \\uD83d"}\n',
        r"x\.jsonl, line 2: '\\ud83d' is half of a character",
    ),
    "half a key": ("x.json", '[{"a": 1},\n{"b\\ude00": 2}]', r"x\.json, item 2: '\\ude00' is half of a character"),
    "too deep": ("x.jsonl", '{"a": 1}\n' + "[" * 100_000, r"x\.jsonl, line 2: lists or objects lie too deep"),
    "columns": ("x.json", '{"a": ["x", "y"], "b": [1, 2]}', r"x\.json is one object of columns: write a list of rows"),
    "columns of pandas": ("x.json", '{"a": {"0": "x"}, "b": {"0": 1}}', r"x\.json is one object of columns"),
    "not Parquet": ("x.parquet", "no", r"x\.parquet is not a Parquet file"),
}


@pytest.mark.parametrize("read", [load_table, lambda source: list(iter_rows(source))], ids=["load_table", "iter_rows"])
@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_table_says_where(put, read, name, content, message):
    if content is None:
        name = "x.jsonl.gz"
        whole = gzip.compress(b'{"a": "text"}\n' * 1000)
        with open(name, "wb") as file:
            file.write(whole[:-20])
    else:
        put(name, content)
    with pytest.raises(TableError, match=message):
        read(name)


# A table as programs save it: the bytes, and who has told what of them.
TEXT = 'text,label\nGrün; und 007,NA\n"two\nlines, 12.50",b\n'
SAVED = {
    "semicolons": (TEXT.replace(",", "\t").replace(";", ",").replace("\t", ";").encode(), "semicolons separate"),
    "tabs": (TEXT.replace(",", "\t").encode(), "tabs separate"),
    "UTF-8 with a mark": (TEXT.encode("utf-8-sig"), None),
    "UTF-16 with a mark": (TEXT.encode("utf-16"), None),
    "UTF-16, little end first": (TEXT.encode("utf-16-le"), None),
    "UTF-16, big end first": (TEXT.encode("utf-16-be"), None),
    "UTF-32": (TEXT.encode("utf-32"), None),
    "an old Mac's": (TEXT.replace("\n", "\r").encode(), None),
    "Windows'": (TEXT.replace("\n", "\r\n").encode(), None),
}


@pytest.mark.parametrize(("content", "told"), SAVED.values(), ids=SAVED)
def test_a_csv_is_read_as_it_was_saved(put, content, told):
    lines = []
    reading(say=lines.append)
    rows = load_table(put("rows.csv", content)).to_list()
    unified = json.dumps(rows, ensure_ascii=False).replace("\\r", "\\n").replace("\\n\\n", "\\n")
    swapped = {"semicolons separate": {";": ",", ",": ";"}, "tabs separate": {",": "\t"}}.get(told, {})
    texts = [text.translate(str.maketrans(swapped)) for text in ("Grün; und 007", "two\nlines, 12.50")]
    assert [row["text"] for row in json.loads(unified)] == texts
    assert [row["label"] for row in rows] == ["NA", "b"]
    assert [told in line for line in lines] == [True] if told else lines == []


def test_a_separator_is_only_changed_where_that_makes_a_table(put):
    for name, content in {
        "one.csv": "text\na;b\nc;d\n",
        "comma.csv": "text,label\na;b;c,x\nd;e;f,y\n",
    }.items():
        assert len(next(iter_rows(put(name, content)))) == content.partition("\n")[0].count(",") + 1
    assert load_table(put("both.csv", "text, raw;label\na;b\nc;d\n")).column_names == ["text, raw", "label"]
    with pytest.raises(TableError, match="line 3: 3 fields, and the header has 2"):
        load_table(put("ragged.csv", "a;b\n1;2\n3;4;5\n6;7\n8;9\n".replace(";", ",")))


def test_a_legacy_encoding_is_read_where_it_is_named_and_a_utf8_file_as_ever(put):
    put("old.csv", "text\ncafé\n".encode("cp1252"))
    put("new.csv", "text\ncafé\n")
    reading("cp1252")
    try:
        assert [next(iter_rows(name))["text"] for name in ("old.csv", "new.csv")] == ["café", "café"]
    finally:
        reading()
    with pytest.raises(TableError, match="--encoding latin-none is none that Python knows"):
        reading("latin-none")


@pytest.mark.parametrize("indent", [None, 2])
def test_json_may_be_one_object_with_one_list_of_rows(put, indent):
    rows = [{"text": "x", "label": "a"}, {"text": "y", "label": "b"}]
    lines = []
    reading(say=lines.append)
    put("rows.json", json.dumps({"version": 2, "tags": ["t"], "data": rows}, indent=indent))
    assert load_table("rows.json").to_list() == rows
    assert lines == ["rows.json: its rows are the list 'data' of one object."]
    put("list.json", json.dumps(rows, indent=indent))
    assert load_table("list.json").to_list() == rows


def test_a_workbook_is_read_and_its_sheet_is_told(put):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["007", 1, None], [None, None, None], ["12.50", 2, None], ["NA", None, None]):
        book.active.append(row)
    book.create_sheet("other").append(["a", "a"])
    book.save("rows.xlsx")
    lines = []
    reading(say=lines.append)
    assert load_table("rows.xlsx").to_list() == [
        {"text": "007", "label": 1},
        {"text": "12.50", "label": 2},
        {"text": "NA", "label": None},
    ]
    assert len(lines) == 1 and "its first sheet, 'Sheet', is read; rows.xlsx@other" in lines[0]
    with pytest.raises(TableError, match="row 1: the header has one name twice: a, a"):
        load_table("rows.xlsx@other")
    with pytest.raises(TableError, match="no sheet 'third' in rows.xlsx: choose one of Sheet, other"):
        load_table("rows.xlsx@third")
    put("old.xls", "")
    with pytest.raises(TableError, match=r"can't read old.xls: save it as .xlsx, or as CSV UTF-8"):
        load_table("old.xls")


def test_the_columns_of_a_table_are_known_by_its_beginning(put):
    put("rows.csv", "text,label\na,b\n")
    put("rows.jsonl", '{"a": 1}\n{"b": 2}\n')
    put("long.jsonl", '{"a": 1}\n' * 1000 + '{"late": 1}\n')
    write_rows("rows.parquet", ROWS)
    datasets.Dataset.from_list(ROWS).save_to_disk("folder")
    assert (
        peek_columns("rows.csv") == peek_columns("rows.parquet") == peek_columns("folder") == (["text", "label"], True)
    )
    assert peek_columns("rows.jsonl") == (["a", "b"], True)
    assert peek_columns("long.jsonl") == (["a"], False)
    assert peek_columns("user/name@test") is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"a": 1}\n{"a": null}\n{"a": "x"}\n', "line 3: column 'a' is text here, and a number on line 1"),
        ('{"a": true}\n{"a": 1}\n', "line 2: column 'a' is a number here, and true/false on line 1"),
        ('{"a": "x"}\n{"a": ["x"]}\n', "line 2: column 'a' is a list here, and text on line 1"),
        ('{"a": [1]}\n{"a": ["x"]}\n', "column 'a' can't be made into one type"),
        ('{"a": 1}\n{"a": 99999999999999999999}\n', "column 'a' can't be made into one type"),
    ],
)
def test_a_column_of_two_types_is_named(put, lines, message):
    with pytest.raises(TableError, match=message):
        load_table(put("rows.jsonl", lines))


def test_an_empty_parquet_file_holds_no_rows(put):
    write_rows("rows.parquet", [], columns=["a"])
    for read in (load_table, iter_rows):
        with pytest.raises(TableError, match="rows.parquet holds no rows"):
            read("rows.parquet")


# `iter_rows` is called here without taking a row: what is not there is said before any work begins.
@pytest.mark.parametrize("open_table", [load_table, iter_rows])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("trian.jsonl", r"no such file or folder: trian\.jsonl: did you mean train\.jsonl\? A table is a \.jsonl, "),
        ("data/train.csv", r"no such file or folder: data/train\.csv\. A table is"),
        ("nothing", r"no such file or folder: nothing\. .*a Hub data set as user/name"),
        ("notes.txt", r"can't read notes\.txt: expected a \.jsonl"),
        ("plain", r"plain is a folder that save_to_disk did not write: name one of the files in it"),
    ],
)
def test_a_source_that_is_not_there_says_what_is_accepted(put, open_table, source, message):
    put("train.jsonl", "{}")
    put("notes.txt", "")
    os.mkdir("plain")
    with pytest.raises(TableError, match=message):
        open_table(source)


def test_a_file_has_no_splits(put):
    with pytest.raises(TableError, match="rows.jsonl is one file, which has no split .*: leave 'test' out"):
        load_table(put("rows.jsonl", '{"a": 1}'), split="test")


# Columns


def test_columns_that_are_there_pass_whatever_else_is():
    check_columns(["text", "label", "Rationale", "texts", "id", "ID"], needed=["text", "label"])
    check_columns(["label", "labels"], needed=["label", "labels"])


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        ("Rationale", "rationale"),
        ("rationales", "rationale"),
        ("label", "labels"),
        (" text ", "text"),
        ("gold-label", "gold_label"),
        ("Gold Label", "gold_label"),
    ],
)
def test_two_spellings_of_a_column_are_refused(there, needed):
    with pytest.raises(TableError, match=f"columns {needed!r} and {there!r} are spelt almost alike"):
        check_columns(["x", there, needed], needed=[needed])
    with pytest.raises(TableError, match=f"no column {needed!r}: did you mean {there!r}"):
        check_columns(["x", there], needed=[needed])


def test_a_missing_column_says_what_there_is():
    with pytest.raises(
        TableError,
        match="no column 'text': did you mean 'question' \\(--prompt '{question}'\\)\\? The table has: 'question', 'label'",
    ):
        check_columns(["question", "label"], needed=["label", "text"])
    with pytest.raises(TableError, match="no column 'premise': did you mean 'premises'"):
        check_columns(["premises"], needed=["premise"])
    with pytest.raises(TableError, match="no column 'label': did you mean 'Category' \\(--label-column Category\\)"):
        check_columns(["text", "Category"], needed=["label"])
    with pytest.raises(TableError, match="no column 'text'. The table has: 'x', 'label'"):
        check_columns(["x", "label"], needed=["text"])


def test_an_optional_column_may_be_missing_but_not_misspelt():
    check_columns(["text"], needed=["text"], optional=["rationale"])
    check_columns(["text", "rational", "rationale"], needed=["text"], optional=["rationale"])
    with pytest.raises(TableError, match="no column 'rationale': did you mean 'Rationales'"):
        check_columns(["text", "Rationales"], needed=["text"], optional=["rationale"])


def test_rows_under_two_spellings_are_refused(put):
    table = load_table(put("rows.jsonl", '{"rationale": "a"}\n{"Rationale": "b"}\n'))
    with pytest.raises(TableError, match="'rationale' and 'Rationale'"):
        check_columns(table.column_names, needed=["rationale"])


# Writing


def test_columns_choose_and_order_what_is_written(put):
    rows = [{"a": 1, "b": "x", "c": 0}, {"b": "y"}]
    for name in ("rows.jsonl", "rows.csv", "rows.parquet"):
        write_rows(name, rows, columns=["b", "a"])
    assert Path("rows.jsonl").read_text(encoding="utf-8") == '{"b": "x", "a": 1}\n{"b": "y", "a": null}\n'
    assert Path("rows.csv").read_text(encoding="utf-8") == "b,a\nx,1\ny,\n"
    assert pq.read_table("rows.parquet").to_pylist() == [{"b": "x", "a": 1}, {"b": "y", "a": None}]


def test_arrays_and_nested_values_are_written_as_json(put):
    row = {"scores": {"good": 0.5}, "logits": np.array([1.0, 2.0]), "top": np.int64(3)}
    write_rows("rows.jsonl", [row])
    assert json.loads(Path("rows.jsonl").read_text(encoding="utf-8")) == {
        "scores": {"good": 0.5},
        "logits": [1.0, 2.0],
        "top": 3,
    }
    write_rows("rows.csv", [{"scores": {"ä": 0.5}, "classes": ["x", "y"]}])
    assert next(iter_rows("rows.csv")) == {"scores": '{"ä": 0.5}', "classes": '["x", "y"]'}


def test_no_rows_make_an_empty_file(put):
    assert write_rows("rows.jsonl", []) == 0
    assert write_rows("rows.csv", [], columns=["a", "b"]) == 0
    assert (Path("rows.jsonl").read_text(encoding="utf-8"), Path("rows.csv").read_text(encoding="utf-8")) == (
        "",
        "a,b\n",
    )


def test_standard_output_is_json_lines(put, capsys):
    assert write_rows("-", ROWS[2:]) == 1
    assert capsys.readouterr().out == '{"text": "Ünï", "label": null}\n'


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv.gz", "rows.parquet"])
def test_a_file_is_written_whole_or_not_at_all(put, tmp_path, name):
    put(name, b"old")

    def rows():
        yield {"a": 1}
        raise KeyboardInterrupt

    before = (tmp_path / name).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_rows(name, rows())
    assert os.listdir() == [name]
    assert (tmp_path / name).read_bytes() == before


def test_a_file_can_be_rewritten_from_itself(put):
    put("rows.jsonl", '{"a": 1}\n{"a": 2}\n')
    assert write_rows("rows.jsonl", ({"a": row["a"] + 1} for row in iter_rows("rows.jsonl"))) == 2
    assert load_table("rows.jsonl")["a"][:] == [2, 3]


def test_others_may_read_what_is_written(put):
    before = os.umask(0o022)
    try:
        write_rows("rows.jsonl", ROWS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("rows.jsonl").st_mode) == 0o644


def test_a_large_parquet_file_is_written_in_row_groups(put):
    assert write_rows("rows.parquet", ({"a": number} for number in range(20_001))) == 20_001
    assert pq.ParquetFile("rows.parquet").metadata.num_row_groups == 3
    assert [row["a"] for row in iter_rows("rows.parquet")] == list(range(20_001))


# The column's values in the first row group, and one that comes later.
LATE = {
    "a whole number among floats": ([0.5], 1),
    "nothing": ([1], None),
    "no field": ([{"a": 1}], {}),
    "an empty list": ([["x"]], []),
    "another key, filled": ([{"a": 1, "b": None}, {"a": 1, "b": 2}], {"b": 3}),
    "decimals": ([Decimal("10.25")], Decimal("1.5")),
}


@pytest.mark.parametrize(("first", "late"), LATE.values(), ids=LATE)
def test_what_comes_late_in_a_parquet_file_is_kept(put, first, late):
    values = [first[number % len(first)] for number in range(10_000)] + [late]
    assert write_rows("rows.parquet", ({"m": value} for value in values)) == 10_001
    found = [row["m"] for row in iter_rows("rows.parquet")]
    if isinstance(late, dict):
        values, found = ([{k: v for k, v in it.items() if v is not None} for it in its] for its in (values, found))
    assert found == values


LOST = {
    "a fraction": (1, 1.5),
    "a float": (1, 2.0),
    "text": (1, "x"),
    "a number in text": ("x", 1),
    "true in numbers": (1, True),
    "true in floats": (1.5, True),
    "a number in truths": (True, 1),
    "another key": ({"a": 1}, {"a": 1, "b": 2}),
    "a fraction in a list": ([1], [1.5]),
    "another key in a list": ([{"a": 1}], [{"a": 1, "b": 2}]),
    "after nothing": (None, "x"),
    "after nothing in a list": ([], ["x"]),
    "more than a float holds": (0.5, 2**60 + 1),
    "a decimal that is too long": (Decimal("1.5"), Decimal("1.25")),
    "a time in dates": (date(2020, 1, 1), datetime(2020, 1, 1, 3)),
}


@pytest.mark.parametrize(("first", "late"), LOST.values(), ids=LOST)
def test_what_a_parquet_file_would_lose_is_refused(put, first, late):
    with pytest.raises(TableError, match="after row 10000 a column changes its type .*'m'.*: write .jsonl") as error:
        write_rows("rows.parquet", [{"m": first}] * 10_000 + [{"m": late}])
    assert "\n" not in str(error.value) and os.listdir() == []


@pytest.mark.parametrize(
    "values", [("a", 1), (1, "a"), (True, 1), (1.5, True), (10**30, 1), ({"a": 1}, {"a": "x"}), ([1], 1)]
)
def test_a_parquet_column_of_two_types_is_refused_at_once(put, values):
    with pytest.raises(TableError, match="column 'm' can't be made into one type .*: write .jsonl") as error:
        write_rows("rows.parquet", ({"text": "x", "m": value} for value in values))
    assert "\n" not in str(error.value) and os.listdir() == []


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("rows.txt", [], r"can't write rows\.txt: expected a file \.jsonl, \.csv"),
        ("rows.json", [], r"can't write rows\.json"),
        ("folder.csv", [], r"can't write folder\.csv: expected a file"),
        ("file/rows.csv", [], r"can't write file/rows\.csv: "),
        ("rows.csv", [{"a": 1}, {"a": 1, "b": 2}], "Row 1 has 'b', which the first row lacks: write .jsonl"),
        ("rows.parquet", [{"a": 1}] * 10_000 + [{"a": "x"}], "after row 10000 a column changes its type"),
    ],
)
def test_what_can_not_be_written_is_said(put, name, rows, message):
    os.mkdir("folder.csv")
    put("file", "")
    with pytest.raises(TableError, match=message):
        write_rows(name, rows)
    assert sorted(os.listdir()) == ["file", "folder.csv"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_thousands_of_columns_is_written_in_time_like_its_rows_and_columns(tmp_path, kind):
    """A row costs what its columns cost: with four times the columns some four times as much, and not sixteen."""

    def seconds(columns):
        row = {f"probability_{column}": 0.25 for column in range(columns)}
        started = time.process_time()
        assert write_rows(tmp_path / f"out.{kind}", (dict(row) for _ in range(30))) == 30
        return time.process_time() - started

    seconds(10)  # imports
    assert min(seconds(8000) for _ in range(3)) < 9 * min(seconds(2000) for _ in range(3)) + 0.05
    assert len(next(iter_rows(tmp_path / f"out.{kind}"))) == 2000


# Tables that are not held in memory

WIDER = {
    "text": ["a", None, "c", "d"],
    "whole": [1, 2, None, 2**40],
    "mixed later": [3000, None, 12.5, 7],
    "numbers": [0.5, None, 1e300, -2.5],
    "late": [None, None, None, "x"],
    "list": [[1], [], None, [2, 3]],
    "wider list": [[1], [1.5], [], None],
    "object": [{"a": 1}, None, {"b": "x"}, {"a": 2, "b": None}],
    "empty": [None] * 4,
}


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_parts_of_json_become_what_the_whole_would(put, monkeypatch, tmp_path, part, ending):
    rows = [{name: cells[row] for name, cells in WIDER.items() if (name, row) != ("text", 1)} for row in range(4)]
    whole = json.dumps(rows, indent=1) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    name = put(f"rows.{ending}", whole)
    in_memory = load_table(name)
    monkeypatch.setattr("dhrd_hf.data.tables._PART", part)
    found = load_table(name)
    assert found.features == in_memory.features and found.to_list() == in_memory.to_list()
    assert found["mixed later"][:] == ["3000", None, "12.5", "7"] and found["whole"][:] == WIDER["whole"]
    assert not list((tmp_path / "cache").iterdir())
    assert found._fingerprint == load_table(name)._fingerprint
    put(name, whole.replace('"c"', '"other"'))
    assert found._fingerprint != load_table(name)._fingerprint


def test_a_column_that_is_of_no_one_type_in_a_later_part_is_named(put, monkeypatch):
    monkeypatch.setattr("dhrd_hf.data.tables._PART", 1)
    name = put("rows.jsonl", '{"a": [1]}\n{"a": ["x"]}\n')
    with pytest.raises(TableError, match="rows.jsonl: column 'a' can't be made into one type"):
        load_table(name)
    name = put("more.jsonl", '{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(TableError, match="more.jsonl, line 2: column 'a' is text here, and a number on line 1"):
        load_table(name)


def test_a_long_json_table_is_read_in_memory_that_does_not_grow(put, tmp_path):
    peaks = []
    for rows in (40_000, 120_000):
        put(
            "rows.jsonl", "".join(json.dumps({"text": f"{row:06} " * 100, "label": "a"}) + "\n" for row in range(rows))
        )
        code = (
            "import sys, pyarrow as pa, datasets; from dhrd_hf.data.tables import load_table; "
            "load_table('rows.jsonl'); print(pa.default_memory_pool().max_memory())"
        )
        peaks.append(int(run_as_a_stranger(code)))
    assert peaks[1] < 1.2 * peaks[0]
