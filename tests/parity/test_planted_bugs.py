# SPDX-License-Identifier: Apache-2.0
"""The gate must see bugs: each one, planted in what our engine reads, goes far beyond the bound."""

import json

import pytest
import reference
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from test_logits import KL_BOUND

BUGS = {}


def bug(function):
    BUGS[function.__name__] = function
    return function


@bug
def rope_base_2_percent_off(config, tensors):
    config["rope_parameters"]["rope_theta"] *= 1.02


@bug
def attention_scale_10_percent_off(config, tensors):
    for name in tensors:
        if "q_proj" in name:
            tensors[name] *= 1.1


@bug
def norm_epsilon_1e_2(config, tensors):
    config["rms_norm_eps"] = 1e-2


@bug
def swapped_query_rows(config, tensors):
    # What a checkpoint in Meta's interleaved RoPE layout looks like to a reader of HF's.
    weight = tensors["model.layers.0.self_attn.q_proj.weight"]
    heads = config["num_attention_heads"]
    pairs = weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2)
    tensors["model.layers.0.self_attn.q_proj.weight"] = pairs.reshape(weight.shape).contiguous()


@bug
def untied_head(config, tensors):
    # The embedding where the trained head should be.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_exceeds_the_bound_a_hundredfold(name, engine, tmp_path):
    directory = tmp_path / "model"
    tiny_models.make(directory)
    batch = reference.random_batch(331, [200, 56])
    expected = reference.logits(reference.load(directory), batch)
    assert reference.kl(expected, engine.logits(directory, batch)).max() <= KL_BOUND

    config = json.loads((directory / "config.json").read_text())
    tensors = load_file(directory / "model.safetensors")
    BUGS[name](config, tensors)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    assert reference.kl(expected, engine.logits(directory, batch)).max() >= 100 * KL_BOUND
    assert torch.isfinite(expected).all()
