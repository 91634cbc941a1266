"""A table whose rows are to get rationales: its keys, its labels' names, and what is wrong with it before anything is paid for."""

import pytest

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.rationales.prompt import LabelledTable


@pytest.fixture
def table_of(tmp_path):
    def make(rows, **options):
        write_rows(tmp_path / "rows.jsonl", [{"text": f"Row {n}."} | row for n, row in enumerate(rows)])
        return LabelledTable(tmp_path / "rows.jsonl", **options)

    return make


def test_a_row_is_called_by_its_key_else_by_its_number(table_of):
    rows = [{"label": "wet", "id": "a"}, {"label": "dry", "id": None}, {"label": "wet", "id": 7}]
    assert [it.key for it in table_of(rows)] == ["a", 1, 7]
    assert [it.key for it in table_of([row | {"name": n + 5} for n, row in enumerate(rows)], id_column="name")] == [
        5,
        6,
        7,
    ]
    assert [it.key for it in table_of([{"label": row["label"]} for row in rows])] == [0, 1, 2]


def test_rows_without_a_label_are_counted_and_keep_the_numbers_of_the_others(table_of):
    said = []
    table = table_of([{"label": it} for it in ("wet", None, "dry", " ")], drop_unlabelled=True, say=said.append)
    assert (len(table), table.dropped, [it.key for it in table]) == (2, 2, [0, 2])
    assert any("2 of 4 rows have no label: 1, 3" in line for line in said)


def test_rows_with_an_empty_input_are_counted_and_named(table_of):
    said, parts = [], [("a", " "), (" ", "\u200b"), ("b", None), (float("nan"), "c")]
    rows = [{"label": "wet", "one": one, "two": two} for one, two in parts]
    assert len(table_of(rows, template="{one}: {two}", say=said.append)) == 4
    (told,) = said
    assert told.endswith(
        "rows.jsonl: 3 of 4 rows have no input, and nobody is asked for them: row 1 (column 'one'), row 2 (column 'two'), "
        "row 3 (column 'one')."
    )


def test_labels_are_called_as_the_map_says(table_of):
    table = table_of([{"label": it} for it in (1, 0, "odd")], label_map={"1": ["wet", "moist"], "0": "dry"})
    assert [it.label for it in table] == ["wet", "dry", "odd"] and table.labels == ["wet", "dry", "odd"]
    assert table.spellings == {"wet": ["moist"], "dry": []}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [{"label": "a", "rationale": "So."}, {"label": "b"}],
            {},
            "1 of 2 rows have a rationale in column 'rationale'",
        ),
        ([{"label": "a", "why": "So."}], {"rationale_column": "why"}, "--teacher column:why"),
        ([{"label": 1}, {"label": 0}, {"label": "b"}], {}, r"0, 1 are numbers.*--label-map '\{\"0\": \"...\", \"1\""),
        ([{"label": 0.5}, {"label": 1.5}], {}, "holds 0.5: name them by --label-map, or"),
        ([{"label": ["a", "b"]}], {}, "row 0: .* are several; a rationale explains one"),
        ([{"label": f"l{n}"} for n in range(1001)], {}, "more than 1000 labels"),
        ([{"label": "a"}], {"problem_type": "regression"}, "which problem_type: regression has not"),
        ([{"label": "a"}], {"template": "{claim}"}, "no column 'claim'"),
        ([{"label": "a"}, {"label": None}], {}, "1 of 2 rows have no label: 1"),
        ([{"label": "a"}, {"label": "b", "text": ["x"]}], {}, r"Row 1 of .*rows.jsonl: column 'text' holds a list"),
    ],
)
def test_what_a_teacher_can_not_be_told(rows, options, message, table_of):
    with pytest.raises(ValueError, match=message):
        table_of(rows, **options)


def test_a_thousand_labels_are_told(table_of):
    rows = [{"label": f"label {number}"} for number in range(1001)]
    assert len(table_of(rows[:1000]).labels) == 1000
    with pytest.raises(ValueError, match="more than 1000 labels: name the right one by --label-column"):
        table_of(rows)


def test_rationales_that_are_wanted_may_be_there(table_of):
    assert len(table_of([{"label": "a", "rationale": "So."}, {"label": "b"}], keeps_rationales=True)) == 2
    named = table_of(
        [{"label": 0.5}, {"label": 1.5}],
        problem_type="single_label_classification",
        label_map={"0.5": "x", "1.5": "y"},
    )
    assert named.labels == ["x", "y"]
