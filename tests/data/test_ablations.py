"""Table 2's ablations and the controls: what changes, what stays, and that no row keeps its own."""

import random
from collections import Counter
from itertools import permutations

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers.utils import logging

from dhrd_hf.data import DualHeadEncoder
from dhrd_hf.data.ablations import ABLATIONS, ablate, derange
from dhrd_hf.data.tables import TableError


@pytest.fixture
def table():
    """Thirty rows of three labels, each with a rationale of its own but for five that have none."""
    return Dataset.from_dict(
        {
            "text": [f"Text {n}." for n in range(30)],
            "rationale": [None if n % 7 == 3 else f"It is {n} of the words, and so {n * n}." for n in range(30)],
            "label": [n % 3 for n in range(30)],
        },
        features=Features(
            text=Value("string"), rationale=Value("string"), label=ClassLabel(names=["entailed", "refuted", "unknown"])
        ),
    )


@pytest.fixture
def told(caplog, monkeypatch):
    """What the package logs, at any level."""
    monkeypatch.setattr(logging.get_logger("dhrd_hf"), "propagate", True)
    caplog.set_level("INFO")
    logging.get_logger("dhrd_hf.data.ablations").setLevel("INFO")
    return caplog


# Derangements


@pytest.mark.parametrize("seed", range(60))
def test_as_good_as_the_best_permutation(seed):
    draw = random.Random(seed)
    values = [draw.choice("abcdef"[: draw.randint(1, 6)]) for _ in range(draw.randint(0, 7))]
    source = derange(values, seed)
    assert sorted(source) == list(range(len(values)))
    kept = sum(values[place] == value for place, value in zip(source, values, strict=True))
    assert kept == min(
        sum(one == other for one, other in zip(values, order, strict=True)) for order in permutations(values)
    )


@pytest.mark.parametrize("common", [500, 499, 333, 2])
def test_large_sets_with_a_common_value(common):
    values = ["same"] * common + list(range(1000 - common))
    random.Random(common).shuffle(values)
    assert all(values[place] != value for place, value in zip(derange(values, 3), values, strict=True))


def test_every_derangement_comes_up():
    drawn = Counter(tuple(derange("abcd", seed)) for seed in range(1800))
    assert len(drawn) == 9  # all there are of four
    assert min(drawn.values()) > 100 and max(drawn.values()) < 400  # evenly would be 200 each


# The kinds


@pytest.mark.parametrize("kind", ABLATIONS)
def test_what_stays(kind, table):
    before = table.to_dict()
    after = ablate(table, kind, seed=4)
    assert after.features == table.features and after.column_names == table.column_names
    assert after["text"][:] == table["text"][:]
    assert table.to_dict() == before
    assert ablate(table, kind, seed=4).to_dict() == after.to_dict()
    if kind != "shuffled_rationale_and_label":
        assert after["label"][:] == table["label"][:]
    if kind != "label_only":
        assert [one is None for one in after["rationale"]] == [one is None for one in table["rationale"]]


def changed(table, after):
    return [one != other for one, other in zip(table["rationale"], after["rationale"], strict=True) if one is not None]


def test_consistent_and_label_only(table):
    assert ablate(table, "consistent").to_dict() == table.to_dict()
    assert set(ablate(table, "label_only")["rationale"]) == {None}


def test_shuffled_rationale(table):
    after = ablate(table, "shuffled_rationale", seed=1)
    assert all(changed(table, after))
    assert Counter(after["rationale"]) == Counter(table["rationale"])
    assert after["rationale"][:] != ablate(table, "shuffled_rationale", seed=2)["rationale"][:]


def test_shuffled_rationale_and_label_come_from_one_row(table):
    after = ablate(table, "shuffled_rationale_and_label", seed=1)
    assert all(changed(table, after))
    label_of = dict(zip(table["rationale"], table["label"], strict=True))
    assert all(label == label_of[why] for why, label in zip(after["rationale"], after["label"], strict=True) if why)
    assert Counter(after["label"]) == Counter(table["label"])
    assert after["label"][:] != table["label"][:]
    # Of the rows without a rationale, too, the labels are others'.
    bare = [row for row, why in enumerate(table["rationale"]) if why is None]
    assert Counter(after[row]["label"] for row in bare) == Counter(table[row]["label"] for row in bare)


def test_same_label_rationale(table):
    after = ablate(table, "same_label_rationale", seed=1)
    assert all(changed(table, after))
    label_of = dict(zip(table["rationale"], table["label"], strict=True))
    assert all(label_of[why] == label for why, label in zip(after["rationale"], after["label"], strict=True) if why)


def test_permuted_tokens(table):
    after = ablate(table, "permuted_tokens", seed=1)
    assert all(changed(table, after))
    for one, other in zip(table["rationale"], after["rationale"], strict=True):
        assert one is None or sorted(one.split()) == sorted(other.split())
    written_together = Dataset.from_dict({"rationale": ["这只猫在厨房里睡觉，所以它没有在花园里跑来跑去。"]})
    permuted = ablate(written_together, "permuted_tokens")["rationale"][0]
    assert permuted != written_together["rationale"][0] and sorted(permuted) == sorted(
        written_together["rationale"][0]
    )


def test_keywords_only():
    rows = Dataset.from_dict(
        {
            "rationale": [
                "The heron is in the reeds, and it is wading.",
                "The kiln is an oven, and it is cold.",
                "It is in the well-kept yard.",
                None,
            ]
        }
    )
    assert ablate(rows, "keywords_only", keep=0.3)["rationale"][:] == [
        "heron reeds wading",
        "kiln oven cold",
        "well-kept yard",
        None,
    ]
    assert ablate(rows, "keywords_only", keep=0.01)["rationale"][2] == "well-kept"
    with pytest.raises(ValueError, match="keep=0 must be above 0"):
        ablate(rows, "keywords_only", keep=0)


def test_rationale_after_label(table, tokenizer):
    kind = "rationale_after_label"
    after = ablate(table, kind)
    encode = DualHeadEncoder(tokenizer, {"entailed": 0, "refuted": 1, "unknown": 2}, **ABLATIONS[kind].encoder)
    ids = encode.encode_dataset(after)[4]["input_ids"]
    assert tokenizer.decode(ids) == (
        "Text 4.\nFinal Answer:\nrefuted\nReasoning:\nIt is 4 of the words, and so 16.<eos>"
    )
    assert all(not one.encoder for name, one in ABLATIONS.items() if name != kind)


# What can't be changed is told


def test_a_text_that_stands_in_two_rows_is_not_given_back():
    pairs = Dataset.from_dict(
        {"rationale": [f"Of question {n // 2}." for n in range(40)], "label": ["yes", "no"] * 20}
    )
    for kind in ("shuffled_rationale", "shuffled_rationale_and_label", "same_label_rationale"):
        for seed in range(5):
            assert all(changed(pairs, ablate(pairs, kind, seed)))


def test_rows_that_have_to_keep_theirs_are_counted(told):
    rows = Dataset.from_dict({"rationale": ["Same."] * 5 + ["Other.", "Third.", None], "label": ["a"] * 8})
    after = ablate(rows, "shuffled_rationale")
    assert sum(not it for it in changed(rows, after)) == 3
    assert "8 rows, 1 of them without a rationale, 3 keep their rationale's text" in told.text
    one_of_its_label = Dataset.from_dict({"rationale": ["One.", "Two.", "Three."], "label": ["a", "b", "b"]})
    assert ablate(one_of_its_label, "same_label_rationale")["rationale"][:] == ["One.", "Three.", "Two."]
    assert "1 keep" in told.text


def test_splits_stay_apart(table):
    both = DatasetDict(train=table.select(range(20)), validation=table.select(range(20, 30)))
    after = ablate(both, "shuffled_rationale", seed=1)
    assert isinstance(after, datasets.DatasetDict)
    for name, split in both.items():
        assert Counter(after[name]["rationale"]) == Counter(split["rationale"])
        assert all(changed(split, after[name]))


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        ("shuffled", {}, "no ablation 'shuffled': did you mean 'shuffled_rationale'"),
        ("label_only", {"rationale_column": "why"}, "no column 'why'"),
        ("same_label_rationale", {"label_column": "lable"}, "did you mean 'label'"),
    ],
)
def test_bad_input(table, kind, columns, message):
    with pytest.raises((ValueError, TableError), match=message):
        ablate(table, kind, **columns)
