"""The suffix is text that goes on: no space at its joints, and no special token in it."""

import pytest
from tiny_tokenizers import KINDS, tiny_tokenizer

from dhrd_hf import DualHeadEncoder
from dhrd_hf.data.inputs import continued_ids

LABELS = {"no": 0, "yes": 1}
DELIMITERS = ("\nReasoning:\n", "\nFinal Answer:\n")


def encoded(tokenizer, text, rationale, label="no"):
    encode = DualHeadEncoder(tokenizer, LABELS, max_length=200)
    rows = encode({"text": [text], "label": [label], "rationale": [rationale]})
    return rows["input_ids"][0], rows["input_length"][0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "words"])
def test_a_row_has_the_ids_of_its_joined_text(kind):
    """Where the parts do not merge: x ends in a point, the suffix begins with a line."""
    tokenizer = tiny_tokenizer(kind)
    text, rationale = "It glows. Wen ran.", "Wen is fed and the lamp hums"
    ids, length = encoded(tokenizer, text, rationale)
    x = tokenizer(text)["input_ids"]
    assert ids[:length] == x
    joined = tokenizer(text + f"{DELIMITERS[0]}{rationale}{DELIMITERS[1]}no")["input_ids"]
    assert joined[:length] == x, "the example must not merge x"
    assert ids == [*joined, tokenizer.eos_token_id]
    assert encoded(tokenizer, text, None)[0][length:-1] == tokenizer(text + DELIMITERS[1] + "no")["input_ids"][length:]


def test_the_ids_of_a_joint_of_sentencepiece():
    """Its tokenizer begins every text with a space, which stood before each part of the suffix."""
    tokenizer = tiny_tokenizer("sentencepiece")
    assert tokenizer.convert_ids_to_tokens(tokenizer("\nIt")["input_ids"])[:2] == ["\u2581", "<0x0A>"]
    ids, length = encoded(tokenizer, "Wen ran.", "It glows.")
    assert tokenizer.decode(ids) == f"Wen ran.{DELIMITERS[0]}It glows.{DELIMITERS[1]}no<eos>"
    tokens = tokenizer.convert_ids_to_tokens(ids[length:])
    assert tokens[0] == "<0x0A>" and tokens[tokens.index("<0x0A>", 1) + 1].startswith("I")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rationale", ["<eos>", "It <eos> glows.<pad>", "<bos><bos> Wen ran", "Wen ran <unk><pad> so"])
def test_special_strings_in_a_rationale_stay_text(kind, rationale):
    tokenizer = tiny_tokenizer(kind)
    special = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    ids, length = encoded(tokenizer, "It glows.", rationale)
    assert not special & set(ids[length:-1]) and ids[-1] == tokenizer.eos_token_id
    if kind in ("byte-level", "sentencepiece"):  # the others have no token for some of these characters
        assert tokenizer.decode(ids[length:-1]) == f"{DELIMITERS[0]}{rationale}{DELIMITERS[1]}no"
    assert tokenizer("<eos>", add_special_tokens=False)["input_ids"] == [tokenizer.eos_token_id]  # x's stay special


def test_x_keeps_the_special_tokens_that_are_in_it(tokenizer):
    ids, length = encoded(tokenizer, "It <eos> glows.", "So.")
    assert tokenizer.eos_token_id in ids[:length]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_has_no_ids_and_each_keeps_its_place(kind):
    tokenizer = tiny_tokenizer(kind)
    [one] = continued_ids(tokenizer, ["Wen ran"])
    assert continued_ids(tokenizer, ["", "Wen ran", "", "Wen ran"]) == [[], one, [], one] and one
    assert continued_ids(tokenizer, []) == []
