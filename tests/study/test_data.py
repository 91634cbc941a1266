"""The rows of a study's cells."""

import json

import pytest

from dhrd_hf.data.superglue import superglue_rows
from dhrd_hf.data.tables import load_table
from dhrd_hf.study import read_study
from dhrd_hf.study.data import StudyData, eval_rows

ROWS = [
    {"id": f"r{i}", "text": f"Is {i} odd?", "label": "yes" if i % 2 else "no", "rationale": f"Half of {i} is {i / 2}."}
    for i in range(40)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def study(tmp_path, grid, data="{train: train.jsonl, eval: dev.jsonl}", more=""):
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "dev.jsonl", [{**row, "id": f"d{row['id']}"} for row in ROWS[:20]])
    path = tmp_path / "study.yaml"
    path.write_text(f"name: first\nmodel: tiny\ndata:\n  odd: {data}\n{more}\ngrid:\n  - {grid}\n")
    found = read_study(path)
    told = []
    return found, StudyData(found, tmp_path / "out", told.append), told


def ids(path):
    return load_table(path)["id"][:]


def test_smaller_train_sizes_are_inside_larger_ones_and_seeds_draw_others(tmp_path):
    found, data, _ = study(tmp_path, "{setting: pooled, seed: [0, 1], train_size: [5, 10, 20]}")
    drawn = {(cell.seed, cell.train_size): ids(data.of(cell).train) for cell in found.runs}
    for seed in (0, 1):
        assert drawn[seed, 20][:10] == drawn[seed, 10] and drawn[seed, 10][:5] == drawn[seed, 5]
        assert len(set(drawn[seed, 20])) == 20
    assert drawn[0, 20] != drawn[1, 20]


def test_settings_share_the_rows_of_a_seed_in_one_order(tmp_path):
    settings = (
        "[pooled, dual_head, cot_decoding, rationale_after_label, label_only, permuted_tokens, shuffled_rationale]"
    )
    found, data, _ = study(tmp_path, f"{{setting: {settings}, seed: 3, train_size: 12}}", more="eval_size: 8")
    rows = {cell.setting: data.of(cell) for cell in found.runs}
    assert len({tuple(ids(it.train)) for it in rows.values()}) == 1
    assert len({it.eval["eval"] for it in rows.values()}) == 1
    assert rows["pooled"].train == rows["dual_head"].train == rows["rationale_after_label"].train
    bare = load_table(rows["label_only"].train)
    assert set(bare["rationale"]) == {None}
    shuffled, own = (load_table(rows[name].train).to_list() for name in ("shuffled_rationale", "pooled"))
    assert all(row["rationale"] != other["rationale"] for row, other in zip(shuffled, own, strict=True))
    assert [row["label"] for row in shuffled] == [row["label"] for row in own]


def test_labels_of_two_kinds_are_refused(tmp_path):
    found, data, _ = study(tmp_path, "{setting: pooled}")
    write(tmp_path / "dev.jsonl", [{**row, "label": 1} for row in ROWS])
    with pytest.raises(ValueError, match="odd, eval, has labels that train lacks: .1"):
        data.of(found.runs[0])


@pytest.mark.parametrize("then", [0, 1, 2], ids=["the same cell", "another setting", "another seed"])
@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_table_that_changed_under_its_name_is_refused(tmp_path, part, then):
    found, data, told = study(tmp_path, "{setting: [pooled, shuffled_rationale], seed: [0, 1], train_size: 30}")
    cells = sorted(found.runs, key=lambda it: (it.seed, it.setting))
    before = data.of(cells[0])
    assert StudyData(found, tmp_path / "out", told.append).of(cells[0]) == before
    rows = [json.loads(line) for line in (tmp_path / f"{part}.jsonl").read_text().splitlines()]
    write(tmp_path / f"{part}.jsonl", [{**row, "text": row["text"] + "!"} for row in rows])
    with pytest.raises(ValueError, match="has changed since .* another --output-dir"):
        StudyData(found, tmp_path / "out", told.append).of(cells[then])


def test_a_written_file_that_was_changed_is_refused(tmp_path):
    found, data, told = study(tmp_path, "{setting: pooled, train_size: 5}")
    path = data.of(found.runs[0]).train
    path.write_text(path.read_text().replace("odd?", "even?"))
    with pytest.raises(ValueError, match="train-5-seed0.jsonl has other rows than its data gives now"):
        StudyData(found, tmp_path / "out", told.append).of(found.runs[0])


def test_the_evaluation_rows_are_one_draw_and_decoding_takes_the_first_of_them(tmp_path):
    found, data, _ = study(
        tmp_path, "{setting: [pooled, cot_decoding], seed: [0, 1]}", more="eval_size: 9\ncot_eval_size: 4"
    )
    chosen = {(cell.setting, cell.seed): ids(data.of(cell).eval["eval"]) for cell in found.runs}
    assert chosen["pooled", 0] == chosen["pooled", 1] and len(chosen["pooled", 0]) == 9
    assert chosen["cot_decoding", 1] == chosen["pooled", 0][:4]


def test_evaluation_rows_are_whole_groups():
    groups = [place // 3 for place in range(30)]
    chosen = eval_rows(30, groups, 10)
    assert len(chosen) == 9 and {groups.count(groups[row]) for row in chosen} == {3}
    assert all(sum(groups[row] == group for row in chosen) in (0, 3) for group in set(groups))
    assert eval_rows(30, groups, 16)[:9] == chosen
    assert len(eval_rows(30, groups, 2)) == 3 and sorted(eval_rows(30, groups, None)) == list(range(30))


def test_rows_without_a_joined_rationale_are_left_out_and_told(tmp_path):
    write(tmp_path / "r.jsonl", [{"key": row["id"], "rationale": "So it is."} for row in ROWS[:30]])
    found, data, told = study(
        tmp_path,
        "{setting: [pooled, dual_head], train_size: 35}",
        "{train: train.jsonl, eval: dev.jsonl, rationales: r.jsonl}",
    )
    rows = [data.of(cell) for cell in found.runs]
    assert rows[0] == rows[1] and rows[0].train_rows == 30
    assert set(ids(rows[0].train)) == {row["id"] for row in ROWS[:30]}
    assert "odd: 10 of 40 training rows have no rationale: left out" in told
    assert sum("has 30 training rows, not the 35" in line for line in told) == 1


def test_labels_are_numbered_as_dhrd_train_numbers_them(tmp_path):
    found, data, _ = study(tmp_path, "{setting: pooled}")
    rows = data.of(found.runs[0])
    assert rows.names == ["no", "yes"]
    assert rows.labels["eval"] == load_table(rows.eval["eval"])["label"][:]


def test_a_table_that_is_not_there_is_told_before_a_cell_runs(tmp_path):
    _, data, _ = study(tmp_path, "{setting: pooled}", "{train: tarin.jsonl, eval: dev.jsonl}")
    with pytest.raises(ValueError, match="data 'odd': no such file or folder: .*tarin.jsonl: did you mean"):
        data.check()


@pytest.mark.parametrize("label", [["a", "b"], {"a": 1}, 0.5])
def test_several_labels_a_row_objects_and_numbers_are_refused(tmp_path, label):
    found, data, _ = study(tmp_path, "{setting: pooled}")
    for name in ("train", "dev"):
        write(tmp_path / f"{name}.jsonl", [{**row, "label": label} for row in ROWS])
    with pytest.raises(ValueError, match="one label a row"):
        data.of(found.runs[0])


@pytest.mark.parametrize(
    ("labels", "names"), [([True, False], ["false", "true"]), (["a ", "b"], ["a", "b"]), ([2.0, 10.0], ["2", "10"])]
)
def test_labels_have_the_names_of_training(tmp_path, labels, names):
    found, data, told = study(tmp_path, "{setting: pooled}")
    for name in ("train", "dev"):
        write(tmp_path / f"{name}.jsonl", [{**row, "label": labels[n % 2]} for n, row in enumerate(ROWS)])
    rows = data.of(found.runs[0])
    assert rows.names == names and set(rows.labels["eval"]) == set(names)
    assert rows.labels["eval"] == load_table(rows.eval["eval"])["label"][:]
    assert sum("blanks around them" in line for line in told) == (2 if labels[0] == "a " else 0)


def test_fractions_and_rows_without_a_label_are_refused_or_said(tmp_path):
    files = "train: train.jsonl, eval: dev.jsonl"
    labels = [3.5, 4.5, None]

    def read(more):
        found, data, told = study(tmp_path, "{setting: pooled}", f"{{{files}{more}}}")
        for name in ("train", "dev"):
            write(tmp_path / f"{name}.jsonl", [{**row, "label": labels[n % 3]} for n, row in enumerate(ROWS)])
        return data.of(found.runs[0]), told

    with pytest.raises(ValueError, match="Row 2: it has no label, in odd, train, column 'label'. 13 of 40 rows"):
        read("")
    with pytest.raises(ValueError, match="holds 3.5: add --problem-type regression .*one label a row"):
        read(", drop_unlabelled: true")
    with pytest.raises(ValueError, match="is regression: a study is of one label a row"):
        read(", drop_unlabelled: true, problem_type: regression")
    rows, told = read(", drop_unlabelled: true, problem_type: single_label_classification")
    assert rows.names == ["3.5", "4.5"] and (rows.train_rows, len(rows.labels["eval"])) == (27, 27)
    assert sum("13 of 40 rows have no label" in line for line in told) == 2


def grouped_study(tmp_path, groups, spec="", more="", column="group"):
    """A study whose evaluation rows have groups."""
    found, data, told = study(
        tmp_path, "{setting: [pooled, dual_head]}", f"{{train: train.jsonl, eval: dev.jsonl{spec}}}", more
    )
    write(tmp_path / "dev.jsonl", [{**ROWS[place % 40], column: group} for place, group in enumerate(groups)])
    return found, data, told


def test_groups_of_rows_are_told_once_a_data_set(tmp_path):
    found, data, told = grouped_study(tmp_path, [place // 2 for place in range(60)], more="eval_size: 50")
    groups = [data.of(cell).groups for cell in found.runs]
    assert groups[0] == groups[1] and len(groups[0]) == 50
    assert told == [f"odd: intervals will draw its {len(set(groups[0]))} groups of rows ('group'), not its 50 rows"]


def test_few_groups_are_warned_of_in_that_line(tmp_path):
    found, data, told = grouped_study(tmp_path, [place % 2 for place in range(30)])
    assert set(data.of(found.runs[0]).groups) == {0, 1}
    (line,) = told
    assert line.startswith(
        "odd: intervals will draw its 2 groups of rows ('group'), not its 30 rows. Of fewer than 20 "
    )
    assert (
        "intervals are too narrow; if rows of a group are no more alike than others, write group_column: null" in line
    )


def test_a_group_column_can_be_named_and_switched_off(tmp_path):
    groups = [f"topic {place // 2}" for place in range(60)]
    found, data, told = grouped_study(tmp_path, groups, ", group_column: topic", column="topic")
    assert len(set(data.of(found.runs[0]).groups)) == 30 and "its 30 groups of rows ('topic')" in told[0]
    found, data, told = grouped_study(tmp_path, groups, column="topic")  # by default a column named group
    assert data.of(found.runs[0]).groups is None and told == []
    found, data, told = grouped_study(tmp_path, groups, ", group_column: null")
    assert data.of(found.runs[0]).groups is None and told == []


def test_a_row_without_a_group_is_one(tmp_path):
    found, data, _ = grouped_study(tmp_path, [None, "a", None, "a", None, "b"] * 5)
    groups = data.of(found.runs[0]).groups
    assert sorted(map(groups.count, set(groups))) == [1] * 15 + [5, 10] and groups[0] == 0


def test_groups_of_one_row_and_one_group_of_all_are_no_groups(tmp_path):
    found, data, told = grouped_study(tmp_path, range(30))
    assert len(set(data.of(found.runs[0]).groups)) == 30 and told == []
    (tmp_path / "other").mkdir()
    found, data, told = grouped_study(tmp_path / "other", ["all"] * 30)
    assert data.of(found.runs[0]).groups is None
    assert told == ["odd: all of its evaluation rows are of one group ('group'): intervals will draw rows"]


def test_a_group_column_that_is_not_there_is_told(tmp_path):
    found, data, _ = grouped_study(tmp_path, range(30), ", group_column: topik", column="topic")
    with pytest.raises(ValueError, match="dev.jsonl: no column 'topik': did you mean 'topic'"):
        data.of(found.runs[0])


def test_a_superglue_task_is_read_with_its_questions(tmp_path):
    folder = tmp_path / "glue" / "copa"
    folder.mkdir(parents=True)
    rows = [
        {"premise": f"Cup {i} fell.", "choice1": "It broke.", "choice2": "It sang.", "question": "effect"}
        | {"label": i % 2, "idx": i}
        for i in range(10)
    ]
    for split in ("train", "validation"):
        write(folder / f"{split}.jsonl", rows)
    found, data, told = study(tmp_path, "{setting: pooled}", "{superglue: copa, source: glue}", "eval_size: 7")
    it = data.of(found.runs[0])
    assert told == [
        "odd: intervals will draw its 3 groups of rows ('group'), not its 6 rows. Of fewer than 20 groups intervals are "
        "too narrow"
    ]
    assert found.data["odd"].metric == "question_accuracy"
    assert it.groups == [0, 0, 1, 1, 2, 2] and it.train_rows == 20


def test_rationales_beside_the_superglue_tables_are_theirs(tmp_path):
    rows = [
        {"premise": f"Cup {n} fell.", "hypothesis": "It broke.", "label": "entailment", "idx": n} for n in range(6)
    ]
    for part in ("superglue/cb", "superglue_rationales", "others"):
        (tmp_path / "glue" / part).mkdir(parents=True)
    for split in ("train", "validation"):
        write(tmp_path / "glue" / "superglue" / "cb" / f"{split}.jsonl", rows)
    keys = [row["id"] for row in superglue_rows("cb", rows)]
    for folder, said in ("superglue_rationales", "It is beside."), ("others", "It is named."):
        write(tmp_path / "glue" / folder / "cb.jsonl", [{"key": key, "rationale": said} for key in keys[:4]])
    for more, said in ("", "It is beside."), (", rationales: glue/others", "It is named."):
        (tmp_path / said).mkdir()
        (tmp_path / said / "glue").symlink_to(tmp_path / "glue")
        found, data, told = study(tmp_path / said, "{setting: pooled}", f"{{superglue: cb, source: glue{more}}}")
        it = data.of(found.runs[0])
        assert set(load_table(it.train)["rationale"]) == {said} and (it.train_rows, len(it.labels["eval"])) == (4, 6)
        assert "odd: 2 of 6 training rows have no rationale: left out" in told


def several_sets(tmp_path, label_map, labels=("Y", "N")):
    write(tmp_path / "far.jsonl", [{**row, "label": labels[place % 2]} for place, row in enumerate(ROWS[:12])])
    data = f"{{train: train.jsonl, eval: {{validation: dev.jsonl, far: far.jsonl}}{label_map}}}"
    return study(tmp_path, "{setting: [pooled, cot_decoding]}", data, "eval_size: 5")


def test_a_further_set_has_labels_by_our_names(tmp_path):
    found, data, _ = several_sets(tmp_path, ", label_map: {far: {Y: 'yes', N: 'no'}}")
    pooled, decoded = (data.of(cell) for cell in found.runs)
    assert pooled.labels["eval"] == load_table(pooled.eval["eval"])["label"][:] and len(pooled.labels["eval"]) == 5
    assert pooled.labels["far"] == load_table(pooled.eval["far"])["label"][:]
    original = {row["id"]: "yes" if place % 2 == 0 else "no" for place, row in enumerate(ROWS[:12])}
    table = load_table(pooled.eval["far"])
    assert [original[it] for it in table["id"]] == table["label"][:] and len(table) == 5
    assert table.column_names == ["id", "text", "label", "rationale"]
    assert [*decoded.eval] == ["eval"] == [*decoded.labels]
    assert data.files(found.runs[0]).eval == pooled.eval


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ("", "evaluation set 'far' has a label 'N', which is not theirs: .* (N, Y) .* (no, yes)"),
        (", label_map: {Y: 'yes'}", "a label 'N', which is not theirs"),
        (", label_map: {Y: 'yes', N: 'no', M: 'no'}", "no label 'M', which label_map has"),
        (", label_map: {Y: 'yes', N: 'maybe'}", "a label 'maybe', which is not theirs"),
    ],
)
def test_labels_of_a_further_set_that_are_not_ours_are_told(tmp_path, label_map, message):
    found, data, _ = several_sets(tmp_path, label_map)
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        data.of(found.runs[0])


def test_a_further_set_that_is_not_there_is_told_before_anything_runs(tmp_path):
    found, data, _ = several_sets(tmp_path, "")
    (tmp_path / "far.jsonl").unlink()
    with pytest.raises(ValueError, match="data 'odd': .*far.jsonl"):
        data.check()


def test_files_are_named_without_reading_or_writing(tmp_path):
    found, data, _ = several_sets(tmp_path, "")
    (tmp_path / "train.jsonl").unlink()
    named = data.files(found.runs[0])
    assert named.train.name == "train-all-seed0.jsonl" and named.eval["eval"].name == "eval-5.jsonl"
    assert named.eval["far"].name == "eval-far-5.jsonl" and not (tmp_path / "out").exists()
    found, data, _ = study(tmp_path, "{setting: [pooled, label_only], train_size: 8, seed: 3}")
    names = [(named.train.name, named.eval["eval"].name) for named in map(data.files, found.runs)]
    assert names == [("train-8-seed3.jsonl", "eval-all.jsonl"), ("train-8-seed3-label_only.jsonl", "eval-all.jsonl")]
    tables = "{train: train.jsonl, eval: dev.jsonl, validation: dev.jsonl}"
    found, data, _ = study(tmp_path, "{setting: [pooled, cot_decoding]}", tables)
    assert [it and it.name for it in (data.files(run).validation for run in found.runs)] == ["validation.jsonl", None]
