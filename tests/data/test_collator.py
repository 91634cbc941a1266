"""Padded batches, tensor by tensor."""

import logging

import pytest
import torch

from dhrd_hf import DualHeadCollator
from dhrd_hf.data import ensure_pad_token, input_only

# The first token of a row is no target here: nothing of the row predicts it.
FEATURES = [
    {"input_ids": [5, 6, 7], "input_length": 2, "reasoning_targets": [-100, 6, 7], "labels": 1},
    {"input_ids": [8], "input_length": 1, "reasoning_targets": [-100], "labels": 0},
]
RIGHT = {
    "input_ids": [[5, 6, 7], [8, 0, 0]],
    "attention_mask": [[1, 1, 1], [1, 0, 0]],
    "input_length": [2, 1],
    "reasoning_targets": [[-100, 6, 7], [-100, -100, -100]],
    "labels": [1, 0],
}
LEFT = {
    "input_ids": [[5, 6, 7], [0, 0, 8]],
    "attention_mask": [[1, 1, 1], [0, 0, 1]],
    "input_length": [2, 1],
    "reasoning_targets": [[-100, 6, 7], [-100, -100, -100]],
    "labels": [1, 0],
}


def as_lists(batch):
    assert all(isinstance(value, torch.Tensor) for value in batch.values())
    return {name: value.tolist() for name, value in batch.items()}


@pytest.mark.parametrize(("side", "expected"), [("right", RIGHT), ("left", LEFT)])
def test_padding_is_on_the_tokenizers_side(make_tokenizer, side, expected):
    batch = DualHeadCollator(make_tokenizer(padding_side=side))(FEATURES)
    assert as_lists(batch) == expected
    assert {value.dtype for value in batch.values()} == {torch.long}


def test_the_docstrings_batch(tokenizer):
    features = [
        {"input_ids": [5, 6, 7], "input_length": 2, "reasoning_targets": [5, 6, 7], "labels": 1},
        {"input_ids": [8], "input_length": 1, "reasoning_targets": [8], "labels": 0},
    ]
    assert as_lists(DualHeadCollator(tokenizer)(features)) == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "input_length": [2, 1],
        "reasoning_targets": [[5, 6, 7], [8, -100, -100]],
        "labels": [1, 0],
    }


def test_a_left_padded_row_has_the_targets_it_has_alone(make_tokenizer):
    """No padding token may predict a row's first token: alone, nothing does."""
    features = [
        {"input_ids": [5, 6, 7, 8], "input_length": 2, "reasoning_targets": [5, 6, 7, 8]},
        {"input_ids": [9, 10], "input_length": 1, "reasoning_targets": [9, 10]},
    ]
    collate = DualHeadCollator(make_tokenizer(padding_side="left"))

    def predicted(batch):
        # (the token that predicts, whether it is one, its target), as the shift inside the model pairs them
        shifted = zip(
            batch["attention_mask"][:, :-1].flatten(), batch["reasoning_targets"][:, 1:].flatten(), strict=True
        )
        return sorted((mask.item(), target.item()) for mask, target in shifted if target != -100)

    alone = sorted(pair for feature in features for pair in predicted(collate([feature])))
    assert predicted(collate(features)) == alone == [(1, 6), (1, 7), (1, 8), (1, 10)]


def test_padding_to_a_multiple_and_with_eos_as_pad(pad_is_eos_tokenizer):
    batch = DualHeadCollator(pad_is_eos_tokenizer, pad_to_multiple_of=4)(
        [{"input_ids": [5, 6, 1], "input_length": 1, "reasoning_targets": [5, 6, 1], "labels": 2}]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0]]
    assert batch["reasoning_targets"].tolist() == [[5, 6, 1, -100]]  # the real eos is a target, the padding is not


@pytest.mark.parametrize("labels", [[0.5, -1.0], [[1.0, 0.0], [0.0, 0.0]]])
def test_float_labels_stay_floats(tokenizer, labels):
    batch = DualHeadCollator(tokenizer)([{"input_ids": [5], "labels": label} for label in labels])
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == labels


def test_rows_of_tensors_and_rows_of_x_alone(tokenizer):
    batch = DualHeadCollator(tokenizer)([{"input_ids": torch.tensor([5, 6]), "attention_mask": torch.tensor([1, 1])}])
    assert as_lists(batch) == {"input_ids": [[5, 6]], "attention_mask": [[1, 1]]}


def test_a_given_attention_mask_is_kept(tokenizer):
    rows = [{"input_ids": [5, 6, 7], "attention_mask": [0, 1, 1]}, {"input_ids": [8, 9], "attention_mask": [1, 1]}]
    assert DualHeadCollator(tokenizer)(rows)["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 0]]


def test_without_pad_token_eos_becomes_it_and_a_warning_says_so(make_tokenizer, caplog):
    tokenizer = make_tokenizer(pad_token=None)
    with caplog.at_level(logging.WARNING):
        collate = DualHeadCollator(tokenizer)
    assert tokenizer.pad_token == "<eos>" and "<eos>" in caplog.text
    assert collate([{"input_ids": [5, 6]}, {"input_ids": [7]}])["input_ids"].tolist() == [[5, 6], [7, 1]]
    with pytest.raises(ValueError, match="add_special_tokens"):
        ensure_pad_token(make_tokenizer(pad_token=None, eos_token=None))


def test_input_only_is_x(tokenizer, encoded):
    for row in encoded:
        x = input_only(row)
        assert x["input_ids"] == row["input_ids"][: row["input_length"]]
        assert x["attention_mask"] == [1] * row["input_length"]
        assert x.keys() == {"input_ids", "attention_mask", "labels"}
    assert input_only({"input_ids": [5, 6], "labels": 1}) == {"input_ids": [5, 6], "labels": 1}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "no rows"),
        ([{"input_ids": []}], "no tokens"),
        ([{"input_ids": [5], "labels": 1}, {"input_ids": [6]}], "labels"),
        ([{"input_ids": [5, 6], "input_length": 0}], "input_length 0"),
        ([{"input_ids": [5, 6], "input_length": 3}], "input_length 3"),
        ([{"input_ids": [5, 6], "input_length": 1, "reasoning_targets": [5]}], "reasoning_targets"),
        ([{"input_ids": [5, 6], "reasoning_targets": [5, 6], "labels": 1}], "reasoning_targets and no input_length"),
    ],
)
def test_broken_rows_are_refused(tokenizer, features, message):
    with pytest.raises(ValueError, match=message):
        DualHeadCollator(tokenizer)(features)
