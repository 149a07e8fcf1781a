# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints of every family, made by transformers itself.

A random model at transformers' own initial scale has nearly flat logits and hides bugs, so norms and biases are drawn
anew and the weights are scaled until the logits have a standard deviation of 1 to 2.
"""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

BASE = {
    "vocab_size": 331,  # no multiple of 64: the padding is exercised
    "hidden_size": 96,
    "intermediate_size": 224,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attn_implementation": "eager",
    "pad_token_id": None,
}
ODD_HEADS = {"hidden_size": 144, "head_dim": 16, "num_attention_heads": 9, "num_key_value_heads": 3}


def _rope(kind, **parameters):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


def _longrope(pairs, **parameters):
    """Other divisors for each pair of dimensions in documents over 64 tokens."""
    return _rope(
        "longrope",
        short_factor=[1.0 + 0.05 * i for i in range(pairs)],
        long_factor=[1.5 + 0.7 * i for i in range(pairs)],
        original_max_position_embeddings=64,
        **parameters,
    )


# model_type → what a checkpoint of the family may look like: name → config, apart from BASE. Windows are shorter than
# the tests' documents; soft caps are low enough to bend scores of a standard deviation of one.
VARIANTS = {
    "llama": {
        "gqa": {},
        "mha_tied": {"num_key_value_heads": 6, "tie_word_embeddings": True},
        "mqa_bias": {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
        "mha_wide_heads": {"num_key_value_heads": 6, "head_dim": 32, "vocab_size": 384},
        "odd_heads_tied": {**ODD_HEADS, "tie_word_embeddings": True, **_rope("default", rope_theta=100000.0)},
        "linear": _rope("linear", factor=4.0),
        "dynamic": {"max_position_embeddings": 128, **_rope("dynamic", factor=2.0)},
        "llama3": _rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
        ),
        "yarn": _rope("yarn", factor=4.0, original_max_position_embeddings=128),
        "longrope": _longrope(8),
    },
    "mistral": {
        "window": {"sliding_window": 24},
        "no_window": {"sliding_window": None, **ODD_HEADS},
        "tied": {"sliding_window": 40, "num_key_value_heads": 1, "tie_word_embeddings": True},
    },
    "qwen2": {
        "plain": {},
        "upper_windows": {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
        "odd_heads_tied": {**ODD_HEADS, "tie_word_embeddings": True},
    },
    "qwen3": {
        "plain": {"head_dim": 24},
        "odd_heads_tied": {**ODD_HEADS, "tie_word_embeddings": True},
        "mqa_upper_windows": {
            "head_dim": 16,
            "num_attention_heads": 7,
            "num_key_value_heads": 1,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 20,
            "max_window_layers": 2,
        },
    },
    "gemma2": {
        "caps": {
            "head_dim": 24,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 4.0,
            "sliding_window": 16,
            "tie_word_embeddings": True,
        },
        "no_caps_untied": {
            "head_dim": 16,
            "num_key_value_heads": 3,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "sliding_window": 200,
        },
    },
    "gemma3_text": {
        "windows": {
            "head_dim": 24,
            "num_key_value_heads": 1,
            "num_hidden_layers": 7,
            "sliding_window": 16,
            "query_pre_attn_scalar": 24,
            "tie_word_embeddings": True,
        },
        "scaled_full": {
            **ODD_HEADS,
            "num_hidden_layers": 4,
            "sliding_window": 40,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "final_logit_softcapping": 4.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
        },
    },
    "phi3": {
        "plain": {"num_key_value_heads": 3},
        "long": {
            "num_key_value_heads": 6,
            "sliding_window": 100,
            "original_max_position_embeddings": 64,
            **_longrope(8),
        },
        "partial_window_tied": {
            "sliding_window": 30,
            "tie_word_embeddings": True,
            **_rope("default", partial_rotary_factor=0.75),
        },
    },
    "mixtral": {
        "plain": {**ODD_HEADS, "num_local_experts": 6, "num_experts_per_tok": 2},
        "balanced_window": {
            "num_local_experts": 4,
            "num_experts_per_tok": 3,
            "sliding_window": 24,
            "tie_word_embeddings": True,
            "output_router_logits": True,
            "router_aux_loss_coef": 0.05,
        },
    },
    "qwen3_moe": {
        "normalized": {
            "head_dim": 16,
            "num_experts": 10,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "norm_topk_prob": True,
        },
        "some_dense": {
            "head_dim": 16,
            "num_key_value_heads": 3,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "mlp_only_layers": [1],
            "output_router_logits": True,
            "router_aux_loss_coef": 0.05,
            "tie_word_embeddings": True,
        },
    },
    "gpt_oss": {
        "yarn": {
            "head_dim": 16,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "intermediate_size": 72,
            "sliding_window": 20,
            **_rope("yarn", factor=8.0, truncate=False, original_max_position_embeddings=64),
        },
        "top_3": {
            "head_dim": 24,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            "num_experts_per_tok": 3,
            "intermediate_size": 40,
            "sliding_window": 50,
            "tie_word_embeddings": True,
            **_rope("yarn", factor=4.0, original_max_position_embeddings=128),
        },
    },
    "olmo2": {
        "gqa": {},
        "mha_tied": {
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
            "attention_bias": True,
        },
    },
    "olmo3": {
        "scaled_full": {
            "num_hidden_layers": 4,
            "sliding_window": 20,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn",
                    "factor": 8.0,
                    "original_max_position_embeddings": 64,
                    "rope_theta": 10000.0,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
            },
        },
        "full_first_tied": {
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "sliding_window": 40,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    },
    "smollm3": {
        "every_fourth": {"num_hidden_layers": 5, "tie_word_embeddings": True},
        "windows": {
            **ODD_HEADS,
            "num_hidden_layers": 4,
            "no_rope_layers": [1, 0, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 18,
        },
    },
    "granite": {
        "multipliers": {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.1,
            "residual_multiplier": 0.22,
            "logits_scaling": 4.0,
            "tie_word_embeddings": True,
        },
        "biases": {"num_key_value_heads": 3, "attention_bias": True, "mlp_bias": True, "logits_scaling": 2.0},
    },
}

# More of the same, for the verifier alone: models that are published and whose set of mechanisms is none of the above.
PUBLISHED = {
    "llama": {"llama3_tied": {**VARIANTS["llama"]["llama3"], "tie_word_embeddings": True}},  # Llama 3.2
    "gemma2": {"usual_scale": {**VARIANTS["gemma2"]["caps"], "query_pre_attn_scalar": 24}},  # 2B, 9B
    "olmo2": {"mha": {"num_key_value_heads": 6}},  # 7B
    "olmo3": {"mha": {**VARIANTS["olmo3"]["scaled_full"], "num_key_value_heads": 6}},  # 7B
    "phi3": {
        "mha_window": {"num_key_value_heads": 6, "sliding_window": 30},  # Phi-3-mini-4k
        "long_partial_tied": {  # Phi-4-mini
            "sliding_window": 100,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 64,
            **_longrope(6, partial_rotary_factor=0.75),
        },
    },
}


# The families whose feed-forward layers are experts.
MOE = {family for family, variants in VARIANTS.items() if "num_experts_per_tok" in next(iter(variants.values()))}


def kl_bound(family: str) -> float:
    """How far a position may be off in fp32."""
    return 1e-7 if family in MOE else 1e-8


def make(
    directory: Path, model_type="llama", seed: int = 0, dtype=torch.float32, max_shard_size="5GB", **overrides
) -> PreTrainedModel:
    """Writes a checkpoint and returns the model that is in it."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{**BASE, **overrides})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    around_zero = model_type.startswith("gemma")  # norms hold their distance from one
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5).sub_(1.0 if around_zero else 0.0)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2)
            else:
                parameter.normal_(0, 1.0 / parameter.shape[-1] ** 0.5)
        ids = torch.randint(0, model.config.vocab_size, (1, 64))
        for _ in range(4):  # a soft cap makes it no plain product
            scale = 1.5 / model(ids).logits.std()
            if not model.config.tie_word_embeddings:
                model.lm_head.weight.mul_(scale)
            elif around_zero:
                model.model.norm.weight.add_(1).mul_(scale).sub_(1)
            else:
                model.model.norm.weight.mul_(scale)
        assert 1 <= model(ids).logits.std() <= 2
    model.to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    return model
