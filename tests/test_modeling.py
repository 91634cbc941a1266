"""The dual-head model against the family's own causal LM and sequence classifier."""

import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from families import tiny_config
from safetensors.torch import load_file
from strangers import run_as_a_stranger
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dhrd_hf import AutoModelForDualHeadClassification, DHRDConfig, DHRDForDualHeadClassification, losses

PAD, EOS, BOS = 0, 1, 2
VOCAB = 400


def make_batch(lengths, inputs, side="right", seed=0, pad=PAD, length=None):
    """Random rows s of these lengths, of which `inputs` tokens are x; all of s is a target."""
    generator = torch.Generator().manual_seed(seed)
    length = max(lengths) if length is None else length
    rows = [torch.randint(3, VOCAB, (n,), generator=generator) for n in lengths]
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        start = length - len(row) if side == "left" else 0
        ids[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "input_length": torch.tensor(inputs),
        "reasoning_targets": ids.masked_fill(mask == 0, -100),
        "labels": torch.arange(len(rows)) % 3,
    }


def positions_of(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0)


def largest_difference(found, expected):
    return (found - expected).abs().max().item()


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


# Promise 1: nothing after x reaches the class logits


def test_no_token_after_x_changes_the_class_logits(dual_of, family):
    model = dual_of(family)
    batch = make_batch([14, 14], [5, 7])
    batch.pop("reasoning_targets"), batch.pop("labels")
    with torch.no_grad():
        expected = model(**batch).logits
        for position in range(7, 14):
            changed = batch["input_ids"].clone()
            changed[:, position] = (changed[:, position] + 17) % (VOCAB - 3) + 3
            found = model(**{**batch, "input_ids": changed}).logits
            if family == "qwen3-moe":
                # Its experts multiply as many rows as are routed to them, which orders the sums of x's rows as well.
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
            else:
                assert torch.equal(found, expected), f"token {position} leaks into x, which ends before 7"
        changed = batch["input_ids"].clone()
        changed[:, 2] = (changed[:, 2] + 17) % (VOCAB - 3) + 3
        assert largest_difference(model(**{**batch, "input_ids": changed}).logits, expected) > 1e-3


def test_the_suffix_has_no_gradient_from_the_classification_loss(dual_of, family):
    model = dual_of(family)
    batch = make_batch([14, 14], [5, 7])
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    keys = ("attention_mask", "input_length", "labels")
    model(inputs_embeds=embeds, **{key: batch[key] for key in keys}).loss.backward()
    assert embeds.grad[0, 5:].abs().max() == 0 and embeds.grad[1, 7:].abs().max() == 0
    assert embeds.grad[0, 4].abs().max() > 0 and embeds.grad[1, 6].abs().max() > 0


# Promise 2: the reasoning loss is the family's own


@pytest.mark.parametrize("side", ["right", "left"])
def test_reasoning_loss_and_gradients_are_the_causal_lms(dual_of, stock_lm_of, family, side):
    dual = dual_of(family)
    lm = stock_lm_of(dual)
    batch = make_batch([4, 15, 9], [2, 5, 8], side)
    mask, ids = batch["attention_mask"], batch["input_ids"]
    for seed in (None, 1, 2):
        targets = batch["reasoning_targets"].clone()
        if seed is not None:
            targets[torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed)) < 0.4] = -100
        dual.zero_grad(), lm.zero_grad()
        expected = lm(input_ids=ids, attention_mask=mask, labels=targets).loss
        found = dual(ids, mask, input_length=batch["input_length"], reasoning_targets=targets).loss
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        found.backward(), expected.backward()
        names = {id(module): name for name, module in lm.named_modules()}
        backbone, head = lm.base_model_prefix, names[id(lm.get_output_embeddings())]
        theirs = gradients(lm)
        ours = {
            name.replace("lm_head.", f"{head}.", 1) if name.startswith("lm_head.") else f"{backbone}." + name[6:]: grad
            for name, grad in gradients(dual).items()
        }
        assert ours.keys() == theirs.keys() and len(theirs) > 10
        scale = max(grad.abs().max().item() for grad in theirs.values())
        for name, grad in theirs.items():
            assert largest_difference(ours[name], grad) <= 1e-5 * max(scale, 1), name


def test_reasoning_logits_are_the_causal_lms(dual_of, stock_lm_of, family):
    dual = dual_of(family)
    batch = make_batch([4, 15, 9], [2, 5, 8])
    keys = ("input_ids", "attention_mask")
    with torch.no_grad():
        expected = stock_lm_of(dual)(**{key: batch[key] for key in keys}).logits
        out = dual(**batch, output_reasoning_logits=True)
    assert out.reasoning_logits.shape == (3, 15, VOCAB)
    torch.testing.assert_close(out.reasoning_logits, expected, rtol=1e-5, atol=1e-5)
    assert dual(**batch).reasoning_logits is None


def test_generate_is_the_causal_lms(dual_of, stock_lm_of, family):
    dual = dual_of(family)
    batch = make_batch([4, 9], [4, 9], "left")
    prompt = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": PAD}
    expected = stock_lm_of(dual).generate(**prompt, **options)
    found = dual.generate(**prompt, **options)
    assert found.shape[1] > 9 and torch.equal(found, expected)


# Promise 3: the class logits are the stock classifier's on x alone


@pytest.mark.parametrize("side", ["right", "left"])
def test_class_logits_are_the_stock_classifiers_on_x_alone(dual_of, stock_classifier_of, family, side):
    dual = dual_of(family)
    stock = stock_classifier_of(dual)
    batch = make_batch([4, 15, 9], [2, 5, 8], side)
    ids, mask, lengths = batch["input_ids"], batch["attention_mask"], batch["input_length"]
    # Positions count a row's own tokens, as those of a row alone do; where they are absolute (GPT-2) this matters.
    positions = positions_of(mask)
    with torch.no_grad():
        batched = dual(ids, mask, position_ids=positions, input_length=lengths).logits
        x_rows = [row[keep == 1][:length] for row, keep, length in zip(ids, mask, lengths, strict=True)]
        for index, x in enumerate(x_rows):
            expected = stock(x[None]).logits[0]
            torch.testing.assert_close(batched[index], expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(dual(x[None]).logits[0], expected, rtol=1e-5, atol=1e-5)

        length = max(map(len, x_rows))
        padding = [torch.full((length - len(x),), PAD) for x in x_rows]
        pairs = zip(x_rows, padding, strict=True)
        x_ids = torch.stack([torch.cat([p, x] if side == "left" else [x, p]) for x, p in pairs])
        x_mask = (x_ids != PAD).long()
        expected = stock(x_ids, attention_mask=x_mask).logits
        torch.testing.assert_close(dual(x_ids, x_mask).logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(dual(x_ids, x_mask, input_length=lengths).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pad", [PAD, EOS], ids=["pad", "pad-is-eos"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_x_that_ends_in_eos_pools_as_the_stock_classifier_does(dual_of, stock_classifier_of, side, pad):
    dual = dual_of("llama")
    dual.config.pad_token_id = pad
    stock = stock_classifier_of(dual)
    assert stock.config.pad_token_id == pad
    batch = make_batch([6, 12, 9], [4, 5, 9], side, pad=pad)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    starts = mask.argmax(-1)
    for row, (start, length) in enumerate(zip(starts, batch["input_length"], strict=True)):
        ids[row, start + length - 1] = EOS  # the last token of x
        ids[row, start + 1] = EOS  # and one amid it
    with torch.no_grad():
        found = dual(ids, mask, input_length=batch["input_length"]).logits
        for row, (start, length) in enumerate(zip(starts, batch["input_length"], strict=True)):
            x = ids[row, start : start + length]
            assert largest_difference(found[row], stock(x[None]).logits[0]) < 1e-5
            one_early = stock(x[None, :-1]).logits[0]
            assert (largest_difference(found[row], one_early) < 1e-5) == (pad == EOS)


def test_without_pad_token_one_row_is_pooled_and_several_are_refused(dual_of, stock_classifier_of):
    dual = dual_of("llama")
    dual.config.pad_token_id = None
    stock = stock_classifier_of(dual)
    x = make_batch([6, 6], [6, 6])["input_ids"]
    assert torch.allclose(dual(x[:1]).logits, stock(x[:1]).logits, atol=1e-5)
    with pytest.raises(ValueError, match="pad_token_id"):
        dual(x)


# No vocabulary product that nobody asked for


@pytest.fixture
def head_rows():
    """Count the positions that reach a model's LM head."""

    def watch(model):
        seen = []
        model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[:-1].numel()))
        return seen

    return watch


def test_the_lm_head_does_not_run_at_inference_nor_at_alpha_0(dual_of, head_rows, family):
    batch = make_batch([4, 15, 9], [2, 5, 8])
    model = dual_of(family)
    seen = head_rows(model)
    model(batch["input_ids"], batch["attention_mask"])
    model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    baseline = dual_of(family, alpha=0.0)
    seen_baseline = head_rows(baseline)
    out = baseline(**batch)
    assert seen == [] and seen_baseline == []
    assert out.reasoning_loss is None and torch.equal(out.loss, out.classification_loss)


def test_only_positions_with_a_target_reach_the_lm_head(dual_of, head_rows, family):
    model = dual_of(family)
    batch = make_batch([4, 15, 9], [2, 5, 8])
    batch["reasoning_targets"][:, 3:7] = -100
    model(**batch)
    seen = head_rows(model)
    model(**batch)
    assert seen == [(batch["reasoning_targets"][:, 1:] != -100).sum().item()]


def test_no_targets_give_no_reasoning_loss_but_a_gradient(dual_of):
    model = dual_of("llama")
    batch = make_batch([4, 9], [2, 8])
    batch["reasoning_targets"][:] = -100
    out = model(**batch)
    assert out.reasoning_loss.item() == 0 and torch.equal(out.loss, out.classification_loss)
    out.loss.backward()


# The objective


def test_loss_is_beta_times_one_term_and_alpha_times_the_other(dual_of):
    batch = make_batch([4, 15, 9], [2, 5, 8])
    out = dual_of("llama", alpha=0.5, beta=2.0)(**batch)
    assert out.loss.item() == pytest.approx(2 * out.classification_loss.item() + 0.5 * out.reasoning_loss.item())
    out = dual_of("llama", alpha=1.0, beta=0.0)(**batch)
    assert torch.equal(out.loss, out.reasoning_loss)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
@pytest.mark.parametrize("stated", [True, False])
def test_classification_loss_is_the_stock_classifiers(dual_of, stock_classifier_of, problem_type, stated):
    num_labels = 1 if problem_type == "regression" else 3
    labels = {
        "single_label_classification": torch.tensor([2, 0, 1]),
        "multi_label_classification": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "regression": torch.tensor([0.3, -1.2, 4.0]),
    }[problem_type]
    dual = dual_of("llama", num_labels=num_labels, problem_type=problem_type if stated else None)
    stock = stock_classifier_of(dual)
    x = make_batch([7, 4, 5], [7, 4, 5])
    inputs = {"input_ids": x["input_ids"], "attention_mask": x["attention_mask"], "labels": labels}
    assert dual(**inputs).loss.item() == pytest.approx(stock(**inputs).loss.item(), rel=1e-5)
    assert dual.config.problem_type == stock.config.problem_type == problem_type


def test_regression_with_several_targets_is_the_stock_classifiers(dual_of, stock_classifier_of):
    dual = dual_of("llama", problem_type="regression")
    x = make_batch([7, 4], [7, 4])
    labels = torch.tensor([[0.1, 2.0, -1.0], [3.0, 0.0, 0.5]])
    inputs = {"input_ids": x["input_ids"], "attention_mask": x["attention_mask"], "labels": labels}
    assert dual(**inputs).loss.item() == pytest.approx(stock_classifier_of(dual)(**inputs).loss.item(), rel=1e-5)


def test_two_counts_make_micro_batches_add_up_to_the_whole_batch(dual_of):
    model = dual_of("llama", class_weights=[1.0, 3.0, 0.5], label_smoothing=0.1)
    batch = make_batch([4, 15, 9, 6], [2, 5, 8, 3])
    whole = model(**batch)
    weights = torch.tensor(model.config.class_weights)[batch["labels"]].sum()
    counts = torch.stack([weights, (batch["reasoning_targets"][:, 1:] != -100).sum().float()])
    for sizes in ((1, 1, 1, 1), (3, 1), (2, 2)):
        parts = zip(*(value.split(sizes) for value in batch.values()), strict=True)
        outs = [model(**dict(zip(batch, part, strict=True)), num_items_in_batch=counts) for part in parts]
        for name in ("loss", "classification_loss", "reasoning_loss"):
            assert sum(out[name].item() for out in outs) == pytest.approx(whole[name].item(), rel=1e-5), name


def test_one_count_splits_the_classification_exactly_and_weighs_the_reasoning_by_rows(dual_of):
    model = dual_of("llama")
    batch = make_batch([4, 15, 9], [2, 5, 8])
    whole = model(**batch)
    sizes = (1, 2)
    parts = [dict(zip(batch, p, strict=True)) for p in zip(*(v.split(sizes) for v in batch.values()), strict=True)]
    outs = [model(**part, num_items_in_batch=torch.tensor(3)) for part in parts]
    assert sum(out.classification_loss.item() for out in outs) == pytest.approx(whole.classification_loss.item())
    means = [model(**part).reasoning_loss.item() for part in parts]
    expected = sum(mean * size / 3 for mean, size in zip(means, sizes, strict=True))
    assert sum(out.reasoning_loss.item() for out in outs) == pytest.approx(expected, rel=1e-5)


# What transformers offers on a stock model


def test_gradient_checkpointing_gives_the_same_gradients(dual_of, family):
    batch = make_batch([4, 15, 9], [2, 5, 8])
    plain, checkpointed = dual_of(family), dual_of(family)
    enable = getattr(checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable)
    enable()
    calls = {plain: 0, checkpointed: 0}
    for model in calls:

        def count(*_, model=model):
            calls[model] += 1

        mlp = next(module for name, module in model.named_modules() if name.endswith("0.mlp"))
        mlp.register_forward_pre_hook(count)
        model.train()
        model(**batch).loss.backward()
    assert calls == {plain: 1, checkpointed: 2}, "nothing was computed again"
    expected, found = gradients(plain), gradients(checkpointed)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3-moe"])
def test_attention_implementation_reaches_the_backbone_and_agrees(dual_of, family):
    batch = make_batch([4, 15, 9], [2, 5, 8], "left")
    batch["reasoning_targets"][positions_of(batch["attention_mask"]) == 0] = -100  # no sense in what padding predicts
    outs = {}
    for name in ("eager", "sdpa"):
        model = dual_of(family, attn_implementation=name)
        assert {m.config._attn_implementation for m in model.model.modules() if hasattr(m, "config")} == {name}
        outs[name] = model(**batch, output_attentions=name == "eager")
    assert outs["eager"].attentions is not None
    torch.testing.assert_close(outs["eager"].logits, outs["sdpa"].logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outs["eager"].loss, outs["sdpa"].loss, rtol=1e-5, atol=1e-5)


def test_bf16_loads_and_its_loss_is_float32(dual_of, family):
    model = dual_of(family, dtype=torch.bfloat16)
    kinds = {parameter.dtype for parameter in model.parameters()}
    assert kinds == {torch.bfloat16} and model.dtype == torch.bfloat16
    batch = make_batch([4, 15, 9], [2, 5, 8])
    out = model(**batch)
    assert out.loss.dtype == torch.float32
    assert out.loss.item() == pytest.approx(dual_of(family)(**batch).loss.item(), rel=0.1)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2"])
def test_resized_embeddings_stay_tied_and_give_the_causal_lms_loss(dual_of, stock_lm_of, family):
    model = dual_of(family)
    tied = model.config.tie_word_embeddings
    model.resize_token_embeddings(VOCAB + 7)
    assert model.config.vocab_size == VOCAB + 7 and model.lm_head.weight.shape[0] == VOCAB + 7
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    batch = make_batch([4, 15, 9], [2, 5, 8])
    batch["input_ids"][:, 1] = batch["reasoning_targets"][:, 1] = VOCAB + 3
    lm = stock_lm_of(model)
    expected = lm(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["reasoning_targets"]
    ).loss
    assert model(**batch).reasoning_loss.item() == pytest.approx(expected.item(), rel=1e-5)


def two_heads(lm):
    return DHRDForDualHeadClassification(DHRDConfig(backbone_config=lm.config, num_labels=3), causal_lm=lm).eval()


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_resized_embeddings_of_experts_keep_their_balancing_loss(name):
    model = two_heads(AutoModelForCausalLM.from_config(tiny_config(name, output_router_logits=True)))
    model.resize_token_embeddings(VOCAB + 7)
    batch = make_batch([4, 15, 9], [2, 5, 8])
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    stock = AutoModelForCausalLM.from_config(model.config.backbone_config).eval()
    stock.load_state_dict({key: value for key, value in model.state_dict().items() if key != "score.weight"})
    expected = stock(**inputs, labels=batch["reasoning_targets"]).loss.item()
    assert model(**batch).reasoning_loss.item() == pytest.approx(expected, rel=1e-5)
    found = model.as_causal_lm()(**inputs, labels=batch["reasoning_targets"]).loss.item()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gemma2", {}), ("cohere", {"logit_scale": 0.25}), ("granite", {"logits_scaling": 8.0}), ("llama", {})],
)
@pytest.mark.parametrize("large", ["weights", "states"])
def test_large_logits_are_capped_and_scaled_on_the_chunked_path_too(name, changes, large, monkeypatch):
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(tiny_config(name, **changes)).eval()
    with torch.no_grad():  # a soft cap is the identity on small ones
        lm.get_output_embeddings().weight.mul_(60) if large == "weights" else lm.model.norm.weight.add_(60)
    batch = make_batch([4, 15, 9], [2, 5, 8])
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected = lm(**inputs, labels=batch["reasoning_targets"]).loss.item()
    model = two_heads(lm)
    for limit in (losses.CHUNKED_FROM, 0):
        monkeypatch.setattr(losses, "CHUNKED_FROM", limit)
        assert model(**batch).reasoning_loss.item() == pytest.approx(expected, rel=1e-5)


def test_pushed_while_it_is_saved_it_has_its_code(dual_of, tmp_path, monkeypatch):
    uploaded = []
    monkeypatch.setattr(
        "transformers.modeling_utils.hf_api",
        lambda *_: SimpleNamespace(create_repo=lambda repo_id, **_: SimpleNamespace(repo_id=repo_id)),
    )
    monkeypatch.setattr(
        DHRDForDualHeadClassification,
        "_upload_modified_files",
        lambda self, folder, *args, **kwargs: uploaded.extend(sorted(os.listdir(folder))),
    )
    dual_of("llama").save_pretrained(tmp_path / "run", push_to_hub=True, repo_id="ada/run")
    code = ["configuration_dhrd.py", "losses.py", "modeling_dhrd.py", "pooling.py", "reasoning_head.py"]
    assert [name for name in uploaded if name.endswith(".py")] == code and "model.safetensors" in uploaded


def test_saved_in_shards_and_reloaded_it_is_the_same_model(dual_of, family, tmp_path):
    model = dual_of(family, alpha=0.5, class_weights=[1.0, 2.0, 3.0], max_input_length=77)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    written = [name for shard in shards for name in load_file(shard)]
    assert len(written) == len(set(written)), "a tensor is in two shards"
    assert {name.split(".")[0] for name in written} <= {"model", "score", "lm_head"}

    reloaded = AutoModelForDualHeadClassification.from_pretrained(tmp_path)
    before, after = model.state_dict(), reloaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert (reloaded.lm_head.weight is reloaded.get_input_embeddings().weight) == tied
    batch = make_batch([4, 15, 9], [2, 5, 8])
    for name in ("loss", "logits"):
        assert torch.equal(reloaded(**batch)[name], model(**batch)[name])
    assert (reloaded.config.alpha, reloaded.config.max_input_length) == (0.5, 77)
    assert reloaded.config.class_weights == [1.0, 2.0, 3.0]


def test_the_causal_lm_inside_saves_as_a_stock_one(dual_of, family, tmp_path):
    dual = dual_of(family)
    dual.as_causal_lm().save_pretrained(tmp_path)
    lm = AutoModelForCausalLM.from_pretrained(tmp_path)
    x = make_batch([9], [9])["input_ids"]
    assert torch.allclose(lm(x).logits, dual(x, output_reasoning_logits=True).reasoning_logits, atol=1e-5)


OPEN_WITH_AUTO_CLASSES = """
import sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
import dhrd_hf
folder = sys.argv[1]
assert type(AutoConfig.from_pretrained(folder)).__name__ == "DHRDConfig"
ids = torch.load(folder + "/ids.pt")
first = AutoModelForSequenceClassification.from_pretrained(folder)
logits = {"AutoModelForSequenceClassification": first(ids).logits, "AutoModel": AutoModel.from_pretrained(folder)(ids).logits}
logits["ours"] = dhrd_hf.AutoModelForDualHeadClassification.from_pretrained(folder)(ids).logits
torch.save(logits, folder + "/logits.pt")
"""


def test_the_auto_classes_open_it_in_a_fresh_process(dual_of, tmp_path):
    dual = dual_of("llama")
    dual.save_pretrained(tmp_path)
    ids = make_batch([9, 9], [9, 9])["input_ids"]
    torch.save(ids, tmp_path / "ids.pt")
    run_as_a_stranger(OPEN_WITH_AUTO_CLASSES, tmp_path)
    found = torch.load(tmp_path / "logits.pt")
    assert len(found) == 3
    for name, logits in found.items():
        torch.testing.assert_close(logits, dual(ids).logits, rtol=1e-5, atol=1e-5, msg=name)
        assert torch.equal(logits, found["ours"]), name


def test_the_auto_classes_open_it_here_and_leave_native_models_alone(dual_of, lm_dir_of, tmp_path):
    dual = dual_of("llama")
    dual.save_pretrained(tmp_path)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(opened, DHRDForDualHeadClassification)
    native = AutoModelForSequenceClassification.from_pretrained(lm_dir_of("llama"), num_labels=3)
    assert type(native).__name__ == "LlamaForSequenceClassification"


def test_hidden_states_and_cache_are_returned_when_asked_for(dual_of):
    model = dual_of("llama")
    x = make_batch([9], [9])["input_ids"]
    out = model(x, output_hidden_states=True, use_cache=True)
    assert [state.shape for state in out.hidden_states] == [(1, 9, 32)] * 3
    assert out.past_key_values.get_seq_length() == 9
    assert model(x).past_key_values is None
    as_tuple = model(x, labels=torch.tensor([1]), return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[1], out.logits)


def test_inputs_embeds_give_the_logits_of_their_ids(dual_of):
    model = dual_of("llama")
    batch = make_batch([4, 15, 9], [2, 5, 8], "left")
    ids = batch.pop("input_ids")
    embeds = model.get_input_embeddings()(ids)
    found, expected = model(inputs_embeds=embeds, **batch), model(ids, **batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)


# Inputs that would pool a wrong token or drop a term


def test_labels_out_of_range_are_named(dual_of):
    batch = make_batch([4, 9], [2, 8])
    for label in (3, -1):
        batch["labels"] = torch.tensor([0, label])
        with pytest.raises(ValueError, match=rf"{label} is out of range.*3 labels"):
            dual_of("llama")(**batch)


def test_ignored_labels_do_not_count(dual_of):
    model = dual_of("llama")
    batch = make_batch([4, 9], [4, 9])
    batch["labels"] = torch.tensor([-100, 2])
    out = model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    assert out.loss.item() == pytest.approx(F.cross_entropy(out.logits[1:], torch.tensor([2])).item(), rel=1e-6)


def test_an_empty_x_is_refused(dual_of):
    batch = make_batch([4, 9], [2, 8])
    batch["input_length"] = torch.tensor([0, 8])
    with pytest.raises(ValueError, match="input_length"):
        dual_of("llama")(**batch)


def test_targets_whose_labels_a_trainer_took_are_refused(dual_of):
    batch = make_batch([4, 9], [2, 8])
    batch.pop("labels")
    model = dual_of("llama")
    assert model(**batch).loss is not None
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        model(**batch, num_items_in_batch=torch.tensor(2))
    reasoner = dual_of("llama", beta=0.0)
    assert reasoner(**batch, num_items_in_batch=torch.tensor([2.0, 11.0])).loss is not None


def test_left_padding_without_a_mask_is_refused(dual_of):
    batch = make_batch([4, 9], [2, 8], "left")
    batch.pop("attention_mask")
    with pytest.raises(ValueError, match="attention_mask"):
        dual_of("llama")(**batch)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_4d_mask_pools_x_or_is_refused(side, dual_of):
    batch = make_batch([4, 9], [2, 8], side)
    expected = dual_of("llama")(**batch).logits
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    seen = batch["attention_mask"][:, None, None, :].bool() & causal  # [B, 1, L, L]
    batch["attention_mask"] = seen | torch.eye(9, dtype=torch.bool)  # a row of nothing is NaN
    if side == "left":
        with pytest.raises(ValueError, match=r"attention_mask of shape \[B, L\]"):
            dual_of("llama")(**batch)
    else:
        assert largest_difference(dual_of("llama")(**batch).logits, expected) < 1e-5


@pytest.mark.parametrize("form", ["padded", "padding-free"])
def test_evaluation_of_rows_that_would_pool_their_answer_is_refused(form, dual_of):
    model = dual_of("llama")
    batch = make_batch([6, 6], [2, 5])
    if form == "padding-free":
        batch = {name: it.reshape(1, -1) if it.dim() == 2 else it for name, it in batch.items()}
        bounds = torch.tensor([0, 6, 12], dtype=torch.int32)
        batch |= {"cu_seq_lens_q": bounds, "position_ids": torch.arange(6).repeat(1, 2)}
        batch.pop("attention_mask")
    batch.pop("input_length")
    with pytest.raises(ValueError, match="reasoning_targets came without input_length"):
        model(**batch)
    targets = batch.pop("reasoning_targets")
    assert model(**batch).logits.shape == (2, 3)  # the whole row is x
    batch.pop("labels")
    assert model(**batch, reasoning_targets=targets).reasoning_loss > 0  # a language model's loss alone


def test_a_config_without_backbone_is_refused():
    with pytest.raises(ValueError, match="backbone_config"):
        DHRDForDualHeadClassification(DHRDConfig(num_labels=2))


def test_a_step_of_the_stock_trainer_without_a_label_is_no_nan(dual_of):
    batch = make_batch([4, 15, 9], [2, 5, 8])
    none = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    assert dual_of("llama")(**none, num_items_in_batch=torch.tensor(0)).loss.item() == 0


def test_what_loading_left_on_the_causal_lm_is_on_the_dual_head(make_lm):
    lm = make_lm("llama")
    lm.hf_device_map = {"": "cpu"}
    dual = DHRDForDualHeadClassification(DHRDConfig(backbone_config=lm.config, num_labels=2), causal_lm=lm)
    assert dual.hf_device_map is lm.hf_device_map and "is_quantized" not in dual.__dict__
