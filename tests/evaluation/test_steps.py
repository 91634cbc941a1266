"""The steps that are compared: their losses are the families' own, and what is measured is what is said."""

import contextlib
import copy
import io
import os
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dhrd_hf.evaluation import step_comparison
from dhrd_hf.evaluation.step_comparison import compare_steps, step_memory
from dhrd_hf.evaluation.steps import WAYS, Step, StepSetup, random_rows, step_batch


@pytest.fixture
def setup(lm_dir_of):
    return StepSetup(str(lm_dir_of("llama")), num_labels=3, pad_token_id=0, device="cpu")


@pytest.fixture
def batch(encoded, tokenizer):
    return step_batch(list(encoded.select(range(5))), tokenizer)


def test_two_passes_have_our_loss_and_gradients(setup, batch, stock_lm_of, stock_classifier_of):
    ours = Step("ours", setup)
    two = Step("two_pass", setup, shared=ours)
    assert two.model is ours.model and two.optimizer is ours.optimizer
    losses, gradients = [], []
    for step in (ours, two):
        losses.append(sum(loss.detach() for loss in step.losses(batch)))
        step.backward(batch)
        gradients.append({name: it.grad.clone() for name, it in ours.model.named_parameters()})
        ours.optimizer.zero_grad()
    torch.testing.assert_close(*losses)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    # The other two are the stock models' own, of which ours is the sum.
    plain, classifier = (copy.copy(ours) for _ in range(2))
    plain.way, plain.model = "causal_lm", stock_lm_of(ours.model)
    classifier.way, classifier.model = "classifier", stock_classifier_of(ours.model)
    stock = next(plain.losses(batch)) + next(classifier.losses(batch))
    torch.testing.assert_close(stock, losses[0], rtol=1e-5, atol=1e-5)


def test_two_passes_never_hold_two_graphs(setup, batch):
    """When the second forward begins, the first has had its backward, and of its graph nothing is saved any more."""
    step, saved, seen = Step("two_pass", setup), weakref.WeakSet(), []

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor
            saved.add(self)

    head = step.model.score.weight
    step.model.register_forward_pre_hook(lambda *_: seen.append((len(saved), head.grad is not None)))
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda it: it.tensor):
        step.backward(batch)
    assert seen == [(0, False), (0, True)]


def test_a_step_waits_for_its_own_device(setup, batch, monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda *device: waited.append(device))
    step = Step("ours", setup)
    step.device = torch.device("cuda:1")
    step.losses = lambda batch: iter(())  # the tensors stay here
    step(batch)
    assert waited == [(torch.device("cuda:1"),)]


@pytest.mark.parametrize("lora", [False, True])
def test_all_ways_start_from_the_same_backbone_and_train(setup, batch, lora):
    setup = StepSetup(setup.model, 3, 0, lora, "cpu")
    backbones = {}
    for way in WAYS:
        step = Step(way, setup)
        # The first layer's, and the embeddings: under each way's own names.
        weights = {
            name: it
            for name, it in step.model.state_dict().items()
            if "embed_tokens" in name or "layers.0.mlp" in name
        }
        backbones[way] = sorted(weights[name].sum().item() for name in weights if "lora" not in name)
        trained = [name for name, it in step.model.named_parameters() if it.requires_grad]
        assert lora == all("lora" in name or "score" in name for name in trained)
        before = {name: it.detach().clone() for name, it in step.model.named_parameters()}
        step(batch)
        moved = {name for name, it in step.model.named_parameters() if not torch.equal(it, before[name])}
        assert moved and moved <= set(trained)
    assert all(it == backbones["ours"] for it in backbones.values())


def test_random_rows_have_the_lengths_that_were_asked_for(tokenizer):
    rows = random_rows(400, (40, 20), vocab_size=60, pad=7, num_labels=4)
    lengths = torch.tensor(
        [[row["input_length"], len(row["input_ids"]) - row["input_length"]] for row in rows]
    ).float()
    assert lengths.amin(0).tolist() == [20, 10] and lengths.amax(0).tolist() == [60, 30]
    assert torch.allclose(lengths.mean(0), torch.tensor([40.0, 20.0]), rtol=0.05)
    words = {token for row in rows for token in row["input_ids"]}
    assert words == set(range(60)) - {7} and {row["labels"] for row in rows} == {0, 1, 2, 3}
    batch = step_batch(rows[:3], tokenizer)
    assert batch["x"]["attention_mask"].sum(-1).tolist() == [row["input_length"] for row in rows[:3]]
    assert batch["s"]["attention_mask"].sum(-1).tolist() == [len(row["input_ids"]) for row in rows[:3]]


def test_the_comparison_is_worked_by_hand(setup, tokenizer, monkeypatch):
    """Steps of 1 to 4 seconds on a clock of our own; one way has no memory."""
    now, log = [0.0], []
    seconds = {"causal_lm": [9.0, 1.0, 2.0, 4.0], "ours": [9.0, 2.0, 3.0, 4.0], "classifier": [9.0, 1.0, 1.0, 1.0]}

    class Timed:
        def __init__(self, way, setup, shared=None):
            self.way = way

        def __call__(self, batch):
            log.append((self.way, batch["s"]["input_ids"].shape[1]))
            now[0] += seconds[self.way].pop(0)

    def memory(way, setup, batch):
        if way == "two_pass":
            raise MemoryError("killed")
        return {"weights_memory_mb": 10.0, "peak_memory_mb": 30.0 if way == "ours" else 20.0}

    monkeypatch.setattr(step_comparison, "Step", Timed)
    monkeypatch.setattr(step_comparison, "step_memory", memory)
    monkeypatch.setattr(step_comparison.time, "perf_counter", lambda: now[0])
    rows = random_rows(4, (10, 10), 400, 0)
    *_, found = compare_steps(setup, rows, tokenizer, batch_size=2, steps=3)
    by_way = {row["way"]: row for row in found["rows"]}
    assert list(by_way) == ["causal_lm", "ours", "classifier"]
    ours = by_way["ours"]
    assert (ours["seconds_per_step"], ours["low"], ours["high"], ours["seconds"]) == (3, 2, 4, [2, 3, 4])
    assert ours["samples_per_second"] == pytest.approx(2 / 3)
    assert [tuple(it.values()) for it in found["ratios"]] == [
        ("ours", "causal_lm", 1.5, 1.0, 2.0, 1.5),  # 2/1, 3/2, 4/4
        ("classifier", "causal_lm", 0.5, 0.25, 1.0, 1.0),  # 1/1, 1/2, 1/4
        ("ours", "classifier", 3.0, 2.0, 4.0, 1.5),  # 2/1, 3/1, 4/1
    ]
    names = ["above", "below", "time", "time_low", "time_high", "peak_memory"]
    assert all(list(it) == names for it in found["ratios"])
    assert found["left_out"] == [{"way": "two_pass", "why": "it does not fit into memory (killed)"}]
    assert (found["rounds"], found["batches"]) == (3, 2)
    assert found["tokens_per_step"] == sum(len(row["input_ids"]) for row in rows) / 2
    # A round has one batch, and the next round the other.
    assert [len({length for _, length in log[at : at + 3]}) for at in range(0, 12, 3)] == [1] * 4
    assert log[0][1] != log[3][1]


@pytest.mark.parametrize("fails_at", ["there", "later"])
def test_what_does_not_fit_beside_the_others_keeps_its_memory(setup, tokenizer, monkeypatch, fails_at):
    """Ours runs out of memory when it is opened, or in the second round; two passes share its model."""
    freed, steps, left = [], weakref.WeakSet(), []

    class Full:
        def __init__(self, way, setup, shared=None):
            if way == "ours" and fails_at == "there":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.way, self.calls, self.optimizer = way, 0, self
            steps.add(self)

        def zero_grad(self):
            freed.append(self.way)

        def __call__(self, batch):
            self.calls += 1
            if self.way == "ours" and self.calls == 3:  # behind the warm-up's
                raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(step_comparison, "Step", Full)
    monkeypatch.setattr(
        step_comparison, "step_memory", lambda way, *_: {"weights_memory_mb": 5.0, "peak_memory_mb": 8.0}
    )
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.accelerator, "empty_cache", lambda: left.append(sorted(it.way for it in steps)), raising=False
    )
    *_, found = compare_steps(setup, random_rows(4, (4, 4), 400, 0), tokenizer, batch_size=2, steps=3)
    assert [(row["way"], len(row["seconds"])) for row in found["rows"]] == [
        ("causal_lm", 3),
        ("ours", 0),
        ("two_pass", 3),
        ("classifier", 3),
    ]
    ours = found["rows"][1]
    assert (ours["seconds_per_step"], ours["samples_per_second"], ours["peak_memory_mb"]) == (None, None, 8.0)
    (out,) = found["left_out"]
    assert out["why"] == "not beside the others: it does not fit into memory (CUDA out of memory.)"
    with_ours = [it for it in found["ratios"] if "ours" in it.values()]
    assert [(it["time"], it["peak_memory"]) for it in with_ours] == [(None, 1)] * 3
    # The cache was emptied when nothing held the step any more, nor its gradients.
    others = ["causal_lm"] if fails_at == "there" else ["causal_lm", "classifier", "two_pass"]
    assert (left, freed) == ([others], [] if fails_at == "there" else ["ours"])


def test_memory_is_what_the_step_takes(setup, tokenizer, monkeypatch):
    """The job that a process of its own is given, done in this one."""

    def run(command, input, env, **kwargs):
        assert command[1] == "-c" and (Path(env["PYTHONPATH"].split(os.pathsep)[0]) / "dhrd_hf").is_dir()
        monkeypatch.setattr("sys.stdin", io.StringIO(input))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            step_comparison.measure_in_this_process()
        return SimpleNamespace(returncode=0, stdout=printed.getvalue(), stderr="")

    monkeypatch.setattr(step_comparison.subprocess, "run", run)
    long, short = (step_batch(random_rows(8, lengths, 400, 0), tokenizer) for lengths in ((400, 400), (4, 4)))
    found = {}
    for way, batch in (("causal_lm", short), ("causal_lm", long), ("classifier", long)):
        found[way, batch is long] = step_memory(way, setup, batch)["peak_memory_mb"]
    # The logits alone are 8 rows of 800 tokens over 400 words: 10 MB in float32, more than once.
    assert found["causal_lm", True] - found["causal_lm", False] > 20
    assert found["causal_lm", True] > found["classifier", True]


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(setup, tokenizer):
    held = torch.ones(2**26)  # 256 MiB that are none of its business
    found = step_memory("ours", setup, step_batch(random_rows(8, (4, 4), 400, 0), tokenizer))
    assert 0 < found["weights_memory_mb"] <= found["peak_memory_mb"] < 200
    del held
    with pytest.raises(ValueError, match="the step 'ours' can't be measured: .*no_such_folder"):
        step_memory("ours", StepSetup("/no_such_folder", 3, 0), step_batch(random_rows(1, (4, 4), 400, 0), tokenizer))


def test_a_process_that_ends_badly_is_told(setup, batch, monkeypatch):
    ends = {"returncode": 1, "stdout": "", "stderr": "Traceback\nValueError: no such thing\n"}
    monkeypatch.setattr(step_comparison.subprocess, "run", lambda *args, **kwargs: SimpleNamespace(**ends))
    with pytest.raises(ValueError, match="the step 'ours' can't be measured: ValueError: no such thing"):
        step_memory("ours", setup, batch)
    ends["stderr"] = "torch.OutOfMemoryError: CUDA out of memory. Tried a lot."
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        step_memory("ours", setup, batch)
    ends.update(returncode=-9, stderr="")
    with pytest.raises(MemoryError, match="SIGKILL"):
        step_memory("ours", setup, batch)


def test_too_few_rows_are_a_line(setup, tokenizer):
    with pytest.raises(ValueError, match="there are 3 rows for batches of 8"):
        compare_steps(setup, random_rows(3, (4, 4), 400, 0), tokenizer)
    for wrong in ({"batch_size": 0}, {"steps": 0}, {"warmup": -1}):
        with pytest.raises(ValueError, match="must be"):
            compare_steps(setup, random_rows(3, (4, 4), 400, 0), tokenizer, **wrong)
