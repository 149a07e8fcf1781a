# SPDX-License-Identifier: Apache-2.0
"""The same training on 1, 2, 3 and 4 ranks of this host, each a process that holds a shard of the model.

A whole run writes build/reports/gang.json.
"""

import gang_report
import pytest
import reference
import selection
import tiny_models
import torch

GRADIENT_BOUND = 1e-5
LOSS_BOUND = 1e-4
LOSS_BOUND_OF_EXPERTS = 1e-3  # a token near the border between two experts may go to the other one
TRAFFIC_BOUND = 0.05
STEPS = 20
MICRO_BATCHES = 5  # of a step: no world from 2 to 4 divides it
WORLDS = (1, 2, 3, 4)

# mode → family, variant, the adapter that is trained (None: all weights)
MODES = {
    "full, untied": ("llama", "gqa", None),
    "full, tied": ("qwen3", "odd_heads_tied", None),
    "full, experts": ("mixtral", "balanced_window", None),
    "LoRA, untied": ("llama", "mqa_bias", ["--rank", "4", "--alpha", "8", "--targets", "all-linear"]),
    "LoRA, experts": ("mixtral", "balanced_window", ["--rank", "4", "--targets", "all-linear", "experts"]),
    "LoRA, tied": ("gemma2", "caps", ["--rank", "4", "--alpha", "8", "--targets", "q_proj", "down_proj"]),
}


@pytest.fixture(scope="module")
def rows(request):
    found = []
    yield found
    if selection.is_whole(request):
        gang_report.add(found)


def batches_of(step, vocab_size=331):
    """A step's micro-batches: of very different lengths, one of them with nothing to learn from."""
    lengths = ([24, 9], [5], [14, 2, 11], [30], [8, 8])
    batches = [reference.random_batch(vocab_size, each, seed=100 * (step % 4) + i) for i, each in enumerate(lengths)]
    batches[2].mask.zero_()
    return batches


class Training:
    """A mode's model and data, and what a world makes of them."""

    def __init__(self, mode, engine, folder):
        self.engine, self.model = engine, folder / "model"
        family, variant, adapter = MODES[mode]
        tiny_models.make(self.model, family, **tiny_models.VARIANTS[family][variant])
        self.lora = {}
        if adapter:
            engine.make_adapter(self.model, folder / "adapter", *adapter)
            self.lora = {"lora": folder / "adapter"}

    def first_gradients(self, world):
        options = [x for name, value in self.lora.items() for x in (f"--{name}", value)]
        return self.engine.gradients(self.model, batches_of(0), "--world", str(world), *options)[1]

    def train(self, world, steps=STEPS):
        batches = [batch for step in range(steps) for batch in batches_of(step)]
        options = {"learning_rate": 3e-3, "weight_decay": 0.1, "max_grad_norm": 0.5, "micro_batches": MICRO_BATCHES}
        losses, out = self.engine.train(self.model, batches, world=world, **options, **self.lora)
        figures = {name: out.pop(name) for name in ("bytes_sent", "peak_bytes", "whole_bytes", "kept_bytes")}
        return losses, out, figures


def bytes_of_a_step(world, weights, trained):
    """docs/ARCHITECTURE.md, "Sharding": (P + P + P)·(n − 1)/n a micro-batch, all fp32 here.

    What is frozen has no gradient to be reduced.
    """
    rounds = -(-MICRO_BATCHES // world)
    return rounds * (2 * weights + trained) * 4 * (world - 1) / world


@pytest.mark.parametrize("mode", MODES)
def test_every_world_trains_the_same(mode, engine, tmp_path, rows):
    training = Training(mode, engine, tmp_path)
    expected_gradients = training.first_gradients(1)
    expected_losses, weights, _ = alone = training.train(1)
    assert expected_losses[-4:].mean() < 0.9 * expected_losses[:4].mean()
    for world in WORLDS:
        gradients = training.first_gradients(world) if world > 1 else expected_gradients
        gradient_error = max(reference.gradient_errors(expected_gradients, gradients).values())
        losses, _, figures = training.train(world) if world > 1 else alone
        loss_error = ((losses - expected_losses).abs() / expected_losses.abs()).max().item()
        whole = figures["whole_bytes"].item() / 4
        trained = sum(tensor.numel() for tensor in weights.values()) if training.lora else whole
        formula = bytes_of_a_step(world, whole, trained)
        sent = figures["bytes_sent"].item() / STEPS
        rows.append(
            {
                "world": world,
                "mode": mode,
                "gradient_rel_diff": gradient_error,
                "loss_max_rel_diff": loss_error,
                "kept_weights_share": figures["kept_bytes"].item() / figures["whole_bytes"].item(),
                "peak_rank_mb": round(figures["peak_bytes"].max().item() / 1e6, 1),
                "bytes_per_step": sent,
                "bytes_formula": formula,
            }
        )
        assert gradient_error <= GRADIENT_BOUND, world
        assert loss_error <= (LOSS_BOUND_OF_EXPERTS if "experts" in mode else LOSS_BOUND), world
        assert abs(sent - formula) <= TRAFFIC_BOUND * formula, world
        assert figures["kept_bytes"].item() <= 1.05 * figures["whole_bytes"].item() / world, world


def test_the_same_world_twice_is_bit_identical(engine, tmp_path):
    training = Training("full, experts", engine, tmp_path)
    losses, weights, _ = training.train(3, steps=4)
    again, weights_again, _ = training.train(3, steps=4)
    assert torch.equal(losses, again)
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
