"""A study's YAML file, and the cells that its grid makes."""

import json
from textwrap import dedent

import pytest

from dhrd_hf.study import read_study
from dhrd_hf.study.options import typed_options
from dhrd_hf.study.plan import DataSet, digest, file_name

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
    cells = study(tmp_path, ["{data: [birds, cb], setting: [pooled, dual_head], seed: [0, 1], train_size: 40}"]).runs
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
    cells = study(tmp_path, blocks).runs
    assert [cell.setting for cell in cells] == ["pooled"] + 7 * ["dual_head"] + ["pooled"]
    assert len({cell.id for cell in cells}) == len(cells)
    assert {cell.options["alpha"] for cell in cells[1:7]} == {0.5, 1.0, "auto"}


def test_a_decoding_cell_trains_on_the_rationales_alone(tmp_path):
    block = "{data: birds, setting: cot_decoding, alpha: 0.5, alpha_schedule: [constant, linear]}"
    (cell,) = study(tmp_path, [block]).runs
    assert (cell.options["alpha"], cell.options["beta"]) == (1.0, 0.0)
    # What its decoding depends on tells it from others, and no other run.
    both = ["{data: birds, setting: [pooled, cot_decoding]}"]
    ids = [
        {it.id for it in study(tmp_path, both, STUDY.replace("    data:", f"    {key}: 9\n    data:", 1)).runs}
        for key in ("cot_eval_size", "cot_max_new_tokens")
    ]
    plain = [it.id for it in study(tmp_path, both).runs]
    assert all(plain[0] in its and plain[1] not in its for its in ids) and ids[0] != ids[1]


def test_the_id_is_of_all_that_decides_the_result_and_of_nothing_else(tmp_path):
    block = "{data: birds, setting: dual_head, seed: 1, train_size: 4}"
    (cell,) = study(tmp_path, [block]).runs

    def other(block=block, **changes):
        head = STUDY
        for old, new in changes.values():
            assert old in head
            head = head.replace(old, new)
        return study(tmp_path, [block], head).runs[0].id

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
    assert len({it.runs[0].id for it in studies}) == len({it.data["birds"].rows_digest for it in studies}) == 3


def test_models_are_an_axis_of_the_grid(tmp_path):
    cells = study(tmp_path, ["{data: birds, setting: pooled, model: [tiny, large]}"]).runs
    assert [cell.model for cell in cells] == ["tiny", "large"] and "model" not in cells[0].options


def test_a_label_says_what_only_some_runs_have(tmp_path):
    found = study(tmp_path, ["{data: birds, setting: dual_head, lora_r: 8}", "{data: birds, setting: dual_head}"])
    assert [found.label(run) for run in found.runs] == ["birds dual_head lora_r=8 seed=0", "birds dual_head seed=0"]


def test_a_size_of_null_is_all_rows_and_a_metric_of_all_gives_way_to_a_data_set_s(tmp_path):
    head = STUDY.replace("eval: dev.jsonl}", "eval: dev.jsonl, metric: accuracy}").replace(
        "    data:", "    metric: macro_f1\n    data:", 1
    )
    found = study(tmp_path, ["{setting: pooled, train_size: [null, 4]}"], head)
    assert [run.train_size for run in found.runs] == [None, 4] * 2
    assert {name: it.metric for name, it in found.data.items()} == {"birds": "accuracy", "cb": "macro_f1"}


def test_a_label_says_what_tells_cells_apart(tmp_path):
    found = study(tmp_path, ["{data: birds, setting: [pooled, dual_head], alpha: [0.5, 1]}"])
    assert [found.label(cell) for cell in found.runs] == [
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
        ("{seed: []}", "no runs in block 1: seed is an empty list"),
        ("{seed: one}", "seed must be whole numbers, and is 'one'"),
        ("{train_size: 0}", "train_size must be whole numbers, and is 0"),
        ("{output_dir: x}", "'output_dir', which is said by the command's --output-dir"),
        ("{help: true}", "block 1 of grid has 'help', which is said by dhrd train --help"),
        (
            "{model: [[a, b]]}",
            "block 1 of grid: model must be one name, and is .'a', 'b'.: several are a list in a block",
        ),
        ("{model: 5}", "block 1 of grid: model must be one name, and is 5"),
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
    assert [(cell.seed, cell.train_size) for cell in found.runs] == [(0, 3), (1, 3), (0, 4), (1, 4)]
    # As JSON has it, in which the table is.
    assert {cell.options["run_name"] for cell in found.runs} == {"2026-01-01"}
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
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e}}", "the grid has no runs"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e}}\ngrid: []", "the grid has no runs"),
        ("name: a\nmodel: b\ndata: {x: {train: t}}", "data 'x' lacks eval"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, promt: p}}", "unknown key 'promt': did you mean 'prompt'"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, metric: f1}}", "unknown metric 'f1'"),
        ("name: a\nmodel: b\ndata: {x: {train: t, eval: e, metric: f1a+em}}", "f1a.em is for COPA and MultiRC"),
        ("name: a\nmodel: b\neval_size: many\ndata: {x: {train: t, eval: e}}", "eval_size must be a whole number"),
        ("name: a\nmodel: b\neval_size: 0\ndata: {x: {train: t, eval: e}}", "a whole number above 0, and is 0"),
        ("name: a\nmodel: b\ntrain: 0\ndata: {x: {train: t, eval: e}}", "train must hold options .* and holds a int"),
        (
            "name: a\nmodel: b\nkeep_models: 'false'\ndata: {x: {train: t, eval: e}}",
            "keep_models must be true or false, without quotes, and is 'false'",
        ),
        (
            "name: a\nmodel: [m, k]\ndata: {x: {train: t, eval: e}}\ngrid: [{}]",
            "yaml: model must be one name, and is .'m', 'k'.: several are a list in a block of the grid",
        ),
        (
            "name: a\nmodel: b\ntrain: {model: [m, k]}\ndata: {x: {train: t, eval: e}}\ngrid: [{model: b}]",
            "train: model must be one name",
        ),
        (
            "name: a\nmodel: 5\ndata: {x: {train: t, eval: e}}",
            "model must be one name, and is 5: .* what YAML takes for a number wants quotes",
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


HEAD = "name: a\nmodel: b\ngrid: [{setting: pooled}]\n"


@pytest.mark.parametrize(
    "name",
    ["../../x", "/tmp/x", "..", ".", "a/b", "a\\b", "C:\\x", "a\0b", "", " ", "x" * 300, "a\nb", "\ud800", ". ."],
)
@pytest.mark.parametrize("what", ["data", "eval"])
def test_a_name_that_is_no_part_of_a_path_is_refused(tmp_path, name, what):
    spec = {"train": "t.jsonl", "eval": {"main": "e.jsonl", name: "o.jsonl"} if what == "eval" else "e.jsonl"}
    (tmp_path / "study.yaml").write_text(HEAD + "data: " + json.dumps({name if what == "data" else "x": spec}))
    with pytest.raises(ValueError, match="can't be a name") as error:
        read_study(tmp_path / "study.yaml")
    assert len(str(error.value).encode(errors="replace")) < 400


@pytest.mark.parametrize(
    "name", ["CON", "nul", "a:b", "a?b", "...a", "x" * 199, "日本語", "名" * 100, "-", "~", "a b", "é"]
)
def test_any_other_name_has_a_folder_of_its_own_inside(tmp_path, name):
    spec = {"train": "t.jsonl", "eval": "e.jsonl"}
    twins = {name: spec, name.swapcase() + "-": spec, name.replace("?", ":") + ".": spec}
    (tmp_path / "study.yaml").write_text(HEAD + "data: " + json.dumps(twins))
    folders = [data.folder_name for data in read_study(tmp_path / "study.yaml").data.values()]
    assert len(set(folders)) == 3 == len(twins)
    for folder in folders:
        assert (tmp_path / folder).resolve().parent == tmp_path.resolve() and len(folder.encode()) < 150
        (tmp_path / folder).mkdir()


def test_names_that_are_equal_after_cleaning_stay_apart():
    assert file_name("a:b") != file_name("a?b") != file_name("a-b") == "a-b"
    # As in a folder of today, which is gone on with.
    assert file_name("x" * 150) == f"{'x' * 100}-{digest('x' * 150)}" and file_name("é" * 60)[:51] == "é" * 50 + "-"
    assert file_name("esnli") == "esnli" and DataSet("esnli", {"train": "t"}).folder_name.startswith("esnli-")


def test_two_names_that_are_one_as_text_are_refused(tmp_path):
    spec = "{train: t.jsonl, eval: e.jsonl}"
    (tmp_path / "study.yaml").write_text(f"{HEAD}data: {{1: {spec}, '1': {spec}}}")
    with pytest.raises(ValueError, match="data '1' is there twice"):
        read_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "option",
    [
        "export: /tmp/x",
        "export: out",
        "output_dir: /tmp/x",
        "output-dir: /tmp/x",
        "predictions: x.jsonl",
        "logits: x.parquet",
        "more_eval_data: [a=b]",
        "logging_dir: /tmp/x",
        "encoding_cache: /tmp/x",
        "teacher_cache: /tmp/x",
        "push_to_hub: true",
        "resume_from_checkpoint: /tmp/x",
        "config: /tmp/x.yaml",
        "'export=/tmp/x': []",
        "'export=/tmp/x': true",
        "'--export': /tmp/x",
        "'export ': /tmp/x",
        "run_name: ../../x",
        "project: /tmp/x",
        "project: ~/x",
        "run_name: 'C:\\x'",
        "report_to: [none, --export=/tmp/x]",
        "report_to: [none, -x]",
        "lr_scheduler_kwargs: {dir: /tmp/x}",
        "deepspeed: {tensorboard: {enabled: true, output_path: /tmp/x}}",
        "deepspeed: ds.json",
        'deepspeed: \'{"csv_monitor": {"output_path": "../x"}}\'',
        'run_name: "a\\0b"',
        "{learning_rate: 1, learning-rate: 2}",
    ],
)
@pytest.mark.parametrize("where", ["train", "recipe", "block"])
def test_an_option_that_writes_elsewhere_is_refused(tmp_path, option, where):
    (tmp_path / "ds.json").write_text('{"flops_profiler": {"output_file": "/tmp/x"}}')
    option = option if option.startswith("{") else f"{{{option}}}"
    data = "data: {x: {train: t.jsonl, eval: e.jsonl}}\n"
    if where == "block":
        text = f"name: a\nmodel: b\n{data}grid: [{option}]\n"
    else:
        text = f"{HEAD}{data}train: {option if where == 'train' else '{config: recipe.yaml}'}\n"
    (tmp_path / "recipe.yaml").write_text(option)
    (tmp_path / "study.yaml").write_text(text)
    ignored = where == "recipe" and any(
        it in option for it in ("output_dir", "output-dir", "predictions:", "logits:", "encoding_cache")
    )
    if ignored:  # a recipe's own, in whose place the study's are
        (cell,) = read_study(tmp_path / "study.yaml").runs
        assert cell.options == {"alpha": 0.0, "beta": 1.0, "classifier_head": "linear"}
    elif not (where == "train" and option.startswith("{config")):
        with pytest.raises(ValueError):
            read_study(tmp_path / "study.yaml")


def test_what_begins_with_a_hyphen_is_a_value_and_no_option():
    assert typed_options({"prompt": "--export=/tmp/x", "seed": -1, "eps": -1e-5, "names": ["a", -2], "no": None}) == [
        "--prompt=--export=/tmp/x", "--seed", "-1", "--eps", "-1e-05", "--names", "a", "-2"
    ]  # fmt: skip
    assert typed_options({"a": 2.0, "b": 1e20, "c": True}) == ["--a", "2", "--b", "1e+20", "--c", "true"]


def test_a_recipe_gives_what_the_study_does_not(tmp_path):
    (tmp_path / "recipes").mkdir()
    recipe = "lora: true\nlearning-rate: 2e-4\nseed: 3\noutput_dir: /tmp/x\ntrain_data: other.jsonl\nmodel: other\n"
    (tmp_path / "recipes" / "paper.yaml").write_text(recipe)
    (tmp_path / "studies").mkdir()
    head = STUDY.replace("train: {lora: true, ", "train: {config: ../recipes/paper.yaml, lora: false, ").replace(
        "learning_rate: 2e-4}", "lora_r: 8}"
    )
    (cell,) = study(tmp_path / "studies", ["{data: birds, setting: dual_head}"], head).runs
    assert (cell.model, cell.seed) == ("tiny", 3)
    rest = {"alpha": 1.0, "beta": 1.0, "classifier_head": "linear"}
    assert cell.options == {"lora": False, "learning_rate": 2e-4, "lora_r": 8, **rest}
    # What it says is what counts, not where it stands.
    said = head.replace("config: ../recipes/paper.yaml", "learning_rate: 2e-4, seed: 3")
    assert study(tmp_path / "studies", ["{data: birds, setting: dual_head}"], said).runs[0].id == cell.id
    for wrong, message in ("config: 5", "config must name a file"), ("config: absent.yaml", "absent.yaml"):
        with pytest.raises((ValueError, OSError), match=message):
            study(tmp_path, [], STUDY.replace("train: {", f"train: {{{wrong}, "))


def evaluated_on(tmp_path, given, more=""):
    text = f"{HEAD}data: {{x: {{train: t.jsonl, eval: {given}{more}}}}}"
    (tmp_path / "study.yaml").write_text(text)
    return read_study(tmp_path / "study.yaml").data["x"]


def test_the_first_evaluation_set_is_the_main_one(tmp_path):
    given = evaluated_on(tmp_path, "{validation: e.jsonl, hans: h.jsonl}")
    assert list(given.eval_sets.items()) == [("eval", "e.jsonl"), ("hans", "h.jsonl")]
    assert evaluated_on(tmp_path, "e.jsonl").eval_sets == {"eval": "e.jsonl"}
    other = evaluated_on(tmp_path, "{hans: h.jsonl, validation: e.jsonl}")
    assert other.rows_digest != given.rows_digest and other.eval_sets["eval"] == "h.jsonl"


def test_label_maps_are_of_a_set_or_of_all(tmp_path):
    sets = "{validation: e.jsonl, hans: h.jsonl, anli: a.jsonl}"
    of_all = evaluated_on(tmp_path, sets, ", label_map: {nope: neutral}")
    assert of_all.spec["label_map"] == {"hans": {"nope": "neutral"}, "anli": {"nope": "neutral"}}
    of_one = evaluated_on(tmp_path, sets, ", label_map: {hans: {0: neutral}}")
    assert of_one.spec["label_map"] == {"hans": {"0": "neutral"}}


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ("{validation: e.jsonl, eval: f.jsonl}", "", "a further set called 'eval'"),
        ("{validation: e.jsonl, Train: f.jsonl}", "", "a further set called 'Train'"),
        ("{validation: e.jsonl, 'a=b': f.jsonl}", "", "a further set called 'a=b'"),
        ("{validation: e.jsonl, Train: f.jsonl}", "", "a further set called 'Train'"),
        ("{Hans: e.jsonl, hans: f.jsonl}", "", "'Hans' and 'hans', which some disks take for one"),
        ("{validation: [e.jsonl]}", "", "eval 'validation' must be a table, and is a list"),
        ("{}", "", "lacks eval"),
        ("e.jsonl", ", label_map: {a: b}", "label_map is of further sets"),
        ("{validation: e, hans: h}", ", label_map: [a]", "label_map must be such as"),
        ("{validation: e, hans: h}", ", label_map: {hnas: {a: b}}", "unknown set 'hnas': did you mean 'hans'"),
        ("{validation: e, hans: h}", ", label_map: {hans: {a: b}, c: d}", "label_map must be such as"),
    ],
)
def test_wrong_evaluation_sets_are_told(tmp_path, given, more, message):
    with pytest.raises(ValueError, match=message):
        evaluated_on(tmp_path, given, more)
