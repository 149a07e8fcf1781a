# SPDX-License-Identifier: Apache-2.0
"""Our logits against transformers' own, where the families' tests do not go: the real model, spellings."""

import json

import pytest
import reference
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


def test_smollm2_fp32_equals_transformers(engine, smollm2):
    batch = reference.random_batch(49152, [256, 90, 1, 128])
    assert_equal_in_fp32(reference.logits(reference.load(smollm2), batch), engine.logits(smollm2, batch))


def assert_as_good_as_transformers_bf16(directory, engine, batch):
    """Our bf16 is as near to the fp32 truth as transformers' bf16 is."""
    truth = reference.logits(reference.load(directory), batch)
    theirs = reference.kl(truth, reference.logits(reference.load(directory, torch.bfloat16), batch))
    ours = reference.kl(truth, engine.logits(directory, batch, precision="bf16"))
    assert len(ours) >= 4096
    assert ours.mean() <= 1.25 * theirs.mean()
    assert ours.max() <= 3 * theirs.max()


def at_depth(source, layers, directory):
    """The first layers of a real model, with its embedding, norm and head."""
    model = reference.load(source, torch.bfloat16)
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    model.save_pretrained(directory)
    return directory


# Without bf16 instructions either side takes minutes, so the model is cut to three layers there.
@pytest.mark.timeout(1800)
def test_smollm2_bf16_is_as_near_as_transformers_bf16(engine, smollm2, tmp_path):
    native = torch.cpu._is_avx512_bf16_supported()
    directory = smollm2 if native else at_depth(smollm2, 3, tmp_path / "model")
    assert_as_good_as_transformers_bf16(directory, engine, reference.random_batch(49152, [512] * 8))
