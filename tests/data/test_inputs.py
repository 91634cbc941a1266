"""The one way in which a text becomes x."""

import pytest
from families import tiny_config

from dhrd_hf import DualHeadEncoder
from dhrd_hf.data.inputs import input_limit, tokenize_inputs

TEXTS = [
    "It glows.",
    "",
    "All rooks in the yard sleep. " * 6,
    "Wen <eos> ran.<pad>",
    "Мост закрыт. 橋は閉まっている。" * 5,
]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("added", [{}, {"add_bos": True}, {"add_bos": True, "add_eos": True}])
def test_ids_are_those_of_the_deployed_tokenizer(side, added, make_tokenizer):
    tokenizer = make_tokenizer(truncation_side=side, **added)
    found = tokenize_inputs(tokenizer, TEXTS, 20)
    assert found.ids == [tokenizer(text, truncation=True, max_length=20)["input_ids"] for text in TEXTS]
    whole = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert found.cut == {place: whole[place] for place in (2, 4)} and all(length > 20 for length in found.cut.values())
    assert tokenize_inputs(tokenizer, TEXTS).ids == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert tokenize_inputs(tokenizer, [], 20) == ([], {})


@pytest.mark.parametrize(
    ("trained", "model_max_length", "positions", "argument", "limit"),
    [
        (30, 40, 50, None, 30),
        (40, 30, 50, None, 30),
        (50, 40, 30, None, 30),
        (None, 10**30, 50, None, 50),
        (None, 20, 50, None, 20),
        (30, 40, 50, 45, 45),  # said on purpose
        (30, 40, 50, 60, 50),
    ],
)
def test_the_limit_is_the_least(trained, model_max_length, positions, argument, limit, make_tokenizer):
    config = tiny_config("llama", max_position_embeddings=positions)
    config.max_input_length = trained
    assert input_limit(config, make_tokenizer(model_max_length=model_max_length), argument) == limit


def test_the_encoder_makes_x_of_it(tokenizer, label2id):
    encode = DualHeadEncoder(tokenizer, label2id, max_length=64, max_input_length=20)
    rows = encode({"text": [TEXTS[0], TEXTS[2]], "label": ["unknown", "refuted"], "rationale": [None, "It sleeps."]})
    x = [ids[:length] for ids, length in zip(rows["input_ids"], rows["input_length"], strict=True)]
    assert x == tokenize_inputs(tokenizer, [TEXTS[0], TEXTS[2]], 20).ids
