"""What an audit says that training would cut, against the encoder that cuts."""

import pytest
from made_rows import made

from dhrd_hf import DualHeadEncoder
from dhrd_hf.data import EncodingCounts
from dhrd_hf.rationales.audit import audit_rationales


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
