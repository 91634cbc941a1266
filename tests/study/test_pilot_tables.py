"""The tables that a pilot makes of one's own, and the price of its rationales."""

import json

import pytest

from dhrd_hf.study.pilot import price_of, write_tables


def split(tmp_path, rows, **options):
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"label_column": "label", "rationale_column": "rationale"}
    given = {"rationales": None, "eval_source": None, "columns": columns, "drop_unlabelled": False, **options}
    sizes = write_tables(tmp_path / "out", str(table), **given, say=lambda line: None)
    parts = {it.stem: it.read_text().splitlines() for it in (tmp_path / "out" / "tables").glob("*.jsonl")}
    return sizes, {name: [json.loads(line) for line in lines] for name, lines in parts.items()}


def some(number, with_rationale, **columns):
    rows = [{"id": i, "text": f"Row {i}.", "label": "yes" if i % 2 else "no"} for i in range(number)]
    return [row | columns | ({"rationale": f"Why {row['id']}."} if row["id"] < with_rationale else {}) for row in rows]


def ids(rows):
    return [row["id"] for row in rows]


def test_rows_without_a_rationale_are_set_aside_first(tmp_path):
    (number, more), parts = split(tmp_path, some(400, 100))
    assert (number, more) == (100, 200) and sorted(ids(parts["train"])) == list(range(100))
    assert len(parts["test"]) == 120 and len(parts["validation"]) == 20
    apart = [set(ids(parts[name])) for name in ("more", "test", "validation")]
    assert sum(map(len, apart)) == len(set.union(*apart)) == 200 + 120 + 20
    assert ids(parts["more"])[:100] == ids(parts["train"])
    assert not any("rationale" in row for name in ("test", "validation") for row in parts[name])


def test_of_rows_that_all_have_one_some_are_set_aside_and_the_curve_is_of_half(tmp_path):
    (number, more), parts = split(tmp_path, some(200, 200))
    assert more is None and number == 200 - len(parts["test"]) - len(parts["validation"]) == 110


def test_a_handful_of_other_labelled_rows_is_no_curve(tmp_path):
    (number, more), _ = split(tmp_path, some(330, 200))
    assert more is None and number == 200


def test_rows_of_a_group_and_rows_alike_are_on_one_side(tmp_path):
    rows = some(400, 100)
    grouped = [row | {"group": f"g{row['id'] % 80}"} for row in rows]
    twice = [row | {"text": f"Row {row['id'] % 80}."} for row in rows]
    for name, its in (("grouped", grouped), ("twice", twice)):
        (tmp_path / name).mkdir()
        _, parts = split(tmp_path / name, its)
        sides = [{number % 80 for number in ids(parts[name])} for name in ("more", "test", "validation")]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_rows_to_test_on_and_rationales_may_be_tables_of_their_own(tmp_path):
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(json.dumps(row) + "\n" for row in some(30, 30)))
    why = tmp_path / "why.jsonl"
    why.write_text("".join(json.dumps({"id": i, "rationale": "It is so."}) + "\n" for i in range(60)))
    (number, more), parts = split(tmp_path, some(100, 0), rationales=str(why), eval_source=str(dev))
    assert number == 60 and parts["test"] == [
        {k: it for k, it in row.items() if k != "rationale"} for row in some(30, 30)
    ]
    assert more == 80 and {row["rationale"] for row in parts["train"]} == {"It is so."}


def test_rows_to_choose_the_best_epoch_by_have_labels_that_are_trained_on(tmp_path):
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(json.dumps(row) + "\n" for row in some(30, 0)))
    rows = [*some(100, 100), *({"id": i, "text": str(i), "label": "maybe"} for i in range(100, 130))]
    with pytest.raises(ValueError, match="the label 'maybe', which validation rows have"):
        split(tmp_path, rows, eval_source=str(dev))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (some(100, 10), "10 of them with a rationale"),
        (some(100, 0), "0 of them with a rationale"),
        (some(40, 40), "are the least"),
        ([*some(100, 60), *({"id": i, "text": str(i), "label": "maybe"} for i in range(100, 200))], "'maybe'"),
        ([row | {"label": ["a", "b"]} for row in some(100, 60)], "one label a row"),
    ],
)
def test_too_few_or_other_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        split(tmp_path, rows)


def test_the_price_is_that_of_the_manifest_beside_the_rationales(tmp_path):
    manifest = {"usage": {"cost": 3.0}, "counts": {"accepted": 150}}
    (tmp_path / "why.manifest.json").write_text(json.dumps(manifest))
    assert price_of(None, str(tmp_path / "why.jsonl")) == pytest.approx(0.02)
    (tmp_path / "free.manifest.json").write_text(json.dumps({"usage": {"cost": 0.0}, "counts": {"accepted": 150}}))
    (tmp_path / "odd.manifest.json").write_text("[]")
    assert [price_of(str(tmp_path / f"{name}.jsonl")) for name in ("free", "odd", "none")] == [None] * 3


def test_runs_of_other_rows_are_not_gone_on_with(tmp_path):
    first = split(tmp_path, some(400, 100))
    assert split(tmp_path, some(400, 100)) == first
    with pytest.raises(ValueError, match="name another --output-dir"):
        split(tmp_path, some(399, 100))
    assert (tmp_path / "out" / "tables" / "test.jsonl").read_text().count("\n") == len(first[1]["test"])
