"""A text becomes the same token ids in training, in the run directory, in its checkpoints and in every export."""

import json

import pytest
import torch
from datasets import Dataset
from tiny_tokenizers import tiny_tokenizer
from transformers import AutoConfig, AutoTokenizer, Trainer, TrainingArguments

from dhrd_hf import (
    AutoModelForDualHeadClassification,
    DualHeadCollator,
    DualHeadEncoder,
    DualHeadTrainer,
    DualHeadTrainingArguments,
    export_classifier,
)
from dhrd_hf.cli.main import main
from dhrd_hf.data.inputs import check_tokenizer, tokenize_inputs
from dhrd_hf.evaluation import load_classifier, predict_texts
from dhrd_hf.export.portable import save_tokenizer
from dhrd_hf.training import add_lora

PROMPT = "Text: {text} Is it so?"
TEXTS = [
    "It glows.",
    "Wen <eos> ran.<pad>",
    "the heron is fed and the lamp hums " * 6,
    "Мост закрыт. 橋は閉まっている。",
]


def x_of(encode, texts):
    """The ids of x that the encoder makes of these texts."""
    rows = encode({"text": texts, "label": ["no"] * len(texts)})
    return [ids[:length] for ids, length in zip(rows["input_ids"], rows["input_length"], strict=True)]


def deployed(folder, texts, prompt=PROMPT):
    """What a stranger's tokenizer makes of them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(prompt.format(text=text), truncation=True)["input_ids"] for text in texts]


@pytest.mark.parametrize(
    ("kind", "side", "special"),
    [
        ("byte-level", "left", "split"),
        ("byte-level", "right", "bos and eos"),
        ("sentencepiece", "left", "bos"),
        ("sentencepiece", "right", "split"),
        ("llama", "left", "bos and eos"),
        ("llama", "right", None),
        ("words", "left", None),
        ("unigram", "left", "split"),
    ],
)
def test_a_text_has_its_ids_of_training_everywhere(kind, side, special, make_args, lm_dir_of, tmp_path):
    tokenizer = tiny_tokenizer(kind)
    tokenizer.truncation_side = side
    if special == "split":
        tokenizer.split_special_tokens = True
    elif special:
        tokenizer.add_bos_token, tokenizer.add_eos_token = True, special == "bos and eos"
    labels = {"no": 0, "yes": 1}
    model = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), label2id=labels)
    model = add_lora(model, r=2)
    encode = DualHeadEncoder(
        tokenizer, label2id=model.config.label2id, prompt=PROMPT, max_length=90, max_input_length=16
    )
    rows = Dataset.from_dict({"text": TEXTS, "label": ["no", "yes", "no", "yes"]})
    trainer = DualHeadTrainer(
        model=model,
        args=make_args(max_steps=1, save_steps=1, save_strategy="steps", learning_rate=1e-3),
        train_dataset=rows.map(encode, batched=True, remove_columns=rows.column_names),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    run = trainer.args.output_dir
    for form in ("dense", "adapter"):
        export_classifier(trainer.model, tokenizer, tmp_path / form, format=form)
    cut = {"truncation": True, "max_length": 16}
    expected = [tokenizer(PROMPT.format(text=text), **cut)["input_ids"] for text in TEXTS]
    assert x_of(encode, TEXTS) == expected and max(map(len, expected)) == 16
    save_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "dense"), tmp_path / "engine")  # as for ONNX and OpenVINO
    for folder in (run, f"{run}/checkpoint-1", tmp_path / "dense", tmp_path / "adapter", tmp_path / "engine"):
        assert deployed(folder, TEXTS) == expected, folder
    assert tokenizer.model_max_length > 10**9  # the caller's stays as it is
    assert AutoConfig.from_pretrained(tmp_path / "dense").prompt_template == PROMPT
    again = load_classifier(run)
    assert again[0].config.max_input_length == 16 and again[0].config.prompt_template == PROMPT
    check_tokenizer(again[0].config, again[1])


def rows_of(count=8):
    names = ["Sela", "Oto", "Mira", "Bo"]
    return [
        {
            "text": f"{names[n % 4]} ran home " * (1 + 5 * (n % 3)),
            "label": ("no", "yes")[n % 2],
            "rationale": "So it was." if n % 4 else None,
        }
        for n in range(count)
    ]


def settings_in(folder):
    """What an export says of its inputs, but for the weights."""
    config = json.loads((folder / "config.json").read_text())
    names = ("prompt_template", "pad_token_id", "id2label", "problem_type", "max_input_length")
    files = ("tokenizer_config.json", "tokenizer.json")
    return {name: config.get(name) for name in names} | {name: (folder / name).read_text() for name in files}


@pytest.fixture(scope="module")
def exported_by_command(lm_dir_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of()))
    options = ["--max-length", "60", "--prompt", PROMPT, "--truncation-side", "left", "--max-steps", "1"]
    common = ["--report-to", "none", "--use-cpu", "--export", str(folder / "export")]
    data = ["--train-data", str(folder / "rows.jsonl"), "--output-dir", str(folder / "run")]
    assert main(["train", "--model", str(lm_dir_of("llama")), *data, *options, *common]) == 0
    return folder / "export"


TRAINERS = {
    "DualHeadTrainer": (DualHeadTrainer, DualHeadTrainingArguments),
    "Trainer": (Trainer, TrainingArguments),
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("form", ["label2id", "labels", "model"])
def test_the_first_example_exports_what_the_command_does(
    form, trainer, exported_by_command, lm_dir_of, make_args, tmp_path
):
    tokenizer = AutoTokenizer.from_pretrained(lm_dir_of("llama"))
    tokenizer.truncation_side = "left"
    other = DualHeadEncoder(tokenizer, {"a": 0, "b": 1, "no": 2}, prompt="{text}", max_length=40)  # of another model
    model = AutoModelForDualHeadClassification.from_pretrained(
        lm_dir_of("llama"), id2label={0: "no", 1: "yes"}, problem_type="single_label_classification"
    )
    given = {"label2id": model.config.label2id, "labels": {"no": 0, "yes": 1}, "model": model}[form]
    given = {"model": model} if form == "model" else {"label2id": given}
    encode = DualHeadEncoder(tokenizer, prompt=PROMPT, max_length=60, **given)
    if form == "model":
        assert model.config.prompt_template == PROMPT and model.config.max_input_length == encode.max_input_length
    rows = Dataset.from_list(rows_of())
    train = rows.map(encode, batched=True, remove_columns=rows.column_names)
    trainer_class, arguments = TRAINERS[trainer]
    trained = trainer_class(
        model=model,
        args=make_args(arguments, max_steps=1),
        train_dataset=train,
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
    )
    trained.train()
    export_classifier(trained.model, tokenizer, tmp_path / "export")
    assert settings_in(tmp_path / "export") == settings_in(exported_by_command)
    assert AutoTokenizer.from_pretrained(tmp_path / "export").model_max_length == encode.max_input_length
    texts = [row["text"] for row in rows_of()]
    assert deployed(tmp_path / "export", texts) == x_of(encode, texts) != x_of(other, texts)


def test_a_run_directory_is_trained_on_with_room_of_its_own(lm_dir_of, make_args, tmp_path):
    """Its tokenizer cuts as training did; another training is not bound by that."""
    rows = Dataset.from_list(rows_of())
    found = []
    folder = lm_dir_of("llama")
    for limit in (16, 24):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForDualHeadClassification.from_pretrained(folder, id2label={0: "no", 1: "yes"})
        encode = DualHeadEncoder(tokenizer, model=model, max_length=128, max_input_length=limit)
        found.append((encode.max_length, model.config.max_input_length))
        folder = tmp_path / str(limit)
        trainer = DualHeadTrainer(
            model=model,
            args=make_args(max_steps=1, output_dir=str(folder)),
            train_dataset=encode.encode_dataset(rows),
            processing_class=tokenizer,
        )
        trainer.save_model()
        assert AutoTokenizer.from_pretrained(folder).model_max_length == limit
        long = rows_of()[2]["text"]
        [said] = predict_texts(trainer.model, tokenizer, [long])
        ids = torch.tensor([tokenizer(long, truncation=True, max_length=limit)["input_ids"]])
        assert said.cut and said.logits == pytest.approx(trainer.model.eval()(ids).logits[0].tolist(), abs=1e-5)
    assert found == [(128, 16), (128, 24)]
    model.config.max_input_length = 40  # set on purpose, such as by dhrd calibrate --max-length
    out = export_classifier(model, AutoTokenizer.from_pretrained(folder), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(out).model_max_length == 40
    assert "dual_head_limits" not in (out / "tokenizer_config.json").read_text()


def test_a_stock_trainers_run_keeps_what_the_encoder_was_given_the_model_for(lm_dir_of, make_tokenizer, make_args):
    tokenizer = make_tokenizer(pad_token=None)
    tokenizer.truncation_side, tokenizer.split_special_tokens = "left", True
    model = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), id2label={0: "no", 1: "yes"})
    encode = DualHeadEncoder(tokenizer, model=model, prompt=PROMPT, max_length=128, max_input_length=16)
    assert model.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = encode.encode_dataset(Dataset.from_list(rows_of()))
    trainer = Trainer(
        model=model,
        args=make_args(TrainingArguments, max_steps=1),
        train_dataset=rows,
        data_collator=DualHeadCollator(tokenizer),
        processing_class=tokenizer,
    )
    trainer.save_model()
    again, reopened = load_classifier(trainer.args.output_dir)
    text = PROMPT.format(text=TEXTS[2])
    assert tokenize_inputs(reopened, [text], again.config.max_input_length).ids == x_of(encode, [TEXTS[2]])


def test_rows_of_another_encoder_are_told(lm_dir_of, make_tokenizer, make_args, caplog):
    tokenizer, labels = make_tokenizer(), {"no": 0, "yes": 1}
    model = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), label2id=labels)
    encode = DualHeadEncoder(tokenizer, labels, max_length=128, max_input_length=40)
    rows = encode.encode_dataset(Dataset.from_list(rows_of()))
    longest = max(rows["input_length"])
    assert longest == 40
    DualHeadEncoder(tokenizer, labels, max_length=128, max_input_length=20)
    args = make_args(max_steps=1)
    DualHeadTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    assert model.config.max_input_length == 40  # the one that fits the rows
    model.config.max_input_length = 30
    DualHeadTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    assert model.config.max_input_length == 40 and "max_input_length 30, now 40" in caplog.text
    DualHeadEncoder(tokenizer, labels, prompt=PROMPT, max_length=128, max_input_length=60)
    fresh = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), label2id=labels)
    DualHeadTrainer(model=fresh, args=args, train_dataset=rows, processing_class=tokenizer)
    assert fresh.config.prompt_template == PROMPT and "the model's are the last one's" in caplog.text
    lone = make_tokenizer()
    DualHeadEncoder(lone, labels, max_length=128, max_input_length=20)
    fresh = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), label2id=labels)
    DualHeadTrainer(model=fresh, args=args, train_dataset=rows, processing_class=lone)
    assert fresh.config.max_input_length == 40 and "no encoder of this tokenizer makes such" in caplog.text


def test_an_export_tells_of_an_encoder_that_its_config_does_not_know(lm_dir_of, make_tokenizer, tmp_path, caplog):
    tokenizer, labels = make_tokenizer(), {"no": 0, "yes": 1}
    model = AutoModelForDualHeadClassification.from_pretrained(
        lm_dir_of("llama"), label2id=labels, max_input_length=30, prompt_template="{text}"
    )
    DualHeadEncoder(tokenizer, labels, max_length=128, max_input_length=20)
    export_classifier(model, tokenizer, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 30
    assert "its encoder differs" in caplog.text and "max_input_length 30, now 20" in caplog.text


def test_the_tokenizer_may_be_opened_anew(lm_dir_of, make_tokenizer, make_args, tmp_path, caplog):
    model = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), id2label={0: "no", 1: "yes"})
    tokenizer, again = make_tokenizer(), make_tokenizer()
    encode = DualHeadEncoder(tokenizer, model.config.label2id, prompt=PROMPT, max_length=128, max_input_length=20)
    rows = encode.encode_dataset(Dataset.from_list(rows_of()))
    args = make_args(max_steps=1)
    DualHeadTrainer(model=model, args=args, train_dataset=rows, processing_class=again)
    assert model.config.max_input_length == 20 and model.config.prompt_template == PROMPT
    again.model_max_length = 10
    with pytest.raises(
        ValueError, match="texts of up to 20 tokens, and the tokenizer's model_max_length is 10: raise it"
    ):
        export_classifier(model, again, tmp_path / "out")
    unknown = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), id2label={0: "no", 1: "yes"})
    assert "does not know how its training rows" not in caplog.text
    DualHeadTrainer(model=unknown, args=args, train_dataset=rows, processing_class=again)
    assert "does not know how its training rows, with inputs of up to 20 tokens, were made" in caplog.text


def test_rows_are_no_longer_than_the_model(lm_dir_of, make_tokenizer, make_args):
    """512 positions."""
    tokenizer = make_tokenizer()
    model = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("gpt2"), id2label={0: "no", 1: "yes"})
    rows = Dataset.from_list([{**row, "text": row["text"] * 80} for row in rows_of()])
    apart = DualHeadEncoder(tokenizer, label2id=model.config.label2id, max_length=1024).encode_dataset(rows)
    assert max(map(len, apart["input_ids"])) > 512
    with pytest.raises(ValueError, match=r"rows of up to \d+ tokens, and the model 512 positions"):
        DualHeadTrainer(model=model, args=make_args(max_steps=1), train_dataset=apart, processing_class=tokenizer)
    encode = DualHeadEncoder(tokenizer, model=model, max_length=1024)
    assert encode.max_length == 512
    trainer = DualHeadTrainer(
        model=model, args=make_args(max_steps=1), train_dataset=encode.encode_dataset(rows), processing_class=tokenizer
    )
    trainer.train()
    model.config.max_input_length = None
    [said] = predict_texts(model, tokenizer, ["It glows. " * 600])
    assert said.cut and said.error is None


def test_the_encoder_wants_labels_of_the_model(tokenizer, dual_of):
    with pytest.raises(ValueError, match="Give model=model, or label2id="):
        DualHeadEncoder(tokenizer)
    with pytest.raises(ValueError, match="is not the model's"):
        DualHeadEncoder(tokenizer, {"a": 0, "b": 1}, model=dual_of("llama"))
    with pytest.raises(TypeError, match="AutoModelForDualHeadClassification"):
        DualHeadEncoder(tokenizer, model=torch.nn.Module())


def test_an_export_of_unknown_inputs_says_so(dual_of, make_tokenizer, tmp_path, caplog):
    export_classifier(dual_of("llama"), make_tokenizer(), tmp_path / "out")
    assert "does not know how long its inputs were in training: they are cut at 512 tokens" in caplog.text


@pytest.mark.parametrize("changed", ["truncation_side", "split_special_tokens", "added_tokens"])
def test_a_tokenizer_that_is_set_otherwise_than_in_training_is_refused(changed, lm_dir_of, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer(truncation_side="left", add_bos=True)
    model = AutoModelForDualHeadClassification.from_pretrained(lm_dir_of("llama"), id2label={0: "no", 1: "yes"})
    encode = DualHeadEncoder(tokenizer, model=model, max_length=128)
    settings = {"truncation_side": "left", "split_special_tokens": False, "added_tokens": [2]}
    assert model.config.tokenizer_settings == settings
    model.save_pretrained(tmp_path / "run")
    reopened = AutoModelForDualHeadClassification.from_pretrained(tmp_path / "run")
    other = make_tokenizer(truncation_side="left", add_bos=changed != "added_tokens")
    if changed == "truncation_side":
        other.truncation_side = "right"
    elif changed == "split_special_tokens":
        other.split_special_tokens = True
    with pytest.raises(ValueError, match=f"a tokenizer with {changed} .*Give the tokenizer of training"):
        export_classifier(reopened, other, tmp_path / "out")
    export_classifier(reopened, tokenizer, tmp_path / "out")
    tokenizer.truncation_side = "right"  # before the rows are encoded
    encode({"text": ["It hums."], "label": ["no"]})
    assert model.config.tokenizer_settings == {**settings, "truncation_side": "right"}
