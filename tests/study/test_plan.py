"""A study's YAML file, and the cells that its grid makes."""

from textwrap import dedent

import pytest

from dhrd_hf.study import read_study

STUDY = """
    name: first
    model: tiny
    data:
      birds: {train: train.jsonl, eval: dev.jsonl}
      cb: {superglue: cb, source: data}
    train: {lora: true, learning_rate: 2e-4}
    grid:
"""


def study(tmp_path, grid, head=STUDY):
    path = tmp_path / "study.yaml"
    path.write_text(dedent(head) + "".join(f"  - {block}\n" for block in grid))
    return read_study(path)


def test_a_block_is_the_product_of_its_lists_in_the_order_of_its_keys(tmp_path):
    cells = study(tmp_path, ["{data: [birds, cb], setting: [pooled, dual_head], seed: [0, 1], train_size: 40}"]).cells
    assert [(cell.data, cell.setting, cell.seed) for cell in cells] == [
        (data, setting, seed) for data in ("birds", "cb") for setting in ("pooled", "dual_head") for seed in (0, 1)
    ]
    assert {cell.train_size for cell in cells} == {40}
    # 2e-4 is text in YAML 1.1.
    fixed = {"classifier_head": "linear", "lora": True, "learning_rate": 2e-4}
    assert cells[0].options == {"alpha": 0.0, "beta": 1.0, **fixed}
    assert cells[2].options == {"alpha": 1.0, "beta": 1.0, **fixed}


def test_what_a_pooled_cell_ignores_makes_no_second_one(tmp_path):
    blocks = [
        "{data: birds, setting: [pooled, dual_head], alpha: [0.5, 1, auto], alpha_schedule: [constant, linear]}",
        "{data: birds, setting: [dual_head, pooled], alpha: 0.5, reasoning_span: rationale, teacher: large}",
        "{data: birds, setting: pooled, learning_rate: 1.0e-3}",
    ]
    cells = study(tmp_path, blocks).cells
    assert [cell.setting for cell in cells] == ["pooled"] + 7 * ["dual_head"] + ["pooled"]
    assert len({cell.id for cell in cells}) == len(cells)
    assert {cell.options["alpha"] for cell in cells[1:7]} == {0.5, 1.0, "auto"}


def test_a_decoding_cell_trains_on_the_rationales_alone(tmp_path):
    (cell,) = study(tmp_path, ["{data: birds, setting: cot_decoding, alpha: 0.5}"]).cells
    assert (cell.options["alpha"], cell.options["beta"]) == (1.0, 0.0)


def test_the_id_is_of_all_that_decides_the_result_and_of_nothing_else(tmp_path):
    block = "{data: birds, setting: dual_head, seed: 1, train_size: 4}"
    (cell,) = study(tmp_path, [block]).cells

    def other(block=block, **changes):
        head = STUDY
        for old, new in changes.values():
            assert old in head
            head = head.replace(old, new)
        return study(tmp_path, [block], head).cells[0].id

    assert other() == other("{seed: 1, train_size: 4, alpha: 1, setting: dual_head, data: birds}") == cell.id
    assert other(name=("name: first", "name: second"), rate=("2e-4", "0.0002")) == cell.id
    assert other(cb=("superglue: cb", "superglue: rte")) == cell.id  # of another data set
    changed = {
        other(block.replace("seed: 1", "seed: 2")),
        other(block.replace("train_size: 4", "train_size: 5")),
        other(block.replace("dual_head", "label_only")),
        other(block.replace("dual_head", "dual_head, beta: 2")),
        other(rate=("2e-4", "3e-4")),
        other(model=("tiny", "large")),
        other(rows=("train.jsonl", "more.jsonl")),
        other(size=("    model:", "    eval_size: 10\n    model:")),
    }
    assert len(changed) == 8 and cell.id not in changed
    # A table's cells keep theirs: one that changed would run again.
    assert cell.id == "9ea6eed5d4"


def test_a_group_column_is_part_of_the_id_where_it_is_set(tmp_path):
    heads = [
        STUDY,
        *(STUDY.replace("eval: dev.jsonl", f"eval: dev.jsonl, group_column: {it}") for it in ("null", "a")),
    ]
    studies = [study(tmp_path, ["{data: birds}"], head) for head in heads]
    assert [it.data["birds"].spec.get("group_column", "default") for it in studies] == ["default", None, "a"]
    assert len({it.cells[0].id for it in studies}) == len({it.data["birds"].rows_digest for it in studies}) == 3


def test_models_are_an_axis_of_the_grid(tmp_path):
    cells = study(tmp_path, ["{data: birds, setting: pooled, model: [tiny, large]}"]).cells
    assert [cell.model for cell in cells] == ["tiny", "large"] and "model" not in cells[0].options


def test_a_label_says_what_tells_cells_apart(tmp_path):
    found = study(tmp_path, ["{data: birds, setting: [pooled, dual_head], alpha: [0.5, 1]}"])
    assert [found.label(cell) for cell in found.cells] == [
        "birds pooled seed=0",
        "birds dual_head alpha=0.5 seed=0",
        "birds dual_head alpha=1 seed=0",
    ]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{data: brids}", "names unknown data 'brids': did you mean 'birds'"),
        ("{setting: dual_haed}", "unknown setting 'dual_haed': did you mean 'dual_head'"),
        ("{setting: consistent}", "unknown setting 'consistent'"),
        ("{seed: []}", "no cells in block 1: seed is an empty list"),
        ("{seed: one}", "seed must be whole numbers, and is 'one'"),
        ("{train_size: 0}", "train_size must be whole numbers, and is 0"),
        ("{output_dir: x}", "'output_dir', which is said by the command's --output-dir"),
        ("{help: true}", "block 1 of grid has 'help', which is said by dhrd train --help"),
        ("{model: [[a, b]]}", "block 1 of grid: model is one name, and is .'a', 'b'.: several are a list in a block"),
        ("{model: 5}", "block 1 of grid: model must be a name, and is 5"),
        ("[pooled]", "grid must be a list of blocks"),
        ("{teacher_cache: soft}", "'teacher_cache', which is said by nothing: it is of one set of rows"),
        ("{train_sampling_strategy: group_by_length}", "block 1 of grid: .* add length_column_name: input_length"),
    ],
)
def test_a_wrong_block_is_told_in_a_line(tmp_path, block, message):
    with pytest.raises(ValueError, match=message):
        study(tmp_path, [block])


def test_train_gives_the_axes_what_a_block_leaves_out(tmp_path):
    head = STUDY.replace("train: {", "train: {seed: [0, 1], train_size: 3, run_name: 2026-01-01, ")
    found = study(tmp_path, ["{data: birds, setting: pooled}", "{data: birds, setting: pooled, train_size: 4}"], head)
    assert [(cell.seed, cell.train_size) for cell in found.cells] == [(0, 3), (1, 3), (0, 4), (1, 4)]
    # As JSON has it, in which the table is.
    assert {cell.options["run_name"] for cell in found.cells} == {"2026-01-01"}
    for wrong in ("-3", "0", "many"):
        with pytest.raises(ValueError, match="train_size must be whole numbers"):
            study(tmp_path, ["{data: birds}"], STUDY.replace("train: {", f"train: {{train_size: {wrong}, "))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nmodel: b\ntrain: 5\ndata: {x: {train: t, eval: e}}", "train must hold options .* and holds a int"),
        ("name: a\nmodel: b\ndata: {x: {train: 5, eval: e}}", "data 'x': train must be a text, and is a int"),
        ("name: a\nmodel: b\ndata: {x: {superglue: [cb]}}", "data 'x': superglue must be a text, and is a list"),
        (
            "name: a\nmodel: b\ntrain: {alpha: [1]}\ndata: {x: {train: t, eval: e}}\ngrid: [{}]",
            "alpha must be a number",
        ),
        ("[1", "is not YAML"),
        ("- a", "must hold keys such as name"),
        ("name: a\nmodle: b", "unknown key 'modle': did you mean 'model'"),
        ("name: a\nmodel: b", "lacks data"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e}}", "the grid has no cells"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e}}\ngrid: []", "the grid has no cells"),
        ("name: a\nmodel: b\ndata: {x: {train: t}}", "data 'x' lacks eval"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, promt: p}}", "unknown key 'promt': did you mean 'prompt'"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, metric: f1}}", "unknown metric 'f1'"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, metric: f1a+em}}", "f1a.em is for COPA and MultiRC"),
        ("name: a\nmodel: b\neval_size: many\ndata: {x: {train: t, eval: e}}", "eval_size must be a whole number"),
        (
            "name: a\nmodel: b\nkeep_models: 'false'\ndata: {x: {train: t, eval: e}}",
            "keep_models must be true or false, without quotes, and is 'false'",
        ),
        (
            "name: a\nmodel: [m, k]\ndata: {x: {train: t, eval: e}}\ngrid: [{}]",
            "yaml: model is one name, and is .'m', 'k'.: several are a list in a block of the grid",
        ),
        (
            "name: a\nmodel: b\ntrain: {model: [m, k]}\ndata: {x: {train: t, eval: e}}\ngrid: [{model: b}]",
            "train: model is one name",
        ),
        (
            "name: a\nmodel: 5\ndata: {x: {train: t, eval: e}}",
            "model must be a name, and is 5: a name that YAML takes",
        ),
        ("name: [a]\nmodel: b\ndata: {x: {train: t, eval: e}}", "name must be a text, and is a list"),
        (
            "name: a\nmodel: b\ntrain: {help-all: true}\ndata: {x: {train: t, eval: e}}",
            "train has 'help_all', which is said by dhrd train --help-all",
        ),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, group_column: [g]}}", "group_column must be a text"),
        ("name: a\nmodel: b\ndata: {x: {superglue: cb, group_column: g}}", "unknown key 'group_column'"),
    ],
)
def test_a_wrong_file_is_told_in_a_line(tmp_path, text, message):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_study(tmp_path / "study.yaml")
