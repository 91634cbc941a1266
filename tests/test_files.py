"""Files that appear whole or not at all."""

import pytest

from dhrd_hf.files import write_whole


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
