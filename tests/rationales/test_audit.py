"""The audit: what it counts, whether it finds shuffled rationales, and what the wording gives away."""

import gzip
import json
import time
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset
from made_rows import made, shuffled
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from dhrd_hf.rationales.audit import (
    NOTHING_FOUND,
    _lengths,
    advice_on,
    audit_rationales,
    quick_audit,
    summary,
)
from dhrd_hf.rationales.checks import CHECKS
from dhrd_hf.rationales.filter import filter_rationales
from dhrd_hf.rationales.judge import LabelJudge
from dhrd_hf.rationales.matching import label_probe
from dhrd_hf.rationales.teacher import NoAnswer, Reply, TeacherError, Unusable

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_what_each_check_flags():
    rows = made()
    faults = {
        1: ("empty", None),
        2: ("empty", ""),
        3: ("label_leak", "They met at dusk. So the answer is no."),
        4: ("truncated", "They met at dusk in the"),
        5: ("refusal", "I'm sorry, but I can't help with that."),
        6: ("repetition", "They met there. They met there. They met there."),
        7: ("copy", rows[7]["text"] + " " + rows[7]["text"].lower()),
        8: ("prompt_echo", "Reasoning: they met at dusk."),
        9: ("wrong_language", "Der eine ist nicht bei der anderen gewesen, weil er zu Hause war."),
        10: ("length", "Because."),
        11: ("near_duplicate", "It is plain that an owl sees a mouse in the dark."),
        12: ("near_duplicate", "It is plain that an owl sees a vole in the dark."),
    }
    for row, (_, rationale) in faults.items():
        rows[row]["rationale"] = rationale
    report = audit_rationales(rows)
    assert list(report["checks"]) == [*CHECKS, "not_text"] and report["rows"] == 60
    for check in CHECKS:
        assert {f"row-{row}" for row, (name, _) in faults.items() if name == check} <= set(report["checks"][check])
    clean = {row["id"] for number, row in enumerate(rows) if number not in faults}
    assert not any(clean & set(ids) for ids in report["checks"].values())
    for label, it in report["per_label"].items():
        assert it["rows"] == sum(row["label"] == label for row in rows)
    assert sum(it["flagged"]["empty"] for it in report["per_label"].values()) == 2
    assert json.loads(json.dumps(report)) == report
    assert summary(report)["flagged"]["empty"] == 2 / 60


def test_lists_and_objects_are_found():
    rows = made(30)
    rows[3]["rationale"] = ["The glass is low.", "So the wind rises."]
    rows[5]["rationale"] = {"text": "It is so."}
    rows[7]["rationale"] = 12
    report = audit_rationales(rows)
    assert report["checks"]["not_text"] == ["row-3", "row-5"] and report["checks"]["empty"] == []
    assert [it["reason"] for it in report["examples"]["not_text"]] == [
        "It is a list, not a text.",
        "It is an object, not a text.",
    ]
    assert report["matching"]["rows"] == 28 and "row-7" in report["checks"]["length"]
    assert any("2 of 30 rationales" in line and "lists or objects" in line for line in report["verdict"])
    assert sum(it["flagged"]["not_text"] for it in report["per_label"].values()) == 2


def test_the_lengths_the_openings_and_the_duplicates():
    said = ["One two three four five.", "one two three four six", "Seven.", "ONE, two three four five!", None, "..."]
    rows = [{"text": f"Text {n % 3}.", "label": "a", "rationale": it} for n, it in enumerate(said)]
    report = audit_rationales(rows)
    lengths = report["lengths"]
    assert (lengths["mean"], lengths["median"], lengths["least"], lengths["most"]) == (16 / 5, 5, 0, 5)
    assert lengths["histogram"] == [{"from": n, "rows": rows} for n, rows in enumerate([1, 1, 0, 0, 0, 3])]
    assert report["openings"] == [{"words": "one two three four", "rows": 3}]
    assert report["duplicates"] == {"same_rationale": 2, "same_text": 6, "across_splits": {}}


def test_the_lengths_of_many_rows_and_of_an_even_number():
    counts = [4, 6, *range(1, 41), *range(1, 41), *[500] * 2, *[5] * 200]
    rows = [{"label": "a", "rationale": " ".join(["word"] * count)} for count in counts]
    lengths = audit_rationales(rows)["lengths"]
    assert (lengths["median"], lengths["most"]) == (5, 500)
    # Bins of two words: a twentieth of what 99 of 100 rationales have at most; longer ones share the last bin.
    assert [it["from"] for it in lengths["histogram"]] == list(range(0, 41, 2))
    assert (
        lengths["histogram"][-1]["rows"] == 2 + 2
        and lengths["histogram"][2]["rows"] == 1 + 4 + 200
        and sum(it["rows"] for it in lengths["histogram"]) == 284
    )
    even = audit_rationales([{"rationale": "one two"}, {"rationale": "one two three four"}])
    assert even["lengths"]["median"] == 4


def test_rows_of_a_group_may_be_alike_and_are_no_fold_apart():
    rows = []
    for place, row in enumerate(made(60)):
        row["label"] = ["yes", "no"][place % 2]
        name = row["text"].split()[4]
        rows += [
            row | {"id": f"{row['id']} {n}", "rationale": f"{name} {name[::-1]} {name}ly {name}st, {n}."}
            for n in range(4)
        ]
    told = audit_rationales(rows)
    apart = audit_rationales([row | {"group": row["id"].split()[0]} for row in rows])
    # The rows of a text say the same rare words: of one group, no fold can learn them from another.
    assert told["label_probe"]["rationale_only"] > 0.9 and apart["label_probe"]["rationale_only"] < 0.6
    assert len(told["checks"]["near_duplicate"]) == 240 and apart["checks"]["near_duplicate"] == []
    lone = audit_rationales([row | {"group": None} for row in rows])  # a row without a group is one of its own
    assert lone["checks"] == told["checks"] and lone["label_probe"] == told["label_probe"]


def advice(**changes):
    """What is said of a report in which nothing is wrong but what is given."""
    report = audit_rationales(made(100))
    assert advice_on(report)[0] == NOTHING_FOUND
    return advice_on(report | changes)


def test_what_is_advised():
    probe = audit_rationales(made(100))["label_probe"]
    checks = dict.fromkeys([*CHECKS, "not_text"], [])
    matching = {"verdict": "partly shuffled", "unrelated": 0.02, "mismatched": [1, 2, 3], "rows": 60}
    assert advice(matching=matching)[0].startswith(
        "About 5% of the rationales do not belong to their rows; 3 are listed."
    )
    assert "do not train on them" in advice(matching=matching | {"verdict": "shuffled"})[0]
    said = advice(label_probe=probe | {"rationale_only": 0.81, "text_only": 0.6, "majority": 0.65})
    assert "gives the label away to 81% (text alone 60%, majority 65%)" in said[0]
    assert advice(label_probe=probe | {"rationale_only": 0.79, "text_only": 0.6, "majority": 0.65})[0] == NOTHING_FOUND
    # The text alone may give it away as well; the commonest label may be most.
    for text_only, majority in ((0.7, 0.5), (0.5, 0.7), (None, 0.7)):
        known = probe | {"rationale_only": 0.81, "text_only": text_only, "majority": majority}
        assert advice(label_probe=known)[0] == NOTHING_FOUND
    assert "(not_text)" in advice(checks=checks | {"not_text": [1]})[0]
    said = advice(checks=checks | {"copy": [1, 2, 3], "refusal": [1, 2, 3, 4], "length": [1, 2]})
    assert [line.split("(")[-1] for line in said] == ["refusal).", "copy)."]
    assert said[0].startswith("4 of 100 rationales (4.0%) are refusals")
    assert advice(checks=checks | {"length": [1, 2]}) == [
        f"{NOTHING_FOUND} `dhrd rationales filter` drops the few that a check flags."
    ]
    split = {"dev": {"rationales": 2}, "test": {"rationales": 1}}
    assert "3 rationales stand in another split" in advice(duplicates={"across_splits": split})[0]
    cut = {"rows": 4, "max_length": 64}
    assert advice(truncation=cut)[0] == "4 rationales do not fit into 64 tokens behind their texts: shorten them."
    judged = {"accuracy": 0.94, "inconsistent": [1], "rows": 20}
    assert "another label out of 1 of 20" in advice(consistency=judged)[0]
    assert advice(consistency=judged | {"accuracy": 0.95})[0] == NOTHING_FOUND


def test_ids_keep_their_type_and_repeating_ones_give_way_to_numbers():
    rows = [row | {"id": number * 10, "rationale": ""} for number, row in enumerate(made(3))]
    assert audit_rationales(rows)["checks"]["empty"] == [0, 10, 20]
    same = [row | {"id": "a"} for row in rows]
    found = audit_rationales(same)
    assert found["checks"]["empty"] == [0, 1, 2] and any("'a'" in note for note in found["notes"])
    with pytest.raises(ValueError, match="'a'"):
        audit_rationales(same, id_column="id")


def test_labels_that_differ_by_a_space_are_told():
    rows = made()
    assert not any("differ by spaces" in line for line in audit_rationales(rows)["verdict"])
    rows[0] |= {"label": " Yes"}
    said = "Labels 'Yes' and 'yes' differ by spaces, case or spelling alone, and are 2 classes: spell them alike if they are one."
    assert said in audit_rationales(rows)["verdict"]


def test_a_data_set_with_ids_is_audited_by_names():
    rows = [
        row | {"label": ["refuted", "entailed"][n % 2], "rationale": "It is refuted."} for n, row in enumerate(made())
    ]
    ids = Dataset.from_list(rows).cast_column("label", ClassLabel(names=["refuted", "entailed"]))
    assert audit_rationales(ids) == audit_rationales(rows) and quick_audit(ids) == quick_audit(rows)
    assert list(filter_rationales(ids)) == list(filter_rationales(rows))
    assert len(quick_audit(ids)["checks"]["label_leak"]) == 60


SEVERAL = [["refuted", "spoken"], ["spoken", "refuted"], ["entailed", "spoken"], ["spoken"], []]


def test_a_row_with_several_labels_is_looked_at_by_each_of_them():
    rows = [row | {"label": SEVERAL[n % 5]} for n, row in enumerate(made())]
    rows[0] |= {"rationale": "So it is refuted."}
    rows[3] |= {"rationale": "What is spoken is so."}
    report = audit_rationales(rows, judge=lambda texts, rationales: ["spoken"] * len(texts))
    assert report["checks"]["label_leak"] == ["row-0", "row-3"] == quick_audit(rows)["checks"]["label_leak"]
    assert report["labels"] == {"entailed": 12, "refuted": 24, "spoken": 48}
    leaks = {label: it["flagged"]["label_leak"] for label, it in report["per_label"].items()}
    assert leaks == {"entailed": 0, "refuted": 1, "spoken": 2}
    # The order of a list says nothing: four sets of labels, of which a fifth of the rows has none.
    assert report["label_probe"]["majority"] == 0.4 and "none" in report["label_probe"]["telling"]
    # A judge names one label, and there is none to name for a row without any.
    assert report["consistency"] == {"accuracy": 1.0, "inconsistent": [], "rows": 48, "unjudged": 0}


def test_too_little_to_look_at():
    few = audit_rationales(made(5))
    assert few["matching"]["verdict"] is None and "10 rows" in few["matching"]["reason"]
    one = audit_rationales([row | {"label": "yes"} for row in made(30)])
    assert one["label_probe"]["rationale_only"] is None and one["label_probe"]["majority"] == 1.0
    bare = audit_rationales([{"label": row["label"], "rationale": row["rationale"]} for row in made(30)])
    assert bare["matching"]["verdict"] is None and bare["label_probe"]["text_only"] is None
    assert any("'text'" in note for note in bare["notes"])
    nothing = audit_rationales([row | {"rationale": None} for row in made(30)])
    assert len(nothing["checks"]["empty"]) == 30
    with pytest.raises(ValueError, match="no rows"):
        audit_rationales([])
    with pytest.raises(ValueError, match="no column 'why'"):
        audit_rationales(made(3), rationale_column="why")


def test_probe_against_what_is_known():
    rows = made(200)
    told = [row["rationale"] + (" Surely." if row["label"] == "yes" else " Hardly.") for row in rows]
    labels, texts = [row["label"] for row in rows], [row["text"] for row in rows]
    found = label_probe(told, labels, texts=texts)
    assert found["rationale_only"] == 1.0 and found["text_only"] < 0.65
    assert "surely" in found["telling"]["yes"] and "hardly" in found["telling"]["no"]
    assert found["majority"] == max(labels.count("yes"), labels.count("no")) / 200
    # One rationale in rows of both labels tells nothing, whichever fold they are in.
    twice = label_probe([it for it in told for _ in range(2)], ["yes", "no"] * 200)
    assert twice["rationale_only"] <= 0.55
    assert label_probe(told, labels, most_rows=50)["rows"] == 50
    groups = ["all" if label == "no" else n for n, label in enumerate(labels)]
    assert label_probe(told, labels, groups=groups)["reason"] == "a probe needs two rationales of each label"
    by_label = sorted(range(200), key=labels.__getitem__)  # a draw is no look at the first rows
    found = label_probe([told[n] for n in by_label], [labels[n] for n in by_label], most_rows=50)
    assert found["majority"] < 0.8 and found["rationale_only"] > 0.8


def test_a_draw_of_the_probe_is_told_and_blanks_are_no_draw():
    rows = [*made(60), *(row | {"id": f"blank {row['id']}", "rationale": " \n"} for row in made(3))]
    said = "The label probe saw {} rows, drawn with seed 0."
    assert said.format(40) in audit_rationales(rows, probe_rows=40)["notes"]
    assert audit_rationales(rows)["notes"] == []


def test_the_probe_against_a_stock_pipeline():
    rows = made(120)
    said = [f"{row['rationale']} {'Surely so' if row['label'] == 'yes' else 'Hardly'} it was." for row in rows]
    labels = [row["label"] for row in rows]
    pipeline = make_pipeline(
        TfidfVectorizer(token_pattern=r"[a-z0-9']+", ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        LogisticRegression(max_iter=200),
    ).fit(said, labels)
    names, weights = pipeline[0].get_feature_names_out(), pipeline[1].coef_[0]
    found = label_probe(said, labels)["telling"]
    for label, its in (("yes", weights), ("no", -weights)):
        weight = dict(zip(names, its, strict=True))
        best = sorted(weight.values(), reverse=True)[:10]
        assert [weight[name] for name in found[label]] == pytest.approx([it for it in best if it > 0], abs=1e-3)


def test_the_longest_hundredth_makes_no_bar_of_its_own():
    found = _lengths([10] * 980 + [60] * 15 + [4000] * 5)
    assert found["histogram"][:2] == [{"from": 0, "rows": 0}, {"from": 3, "rows": 0}] and found["most"] == 4000
    assert (found["histogram"][-1], len(found["histogram"])) == ({"from": 60, "rows": 20}, 21)
    assert _lengths([])["histogram"] == [] and _lengths([3])["histogram"][-1] == {"from": 3, "rows": 1}


def test_an_audit_is_silent(capsys):
    audit_rationales(made(20))
    assert capsys.readouterr() == ("", "")


def test_splits_and_judge():
    rows = made(30)
    report = audit_rationales(
        rows,
        other_splits={"dev": [rows[0], rows[1] | {"text": "other"}]},
        judge=lambda texts, rationales: ["yes"] * len(texts),
    )
    assert report["duplicates"]["across_splits"]["dev"] == {"rationales": 2, "texts": 1}
    assert report["consistency"]["inconsistent"] == [row["id"] for row in rows if row["label"] == "no"]
    assert report["truncation"] is None


class Judge:
    """A teacher that answers from a list of replies or errors, by the explanation that it is shown."""

    concurrency = 2

    def __init__(self, replies):
        self.replies, self.asked = replies, []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def ask(self, messages, seed=None):
        self.asked.append(messages[0]["content"])
        said = next(reply for why, reply in self.replies.items() if why in self.asked[-1])
        if isinstance(said, list):  # another one each time
            said = said.pop(0)
        if isinstance(said, Exception):
            raise said
        return Reply(said, "judge")


def test_a_judge_is_asked_for_each_rationale(monkeypatch):
    monkeypatch.setattr("dhrd_hf.rationales.teacher.FIRST_WAIT", 0.001)
    replies = {
        "Because 0": "Entailed.",
        "Because 1": [NoAnswer("status 500"), "<think>entailed?</think>**refuted**"],
        "Because 2": Unusable("refused"),
        "Because 3": "Either of the two.",
    }
    judge = Judge(replies)
    said = LabelJudge(judge, ["entailed", "refuted"])([f"Text {n}" for n in range(4)], [*replies])
    assert said == ["entailed", "refuted", None, None] and len(judge.asked) == 5
    assert "Text 0" in judge.asked[0] and "labels does the explanation argue for: entailed, refuted?" in judge.asked[0]
    with pytest.raises(TeacherError, match="revoked"):
        LabelJudge(Judge({"Because": TeacherError("revoked")}), ["entailed", "refuted"])(
            ["a", "b"], ["Because", "Because"]
        )


def test_quick_audit_looks_at_some_rows_and_is_quick():
    rows = made(10_000)
    start = time.process_time()
    found = quick_audit(rows)
    assert time.process_time() - start < 8
    assert found["rows"] == 2000 and found["verdict"][0].startswith(NOTHING_FOUND)
    assert "do not belong" in quick_audit(shuffled(rows[:1000]))["verdict"][0]
    leaking = [row | {"rationale": f"{row['rationale']} So the answer is {row['label']}."} for row in rows[:300]]
    assert any("label_leak" in line for line in quick_audit(leaking)["verdict"])
    late = [*rows[:2000], *(row | {"rationale": f"{row['rationale']} The answer is no."} for row in rows[2000:3000])]
    assert any("label_leak" in line for line in quick_audit(late)["verdict"])
    half = [row | {"rationale": row["rationale"] if number % 2 else None} for number, row in enumerate(rows[:40])]
    assert quick_audit(half)["rows"] == 20
    assert quick_audit([row | {"rationale": None} for row in rows[:20]]) is None


@pytest.mark.slow
def test_esnli_rationales_give_the_label_away():
    report = audit_rationales(read("esnli/train.jsonl.gz"))
    # A naive Bayes has 86% (the data's README); logistic regression somewhat more.
    assert 0.82 <= report["label_probe"]["rationale_only"] <= 0.95
    assert report["label_probe"]["text_only"] < 0.6 and report["label_probe"]["majority"] == pytest.approx(
        0.339, abs=0.01
    )
    assert len(report["checks"]["label_leak"]) < 0.02 * report["rows"]


def read(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
