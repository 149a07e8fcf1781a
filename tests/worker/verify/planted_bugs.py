# SPDX-License-Identifier: Apache-2.0
"""Bugs that the verifier must see: each is what our engine would compute if a family read config.json wrongly, or if a
tensor rule were wrong. They are planted in what the native side loads; transformers reads the sound model.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Bug:
    name: str
    family: str
    variant: str  # of tests/parity/tiny_models.py
    located: str  # the module that the verifier must name
    plant: Callable[[dict, dict[str, torch.Tensor]], None]

    def write(self, sound: Path, directory: Path) -> None:
        shutil.copytree(sound, directory)
        config = json.loads((sound / "config.json").read_text())
        tensors = load_file(sound / "model.safetensors")
        self.plant(config, tensors)
        (directory / "config.json").write_text(json.dumps(config))
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


BUGS: list[Bug] = []


def bug(family: str, variant: str, located: str):
    def add(plant):
        BUGS.append(Bug(plant.__name__, family, variant, located, plant))
        return plant

    return add


def layers(tensors: dict[str, torch.Tensor], suffix: str) -> list[str]:
    return [name for name in tensors if name.endswith(suffix)]


def swap(tensors: dict[str, torch.Tensor], one: str, other: str) -> None:
    for name in layers(tensors, one):
        twin = name.removesuffix(one) + other
        tensors[name], tensors[twin] = tensors[twin].clone(), tensors[name].clone()


@bug("llama", "gqa", "model.layers.0.self_attn")
def rope_base_2_percent_off(config, tensors):
    config["rope_parameters"]["rope_theta"] *= 1.02


@bug("llama", "gqa", "model.layers.0.self_attn.q_proj")
def rope_permutation(config, tensors):
    # Rows in Meta's interleaved order, read as if they were in HF's.
    for name in layers(tensors, "q_proj.weight") + layers(tensors, "k_proj.weight"):
        weight = tensors[name]
        width = config["hidden_size"] // config["num_attention_heads"]
        tensors[name] = weight.view(-1, 2, width // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


@bug("phi3", "partial_window_tied", "model.layers.0.self_attn")
def rotation_of_the_whole_head(config, tensors):
    config["rope_parameters"]["partial_rotary_factor"] = 1.0


@bug("gemma3_text", "windows", "model.layers.0.self_attn")
def local_and_global_rope_swapped(config, tensors):
    rope = config["rope_parameters"]
    rope["full_attention"], rope["sliding_attention"] = rope["sliding_attention"], rope["full_attention"]


@bug("smollm3", "every_fourth", "model.layers.3.self_attn")
def rope_where_there_is_none(config, tensors):
    config["no_rope_layers"] = [1] * config["num_hidden_layers"]


@bug("gemma2", "caps", "model.layers.0.input_layernorm")
def norm_offset_missing(config, tensors):
    for name in layers(tensors, "norm.weight"):
        tensors[name] -= 1


@bug("llama", "gqa", "model.layers.0.input_layernorm")
def norm_epsilon_1e_2(config, tensors):
    config["rms_norm_eps"] = 1e-2


@bug("gemma2", "no_caps_untied", "model.layers.0.post_attention_layernorm")
def norms_swapped(config, tensors):
    swap(tensors, "post_attention_layernorm.weight", "pre_feedforward_layernorm.weight")


@bug("gemma2", "caps", "model.layers.0.self_attn")
def score_soft_cap_dropped(config, tensors):
    config["attn_logit_softcapping"] = None


@bug("gemma2", "caps", "lm_head")
def logit_soft_cap_dropped(config, tensors):
    config["final_logit_softcapping"] = None


@bug("mistral", "window", "model.layers.0.self_attn")
def window_off_by_one(config, tensors):
    config["sliding_window"] += 1


@bug("qwen2", "upper_windows", "model.layers.1.self_attn")
def window_begins_a_layer_late(config, tensors):
    config["max_window_layers"] = 2
    config["layer_types"][1] = "full_attention"


@bug("qwen3", "plain", "model.layers.0.self_attn.q_norm")
def qk_norms_in_the_wrong_order(config, tensors):
    swap(tensors, "self_attn.q_norm.weight", "self_attn.k_norm.weight")


@bug("llama", "mqa_bias", "model.layers.2.self_attn.v_proj")
def bias_dropped(config, tensors):
    tensors["model.layers.2.self_attn.v_proj.bias"].zero_()


@bug("phi3", "plain", "model.layers.1.mlp.gate_up_proj")
def fused_parts_in_the_wrong_order(config, tensors):
    name = "model.layers.1.mlp.gate_up_proj.weight"
    tensors[name] = tensors[name].roll(config["intermediate_size"], 0)


@bug("phi3", "long", "model.layers.0.self_attn.qkv_proj")
def fused_keys_and_values_swapped(config, tensors):
    width = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
    for name in layers(tensors, "qkv_proj.weight"):
        query, key, value = tensors[name].split([tensors[name].shape[0] - 2 * width, width, width])
        tensors[name] = torch.cat([query, value, key])


@bug("qwen2", "plain", "model.layers.0.mlp.gate_proj")
def gate_and_up_swapped(config, tensors):
    swap(tensors, "gate_proj.weight", "up_proj.weight")


@bug("llama", "gqa", "lm_head")
def wrong_tie(config, tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


@bug("granite", "multipliers", "model.embed_tokens")
def embedding_multiplier_missing(config, tensors):
    config["embedding_multiplier"] = 1.0


@bug("granite", "multipliers", "model.layers.0.self_attn")
def attention_multiplier_missing(config, tensors):
    config["attention_multiplier"] = 1.0


@bug("granite", "multipliers", "model.layers.0.self_attn")
def attention_scale_10_percent_off(config, tensors):
    config["attention_multiplier"] *= 1.1


@bug("granite", "multipliers", "model.layers.0")
def residual_multiplier_missing(config, tensors):
    config["residual_multiplier"] = 1.0


@bug("granite", "multipliers", "lm_head")
def logits_scaling_missing(config, tensors):
    config["logits_scaling"] = 1.0


@bug("mixtral", "plain", "model.layers.0.block_sparse_moe.experts")
def experts_in_another_order(config, tensors):
    swap(tensors, "experts.0.w1.weight", "experts.1.w1.weight")
    swap(tensors, "experts.0.w2.weight", "experts.1.w2.weight")
    swap(tensors, "experts.0.w3.weight", "experts.1.w3.weight")


@bug("qwen3_moe", "normalized", "model.layers.0.mlp.experts")
def experts_weights_not_normalized(config, tensors):
    config["norm_topk_prob"] = False


@bug("gpt_oss", "yarn", "model.layers.0.self_attn")
def sinks_left_out(config, tensors):
    for name in layers(tensors, "self_attn.sinks"):
        tensors[name] = torch.full_like(tensors[name], -100.0)


@bug("gpt_oss", "yarn", "model.layers.0.mlp.experts")
def experts_gate_and_up_not_in_turn(config, tensors):
    for name in layers(tensors, "experts.gate_up_proj"):
        tensors[name] = tensors[name].unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


@bug("qwen3_moe", "normalized", "model.layers.0.mlp.gate")
def router_rows_shifted(config, tensors):
    for name in layers(tensors, "mlp.gate.weight"):
        tensors[name] = tensors[name].roll(1, 0)
