# SPDX-License-Identifier: Apache-2.0
"""Every family against transformers: logits, gradients, bf16, and the way back to disk.

A whole run, of test_families.py and test_lora.py, writes build/reports/families.json.
"""

import collections
import json

import families_report
import pytest
import reference
import tiny_models
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

LOGIT_BOUND = 2e-5
GRADIENT_BOUND = 1e-4
OLD_SPELLING = {"torch_dtype", "rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor"}
NEW_SPELLING = {"dtype", "rope_parameters"}
CASES = [(family, variant) for family, variants in tiny_models.VARIANTS.items() for variant in variants]
FIRST = [(family, next(iter(variants))) for family, variants in tiny_models.VARIANTS.items()]


@pytest.fixture(scope="module")
def report(request):
    """family → figure → the values of its variants."""
    figures = collections.defaultdict(lambda: collections.defaultdict(list))
    yield figures
    families_report.update(
        request,
        {
            family: {
                "max_token_kl_fp32": max(found["kl"], default=None),
                "bf16_mean_ratio": max(found["bf16_mean"], default=None),
                "bf16_max_ratio": max(found["bf16_max"], default=None),
                "gradient_error_max": max(found["gradient"], default=None),
                "round_trip_identical": bool(found["round_trip"]) and all(found["round_trip"]),
            }
            for family, found in figures.items()
        },
    )


@pytest.fixture
def make(tmp_path):
    def make(family, variant, **options):
        tiny_models.make(tmp_path / "model", family, **options, **tiny_models.VARIANTS[family][variant])
        return tmp_path / "model"

    return make


def fresh_logits(directory, batch):
    """Each document by a model of its own: dynamic RoPE keeps state from one call to the next."""
    return torch.cat([reference.logits(reference.load(directory), batch.ids[span]) for span in batch.documents()])


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_logits_in_fp32_equal_transformers(family, variant, engine, make, report):
    directory = make(family, variant, max_shard_size="150KB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    # One document longer than the dynamic variant's positions, and shorter ones.
    batch = reference.random_batch(331, [200, 1, 37, 130])
    expected, actual = fresh_logits(directory, batch), engine.logits(directory, batch)
    kl = reference.kl(expected, actual).max().item()
    report[family]["kl"].append(kl)
    assert kl <= tiny_models.kl_bound(family)
    assert reference.relative_error(expected, actual).max() <= LOGIT_BOUND
    assert torch.equal(expected.argmax(-1), actual.argmax(-1))


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_first_step_in_fp32_equals_transformers(family, variant, engine, make, report):
    directory = make(family, variant)
    # The dynamic variant's state is avoided by staying within its positions.
    batches = [reference.random_batch(331, [100, 1, 60, 128])]
    loss, gradients = reference.gradients(directory, batches)
    our_loss, our_gradients = engine.gradients(directory, batches)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    errors = reference.gradient_errors(gradients, our_gradients)
    report[family]["gradient"].append(max(errors.values()))
    assert {name: error for name, error in errors.items() if error > GRADIENT_BOUND} == {}


@pytest.mark.parametrize(("family", "variant"), FIRST)
def test_bf16_is_as_near_to_the_truth_as_transformers_bf16(family, variant, engine, make, report):
    directory = make(family, variant, dtype=torch.bfloat16)
    batch = reference.random_batch(331, [256] * 16)
    truth = reference.logits(reference.load(directory), batch)
    theirs = reference.kl(truth, reference.logits(reference.load(directory, torch.bfloat16), batch))
    ours = reference.kl(truth, engine.logits(directory, batch, precision="bf16"))
    mean, peak = (ours.mean() / theirs.mean()).item(), (ours.max() / theirs.max()).item()
    report[family]["bf16_mean"].append(mean)
    report[family]["bf16_max"].append(peak)
    assert mean <= 1.25
    assert peak <= 3


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_export_gives_back_what_was_loaded(family, variant, engine, make, report, tmp_path):
    # Each family in both dtypes: its first variant in one, the others in the other.
    dtype = torch.bfloat16 if (family, variant) in FIRST else torch.float32
    directory = make(family, variant, dtype=dtype, max_shard_size="150KB")
    engine.round_trip(directory, tmp_path / "export")
    source, export = (tensors_by_file(folder) for folder in (directory, tmp_path / "export"))
    report[family]["round_trip"].append(source == export)
    assert len(source) > 1
    assert source == export
    assert_either_spelling_says_all(directory, tmp_path / "export")
    batch = reference.random_batch(331, [100, 20])
    assert torch.equal(fresh_logits(directory, batch), fresh_logits(tmp_path / "export", batch))


def tensors_by_file(folder):
    """File → tensor → dtype, shape and bits."""
    return {
        path.name: {
            name: (t.dtype, t.shape, t.view(torch.uint8).numpy().tobytes()) for name, t in load_file(path).items()
        }
        for path in sorted(folder.glob("*.safetensors"))
    }


def assert_either_spelling_says_all(source, export):
    """A reader misses nothing when it knows config.json in the spelling of transformers 4 alone, or of 5."""
    written = json.loads((export / "config.json").read_text())
    expected = AutoConfig.from_pretrained(source)
    for unknown in (NEW_SPELLING, OLD_SPELLING):
        read = AutoConfig.for_model(**{key: value for key, value in written.items() if key not in unknown})
        rope = {key: value for key, value in read.rope_parameters.items() if key != "type"}
        assert (read.dtype, rope) == (expected.dtype, expected.rope_parameters)
