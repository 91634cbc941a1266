"""The audit: what it counts, whether it finds shuffled rationales, and what the wording gives away."""

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from dhrd_hf.rationales.audit import NOTHING_FOUND, audit_rationales, quick_audit, summary
from dhrd_hf.rationales.checks import CHECKS
from dhrd_hf.rationales.matching import match_rationales
from dhrd_hf.rationales.probe import label_probe

DATA = Path(__file__).parents[3] / "shared" / "data"
HUMAN = ["esnli", "creak", "strategyqa", "ecqa", "ecare", "comve", "copa_sse", "winowhy"]


def made(count=60, seed=0):
    """Invented rows: each rationale speaks of its own row's rare word, and its wording of nothing else."""
    generator = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    ways = [
        "{} was seen at dusk by {}.",
        "Nobody but {} knows {}.",
        "In the end {} met {}.",
        "First came {}, then {}.",
    ]
    rows = []
    for number in range(count):
        one, two = ("".join(generator.choices(syllables, k=3)) for _ in range(2))
        rows.append(
            {
                "id": f"row-{number}",
                "text": f"Is it true that {one} was at the gate and did not meet {two}?",
                "label": generator.choice(["yes", "no"]),
                "rationale": generator.choice(ways).format(one.capitalize(), two),
            }
        )
    return rows


def shuffled(rows, share=1.0, seed=0):
    """Rationales moved within a share of the groups, none of which keeps its own."""
    groups = {}
    for row in rows:
        groups.setdefault(row.get("group", row["id"]), row["rationale"])
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    moved = names[: int(share * len(names))]
    now = dict(zip(moved, [groups[name] for name in moved[1:] + moved[:1]], strict=True))
    return [row | {"rationale": now.get(row.get("group", row["id"]), row["rationale"])} for row in rows]


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
    assert list(report["checks"]) == list(CHECKS) and report["rows"] == 60
    for check in CHECKS:
        assert {f"row-{row}" for row, (name, _) in faults.items() if name == check} <= set(report["checks"][check])
    clean = {row["id"] for number, row in enumerate(rows) if number not in faults}
    assert not any(clean & set(ids) for ids in report["checks"].values())
    for label, it in report["per_label"].items():
        assert it["rows"] == sum(row["label"] == label for row in rows)
    assert sum(it["flagged"]["empty"] for it in report["per_label"].values()) == 2
    assert json.loads(json.dumps(report)) == report
    assert summary(report)["flagged"]["empty"] == 2 / 60


def test_ids_keep_their_type_and_repeating_ones_give_way_to_numbers():
    rows = [row | {"id": number * 10, "rationale": ""} for number, row in enumerate(made(3))]
    assert audit_rationales(rows)["checks"]["empty"] == [0, 10, 20]
    same = [row | {"id": "a"} for row in rows]
    found = audit_rationales(same)
    assert found["checks"]["empty"] == [0, 1, 2] and any("'a'" in note for note in found["notes"])
    with pytest.raises(ValueError, match="'a'"):
        audit_rationales(same, id_column="id")


def test_shuffled_rows_are_found():
    rows = made(200)
    assert audit_rationales(rows)["matching"]["verdict"] == "aligned"
    half = shuffled(rows, 0.5)
    truth = {a["id"] for a, b in zip(half, rows, strict=True) if a["rationale"] != b["rationale"]}
    found = audit_rationales(half)["matching"]
    assert found["verdict"] == "partly shuffled" and found["unrelated"] == pytest.approx(0.5, abs=0.15)
    assert len(truth & set(found["mismatched"])) >= 0.9 * len(truth)
    assert len(set(found["mismatched"]) - truth) <= 2
    found = audit_rationales(shuffled(rows))["matching"]
    assert found["verdict"] == "shuffled" and found["accuracy"] < 0.15 and len(found["mismatched"]) >= 170
    assert "do not belong" in audit_rationales(shuffled(rows))["verdict"][0]


def test_matching_within_groups_is_no_mismatch():
    rows = made(40)
    pairs = [row | {"group": row["id"], "text": row["text"] + end} for row in rows for end in (" A", " B")]
    found = match_rationales(
        [row["text"] for row in pairs], [row["rationale"] for row in pairs], groups=[row["group"] for row in pairs]
    )
    assert found["verdict"] == "aligned" and found["mismatched"] == []


def test_matching_without_spaces():
    generator = random.Random(0)
    signs = "山水火木金土日月星雨雪風花鳥魚犬猫牛馬羊村町海川空石竹米糸貝車門雲霧虫草"
    words = ["".join(generator.sample(signs, 4)) for _ in range(40)]
    texts, said = [f"{word}是什么？" for word in words], [f"大家知道{word}很少见。" for word in words]
    assert match_rationales(texts, said)["verdict"] == "aligned"
    assert match_rationales(texts, said[1:] + said[:1])["verdict"] == "shuffled"


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


def test_splits_judge_and_truncation(lm_dir_of):
    from transformers import AutoTokenizer

    rows = made(30)
    tokenizer = AutoTokenizer.from_pretrained(lm_dir_of("llama"))
    lengths = [
        sum(len(tokenizer(row[name], add_special_tokens=False)["input_ids"]) for name in ("text", "rationale"))
        for row in rows
    ]
    limit = sorted(lengths)[20]
    report = audit_rationales(
        rows,
        other_splits={"dev": [rows[0], rows[1] | {"text": "other"}]},
        judge=lambda texts, rationales: ["yes"] * len(texts),
        tokenizer=tokenizer,
        max_length=limit,
    )
    assert report["duplicates"]["across_splits"]["dev"] == {"rationales": 2, "texts": 1}
    assert report["consistency"]["inconsistent"] == [row["id"] for row in rows if row["label"] == "no"]
    assert report["truncation"]["ids"] == [row["id"] for row, n in zip(rows, lengths, strict=True) if n > limit]


def test_quick_audit_looks_at_some_rows_and_is_quick():
    rows = made(10_000)
    start = time.process_time()
    found = quick_audit(rows)
    assert time.process_time() - start < 8
    assert found["rows"] == 2000 and found["verdict"][0].startswith(NOTHING_FOUND)
    assert "do not belong" in quick_audit(shuffled(rows[:1000]))["verdict"][0]
    leaking = [row | {"rationale": f"{row['rationale']} So the answer is {row['label']}."} for row in rows[:300]]
    assert any("label_leak" in line for line in quick_audit(leaking)["verdict"])
    half = [row | {"rationale": row["rationale"] if number % 2 else None} for number, row in enumerate(rows[:40])]
    assert quick_audit(half)["rows"] == 20
    assert quick_audit([row | {"rationale": None} for row in rows[:20]]) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", HUMAN + [f"{name}/teacher" for name in ("esnli", "creak", "comve", "strategyqa")])
def test_real_sets_are_aligned_and_their_shuffled_copies_not(name):
    name, _, teacher = name.partition("/")
    rows = read(f"{name}/train.jsonl.gz")
    if teacher:
        by_id = {row["id"]: row for row in rows}
        rows = [
            by_id[it["key"]] | {"rationale": it["rationale"]} for it in read(f"{name}/teacher_rationales.jsonl.gz")
        ]

    def verdict(its):
        columns = ([row[column] for row in its] for column in ("text", "rationale", "group"))
        texts, rationales, groups = columns
        return match_rationales(texts, rationales, groups=groups)["verdict"]

    assert verdict(rows) == "aligned"
    assert verdict(shuffled(rows)) == "shuffled"
    assert verdict(shuffled(rows, 0.5)) == "partly shuffled"


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
