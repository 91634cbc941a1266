"""Rows held out where there are no others: of each label its share, nothing on both sides, and known to later commands."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from dhrd_hf.data.splits import held_out, write_split
from dhrd_hf.data.tables import TableError, load_table, peek_columns


def table(rows=200, duplicates=0, **columns):
    texts = [f"text {row if row >= duplicates else row % 3}" for row in range(rows)]
    labels = ["rare" if row % 10 == 0 else "often" for row in range(rows)]
    return Dataset.from_dict({"text": texts, "label": labels, **columns})


def sides(rows, chosen, column):
    values = np.asarray(rows[column][:])
    return set(values[chosen].tolist()), set(np.delete(values, chosen).tolist())


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_each_label_has_its_share_on_both_sides(share):
    rows = table()
    chosen = held_out(rows, share, "{text}", "label")
    assert len(chosen) == 200 * share and len(set(chosen.tolist())) == len(chosen)
    counted = Counter(rows[int(row)]["label"] for row in chosen)
    assert counted == {"rare": 20 * share, "often": 180 * share}
    assert (chosen == held_out(rows, share, "{text}", "label")).all()  # and again the same


def test_no_text_is_on_both_sides():
    rows = table(duplicates=90)
    chosen = held_out(rows, 0.2, "{text}", "label")
    held, trained = sides(rows, chosen, "text")
    assert not held & trained and held and trained


def test_no_group_and_no_text_is_on_both_sides():
    groups = [f"author {row % 23}" for row in range(200)]
    rows = table(author=groups, duplicates=6)  # the texts of six rows are of three, which join their authors
    chosen = held_out(rows, 0.2, "{text}", "label", "author")
    for column in ("author", "text"):
        held, trained = sides(rows, chosen, column)
        assert not held & trained and held and trained
    with pytest.raises(ValueError, match="--group-column author: the rows are 2 groups, too few"):
        held_out(table(author=["a", "b"] * 100), 0.2, "{text}", "label", "author")


def test_the_input_is_what_a_prompt_makes_of_a_row():
    rows = table(premise=[f"p{row % 40}" for row in range(200)])
    held, trained = sides(rows, held_out(rows, 0.2, "{premise}", "label"), "premise")
    assert not held & trained


def test_a_label_of_one_row_is_trained_on_and_numbers_have_their_quantiles():
    rows = Dataset.from_dict({"text": [f"t{n}" for n in range(101)], "label": ["a", "b"] * 50 + ["once"]})
    assert 100 not in held_out(rows, 0.2, "{text}", "label")
    numbers = Dataset.from_dict({"text": [f"t{n}" for n in range(100)], "label": [float(n) for n in range(100)]})
    chosen = held_out(numbers, 0.2, "{text}", "label", regression=True)
    assert Counter((chosen // 20).tolist()) == dict.fromkeys(range(5), 4)


def test_a_label_of_two_rows_is_on_both_sides():
    rows = Dataset.from_dict({"text": [f"t{n}" for n in range(22)], "label": ["a"] * 20 + ["two"] * 2})
    assert len({20, 21} & set(held_out(rows, 0.5, "{text}", "label").tolist())) == 1


def test_most_rows_of_many_labels_may_be_held_out():
    rows = Dataset.from_dict({"text": [f"t{n}" for n in range(60)], "label": [f"l{n // 2}" for n in range(60)]})
    assert len(held_out(rows, 0.8, "{text}", "label")) == 48


def test_many_labels_of_few_rows_and_lists_are_split_too():
    rows = Dataset.from_dict({"text": [f"t{n}" for n in range(60)], "label": [f"l{n // 2}" for n in range(60)]})
    assert len(held_out(rows, 0.2, "{text}", "label")) == 12
    lists = Dataset.from_dict(
        {"text": [f"t{n}" for n in range(60)], "label": [["a", "b"][: n % 3] for n in range(60)]}
    )
    chosen = held_out(lists, 0.2, "{text}", "label")
    assert Counter(len(lists[int(row)]["label"]) for row in chosen) == {0: 4, 1: 4, 2: 4}


def test_a_runs_rows_are_tables_as_long_as_its_table_is_the_same(tmp_path):
    file, run = tmp_path / "rows.csv", tmp_path / "run"
    file.write_text("text,label\n" + "".join(f"t{n},{n % 2}\n" for n in range(10)))
    write_split(run, str(file), None, load_table(file), "{text}", [7, 2])
    assert load_table(f"{run}@eval")["text"][:] == ["t7", "t2"]
    assert load_table(f"{run}@train")["text"][:] == [f"t{n}" for n in range(10) if n not in (2, 7)]
    assert peek_columns(f"{run}@eval") == (["text", "label"], True)
    with pytest.raises(TableError, match="is a run, whose rows are .*@train, trained on, and .*@eval, held out"):
        load_table(run)
    file.write_text(file.read_text().replace("t3", "other"))
    with pytest.raises(TableError, match="has changed since .* was trained: its eval rows are not known any more"):
        load_table(f"{run}@eval")
