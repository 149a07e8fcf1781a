# SPDX-License-Identifier: Apache-2.0
"""The main road: submit, watch, take the result home."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
import tiny_chat_model


def test_submit_watch_download_gives_a_model_that_transformers_reads_and_that_has_learned(
    start_server, spec, pristine_model, tmp_path
):
    server = start_server(transformers=True)
    spec["training"]["steps"] = 120
    submitted = server.temper("submit", "-", "--watch", "--output", "json", stdin=json.dumps(spec))
    assert submitted.returncode == 0, submitted.stderr
    created, *events = [json.loads(line) for line in submitted.stdout.splitlines()]
    job = created["name"].removeprefix("jobs/")

    states = [event["state"]["state"].removeprefix("JOB_STATE_") for event in events if "state" in event]
    assert states == ["QUEUED", "STARTING", "RUNNING", "STOPPING", "SUCCEEDED"]
    phases = [event["phase"]["phase"].removeprefix("PHASE_") for event in events if "phase" in event]
    assert phases == ["PREPARING_DATA", "LOADING_MODEL", "TRAINING", "EXPORTING", "VERIFYING"]
    steps = [event["step"] for event in events if "step" in event]
    assert [int(step["step"]) for step in steps] == list(range(1, 121))
    assert steps[-1]["loss"] < steps[0]["loss"] / 20

    (exported,) = [event["export"] for event in events if "export" in event]
    written = Path(exported["uri"].removeprefix("file://")) / "verification.json"
    assert exported["proof"] == json.loads(written.read_text())
    assert exported["proof"]["tensors"]["passed"]
    assert exported["proof"]["transformers"]["passed"]

    ended = server.get(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED"
    assert ended["epoch"] == 1
    assert ended["latest_step"]["step"] == ended["total_steps"] == "120"

    home = tmp_path / "home"
    downloaded = server.json("download", job, "--to", str(home))
    assert downloaded["files"] > 0
    assert tiny_chat_model.loss_of(home) < tiny_chat_model.loss_of(pristine_model) / 20
    # It speaks as the data does, and it knows when to stop.
    answers = {messages[-1]["content"] for messages in tiny_chat_model.conversations()}
    assert tiny_chat_model.answer_of(home, "What colour is the river?") in answers


def test_download_again_receives_nothing_and_mends_what_is_broken(server, spec, tmp_path):
    job = server.submit(spec)
    server.wait_for_end(job)
    home = tmp_path / "home"
    first = server.json("download", job, "--to", str(home))
    assert first["received_bytes"] == first["bytes"]
    assert server.json("download", job, "--to", str(home))["received_bytes"] == 0

    weights = home / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    (home / "model.safetensors.part").write_bytes(content[:1000])  # as an interruption leaves it
    assert server.json("download", job, "--to", str(home))["received_bytes"] == len(content) - 1000
    assert weights.read_bytes() == content


def test_the_same_job_twice_gives_the_same_bits(start_server, spec):
    server = start_server(slots="cpu:2")
    digests = []
    jobs = [server.submit(spec) for _ in range(2)]
    for job in jobs:
        ended = server.wait_for_end(job)
        assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
        weights = Path(ended["export_uri"].removeprefix("file://")) / "model.safetensors"
        digests.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    assert digests[0] == digests[1]

    # The comparison can fail: another seed is another order of the samples.
    other = copy.deepcopy(spec)
    other["training"]["seed"] = 1
    ended = server.wait_for_end(server.submit(other))
    weights = Path(ended["export_uri"].removeprefix("file://")) / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() != digests[0]


def test_cancel_a_running_job_stops_its_processes(server, endless_spec):
    job = server.submit(endless_spec)
    server.wait_for_step(job)
    gang = server.processes()
    assert {process.name() for process in gang} == {"temper-worker", "temper-rank"}

    assert server.json("cancel", job)["target"] == "JOB_TARGET_CANCEL"
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_CANCELLED"
    assert not any(process.is_running() for process in gang)
    assert "export_uri" not in ended
    # Once more is no error.
    assert server.json("cancel", job)["state"] == "JOB_STATE_CANCELLED"


def test_cancel_a_queued_job_never_starts_it(start_server, spec):
    server = start_server(slots="cpu:0")
    job = server.submit(spec)
    server.json("cancel", job)
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_CANCELLED"
    assert ended.get("epoch", 0) == 0


def test_lora_job_gives_an_adapter(server, spec, tmp_path):
    spec["lora"] = {"rank": 4}
    ended = server.wait_for_end(server.submit(spec))
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    home = tmp_path / "home"
    server.json("download", ended["name"], "--to", str(home))
    config = json.loads((home / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert (home / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("length", [{"steps": 3}, {"epochs": 1.5}])
def test_total_steps_are_known_and_all_taken(server, spec, length):
    spec["training"] = {"learning_rate": 1e-3, "tokens_per_step": 256, "micro_batch_tokens": 128} | length
    ended = server.wait_for_end(server.submit(spec))
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["latest_step"]["step"] == ended["total_steps"]
    if "steps" in length:
        assert ended["total_steps"] == "3"
    else:
        assert ended["latest_step"]["epoch"] == pytest.approx(1.5, abs=0.5)
