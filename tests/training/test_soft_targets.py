"""Soft targets in training: against the formula over stock models' logits, online and from a cache on disk."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from datasets import concatenate_datasets
from test_resume import KillAt, Killed

from dhrd_hf import DualHeadCollator, DualHeadEncoder, DualHeadTrainingArguments, losses
from dhrd_hf.training import Teacher, add_lora, soft_target_cache

SPLITS = [(8, 1), (2, 4), (1, 8)]
WEIGHT, TEMPERATURE = 0.7, 2.0


@pytest.fixture(scope="module")
def teacher_lm(make_lm):
    return make_lm("gemma2", seed=11)  # another family, which caps its logits


@pytest.fixture
def make_taught(make_trainer):
    """A trainer with a teacher: `make_taught(model, teacher, batch, accumulation, **arguments)`."""

    def make(model, teacher=None, batch=4, accumulation=1, **changes):
        settings = {"distillation_weight": WEIGHT, "temperature": TEMPERATURE, **changes}
        return make_trainer(model, batch, accumulation, teacher=teacher, **settings)

    return make


def soft_formula(student, teacher, rows, temperature=TEMPERATURE):
    """The term over rows of an encoded data set, one at a time, with torch's divergence."""
    total, number = 0, 0
    for row in rows:
        ids, targets = (torch.tensor([row[name]]) for name in ("input_ids", "reasoning_targets"))
        keep = targets[0, 1:] != -100
        log_p, log_q = (
            torch.log_softmax(lm(ids).logits[0, :-1][keep].double() / temperature, -1) for lm in (student, teacher)
        )
        total = total + temperature**2 * F.kl_div(log_p, log_q, reduction="sum", log_target=True)
        number += int(keep.sum())
    return total / number


def loss_logs(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
@pytest.mark.parametrize("cached", [False, True])
def test_a_step_is_the_formula_s_however_it_is_split(
    dual_of, stock_lm_of, teacher_lm, make_taught, encoded, tmp_path, batch, accumulation, cached
):
    model = dual_of("llama", alpha=0.0, beta=0.0)
    lm = stock_lm_of(model)
    head_before = model.lm_head.weight.detach().clone()
    expected = soft_formula(lm, teacher_lm, encoded.select(range(8)))
    expected.backward()
    teacher = Teacher(copy.deepcopy(teacher_lm), cache_dir=tmp_path / "cache" if cached else None, top_k=400)
    trainer = make_taught(model, teacher, batch, accumulation)
    trainer.train()
    (log,) = loss_logs(trainer)
    assert log["distillation_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert log["loss"] == pytest.approx(WEIGHT * expected.item(), rel=1e-5)
    moved = head_before - trainer.model.lm_head.weight.detach()  # by a gradient step of rate 1
    torch.testing.assert_close(moved, WEIGHT * lm.lm_head.weight.grad, rtol=1e-4, atol=1e-6)


def test_all_three_terms_add_up_and_alpha_auto_sees_two(dual_of, teacher_lm, make_taught):
    def alphas(**changes):
        trainer = make_taught(dual_of("llama"), rows=16, learning_rate=0.0, alpha_schedule="auto", **changes)
        trainer.train()
        return trainer, [log["alpha"] for log in loss_logs(trainer)]

    trainer, found = alphas(teacher=copy.deepcopy(teacher_lm))
    _, without = alphas(distillation_weight=0.0)
    assert found == pytest.approx(without, rel=1e-4) and len(set(found)) > 1
    for log in loss_logs(trainer):
        terms = log["classification_loss"] + log["alpha"] * log["reasoning_loss"] + WEIGHT * log["distillation_loss"]
        assert log["loss"] == pytest.approx(terms, rel=1e-5)


def test_the_span_of_the_reasoning_loss_is_the_soft_targets_span(
    dual_of, stock_lm_of, teacher_lm, make_taught, dataset, tokenizer, label2id
):
    encode = DualHeadEncoder(tokenizer, label2id, max_length=256, reasoning_span="rationale")
    rows = encode.encode_dataset(dataset)
    model = dual_of("llama", alpha=0.0)
    expected = soft_formula(stock_lm_of(model), teacher_lm, rows.select(range(4)))
    trainer = make_taught(model, copy.deepcopy(teacher_lm), rows=4, dataset=rows)
    trainer.train()
    assert loss_logs(trainer)[0]["distillation_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_teacher_of_itself_has_nothing_to_teach(dual_of, stock_lm_of, make_taught):
    model = dual_of("gpt2", alpha=0.0, beta=0.0)
    trainer = make_taught(model, stock_lm_of(model))
    trainer.train()
    assert abs(loss_logs(trainer)[0]["distillation_loss"]) < 1e-5


@pytest.mark.parametrize("cached", [False, True])
def test_padding_free_batches_and_lora_and_bf16(dual_of, teacher_lm, make_taught, make_lm, tmp_path, cached):
    teacher = make_lm("qwen3", seed=3)
    found = {}
    for kind in ("plain", "flat", "bf16"):
        folder = tmp_path / kind if cached else None
        torch.manual_seed(0)
        model = add_lora(dual_of("llama", alpha=0.5), r=4, lora_dropout=0.0)
        trainer = make_taught(
            model, Teacher(copy.deepcopy(teacher), cache_dir=folder, top_k=5), rows=8,
            padding_free=kind == "flat", bf16=kind == "bf16", learning_rate=1e-3,
        )  # fmt: skip
        trainer.train()
        found[kind] = [log["distillation_loss"] for log in loss_logs(trainer)]
    assert found["flat"] == pytest.approx(found["plain"], rel=1e-4)
    assert found["bf16"] == pytest.approx(found["plain"], rel=5e-2)


def test_an_online_teacher_runs_in_the_student_s_precision(dual_of, make_taught, make_lm):
    teacher, seen = make_lm("qwen3"), []
    teacher.register_forward_pre_hook(lambda *_: seen.append(None))  # its own forward is not run
    teacher.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    make_taught(dual_of("llama"), teacher, bf16=True).train()
    assert seen == [True, True]


def test_a_teacher_with_a_cache_teaches_more_than_once(dual_of, make_taught, make_lm, tmp_path):
    teacher, found = Teacher(make_lm("qwen3"), cache_dir=tmp_path / "cache"), []
    for _ in range(2):
        trainer = make_taught(dual_of("llama"), teacher)
        assert trainer.teacher.model is None
        trainer.train()
        found.append([log["distillation_loss"] for log in loss_logs(trainer)])
    assert found[0] == found[1]


def test_left_padding_takes_the_same_positions(dual_of, make_taught, make_lm, make_tokenizer, encoded, tmp_path):
    found = []
    for side in ("right", "left"):
        collate = DualHeadCollator(make_tokenizer(padding_side=side))
        trainer = make_taught(dual_of("llama", alpha=0.0), Teacher(make_lm("qwen3"), cache_dir=tmp_path / side))
        trainer.data_collator = collate
        trainer.train()
        found.append([log["distillation_loss"] for log in loss_logs(trainer)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_left_padding_moves_no_teacher_that_counts_places(dual_of, make_taught, make_lm, make_tokenizer):
    found = []
    for side in ("right", "left"):
        trainer = make_taught(dual_of("llama", alpha=0.0), make_lm("gpt2", seed=3), batch=8, max_steps=2)
        trainer.data_collator = DualHeadCollator(make_tokenizer(padding_side=side))
        trainer.train()
        found.append([log["distillation_loss"] for log in loss_logs(trainer)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_killed_and_resumed_run_ends_as_the_uninterrupted_one(dual_of, teacher_lm, make_taught, tmp_path):
    settings = {"batch": 2, "accumulation": 2, "rows": 13, "learning_rate": 0.05, "max_grad_norm": 1.0}
    settings |= {"save_strategy": "steps", "save_steps": 2, "train_sampling_strategy": "random"}

    def make(folder, seed=0, **kwargs):
        teacher = Teacher(copy.deepcopy(teacher_lm), cache_dir=tmp_path / "cache", top_k=7)
        return make_taught(
            dual_of("llama", seed=seed), teacher, output_dir=str(tmp_path / folder), **settings, **kwargs
        )

    straight = make("straight")
    straight.train()
    killed = make("killed", callbacks=[KillAt(3, False)])
    with pytest.raises(Killed):
        killed.train()
    resumed = make("killed", seed=9)
    resumed.train(resume_from_checkpoint=True)
    expected = straight.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.model.state_dict().items())


def test_evaluation_is_untouched(dual_of, teacher_lm, make_taught, encoded):
    trainer = make_taught(dual_of("llama"), copy.deepcopy(teacher_lm))
    plain = make_taught(dual_of("llama"), distillation_weight=0.0)
    found, expected = (each.evaluate(encoded.select(range(6))) for each in (trainer, plain))
    assert found["eval_loss"] == expected["eval_loss"]
    assert "eval_distillation_loss" not in found


# The vocabulary


def test_a_teacher_with_a_padded_head_is_cut_to_the_tokenizer(
    dual_of, stock_lm_of, make_lm, make_taught, encoded, caplog
):
    teacher = make_lm("llama", seed=4, vocab_size=448)
    cut = copy.deepcopy(teacher)
    forward = cut.forward
    cut.forward = lambda ids: type("Out", (), {"logits": forward(ids).logits[..., :400]})
    model = dual_of("qwen3", alpha=0.0)
    expected = soft_formula(stock_lm_of(model), cut, encoded.select(range(4)))
    trainer = make_taught(model, teacher, rows=4)
    assert "over the tokenizer's 400 tokens: the teacher's head has 448, the student's 400" in caplog.text
    trainer.train()
    assert loss_logs(trainer)[0]["distillation_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_another_tokenizer_is_refused(dual_of, teacher_lm, make_taught, make_tokenizer):
    other = make_tokenizer()
    other.add_tokens(["<extra>"])
    with pytest.raises(ValueError, match="1 tokens differ, such as '<extra>'.*Choose a teacher of the same family"):
        make_taught(dual_of("llama"), Teacher(copy.deepcopy(teacher_lm), other))


def test_a_small_head_is_refused(dual_of, make_lm, make_taught):
    with pytest.raises(ValueError, match="The tokenizer has 400 tokens, the teacher's head 300"):
        make_taught(dual_of("llama"), make_lm("llama", vocab_size=300))


# Settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"distillation_weight": -1.0}, "distillation_weight=-1.0 must be 0 or greater"),
        ({"distillation_weight": float("nan")}, "distillation_weight=nan must be 0 or greater"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
    ],
)
def test_wrong_settings_are_told(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        DualHeadTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **wrong)


def test_a_weight_wants_a_teacher_and_a_teacher_a_weight(dual_of, teacher_lm, make_taught, caplog):
    with pytest.raises(ValueError, match="distillation_weight=0.7 needs a teacher"):
        make_taught(dual_of("llama"))
    trainer = make_taught(dual_of("llama"), copy.deepcopy(teacher_lm), distillation_weight=0.0)
    assert trainer.teacher is None and "the teacher is not used" in caplog.text
    with pytest.raises(ValueError, match="top_k=0 must be 1 or more"):
        Teacher(copy.deepcopy(teacher_lm), top_k=0)


# The cache


@pytest.fixture
def make_teacher(teacher_lm, tokenizer, dual_of):
    def make(folder, lm=teacher_lm, **kwargs):
        teacher = Teacher(copy.deepcopy(lm), tokenizer, cache_dir=folder, **kwargs)
        teacher.check(dual_of("llama"), tokenizer)
        return teacher

    return make


def test_the_cache_holds_the_top_tokens_and_the_rest_of_each_target(
    make_teacher, teacher_lm, tokenizer, encoded, tmp_path
):
    rows = make_teacher(tmp_path, top_k=3).cached(encoded, tokenizer)
    assert rows.column_names == [*encoded.column_names, "teacher_log_probs", "teacher_ids"]
    assert rows.select_columns(encoded.column_names).to_dict() == encoded.to_dict()
    for row in (rows[1], rows[17]):
        probabilities = torch.softmax(teacher_lm(torch.tensor([row["input_ids"]])).logits[0, :-1], -1)
        top = probabilities.topk(3)
        found = torch.tensor(row["teacher_log_probs"]).exp().reshape(-1, 4)
        assert torch.equal(torch.tensor(row["teacher_ids"]).reshape(-1, 3).long(), top.indices)
        torch.testing.assert_close(found[:, :3], top.values)
        torch.testing.assert_close(found[:, 3], 1 - top.values.sum(-1), rtol=1e-4, atol=1e-5)


def test_a_stopped_cache_goes_on_after_its_last_shard(make_teacher, tokenizer, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(soft_target_cache, "_SHARD_ROWS", 10)
    whole = make_teacher(tmp_path / "whole").cached(encoded, tokenizer)
    asked = []
    compute = Teacher.soft_targets

    def counted(self, inputs, *args):
        asked.append(inputs["input_ids"].shape[0])
        if len(asked) == 4:  # in the second shard
            raise KeyboardInterrupt
        return compute(self, inputs, *args)

    monkeypatch.setattr(Teacher, "soft_targets", counted)
    with pytest.raises(KeyboardInterrupt):
        make_teacher(tmp_path / "cut").cached(encoded, tokenizer)
    again = make_teacher(tmp_path / "cut").cached(encoded, tokenizer)
    assert sum(asked[4:]) == 14  # of 24 rows ten were there
    assert again.with_format(None).to_dict() == whole.with_format(None).to_dict()
    del asked[:]
    make_teacher(tmp_path / "cut").cached(encoded, tokenizer)
    assert asked == []


def test_a_cache_of_something_else_is_refused(make_teacher, make_lm, tokenizer, make_tokenizer, encoded, tmp_path):
    make_teacher(tmp_path / "cache").cached(encoded, tokenizer)
    swapped = concatenate_datasets([encoded.select([1, 0]), encoded.select(range(2, 24))])
    with pytest.raises(ValueError, match="soft targets of another data set, or the same one encoded otherwise"):
        make_teacher(tmp_path / "cache").cached(swapped, tokenizer)
    with pytest.raises(ValueError, match="soft targets of another teacher: name another folder"):
        make_teacher(tmp_path / "cache", make_lm("gemma2", seed=12)).cached(encoded, tokenizer)
    with pytest.raises(ValueError, match=r"number of tokens a position \(top_k\) \(64, now 8\)"):
        make_teacher(tmp_path / "cache", top_k=8).cached(encoded, tokenizer)
    other = make_tokenizer()
    other.add_tokens(["<extra>"])
    with pytest.raises(ValueError, match="soft targets of another tokenizer"):
        make_teacher(tmp_path / "cache").cached(encoded, other)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something, but no soft targets"):
        make_teacher(tmp_path / "else").cached(encoded, tokenizer)
    with pytest.raises(ValueError, match="rows of DualHeadEncoder in a datasets.Dataset, found list"):
        make_teacher(tmp_path / "new").cached([], tokenizer)


def test_a_second_process_with_the_same_rows_is_no_error(make_teacher, tokenizer, encoded, tmp_path, monkeypatch):
    first = make_teacher(tmp_path / "first").cached(encoded, tokenizer)
    compute = soft_target_cache._top_k_of

    def raced(self, rows, progress):
        shutil.copytree(tmp_path / "first" / "shard-00000", tmp_path / "second" / "shard-00000")
        return compute(self, rows, progress)

    monkeypatch.setattr(soft_target_cache, "_top_k_of", raced)
    second = make_teacher(tmp_path / "second").cached(encoded, tokenizer)
    assert second.with_format(None).to_dict() == first.with_format(None).to_dict()
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == ["shard-00000", "soft_targets.json"]


def test_large_batches_take_the_chunked_path(dual_of, teacher_lm, make_taught, monkeypatch):
    found, calls, chunked = [], [], losses.chunked_distillation_loss

    def counted(*arguments):
        calls.append(1)
        return chunked(*arguments)

    monkeypatch.setattr(losses, "chunked_distillation_loss", counted)
    monkeypatch.setattr(losses, "CHUNK", 400 * 7)
    for limit, steps in ((losses.CHUNKED_FROM, 0), (1, 2)):
        monkeypatch.setattr(losses, "CHUNKED_FROM", limit)
        trainer = make_taught(dual_of("qwen3"), copy.deepcopy(teacher_lm))
        trainer.train()
        found.append(trainer.model.state_dict())
        assert len(calls) == steps
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-5)
