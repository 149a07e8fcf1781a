# SPDX-License-Identifier: Apache-2.0
"""Each kind of RoPE, as a config describes it, against transformers' own functions: the angles themselves."""

import json
import subprocess

import pytest
import tiny_models
import torch
from engine import BUILD
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

# On both sides of every border: 64 is what some models were trained with, 512 what they have.
LENGTHS = [1, 64, 65, 512, 513, 2000]
TRAINED_WITH_64 = {"original_max_position_embeddings": 64}
PAIRS = [1.0 + 0.3 * i for i in range(8)], [2.0 + 0.9 * i for i in range(8)]
LONG = {"short_factor": PAIRS[0], "long_factor": PAIRS[1], **TRAINED_WITH_64}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, **TRAINED_WITH_64}

# name → kind, its parameters, model_type
CASES = {
    "default": ("default", {"rope_theta": 500000.0}, "llama"),
    "default, part of a head": ("default", {"partial_rotary_factor": 0.75}, "phi3"),
    "linear": ("linear", {"factor": 4.0}, "llama"),
    "dynamic": ("dynamic", {"factor": 2.0}, "llama"),
    "llama3": ("llama3", {"factor": 8.0, **LLAMA3}, "llama"),
    "llama3, a narrow ramp": ("llama3", {"factor": 32.0, **LLAMA3, "high_freq_factor": 1.5}, "llama"),
    "yarn": ("yarn", {"factor": 4.0, **TRAINED_WITH_64}, "llama"),
    "yarn, ramp": ("yarn", {"factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0, **TRAINED_WITH_64}, "llama"),
    "yarn, not rounded": ("yarn", {"factor": 8.0, "truncate": False, **TRAINED_WITH_64}, "gpt_oss"),
    "yarn, mscale": ("yarn", {"factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.3, **TRAINED_WITH_64}, "llama"),
    "yarn, attention factor": ("yarn", {"factor": 8.0, "attention_factor": 1.2, **TRAINED_WITH_64}, "llama"),
    "longrope": ("longrope", LONG, "llama"),
    "longrope, factor": ("longrope", {**LONG, "factor": 3.0}, "llama"),
    "longrope, attention factor": ("longrope", {**LONG, "attention_factor": 1.5}, "llama"),
}


def config_of(kind, parameters, model_type):
    rope = {"rope_type": kind, "rope_theta": 10000.0, **parameters}
    config = AutoConfig.for_model(model_type, **tiny_models.BASE | {"head_dim": 16, "rope_parameters": rope})
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    return config


def expected(config, kind, length):
    """(inverse frequencies, attention factor)"""
    if kind == "default":  # each model's own; Phi-3's is the most general
        return Phi3RotaryEmbedding.compute_default_rope_parameters(config, "cpu")
    return ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)


@pytest.fixture(scope="module")
def answers():
    """Name of the case → what the engine makes of its config."""
    questions = [{"config": config_of(*case).to_diff_dict(), "lengths": LENGTHS} for case in CASES.values()]
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    run = subprocess.run([BUILD / "tests/rope_probe"], input=lines, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return dict(zip(CASES, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_angles_are_those_of_transformers(name, answers):
    config = config_of(*CASES[name])
    (rope,) = answers[name]
    for length, frequencies in zip(LENGTHS, rope["inverse_frequencies"], strict=True):
        reference, attention_factor = expected(config, CASES[name][0], length)
        torch.testing.assert_close(torch.tensor(frequencies), reference, rtol=2**-22, atol=0)
        assert rope["attention_factor"] == pytest.approx(attention_factor, rel=1e-12)


def test_cases_are_of_every_kind():
    # "proportional" is of a family that temper does not have.
    assert {kind for kind, _, _ in CASES.values()} == ROPE_INIT_FUNCTIONS.keys() - {"proportional"} | {"default"}
