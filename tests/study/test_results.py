"""The table of a study: whole lines, whoever is killed while writing one."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from dhrd_hf.study.results import ResultsTable


def row(cell, study="first", **more):
    return {"study": study, "cell": cell, "status": "done", **more}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def test_rows_come_back_in_order_and_are_read_on_from_where_one_was(path):
    table, other = ResultsTable(path, "first"), ResultsTable(path, "first")
    assert table.read() == []
    table.append(row("a", text="naïve\u2028"))
    assert other.read() == [row("a", text="naïve\u2028")]
    other.append(row("b"))
    assert [it["cell"] for it in other.read()] == [it["cell"] for it in table.read()] == ["a", "b"]


def test_a_torn_last_line_is_taken_away_and_told(path):
    ResultsTable(path, "first").append(row("a"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"study": "first", "cell": "b", "sta')
    told = []
    table = ResultsTable(path, "first", told.append)
    assert [it["cell"] for it in table.read()] == ["a"]
    table.repair()
    assert path.read_bytes() == whole
    assert len(told) == 1 and "half-written (36 bytes)" in told[0]


def test_a_row_that_only_lacks_its_newline_is_kept(path):
    path.write_text(json.dumps(row("a")))
    table = ResultsTable(path, "first", pytest.fail)
    table.append(row("b"))
    assert [it["cell"] for it in table.read()] == ["a", "b"]


def test_a_row_is_not_glued_to_a_torn_one(path):
    path.write_bytes(b'{"study"')
    table = ResultsTable(path, "first")
    table.append(row("b"))
    assert [it["cell"] for it in table.read()] == ["b"]


def test_many_writers_lose_no_row(path):
    def write(number):
        ResultsTable(path, "first").append(row(str(number), text="x" * 20_000))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert {it["cell"] for it in ResultsTable(path, "first").read()} == {str(number) for number in range(40)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps(row("a", study="second")), "is the table of the study 'second', and this one is 'first'"),
        ("{broken", "results.jsonl, line 2 is not a row of a study"),
        ('{"text": "a row of data"}', "line 2 is not a row of a study: it lacks study, cell, status"),
    ],
)
def test_a_foreign_or_broken_line_is_told(path, line, message):
    path.write_text(f"{json.dumps(row('z'))}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        ResultsTable(path, "first").read()


def test_a_write_that_fails_leaves_the_table_as_it_was(path):
    import resource

    table = ResultsTable(path, "first")
    table.append(row("a"))
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # ten bytes of the next row fit
    try:
        with pytest.raises(OSError, match="File too large"):
            table.append(row("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
