"""The synthetic rows against a solver of our own that reads nothing but the text."""

import hashlib
import json
import re
from collections import Counter

import pytest

from dhrd_hf.data.synthetic import SYNTHETIC_LABELS, synthetic_rules

# What the facts leave to the reader: these are places of which a thing is in one at most.
ROOMS = {"attic", "barn", "cellar", "garage", "garden", "hall", "kitchen", "library", "office", "tower"}


@pytest.fixture(scope="module")
def rows():
    return synthetic_rules("train", n=900).to_list()


def facts_and_claim(text):
    facts, claim = re.fullmatch(r"Facts: (.*) Claim: (.*)\.", text).groups()
    return facts.rstrip(".").split(". "), claim


def solve(text):
    """Brute force: add what follows from two known statements until nothing new follows."""
    facts, claim = facts_and_claim(text)
    known = {fact.lower() for fact in facts}

    def chain(pattern, joined):
        while True:
            found = [match.groups() for match in (re.fullmatch(pattern, fact) for fact in known) if match]
            new = {joined.format(a, d) for a, b in found for c, d in found if b == c} - known
            if not new:
                return
            known.update(new)

    claim = claim.lower()
    if " than " in claim:
        first, relation, last = re.fullmatch(r"(\w+) is (\w+) than (\w+)", claim).groups()
        chain(rf"(\w+) is {relation} than (\w+)", "{} is " + relation + " than {}")
        opposite = f"{last} is {relation} than {first}" in known
    elif " is in the " in claim:
        chain(r"the (\w+) is in the (\w+)", "the {} is in the {}")
        thing, place = re.fullmatch(r"the (\w+) is in the (\w+)", claim).groups()
        assert place in ROOMS
        opposite = any(f"the {thing} is in the {room}" in known for room in ROOMS - {place})
    else:
        person, group = re.fullmatch(r"(\w+) is a (\w+)", claim).groups()
        groups = set()
        while True:
            new = {
                b for a, b in (f.split(" is a ") for f in known) if a == person or a.removeprefix("every ") in groups
            }
            if new <= groups:
                break
            groups |= new
        if group in groups:
            known.add(claim)
        opposite = any(f"no {one} is a {group}" in known or f"no {group} is a {one}" in known for one in groups)
    assert not (claim in known and opposite), f"the facts contradict themselves: {text}"
    return "entailed" if claim in known else "contradicted" if opposite else "unknown"


def test_every_label_is_what_a_brute_force_solver_finds(rows):
    assert [solve(row["text"]) for row in rows] == [row["label"] for row in rows]


def test_a_rationale_is_stated_facts_and_what_follows_from_them(rows):
    for row in rows:
        facts, claim = facts_and_claim(row["text"])
        *steps, end = row["rationale"].rstrip(".").replace(", not in", " and not in").split(", ")
        stated = {fact.lower() for fact in facts}
        assert {step.lower() for step in steps} <= stated, row
        if row["label"] == "entailed":
            assert len(steps) in (2, 3) and end.lower() == f"so {claim.lower()}"
        elif row["label"] == "contradicted":
            assert len(steps) in (2, 3) and end.startswith("so ") and end.lower() != f"so {claim.lower()}"
        else:
            assert end.startswith("nothing ")


def test_a_rationale_never_names_a_label(rows):
    words = re.compile(r"\b(entail\w*|contradict\w*|unknown|true|false|yes|claim\w*)\b", re.IGNORECASE)
    assert not [row for row in rows if words.search(row["rationale"])]


def test_rows_are_short(rows):
    assert max(len(row["text"].split()) for row in rows) <= 35
    assert max(len(row["rationale"].split()) for row in rows) <= 25


def test_labels_are_balanced_within_each_family(rows):
    def family(text):
        return "order" if " than " in text else "place" if "The " in text else "rule"

    counts = Counter((family(row["text"]), row["label"]) for row in rows)
    assert set(counts) == {(family, label) for family in ("order", "place", "rule") for label in SYNTHETIC_LABELS}
    assert set(counts.values()) == {100}


def test_words_alone_do_not_tell_the_label(rows):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    test = synthetic_rules("test", n=600)
    words = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(max_iter=1000).fit(
        words.fit_transform(row["text"] for row in rows), [row["label"] for row in rows]
    )
    # Chance is 0.33; 0.41 is four standard errors above it.
    assert model.score(words.transform(test["text"]), test["label"]) < 0.41


def test_no_facts_are_in_two_splits_whatever_the_seeds():
    facts = {
        split: {
            frozenset(facts_and_claim(text)[0])
            for seed in (0, 1)
            for text in synthetic_rules(split, n=900, seed=seed)["text"]
        }
        for split in ("train", "validation", "test")
    }
    assert not facts["train"] & facts["validation"]
    assert not facts["train"] & facts["test"]
    assert not facts["validation"] & facts["test"]


def test_no_text_occurs_twice():
    texts = synthetic_rules("train", n=5000)["text"][:]
    assert len(set(texts)) == 5000


def test_a_seed_gives_the_same_bytes_everywhere():
    rows = synthetic_rules("train", n=100).to_list()
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    assert digest == "f8f4955b81954a97e3fcffcfa0ee70fc9d0f0724e80c37cd397f04941278a4ce"


def test_more_rows_begin_with_the_same_ones_and_another_seed_gives_others():
    few, many = synthetic_rules("test", n=40).to_list(), synthetic_rules("test", n=90).to_list()
    assert many[:40] == few
    other = synthetic_rules("test", n=90, seed=1)["text"]
    assert len(set(other) & {row["text"] for row in many}) < 5


def test_bad_arguments_say_what_to_type():
    with pytest.raises(ValueError, match="no split 'dev': choose one of train, validation, test"):
        synthetic_rules("dev", n=3)
    with pytest.raises(ValueError, match="n is 0: ask for 1 row or more"):
        synthetic_rules("train", n=0)
