"""Choosing the best of several rationales, by a student's likelihood."""

import random

import pytest
import torch

from dhrd_hf import DualHeadEncoder
from dhrd_hf.data.inputs import fill_settings
from dhrd_hf.rationales.filter import Tally
from dhrd_hf.rationales.select import LikelihoodScore, select_best

CLEAN = [
    "A kiln that is cold gives off no light, so nothing in the yard could be lit by it.",
    "Every rook there is asleep, and Pim is one of the rooks, which settles it for him as well.",
    "Two cups is more than a single cup, and both of them are on the floor by now.",
]
FAULTY = {
    "truncated": "A kiln that is cold gives off no light at all. So whatever shines in the yar",
    "prompt_echo": "Reasoning: A kiln that is cold gives off no light at all. [END OF REASONING]\nAnswer: refuted",
    "repetition": "The kiln gives off no light at all. It is cold. " + "The kiln gives off no light at all. " * 3,
    "length": "The kiln is as cold as the yard around it. "
    + " ".join(f"Brick {n} of it is cold too." for n in range(40)),
    "label_leak": "The claim is refuted, since a kiln that is cold gives off no light at all.",
    "empty": "N/A",
    "refusal": "I'm sorry, but I can't help with that request at this time.",
}


@pytest.fixture
def rows():
    rationales = [CLEAN[0], *FAULTY.values(), CLEAN[1], None, CLEAN[2]]
    return [
        {"id": n, "text": f"Text {n}.", "label": ["entailed", "refuted"][n % 2], "rationale": rationale}
        for n, rationale in enumerate(rationales)
    ]


# Select


def samples(counts, label="refuted"):
    return [
        {"id": key, "text": f"Text {key}.", "label": label, "rationale": f"Sample {n} of {key}."}
        for key, count in counts.items()
        for n in range(count)
    ]


def by_hash(rows):
    return [random.Random(row["rationale"]).random() for row in rows]


def test_the_best_of_each_row_is_chosen():
    table = samples({"a": 4, "b": 2, "c": 3})
    random.Random(0).shuffle(table)
    tally = Tally()
    best, fewer = select_best(table, by_hash, best_of=3, tally=tally)
    assert fewer == 1
    assert [row["id"] for row in best] == list(dict.fromkeys(row["id"] for row in table))
    for row in best:
        first = [it for it in table if it["id"] == row["id"]][:3]
        assert row["rationale"] == max(first, key=lambda it: by_hash([it])[0])["rationale"]
        assert row["rationale_score"] == by_hash([row])[0]
    assert (tally.rows_in, tally.rows_out) == (3 + 2 + 3, 3)
    assert tally.dropped == {"another is better": 5}


def test_lists_rows_without_any_and_ties():
    table = [
        {"text": "p", "label": "x", "rationale": ["One.", "Two.", "  "]},
        {"text": "q", "label": "y", "rationale": []},
        {"text": "r", "label": "y", "rationale": None},
    ]
    best, _ = select_best(table, lambda rows: [0.5] * len(rows))
    assert [(row["rationale"], row["rationale_score"]) for row in best] == [("One.", 0.5), (None, None), (None, None)]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (
            samples({"a": 2, "b": 1}),
            {"best_of": 3},
            "best of 3 can't be chosen: all 2 rows have fewer samples, 2 at most",
        ),
        (samples({"a": 1}), {"best_of": 0}, "best_of=0 must be 1"),
        (samples({"a": 1}) + samples({"a": 1}, "entailed"), {}, "several labels, such as 'refuted' and 'entailed'"),
        ([{"text": "p", "rationale": "So."}], {}, "no column of keys"),
        ([{"id": None, "rationale": "So."}], {}, "row 0 has no 'id'"),
        ([{"id": 1, "why": "So."}], {}, "no column 'rationale'"),
    ],
)
def test_what_can_not_be_chosen_from(table, options, message):
    with pytest.raises(ValueError, match=message):
        select_best(table, by_hash, **options)


def test_many_samples_are_scored_a_window_at_a_time():
    table, seen, told = samples(dict.fromkeys(range(400), 3)), [], []

    def score(rows):
        seen.extend(row["rationale"] for row in rows)
        return by_hash(rows)

    best, _ = select_best(table, score, progress=told.append)
    assert seen == [row["rationale"] for row in table] and told == [512, 512, 176]
    for number, row in enumerate(best):
        its = table[3 * number : 3 * number + 3]
        assert row["rationale_score"] == max(by_hash(its)) == by_hash([row])[0]


@pytest.mark.parametrize("found", [[0.5], [0.5, float("nan")]])
def test_a_score_that_is_none(found):
    with pytest.raises(ValueError, match="expected a number for each"):
        select_best(samples({"a": 2}), lambda rows: found)


# The likelihood


def log_p_naive(lm, tokenizer, text, rationale, label):
    """log p of the label's tokens, one unpadded row in float64 through the family's own causal LM."""
    reason = f"\nReasoning:\n{rationale}" if rationale else ""
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("\nReasoning:\n", rationale or "")]
    ids = tokenizer(text)["input_ids"] + (parts[0] + parts[1] if reason else [])
    before = len(ids + tokenizer("\nFinal Answer:\n", add_special_tokens=False)["input_ids"])
    ids += tokenizer(f"\nFinal Answer:\n{label}", add_special_tokens=False)["input_ids"]
    log_p = lm(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(log_p[place - 1, ids[place]].item() for place in range(before, len(ids)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"], indirect=True)
@pytest.mark.parametrize("batch_tokens", [1, 600])
def test_the_likelihood_against_a_row_at_a_time(family, dual_of, stock_lm_of, tokenizer, rows, batch_tokens, label2id):
    dual = dual_of(family).double()
    score = LikelihoodScore(dual, tokenizer, label2id, batch_tokens=batch_tokens)
    rows = [row for row in rows if row["rationale"] and row["rationale"] != FAULTY["length"]]  # GPT-2 has 256 places
    lm = stock_lm_of(dual)
    with torch.no_grad():
        expected = [
            log_p_naive(lm, tokenizer, row["text"], row["rationale"].strip(), row["label"])
            - log_p_naive(lm, tokenizer, row["text"], None, row["label"])
            for row in rows
        ]
    found = score(rows)
    assert found == pytest.approx(expected, abs=2e-5)  # the score is float32 in its last step
    assert max(map(abs, found)) > 1e-3 and len(set(found)) > 5


def test_the_likelihood_from_a_folder(lm_dir_of, dual_of, tokenizer, tmp_path, rows):
    rows = [row for row in rows if row["rationale"]][:3]
    lm = LikelihoodScore.from_pretrained(lm_dir_of("llama"), ["entailed", "refuted"], device="cpu")
    dual = dual_of(
        "llama", label2id={"refuted": 0, "entailed": 1}, id2label={0: "refuted", 1: "entailed"}, num_labels=2
    )
    dual.config.prompt_template = "{text}"
    dual.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    trained = LikelihoodScore.from_pretrained(tmp_path, ["entailed"], device="cpu")
    assert trained(rows) == pytest.approx(lm(rows), abs=1e-5)  # the same LM; the order of its labels says nothing
    assert lm([]) == []
    # One that was trained with another suffix is asked with it.
    suffix = "\nWhy: {rationale}\nSo: {label}"
    dual.config.suffix_template = suffix
    dual.save_pretrained(tmp_path)
    own = LikelihoodScore.from_pretrained(tmp_path, ["entailed"], device="cpu")
    given = LikelihoodScore.from_pretrained(lm_dir_of("llama"), ["entailed", "refuted"], device="cpu", suffix=suffix)
    assert own(rows) == pytest.approx(given(rows), abs=1e-5) and own(rows) != pytest.approx(lm(rows), abs=1e-3)
    assert isinstance(lm.encode, DualHeadEncoder)
    with pytest.raises(ValueError, match="labels that .* does not know: 'maybe'; it has 'entailed', 'refuted'"):
        LikelihoodScore.from_pretrained(tmp_path, ["entailed", "maybe"])
    for wrong, said in (({"max_length": 0}, "max_length 0 leaves no room"), ({"batch_tokens": 0}, "batch_tokens=0")):
        with pytest.raises(ValueError, match=said):
            LikelihoodScore.from_pretrained(tmp_path, ["entailed"], device="cpu", **wrong)


def test_a_score_leaves_nothing_with_its_tokenizer(dual_of, make_tokenizer, label2id):
    label2id = dict(label2id)  # the model would find encoders of other tests by the labels that they share
    model, tokenizer = dual_of("llama", label2id=label2id), make_tokenizer()
    LikelihoodScore(model, tokenizer, label2id, suffix="\nBecause {rationale} so {label}")
    fill_settings(model.config, tokenizer)
    assert model.config.suffix_template is None
