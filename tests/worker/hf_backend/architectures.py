# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints of architectures that temper has no family for, with the tokenizer of tiny_chat_model."""

from pathlib import Path

import torch
from e2e import tiny_chat_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
NO_DROPOUT = {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}

# model_type → its config. Among them: Conv1D and learned positions (gpt2), a norm beside attention (gpt_neox), ALiBi
# (bloom), one key head for all (falcon), scaled logits (cohere), windows shorter than documents (cohere2), a head
# with a bias (phi), experts that are fused in memory (olmoe), no attention (mamba).
ARCHITECTURES = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, **NO_DROPOUT},
    "gpt_neox": {**LAYERS, "intermediate_size": 128, "max_position_embeddings": 256},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "falcon": {**LAYERS, "multi_query": True},
    "stablelm": {**LAYERS, "num_key_value_heads": 2, "intermediate_size": 128},
    "cohere": {**LAYERS, "num_key_value_heads": 2, "intermediate_size": 128, "logit_scale": 0.25},
    "cohere2": {
        **LAYERS,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "sliding_window": 8,
        "logit_scale": 0.25,
    },
    "phi": {**LAYERS, "intermediate_size": 128},
    "olmoe": {**LAYERS, "num_key_value_heads": 4, "intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
}
# Those whose attention goes through transformers' interface.
PACKED = {"gpt2", "gpt_neox", "cohere", "cohere2", "phi", "olmoe"}
# Those whose products can all be counted.
COUNTED = PACKED - {"olmoe"}


def make(directory: Path, model_type: str) -> PreTrainedModel:
    """Writes a checkpoint and returns the model that is in it. Its logits are far from flat, and no bias is zero."""
    tokenizer = tiny_chat_model.make_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **ARCHITECTURES[model_type],
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and "dt_proj" not in name:
                parameter.normal_(0, 0.2)
            elif ".experts." in name or (name.endswith("weight") and parameter.dim() == 2):
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model
