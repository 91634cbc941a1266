"""`dhrd bench`, from the command line to the table and the file."""

import json
import shutil

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import dhrd_hf.data.prompts as prompts_module
from dhrd_hf import export_classifier
from dhrd_hf.cli import main
from dhrd_hf.cli.parsing import shown_command
from dhrd_hf.evaluation import compute_metrics, load_classifier, predict_table
from dhrd_hf.evaluation import throughput as measuring
from dhrd_hf.evaluation.cot import CoTDecoder
from dhrd_hf.evaluation.loading import dense_folder
from dhrd_hf.training import add_lora

COLUMNS = ["engine", "batch_size", "sorted", "samples_per_second", "low", "high", "ratio", "accuracy", "rows"]
COLUMNS += ["new_tokens_per_row", "device", "dtype", "threads"]


@pytest.fixture(scope="module")
def folder(dual_of, lm_dir_of, tokenizer, rows, label2id, tmp_path_factory):
    """A run directory, its export, a language model, and tables."""
    folder = tmp_path_factory.mktemp("bench")
    model = dual_of("llama", label2id=label2id, prompt_template="{text}")
    model.save_pretrained(folder / "run")
    tokenizer.save_pretrained(folder / "run")
    export_classifier(model, tokenizer, folder / "classifier")
    shutil.copytree(lm_dir_of("llama"), folder / "lm")
    tables = {"rows": rows[:9], "one_label": rows[:1] * 4, "unnamed": [{"sentence": "It rains."}]}
    for name, table in tables.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    (folder / "empty.jsonl").write_text("")
    return folder


@pytest.fixture
def throughput(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *options, model="run": main(["bench", "--model", model, "--data", "rows.jsonl", *options])


def test_throughput_is_a_table_and_json(throughput, folder, dataset, tmp_path, capsys):
    output = tmp_path / "results" / "throughput.json"
    options = ["--batch-sizes", "4,2", "--repeats", "2", "--cot-rows", "3"]
    assert throughput(*options, "--max-new-tokens", "5", "--output", str(output)) == 0
    printed = capsys.readouterr()
    found = json.loads(output.read_text())
    kinds = [(row["engine"], row["batch_size"], row["sorted"]) for row in found["rows"]]
    assert kinds == [*(("torch", size, order) for order in (True, False) for size in (4, 2)), ("cot", 2, True)]
    model, tokenizer = load_classifier(folder / "run")
    expected = predict_table(model, tokenizer, dataset.select(range(9)))
    accuracy = compute_metrics((expected.logits, expected.labels))["accuracy"]
    for row in found["rows"]:
        assert set(COLUMNS) <= row.keys() and len(row["seconds"]) == 2
        speeds = sorted(row["rows"] / seconds for seconds in row["seconds"])
        assert (row["low"], row["high"]) == pytest.approx(tuple(speeds))
        assert row["low"] <= row["samples_per_second"] <= row["high"]
        if row["engine"] != "cot":
            assert (row["rows"], row["accuracy"], row["new_tokens_per_row"]) == (9, accuracy, None)
        assert (row["device"], row["dtype"]) == (model.device.type, "float32")
        assert row["threads"] == torch.get_num_threads()
    cot = found["rows"][-1]
    assert cot["rows"] == 3 and 1 <= cot["new_tokens_per_row"] <= 5 and 0 < cot["ratio"] < 1
    assert found["cot"] == {"rows": 3, "max_new_tokens": 5, "temperature": 0.1, "top_p": 0.7, "seed": 0}
    assert (found["model"], found["data"], found["rounds"], found["complete"]) == ("run", "rows.jsonl", 2, True)
    assert (found["repeats"], found["warmup"], found["ranks"]) == (2, 1, 1)
    # No folder of this machine.
    assert found["command"].endswith("--max-new-tokens 5 --output throughput.json")
    assert found["command"].startswith("dhrd bench --model run --data rows.jsonl --batch-sizes 4,2")
    assert {"torch", "transformers", "python"} < found["versions"].keys() and "cores" in found["machine"]
    lines = printed.out.splitlines()
    assert lines[0].split()[:7] == ["engine", "device", "dtype", "threads", "batch", "sorted", "rows/s"]
    assert lines[1].split()[:4] == ["torch", model.device.type, "float32", str(torch.get_num_threads())]
    assert [line.split()[0] for line in lines[1:7]] == [*(["torch"] * 4), "cot", "tokenisation"]
    assert "9 rows of " in printed.err


def test_the_command_can_be_run_again_and_names_no_folder_of_this_machine():
    typed = ["--model", "runs/a", "--data", "../shared/x/y.jsonl.gz", "--prompt=../b", "--rows", "64", "--output", "-"]
    assert shown_command("dhrd bench", typed) == f"dhrd bench {' '.join(typed)}"
    typed = ["--model", "/home/me/run/", "--data", "~/y.jsonl.gz", "--prompt=/home/me/b", "--output", "/"]
    assert shown_command("dhrd bench", typed) == "dhrd bench --model run --data y.jsonl.gz --prompt=b --output /"


def test_what_is_not_possible_is_told_and_the_rest_goes_on(throughput, capsys):
    options = ["--batch-sizes", "9,16", "--repeats", "1", "--sort", "--warmup", "0", "--output", "-"]
    assert throughput(*options, model="classifier") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [(row["engine"], row["batch_size"], row["sorted"]) for row in found["rows"]] == [("torch", 9, True)]
    assert [(it["engine"], it["batch_size"]) for it in found["left_out"]] == [("cot", None), (None, 16)]
    assert "batches of 16: left out, there are 9 rows" in printed.err
    assert "cot: left out, classifier has no reasoning head\n" in printed.err
    assert found["cot"]["rows"] == 0
    assert "rows/s" in printed.err


def test_decoding_can_be_switched_off(throughput, capsys):
    for model in ("run", "classifier"):
        options = ["--batch-sizes", "4", "--repeats", "1", "--no-sort", "--cot-rows", "0", "--output", "-"]
        assert throughput(*options, model=model) == 0
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        assert [(row["engine"], row["batch_size"], row["sorted"]) for row in found["rows"]] == [("torch", 4, False)]
        assert (found["left_out"], found["cot"]["rows"]) == ([], 0) and "left out" not in printed.err


def test_rows_that_were_decoded_are_those_that_are_said(throughput, tmp_path):
    output = tmp_path / "out.json"
    options = ["--batch-sizes", "64", "--repeats", "1", "--warmup", "0", "--max-new-tokens", "2"]
    assert throughput(*options, "--sort", "--output", str(output)) == 0
    found = json.loads(output.read_text())
    _, row = found["rows"]
    assert (found["cot"]["rows"], row["rows"], row["batch_size"]) == (9, 9, 9)  # of 32 that were asked for


def test_cot_decodes_as_was_trained(throughput, folder, monkeypatch, tmp_path):
    """From `dhrd train` through the run directory, of an adapter too, to the decoder."""
    suffix = r"\nWhy:\n{rationale}\nVerdict: {label}"
    train = ["train", "--train-data", str(folder / "rows.jsonl"), "--max-steps", "1", "--use-cpu"]
    runs = {
        "given": ["--model", str(folder / "lm"), "--lora", "--suffix", suffix, "--rationale-after-label"],
        "kept": ["--model", str(tmp_path / "given")],
        "default": ["--model", str(folder / "lm")],
    }
    decoders, encoders, decode = [], [], CoTDecoder.decode

    def noted(self, prompts, max_new_tokens=None):
        decoders.append((self.suffix, self.label_first))
        return decode(self, prompts, max_new_tokens)

    def parsed(template):
        encoders.append(template)
        return parse(template)

    parse = prompts_module.Suffix.parse
    monkeypatch.setattr(prompts_module.Suffix, "parse", parsed)
    monkeypatch.setattr(CoTDecoder, "decode", noted)
    unescaped = suffix.replace("\\n", "\n")
    for name, options in runs.items():
        run, expected = tmp_path / name, prompts_module.DEFAULT_SUFFIX if name == "default" else unescaped
        assert main([*train, *options, "--output-dir", str(run)]) == 0
        assert encoders[0] == expected  # the encoder's
        sparse = ["--batch-sizes", "1", "--repeats", "1", "--warmup", "0", "--cot-rows", "1", "--max-new-tokens", "2"]
        assert throughput(*sparse, model=str(run)) == 0
        assert set(decoders) == {(expected, name == "given")}
        decoders.clear()
        encoders.clear()


def test_an_exported_adapter_and_an_export_for_an_engine_are_opened_as_they_are(
    throughput, dual_of, lm_dir_of, make_tokenizer, rows, tmp_path, capsys
):
    """Its base alone would have random classes: PEFT's own model is the oracle."""
    tokenizer = make_tokenizer()  # of which no encoder has been made
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    model = add_lora(dual_of("llama-shallow", id2label={0: "entailed", 1: "refuted", 2: "unknown"}), r=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "score" in name:
            torch.nn.init.normal_(parameter, std=0.3)  # wider, and float32 itself is off by 1e-4 on some machines
    adapter = export_classifier(model, tokenizer, tmp_path / "adapter", format="adapter")
    base = AutoModelForSequenceClassification.from_pretrained(lm_dir_of("llama-shallow"), num_labels=3, pad_token_id=0)
    peft_model = peft.PeftModel.from_pretrained(base, adapter).eval()
    batch = tokenizer([row["text"] for row in rows[:9]], padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad(), dense_folder(str(adapter)) as dense:
        expected = peft_model(**batch).logits
        found = AutoModelForSequenceClassification.from_pretrained(dense).eval()(**batch).logits
        assert AutoTokenizer.from_pretrained(dense).model_max_length == 512  # the model's positions
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    names = [row["label"] for row in rows[:9]]
    said = [("entailed", "refuted", "unknown")[index] for index in expected.argmax(-1).tolist()]
    right = sum(one == other for one, other in zip(said, names, strict=True))
    onnx = tmp_path / "onnx"
    assert main(["export", "--model", str(adapter), "--output", str(onnx), "--format", "onnx"]) == 0
    capsys.readouterr()
    for engine, folder in (("torch", adapter), ("onnx", onnx)):
        assert throughput("--batch-sizes", "4", "--repeats", "1", "--output", "-", model=str(folder)) == 0
        result = json.loads(capsys.readouterr().out)
        assert [row["engine"] for row in result["rows"]] == [engine, engine]
        assert {row["accuracy"] for row in result["rows"]} == {right / 9}
        assert {row["threads"] for row in result["rows"]} == {torch.get_num_threads()}
        assert {row["ratio"] for row in result["rows"]} == {1 if engine == "torch" else None}
        assert [it["engine"] for it in result["left_out"]] == ["cot"]


def test_what_was_measured_before_an_interruption_is_in_the_file(throughput, monkeypatch, tmp_path, capsys):
    output, prepare, calls = tmp_path / "out.json", measuring.pooled, []

    def impatient(model, tokenizer, rows, batch_size):
        run = prepare(model, tokenizer, rows, batch_size)

        def counted(warm_up):
            calls.append(batch_size)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return run(warm_up)

        return counted

    monkeypatch.setattr(measuring, "pooled", impatient)
    options = ["--cot-rows", "0", "--batch-sizes", "2", "--no-sort", "--output", str(output)]
    assert throughput(*options, "--repeats", "5") == 130
    assert "interrupted. With --output, the rounds that were measured are in the file." in capsys.readouterr().err
    found = json.loads(output.read_text())
    assert (found["rounds"], found["complete"], len(found["rows"][0]["seconds"])) == (2, False, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.slow
def test_other_engines_answer_alike(throughput, tmp_path, capsys):
    for package in ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"):
        pytest.importorskip(package)
    accuracies = set()
    for engine in ("torch", "onnx", "openvino"):
        folder = tmp_path / engine
        if engine != "torch":
            assert main(["export", "--model", "run", "--output", str(folder), "--format", engine]) == 0
        capsys.readouterr()
        options = ["--batch-sizes", "4", "--repeats", "1", "--cot-rows", "0", "--output", "-"]
        assert throughput(*options, model="run" if engine == "torch" else str(folder)) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [row["engine"] for row in rows] == [engine, engine]
        accuracies |= {row["accuracy"] for row in rows}
    assert len(accuracies) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--batch-sizes", "8,0"],
            "--batch-sizes 8,0 must be whole numbers of 1 or greater, such as --batch-sizes 1,8,32",
        ),
        (["--batch-sizes", "8;16"], "--batch-sizes 8;16 must be whole numbers"),
        (["--data", "unnamed.jsonl"], "no column 'text'"),
        (["--data", "empty.jsonl"], "empty.jsonl holds no rows"),
        (["--data", "rows.jsnl"], "did you mean rows.jsonl?"),
        (["--repeats", "0"], "--repeats 0 must be 1 or greater"),
        (["--rows", "0"], "--rows 0 must be 1 or greater"),
        (["--cot-rows", "-1"], "--cot-rows -1 must be 0 or greater"),
        (["--output", "classifier"], "classifier is a folder: name a file"),
        (["--output", "./rows.jsonl"], "can't write ./rows.jsonl: it is rows.jsonl itself, which would be lost"),
        (["--warmup", "-1"], "--warmup -1 must be 0 or greater"),
        (["--batch-size", "8"], "unknown option --batch-size: did you mean --batch-sizes?"),
        (["--label-column", "rationale"], "label"),
        (["--model", "nowhere/"], "nowhere"),
    ],
)
def test_wrong_wishes_are_a_line(throughput, options, words, capsys):
    assert throughput(*options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dhrd: ")]
    assert line.startswith("dhrd: error: ") and words in line


def test_no_words_are_the_help_and_the_old_name_is_known(throughput, folder, capsys):
    assert main(["bench"]) == 0
    assert "dhrd bench --model runs/first" in capsys.readouterr().out
    options = ["--model", "run", "--data", "rows.jsonl", "--cot-rows", "0", "--batch-sizes", "4", "--repeats", "1"]
    assert main(["bench", "throughput", *options]) == 0
    assert f"$ dhrd bench {' '.join(options)}" in capsys.readouterr().out
