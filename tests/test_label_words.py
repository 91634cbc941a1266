"""The head that starts from label words, against the families' own causal LMs."""

import pytest
import torch
from families import SUPPORTED, tiny_config
from torch import nn
from transformers import BitsAndBytesConfig

from dhrd_hf import AutoModelForDualHeadClassification, init_classifier_from_label_words
from dhrd_hf.training import add_lora
from dhrd_hf.training.label_words import names_say_nothing, with_answer_cue

NAMES = {0: "entailed", 1: "refuted", 2: "unknown"}


def _words(tokenizer, words):
    # Written apart: the tokens that a byte-level tokenizer has for a word behind a space.
    return [tokenizer(" " + word, add_special_tokens=False)["input_ids"] for word in words]


def _expected(lm, ids, x):
    """Logits of the words at the last token of x, as the causal LM itself says, less their mean; no cap, no bias."""
    head = lm.get_output_embeddings()
    with torch.no_grad():
        if getattr(head, "bias", None) is not None:
            nn.init.zeros_(head.bias)
        lm.config.get_text_config().final_logit_softcapping = None
        logits = lm(x).logits[0, -1].double()
    means = torch.stack([logits[of].mean() for of in ids])
    return means - means.mean()


@pytest.mark.parametrize("family", SUPPORTED)
def test_the_untrained_classifier_says_what_the_language_model_would(family, tokenizer):
    torch.manual_seed(0)
    model = AutoModelForDualHeadClassification.from_config(tiny_config(family), id2label=NAMES).eval()
    init_classifier_from_label_words(model, tokenizer)
    x = torch.tensor([[5, 9, 11, 30]])
    with torch.no_grad():
        logits = model(x).logits[0].double()
    expected = _expected(model.as_causal_lm(), _words(tokenizer, NAMES.values()), x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=2e-4, atol=2e-5)


def test_words_of_several_tokens_and_given_words(dual_of, tokenizer):
    model = dual_of("gemma2", id2label=NAMES, num_labels=3, dtype=torch.bfloat16)
    tokens = init_classifier_from_label_words(model, tokenizer, {"refuted": "no way"})
    assert {name: tokenizer.convert_tokens_to_string(of) for name, of in tokens.items()} == {
        "entailed": " entailed", "refuted": " no way", "unknown": " unknown",
    }  # fmt: skip
    rows = model.lm_head.weight.double()
    means = torch.stack([rows[of].mean(0) for of in _words(tokenizer, ["entailed", "no way", "unknown"])])
    expected = (means - means.mean(0)).to(torch.bfloat16)
    torch.testing.assert_close(model.score.weight, expected, rtol=0.01, atol=1e-6)
    assert model.score.weight.requires_grad


class _Int8Layer(nn.Module):
    """An output layer whose weight says nothing by itself, as that of a quantised model."""

    def __init__(self, linear):
        super().__init__()
        self.in_features = linear.in_features
        self.scale = linear.weight.abs().amax() / 127
        self.weight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, hidden):
        return hidden @ (self.weight * self.scale).T


def test_a_quantised_output_layer(tokenizer, dual_of):
    plain, model = (dual_of("llama", id2label=NAMES, num_labels=3) for _ in range(2))
    model.lm_head = _Int8Layer(plain.lm_head)
    init_classifier_from_label_words(model, tokenizer)
    with torch.no_grad():
        plain.lm_head.weight.copy_(model.lm_head(torch.eye(32)).T)
    init_classifier_from_label_words(plain, tokenizer)
    torch.testing.assert_close(model.score.weight, plain.score.weight, rtol=1e-4, atol=1e-6)


def test_qlora(make_lm, tokenizer, tmp_path):
    """Of a model in 4 bits, and with adapters."""
    pytest.importorskip("bitsandbytes")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    make_lm("llama", hidden_size=128, intermediate_size=128, head_dim=32).save_pretrained(tmp_path)
    model = AutoModelForDualHeadClassification.from_pretrained(tmp_path, quantization_config=four_bits, id2label=NAMES)
    init_classifier_from_label_words(model, tokenizer)
    x = torch.tensor([[5, 9, 11, 30]])
    with torch.no_grad():
        expected = _expected(model.as_causal_lm(), _words(tokenizer, NAMES.values()), x)
        torch.testing.assert_close(model(x).logits[0].double(), expected, rtol=1e-3, atol=1e-4)
        model = add_lora(model)
        torch.testing.assert_close(model(x).logits[0].double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"problem_type": "regression", "num_labels": 1}, None, "regression"),
        ({"classifier_head": "mlp", "id2label": NAMES}, None, "'mlp'"),
        ({"id2label": NAMES}, {"maybe": "perhaps"}, "maybe"),
        ({"id2label": NAMES}, {"refuted": " "}, "a word"),
        ({"id2label": NAMES}, {"refuted": "entailed"}, "same tokens"),
    ],
)
def test_what_has_no_such_start_is_refused(dual_of, tokenizer, changes, words, said):
    model = dual_of("llama", **changes)
    with pytest.raises(ValueError, match=said):
        init_classifier_from_label_words(model, tokenizer, words)


def test_names_that_say_nothing_and_cues():
    assert [names_say_nothing([name]) for name in ("1", "LABEL_2", "class 3", "-", "A", "yes", "class action")] == (
        [True] * 4 + [False] * 3
    )
    assert with_answer_cue("{text}") == "{text}\nAnswer:"
    assert with_answer_cue("{premise}\nTrue or false? It is") == "{premise}\nTrue or false? It is"
