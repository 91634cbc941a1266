"""Rationales joined to rows by key: nothing is guessed, nothing lost without a word."""

import json

import pytest
from datasets import ClassLabel, Dataset

from dhrd_hf.data.joining import JoinCounts, join_rationales, key_column
from dhrd_hf.data.tables import TableError

TABLE = [
    {"id": "a", "text": "The kiln is cold.", "label": "no"},
    {"id": "b", "text": "The lamp hums.", "label": "yes"},
    {"id": "c", "text": "Oto rows.", "label": "yes"},
]


def test_each_row_gets_its_own_and_all_is_counted():
    rationales = [
        {"key": "c", "label": "yes", "rationale": "He is in a boat."},
        {"key": "x", "rationale": "Of no row."},
        {"key": "a", "label": "no", "rationale": "  "},
    ]
    rows, counts = join_rationales(TABLE, rationales)
    assert [row["rationale"] for row in rows] == [None, None, "He is in a boat."]
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert counts == JoinCounts(rows=3, rationales=3, joined=1, unused=1, empty=1)
    assert str(counts) == (
        "1 of 3 rows have a rationale, 2 have none; 1 of 3 rationales belong to no row, 1 are empty"
    )
    assert str(JoinCounts()) == "0 of 0 rows have a rationale, 0 have none; 0 of 0 rationales belong to no row"
    _, counts = join_rationales(TABLE, [rationales[0], {"key": "x", "rationale": ""}])
    assert (counts.unused, counts.empty) == (1, 1)  # one that belongs to no row is empty all the same
    assert "rationale" not in TABLE[0]  # the caller's rows are left as they are


def test_a_file_and_numbers_as_text(tmp_path):
    path = tmp_path / "rationales.jsonl"
    path.write_text("".join(json.dumps({"row": str(n), "why": f"Because {n}."}) + "\n" for n in (2, 1)))
    table = [{"n": 1, "why": "An old one."}, {"n": 2}, {"n": 3, "why": "Another."}]
    rows, counts = join_rationales(table, path, key="n", rationale_key="row", rationale_column="why")
    assert [row["why"] for row in rows] == ["Because 1.", "Because 2.", None]
    assert (counts.joined, counts.replaced) == (2, 2)
    assert "2 rows lost a rationale that they had" in str(counts)


@pytest.mark.parametrize("form", ["folder", "rows.parquet"])
def test_labels_that_are_ids_are_compared_by_their_names(form, tmp_path):
    # "yes" is 0 on one side and 1 on the other.
    said = [{"id": row["id"], "label": row["label"], "rationale": f"So is {row['id']}."} for row in TABLE]
    file = Dataset.from_list(said).cast_column("label", ClassLabel(names=["yes", "no"]))
    where = tmp_path / form
    file.save_to_disk(where) if form == "folder" else file.to_parquet(where)
    table = Dataset.from_list(TABLE).cast_column("label", ClassLabel(names=["no", "yes"]))
    for rows in (TABLE, table):
        for rationales in (where, file, said):
            joined, counts = join_rationales(rows, rationales)
            assert [(row["label"], row["rationale"]) for row in joined] == [
                (row["label"], row["rationale"]) for row in said
            ]
            assert counts.joined == 3
    other = file.map(lambda row: {"label": 1 - row["label"]})
    with pytest.raises(ValueError, match=r"3 of 3 labels differ .*'a' \('no' and 'yes'\)"):
        join_rationales(table, other)


@pytest.mark.parametrize(("ours", "theirs"), [(None, "yes"), ("no", None), ("no", " ")])
def test_a_label_that_one_side_lacks_is_no_difference(ours, theirs):
    rows, _ = join_rationales([{"id": 1, "label": ours}], [{"id": 1, "label": theirs, "rationale": "So."}])
    assert rows == [{"id": 1, "label": ours, "rationale": "So."}]


def test_the_order_of_several_labels_is_no_difference():
    rationales = [{"id": 1, "label": ["wet", "cold"], "rationale": "So."}]
    assert join_rationales([{"id": 1, "label": ["cold", "wet"]}], rationales)[1].joined == 1
    with pytest.raises(ValueError, match="1 of 1 labels differ"):
        join_rationales([{"id": 1, "label": ["cold"]}], rationales)


def test_without_a_key_column_a_row_is_its_number():
    rows, _ = join_rationales([{"text": "p"}, {"text": "q"}], [{"id": 1, "rationale": "Of q."}])
    assert [row["rationale"] for row in rows] == [None, "Of q."]
    assert key_column(["text", "idx", "key"]) == "key"
    assert key_column(["text"]) is None


@pytest.mark.parametrize(
    ("rationales", "message"),
    [
        ([{"key": f"q{n}", "rationale": "So."} for n in range(7)], r"0 of its 7 keys \(such as 'q0'\).*the 3 keys"),
        ([{"key": "a", "label": "yes", "rationale": "So."}], r"1 of 1 labels differ .*'a' \('no' and 'yes'\)"),
        ([{"key": "b", "rationale": "So."}] * 2, "'key' of the rationale file: 1 keys .* such as 'b'.*select"),
        ([{"key": None, "rationale": "So."}], "row 0 of the rationale file has no 'key'"),
        ([{"name": "a", "rationale": "So."}], "no column of keys to join by"),
        ([{"key": "a", "rationales": "So."}], "did you mean 'rationales'"),
    ],
)
def test_what_does_not_fit_is_one_line(rationales, message):
    with pytest.raises(ValueError, match=message) as error:
        join_rationales(TABLE, rationales)
    assert "\n" not in str(error.value)


def test_whole_numbers_are_one_key_however_they_are_written():
    ways = [[0, 1, 2], ["0", "1", "2"], [0.0, 1.0, 2.0], ["0.0", "1.0", "2.0"]]
    for ours in ways:
        for theirs in ways:
            rationales = [{"id": it, "label": it, "rationale": f"Of {n}."} for n, it in enumerate(theirs)]
            rows, _ = join_rationales([{"id": it, "label": it} for it in ours], rationales)
            assert [row["rationale"] for row in rows] == ["Of 0.", "Of 1.", "Of 2."]
            assert [row["id"] for row in rows] == ours
    for nothing in (None, "", float("nan")):
        with pytest.raises(ValueError, match="row 0 of the table has no 'id' to join by"):
            join_rationales([{"id": nothing}], [{"id": 0, "rationale": "So."}])


@pytest.mark.parametrize(("count", "said"), [(3, "'a', 'b', 'c'"), (4, "'a', 'b', 'c', ...")])
def test_three_keys_or_labels_at_fault_are_named(count, said):
    rows = [{"id": key, "label": "no", "rationale": "So."} for key in "abcd"]
    with pytest.raises(ValueError, match=f"{count} keys stand more than once, such as {said}$"):
        join_rationales([*rows, *rows[:count]], rows)
    other = [row | {"label": "yes"} for row in rows[:count]]
    with pytest.raises(
        ValueError, match=rf"{count} of {count} labels differ .*'c' \('no' and 'yes'\){', ...' if count > 3 else ''}$"
    ):
        join_rationales(rows, other)


def test_a_table_with_one_key_twice_or_none():
    with pytest.raises(ValueError, match="'id' of the table: 2 keys stand more than once, such as 'a', 'b'"):
        join_rationales([TABLE[0], TABLE[1], TABLE[0], TABLE[1]], [{"key": "a", "rationale": "So."}])
    with pytest.raises(TableError, match="no column 'ident'"):
        join_rationales(TABLE, [{"key": "a", "rationale": "So."}], key="ident")
