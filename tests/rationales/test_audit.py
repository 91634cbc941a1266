"""The audit: what it counts, whether it finds shuffled rationales, and what the wording gives away."""

import gzip
import json
import random
import time
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset

from dhrd_hf import DualHeadEncoder
from dhrd_hf.data import EncodingCounts
from dhrd_hf.rationales.audit import audit_rationales, quick_audit, summary
from dhrd_hf.rationales.checks import CHECKS
from dhrd_hf.rationales.filter import filter_rationales
from dhrd_hf.rationales.matching import match_rationales
from dhrd_hf.rationales.probe import label_probe
from dhrd_hf.rationales.report import NOTHING_FOUND

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
    assert report["label_probe"]["majority"] == 0.4
    # A judge names one label, and there is none to name for a row without any.
    assert report["consistency"] == {"accuracy": 1.0, "inconsistent": [], "rows": 48, "unjudged": 0}


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


def encoded_alone(encode, rows):
    """For each row what the encoder counts of it, and its tokens."""
    found = []
    for row in rows:
        encode.counts = EncodingCounts()
        encoded = encode({name: [value] for name, value in row.items()})
        found.append((encode.counts, len(encoded["input_ids"][0])))
    return found


LABEL_KINDS = {
    "names": (["yes", "no"], {"no": 0, "yes": 1}, "single_label_classification"),
    "one name": (["yes"], {"yes": 0}, "single_label_classification"),
    "long names": (["yes", "certainly not"], {"certainly not": 0, "yes": 1}, "single_label_classification"),
    "stars": ([1, 2], {"1": 0, "2": 1}, "single_label_classification"),
    "true or false": ([True, False], {"False": 0, "True": 1}, "single_label_classification"),
    "whole numbers": ([1.0, 2.0], {"1": 0, "2": 1}, "single_label_classification"),
    "lists": ([["a"], ["b", "a"], []], {"a": 0, "b": 1}, "multi_label_classification"),
    "numbers": ([0.5, 2, 1e-7], {"label": 0}, "regression"),
}


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_truncation_counts_what_training_cuts(kind, make_tokenizer):
    values, label2id, problem_type = LABEL_KINDS[kind]
    tokenizer = make_tokenizer(add_bos=True, add_eos=True)
    rows = [row | {"label": values[n % len(values)]} for n, row in enumerate(made(30))]
    rows += [rows[0] | {"id": "none", "rationale": None}, rows[1] | {"id": "blank", "rationale": " \n"}]
    rows += [rows[2] | {"id": "long", "text": rows[2]["text"] * 3}, rows[3] | {"id": "in full", "rationale": "So."}]
    # `encode_dataset` and `dhrd train` read names that are written as numbers as text.
    numbers = kind in ("stars", "whole numbers")
    named = [row | {"label": f"{row['label']:g}"} if numbers else row for row in rows]
    in_full = encoded_alone(DualHeadEncoder(tokenizer, label2id, problem_type=problem_type), named)
    tokens = sorted(tokens for _, tokens in in_full)
    cut_at = []
    for limit in (45, tokens[10], tokens[20], tokens[-1] - 1, tokens[-1]):
        encode = DualHeadEncoder(tokenizer, label2id, max_length=limit, problem_type=problem_type)
        expected = encoded_alone(encode, named)
        found = audit_rationales(rows, tokenizer=tokenizer, max_length=limit)["truncation"]
        cut = [row["id"] for row, (counts, _) in zip(rows, expected, strict=True) if counts.rationales_cut]
        assert found["ids"] == cut and found["rows"] == len(cut) and found["max_length"] == limit
        assert found["texts_alone"] == sum(counts.inputs_cut for counts, _ in expected)
        cut_at.append(len(cut))
    assert cut_at[0] > cut_at[1] > cut_at[2] > 1 and cut_at[3:] == [1, 0]
    assert found["most_tokens"] == tokens[-1]


def test_truncation_by_the_tokenizers_own_limit_and_of_many_rows(make_tokenizer):
    tokenizer, rows = make_tokenizer(model_max_length=72), made(2345)
    encode = DualHeadEncoder(tokenizer, {"no": 0, "yes": 1})
    encode({name: [row[name] for row in rows] for name in rows[0]})
    for limit in ({}, {"max_length": 500}):
        found = audit_rationales(rows, tokenizer=tokenizer, **limit)["truncation"]
        assert found["max_length"] == 72 and 0 < found["rows"] == encode.counts.rationales_cut < 2345


def test_truncation_with_another_suffix(tokenizer):
    rows, suffix = made(30), " Reasoning, step by step: {rationale} So the answer must be {label}."
    encode = DualHeadEncoder(tokenizer, {"no": 0, "yes": 1}, max_length=72, suffix=suffix)
    encode({name: [row[name] for row in rows] for name in rows[0]})
    found = audit_rationales(rows, tokenizer=tokenizer, max_length=72, suffix=suffix)["truncation"]
    by_default = audit_rationales(rows, tokenizer=tokenizer, max_length=72)["truncation"]
    assert found["rows"] == encode.counts.rationales_cut > by_default["rows"]
    with pytest.raises(ValueError, match="must hold {rationale} and then {label}"):
        audit_rationales(rows, tokenizer=tokenizer, suffix="Because {rationale}")


def test_truncation_of_rows_that_lack_something(tokenizer):
    rows = made(30)
    whole = audit_rationales(rows, tokenizer=tokenizer, max_length=72)["truncation"]
    unlabelled = [row | {"label": None} if n % 3 else row for n, row in enumerate(rows)]
    found = audit_rationales(unlabelled, tokenizer=tokenizer, max_length=72)["truncation"]
    assert set(found["ids"]) >= set(whole["ids"])  # as if they had the longest label
    for lacking in ("label", "text"):
        bare = [{name: value for name, value in row.items() if name != lacking} for row in rows]
        found = audit_rationales(bare, tokenizer=tokenizer, max_length=72)["truncation"]
        assert set(found["ids"]) < set(whole["ids"]) and found["texts_alone"] == 0
    without_text = [row | {"text": None} if n % 2 else row for n, row in enumerate(rows)]
    assert audit_rationales(without_text, tokenizer=tokenizer, max_length=400)["truncation"]["rows"] == 0
    mixed = [row | {"label": [0.5, "yes", ""][n % 3]} for n, row in enumerate(rows)]
    assert audit_rationales(mixed, tokenizer=tokenizer, max_length=400)["truncation"]["rows"] == 0
    with pytest.raises(ValueError, match="max_length 8 leaves no room"):
        audit_rationales(rows, tokenizer=tokenizer, max_length=8)


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
