# SPDX-License-Identifier: Apache-2.0
"""A document's logits do not depend on what it is packed with, where attention does not go through transformers'
interface (tests/parity/test_training.py has the other way); and gradients of models that compute their own logits."""

import pytest
import reference
import torch
from engine import Engine

from worker.hf_backend import architectures


def test_change_in_one_document_does_not_move_another_by_a_bit(tmp_path):
    model = architectures.make(tmp_path / "model", "bloom")
    engine = Engine(tmp_path, "hf")
    batch = reference.random_batch(300, [70, 45, 60, 9])
    before = engine.logits(tmp_path / "model", batch)
    torch.testing.assert_close(before, reference.logits(model, batch), rtol=1e-4, atol=1e-4)
    batch.ids[70:115] = (batch.ids[70:115] + 7) % 300
    after = engine.logits(tmp_path / "model", batch)
    assert torch.equal(before[:70], after[:70])
    assert torch.equal(before[115:], after[115:])
    assert not torch.equal(before[70:115], after[70:115])


@pytest.mark.parametrize("model_type", ["cohere", "phi"])  # scaled logits, a head with a bias
def test_gradients_through_the_models_own_logits_equal_transformers(model_type, tmp_path):
    architectures.make(tmp_path / "model", model_type)
    batches = [reference.random_batch(300, [90, 40], seed=1), reference.random_batch(300, [70], seed=2)]
    loss, gradients = reference.gradients(tmp_path / "model", batches)
    our_loss, our_gradients = Engine(tmp_path, "hf").gradients(tmp_path / "model", batches)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert max(reference.gradient_errors(gradients, our_gradients).values()) <= 1e-4
