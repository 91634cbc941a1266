"""The synthetic rows against a solver of our own that reads nothing but the text."""

import hashlib
import json
import re
from collections import Counter

import pytest

from dhrd_hf.data.synthetic import SYNTHETIC_LABELS, synthetic_visits


@pytest.fixture(scope="module")
def rows():
    return synthetic_visits("train", n=600).to_list()


def facts_and_question(text):
    *facts, question = re.findall(r"[^.?]+[.?]", text)
    return [fact.strip() for fact in facts], re.fullmatch(r"Where does (\w+) go\?", question.strip()).group(1)


def solve(text, asked=None):
    facts, person = facts_and_question(text)
    has = {}
    for fact in facts:
        name, ticket, bag = re.fullmatch(r"(\w+) has (a|no) ticket and (a|no) bag\.", fact).groups()
        has[name] = (ticket == "a", bag == "a")
    ticket, bag = has[asked or person]
    return "shop" if not ticket else "desk" if bag else "gate"


def test_every_label_is_what_the_facts_say(rows):
    assert [solve(row["text"]) for row in rows] == [row["label"] for row in rows]


def test_the_other_visitor_goes_elsewhere(rows):
    for row in rows:
        facts, person = facts_and_question(row["text"])
        (other,) = {fact.split()[0] for fact in facts} - {person}
        assert solve(row["text"], other) != row["label"]


def test_a_rationale_says_what_the_facts_say_and_never_names_a_label(rows):
    for row in rows:
        facts, person = facts_and_question(row["text"])
        (own,) = [fact for fact in facts if fact.startswith(f"{person} ")]
        assert set(re.findall(r"(?:a|no) (?:ticket|bag)", row["rationale"])) <= set(re.findall(r"(?:a|no) \w+", own))
        assert not re.search("|".join(SYNTHETIC_LABELS), row["rationale"])


def test_rows_are_short_and_labels_balanced(rows):
    assert max(len(row["text"].split()) for row in rows) <= 20
    assert max(len(row["rationale"].split()) for row in rows) <= 12
    assert Counter(row["label"] for row in rows) == dict.fromkeys(SYNTHETIC_LABELS, 200)


def test_words_alone_leave_two_labels_open(rows):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    test = synthetic_visits("test", n=600)
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    model = LogisticRegression(max_iter=1000).fit(
        words.fit_transform(row["text"] for row in rows), [row["label"] for row in rows]
    )
    # Half is what is left when the labels of both visitors are known, but not who is who; 0.58 is four standard errors above.
    assert model.score(words.transform(test["text"]), test["label"]) < 0.58


def test_no_facts_are_in_two_splits_whatever_the_seeds():
    facts = {
        split: {
            frozenset(facts_and_question(text)[0])
            for seed in (0, 1)
            for text in synthetic_visits(split, n=600, seed=seed)["text"]
        }
        for split in ("train", "validation", "test")
    }
    assert not facts["train"] & facts["validation"]
    assert not facts["train"] & facts["test"]
    assert not facts["validation"] & facts["test"]


def test_no_text_occurs_twice():
    texts = synthetic_visits("train", n=600)["text"][:]
    assert len(set(texts)) == 600


def test_a_seed_gives_the_same_bytes_everywhere():
    rows = synthetic_visits("train", n=100).to_list()
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    assert digest == "4cf25089ec4f018891ddff53f120e8b3148f405065f59084a73d444af707bdb3"


def test_more_rows_begin_with_the_same_ones_and_another_seed_gives_others():
    few, many = synthetic_visits("test", n=40).to_list(), synthetic_visits("test", n=90).to_list()
    assert many[:40] == few
    other = synthetic_visits("test", n=90, seed=1)["text"]
    assert len(set(other) & {row["text"] for row in many}) < 45


def test_bad_arguments_say_what_to_type():
    with pytest.raises(ValueError, match="no split 'dev': choose one of train, validation, test"):
        synthetic_visits("dev", n=3)
    with pytest.raises(ValueError, match="n is 0: ask for 1 to 600 rows"):
        synthetic_visits("train", n=0)
