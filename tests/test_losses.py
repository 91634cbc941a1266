"""The objective against its equation in float64, against torch's own losses, and the chunked path against the naive one."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dhrd_hf import losses

WIDTH, VOCAB = 8, 23


def make_states(batch=3, length=7, seed=0, keep=0.7):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, length, WIDTH, generator=generator)
    targets = torch.randint(0, VOCAB, (batch, length), generator=generator)
    targets[torch.rand(batch, length, generator=generator) > keep] = -100
    return hidden, targets


def make_head(kind, seed=1):
    torch.manual_seed(seed)
    linear = nn.Linear(WIDTH, VOCAB, bias=kind == "biased")
    capped = lambda hidden: 3 * torch.tanh(linear(hidden) / 3)  # noqa: E731
    return (capped if kind == "capped" else linear), linear


def log_softmax_at(logits, index):
    """log p of one class, with python's floats (float64)."""
    top = max(logits)
    return logits[index] - top - math.log(sum(math.exp(value - top) for value in logits))


def equation_3(hidden, targets, head):
    """- (1 / N) sum over rows b and positions t with a target of log p(s_t | s_<t)."""
    total, number = 0.0, 0
    for row in range(hidden.shape[0]):
        for position in range(1, hidden.shape[1]):
            target = targets[row, position].item()
            if target != -100:
                total -= log_softmax_at(head(hidden[row, position - 1]).tolist(), target)
                number += 1
    return total / number


@pytest.mark.parametrize("kind", ["plain", "biased", "capped"])
def test_reasoning_loss_is_equation_3(kind):
    hidden, targets = make_states()
    head, linear = make_head(kind)
    found = losses.reasoning_loss(hidden, targets, head)
    linear.double()
    assert found.item() == pytest.approx(equation_3(hidden.double(), targets, head), rel=1e-6)


def test_reasoning_loss_is_a_token_mean_not_a_mean_of_row_means():
    hidden, _ = make_states(batch=2, length=9)
    targets = torch.full((2, 9), -100)
    targets[0, 1:] = 4
    targets[1, 1] = 5
    head, linear = make_head("plain")
    whole = losses.reasoning_loss(hidden, targets, head).item()
    long, short = (losses.reasoning_loss(hidden[i : i + 1], targets[i : i + 1], head).item() for i in (0, 1))
    assert whole == pytest.approx((8 * long + short) / 9, rel=1e-6)
    assert whole != pytest.approx((long + short) / 2, rel=1e-3)


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.25]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_loss_is_torchs_cross_entropy(weights, smoothing):
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(6, 3, generator=generator), torch.tensor([0, 2, 1, 1, -100, 2])
    weight = None if weights is None else torch.tensor(weights)
    expected = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)(logits, labels)
    found = losses.classification_loss(logits, labels, class_weights=weight, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_classification_loss_is_equation_2():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]), torch.tensor([2, 1])
    expected = -sum(log_softmax_at(row.tolist(), label) for row, label in zip(logits, labels, strict=True)) / 2
    assert losses.classification_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_multi_label_is_torchs_bce_with_positive_weights():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, generator=generator)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    weight = torch.tensor([1.0, 3.0, 0.5])
    expected = nn.BCEWithLogitsLoss(pos_weight=weight)(logits, labels.float())
    found = losses.classification_loss(logits, labels, "multi_label_classification", weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(4, 1), (4, 3)])
def test_regression_is_torchs_mse(shape):
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    found = losses.classification_loss(logits, labels.squeeze(-1), "regression")
    assert found.item() == pytest.approx(nn.MSELoss()(logits, labels).item(), rel=1e-6)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_count_over_the_whole_batch_makes_parts_add_up(problem_type):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(7, 3, generator=generator)
    single = problem_type == "single_label_classification"
    labels = torch.arange(7) % 3 if single else torch.rand(7, 3, generator=generator).round()
    weights = None if problem_type == "regression" else torch.tensor([1.0, 2.0, 5.0])
    whole = losses.classification_loss(logits, labels, problem_type, weights)
    count = losses.classification_count(labels, problem_type, weights)
    parts = zip(logits.split([1, 4, 2]), labels.split([1, 4, 2]), strict=True)
    found = sum(losses.classification_loss(*part, problem_type, weights, count=count).item() for part in parts)
    assert found == pytest.approx(whole.item(), rel=1e-6)


def test_reasoning_counts_of_parts_make_them_add_up():
    hidden, targets = make_states(batch=5)
    head, _ = make_head("plain")
    count = losses.reasoning_count(targets)
    assert count.item() == sum(value != -100 for row in targets.tolist() for value in row[1:])
    parts = zip(hidden.split([1, 3, 1]), targets.split([1, 3, 1]), strict=True)
    found = sum(losses.reasoning_loss(*part, head, count=count).item() for part in parts)
    assert found == pytest.approx(losses.reasoning_loss(hidden, targets, head).item(), rel=1e-6)


@pytest.fixture
def always_chunked(monkeypatch):
    """Send everything down the chunked path, in chunks of five rows, and tell what the head was given."""
    monkeypatch.setattr(losses, "CHUNKED_FROM", 0)
    monkeypatch.setattr(losses, "CHUNK", 5 * VOCAB)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("plain", "linear_cross_entropy"),
        ("biased", "linear_cross_entropy"),
        ("plain", "checkpointed"),
        ("biased", "checkpointed"),
        ("capped", "checkpointed"),  # no plain layer: it has no other path
    ],
)
def test_chunked_and_naive_agree_in_value_and_gradients(always_chunked, kind, path):
    # A torch without linear_cross_entropy falls back to the other path.
    at_once = 0 if path == "linear_cross_entropy" and hasattr(nn.functional, "linear_cross_entropy") else 5
    hidden, targets = make_states(batch=4, length=9)
    results = {}
    for name in ("naive", "chunked"):
        head, linear = make_head(kind)
        states = hidden.clone().requires_grad_()
        largest = []

        def watched(rows, head=head, largest=largest):
            largest.append(rows.shape[0])
            return head(rows)

        if name == "naive":
            loss = losses.reasoning_loss(states, targets, watched)  # without a vocabulary size it never chunks
            assert largest == [int(losses.reasoning_count(targets))]
        else:
            given = linear if path == "linear_cross_entropy" else None
            loss = losses.reasoning_loss(states, targets, watched, linear=given, vocab_size=VOCAB)
            assert max(largest, default=0) <= at_once, "too many logits at once"
        (2 * loss).backward()
        results[name] = [loss.detach(), states.grad, *(parameter.grad for parameter in linear.parameters())]
    for found, expected in zip(results["chunked"], results["naive"], strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_frozen_head_still_passes_gradients_to_the_states(always_chunked):
    hidden, targets = make_states()
    grads = []
    for vocab_size in (None, VOCAB):
        head, linear = make_head("plain")
        linear.requires_grad_(False)
        states = hidden.clone().requires_grad_()
        losses.reasoning_loss(states, targets, head, linear=linear, vocab_size=vocab_size).backward()
        assert linear.weight.grad is None
        grads.append(states.grad)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("given_count", [None, 0.0, 9.0])
def test_no_targets_give_zero_with_a_gradient_graph(request, chunked, given_count):
    if chunked:
        request.getfixturevalue("always_chunked")
    hidden, targets = make_states()
    states = hidden.requires_grad_()
    head, linear = make_head("plain")
    count = None if given_count is None else torch.tensor(given_count)
    loss = losses.reasoning_loss(
        states, torch.full_like(targets, -100), head, linear=linear, vocab_size=VOCAB, count=count
    )
    assert loss.item() == 0
    loss.backward()
    assert states.grad.abs().max() == 0 and linear.weight.grad.abs().max() == 0


def test_a_first_token_is_no_target():
    targets = torch.tensor([[5, -100, -100], [7, 8, -100]])
    assert losses.reasoning_count(targets).item() == 1
    assert losses.shift_targets(targets).tolist() == [[-100, -100, -100], [8, -100, -100]]


def test_bf16_states_are_summed_in_float32():
    hidden, targets = make_states(batch=8, length=40)
    head, linear = make_head("plain")
    linear.bfloat16()
    found = losses.reasoning_loss(hidden.bfloat16(), targets, head)
    logits = head(hidden.bfloat16())[:, :-1].double()
    exact = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_chunked_sum_is_a_float32_one_as_well(dtype):
    """In bf16 a sum of thousands stands still, in fp16 it is infinite."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 4000, bias=False)
    linear.weight.data.normal_(std=0.5, generator=generator)
    linear.to(dtype)
    hidden = torch.randn(8000, 64, generator=generator).to(dtype)
    targets = torch.randint(0, 4000, (8000,), generator=generator)
    results = []
    for loss in (losses.naive_reasoning_loss, functools.partial(losses.chunked_reasoning_loss, linear=linear)):
        states = hidden.clone().requires_grad_()
        total = loss(states, targets, linear)
        (total / 8000).backward()
        results.append((total, states.grad))
    (expected, wanted), (found, gradient) = results
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert (gradient - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_labels_of_another_shape_are_refused(problem_type):
    with pytest.raises(ValueError, match=r"\[2\].*\[2, 3\]"):
        losses.classification_loss(torch.zeros(2, 3), torch.zeros(2), problem_type)


def test_class_ids_out_of_range_are_refused():
    with pytest.raises(ValueError, match="label id 3 is out of range.*3 labels, 0 to 2"):
        losses.classification_loss(torch.zeros(2, 3), torch.tensor([0, 3]))


# Soft targets


def soft_formula(student, teacher, temperature):
    """T^2 times the sum of KL(teacher_T || student_T), by torch's own divergence in float64."""
    log_p, log_q = (torch.log_softmax(logits.double() / temperature, -1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(log_p, log_q, reduction="sum", log_target=True)


def make_teacher_logits(number, seed=5):
    return 2 * torch.randn(number, VOCAB, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_targets_are_the_tempered_divergence(temperature, dtype):
    teacher = make_teacher_logits(6).to(dtype)
    student = make_teacher_logits(6, seed=6).to(dtype).requires_grad_()
    found = losses.naive_distillation_loss(student, teacher, temperature=temperature)
    (gradient,) = torch.autograd.grad(found, student)
    expected = soft_formula(student, teacher, temperature)
    tight = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.double(), expected, **tight)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0], **tight)
    assert losses.naive_distillation_loss(student, student.detach(), temperature=temperature).abs() < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 5, VOCAB])
def test_top_k_soft_targets_are_the_divergence_of_k_tokens_and_the_rest(k, temperature):
    teacher, student = make_teacher_logits(6).double(), make_teacher_logits(6, seed=6).double().requires_grad_()
    log_q = torch.log_softmax(teacher, -1)
    ids = log_q.topk(k).indices
    in_top = torch.zeros(6, VOCAB, dtype=torch.bool).scatter(-1, ids, True)

    def events(log_p):  # the probabilities of the k tokens, and the others' sum
        top, rest = log_p.exp().gather(-1, ids), (log_p.exp() * ~in_top).sum(-1, keepdim=True)
        return (torch.cat([top, rest], -1) if k < VOCAB else top).log()

    found = losses.naive_distillation_loss(student, events(log_q), ids, temperature)
    expected = soft_formula(events(torch.log_softmax(student, -1)), events(log_q), temperature)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)
    whole = soft_formula(student, teacher, temperature)
    assert found > 0
    if k == VOCAB:
        torch.testing.assert_close(found, whole)
    elif temperature == 1:
        assert found < whole


def test_a_token_that_the_teacher_rules_out_adds_nothing():
    teacher, student = make_teacher_logits(3), make_teacher_logits(3, seed=6).requires_grad_()
    teacher[:, 4] = -torch.inf
    found = losses.naive_distillation_loss(student, teacher)
    found.backward()
    kept = [index for index in range(VOCAB) if index != 4]
    q, log_p = torch.softmax(teacher[:, kept], -1), torch.log_softmax(student, -1)[:, kept]
    torch.testing.assert_close(found, (q * (q.log() - log_p)).sum())
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["plain", "biased", "capped"])
@pytest.mark.parametrize("k", [None, 5])
def test_chunked_soft_targets_equal_the_naive_formula(kind, k, monkeypatch):
    hidden, targets = make_states()
    number = int(losses.reasoning_count(targets))
    teacher, ids = make_teacher_logits(number), None
    if k is not None:
        ids = teacher.topk(k).indices
        log_q = torch.log_softmax(teacher, -1)
        rest = log_q.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        teacher = torch.cat([log_q.gather(-1, ids), rest], -1)
    asked = []

    def at(rows):
        asked.append(rows)
        return teacher[rows], None if ids is None else ids[rows]

    results = []
    for limit in (losses.CHUNKED_FROM, 0):
        monkeypatch.setattr(losses, "CHUNKED_FROM", limit)
        monkeypatch.setattr(losses, "CHUNK", 4 * VOCAB)
        head, linear = make_head(kind)
        states = hidden.clone().requires_grad_()
        loss = losses.distillation_loss(
            states, targets, head, losses.SoftTargets(at, VOCAB, temperature=2.0), vocab_size=VOCAB
        )
        loss.backward()
        results.append([loss.detach(), states.grad, *(parameter.grad for parameter in linear.parameters())])
    assert asked[0] == slice(0, number)
    assert max(rows.stop - rows.start for rows in asked[1:]) == 4
    torch.testing.assert_close(results[0], results[1])
    if k is None:
        head, _ = make_head(kind)
        student = head(hidden[:, :-1][targets[:, 1:] != -100])
        torch.testing.assert_close(results[0][0].double(), soft_formula(student, teacher, 2.0) / number)


def test_soft_targets_are_divided_by_the_count_that_is_given():
    hidden, targets = make_states()
    head, _ = make_head("plain")
    soft = losses.SoftTargets(lambda rows: (make_teacher_logits(100)[rows], None), VOCAB)
    own = losses.reasoning_count(targets)
    alone = losses.distillation_loss(hidden, targets, head, soft)
    shared = losses.distillation_loss(hidden, targets, head, soft, count=4 * own)
    torch.testing.assert_close(alone, 4 * shared)
    none = losses.distillation_loss(hidden, torch.full_like(targets, -100), head, soft)
    assert none == 0


def test_multi_label_rows_without_labels_are_refused():
    labels = torch.tensor([[1.0, 0.0], [-100.0, -100.0]])
    with pytest.raises(ValueError, match="multi-label labels must be 0 to 1, and there is -100"):
        losses.classification_loss(torch.zeros(2, 2), labels, "multi_label_classification")
