"""`dhrd study report`: from tables of results to Markdown, a page and a README."""

import json
import re

import pytest

from dhrd_hf.cli import main
from dhrd_hf.pages.study import BEGIN, END


def row(data, setting, seed, right, **given):
    weights = {"alpha": 0.0 if setting == "pooled" else 1.0, "beta": 1.0, "classifier_head": "linear", "train_size": 9}
    weights |= given
    return {
        "study": "first",
        "cell": f"{data}{setting}{seed}{weights}",
        "status": "done",
        "model": "m",
        "data": data,
        "setting": setting,
        "seed": seed,
        **weights,
        "options": {},
        "train_rows": 9,
        "metric": "accuracy",
        "score": right / 4,
        "labels": [0, 1, 0, 1],
        "predictions": [it if place < right else 1 - it for place, it in enumerate([0, 1, 0, 1])],
        "groups": None,
    }


ROWS = [row("cb", "pooled", 0, 2), row("cb", "dual_head", 0, 3), row("cb", "dual_head", 0, 4, alpha=2.0)]


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(it) + "\n" for it in ROWS))
    return "results.jsonl"


def report(*words):
    return main(["study", "report", *words])


def test_markdown_goes_to_standard_output_and_nothing_else(table, tmp_path, capsys):
    assert report("--results", table) == 0
    out, err = capsys.readouterr()
    assert "| cb | 9 / 4 | 1 | 50.0 | 50.0 ± – | 75.0 ± – | +25.0 [" in out
    assert "```bash\ndhrd study first.yaml\ndhrd study report --results results.jsonl\n```" in out
    assert err == "3 cells done, 0 failed, 0 without one to be paired with.\n"
    assert [it.name for it in tmp_path.iterdir()] == [table]


def test_all_outputs_have_the_same_numbers(table, tmp_path, capsys):
    (tmp_path / "README.md").write_text(f"# T\n{BEGIN}\nold\n{END}\nrest\n")
    outputs = ["--output", "new/page.html", "--markdown", "new/study.md", "--readme", "README.md"]
    assert report("--results", table, "--where", "alpha=2", *outputs) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.count("Wrote ") == 3
    markdown, readme = (tmp_path / "new/study.md").read_text(), (tmp_path / "README.md").read_text()
    assert readme == f"# T\n{BEGIN}\n\n{markdown.strip()}\n\n{END}\nrest\n"
    assert (
        "| 50.0 ± – | 100.0 ± – | +50.0 [" in markdown
        and ">100.0 ± –</td>" in (tmp_path / "new/page.html").read_text()
    )
    command = f"dhrd study report --results results.jsonl --where alpha=2 {' '.join(outputs)}"  # as it was typed
    assert command in markdown


def test_a_readme_without_markers_stays_as_it_is_and_nothing_is_written(table, tmp_path, capsys):
    (tmp_path / "README.md").write_text("# T\n")
    assert report("--results", table, "--readme", "README.md", "--markdown", "study.md") == 2
    assert "README.md: expected one line <!-- study:begin -->" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "# T\n" and not (tmp_path / "study.md").exists()


def test_folders_of_this_machine_are_not_named(table, tmp_path, capsys):
    other = tmp_path / "sub"
    other.mkdir()
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere.jsonl"
    elsewhere.write_text((tmp_path / table).read_text())
    assert report("--results", str(tmp_path / table), str(elsewhere), "--study", str(other / "s.yaml")) == 0
    out, err = capsys.readouterr()
    assert "dhrd study sub/s.yaml\n" in out and str(tmp_path.parent) not in out
    assert f"--results results.jsonl {elsewhere.name} --study sub/s.yaml" in out
    assert "3 stood twice, of which the later counts." in err


def test_throughput_and_a_torn_line(table, tmp_path, capsys):
    speed = {"samples_per_second": 8.0, "low": 7.0, "high": 9.0, "rows": 4, "accuracy": 0.75, "sorted": True}
    measured = {"rows": [{"engine": "torch", "batch_size": 1, **speed}], "command": "dhrd bench throughput --model m"}
    (tmp_path / "throughput.json").write_text(json.dumps(measured))
    with open(table, "a") as file:
        file.write('{"study": "first", "ce')
    assert report("--results", table, "--throughput", "throughput.json") == 0
    out, err = capsys.readouterr()
    assert "| classification head | 1 | 8 (7 to 9) |" in out and "\ndhrd bench throughput --model m\n" in out
    assert err.startswith("results.jsonl: its last line is only half there and is left out.\n")


def test_data_sets_can_be_left_out_of_the_mean_and_the_command_says_so(table, tmp_path, capsys):
    others = [row(data, setting, 0, 1) for data in ("rte", "wic") for setting in ("pooled", "dual_head")]
    with open(table, "a") as file:
        file.write("".join(json.dumps(it) + "\n" for it in others))
    assert report("--results", table, "--not-in-mean", "wic") == 0
    out = capsys.readouterr().out
    assert "dhrd study report --results results.jsonl --not-in-mean wic\n" in out
    assert re.findall(r"^\| (rte|wic|cb|mean of \d) \|", out, re.MULTILINE)[:4] == ["cb", "rte", "mean of 2", "wic"]
    assert "pooled on 2 data sets" in out
    assert report("--results", table, "--not-in-mean", "wic, rte") == 0
    assert "pooled on cb (1 seed)" in capsys.readouterr().out


def test_only_the_study_that_was_asked_for_is_to_be_run_again(table, tmp_path, capsys):
    rows = [json.loads(line) for line in (tmp_path / table).read_text().splitlines()]
    (tmp_path / table).write_text(
        "".join(json.dumps({**row, "study": it}) + "\n" for it in ("a", "b") for row in rows)
    )
    assert report("--results", table, "--where", "study=a") == 0
    out = capsys.readouterr().out
    assert "dhrd study a.yaml" in out and "dhrd study b.yaml" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--results", "none.jsonl"], "none.jsonl is not there: name a results.jsonl"),
        (["--results", "."], "is a folder: name a results.jsonl"),
        (["--results", "results.jsonl", "--where", "alpha"], "expected a name and a value, such as --where alpha=1"),
        (["--results", "results.jsonl", "--where", "alpah=1"], "there is no 'alpah'. There are study, model, data"),
        (["--results", "results.jsonl", "--where", "alpha=1", "--where", "alpha=2"], "--where has alpha twice"),
        (["--results", "results.jsonl", "--not-in-mean", "cbb"], "there is no data set 'cbb': did you mean 'cb'?"),
        (["--results", "results.jsonl", "--not-in-mean", "cb"], "leaves no data set for the mean: name fewer"),
        (["--results", "results.jsonl", "--output", "."], "is a folder: name a file"),
        (["--results", "results.jsonl", "--output", "x", "--markdown", "x"], "must be different files"),
        (["--results", "results.jsonl", "--output", "x", "--markdown", "./x"], "must be different files"),
        (
            ["--results", "results.jsonl", "--markdown", "./results.jsonl"],
            "it is results.jsonl itself, which would be",
        ),
        (["--results", "results.jsonl", "--readme", "README.md"], "No such file"),
        (["--results", "results.jsonl", "--throughput", "results.jsonl"], "results.jsonl is not JSON"),
        (["--results", "results.jsonl", "--outptu", "x"], "did you mean --output?"),
        ([], "--results"),
    ],
)
def test_mistakes_are_one_line(table, tmp_path, words, message, capsys):
    assert report(*words) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and err.startswith("dhrd: error: ") and out == ""
    assert [it.name for it in tmp_path.iterdir()] == [table]


def test_ctrl_c_leaves_nothing_half_written(table, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dhrd_hf.study.report.build_report", interrupted)
    assert report("--results", table, "--output", "page.html") == 130
    assert "dhrd: interrupted. No half-written report" in capsys.readouterr().err
    assert [it.name for it in tmp_path.iterdir()] == [table]
