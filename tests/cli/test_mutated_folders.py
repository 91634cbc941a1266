"""Model folders that are not as they were saved, and tables whose pages are not: a line, and exit code 2, by every command."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from dhrd_hf import export_classifier
from dhrd_hf.cli import main
from dhrd_hf.training import add_lora

LABELS = ("entailed", "refuted", "unknown")


@pytest.fixture(scope="module")
def folders(dual_of, tokenizer, rows, tmp_path_factory):
    """A run directory, one in shards and one of an adapter, and the exports of the first and the last."""
    here = tmp_path_factory.mktemp("folders")
    settings = {"id2label": dict(enumerate(LABELS)), "prompt_template": "{text}"}
    dual = dual_of("llama", **settings, problem_type="single_label_classification")
    for name, size in (("run", "5GB"), ("shards", "20KB")):
        dual.save_pretrained(here / name, max_shard_size=size)
        tokenizer.save_pretrained(here / name)
    export_classifier(dual, tokenizer, here / "export")
    lora = add_lora(dual_of("llama", **settings, problem_type="single_label_classification"), r=2)
    lora.save_pretrained(here / "lora")
    lora.base_model.model.config.save_pretrained(here / "lora")
    tokenizer.save_pretrained(here / "lora")
    export_classifier(lora, tokenizer, here / "adapter", format="adapter")
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:12]))
    return here


def config(**values):
    return edited("config.json", values)


def adapter(**values):
    return edited("adapter_config.json", values)


def edited(name, values):
    def change(folder):
        found = json.loads((folder / name).read_text())
        kept = {key: value for key, value in (found | values).items() if value is not ...}
        (folder / name).write_text(json.dumps(kept))

    return change


def content(name, new):
    """A file with other bytes, or with a share of its own."""

    def change(folder):
        old = (folder / name).read_bytes()
        (folder / name).write_bytes(new if isinstance(new, bytes) else old[: int(len(old) * new)])

    return change


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def as_pickle(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "more": Harmful()}, folder / "pytorch_model.bin")


def without_a_shard(folder):
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


FOUR = {str(index): f"label {index}" for index in range(4)}
MUTATIONS = {
    "config is not JSON": (content("config.json", b"{"), "run export lora", "config.json"),
    "config is a list": (content("config.json", b"[]"), "run export", "model_type"),
    "config is empty": (content("config.json", b""), "run export", "config.json"),
    "config is null": (content("config.json", b"null"), "run export", ""),
    "no backbone": (config(backbone_config=...), "run lora", "backbone_config in its config should be"),
    "empty backbone": (config(backbone_config={}), "run", "backbone_config has model_type None"),
    "a backbone that is a word": (config(backbone_config="llama"), "run", ""),
    "a head of another size": (
        config(id2label=FOUR, label2id={name: int(index) for index, name in FOUR.items()}),
        "run export shards",
        "score.weight",
    ),
    "labels that contradict": (
        config(label2id={"entailed": 1, "refuted": 0, "unknown": 2}),
        "run export",
        "label2id",
    ),
    "labels that are a list": (config(id2label=list(LABELS)), "run export", ""),
    "one label twice": (
        config(id2label={"0": "a", "1": "a", "2": "b"}, label2id={"a": 1, "b": 2}),
        "run export",
        "id2label",
    ),
    "a label that is missing": (
        config(id2label={"0": "a", "1": "b", "5": "c"}, label2id={"a": 0, "b": 1, "c": 5}),
        "run export",
        "id2label",
    ),
    "a problem type of nobody": (config(problem_type="triage"), "run export", "problem_type in its config should be"),
    "a prompt that is a number": (
        config(prompt_template=5),
        "run export lora",
        "prompt_template in its config should be a text",
    ),
    "a limit that is a word": (
        config(max_input_length="all"),
        "run export",
        "max_input_length in its config should be",
    ),
    "a limit of none": (config(max_input_length=0), "run export", "a whole number above 0, and is 0"),
    "a size that is a word": (config(hidden_size="x"), "export", "hidden_size"),
    **{
        f"thresholds {value}": (
            config(label_thresholds=value),
            "run export",
            "label_thresholds in its config should be",
        )
        for value in ("high", [0.5], {"entailed": "0.5"}, {"entailed": None}, {"other": 0.5}, {"entailed": 1.5})
    },
    **{
        f"{name} {value}": (
            config(**{name: value}),
            "run export",
            f"{name} in its config should be a number from 0 to 1",
        )
        for name in ("abstention_threshold", "label_set_threshold")
        for value in ("high", True, [0.5], 1.5)
    },
    "a tokenizer that is cut": (
        content("tokenizer.json", 0.5),
        "run export adapter",
        "can't be opened (JSONDecodeError",
    ),
    "a tokenizer that is a list": (content("tokenizer.json", b"[]"), "run export", "can't be opened"),
    "a tokenizer's config that is empty": (content("tokenizer_config.json", b""), "run export", "can't be opened"),
    "weights that are cut": (content("model.safetensors", 0.9), "run export", "can't be read"),
    "weights that are a pickle": (as_pickle, "run export", "pickle"),
    "a shard that is missing": (without_a_shard, "shards", "model-00002-of-"),
    "an index that is not JSON": (content("model.safetensors.index.json", b"{"), "shards", ""),
    "an index without weights": (content("model.safetensors.index.json", b"{}"), "shards", ""),
    "an adapter's config that is cut": (content("adapter_config.json", 0.5), "lora adapter", ""),
    "an adapter's config that is a list": (content("adapter_config.json", b"[]"), "lora adapter", ""),
    "an adapter of no kind": (adapter(peft_type="ZZZ"), "lora adapter", "ZZZ"),
    "an adapter of another rank": (adapter(r=7), "lora adapter", ""),
    "an adapter whose rank is a word": (adapter(r="x"), "lora adapter", ""),
    "an adapter whose base is gone": (adapter(base_model_name_or_path="/gone/lm"), "lora adapter", "/gone/lm"),
    "an adapter's weights that are cut": (content("adapter_model.safetensors", 0.9), "lora adapter", ""),
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, (_, kinds, _) in MUTATIONS.items() for kind in kinds.split()]
)
def test_every_command_says_in_a_line_what_is_wrong(folders, tmp_path, monkeypatch, capsys, name, kind):
    monkeypatch.chdir(tmp_path)
    change, _, expected = MUTATIONS[name]
    change(shutil.copytree(folders / kind, tmp_path / "m"))
    data, out = ["--data", str(folders / "rows.jsonl")], ["--output", "out"]
    train = [
        "train",
        "--train-data",
        str(folders / "rows.jsonl"),
        "--output-dir",
        "out",
        "--max-steps",
        "1",
        "--use-cpu",
    ]
    commands = [["predict", *data, "--output", "out.jsonl"], ["evaluate", *data], ["calibrate", *data], train]
    is_run = kind in ("run", "shards", "lora")
    commands.append(["export", *out] if is_run else ["push", "--repo", "user/name", "--dry-run"])
    for command in commands:
        assert main([command[0], "--model", "m", *command[1:]]) == 2, command
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("dhrd: error: ")]
        assert len(lines) == 1 and "Traceback" not in error, command
        # An export trains no further, and an adapter is pushed where its base is on the Hub: for reasons of their own.
        assert expected in lines[0] or command[0] in ("train", "push"), lines[0]
    if not is_run:
        assert main(["verify", "m"]) in (1, 2)
        capsys.readouterr()
    assert sorted(it.name for it in tmp_path.iterdir()) == ["m"]


def test_a_page_that_is_damaged_is_a_line(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = [f"row {index} {index**3 % 977} stands here" for index in range(3000)]
    pq.write_table(pa.table({"text": texts, "label": list(LABELS) * 1000}), "t.parquet", row_group_size=500)
    damaged = bytearray((tmp_path / "t.parquet").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 4000] = b"\xff" * 4000
    (tmp_path / "t.parquet").write_bytes(damaged)
    for command in (
        ["predict", "--data", "t.parquet", "--output", "out.jsonl"],
        ["evaluate", "--data", "t.parquet"],
        ["calibrate", "--data", "t.parquet"],
        ["train", "--train-data", "t.parquet", "--output-dir", "out", "--use-cpu"],
    ):
        assert main([command[0], "--model", str(folders / "run"), *command[1:]]) == 2
        error = capsys.readouterr().err
        assert "dhrd: error: t.parquet has a page that can't be read" in error and "Traceback" not in error
    assert [it.name for it in tmp_path.iterdir()] == ["t.parquet"]
