"""What a value of a label column is called, whichever way it is read."""

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Sequence, load_from_disk

from dhrd_hf.data import DualHeadEncoder
from dhrd_hf.data.joining import NamedRows
from dhrd_hf.data.label_names import label_name, label_names
from dhrd_hf.data.labels import Labels, check_fractions, read_labels
from dhrd_hf.data.tables import load_table

CASES = Path(__file__).parents[3] / "shared" / "cases"
TWO = "single_label_classification"
MANY = "multi_label_classification"


def read(values, **options):
    """The cells, the labels and what was said of a column."""
    table = Dataset.from_dict({"label": values}) if isinstance(values, list) else values
    said = []
    table, labels = read_labels(table, say=said.append, **options)
    return table["label"][:], labels, said


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *[(True, "true"), (False, "false"), (" yes\t", "yes"), ("1.0", "1"), (" 2", "2"), (1.0, "1"), (-3, "-3")],
        *[("3.10", "3.10"), (3.5, "3.5"), ("007", "007"), ("1.5.0", "1.5.0"), ("nan", "nan"), ("None", "None")],
        *[(np.int64(4), "4"), (np.float32(2.0), "2"), (np.bool_(True), "true"), (10**20, str(10**20))],
        *[(None, None), ("", None), (" \n", None), (float("nan"), None), (np.nan, None)],
        *[
            ("yes\u200b", "yes"),
            ("\ufeff yes", "yes"),
            ("\u00a0yes", "yes"),
            ("a\u200bb", "a\u200bb"),
            ("\u200b ", None),
        ],
    ],
)
def test_a_value_has_one_name_however_it_is_written(value, name):
    assert label_name(value) == name
    assert label_names(value) == ([] if name is None else [name])
    assert name is None or label_name(name) == name


@pytest.mark.parametrize(
    ("values", "cells", "names"),
    [
        ([True, False, True], ["true", "false", "true"], ["false", "true"]),
        (["yes", " yes", "no "], ["yes", "yes", "no"], ["no", "yes"]),
        (["1.0", "2", "1"], ["1", "2", "1"], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"], ["1", "2"]),
        ([10, 9, 100], ["10", "9", "100"], ["9", "10", "100"]),
        (["10", "9", "100"], ["10", "9", "100"], ["9", "10", "100"]),
        ([["b", " a"], [], ["b"]], [["b", "a"], [], ["b"]], ["a", "b"]),
        ([[0, 2], [1], []], [["0", "2"], ["1"], []], ["0", "1", "2"]),
        ([[0, 0, 1], [1, 1, 0], [0, 0, 0]], [["2"], ["0", "1"], []], ["0", "1", "2"]),
        ([[0, 0, 0, 0], [1, 0, 0, 0]], [[], ["0"]], ["0", "1", "2", "3"]),
        ([[False, True], [False, False]], [["1"], []], ["0", "1"]),
        ([[0.0, 1.0], [1.0, 0.0]], [["1"], ["0"]], ["0", "1"]),
    ],
)
def test_what_a_column_becomes(values, cells, names):
    found, labels, _ = read(values)
    assert found == cells and labels.names == names
    assert labels.problem_type == (MANY if isinstance(values[0], list) else TWO)
    flat = [name for cell in cells for name in (cell if isinstance(cell, list) else [cell])]
    assert labels.counts == {name: flat.count(name) for name in set(flat)}


@pytest.mark.parametrize(
    ("values", "known", "cells"),
    [
        ([0, 1, 0], ["no", "yes"], ["no", "yes", "no"]),
        ([1, 5, 3], ["1", "3", "5"], ["1", "5", "3"]),
        (["0", "1"], ["no", "yes"], ["no", "yes"]),  # as a CSV of ids beside a cell that is none has them
        ([1.0, 0.0], ["no", "yes"], ["yes", "no"]),
        ([True, False], ["False", "True"], ["True", "False"]),  # of a model that dhrd_hf 0.1 trained
        (["1", "1.0"], ["1", "1.0"], ["1", "1.0"]),
        ([1, 2.0], ["1.0", "2.0"], ["1.0", "2.0"]),
        ([3.5, 4.5], ["3.5", "4.5"], ["3.5", "4.5"]),
        ([[1, 0], [0, 1]], ["a", "b"], [["a"], ["b"]]),
        ([[1], [0], [1]], ["spam"], [["spam"], [], ["spam"]]),
        ([[1, 0, 1], [0, 0, 0]], ["a", "b", "c"], [["a", "c"], []]),
        ([[0, 1], [2], []], ["a", "b", "c"], [["a", "b"], ["c"], []]),
        ([["b "], ["a"]], ["b", "a"], [["b"], ["a"]]),
    ],
)
def test_a_column_of_known_labels(values, known, cells):
    found, labels, _ = read(values, known=known)
    assert found == cells and labels.names == known


def test_among_words_a_fraction_that_is_a_number_is_a_slip():
    check_fractions(["wet", "0.5"], "it")
    with pytest.raises(ValueError, match="it holds 0.5: add --problem-type regression"):
        check_fractions(["wet", "0.5", 1.5], "it")


@pytest.mark.parametrize("values", [[3.5, 4.5, 3.0], ["3.5", "4.5", "3"], ["3.10", "3.9"]])
def test_fractions_are_refused_once_with_both_ways_out(values):
    with pytest.raises(ValueError, match="holds 3.*--problem-type regression .*--problem-type single_label"):
        read(values)
    names = {"3.0": "3"}
    assert read(values, problem_type=TWO)[0] == [names.get(str(value), str(value)) for value in values]
    cells, labels, _ = read(values, problem_type="regression")
    assert cells == [float(value) for value in values] and labels.names == ["label"]


def test_rows_without_a_label_are_counted_and_left_out_on_request():
    values = ["a", None, "", " ", "b", "a"]
    with pytest.raises(
        ValueError, match=r"4 of 7 rows have no label: 1, 2, 3, 6 \(numbered from 0\).*--drop-unlabelled"
    ):
        read([*values, None])
    cells, labels, said = read([*values, None], drop_unlabelled=True)
    assert cells == ["a", "b", "a"] and labels.counts == {"a": 2, "b": 1}
    assert len(said) == 1 and "4 of 7 rows" in said[0] and "left out" in said[0]
    assert read([1.0, float("nan"), 2.0], drop_unlabelled=True)[0] == ["1", "2"]
    with pytest.raises(ValueError, match="2 of 2 rows have no label.*none is left"):
        read([None, ""], drop_unlabelled=True)
    with pytest.raises(ValueError, match="Row 2 of dev.jsonl: its label 'c' is unknown"):
        read(["a", "", "c"], known=["a", "b"], where="dev.jsonl", drop_unlabelled=True)


def test_odd_names_are_kept_with_one_warning():
    values = ["n/a", "None", "nan", "New York", "new  york", " fine"]
    cells, _, said = read(values)
    assert cells == ["n/a", "None", "nan", "New York", "new  york", "fine"]
    assert "1 labels had blanks around them" in said[0]
    assert len(said) == 2 and "'None', 'n/a', 'nan' are labels" in said[1]
    assert "'New York' and 'new  york' differ in case or blanks alone" in said[1]
    assert read(["A", "a", "b"], known=["A", "a", "b"])[2] == []


@pytest.mark.parametrize(
    "values",
    [
        ["caf\u00e9", "cafe\u0301"],  # one letter, and a letter with an accent of its own
        ["yes", "y\u200bes"],
        ["7", "007"],
        ["1", "1e0"],
        ["\uff21", "A"],  # of full width
    ],
)
def test_names_that_look_alike_are_told(values):
    cells, _, said = read([*values, "other"])
    assert cells == [*values, "other"] and len(said) == 1
    one, two = sorted(values)
    assert f"{one!r} and {two!r} differ in spelling alone, and are 2 labels" in said[0]
    assert read(["caf\u00e9", "cafe", "1", "10"])[2] == []


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([[0, 1], [1, 0]], {}, r"\[0, 1\], which could be ids or, multi-hot.*as text.*--label-names"),
        ([[1], [0]], {}, "could be ids or"),
        ([[0, 0, 1], [2, 1, 0]], {}, r"Row 0: its label \[0, 0, 1\] is multi-hot, or has an id twice"),
        ([[0, 5], [3, 3]], {}, r"Row 1: .*has an id twice"),
        ([[0, 0, 1], [1, 0, 0]], {"known": ["a", "b"]}, "Row 0: .*multi-hot"),
        ([{"a": 1}], {}, "Row 0: its label holds an object"),
        ([b"yes", b"no"], {}, "Row 0: its label holds bytes"),
        ([["a"], ["b"]], {"problem_type": TWO}, r"holds lists such as \['a'\], in row 0"),
        (["a", "b"], {"problem_type": MANY}, "holds single values such as 'a', in row 0"),
        (['["a"]', "[]"], {}, "lists as text"),
        (["['a', 'b']", "['a']"], {}, "lists as text"),  # as pandas writes lists into CSV
        ([["0", "0", "1"], ["1", "0", "0"]], {}, r"Row 0: .*is multi-hot as text: write numbers"),
        ([1, 0], {"known": ["a"]}, "Row 0: its label id 1 is out of range: there are 1 labels, 'a'"),
        (["a", "b"], {"known": ["a", "a"]}, "names are 'a', 'a': each label needs one of its own"),
        (["a", "b"], {"known": ["a", " "]}, "names are 'a', ' ': each label needs one of its own"),
        ([[], [1.0, 2.0]], {"problem_type": "regression"}, r"Row 0: its label \[\] is of 0 numbers, and there are 2"),
        (["0.5", "x"], {"problem_type": "regression"}, "Row 1: its label 'x' is not a number"),
        ([True, False], {"problem_type": "regression"}, "Row 0: its label True is not a number"),
        ([0.5, float("inf")], {"problem_type": "regression"}, "Row 1: its label inf is not a number"),
        ([[0.5, 1.0], [2.0]], {"problem_type": "regression"}, r"Row 1: its label \[2.0\] is of 1 numbers"),
        ([[["a"]]], {}, "Row 0: its label holds a list"),
        ([[None, "a"]], {}, "Row 0: .*an empty entry"),
        ([[0.2, 0.8], [1.0, 0.0]], {}, r"holds \[0.2, 0.8\]: add --problem-type regression"),
        ([Decimal("1.0"), Decimal("2.5")], {}, "holds 2.5: add --problem-type regression"),
    ],
)
def test_what_is_no_label_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        read(values, **options)


ORDERS = [{"dry": 0, "wet": 1}, {"wet": 0, "dry": 1}]


@pytest.mark.parametrize("label2id", ORDERS)
def test_class_labels_are_their_names_through_every_door(tokenizer, label2id, tmp_path):
    columns = {"text": ["It rains.", "It is noon.", "It pours."], "label": [0, 1, 0]}
    rows = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["wet", "dry"]))
    right = [label2id[name] for name in ("wet", "dry", "wet")]
    encode = DualHeadEncoder(tokenizer, label2id)
    options = {"batched": True, "remove_columns": rows.column_names}
    assert rows.map(encode, **options)["labels"][:] == right
    assert rows.map(encode, **options, batch_size=1)["labels"][:] == right
    assert encode.encode_dataset(rows)["labels"][:] == right
    stream = encode.encode_dataset(rows.to_iterable_dataset())
    assert [row["labels"] for row in stream] == right and set(next(iter(stream))) == set(encode(columns))
    # A plain batch and a stream's map do not say what the numbers stand for: ids of label2id.
    assert encode(columns)["labels"] == [0, 1, 0]
    assert [row["labels"] for row in rows.to_iterable_dataset().map(encode, **options)] == [0, 1, 0]
    answers = [tokenizer.decode(ids).endswith("wet<eos>") for ids in rows.map(encode, **options)["input_ids"]]
    assert answers == [True, False, True]
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.save_to_disk(tmp_path / "rows")
    for source in (tmp_path / "rows.parquet", tmp_path / "rows"):
        assert [row["label"] for row in NamedRows(source)] == ["wet", "dry", "wet"]
    assert read(load_from_disk(tmp_path / "rows"))[0] == ["wet", "dry", "wet"]


def test_lists_of_class_labels_and_no_label(tokenizer):
    feature = Sequence(ClassLabel(names=["1", "0"]))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [[0], [1, 0]]}).cast_column("label", feature)
    encode = DualHeadEncoder(tokenizer, {"0": 0, "1": 1}, problem_type=MANY)
    for found in (encode.encode_dataset(rows), rows.map(encode, batched=True)):
        assert found["labels"][:] == [[0.0, 1.0], [1.0, 1.0]]
    rows = Dataset.from_dict({"label": [0, 1, -1]}).cast_column("label", ClassLabel(names=["1", "0"]))
    assert read(rows, drop_unlabelled=True)[0] == ["1", "0"]


@pytest.mark.parametrize("form", ["torch", "numpy", "pandas", "arrow"])
def test_a_format_hides_no_class_labels(tokenizer, form):
    names = ClassLabel(names=["1", "2", "0"])
    encode = DualHeadEncoder(tokenizer, {"0": 0, "1": 1, "2": 2}, problem_type=None)
    for column, feature, right in (
        ([0, 1, 2], names, [1, 2, 0]),
        ([[0], [1, 2], []], Sequence(names), [[0, 1, 0], [1, 0, 1], [0, 0, 0]]),
    ):
        rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": column}).cast_column("label", feature)
        assert encode.encode_dataset(rows.with_format(form))["labels"][:] == right
        stream = rows.to_iterable_dataset().with_format(form)
        assert [row["labels"] for row in encode.encode_dataset(stream)] == right
        # Its `map` gives arrays, and does not say what they number.
        with pytest.raises(ValueError, match=r"encode_dataset.*with_format\(None\)"):
            rows.with_format(form).map(encode, batched=True, remove_columns=rows.column_names)
    numbers = Dataset.from_dict({"text": ["a", "b"], "label": [0.5, 2.0]}).with_format(form)
    encode = DualHeadEncoder(tokenizer, {"stars": 0}, problem_type="regression")
    assert encode.encode_dataset(numbers)["labels"][:] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("label", "id"), [(" yes", 1), ("no\n", 0), (1, 1), (np.int64(0), 0), (1.0, 1), ("1", 1), ("1.0", 1)]
)
def test_an_encoder_reads_a_cell_as_the_column_is_read(tokenizer, label, id):
    encode = DualHeadEncoder(tokenizer, {"no": 0, "yes": 1})
    assert encode({"text": ["It hums."], "label": [label]})["labels"] == [id]


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ([1, 0, 1], [1, 0, 1]),
        ([0, 2], [1, 0, 1]),
        ([2], [0, 0, 1]),
        (["c", " a"], [1, 0, 1]),
        ([False, False, True], [0, 0, 1]),
        ([0.0, 0.0, 1.0], [0, 0, 1]),
        ([], [0, 0, 0]),
    ],
)
def test_an_encoder_reads_lists(tokenizer, label, found):
    encode = DualHeadEncoder(tokenizer, {"a": 0, "b": 1, "c": 2})
    assert encode({"text": ["It hums."], "label": [label]})["labels"] == [found]


def test_an_encoder_does_not_guess_between_ids_and_multi_hot(tokenizer):
    encode = DualHeadEncoder(tokenizer, {"a": 0, "b": 1}, problem_type=MANY)
    with pytest.raises(ValueError, match=r"Row 0: its label \[0, 1\] could be ids or, multi-hot.*encode_dataset"):
        encode({"text": ["It hums."], "label": [[0, 1]]})
    rows = {"text": ["It hums.", "It sings."], "label": [[0, 1], [1, 0]]}
    assert encode.encode_dataset(Dataset.from_dict(rows))["labels"][:] == [[0, 1], [1, 0]]


@pytest.mark.parametrize("rationale", [["a", "b"], {"why": "a"}, b"a"])
def test_a_rationale_that_is_no_text_is_refused_by_row(tokenizer, rationale):
    encode = DualHeadEncoder(tokenizer, {"no": 0, "yes": 1})
    with pytest.raises(ValueError, match="Row 1: column 'rationale' holds (a list|an object|bytes), not a text"):
        encode({"text": ["a", "b"], "label": ["no", "yes"], "rationale": [None, rationale]})


def test_unlabelled_rows_of_a_data_set_are_dropped_on_request(tokenizer):
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": ["no", None, "yes"]})
    encode = DualHeadEncoder(tokenizer, {"no": 0, "yes": 1})
    assert encode.encode_dataset(rows, drop_unlabelled=True)["labels"][:] == [0, 1]
    assert encode.counts.rows == 2


def test_labels_must_be_numbered():
    with pytest.raises(ValueError, match="0 to 1, each once"):
        Labels({"a": 0, "b": 2})


@pytest.mark.slow
def test_the_cases_that_failed():
    assert read(load_table(CASES / "multi_hot.jsonl"))[1].counts == {"0": 12, "1": 12, "2": 12}
    assert read(load_table(CASES / "booleans.jsonl"))[1].counts == {"false": 8, "true": 8}
    cells, labels, said = read(load_table(CASES / "blank_labels.csv"), drop_unlabelled=True)
    assert labels.counts == {"Access": 10, "Billing": 5, "access": 5} and len(cells) == 20
    assert "5 of 25 rows have no label: 2, 7, 12, 17, 22 " in said[0] and "5 labels had blanks" in said[1]
    assert "'Access' and 'access' differ in case alone" in said[2]
    assert read(load_table(CASES / "half_stars.jsonl"), problem_type=TWO)[1].counts == {"3.5": 8, "4.5": 8}
    for name in ("half_stars", "ids_or_multi_hot", "blank_labels"):
        with pytest.raises(ValueError):
            read(load_table(CASES / f"{name}{'.csv' if name == 'blank_labels' else '.jsonl'}"))
    first = json.loads((CASES / "multi_hot.jsonl").read_text().splitlines()[0])["label"]
    assert first == [1, 0, 0]
