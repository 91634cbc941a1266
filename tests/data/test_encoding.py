"""Encoded rows against the tokenizer's own ids of x, and against what one reads when they are decoded."""

import copy

import pytest
from datasets import ClassLabel, Dataset
from transformers import AutoTokenizer

from dhrd_hf import DualHeadEncoder
from dhrd_hf.data import EncodingCounts
from dhrd_hf.data.labels import Labels

YES_NO = {"no": 0, "yes": 1}


def encode_rows(encoder, *rows):
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    return encoder(columns)


@pytest.fixture(params=["plain", "pad-is-eos", "bos-adding", "eos-adding"])
def any_tokenizer(request, make_tokenizer):
    kwargs = {"pad-is-eos": {"pad_token": "<eos>"}, "bos-adding": {"add_bos": True}, "eos-adding": {"add_eos": True}}
    return make_tokenizer(**kwargs.get(request.param, {}))


def test_x_has_the_ids_it_has_alone(any_tokenizer, rows, label2id):
    encoder = DualHeadEncoder(any_tokenizer, label2id)
    encoded = encode_rows(encoder, *rows)
    for index, row in enumerate(rows):
        x = any_tokenizer(row["text"])["input_ids"]
        ids, length = encoded["input_ids"][index], encoded["input_length"][index]
        assert ids[:length] == x
        assert encoded["reasoning_targets"][index] == ids and encoded["attention_mask"][index] == [1] * len(ids)
        assert encoded["labels"][index] == label2id[row["label"]]
        rationale = (row["rationale"] or "").strip()
        reason = f"\nReasoning:\n{rationale}" if rationale else ""
        assert any_tokenizer.decode(ids[length:]) == f"{reason}\nFinal Answer:\n{row['label']}<eos>"


def test_x_is_not_merged_with_what_follows(tokenizer):
    """A text whose end merges with the suffix when both are tokenised as one."""
    suffix = "e cat because {rationale} so {label}"
    text, rationale = "The kiln is cold. So: th", "it is"
    joined = tokenizer(text + suffix.format(rationale=rationale, label="no"))["input_ids"]
    x = tokenizer(text)["input_ids"]
    assert joined[: len(x)] != x, "the example must merge, or this test shows nothing"
    encoder = DualHeadEncoder(tokenizer, YES_NO, suffix=suffix)
    encoded = encode_rows(encoder, {"text": text, "label": "no", "rationale": rationale})
    assert encoded["input_ids"][0][: encoded["input_length"][0]] == x
    assert tokenizer.decode(encoded["input_ids"][0]) == text + "e cat because it is so no<eos>"


def test_the_label_may_come_first_as_a_control(tokenizer):
    rows = [
        {"text": "It snows.", "label": "no", "rationale": "Snow is wet."},
        {"text": "It snows.", "label": "no", "rationale": None},
    ]
    options = {"suffix": " because {rationale} so {label}!", "max_length": 40}
    usual = encode_rows(DualHeadEncoder(tokenizer, YES_NO, **options), *rows)
    turned = encode_rows(DualHeadEncoder(tokenizer, YES_NO, rationale_after_label=True, **options), *rows)
    assert tokenizer.decode(usual["input_ids"][0]) == "It snows. because Snow is wet. so no!<eos>"
    assert tokenizer.decode(turned["input_ids"][0]) == "It snows. so no! because Snow is wet.<eos>"
    assert turned["input_length"] == usual["input_length"]
    assert sorted(turned["input_ids"][0]) == sorted(usual["input_ids"][0])
    assert turned["input_ids"][1] == usual["input_ids"][1]
    long = [{"text": "It snows.", "label": "no", "rationale": "Snow is wet. " * 20}]
    cut = encode_rows(DualHeadEncoder(tokenizer, YES_NO, rationale_after_label=True, **options), *long)
    assert len(cut["input_ids"][0]) == 40
    assert tokenizer.decode(cut["input_ids"][0]).startswith("It snows. so no! because Snow is wet. Snow")
    assert cut["input_ids"][0][-1] == tokenizer.eos_token_id


def test_the_reasoning_loss_may_leave_x_out(tokenizer):
    rows = [
        {"text": "It snows.", "label": "no", "rationale": "Snow is wet."},
        {"text": "It rains on the moor.", "label": "yes", "rationale": None},
    ]
    usual = encode_rows(DualHeadEncoder(tokenizer, YES_NO), *rows)
    only = encode_rows(DualHeadEncoder(tokenizer, YES_NO, reasoning_span="rationale"), *rows)
    for name in ("input_ids", "input_length", "labels"):
        assert only[name] == usual[name]
    for ids, targets, length in zip(only["input_ids"], only["reasoning_targets"], only["input_length"], strict=True):
        assert targets == [-100] * length + ids[length:]


def test_the_prompt_takes_several_columns(tokenizer):
    encoder = DualHeadEncoder(tokenizer, YES_NO, prompt="Passage:\n{passage}\nQuestion:\n{question}")
    encoded = encode_rows(
        encoder, {"passage": "It snows.", "question": "Is it dry?", "label": "no", "rationale": "Wet."}
    )
    x = encoded["input_ids"][0][: encoded["input_length"][0]]
    assert tokenizer.decode(x) == "Passage:\nIt snows.\nQuestion:\nIs it dry?"


@pytest.mark.parametrize("rationale", [None, "", "  \n ", "\u200b", float("nan")])
def test_without_rationale_the_label_only_form_is_written_and_counted(tokenizer, rationale):
    encoder = DualHeadEncoder(tokenizer, YES_NO)
    encoded = encode_rows(
        encoder,
        {"text": "It snows.", "label": "yes", "rationale": rationale},
        {"text": "It snows.", "label": "yes", "rationale": "Snow falls."},
    )
    assert tokenizer.decode(encoded["input_ids"][0]) == "It snows.\nFinal Answer:\nyes<eos>"
    assert encoder.counts == EncodingCounts(rows=2, without_rationale=1)
    encode_rows(encoder, {"text": "It snows.", "label": "yes"})
    assert encoder.counts == EncodingCounts(rows=3, without_rationale=2)
    assert "3 rows" in str(encoder.counts) and "2 without a rationale" in str(encoder.counts)


def test_the_rationale_is_cut_first_and_the_answer_never(tokenizer):
    row = {"text": "The lamp hums.", "label": "yes", "rationale": "It hums all day and all night long."}
    whole = encode_rows(DualHeadEncoder(tokenizer, YES_NO), row)
    full, x_length = len(whole["input_ids"][0]), whole["input_length"][0]
    answer = tokenizer("\nFinal Answer:\nyes")["input_ids"] + [tokenizer.eos_token_id]
    reason = tokenizer("\nReasoning:\n")["input_ids"]
    for max_length in range(x_length + len(answer), full + 1):
        encoder = DualHeadEncoder(tokenizer, YES_NO, max_length=max_length)
        encoded = encode_rows(encoder, row)
        ids = encoded["input_ids"][0]
        assert len(ids) <= max_length
        assert ids[:x_length] == whole["input_ids"][0][:x_length] and ids[-len(answer) :] == answer
        kept = ids[x_length : -len(answer)]
        # A whole prefix of the rationale behind its delimiter, or nothing: no delimiter that introduces nothing.
        assert kept == whole["input_ids"][0][x_length : x_length + len(kept)]
        assert len(kept) == 0 or len(kept) > len(reason)
        assert len(kept) == 0 or len(ids) == max_length
        assert encoder.counts == EncodingCounts(rows=1, rationales_cut=int(max_length < full))


@pytest.mark.parametrize("side", ["right", "left"])
def test_x_is_cut_as_the_deployed_tokenizer_cuts_it(make_tokenizer, side):
    tokenizer = make_tokenizer(add_bos=True, truncation_side=side)
    text = "Wen is taller than Ada. Ada is taller than Bo. So: Wen is taller than Bo."
    encoder = DualHeadEncoder(tokenizer, YES_NO, max_length=40, max_input_length=12)
    encoded = encode_rows(encoder, {"text": text, "label": "yes", "rationale": "Passed on."})
    expected = tokenizer(text, truncation=True, max_length=12)["input_ids"]
    assert len(expected) == 12 and encoded["input_ids"][0][:12] == expected and encoded["input_length"] == [12]
    assert encoder.counts.inputs_cut == 1


def test_one_limit_for_x_holds_for_every_row_and_in_deployment(tokenizer, label2id, rows):
    long = {**rows[0], "text": rows[0]["text"] * 9}
    encoder = DualHeadEncoder(tokenizer, label2id, max_length=48)
    encoded = encode_rows(encoder, *({**long, "label": label} for label in label2id))
    expected = tokenizer(long["text"], truncation=True, max_length=encoder.max_input_length)["input_ids"]
    assert encoded["input_length"] == [encoder.max_input_length] * 3
    for ids, label in zip(encoded["input_ids"], label2id, strict=True):
        assert ids[: len(expected)] == expected and len(ids) <= 48
        assert tokenizer.decode(ids).endswith(f"\nFinal Answer:\n{label}<eos>")
    assert max(map(len, encoded["input_ids"])) == 48
    assert (encoder.counts.inputs_cut, encoder.counts.rationales_cut) == (3, 3)


def test_the_tokenizers_own_limit_holds(make_tokenizer, caplog):
    tokenizer = make_tokenizer(model_max_length=50)
    encoder = DualHeadEncoder(tokenizer, YES_NO, max_length=1024)
    assert encoder.max_length == 50 and "model_max_length" in caplog.text
    encoded = encode_rows(encoder, {"text": "hums " * 60, "label": "yes", "rationale": "It hums. " * 60})
    assert len(encoded["input_ids"][0]) <= 50


def test_maps_form_and_encode_dataset_agree(dataset, tokenizer, label2id, encoded):
    encoder = DualHeadEncoder(tokenizer, label2id, max_length=256)
    mapped = dataset.map(encoder, batched=True, batch_size=5, remove_columns=dataset.column_names)
    assert mapped.column_names == encoded.column_names
    assert set(mapped.column_names) == {
        "input_ids",
        "attention_mask",
        "input_length",
        "reasoning_targets",
        "labels",
    }
    assert mapped.to_list() == encoded.to_list()


@pytest.mark.parametrize("order", [False, True])
def test_both_forms_agree_where_the_loss_is_over_the_rationale_alone(dataset, tokenizer, label2id, order):
    options = {"max_length": 64, "reasoning_span": "rationale", "rationale_after_label": order}
    encoder = DualHeadEncoder(tokenizer, label2id, **options)
    mapped = dataset.map(encoder, batched=True, batch_size=5, remove_columns=dataset.column_names)
    assert mapped.to_list() == encoder.encode_dataset(dataset).to_list()
    for row in mapped:
        x = row["input_length"]
        assert row["reasoning_targets"] == [-100] * x + row["input_ids"][x:]


def test_counts_are_the_same_in_parallel_and_from_the_cache(dataset, tokenizer, label2id, tmp_path):
    dataset.save_to_disk(tmp_path)  # on disk, so that `map` keeps its results
    stored = Dataset.load_from_disk(str(tmp_path))
    results = []
    for num_proc in (None, None, 2):
        encoder = DualHeadEncoder(tokenizer, label2id, max_length=64, max_input_length=24)
        results.append(encoder.encode_dataset(stored, num_proc=num_proc).to_list())
        counts = encoder.counts
        assert counts.rows == len(dataset) and counts.without_rationale == 6
        assert counts.rationales_cut == sum(
            len(row["input_ids"]) == 64 and text in ("entailed", "refuted", "unknown")
            for row, text in zip(results[-1], dataset["label"], strict=True)
        )
        assert counts.inputs_cut == sum(len(tokenizer(text)["input_ids"]) > 24 for text in dataset["text"]) > 0
        results.append(counts)
    assert results[:2] == results[2:4] == results[4:]
    encoder.encode_dataset(stored)
    assert encoder.counts == counts + counts, "a second data set adds to the counts"


def test_what_was_cut_or_missing_is_logged(dataset, tokenizer, label2id, caplog):
    DualHeadEncoder(tokenizer, label2id, max_length=64).encode_dataset(dataset)
    assert "24 rows encoded: 6 without a rationale" in caplog.text


@pytest.mark.parametrize(
    ("label2id", "value", "expected"),
    [
        (YES_NO, "yes", 1),
        (YES_NO, 1, 1),
        (YES_NO, 1.0, 1),
        ({"1": 0, "2": 1}, "1", 0),
        ({"1": 0, "2": 1}, 2, 1),  # a name, and no id
        ({"false": 0, "true": 1}, True, 1),
        ({"False": 0, "True": 1}, False, 0),
        (YES_NO, ["yes"], [0.0, 1.0]),
        (YES_NO, [], [0.0, 0.0]),
        ({"score": 0}, 2.5, 2.5),
        ({"score": 0}, "2.5", 2.5),
    ],
)
def test_labels_by_name_id_list_or_number(tokenizer, label2id, value, expected):
    encoded = encode_rows(
        DualHeadEncoder(tokenizer, label2id), {"text": "It hums.", "label": value, "rationale": "So."}
    )
    assert encoded["labels"] == [expected]


def test_a_number_that_is_one_labels_name_and_anothers_id_is_refused(tokenizer):
    row = {"text": "It hums.", "label": 1, "rationale": "So."}
    with pytest.raises(ValueError, match="label 1 is the name of label 0 and the id of label '2'"):
        encode_rows(DualHeadEncoder(tokenizer, {"1": 0, "2": 1}), row)


def test_a_whole_column_tells_names_from_ids(tokenizer):
    rows = {"text": ["a b", "b c", "c d"], "label": [1, 2, 1]}
    stars = Dataset.from_dict(rows)
    encode = DualHeadEncoder(tokenizer, {"1": 0, "2": 1})
    assert encode.encode_dataset(stars)["labels"][:] == [0, 1, 0]
    ids = Dataset.from_dict({**rows, "label": [0, 1, 0]}).cast_column("label", ClassLabel(names=["1", "2"]))
    assert encode.encode_dataset(ids)["labels"][:] == [0, 1, 0]


def test_room_is_kept_for_each_number_of_a_row(tokenizer):
    encode = DualHeadEncoder(tokenizer, {"a": 0, "b": 1, "c": 2}, problem_type="regression", max_length=90)
    found = encode({"text": ["word " * 60], "label": [[0.123456, -2.34567, 11.25]], "rationale": ["So it is."]})
    assert 80 < len(found["input_ids"][0]) <= 90 and encode.counts.inputs_cut == 1


def test_a_number_that_is_none_is_no_label_of_regression():
    for value in ("nan", [0.5, float("nan")]):
        with pytest.raises(ValueError, match="is not a number"):
            Labels({"score": 0}).read(value)


def test_multi_label_wants_lists(tokenizer):
    encode = DualHeadEncoder(tokenizer, YES_NO, problem_type="multi_label_classification")
    with pytest.raises(ValueError, match="'yes' is no list"):
        encode_rows(encode, {"text": "It hums.", "label": "yes"})


def test_the_answers_text_of_many_labels_and_of_numbers(tokenizer):
    multi = DualHeadEncoder(tokenizer, {"a": 0, "b": 1, "c": 2})
    rows = [{"text": "t", "label": label} for label in (["c", "a"], [])]
    texts = [tokenizer.decode(ids) for ids in encode_rows(multi, *rows)["input_ids"]]
    assert texts == ["t\nFinal Answer:\na, c<eos>", "t\nFinal Answer:\nnone<eos>"]
    number = DualHeadEncoder(tokenizer, {"score": 0})
    assert tokenizer.decode(encode_rows(number, {"text": "t", "label": 0.5})["input_ids"][0]).endswith("\n0.5<eos>")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "It hums.", "label": "yess"}, "'yess' is unknown.*did you mean 'yes'"),
        ({"text": "It hums.", "label": 2}, "label id 2 is out of range.*2 labels"),
        ({"text": "It hums.", "label": -100}, "label id -100 is out of range"),
        ({"text": " \n", "label": "yes"}, "text is empty"),
        ({"text": None, "label": "yes"}, "'text' has no value"),
    ],
)
def test_a_broken_row_is_refused_with_its_number(tokenizer, row, message):
    fine = {"text": "Fine.", "label": "no"}
    with pytest.raises(ValueError, match=f"(?s)Row 2: .*{message}"):
        encode_rows(DualHeadEncoder(tokenizer, YES_NO), fine, fine, row)
    with pytest.raises(ValueError, match=f"(?s)Row 0: .*{message}"):
        DualHeadEncoder(tokenizer, YES_NO).encode_dataset(Dataset.from_list([{**fine, **row}]))


@pytest.mark.parametrize("label", [None, "", " ", float("nan")])
def test_a_row_without_a_label_is_refused(tokenizer, label):
    row = {"text": "It hums.", "label": label}
    with pytest.raises(ValueError, match="Row 0: it has no label in column 'label'"):
        encode_rows(DualHeadEncoder(tokenizer, YES_NO), row)
    with pytest.raises(
        ValueError, match="Row 0: it has no label, in column 'label'. 1 of 1 rows .*drop_unlabelled=True"
    ):
        DualHeadEncoder(tokenizer, YES_NO).encode_dataset(Dataset.from_list([row]))


def test_a_later_batch_of_a_dataset_names_the_right_row(tokenizer):
    rows = [{"text": "Fine.", "label": "no"}] * 1203 + [{"text": "", "label": "no"}]
    with pytest.raises(ValueError, match="Row 1203"):
        DualHeadEncoder(tokenizer, YES_NO).encode_dataset(Dataset.from_list(rows))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"txet": ["a"], "label": ["no"]}, "no column 'text'.*'txet'"),
        ({"text": ["a"], "target": ["no"]}, "no column 'label'"),
        ({"text": ["a"], "label": ["no"], "Label": ["yes"]}, "'label' and 'Label'"),
        ({"text": ["a"], "label": ["no"], "rationale": ["r"], "rationales": ["q"]}, "'rationale' and 'rationales'"),
    ],
)
def test_missing_and_doubled_columns_are_named(tokenizer, columns, message):
    with pytest.raises(ValueError, match=message):
        DualHeadEncoder(tokenizer, YES_NO)(columns)


def test_a_single_row_is_refused_with_the_remedy(tokenizer):
    with pytest.raises(ValueError, match="batched=True"):
        DualHeadEncoder(tokenizer, YES_NO)({"text": "It hums.", "label": "no"})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"prompt": "Is it so?"}, "names no column"),
        ({"prompt": "{text"}, "malformed"),
        ({"prompt": "{text:>5}"}, "plain column names"),
        ({"suffix": "{label} {rationale}"}, "suffix template"),
        ({"max_length": 8}, "max_length 8 leaves no room"),
        ({"max_length": 40, "max_input_length": 40}, "max_input_length 40 is not in 1 to"),
        ({"max_input_length": 0}, "max_input_length 0"),
        ({"problem_type": "ranking"}, "ranking"),
        ({"reasoning_span": "all"}, "is not one of input.rationale, rationale"),
        ({"label2id": {"a": 0, "b": 2}}, "0 to 1"),
    ],
)
def test_an_encoder_that_could_not_work_is_refused(tokenizer, kwargs, message):
    with pytest.raises(ValueError, match=message):
        DualHeadEncoder(tokenizer, **{"label2id": YES_NO, **kwargs})


def test_text_of_nothing_but_padding_is_refused(pad_is_eos_tokenizer):
    with pytest.raises(ValueError, match="padding"):
        encode_rows(DualHeadEncoder(pad_is_eos_tokenizer, YES_NO), {"text": "<eos>", "label": "no"})


def test_the_callers_tokenizer_is_left_as_it_was(make_tokenizer, rows, label2id, tmp_path):
    tokenizer = make_tokenizer()
    before = copy.deepcopy(tokenizer.init_kwargs), tokenizer.padding_side, tokenizer.truncation_side
    encode_rows(DualHeadEncoder(tokenizer, label2id, max_length=64, max_input_length=24), *rows)
    assert (tokenizer.init_kwargs, tokenizer.padding_side, tokenizer.truncation_side) == before
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(rows[13]["text"])["input_ids"] == make_tokenizer()(rows[13]["text"])["input_ids"]


def test_rows_encoded_once_are_found_in_a_cache_folder(rows, tokenizer, label2id, tmp_path):
    found = []
    for options in ({}, {}, {"max_length": 64}):
        encoder = DualHeadEncoder(tokenizer, label2id, **options)
        table = Dataset.from_list(rows)  # in memory, as `dhrd train` reads it
        encoded = encoder.encode_dataset(table, cache_dir=tmp_path / "encoded").to_list()
        files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "encoded").iterdir()}
        found.append((encoded, encoder.counts, files))
    assert found[0] == found[1]
    assert found[1][1].without_rationale == 6
    assert found[2][1].rationales_cut > 0 and len(found[2][2]) == 2


# What is rarely meant is told


def closing(tokenizer, **options):
    encode = DualHeadEncoder(tokenizer, YES_NO, prompt="{text} Is it so?", max_length=60, **options)
    texts = ["It hums.", "the lamp hums " * 20, "It snows on the moor. " * 20]
    return encode, Dataset.from_dict({"text": texts, "label": ["no"] * 3})


def test_a_closing_question_that_is_cut_is_told(make_tokenizer, caplog):
    encode, rows = closing(make_tokenizer())
    encode.encode_dataset(rows)
    assert (encode.counts.inputs_cut, encode.counts.endings_cut) == (2, 2)
    assert "2 rows lost what the prompt ends with" in caplog.text and "--truncation-side left" in caplog.text
    caplog.clear()
    encode, rows = closing(make_tokenizer())
    rows.map(encode, batched=True, batch_size=1, load_from_cache_file=False)
    assert caplog.text.count("lost what the prompt ends with") == 1 and "Among the first 2 rows" in caplog.text
    caplog.clear()
    encode, rows = closing(make_tokenizer(truncation_side="left"))
    encoded = encode.encode_dataset(rows)
    assert (encode.counts.inputs_cut, encode.counts.endings_cut) == (2, 0) and "lost" not in caplog.text
    x = encoded[1]["input_ids"][: encoded[1]["input_length"]]
    assert encode.tokenizer.decode(x).endswith("hums  Is it so?")
    open_end = DualHeadEncoder(make_tokenizer(), YES_NO, prompt="Text: {text}\n", max_length=60)
    open_end.encode_dataset(rows)
    assert (open_end.counts.inputs_cut, open_end.counts.endings_cut) == (2, 0)


@pytest.mark.parametrize(
    ("prompt", "lost"),
    [
        ("{passage} Q: {question}", 1),  # a question behind a passage
        ("{question} {passage}", 0),  # what is cut is the long one's end
        ("{passage}", 0),
        ("{passage} {{x}}", 1),
        ("{question} {passage} {question}", 1),
    ],
)
def test_a_closing_column_that_is_cut_is_told(make_tokenizer, prompt, lost):
    encode = DualHeadEncoder(make_tokenizer(), YES_NO, prompt=prompt, max_length=60)
    encode({"passage": ["the lamp hums " * 20, "It hums."], "question": ["Is it so?"] * 2, "label": ["no"] * 2})
    assert (encode.counts.inputs_cut, encode.counts.endings_cut) == (1, lost)


def test_a_doubled_bos_is_told(make_tokenizer, caplog):
    rows = Dataset.from_dict({"text": ["<bos>It hums.", "It snows.", "<bos> It snows."], "label": ["no", "yes", "no"]})
    encode = DualHeadEncoder(make_tokenizer(add_bos=True), YES_NO)
    encode.encode_dataset(rows)
    assert encode.counts.doubled_bos == 2 and "2 rows begin with the bos token twice" in caplog.text
    assert "add_bos_token = False" in caplog.text
    for tokenizer, prompt in ((make_tokenizer(), "<bos>{text}"), (make_tokenizer(add_bos=True), "{text}")):
        encode = DualHeadEncoder(tokenizer, YES_NO, prompt=prompt)
        encode.encode_dataset(rows.select([1]))
        assert encode.counts.doubled_bos == 0


@pytest.mark.parametrize("blank", ["", "  ", "\n\t", "\u3000", "\u200b ", "\ufeff"])
def test_a_row_of_blanks_is_empty_under_any_prompt(blank, tokenizer):
    encode = DualHeadEncoder(tokenizer, YES_NO, prompt="Q: {text} / {more}")
    columns = {"text": ["It hums.", blank], "more": [blank, blank], "label": ["no", "yes"]}
    with pytest.raises(ValueError, match="Row 1: its text is empty"):
        encode(columns)
    one_of_two = {name: values[:1] for name, values in columns.items()}
    assert encode(one_of_two)["input_length"][0] > 0


def test_many_rows_of_a_table_without_files_are_encoded_into_one(tokenizer, rows, label2id, monkeypatch):
    encode = DualHeadEncoder(tokenizer, label2id, max_length=40)
    table = Dataset.from_list(rows)
    few = encode.encode_dataset(table)
    counts, encode.counts = encode.counts, EncodingCounts()
    monkeypatch.setattr("dhrd_hf.data.encoding._IN_MEMORY", 4)
    many = encode.encode_dataset(table)
    assert not few.cache_files and len(many.cache_files) == 1
    assert many.to_list() == few.to_list() and many.features == few.features
    assert encode.counts == counts and counts.rationales_cut > 0
    assert encode.encode_dataset(table.select(range(6, 18)))["labels"][:] == few["labels"][6:18]
