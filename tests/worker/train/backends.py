# SPDX-License-Identifier: Apache-2.0
"""Who trains: the one list that the trainer's tests run over, and what each backend can't do."""

from pathlib import Path

import pytest

BACKENDS = ("native", "hf")

RECOMPUTE = "training.recompute"
DISTILLATION = "method.distillation"
REWARD = "method.reward"
TOKEN_ADAPTERS = "adapters on embed_tokens, lm_head and experts"
BALANCE_LOSS = "the loss for an even use of experts"
COMPARISON = "a comparison of exports with transformers' own model, which is what trained"
LAYERS = "shards of single layers: each rank gathers the whole model for a step"

# What a backend lacks → with what words a job that asks for it is refused; none where nobody can ask for it. The keys
# are what `temper families` prints (tests/e2e/test_fallback.py).
LACKS = {
    "native": {},
    "hf": {
        "GPUs": "transformers' models are trained on CPU here",  # where temper-rank was built with CUDA
        RECOMPUTE: "training.recompute: transformers keeps all activations of a model that it trains",
        DISTILLATION: "method.distillation is for models that temper trains itself",
        REWARD: "reward models are trained by temper's own engine",
        TOKEN_ADAPTERS: "lora.targets: ",
        BALANCE_LOSS: "config.json: output_router_logits asks for the loss for an even use of experts",
        COMPARISON: None,
        LAYERS: None,
        "packed documents where attention does not go through transformers' interface": None,
        "MFU where the model's FLOPs can't be counted": None,
    },
}

# For tests of what neither backend has a part in, and of cases beyond the first that take the model the same way: to
# start transformers takes seconds.
ONE_SHOWS_AS_MUCH = pytest.mark.parametrize("inputs", ["native"], indirect=True)


def backend_of(inputs: Path) -> str:
    """A test's inputs lie in a folder of their backend's name (conftest.py); elsewhere the job chooses: ""."""
    return inputs.name if inputs.name in BACKENDS else ""


def lacks(inputs: Path, capability: str) -> bool:
    return capability in LACKS[backend_of(inputs)]


def refusal(inputs: Path, capability: str) -> str | None:
    """How a job that asks for that is refused; None when it is not."""
    return LACKS[backend_of(inputs)].get(capability)
