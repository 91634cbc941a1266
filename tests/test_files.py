"""Files that appear whole or not at all."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import get_last_checkpoint

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.data.tables import TableError, iter_rows
from dhrd_hf.files import last_checkpoint, unfinished_beside, whole_folder, write_whole
from dhrd_hf.opening import readable_model


def test_a_file_is_replaced_at_once_and_nothing_is_left_beside_it(tmp_path):
    target = tmp_path / "made" / "metrics.json"
    for text in ("{}", '{"größe": 1}'):
        write_whole(target, text)
        assert target.read_text(encoding="utf-8") == text
    assert list(target.parent.iterdir()) == [target]


def test_who_is_interrupted_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "metrics.json"
    write_whole(target, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_written_has_the_name_that_was_given(tmp_path, monkeypatch):
    with pytest.raises(OSError) as error:
        write_whole(tmp_path, "{}")
    assert (error.value.filename, error.value.filename2) == (str(tmp_path), None) and ".tmp" not in str(error.value)
    monkeypatch.setattr("dhrd_hf.data.table_writing.unfinished_beside", lambda path: path / "no" / ".rows.tmp")
    (tmp_path / "rows.jsonl").write_text("old")
    with pytest.raises(TableError, match="can't write .*rows.jsonl: Not a directory$"):
        write_rows(tmp_path / "rows.jsonl", [{"text": "new"}])


def test_weights_that_are_not_whole_are_a_line(tmp_path):
    save_file({"weight": torch.zeros(9)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for content in (whole[:-4], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with (
            pytest.raises(OSError, match="the weights of mine can't be read .*git lfs pull"),
            readable_model("mine"),
        ):
            load_file(tmp_path / "model.safetensors")


def test_two_that_write_one_file_at_once_do_not_meet(tmp_path):
    """As containers on a shared disk do, which may have one process id."""
    assert unfinished_beside(tmp_path / "a.json") != unfinished_beside(tmp_path / "a.json")

    def rows():
        yield {"text": "first"}
        write_rows(tmp_path / "rows.jsonl", [{"text": "second"}])
        yield {"text": "last"}

    assert write_rows(tmp_path / "rows.jsonl", rows()) == 2
    assert [row["text"] for row in iter_rows(tmp_path / "rows.jsonl")] == ["first", "last"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_last_whole_checkpoint(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None
    for step in (2, 9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-11")
    (tmp_path / "checkpoint-11" / "trainer_state.json").write_text('{"epoch": 1')
    (tmp_path / "checkpoint-10" / "trainer_state.json").unlink()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_a_folder_of_ones_own_beside_the_checkpoints_is_none(tmp_path):
    for name in ("checkpoint-9", "checkpoint-best-100", "checkpoint-100-old", "checkpoint-"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


# Folders

WRITE_AND_WAIT = """
import sys
from dhrd_hf.files import whole_folder

with whole_folder(sys.argv[1], overwrite=True) as folder:
    (folder / "config.json").write_text("{}")
    print(folder.parent.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("alive", [True, False])
def test_what_a_killed_export_left_is_cleaned_by_the_next_one_alone(tmp_path, alive):
    other = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, tmp_path / "cls"],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    name = other.stdout.readline().strip()
    assert name.startswith(".cls.") and (tmp_path / name / "new" / "config.json").exists()
    if not alive:
        other.kill()
        other.wait()
    mine = tmp_path / ".cls.settings"  # no such folder, though its name could be one
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for target in ("cls-2", "cls.2", "cls"):  # the lookalikes leave it
        assert (tmp_path / name).exists()
        with whole_folder(tmp_path / target, overwrite=True) as folder:
            (folder / "a").write_text("")
    assert (tmp_path / name).exists() == alive
    if alive:
        other.communicate("")
        assert other.returncode == 0 and (tmp_path / "cls" / "config.json").exists()
    assert sorted(it.name for it in tmp_path.iterdir()) == [".cls.settings", "cls", "cls-2", "cls.2"]


def test_what_a_killed_export_was_about_to_replace_is_put_back(tmp_path):
    for part in ("new", "old"):
        (tmp_path / ".cls.0a1b2c3d" / part).mkdir(parents=True)
        (tmp_path / ".cls.0a1b2c3d" / part / "config.json").write_text(part)
    with (
        pytest.raises(FileExistsError, match="is not an empty folder"),
        whole_folder(tmp_path / "cls", overwrite=False),
    ):
        pass
    assert [it.name for it in tmp_path.iterdir()] == ["cls"]
    assert (tmp_path / "cls" / "config.json").read_text() == "old"
