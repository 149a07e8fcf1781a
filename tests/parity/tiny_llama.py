# SPDX-License-Identifier: Apache-2.0
"""Tiny random Llama checkpoints, made by transformers itself.

A random model at transformers' own initial scale has nearly flat logits and hides bugs, so norms and biases are drawn
anew and the weights are scaled until the logits have a standard deviation of 1 to 2.
"""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
}


def _rope(kind, **parameters):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


# What a Llama checkpoint may look like: name → config, apart from BASE.
VARIANTS = {
    "gqa": {},
    "mha_tied": {"num_key_value_heads": 6, "tie_word_embeddings": True},
    "mqa_bias": {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
    "wide_heads": {"head_dim": 32, "vocab_size": 384},
    "theta": _rope("default", rope_theta=500000.0),
    "linear": _rope("linear", factor=4.0),
    "dynamic": {"max_position_embeddings": 128, **_rope("dynamic", factor=2.0)},
    "llama3": _rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    ),
    "yarn": _rope("yarn", factor=4.0, original_max_position_embeddings=128),
}


def make(directory: Path, seed: int = 0, dtype=torch.float32, max_shard_size="5GB", **overrides) -> LlamaForCausalLM:
    """Writes a checkpoint and returns the model that is in it."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**BASE, **overrides})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2)
            else:
                parameter.normal_(0, 1.0 / parameter.shape[1] ** 0.5)
        ids = torch.randint(0, model.config.vocab_size, (1, 64))
        scale = 1.5 / model(ids).logits.std()
        if model.config.tie_word_embeddings:
            model.model.norm.weight.mul_(scale)
        else:
            model.lm_head.weight.mul_(scale)
        assert 1 <= model(ids).logits.std() <= 2
    model.to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    return model
