"""Tiny configs of every decoder that transformers can open both as a causal LM and as a sequence classifier.

`python tests/families.py` prints the table of docs/families.md.
"""

import functools

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from dhrd_hf import AutoModelForDualHeadClassification
from dhrd_hf.families import stock_classifier
from dhrd_hf.training import check_padding_free

# In both mappings, but no decoder-only language models: encoders, seq2seq models and bidirectional ones.
NOT_DECODERS = [
    "bart",
    "bert",
    "big_bird",
    "bigbird_pegasus",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "mbart",
    "megatron-bert",
    "mvp",
    "plbart",
    "reformer",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xlnet",
    "xmod",
]
DECODERS = sorted(
    (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() & MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys())
    - {*NOT_DECODERS}
)
# The head of the stock classifier is more than one linear layer.
REFUSED = ("modernbert-decoder",)
SUPPORTED = [name for name in DECODERS if name not in REFUSED]

# LoRA on all linear layers that does not export in a format: what the user is told is tested.
NO_DENSE_LORA = {"zamba": "two LoRA layers share one weight, into which both would be merged"}
NO_ADAPTER = dict.fromkeys(
    ("deepseek_v2", "deepseek_v3", "hunyuan_v1_moe", "qwen3_next"),
    "PEFT takes shared experts' layers for the experts, where it has no dropout",
)

# Weights large enough for attention, caps and gates to matter.
COMMON = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "initializer_range": 0.2}
_NAMES = {
    **COMMON,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "hidden_dropout"), 0.0),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout"), 0.0),
    "sliding_window": 8,
    "use_mamba_kernels": False,
}
_MLA = {"num_key_value_heads": 4, "head_dim": 8}
_LINEAR_ATTENTION = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_SLIDING = ["sliding_attention", "full_attention"]
_GEMMA_VISION = {"image_size": 28, "patch_size": 14, "num_attention_heads": 2, "num_hidden_layers": 1}
_QWEN_VISION = {"depth": 1, "num_heads": 2, "out_hidden_size": 32, "num_position_embeddings": 4}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_OWN = {
    "axk1": _MLA,
    # More than there are tokens: ties of these few tiny scores break differently with every length.
    "axk2": {**_MLA, "index_head_dim": 8, "index_n_heads": 2, "index_topk": 64},
    "cohere_compass_text": {
        "head_dim": 8,
        "layer_types": _SLIDING,
        "logit_scale": 0.25,
        "rope_parameters": dict.fromkeys(_SLIDING, {**_ROPE, "mrope_section": [1, 1, 2]}),
    },
    "ctrl": {"dff": 48},
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA,
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"final_logit_softcapping": 3.0, "layer_types": _SLIDING, "query_pre_attn_scalar": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "hunyuan_v1_moe": {"moe_topk": 2},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8},
    "jetmoe": {"kv_channels": 8},
    "minicpm3": {**_MLA, "head_dim": None, "dim_model_base": 16},
    "minimax": {"block_size": 8, "layer_types": ["linear_attention", "full_attention"]},
    "mpt": {"logit_scale": 0.5},
    "opt": {"word_embed_proj_dim": 16},  # the LM head and the classification head take projected states
    "qwen3_5_text": _LINEAR_ATTENTION,
    "qwen3_next": _LINEAR_ATTENTION,
    "zamba": {
        "num_hidden_layers": 5,
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "num_key_value_heads": 4,
        "mamba_d_state": 8,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "num_key_value_heads": 4,
        "mamba_d_state": 8,
        "chunk_size": 8,
        "adapter_rank": 4,
    },
}
_COMPOSITE = {
    "gemma3": {
        "text": "gemma3_text",
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, **_GEMMA_VISION},
        "mm_tokens_per_image": 4,
        "image_token_index": 399,
    },
    "qwen3_5": {
        "text": "qwen3_5_text",
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, **_QWEN_VISION},
        "image_token_id": 399,
    },
}


def tiny_config(model_type: str, **changes) -> PreTrainedConfig:
    """A config of the family with a few thousand weights, and the settings that make its logits special."""
    cls = CONFIG_MAPPING[model_type]
    if model_type in _COMPOSITE:
        parts = dict(_COMPOSITE[model_type])
        text = tiny_config(parts.pop("text"), **changes)
        return cls(text_config=text.to_dict(), **parts)
    known = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    sizes = {name: value for name, value in _NAMES.items() if name in known}
    return cls(**{**sizes, **_OWN.get(model_type, {}), **changes})


def exported_class(name: str) -> str:
    """The class that an export has; a composite whose causal LM is its text model exports that."""
    config = tiny_config(name)
    if MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].config_class is not type(config):
        config = config.get_text_config()
    return stock_classifier(config).model_class.__name__


def padding_free(name: str) -> str:
    """Whether its stock attention on a CPU keeps the rows of a padding-free batch apart: yes or no."""
    torch.manual_seed(0)
    try:
        check_padding_free(AutoModelForDualHeadClassification.from_config(tiny_config(name), num_labels=3))
    except ValueError:
        return "no"
    return "yes"


@functools.cache
def table() -> str:
    """The table of docs/families.md."""
    lines = [
        "| model type | exports to | LoRA on all linear layers exports as | padding-free on a CPU |",
        "|---|---|---|---|",
    ]
    for name in SUPPORTED:
        dense, adapter = name not in NO_DENSE_LORA, name not in NO_ADAPTER
        formats = "dense, adapter" if dense and adapter else "dense" if dense else "adapter"
        reason = NO_DENSE_LORA.get(name) or NO_ADAPTER.get(name)
        because = f" ({reason})" if reason else ""
        lines.append(f"| {name} | `{exported_class(name)}` | {formats}{because} | {padding_free(name)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
