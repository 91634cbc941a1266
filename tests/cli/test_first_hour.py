"""What a new user types in the first hour: a table as it is, options mistyped, and the next command without the last one's."""

import json
import re

import pytest
import torch
from transformers import HfArgumentParser

from dhrd_hf import DualHeadTrainingArguments, opening
from dhrd_hf.cli import main
from dhrd_hf.cli.train import _parser, parse_given
from dhrd_hf.configuration_dhrd import CLASSIFIER_HEADS as HEADS
from dhrd_hf.configuration_dhrd import CLASSIFIER_INITS as INITS
from dhrd_hf.files import did_you_mean, near_path
from dhrd_hf.training.options import CLASSIFIER_HEADS, CLASSIFIER_INITS

WORDS = {"desk": "lamp paper pen", "gate": "iron hinge lock", "shop": "till shelf price"}


@pytest.fixture(scope="module")
def folder(lm_dir_of, tmp_path_factory):
    """A folder with a model and a table as a spreadsheet program saves it: semicolons, other names, no rationales."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "model").symlink_to(lm_dir_of("llama"))
    lines = ["review;category"]
    for number in range(20):  # some labels are wrong, so that something is left to calibrate
        lines += [f"{number}, the {WORDS[it].split()[number % 3]};{'desk' if number % 5 == 4 else it}" for it in WORDS]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    (folder / "gaps.csv").write_text(
        "text,label\n" + "".join(f"t{n},{'ab'[n % 2] if n % 5 else ''}\n" for n in range(60))
    )
    (folder / "full.csv").write_text("text,label\n" + "".join(f"t{n},{'ab'[n % 2]}\n" for n in range(60)))
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A run on that table, with what it said."""
    import contextlib
    import io
    import os

    told, before = io.StringIO(), os.getcwd()
    os.chdir(folder)
    command = (
        "train --model model --train-data reviews.csv --text-column review --label-column category --lora --use-cpu"
    )
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            code = main(
                [
                    *command.split(),
                    "--output-dir",
                    "run",
                    "--max-steps",
                    "24",
                    "--learning-rate",
                    "0.02",
                    "--export",
                    "exported",
                ]
            )
    finally:
        os.chdir(before)
    assert code == 0, told.getvalue()
    return told.getvalue()


def refused(capsys, command):
    assert main(command.split()) == 2
    return capsys.readouterr().err


# Before anything heavy is imported

LIGHT = """
import sys
from dhrd_hf.cli import main
for command in sys.argv[1:]:
    code = main(command.split())
    heavy = {"torch", "transformers", "datasets", "peft", "numpy", "sklearn"} & set(sys.modules)
    assert not heavy, (command, heavy)
    print("exit", code)
"""
COMMANDS = (
    "--version",
    "--help",
    *(
        f"{name} --help"
        for name in ("train", "evaluate", "predict", "calibrate", "export", "push", "verify", "env", "search", "bench")
    ),
    "train --help-all",
    "train --modle x",
    "train --num-train-epochs three",
    "train --eval-strategy sometimes",
    "train --model model --train-data nowhere.csv --output-dir o",
    "train --model model --train-data reviews.csv --output-dir o",
    "train --model ./modle --train-data reviews.csv --output-dir o",
    "train --model model --train-data gaps.csv --prompt {txt} --output-dir o",
    "train --model model --train-data gaps.csv --output-dir o",
    "train --model model --train-data full.csv --eval-data gaps.csv --output-dir o",
    "evaluate --model model --data gaps.csv",
    "evaluate --model model --data nowhere.csv",
    "evaluate --model ./modle --data reviews.csv",
    "predict --model model --data reviews.csv --text-column text --output p.csv",
    "calibrate --model model --data reviews.csv",
    "evaluate --model model",
)


def test_help_and_what_can_be_seen_to_be_wrong_imports_nothing_heavy(here, run_python):
    printed = run_python(LIGHT, *COMMANDS)
    codes = [int(code) for code in re.findall(r"^exit (\d)$", printed, re.MULTILINE)]
    assert codes == [0] * 13 + [2] * (len(COMMANDS) - 13)


def test_options_are_what_the_installed_transformers_says():
    """The oracle is transformers' own parser of the same dataclass."""
    ours = {action.dest: action for action in _parser()._actions if not action.option_strings[0].startswith("--no")}
    compared = 0
    for theirs in HfArgumentParser(DualHeadTrainingArguments)._actions:
        if theirs.dest in ("help", "label_names") or theirs.option_strings[0].startswith("--no"):
            continue
        own = ours[theirs.dest]
        assert (own.option_strings, own.nargs, own.const) == (theirs.option_strings, theirs.nargs, theirs.const)
        if own.dest not in (
            "lr_scheduler_type",
            "log_level",
            "log_level_replica",
        ):  # known when they are read, or stricter
            assert list(own.choices or ()) == list(theirs.choices or ()), own.dest
        for text in ("3", "0.5", "true", "no", "word"):
            values = []
            for action in (own, theirs):
                try:
                    values.append((action.type or str)(text))
                except Exception:
                    values.append("refused")
            same = values[0] == values[1] or own.dest in ("parallelism_config", "liger_kernel_config", "debug")
            assert same or own.choices, (own.dest, text, values)
        compared += 1
    assert compared > 100
    assert (CLASSIFIER_HEADS, CLASSIFIER_INITS) == (HEADS, INITS)


def test_what_is_given_reaches_the_training_arguments():
    given = [
        "--model",
        "m",
        "--train-data",
        "t",
        "--output-dir",
        "o",
        "--no-remove-unused-columns",
        "--bf16",
        "--seed",
        "7",
    ]
    training = parse_given([*given, "--report-to", "none", "--use-cpu", "--log-level", "error"]).training_arguments()
    assert (training.remove_unused_columns, training.bf16, training.seed, training.log_level) == (
        False,
        True,
        7,
        "error",
    )
    with pytest.raises(ValueError, match="--log-level loud is none of detail, debug"):
        parse_given([*given, "--log-level", "loud"]).training_arguments()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--modle", "--model"),
        ("--epochs", "--num-train-epochs"),
        ("--batch-size", "--per-device-train-batch-size"),
        ("--learning_rat", "--learning_rate"),
        ("--foo", None),
        ("--verbose", None),
    ],
)
def test_what_was_meant_is_near_or_not_named(typed, meant):
    known = [name for action in _parser()._actions for name in action.option_strings]
    assert did_you_mean(typed, known) == (f": did you mean {meant}?" if meant else "")


def test_a_path_that_was_meant_is_near_or_not_named(here):
    assert near_path(here / "reveiws.csv") == f": did you mean {here / 'reviews.csv'}?"
    assert near_path(here / "other.csv") == "."


def test_a_hub_is_asked_once_for_a_model_that_is_none(here, capsys, monkeypatch):
    from huggingface_hub import HfApi, constants

    asked = []

    def model_info(self, name, **kwargs):
        asked.append(name)
        raise OSError("there is no such repository")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", model_info)
    for command in ("train --train-data gaps.csv --output-dir o", "evaluate --data gaps.csv"):
        said = refused(capsys, f"{command} --model modle")
        assert "modle is no folder here: did you mean model? And as a Hub model it can't be read: there is no" in said
        assert asked == ["modle"]
        asked.clear()
    assert "smolm2 is no folder here: did you mean smollm2?" in refused(capsys, f"{command} --model smolm2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refused(capsys, f"{command} --model user/name")
    assert "user/name is no folder here, and as a Hub model it can't be read: it is not among" in said


# Tables


def test_a_column_of_another_name_is_offered(here, capsys):
    said = refused(capsys, "train --model model --train-data reviews.csv --output-dir o")
    assert "note: reviews.csv: semicolons separate its fields." in said
    assert "no column 'label': did you mean 'category' (--label-column category)? And no column 'text': did" in said
    said = refused(capsys, "train --model model --train-data reviews.csv --label-column category --output-dir o")
    assert "no column 'text': did you mean 'review' (--prompt '{review}')?" in said


def test_missing_labels_are_counted_and_left_out_where_that_is_asked_for(here, capsys):
    command = "train --model model --train-data gaps.csv --output-dir gaps --use-cpu --max-steps 1 --save-strategy no"
    assert "12 of 60 rows have no label: 0, 5, 10, 15, 20, ..." in refused(capsys, command)
    assert main([*command.split(), "--drop-unlabelled"]) == 0
    # 48 rows are too few to be split unasked
    assert "48 rows encoded" in capsys.readouterr().out and not (here / "gaps" / "split.json").exists()
    assert main([*command.split(), "--drop-unlabelled", "--eval-split", "0.25", "--overwrite-output-dir"]) == 0
    assert "12 of 48 rows of gaps.csv are held out" in capsys.readouterr().out
    assert not {row % 5 for row in json.loads((here / "gaps" / "split.json").read_text())["eval"]} & {0}
    assert main(["evaluate", "--model", "gaps"]) == 0  # the rows' numbers are those of the file
    assert json.loads(capsys.readouterr().out)["rows"] == 12


@pytest.mark.parametrize(("seconds", "told"), [(0.7, "70 times slower"), (0.02, None)])
def test_16_bits_that_a_processor_computes_in_software_are_told(here, capfd, caplog, monkeypatch, seconds, told):
    monkeypatch.setattr(opening, "_product_seconds", lambda dtype: 0.01 if dtype == torch.float32 else seconds)
    opening.times_slower.cache_clear()
    command = "train --model model --train-data full.csv --output-dir bits --use-cpu --dry-run"
    for options, named in ((["--bf16"], "--bf16: "), (["--dtype", "bfloat16"], "--dtype bfloat16: "), ([], None)):
        assert main([*command.split(), *options]) == 0
        said = "".join(capfd.readouterr())
        assert (told is not None and named is not None) == ("times slower" in said)
        assert not (told and named) or f"warning: {named}this processor multiplies in bfloat16 {told}" in said
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        caplog.clear()
        opening.put_on(torch.nn.Linear(2, 2, dtype=dtype), "cpu")
        assert (told is not None and dtype != torch.float32) == ("times slower" in caplog.text)
    opening.times_slower.cache_clear()


# A run, and the commands behind it


def test_a_run_says_what_it_does_and_nothing_else(run):
    assert "12 of 60 rows of reviews.csv are held out to evaluate on" in run
    assert "rationales  none in column 'rationale': the reasoning loss is off (--alpha 0" in run
    command = (
        "dhrd rationales generate --data reviews.csv --prompt '{review}' --label-column category --teacher TEACHER"
    )
    assert f"To get some: {command} --output rationales.jsonl, then --rationales rationales.jsonl" in run
    assert "objective   1 * classification loss + 0 * reasoning loss" in run
    assert re.search(r"step 20/24  epoch \S+  loss \S+ \(classification \S+\)  learning_rate \S+  \d+:\d\d left", run)
    assert re.search(r"^evaluation at step 6: loss \S+, accuracy \S+, macro_f1 \S+", run, re.MULTILINE)
    for noise in ("Warning", "warn(", "it/s]", "kernels", "{'loss'", "runtime"):
        assert noise not in run
    assert "dhrd evaluate --model run\n" in run and "dhrd calibrate --model run " in run


def test_a_run_has_a_readme_of_its_own(run, here):
    for place in (here / "run", *(here / "run").glob("checkpoint-*")):
        said = (place / "README.md").read_text()
        assert "`desk`, `gate`, `shop`" in said and "`{review}`" in said and "Model Card for Model ID" not in said


def test_the_next_commands_know_prompt_columns_and_rows(run, here, capsys):
    assert main(["evaluate", "--model", "run"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"] == 12 and "taking the rows that run held out (run@eval)" in said.err
    assert main(["evaluate", "--model", "exported", "--data", "run@eval"]) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(json.loads(said.out), abs=1e-5)
    assert main(["calibrate", "--model", "run"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration"]["rows"] == 12
    assert main(["predict", "--model", "exported", "--data", "reviews.csv", "--output", "predictions.csv"]) == 0
    assert main(["export", "--model", "run", "--output", "again", "--eval-data", "run@eval"]) == 0
    assert "no run that held rows out" in refused(capsys, "evaluate --model exported")


def test_a_pooled_run_of_the_same_rows_is_named_to_be_compared_with(here, tmp_path, capsys):
    train = "train --model model --train-data reviews.csv --text-column review --label-column category --use-cpu --max-steps 1"
    runs = {"other": "--alpha 0 --eval-split 0.3", "with reasons": "", "pooled": "--alpha 0 --lora", "dual": ""}
    for name, options in runs.items():
        reasons = "" if "--alpha" in options else "--alpha 1"
        assert main([*train.split(), *options.split(), *reasons.split(), "--output-dir", str(tmp_path / name)]) == 0
        said = capsys.readouterr().out
        assert ("--baseline" in said) == (name == "dual")
    command = next(line for line in said.splitlines() if "--baseline" in line).split()
    assert command == ["dhrd", "evaluate", "--model", str(tmp_path / "dual"), "--baseline", str(tmp_path / "pooled")]
    assert main(command[1:]) == 0 and "\npooled " in capsys.readouterr().err


def test_rationales_turn_the_reasoning_loss_on_and_are_joined_by_number_or_key(here, capsys):
    command = (
        "train --model model --text-column review --label-column category --use-cpu --max-steps 1 --save-strategy no"
    )
    command += " --train-data reviews.csv --eval-split 0 --overwrite-output-dir --output-dir joined --rationales"
    (here / "numbered.jsonl").write_text("".join(json.dumps({"rationale": f"It is {n}."}) + "\n" for n in range(60)))
    assert main([*command.split(), "numbered.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "60 of 60 rows have a rationale" in said and "+ 1 * reasoning loss" in said
    (here / "short.jsonl").write_text('{"rationale": "x"}\n')
    assert "and 1 rows, where the table has 60: name the key with --key" in refused(capsys, f"{command} short.jsonl")
    keyed = [json.dumps({"review": f"{n}, the lamp", "rationale": "It is."}) + "\n" for n in (0, 3)]
    (here / "keyed.jsonl").write_text("".join(keyed))
    assert main([*command.split(), "keyed.jsonl", "--key", "review"]) == 0
    assert "2 of 60 rows have a rationale" in capsys.readouterr().out


def test_a_command_leaves_the_process_that_called_it_as_it_was(here, capsys):
    import warnings

    from dhrd_hf.data.tables import load_table

    before = list(warnings.filters)
    refused(capsys, "evaluate --model model --data reviews.csv --encoding cp1252")
    load_table("reviews.csv")
    assert warnings.filters == before and capsys.readouterr().err == ""


def test_a_bug_report_has_versions_and_no_token(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert (
        "- torch: " in said and "- transformers: " in said and "HF_HUB_OFFLINE=1" in said and "hf_secret" not in said
    )
