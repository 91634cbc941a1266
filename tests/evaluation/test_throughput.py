"""Throughput: hand-worked figures on a clock of our own, and real engines against `predict_table`."""

import os
from functools import partial
from importlib.metadata import version

import pytest
import torch
from datasets import Dataset

from dhrd_hf import export_classifier
from dhrd_hf.evaluation import compute_metrics, decode_answers, load_classifier, predict_table, throughput
from dhrd_hf.evaluation.cot import CoTDecoder
from dhrd_hf.evaluation.ranks import Ranks
from dhrd_hf.evaluation.throughput import Answers, Row, decoding, measure_throughput, pooled, read_rows
from dhrd_hf.evaluation.timing import machine, out_of_memory, turns, versions

ROWS = [Row("a", [5], 0), Row("b", [5, 6, 7], 1), Row("c", [5, 6], 0), Row("d", [5], 1)]


class Clock:
    """Time that passes when an engine says so."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: self.now)

    def tokenizer(self, texts, **kwargs):
        self.now += 0.5

    def engine(self, name, seconds, answers=lambda rows: Answers([0] * len(rows)), fails_at=None):
        def engine(rows, batch_size):
            key, left = (name, batch_size, tuple(row.text for row in rows)), list(seconds)

            def run(warm_up):
                if warm_up:
                    self.log.append(("warm-up", *key))
                    self.now += 100
                    return Answers([])
                self.log.append(key)
                if batch_size == fails_at:
                    raise torch.OutOfMemoryError("CUDA out of memory.\nTried a lot.")
                self.now += left.pop(0)
                return answers(rows)

            return run

        return engine


def test_figures_are_those_worked_by_hand(monkeypatch):
    clock = Clock(monkeypatch)
    engines = {"torch": clock.engine("torch", [2, 4, 1]), "other": clock.engine("other", [1, 8, 0.5])}
    rounds = list(
        measure_throughput(engines, ROWS, clock.tokenizer, batch_sizes=[2], orders=[True], repeats=3, warmup=2)
    )
    assert [it["rounds"] for it in rounds] == [1, 2, 3]
    assert [len(it["rows"][0]["seconds"]) for it in rounds] == [1, 2, 3]
    first, other = rounds[-1]["rows"]
    figures = {"samples_per_second": 2.0, "low": 1.0, "high": 4.0, "ms_per_row": 500.0, "seconds": [2, 4, 1]}
    assert {name: first[name] for name in figures} == figures  # 4 rows in 2, 4 and 1 seconds
    assert (first["ratio"], first["tokenization"], first["new_tokens_per_row"]) == (1.0, "apart", None)
    # Round by round: 2/1, 4/8, 1/0.5.
    assert (other["ratio"], other["ratio_low"], other["ratio_high"], other["tokenization"]) == (2, 0.5, 2, "apart")
    assert (first["accuracy"], first["rows"], first["unreadable"]) == (0.5, 4, None)
    assert rounds[-1]["tokenization"]["seconds"] == [0.5, 0.5, 0.5]  # of the rounds that count
    by_length = tuple("bcad")
    turn = [("torch", 2, by_length), ("other", 2, by_length)]
    warm = [("warm-up", *it) for it in turn]
    assert clock.log == [*warm[::-1], *warm, *turn, *turn[::-1], *turn[::-1]]


def test_every_batch_size_and_order_is_compared_with_its_own(monkeypatch):
    clock = Clock(monkeypatch)
    decoded = lambda rows: Answers([0, None] * (len(rows) // 2), new_tokens=30 * len(rows))  # noqa: E731
    engines = {"torch": clock.engine("torch", [1, 1]), "cot": clock.engine("cot", [50, 50], decoded)}
    options = {"batch_sizes": [1, 2, 8], "repeats": 2, "cot_rows": 2}
    *_, found = measure_throughput(engines, ROWS, clock.tokenizer, **options)
    kinds = [(row["engine"], row["batch_size"], row["sorted"]) for row in found["rows"]]
    pooled = [("torch", size, order) for order in (True, False) for size in (1, 2, 4)]  # not 8 of 4 rows
    assert kinds == [*pooled, ("cot", 1, True), ("cot", 2, True)]
    cot = found["rows"][-1]
    # Rows 0 and 2 of the four, the longer one first: 2 rows in 50 s against 4 in 1 s.
    assert [it[2] for it in clock.log if it[0] == "cot"][0] == ("c", "a")
    assert cot["ratio"] == pytest.approx((2 / 50) / 4)
    assert (cot["rows"], cot["unreadable"], cot["new_tokens_per_row"], cot["accuracy"]) == (2, 1, 30, 0.5)
    assert found["tokenization"] == {"samples_per_second": 8, "low": 8, "high": 8, "seconds": [0.5, 0.5]}


def test_a_batch_is_no_larger_than_the_rows(monkeypatch, capsys):
    clock = Clock(monkeypatch)

    def measured(sizes, **options):
        engines = {name: clock.engine(name, [1]) for name in ("torch", "cot")}
        options = {"batch_sizes": sizes, "orders": [False], "repeats": 1, "warmup": 0, **options}
        (found,) = measure_throughput(engines, ROWS, clock.tokenizer, **options)
        sizes = {name: [row["batch_size"] for row in found["rows"] if row["engine"] == name] for name in engines}
        return sizes, [(it["engine"], it["batch_size"], it["why"]) for it in found["left_out"]]

    assert measured([64, 8, 2, 4]) == (
        {"torch": [4, 2], "cot": [4, 2]},
        [(None, 64, "there are 4 rows, which are one batch"), (None, 8, "there are 4 rows, which are one batch")],
    )
    assert "batches of 64: left out, there are 4 rows, which are one batch\n" in capsys.readouterr().err
    assert measured([4], cot_rows=3) == ({"torch": [4], "cot": [3]}, [("cot", 4, "3 rows are decoded")])
    assert "cot, batches of 4: left out, 3 rows are decoded\n" in capsys.readouterr().err
    assert measured([1, 4]) == ({"torch": [1, 4], "cot": [1, 4]}, [])
    # What is run is what is said.
    sizes = [size for name, size, _ in clock.log if name == "torch"]
    assert sizes == [4, 2, 4, 1, 4]


def test_what_does_not_fit_is_left_out_and_the_rest_goes_on(monkeypatch):
    clock = Clock(monkeypatch)
    engines = {"torch": clock.engine("torch", [1] * 9, fails_at=2), "other": clock.engine("other", [2] * 9)}
    *_, found = measure_throughput(engines, ROWS, clock.tokenizer, batch_sizes=[1, 2], orders=[False])
    assert [(row["engine"], row["batch_size"], row["ratio"]) for row in found["rows"]] == [
        ("torch", 1, 1.0),
        ("other", 1, 0.5),
        ("other", 2, None),
    ]
    why = "it does not fit into memory (CUDA out of memory.)"
    assert found["left_out"] == [{"engine": "torch", "batch_size": 2, "sorted": False, "why": why}]
    assert clock.log.count(("torch", 2, tuple("abcd"))) == 1

    def broken(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(measure_throughput({"torch": clock.engine("torch", [1], broken)}, ROWS, clock.tokenizer, batch_sizes=[1]))


def test_the_slowest_rank_counts(monkeypatch):
    clock = Clock(monkeypatch)

    class TwoRanks(Ranks):
        def __init__(self, seconds):
            super().__init__()
            self.count, self.others, self.runs = 2, seconds, 0

        def gather(self, value):
            """The other rank has as many rows, half as many right, and its own times."""
            if isinstance(value, list):
                self.runs += 1
                tokenises = self.runs % 2 == 1
                return [value, value if tokenises else [self.others, None]]
            return [value, {name: it // 2 for name, it in value.items()} if isinstance(value, dict) else value]

    for other, expected in ((5, 8 / 5), (1, 8 / 2)):
        engines = {"torch": clock.engine("torch", [2])}
        options = {"batch_sizes": [2], "orders": [True], "repeats": 1, "ranks": TwoRanks(other)}
        (found,) = measure_throughput(engines, ROWS, clock.tokenizer, **options)
        assert found["rows"][0]["samples_per_second"] == expected
        assert (found["rows"][0]["rows"], found["rows"][0]["accuracy"]) == (8, 3 / 8)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_forward_pass_gives_the_labels_that_prediction_gives(name, dual_of, make_tokenizer, dataset, tmp_path):
    tokenizer = make_tokenizer(padding_side="left" if name == "llama" else "right")
    model = dual_of(name, id2label={0: "entailed", 1: "refuted", 2: "unknown"}, max_input_length=30)
    expected = predict_table(model, tokenizer, dataset)
    labels = dict(zip(dataset["text"], expected.logits.argmax(-1).tolist(), strict=True))
    assert len(set(labels.values())) > 1
    rows, said = read_rows(dataset, model.config, tokenizer, "{text}")
    assert [row.label for row in rows] == expected.labels.tolist() and len(rows) == 24
    assert expected.cut > 0 and f"; {expected.cut} cut to 30 tokens" in said and "left out" not in said
    stock, _ = load_classifier(export_classifier(model, tokenizer, tmp_path / "export"))
    for opened in (model, stock):
        for ordered in (rows, sorted(rows, key=lambda row: -len(row.ids))):
            run = pooled(opened, tokenizer, ordered, 5)
            assert run(False).labels == run(True).labels == [labels[row.text] for row in ordered]
    engines, options = {"torch": partial(pooled, model, tokenizer)}, {"orders": [True], "repeats": 1}
    (found,) = measure_throughput(engines, rows, tokenizer, batch_sizes=[5], **options)
    assert found["rows"][0]["accuracy"] == compute_metrics((expected.logits, expected.labels))["accuracy"]


def test_decoding_is_that_of_decode_answers(dual_of, tokenizer, dataset, label2id, monkeypatch):
    model = dual_of("llama", label2id=label2id)
    rows, _ = read_rows(dataset.select(range(10)), model.config, tokenizer, "{text}")
    greedy = {"max_new_tokens": 9, "top_p": 1e-6}
    decoder = CoTDecoder(model, tokenizer, **greedy)
    run = decoding(decoder, rows, 4)
    expected = decode_answers(model, tokenizer, [row.text for row in rows], list(label2id), **greedy)
    assert run(False) == Answers([label2id.get(it.label) for it in expected], sum(it.new_tokens for it in expected))
    decode, decoded = decoder.decode, []
    monkeypatch.setattr(decoder, "decode", lambda *args: decoded.append((len(args[0]), args[1])) or decode(*args))
    run(True)
    assert decoded == [(4, 8), (4, 8)]  # two of the three batches, and a few tokens
    run(False)
    assert decoded[2:] == [(4, None), (4, None), (2, None)]


def test_rows_are_what_a_table_gives(dual_of, tokenizer, label2id):
    config = dual_of("llama", label2id=label2id).config
    table = Dataset.from_list(
        [{"a": "It rains.", "label": "refuted"}, {"a": " ", "label": "unknown"}, {"a": None, "label": "unknown"}]
    )
    rows, said = read_rows(table, config, tokenizer, "{a}")
    assert [(row.text, row.label) for row in rows] == [("It rains.", 1)]
    length = len(tokenizer("It rains.")["input_ids"])
    assert said == f"of {length} tokens on average, {length} at most; 2 left out, whose text is empty"
    ((row,), said) = read_rows(table.select([0]).remove_columns("label"), config, tokenizer, "{a}")
    assert row.label is None
    assert said.endswith("at most; accuracy is not measured: there are no single labels in a column 'label'")
    for wrong, prompt, message in (
        (table, "{b}", "no column 'b'"),
        (table.select([1, 2]), "{a}", "none of the 2 rows has a text"),
        (Dataset.from_list([{"a": "It rains.", "label": "wet"}]), "{a}", "'wet'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_rows(wrong, config, tokenizer, prompt)


def test_the_machine_is_a_line():
    assert f"{os.cpu_count()} cores" in machine() and "\n" not in machine()
    assert versions()["torch"] == version("torch")


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_everyone_comes_at_each_place_equally_often(count):
    names = list(range(count))
    for first in (-count, 0, count):
        cycle = [turns(names, first + index) for index in range(count)]
        assert all(sorted(places) == names for places in zip(*cycle, strict=True))
        assert all(sorted(order) == names for order in cycle)
        backwards = [turns(names, first + count + index) for index in range(count)]
        assert backwards == [order[::-1] for order in cycle]
    assert turns([], 3) == []


def test_errors_of_memory_are_told_from_others():
    short = (
        MemoryError(),
        torch.OutOfMemoryError("x"),
        Exception("Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, other allocations: 9 GB)"),
        RuntimeError("Exception from src/inference: std::bad_alloc"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB for an array"),
    )
    assert all(out_of_memory(error).startswith("it does not fit into memory (") for error in short)
    others = (
        "the memory of a goat",
        "the memory layout of the query must be contiguous",
        "expected allocated memory to be pinned",
    )
    assert all(out_of_memory(RuntimeError(said)) is None for said in others)
