# SPDX-License-Identifier: Apache-2.0
"""A model that temper has no family for is trained all the same, with no special flag; who trains it can be asked."""

import json
import shutil
from pathlib import Path

import pytest
from e2e import tiny_chat_model
from survival import of_kind
from transformers import AutoModelForCausalLM
from worker.train.backends import LACKS
from worker.train.training_run import digests

from worker.hf_backend import architectures

STEPS = 200


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


RAISING = """
from transformers import GPT2Config, GPT2LMHeadModel

class OwnConfig(GPT2Config):
    model_type = "own"

class OwnForCausalLM(GPT2LMHeadModel):
    config_class = OwnConfig

    def __init__(self, config):
        raise KeyError("no such thing")
"""


def test_what_code_of_a_model_raises_in_preflight_is_in_the_jobs_log(start_server, spec, gpt2, tmp_path):
    """The server allows it to be run."""
    model = shutil.copytree(gpt2, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"architectures": ["OwnForCausalLM"], "model_type": "own", "auto_map": auto_map}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(RAISING)
    server = start_server(preflights=1, transformers=True, options=["--trust-remote-code"])
    job = server.submit(spec | {"model": {"uri": str(model)}})
    ended = server.wait_for_end(job)
    assert (ended["state"], ended["cause"]) == ("JOB_STATE_FAILED", "FAILURE_CAUSE_USER_INPUT")
    assert ended.get("epoch", 0) == 0  # no gang but that of the preflight
    assert "Nor can transformers train it here: transformers: KeyError: 'no such thing'" in ended["reason"]
    logged = server.temper("logs", job).stdout
    assert "Traceback (most recent call last)" in logged
    assert 'own.py", line 11, in __init__' in logged


def test_whatever_ends_its_gangs_costs_no_bit(start_server, spec, gpt2, tmp_path):
    """A rank that is killed, a pause, a worker that is told to end. The model drops activations: what the generator of
    random numbers would have given next is in the checkpoints as well."""
    model = shutil.copytree(gpt2, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | dict.fromkeys(("resid_pdrop", "attn_pdrop"), 0.1)))
    spec["model"]["uri"] = str(model)
    spec["training"]["steps"] = STEPS
    spec["checkpoints"] = {"every_steps": 20}
    server = start_server(transformers=True)
    exports = []
    for disturbed in (False, True):
        job = server.submit(spec)
        if disturbed:
            server.wait_for(job, lambda event: event.WhichOneof("event") == "checkpoint")
            server.the_process("temper-rank").kill()
            server.wait_for_step(job, epoch=2)
            server.json("pause", job)
            server.wait_for_state(job, "PAUSED")
            assert server.processes() == []
            server.json("resume", job)
            server.wait_for_step(job, epoch=3)
            server.the_process("temper-worker").terminate()
        ended = server.wait_for_end(job)
        assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
        exports.append(digests(Path(ended["export_uri"].removeprefix("file://"))))
    assert exports[0] == exports[1]
    assert ended["epoch"] == 4
    assert ended["restarts"] == 1  # for the kill
    events = list(server.events(job))
    killed, *stopped = of_kind(events, "resumption")
    assert killed.step > 0
    assert [resumption.lost_steps for resumption in stopped] == [0, 0]
    steps = [step.step for step in of_kind(events, "step")]
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    assert len(steps) == STEPS + killed.lost_steps


def test_families_say_what_each_backend_lacks(server):
    native, hf = json.loads(server.temper("families", "--output", "json").stdout)["backends"]
    assert (native["name"], "lacks" in native) == ("native", False)
    assert hf["name"] == "hf"
    assert hf["lacks"] == list(LACKS["hf"])
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
