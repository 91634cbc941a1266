"""Answers decoded with the reasoning head, against the family's own `generate` on one row at a time."""

import json
import logging

import pytest
import torch
from datasets import Dataset

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadEncoder, export_classifier
from dhrd_hf.data.prompts import DEFAULT_SUFFIX
from dhrd_hf.evaluation import CoTAnswer, decode_answers, load_classifier
from dhrd_hf.evaluation.cot import CoTDecoder, read_answer
from dhrd_hf.evaluation.throughput import decoding, read_rows
from dhrd_hf.training import add_lora

LABELS = ["entailed", "refuted", "unknown"]
TEXTS = [f"{'The kiln is cold. ' * (1 + 3 * index % 5)}So: row {index} glows." for index in range(5)]
# Of a distribution's head only its first token is left: a draw is the most probable token.
GREEDY = {"temperature": 1.0, "top_p": 1e-6}


def one_by_one(lm, tokenizer, texts, before="\nReasoning:\n", new_tokens=8):
    """What a stock LM writes greedily behind each text and the delimiter, each tokenised alone: the oracle."""
    delimiter = tokenizer(before, add_special_tokens=False)["input_ids"]
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"] + delimiter])
        options = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        new = lm.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens, **options
        )
        found.append(new[0, ids.shape[1] :].tolist())
    return found


@pytest.mark.parametrize(
    ("name", "special"),
    [("llama", {"add_bos": True}), ("llama", {"pad_token": "<eos>"}), ("gpt2", {}), ("qwen3-moe", {})],
)
def test_a_batch_writes_what_the_stock_lm_writes_alone(name, special, dual_of, stock_lm_of, make_tokenizer):
    tokenizer = make_tokenizer(**special)
    dual = dual_of(name)
    dual.config.pad_token_id = tokenizer.pad_token_id
    expected = one_by_one(stock_lm_of(dual), tokenizer, TEXTS)
    assert len({tuple(ids) for ids in expected}) > 1
    for batch_size in (1, 3):
        answers = decode_answers(dual, tokenizer, TEXTS, LABELS, batch_size, max_new_tokens=8, **GREEDY)
        assert [it.text for it in answers] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
        assert [it.new_tokens for it in answers] == [len(ids) for ids in expected]


def test_an_adapter_answers_with_what_it_has_learned(dual_of, tokenizer):
    torch.manual_seed(0)
    dual = dual_of("llama")
    before = decode_answers(dual, tokenizer, TEXTS, LABELS, max_new_tokens=8, **GREEDY)
    model = add_lora(dual, r=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wrapped = decode_answers(model, tokenizer, TEXTS, LABELS, max_new_tokens=8, **GREEDY)
    assert wrapped == decode_answers(model.merge_and_unload(), tokenizer, TEXTS, LABELS, max_new_tokens=8, **GREEDY)
    assert wrapped != before


@pytest.fixture
def three_rows(rows):
    return [rows[0], rows[8], {**rows[4], "label": "unknown"}]


def learned_by_heart(model, tokenizer, rows, **options):
    """The model, when it has learned the suffixes of some rows, encoded as for training."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    encoded = DualHeadEncoder(tokenizer, model.config.label2id, reasoning_span="rationale", **options)(columns)
    batch = DualHeadCollator(tokenizer)(
        [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model


def test_a_trained_model_is_read(dual_of, tokenizer, three_rows, label2id, caplog):
    """Three rows learned by heart, encoded as for training: rationale and label come back in full, in any order."""
    rows = three_rows
    model = learned_by_heart(dual_of("llama", label2id=label2id, alpha=1.0, beta=0.0), tokenizer, rows).train()
    texts = [row["text"] for row in rows]
    with caplog.at_level(logging.WARNING):
        answers = decode_answers(model, tokenizer, texts, list(label2id), batch_size=2, max_new_tokens=60)
    assert model.training and not caplog.records
    for row, answer in zip(rows, answers, strict=True):
        assert answer.text == f"{row['rationale'].strip()}\nFinal Answer:\n{row['label']}"
        assert answer.label == row["label"]
        assert answer.new_tokens == len(tokenizer(answer.text)["input_ids"]) + 1  # what ends it
    assert (
        decode_answers(model, tokenizer, texts[::-1], list(label2id), batch_size=2, max_new_tokens=60) == answers[::-1]
    )


@pytest.mark.parametrize(
    ("suffix", "label_first"),
    [
        ("\nWhy:\n{rationale}\nVerdict: {label}!", False),
        ("\nReasoning:\n{rationale}\nFinal Answer:\n{label}", True),
        ("<think>{rationale}</think>{label}<end>", True),
    ],
)
def test_a_model_is_asked_as_it_was_trained(dual_of, tokenizer, three_rows, label2id, tmp_path, suffix, label_first):
    """What its config says, as a checkpoint keeps it; an argument wins over it."""
    as_trained = {"suffix": suffix, "rationale_after_label": label_first}
    model = dual_of("llama", label2id=label2id, alpha=1.0, beta=0.0)
    learned_by_heart(model, tokenizer, three_rows, **as_trained)
    texts, names = [row["text"] for row in three_rows], list(label2id)

    def labels(model, **options):
        return [it.label for it in decode_answers(model, tokenizer, texts, names, max_new_tokens=60, **options)]

    expected = [row["label"] for row in three_rows]
    assert labels(model) != expected == labels(model, **as_trained)
    model.config.suffix_template, model.config.rationale_after_label = suffix, label_first
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = load_classifier(tmp_path, device="cpu")
    assert labels(again) == expected
    own = {"suffix": "{rationale} So {label}", "rationale_after_label": not label_first}
    assert labels(again, **own) != expected


def test_a_checkpoint_that_does_not_say_has_the_papers_suffix(dual_of, tokenizer, tmp_path):
    dual_of("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("suffix_template", "rationale_after_label"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    decoder = CoTDecoder(AutoModelForDualHeadClassification.from_pretrained(tmp_path), tokenizer)
    assert (decoder.suffix, decoder.label_first) == (DEFAULT_SUFFIX, False)
    assert tokenizer.decode(decoder.delimiter) == "\nReasoning:\n"


def test_decoded_labels_have_the_ids_of_the_model(dual_of, tokenizer, three_rows):
    """The benchmark's engine, with labels whose ids are in no order of the alphabet."""
    model = dual_of("llama", id2label={0: "unknown", 1: "entailed", 2: "refuted"}, alpha=1.0, beta=0.0)
    learned_by_heart(model, tokenizer, three_rows)
    rows, _ = read_rows(Dataset.from_list(three_rows), model.config, tokenizer, "{text}")
    run = decoding(CoTDecoder(model, tokenizer, max_new_tokens=60), rows, 2)
    assert [row.label for row in rows] == [1, 2, 0] and run(False).labels == [1, 2, 0]


def test_the_models_own_generation_config_changes_nothing(dual_of, stock_lm_of, tokenizer):
    dual = dual_of("llama")
    lm = stock_lm_of(dual)
    expected = one_by_one(lm, tokenizer, TEXTS)
    own = {"repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "min_p": 0.9, "suppress_tokens": expected[0][:1]}
    lm.generation_config.update(**own)
    assert one_by_one(lm, tokenizer, TEXTS) != expected  # a stock model follows it
    dual.generation_config.update(**own)
    kept = dual.generation_config
    decoder = CoTDecoder(dual, tokenizer, max_new_tokens=8, **GREEDY)
    prompts, _ = decoder.prompts(TEXTS)
    assert decoder.decode(prompts) == expected
    assert dual.generation_config is kept and kept.repetition_penalty == 3.0


def test_the_seed_decides_and_the_order_does_not(dual_of, tokenizer):
    options = {"batch_size": 3, "max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0}
    dual = dual_of("llama")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = decode_answers(dual, tokenizer, TEXTS, LABELS, seed=1, **options)
    assert torch.equal(torch.rand(1), expected)
    order = [3, 0, 1, 2, 4]
    again = decode_answers(dual, tokenizer, [TEXTS[index] for index in order], LABELS, seed=1, **options)
    assert again == [first[index] for index in order]
    assert decode_answers(dual, tokenizer, TEXTS, LABELS, seed=2, **options) != first


def test_what_has_no_answer_is_counted(dual_of, tokenizer, caplog):
    delimiter = len(tokenizer("\nReasoning:\n")["input_ids"])
    dual = dual_of("gpt2", max_input_length=512 - delimiter - 5)  # of 512 positions
    texts = ["", TEXTS[0], None, "The kiln is cold. " * 200]
    with caplog.at_level(logging.WARNING):
        answers = decode_answers(dual, tokenizer, texts, LABELS, max_new_tokens=20, **GREEDY)
    assert [it.label for it in answers] == [None] * 4
    assert answers[0] == answers[2] == CoTAnswer("", None, 0)
    assert answers[3].new_tokens == 5
    (said,) = [it.getMessage() for it in caplog.records]
    assert said.startswith("4 answers decoded: 4 name none of the labels, 2 of them of empty texts;")
    assert "1 inputs cut" in said
    dual.config.max_input_length = 512 - delimiter
    assert decode_answers(dual, tokenizer, texts[3:], LABELS) == [CoTAnswer("", None, 0)]
    assert decode_answers(dual, tokenizer, [], LABELS) == []


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Rain is water.\nFinal Answer:\nno", "no"),
        ("Final Answer:\nyes", "yes"),  # an empty rationale
        ("Rain is water.\nFinal Answer:\nnot sure", "not sure"),
        ("Rain is water.\nFinal Answer:\n yes \nReasoning:\nno", "yes"),  # it went on
        ("a\nFinal Answer:\nyes\nFinal Answer:\nno", "yes"),
        ("Rain is water.\nfinal answer: YES.", "yes"),
        ("Rain is water.\n\n  FINAL ANSWER:\n\nNot Sure!", "not sure"),
        ("Rain is water.\nFinal Answer:\nyes, it is", None),
        ("Rain is water.\nFinal Answer:\n", None),
        ("Rain is water.\nFinal Answer:\nyess", None),
        ("So the final answer: yes", None),  # within a sentence
        ("It is yes.", None),
        ("yes", None),
        ("", None),
    ],
)
def test_a_label_is_read_and_never_guessed(text, label):
    assert read_answer(text, ["yes", "no", "not sure"]) == label


def test_labels_that_look_alike_are_kept_apart():
    behind = "It is so.\nFinal Answer:\n{}".format
    assert read_answer(behind("c++"), ["c", "c++"]) == "c++"
    assert read_answer(behind("C++"), ["c", "c++"]) is None
    assert read_answer(behind("-1."), ["1", "0"]) is None
    # Labels of which nothing is left without punctuation are no answer to nothing.
    assert read_answer(behind(""), ["?", "yes"]) is None
    assert read_answer(behind("..."), ["+", "no"]) is None
    assert read_answer(behind("+"), ["+", "no"]) == "+"
    own = "<think>{rationale}</think>{label}<end>"
    assert read_answer("It is so.</think>yes<end>", ["yes", "no"], own) == "yes"
    assert read_answer("It is so.</THINK> Yes", ["yes", "no"], own) == "yes"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("\nFinal Answer:\nyes\nReasoning:\nno\nFinal Answer:\nno", "yes"),
        ("\nFinal Answer:\nYes.\nReasoning:\nIt is so.", "yes"),
        ("\nFinal Answer:\nno", "no"),  # without a rationale
        ("\nReasoning:\nIt is so. yes", None),
        ("yes", None),
    ],
)
def test_a_label_that_stands_first_is_read(text, label):
    assert read_answer(text, ["yes", "no"], rationale_after_label=True) == label
    own = "<think>{rationale}</think>{label}<end>"
    said = text.replace("\nFinal Answer:\n", "</think>").replace("\nReasoning:\n", "<end><think>")
    assert read_answer(said, ["yes", "no"], own, rationale_after_label=True) == label


def test_what_can_not_be_done_is_a_line(dual_of, tokenizer, tmp_path):
    dual = dual_of("llama")
    classifier, _ = load_classifier(export_classifier(dual, tokenizer, tmp_path / "linear"))
    mlp, _ = load_classifier(export_classifier(dual_of("llama", classifier_head="mlp"), tokenizer, tmp_path / "mlp"))
    for model in (classifier, mlp):
        with pytest.raises(ValueError, match="without a reasoning head"):
            decode_answers(model, tokenizer, TEXTS, LABELS)
    for wrong in ({"batch_size": 0}, {"max_new_tokens": 0}, {"temperature": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
            decode_answers(dual, tokenizer, TEXTS, LABELS, **wrong)
    with pytest.raises(ValueError, match="0 labels"):
        decode_answers(dual, tokenizer, TEXTS, [])


def test_a_causal_lm_answers_too(make_lm, tokenizer):
    decoder = CoTDecoder(make_lm("llama"), tokenizer, **GREEDY)
    prompts, cut = decoder.prompts(TEXTS[:2])
    expected = one_by_one(make_lm("llama"), tokenizer, TEXTS[:2], new_tokens=5)
    assert (decoder.decode(prompts, max_new_tokens=5), cut) == (expected, 0)
