# SPDX-License-Identifier: Apache-2.0
"""Our logits against transformers' own, where the families' tests do not go: the real model, spellings."""

import json

import pytest
import reference
import smollm2
import tiny_models
import torch

KL_BOUND = 1e-8
LOGIT_BOUND = 2e-5


def assert_equal_in_fp32(expected, actual):
    assert reference.kl(expected, actual).max() <= KL_BOUND
    assert reference.relative_error(expected, actual).max() <= LOGIT_BOUND
    assert torch.equal(expected.argmax(-1), actual.argmax(-1))


def test_transformers_4_config_fp32_equals_transformers(engine, tmp_path):
    tiny_models.make(tmp_path / "model", **tiny_models.VARIANTS["llama"]["llama3"])
    batch = reference.random_batch(331, [150])
    expected = reference.logits(reference.load(tmp_path / "model"), batch)
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))
    assert_equal_in_fp32(expected, engine.logits(tmp_path / "model", batch))


def test_smollm2_fp32_equals_transformers(engine):
    directory = smollm2.DIRECTORY
    batch = reference.random_batch(49152, [256, 90, 1, 128])
    assert_equal_in_fp32(reference.logits(reference.load(directory), batch), engine.logits(directory, batch))


def assert_as_good_as_transformers_bf16(directory, engine, batch):
    """Our bf16 is as near to the fp32 truth as transformers' bf16 is."""
    truth = reference.logits(reference.load(directory), batch)
    theirs = reference.kl(truth, reference.logits(reference.load(directory, torch.bfloat16), batch))
    ours = reference.kl(truth, engine.logits(directory, batch, precision="bf16"))
    assert ours.mean() <= 1.25 * theirs.mean()
    assert ours.max() <= 3 * theirs.max()


# Without bf16 instructions, either side takes minutes at the whole depth.
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("layers", "documents"), [(3, 2), pytest.param(smollm2.LAYERS, 8, marks=pytest.mark.long)])
def test_smollm2_bf16_is_as_near_as_transformers_bf16(layers, documents, engine, tmp_path):
    directory = smollm2.first_layers(layers, tmp_path / "model")
    assert_as_good_as_transformers_bf16(directory, engine, reference.random_batch(49152, [512] * documents))
