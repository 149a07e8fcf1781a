# SPDX-License-Identifier: Apache-2.0
"""A model that temper has no family for is trained all the same, with no special flag; who trains it can be asked."""

import json

import pytest
from e2e import tiny_chat_model
from transformers import AutoModelForCausalLM

from worker.hf_backend import architectures


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gpt2")
    architectures.make(directory, "gpt2")
    return directory


@pytest.fixture
def looking_server(start_server):
    return start_server(preflights=1, transformers=True)


def test_model_without_a_family_is_trained_and_exported(looking_server, spec, gpt2):
    spec["model"]["uri"] = str(gpt2)
    spec["training"]["learning_rate"] = 5e-3
    job = looking_server.submit(spec)
    ended = looking_server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["spec"]["backend"] == "BACKEND_AUTO"
    reason = "transformers trains it: config.json: architecture GPT2LMHeadModel is not supported"
    assert ended["backend"] == {"backend": "hf", "reason": reason}
    assert (ended["preflight"]["backend"], ended["preflight"]["backend_reason"]) == ("hf", reason)
    assert reason in looking_server.temper("logs", job).stdout
    assert f"hf: {reason}" in looking_server.temper("get", job).stdout
    model = AutoModelForCausalLM.from_pretrained(ended["export_uri"].removeprefix("file://"))
    assert model.num_parameters() == AutoModelForCausalLM.from_pretrained(gpt2).num_parameters()
    assert ended["latest_step"]["loss"] < 1


def test_native_is_refused_where_there_is_no_family(looking_server, spec, gpt2):
    job = looking_server.submit(spec | {"model": {"uri": str(gpt2)}, "backend": "NATIVE"})
    ended = looking_server.wait_for_end(job)
    assert (ended["state"], ended["cause"]) == ("JOB_STATE_FAILED", "FAILURE_CAUSE_USER_INPUT")
    assert "architecture GPT2LMHeadModel is not supported. Supported: LlamaForCausalLM" in ended["reason"]


def test_own_code_of_a_model_is_not_run(looking_server, spec, model, tmp_path):
    """Not even where transformers would know what to do."""
    config = json.loads((model / "config.json").read_text())
    config |= {"architectures": ["OwnForCausalLM"], "model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    ended = looking_server.wait_for_end(looking_server.submit(spec | {"model": {"uri": str(model)}}))
    assert (ended["state"], ended["cause"]) == ("JOB_STATE_FAILED", "FAILURE_CAUSE_USER_INPUT")
    assert "temper-server --trust-remote-code" in ended["reason"]
    assert not (tmp_path / "was_run").exists()


def test_families_say_what_each_backend_lacks(server):
    native, hf = json.loads(server.temper("families", "--output", "json").stdout)["backends"]
    assert (native["name"], "lacks" in native) == ("native", False)
    assert hf["name"] == "hf"
    assert "training.recompute" in hf["lacks"]
    assert "\nhf: causal language models of the transformers" in server.temper("families").stdout


def test_several_ranks_train_it_as_one_does(start_server, spec, gpt2, data):
    """Each rank has a part of the optimizer's state; the losses are those of one rank."""
    server = start_server(slots="cpu:2", transformers=True)
    spec["model"]["uri"] = str(gpt2)
    spec["training"] |= {"micro_batch_tokens": 128, "steps": 6, "precision": "FP32"}
    losses, exports = [], []
    for ranks in (1, 2):
        spec["resources"] = {"ranks_per_node": ranks, "threads_per_rank": 1}
        job = server.submit(spec)
        losses.append([event.step.loss for event in server.events(job) if event.WhichOneof("event") == "step"])
        ended = server.get(job)
        assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
        exports.append(tiny_chat_model.loss_of(ended["export_uri"].removeprefix("file://"), AutoModelForCausalLM))
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert exports[1] == pytest.approx(exports[0], rel=1e-4)
