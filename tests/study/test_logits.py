"""The logits of a run's evaluation rows, in the study's ids, and what they score."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhrd_hf.evaluation.logits import read_logits, write_logits
from dhrd_hf.study.data import RunRows
from dhrd_hf.study.run import eval_sets, logits_of

LABELS = {"eval": ["b", "a", "b"], "far": ["a", "b"]}
ROWS = RunRows(Path("t"), {name: Path(name) for name in LABELS}, labels=LABELS, names=["a", "b", "c"])
# As a run has them whose labels are b, a, in this order, and which never saw c.
GIVEN = [("eval", 0, 0, [2.0, 1.0]), ("eval", 1, 1, [0.5, 0.0]), ("eval", 2, 0, [-1.0, 3.0])]
GIVEN += [("far", 0, 1, [0.0, 1.0]), ("far", 1, 0, [0.0, 2.0])]


def write(path, given=GIVEN, names=("b", "a")):
    table = pa.table(dict(zip(("set", "row", "label", "logits"), map(list, zip(*given, strict=True)), strict=True)))
    pq.write_table(table.replace_schema_metadata({"labels": json.dumps(names)}), path)
    return path


def test_logits_have_the_ids_of_the_study(tmp_path):
    found = logits_of(write(tmp_path / "l.parquet"), ROWS)
    none = -np.inf
    assert found["eval"][1].tolist() == [[1.0, 2.0, none], [0.0, 0.5, none], [3.0, -1.0, none]]
    assert found["far"][1].tolist() == [[1.0, 0.0, none], [2.0, 0.0, none]]
    write_logits(tmp_path / "logits" / "id.parquet", ROWS.names, found)
    kept = pq.read_table(tmp_path / "logits" / "id.parquet")
    assert kept.to_pylist()[3:] == [
        {"set": "far", "row": 0, "label": 0, "logits": [1.0, 0.0, none]},
        {"set": "far", "row": 1, "label": 1, "logits": [2.0, 0.0, none]},
    ]
    assert [str(it) for it in kept.schema.types] == ["string", "int32", "int32", "list<element: float>"]
    assert json.loads(kept.schema.metadata[b"labels"]) == ["a", "b", "c"]
    assert [it.name for it in (tmp_path / "logits").iterdir()] == ["id.parquet"]
    shuffled = logits_of(write(tmp_path / "s.parquet", GIVEN[::-1]), ROWS)  # each row has its number
    assert (shuffled["eval"][1] == found["eval"][1]).all() and (shuffled["far"][1] == found["far"][1]).all()
    again = read_logits(tmp_path / "logits" / "id.parquet")
    assert all((again[name][place] == found[name][place]).all() for name in found for place in (0, 1))


def test_scores_of_a_further_set_are_worked_by_hand(tmp_path):
    scores = eval_sets(logits_of(write(tmp_path / "l.parquet"), ROWS))
    # Softmax of (1, 0) has 0.7311 for a, which is right; of (2, 0) 0.1192 for b, which is not: -log of both, halved.
    loss = (0.3132616875 + 2.1269280110) / 2
    assert scores == {
        "far": {"rows": 2, "metrics": {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3), "loss": pytest.approx(loss)}}
    }
    assert eval_sets({}) == {}


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (GIVEN[:-1], ("b", "a"), "its 1 logits are not those of the 2 rows of 'far'"),
        ([("eval", 0, 1, [2.0, 1.0]), *GIVEN[1:]], ("b", "a"), "its 3 logits are not those of the 3 rows of 'eval'"),
        (GIVEN, ("b", "z"), "its model has a label 'z', and the data have a, b, c"),
        ([*GIVEN[:4], ("far", 1, 0, [np.nan, 0.0])], ("b", "a"), "its logits of 'far' are no numbers"),
    ],
)
def test_other_logits_are_refused(tmp_path, given, names, message):
    with pytest.raises(ValueError, match=message):
        logits_of(write(tmp_path / "l.parquet", given, names), ROWS)
