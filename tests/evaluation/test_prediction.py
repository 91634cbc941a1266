import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import brier_score_loss, log_loss
from transformers import AutoModelForSequenceClassification

from dhrd_hf import export_classifier
from dhrd_hf.evaluation import calibration, calibration_metrics, load_classifier, predict_table, predict_texts
from dhrd_hf.training import add_lora

TEXTS = [f"{'The kiln is cold. ' * (1 + 7 * index % 11)}So: row {index} glows." for index in range(13)]


def one_by_one(stock, tokenizer, texts, **kwargs):
    """The logits of a stock classifier that sees one text at a time: the oracle."""
    with torch.no_grad():
        return [stock(**tokenizer(text, return_tensors="pt", **kwargs)).logits[0] for text in texts]


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_equals_the_stock_classifier_one_text_at_a_time(
    name, padding_side, dual_of, stock_classifier_of, make_tokenizer
):
    tokenizer = make_tokenizer(padding_side=padding_side)
    dual = dual_of(name)
    stock = stock_classifier_of(dual)
    expected = one_by_one(stock, tokenizer, TEXTS)
    for model in (stock, dual):
        found = list(predict_texts(model, tokenizer, TEXTS))
        for prediction, logits in zip(found, expected, strict=True):
            assert torch.allclose(torch.tensor(prediction.logits), logits, atol=1e-5)
            probabilities = logits.softmax(-1)
            assert prediction.label == dual.config.id2label[int(probabilities.argmax())]
            assert list(prediction.probabilities) == list(dual.config.id2label.values())
            assert torch.allclose(torch.tensor(list(prediction.probabilities.values())), probabilities, atol=1e-5)
            assert prediction.error is None and not prediction.cut
    assert len({prediction.logits for prediction in found}) == len(TEXTS)


def test_pad_is_eos(dual_of, stock_classifier_of, pad_is_eos_tokenizer):
    dual = dual_of("llama")
    dual.config.pad_token_id = pad_is_eos_tokenizer.pad_token_id
    texts = [*TEXTS[:3], "It ends here.<eos>", "<eos><eos>"]
    expected = one_by_one(stock_classifier_of(dual), pad_is_eos_tokenizer, texts[:4])
    *found, only_padding = predict_texts(dual, pad_is_eos_tokenizer, texts)
    for prediction, logits in zip(found, expected, strict=True):
        assert torch.allclose(torch.tensor(prediction.logits), logits, atol=1e-5)
    assert only_padding.label is None and "nothing but padding" in only_padding.error


def test_no_pad_token_at_all(dual_of, stock_classifier_of, make_tokenizer):
    tokenizer = make_tokenizer(pad_token=None)
    dual = dual_of("llama")
    expected = one_by_one(stock_classifier_of(dual), tokenizer, TEXTS)
    dual.config.pad_token_id = None
    found = list(predict_texts(dual, tokenizer, TEXTS))
    assert torch.allclose(torch.tensor([p.logits for p in found]), torch.stack(expected), atol=1e-5)
    assert dual.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("window", [1, 4, 13, 100])
def test_order_is_kept_whatever_the_window(window, dual_of, tokenizer):
    dual = dual_of("llama")
    whole = [p.logits for p in predict_texts(dual, tokenizer, TEXTS)]
    found = [p.logits for p in predict_texts(dual, tokenizer, iter(TEXTS), window=window, batch_tokens=64)]
    assert torch.allclose(torch.tensor(found), torch.tensor(whole), atol=1e-5)


def test_an_endless_stream_is_read_a_window_at_a_time(dual_of, tokenizer):
    read = []
    stream = (read.append(index) or f"row {index}" for index in itertools.count())
    predictions = predict_texts(dual_of("llama"), tokenizer, stream, window=8)
    assert read == []
    first = list(itertools.islice(predictions, 9))
    assert len(first) == 9 and len(read) == 16


def test_empty_texts_are_answered_in_their_place(dual_of, tokenizer):
    dual = dual_of("llama")
    texts = ["", TEXTS[0], " \n\t", None, TEXTS[1], float("nan")]
    found = list(predict_texts(dual, tokenizer, texts))
    alone = list(predict_texts(dual, tokenizer, [TEXTS[0], TEXTS[1]]))
    assert [p.error for p in found] == [
        "the text is empty",
        None,
        "the text is empty",
        "the text is empty",
        None,
        "the text is empty",
    ]
    assert [p.label for p in found] == [None, alone[0].label, None, None, alone[1].label, None]
    assert found[0].probabilities == {} and found[0].logits == ()
    assert [p.label for p in predict_texts(dual, tokenizer, ["", None])] == [None, None]
    assert list(predict_texts(dual, tokenizer, [])) == []


@pytest.mark.parametrize("limit_from", ["argument", "config", "tokenizer"])
def test_long_texts_are_cut_as_the_tokenizer_cuts_them(limit_from, dual_of, stock_classifier_of, make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True, add_eos=True)
    dual = dual_of("llama")
    argument = 20 if limit_from == "argument" else None
    dual.config.max_input_length = 20 if limit_from == "config" else None
    tokenizer.model_max_length = 20 if limit_from == "tokenizer" else int(1e30)
    texts = ["It glows.", *TEXTS[1:5]]
    expected = one_by_one(stock_classifier_of(dual), tokenizer, texts, truncation=True, max_length=20)
    found = list(predict_texts(dual, tokenizer, texts, max_length=argument))
    assert torch.allclose(torch.tensor([p.logits for p in found]), torch.stack(expected), atol=1e-5)
    assert [p.cut for p in found] == [False, True, True, True, True]
    assert not any(p.cut for p in predict_texts(dual, tokenizer, texts, max_length=400))


def test_batches_keep_to_the_budget_with_little_padding(dual_of, stock_classifier_of, tokenizer):
    dual = dual_of("llama")
    stock = stock_classifier_of(dual).train()
    seen = []

    def look(module, args, kwargs, output):
        assert kwargs["use_cache"] is False and output.past_key_values is None
        assert not module.training and torch.is_inference_mode_enabled()
        seen.append(kwargs["attention_mask"])

    stock.register_forward_hook(look, with_kwargs=True)
    texts = TEXTS * 4
    predictions = predict_texts(stock, tokenizer, texts, batch_tokens=400, batch_size=7)
    next(predictions)
    assert not torch.is_inference_mode_enabled() and stock.training
    assert len(list(predictions)) == len(texts) - 1
    assert all(mask.numel() <= 400 and len(mask) <= 7 for mask in seen)
    assert sum(len(mask) for mask in seen) == len(texts)
    assert max(len(mask) for mask in seen) > 1
    padding = 1 - sum(mask.sum().item() for mask in seen) / sum(mask.numel() for mask in seen)
    assert padding < 0.05


def test_rows_of_one_length_share_a_batch_without_padding(dual_of, tokenizer):
    dual = dual_of("llama")
    shapes = []
    dual.register_forward_hook(
        lambda module, args, kwargs, output: shapes.append(kwargs["attention_mask"]), with_kwargs=True
    )
    one, two = "It glows." * 3, "It glows." * 4
    a, b = (len(tokenizer(text)["input_ids"]) for text in (one, two))
    list(predict_texts(dual, tokenizer, [one, two] * 10, batch_tokens=18 * b))
    assert sorted(tuple(mask.shape) for mask in shapes) == sorted([(10, a), (10, b)])
    assert all(mask.all() for mask in shapes)


def test_multi_label(dual_of, stock_classifier_of, tokenizer):
    dual = dual_of("llama", problem_type="multi_label_classification")
    expected = torch.stack(one_by_one(stock_classifier_of(dual), tokenizer, TEXTS))
    found = list(predict_texts(dual, tokenizer, TEXTS))
    assert torch.allclose(torch.tensor([list(p.probabilities.values()) for p in found]), expected.sigmoid(), atol=1e-5)
    assert [p.label for p in found] == [[dual.config.id2label[i] for i in range(3) if row[i] > 0] for row in expected]
    assert len({len(p.label) for p in found}) > 1


def test_regression(dual_of, stock_classifier_of, tokenizer):
    dual = dual_of("llama", num_labels=1)
    expected = torch.cat(one_by_one(stock_classifier_of(dual), tokenizer, TEXTS))
    found = list(predict_texts(dual, tokenizer, TEXTS))
    assert torch.allclose(torch.tensor([p.label for p in found]), expected, atol=1e-5)
    assert all(p.probabilities == {} for p in found)


def test_wrong_arguments_raise_at_the_call(dual_of, tokenizer, pad_is_eos_tokenizer):
    dual = dual_of("llama")
    with pytest.raises(ValueError, match="pools by pad token id 0, but the tokenizer pads with id 1 .'<eos>'"):
        predict_texts(dual, pad_is_eos_tokenizer, TEXTS)
    for name in ("max_length", "batch_tokens", "batch_size", "window"):
        with pytest.raises(ValueError, match=f"{name}=0 must be 1 or greater"):
            predict_texts(dual, tokenizer, TEXTS, **{name: 0})
    with pytest.raises(TypeError, match="texts='It rains.' is one text, and would be read letter by letter"):
        predict_texts(dual, tokenizer, "It rains.")


def test_a_row_without_a_text_is_named(dual_of, tokenizer):
    table = Dataset.from_dict({"text": ["It rains.", None], "label": [0, 1]})
    with pytest.raises(ValueError, match="Row 1: column 'text' has no value."):
        predict_table(dual_of("llama"), tokenizer, table)
    with pytest.raises(ValueError, match="The prompt 'fixed' names no column"):
        predict_table(dual_of("llama"), tokenizer, table, "fixed")


def labels_and_logits(folder):
    found = list(predict_texts(*load_classifier(folder, device="cpu"), TEXTS))
    return [p.label for p in found], torch.tensor([p.logits for p in found])


def test_load_classifier_opens_what_was_trained_or_exported(dual_of, tokenizer, tmp_path):
    dual = dual_of("llama")
    expected = torch.tensor([p.logits for p in predict_texts(dual, tokenizer, TEXTS)])
    dual.save_pretrained(tmp_path / "dual")
    tokenizer.save_pretrained(tmp_path / "dual")
    export_classifier(dual, tokenizer, tmp_path / "export")
    for folder in ("dual", "export"):
        assert torch.allclose(labels_and_logits(tmp_path / folder)[1], expected, atol=1e-5)


def test_load_classifier_merges_an_adapter(dual_of, tokenizer, tmp_path):
    model = add_lora(dual_of("llama")).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    expected = torch.tensor([p.logits for p in predict_texts(model, tokenizer, TEXTS)])
    model.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_classifier(tmp_path, device="cpu")
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    assert torch.allclose(labels_and_logits(tmp_path)[1], expected, atol=1e-4)
    untrained = torch.tensor([p.logits for p in predict_texts(dual_of("llama"), tokenizer, TEXTS)])
    assert not torch.allclose(untrained, expected, atol=1e-1)


def test_load_classifier_refuses_a_head_that_was_never_trained(lm_dir_of, make_config, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="LlamaForCausalLM, which has no classification head"):
        load_classifier(lm_dir_of("llama"))
    with pytest.raises(FileNotFoundError, match="no such folder: ./nowhere"):
        load_classifier("./nowhere")
    with pytest.raises(FileNotFoundError, match="holds no model"):
        load_classifier(tmp_path)
    AutoModelForSequenceClassification.from_config(make_config("llama")).model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("LlamaModel", "LlamaForSequenceClassification"))
    with pytest.raises(ValueError, match="1 missing .score.weight"):
        load_classifier(tmp_path)


def test_thousands_of_classes_are_evaluated_a_share_of_the_rows_at_a_time(dual_of, tokenizer, monkeypatch):
    """Logits stay float32 in one array, and what is measured of them is the same as all at once."""
    labels = {f"class {index}": index for index in range(500)}
    dual = dual_of("llama", label2id=labels, num_labels=500, problem_type="single_label_classification")
    rows = [
        {"text": f"{text} {number}", "label": f"class {number * 7 % 500}"}
        for number in range(40)
        for text in TEXTS[:2]
    ]
    table = Dataset.from_list(rows)
    tracemalloc.start()
    found = predict_table(dual, tokenizer, table)
    assert tracemalloc.get_traced_memory()[1] < 20e6  # as objects they would be 80 x 500 x some 150 bytes twice
    tracemalloc.stop()
    assert found.logits.dtype == np.float32 and found.logits.shape == (80, 500)
    exact, truth = found.logits.astype(np.float64), found.labels
    shares = torch.tensor(exact).softmax(-1).numpy()
    for numbers_at_once in (calibration._NUMBERS_AT_ONCE, 3 * 500, 1):
        monkeypatch.setattr(calibration, "_NUMBERS_AT_ONCE", numbers_at_once)
        measured = calibration_metrics(found.logits, truth)
        expected = brier_score_loss(truth, shares, labels=range(500), scale_by_half=False)
        assert measured["brier_score"] == pytest.approx(expected, rel=1e-12)
        assert measured["nll"] == pytest.approx(log_loss(truth, shares, labels=range(500)), rel=1e-12)
        assert sum(row["rows"] for row in calibration.reliability(found.logits, truth)) == 80


def test_predictions_of_a_window_are_made_one_by_one(dual_of, tokenizer):
    dual = dual_of("llama", num_labels=2000)
    dual.config.problem_type = "single_label_classification"
    stream = predict_texts(dual, tokenizer, [f"row {index}" for index in range(300)])
    tracemalloc.start()
    assert sum(len(prediction.logits) for prediction in stream) == 300 * 2000
    assert tracemalloc.get_traced_memory()[1] < 20e6  # all 300 as objects: some 70 MB
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "kind"), [(["a", "b"], "a list"), (b"a", "bytes"), ({"text": "a"}, "an object"), (object(), "an object")]
)
def test_what_is_no_text_is_refused_with_its_row(dual_of, tokenizer, text, kind):
    said = predict_texts(dual_of("llama"), tokenizer, ["It hums.", "\u200b", 3, text], window=3)
    assert [next(said).error for _ in range(3)] == [None, "the text is empty", None]
    with pytest.raises(ValueError, match=f"Row 3: it holds {kind}, not a text"):
        next(said)
