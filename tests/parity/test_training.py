# SPDX-License-Identifier: Apache-2.0
"""Our losses, gradients and optimizer steps against a plain transformers loop in fp32."""

import pytest
import reference
import smollm2
import tiny_models
import torch
from engine import Engine


@pytest.fixture(params=["native", "hf"])
def engine(request, tmp_path):
    """Whoever trains, the steps are the same."""
    return Engine(tmp_path, request.param)


# The other backend imports transformers for each call: tests/worker/hf_backend asks the same of it in fewer.
MAINLY_NATIVE = pytest.mark.parametrize("engine", ["native", pytest.param("hf", marks=pytest.mark.long)], indirect=True)


def assert_step_equals_transformers(directory, engine, batches, *options):
    loss, gradients = reference.gradients(directory, batches)
    our_loss, our_gradients = engine.gradients(directory, batches, *options)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert max(reference.gradient_errors(gradients, our_gradients).values()) <= 1e-4


def test_first_step_with_a_two_pass_objective_equals_transformers(engine, tmp_path):
    tiny_models.make(tmp_path / "model")
    batches = [reference.random_batch(331, [90, 40], seed=1), reference.random_batch(331, [70], seed=2)]
    assert_step_equals_transformers(tmp_path / "model", engine, batches, "--two-pass")


def test_first_step_over_several_blocks_of_queries_equals_transformers(engine, tmp_path):
    tiny_models.make(tmp_path / "model", max_position_embeddings=2048)
    assert_step_equals_transformers(tmp_path / "model", engine, [reference.random_batch(331, [1100, 30])])


@pytest.mark.parametrize("engine", ["native"], indirect=True)  # of a small model the other backend shows as much
def test_smollm2_first_step_equals_transformers(engine):
    assert_step_equals_transformers(smollm2.DIRECTORY, engine, [reference.random_batch(49152, [64, 30])])


@pytest.mark.parametrize("variant", ["gqa", "mha_tied"])
def test_30_adamw_steps_follow_transformers(variant, engine, tmp_path):
    directory = tmp_path / "model"
    tiny_models.make(directory, **tiny_models.VARIANTS["llama"][variant])
    batches = [reference.random_batch(331, [64, 40, 24], seed=i % 5) for i in range(30)]

    model = reference.load(directory).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-3
    )
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = reference.loss(model, [batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    ours, _ = engine.train(directory, batches, learning_rate=1e-3, weight_decay=0.1, max_grad_norm=1.0)
    assert losses[-1] < losses[0] - 0.5
    torch.testing.assert_close(ours, torch.tensor(losses, dtype=torch.float64), rtol=1e-3, atol=0)


@MAINLY_NATIVE
def test_packed_equals_unpacked(engine, tmp_path):
    tiny_models.make(tmp_path / "model")
    packed = reference.random_batch(331, [50, 80, 1, 33])
    single = [
        reference.Batch(packed.ids[s], packed.targets[s], packed.mask[s], torch.tensor([0, s.stop - s.start]))
        for s in packed.documents()
    ]
    loss, gradients = engine.gradients(tmp_path / "model", [packed])
    # Gradient accumulation over micro-batches, in either order, is the same sum.
    for batches in (single, single[::-1]):
        other_loss, other_gradients = engine.gradients(tmp_path / "model", batches)
        assert other_loss == pytest.approx(loss, rel=1e-6)
        for name in gradients:
            error = (gradients[name] - other_gradients[name]).double().norm()
            assert error <= 1e-5 * gradients[name].double().norm(), name


@MAINLY_NATIVE
def test_change_in_one_document_does_not_move_another_by_a_bit(engine, tmp_path):
    tiny_models.make(tmp_path / "model")
    batch = reference.random_batch(331, [70, 45, 60])
    before = engine.logits(tmp_path / "model", batch)
    batch.ids[70:115] = (batch.ids[70:115] + 7) % 331
    after = engine.logits(tmp_path / "model", batch)
    assert torch.equal(before[:70], after[:70])
    assert torch.equal(before[115:], after[115:])
    assert not torch.equal(before[70:115], after[70:115])


@MAINLY_NATIVE
def test_same_training_twice_is_bit_identical(engine, tmp_path):
    tiny_models.make(tmp_path / "model")
    batches = [reference.random_batch(331, [64, 40], seed=i) for i in range(4)]
    first = engine.train(tmp_path / "model", batches, learning_rate=1e-3)
    second = engine.train(tmp_path / "model", batches, learning_rate=1e-3)
    assert torch.equal(first[0], second[0])
    weights = first[1].keys() - {"peak_bytes"}  # which is what the process took
    assert all(torch.equal(first[1][name], second[1][name]) for name in weights)
