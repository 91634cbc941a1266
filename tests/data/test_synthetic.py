"""The synthetic rows against a dictionary of our own that reads nothing but the text."""

import hashlib
import json
import re
from collections import Counter

import pytest

from dhrd_hf.data.synthetic import SYNTHETIC_LABELS, synthetic_errands

# A few things of each kind, chosen here: enough to judge rows by what a reader knows.
ROOM = {
    "kitchen": "apple banana cake carrot cheese cherry cookie egg lemon muffin onion pie pizza potato salad tomato waffle",
    "wardrobe": "boot cap coat dress glove hat jacket scarf shirt shoe skirt slipper sock stocking suit sweater tie vest",
    "garage": "anvil axe chisel clamp drill hammer ladder mallet rake ruler saw screwdriver shovel spade spanner toolbox wrench",
}


@pytest.fixture(scope="module")
def rows():
    return synthetic_errands("train", n=600).to_list()


def things(text):
    listed = re.fullmatch(r"\w+ brings (an? \w+), (an? \w+) and (an? \w+)\.", text).groups()
    return [article_and_name.split()[1] for article_and_name in listed]


def test_every_label_is_the_room_of_two_of_the_three_things():
    rooms_of = {thing: room for room, kind in ROOM.items() for thing in kind.split()}
    judged = 0
    for split in ("train", "validation", "test"):
        for row in synthetic_errands(split, n=600).to_list():
            rooms = [rooms_of.get(thing) for thing in things(row["text"])]
            if None not in rooms:
                assert Counter(rooms).most_common(1) == [(row["label"], 2)]
                judged += 1
    assert judged > 50


def test_a_rationale_says_of_which_kind_each_thing_is_and_never_names_a_label(rows):
    kinds = {"kitchen": "food", "wardrobe": "clothing", "garage": "tools?"}
    for row in rows:
        one, other, odd = re.fullmatch(
            r"An? (\w+) and an? (\w+) are \w+, an? (\w+) is (?:a )?\w+\.", row["rationale"]
        ).groups()
        assert sorted((one, other, odd)) == sorted(things(row["text"]))
        assert re.search(rf" are {kinds[row['label']]},", row["rationale"])
        assert not re.search("|".join(SYNTHETIC_LABELS), row["rationale"])


def test_articles_are_right_and_no_thing_stands_twice_in_a_row(rows):
    for row in rows:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", row["text"] + row["rationale"].lower())
        assert len(set(things(row["text"]))) == 3


def test_rows_are_short_and_labels_balanced(rows):
    assert max(len(row["text"].split()) for row in rows) <= 9
    assert max(len(row["rationale"].split()) for row in rows) <= 12
    assert Counter(row["label"] for row in rows) == dict.fromkeys(SYNTHETIC_LABELS, 200)


def test_a_bag_of_words_knows_nothing_of_other_rows_words(rows):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    test = synthetic_errands("test", n=600)
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(texts), labels)
    assert model.score(words.transform(texts), labels) > 0.95
    # A third is what guessing brings; 0.41 is four standard errors above.
    assert model.score(words.transform(test["text"]), test["label"]) < 0.41


def test_no_thing_is_in_two_splits_whatever_the_seeds():
    seen = {
        split: {
            thing
            for seed in (0, 1)
            for text in synthetic_errands(split, n=600, seed=seed)["text"]
            for thing in things(text)
        }
        for split in ("train", "validation", "test")
    }
    assert {split: len(found) for split, found in seen.items()} == {"train": 60, "validation": 30, "test": 30}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def test_no_text_occurs_twice():
    texts = synthetic_errands("train", n=600)["text"][:]
    assert len(set(texts)) == 600


def test_a_seed_gives_the_same_bytes_everywhere():
    rows = synthetic_errands("train", n=100).to_list()
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    assert digest == "4b82fd079b45352eac216b36698c1e359d2e0f8360f5e8acf68db0ff0c5708de"


def test_more_rows_begin_with_the_same_ones_and_another_seed_gives_others():
    few, many = synthetic_errands("test", n=40).to_list(), synthetic_errands("test", n=90).to_list()
    assert many[:40] == few
    other = synthetic_errands("test", n=90, seed=1)["text"]
    assert len(set(other) & {row["text"] for row in many}) < 45


def test_bad_arguments_say_what_to_type():
    with pytest.raises(ValueError, match="no split 'dev': choose one of train, validation, test"):
        synthetic_errands("dev", n=3)
    with pytest.raises(ValueError, match="n is 0: ask for 1 to 600 rows"):
        synthetic_errands("train", n=0)
