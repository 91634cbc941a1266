"""Adapters wherever a user puts them: what was trained is what the run directory, the exports and the likelihoods say."""

import warnings

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadCollator, DualHeadTrainer, export_classifier
from dhrd_hf.evaluation import load_classifier
from dhrd_hf.modeling_dhrd import find_dual_head
from dhrd_hf.rationales.select import LikelihoodScore
from dhrd_hf.training import add_lora

open_dual = AutoModelForDualHeadClassification.from_pretrained
TOKENS = [5, 40, 41, 42, 43, 60, 70, 80]


def lora(*targets, save=(), task_type="SEQ_CLS", **more):
    return peft.LoraConfig(
        r=4, task_type=task_type, target_modules=["q_proj", *targets], modules_to_save=["score", *save], **more
    )


# The embeddings and the LM head are one tensor, or two.
KINDS = {
    "all-linear": lambda: peft.LoraConfig(
        r=4, task_type="SEQ_CLS", target_modules="all-linear", modules_to_save=["score"]
    ),
    "head": lambda: lora("lm_head"),
    "embeddings": lambda: lora("embed_tokens"),
    "both": lambda: lora("lm_head", "embed_tokens"),
    "embeddings, tied": lambda: lora("embed_tokens", ensure_weight_tying=True),
    "both, tied": lambda: lora("lm_head", "embed_tokens", ensure_weight_tying=True),
    "head saved": lambda: lora(save=["lm_head"]),
    "embeddings saved": lambda: lora(save=["embed_tokens"]),
    "both saved": lambda: lora(save=["lm_head", "embed_tokens"]),
    "embeddings saved, tied": lambda: lora(save=["embed_tokens"], ensure_weight_tying=True),
    "tokens": lambda: lora(trainable_token_indices=TOKENS),
    "tokens of both": lambda: lora(trainable_token_indices={"embed_tokens": TOKENS, "lm_head": TOKENS}),
    "other tokens of each": lambda: lora(trainable_token_indices={"embed_tokens": TOKENS[:4], "lm_head": TOKENS[4:]}),
    "causal LM": lambda: lora("lm_head", task_type="CAUSAL_LM"),
    "ia3": lambda: peft.IA3Config(
        task_type="SEQ_CLS",
        target_modules=["k_proj", "down_proj", "lm_head"],
        feedforward_modules=["down_proj"],
        modules_to_save=["score"],
    ),
}


def _logits(model, batch):
    dual_head = find_dual_head(model).eval()
    with torch.no_grad():
        out = dual_head(**batch, output_reasoning_logits=True)
    return out.logits, out.reasoning_logits, out.classification_loss, out.reasoning_loss


@pytest.fixture
def run_of(dual_of, encoded, tokenizer, label2id, make_args):
    """A trainer that has trained two steps, and its saved run directory."""

    def train(family, config, **named):
        model = peft.get_peft_model(dual_of(family, label2id=label2id), config, **named)
        args = make_args(optim="adamw_torch", learning_rate=2e-2, max_steps=3, per_device_train_batch_size=8)
        trainer = DualHeadTrainer(model, args, DualHeadCollator(tokenizer), encoded, processing_class=tokenizer)
        trainer.train()
        trainer.save_model()
        return trainer.model, args.output_dir

    return train


def _same_everywhere(model, run, encoded, rows, tokenizer, label2id, tmp_path):
    batch = DualHeadCollator(tokenizer)([encoded[place] for place in range(6)])
    trained = _logits(model, batch)
    torch.testing.assert_close(_logits(open_dual(run), batch), trained, rtol=1e-5, atol=1e-5)

    x = tokenizer([row["text"] for row in rows[:6]], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = find_dual_head(model)(**x).logits
        merged, _ = load_classifier(run, device="cpu")
        torch.testing.assert_close(merged(**x).logits, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(_logits(merged, batch), trained, rtol=1e-4, atol=1e-5)
        for format in ("dense", "adapter"):
            export_classifier(model, tokenizer, tmp_path / format, format=format)
            opened, _ = load_classifier(tmp_path / format, device="cpu")
            torch.testing.assert_close(opened(**x).logits, logits, rtol=1e-4, atol=1e-5)
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
        torch.testing.assert_close(stock(**x).logits, logits, rtol=1e-4, atol=1e-5)
    found = LikelihoodScore.from_pretrained(run, list(label2id), device="cpu")(rows[:3])
    config = find_dual_head(model).config
    form = {"prompt": config.prompt_template, "suffix": config.suffix_template}
    expected = LikelihoodScore(find_dual_head(model), tokenizer, label2id, **form)(rows[:3])
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("family", "kind"),
    [*(("llama-tied", kind) for kind in KINDS), *(("llama", kind) for kind in ("both", "both saved", "causal LM"))],
)
def test_what_was_trained_is_what_is_opened_merged_and_exported(
    family, kind, run_of, encoded, rows, tokenizer, label2id, tmp_path
):
    model, run = run_of(family, KINDS[kind]())
    _same_everywhere(model, run, encoded, rows, tokenizer, label2id, tmp_path)


def test_an_adapter_of_another_name_is_found_where_peft_saves_it(run_of, encoded, rows, tokenizer, label2id, tmp_path):
    model, run = run_of("llama", lora("lm_head"), adapter_name="mine")
    _same_everywhere(model, run, encoded, rows, tokenizer, label2id, tmp_path)
    assert open_dual(run).active_adapter == "mine"


PROMPTS = {
    "PROMPT_TUNING": peft.PromptTuningConfig,
    "PREFIX_TUNING": peft.PrefixTuningConfig,
    "P_TUNING": peft.PromptEncoderConfig,
}


def prompt(kind, task_type):
    sizes = {"num_virtual_tokens": 3, "num_layers": 2, "token_dim": 32, "num_attention_heads": 4}
    return PROMPTS[kind](task_type=task_type, modules_to_save=["score"], **sizes)


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("task_type", ["SEQ_CLS", "CAUSAL_LM"])
def test_a_prompt_is_refused_before_training_and_where_it_is_opened(
    kind, task_type, dual_of, encoded, tokenizer, make_args, tmp_path
):
    dual = dual_of("llama")
    model = peft.get_peft_model(dual, prompt(kind, task_type))
    with pytest.raises(ValueError, match=f"{kind} is a prompt in front of the input.* such as LoRA"):
        DualHeadTrainer(model, make_args(), DualHeadCollator(tokenizer), encoded, processing_class=tokenizer)
    model.save_pretrained(tmp_path)
    dual.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for opener in (open_dual, load_classifier):
        with pytest.raises(ValueError, match=f"{tmp_path} .*{kind} is a prompt in front of the input.* such as LoRA"):
            opener(tmp_path)


def test_a_prompt_under_the_stock_trainer_is_no_traceback(dual_of, encoded, tokenizer):
    """Its tokens come before those of x, which the targets and the length of x do not count."""
    model = peft.get_peft_model(dual_of("llama"), prompt("PROMPT_TUNING", "SEQ_CLS"))
    batch = DualHeadCollator(tokenizer)([encoded[place] for place in range(3)])
    with pytest.raises(ValueError, match="prompt in front of the input"):
        model(**batch)


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_an_adapter_without_the_head_is_refused_before_training_and_where_it_is_opened(
    task_type, dual_of, encoded, tokenizer, make_args, tmp_path
):
    """PEFT adds the head for the task type SEQ_CLS alone."""
    dual = dual_of("llama")
    model = peft.get_peft_model(dual, peft.LoraConfig(r=2, task_type=task_type, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="`score` is frozen, and would stay random.*modules_to_save"):
        DualHeadTrainer(model, make_args(), DualHeadCollator(tokenizer), encoded, processing_class=tokenizer)
    model.save_pretrained(tmp_path)
    dual.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no classification head: it would be a random one"):
        open_dual(tmp_path)


def test_several_adapters_in_one_folder_are_told_apart_by_their_subfolders(dual_of, tmp_path):
    dual = dual_of("llama")
    model = peft.get_peft_model(dual, lora(), adapter_name="mine")
    model.add_adapter("yours", lora())
    model.save_pretrained(tmp_path)
    dual.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds 2 adapters .mine, yours.: .*subfolder='mine'"):
        open_dual(tmp_path)
    assert open_dual(tmp_path, subfolder="yours").active_adapter == "yours"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_is_added_without_a_warning_of_another_library(dual_of, checkpointing):
    """pyproject.toml lets this one pass, for stock models in tests."""
    model = dual_of("llama")
    model.model.gradient_checkpointing = checkpointing
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        add_lora(model)
    assert model.is_gradient_checkpointing is checkpointing
