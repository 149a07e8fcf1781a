# SPDX-License-Identifier: Apache-2.0
"""Every family against transformers: logits, gradients, bf16, and the way back to disk.

The figures go to build/reports/families.json.
"""

import collections

import families_report
import pytest
import reference
import tiny_models
import torch
from safetensors.torch import load_file

KL_BOUND = 1e-8
KL_BOUND_OF_EXPERTS = 1e-7
LOGIT_BOUND = 2e-5
GRADIENT_BOUND = 1e-4
CASES = [(family, variant) for family, variants in tiny_models.VARIANTS.items() for variant in variants]
FIRST = [(family, next(iter(variants))) for family, variants in tiny_models.VARIANTS.items()]


@pytest.fixture(scope="module")
def report():
    """family → figure → the values of its variants."""
    figures = collections.defaultdict(lambda: collections.defaultdict(list))
    yield figures
    families_report.update(
        {
            family: {
                "max_token_kl_fp32": max(found["kl"], default=None),
                "bf16_mean_ratio": max(found["bf16_mean"], default=None),
                "bf16_max_ratio": max(found["bf16_max"], default=None),
                "gradient_error_max": max(found["gradient"], default=None),
                "round_trip_identical": bool(found["round_trip"]) and all(found["round_trip"]),
            }
            for family, found in figures.items()
        }
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
    directory = make(family, variant)
    # One document longer than the dynamic variant's positions, and shorter ones.
    batch = reference.random_batch(331, [200, 1, 37, 130])
    expected, actual = fresh_logits(directory, batch), engine.logits(directory, batch)
    kl = reference.kl(expected, actual).max().item()
    report[family]["kl"].append(kl)
    assert kl <= (KL_BOUND_OF_EXPERTS if family in tiny_models.MOE else KL_BOUND)
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
    directory = make(family, variant, dtype=torch.bfloat16, max_shard_size="150KB")
    engine.round_trip(directory, tmp_path / "export")
    source, export = (
        {
            path.name: {name: (t.dtype, t.view(torch.int16).tolist()) for name, t in load_file(path).items()}
            for path in sorted(folder.glob("*.safetensors"))
        }
        for folder in (directory, tmp_path / "export")
    )
    report[family]["round_trip"].append(source == export)
    assert len(source) > 1
    assert source == export
    # Both spellings are there, and transformers reads the whole as before.
    batch = reference.random_batch(331, [100, 20])
    assert torch.equal(fresh_logits(directory, batch), fresh_logits(tmp_path / "export", batch))
