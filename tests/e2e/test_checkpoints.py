# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as users meet them: listed, taken home, resumed from; and jobs that pause."""

import hashlib
import json
from pathlib import Path

import pytest
from temper_server import Server, steps_lost, tiny_job, wait_until
from transformers import AutoModelForCausalLM

STEPS = 240
INTERVAL = 40


def with_checkpoints(spec):
    """A job of a few seconds."""
    spec["training"]["steps"] = STEPS
    # So that a checkpoint is written before the next one is due, which would wait otherwise.
    spec["training"]["tokens_per_step"] = 1024
    spec["checkpoints"] = {"every_steps": INTERVAL, "keep_last": 2}
    return spec


@pytest.fixture
def checkpointed(spec):
    return with_checkpoints(spec)


def kind(event) -> str:
    return event.WhichOneof("event")


def weights(job: dict) -> dict:
    export = Path(job["export_uri"])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in export.glob("*.safetensors")}


def wait_for_checkpoint(server, job):
    return server.wait_for(job, lambda event: kind(event) == "checkpoint").checkpoint


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, protos, pristine_model, data):
    """What the job's weights are when nothing happens to it."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    server = Server(directory / "server", protos)
    try:
        job = with_checkpoints(tiny_job(pristine_model, data, directory / "output"))
        ended = server.wait_for_end(server.submit(job))
        assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
        return weights(ended)
    finally:
        assert server.interrupt() == 0


def test_rank_killed_goes_on_from_its_checkpoint_to_the_same_weights(server, checkpointed, uninterrupted):
    job = server.submit(checkpointed)
    wait_for_checkpoint(server, job)
    server.the_process("temper-rank").kill()
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert weights(ended) == uninterrupted
    events = list(server.events(job))
    resumption = next(event.resumption for event in events if kind(event) == "resumption")
    assert resumption.step % INTERVAL == 0
    assert steps_lost(events, interval=INTERVAL) == resumption.lost_steps


def test_pause_and_resume_take_no_step_twice_and_give_the_same_weights(server, checkpointed, uninterrupted):
    job = server.submit(checkpointed)
    server.wait_for_step(job)
    assert server.json("pause", job)["target"] == "JOB_TARGET_PAUSE"
    server.wait_for_state(job, "PAUSED")
    assert server.processes() == []
    server.stop()
    server.start()
    assert server.get(job)["state"] == "JOB_STATE_PAUSED"
    server.json("resume", job)
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended.get("restarts", 0) == 0
    assert weights(ended) == uninterrupted
    assert [event.step.step for event in server.events(job) if kind(event) == "step"] == list(range(1, STEPS + 1))


def test_list_download_and_resume_from_a_checkpoint(server, checkpointed, uninterrupted, start_server, tmp_path):
    job = server.submit(checkpointed)
    ended = server.wait_for_end(job)
    listed = server.json("checkpoints", job)["checkpoints"]
    assert [int(entry["step"]) for entry in listed] == [STEPS, STEPS - INTERVAL]
    before_last = str(STEPS - INTERVAL)
    assert listed[1]["name"] == f"jobs/{job}/checkpoints/{before_last}"
    table = server.temper("checkpoints", job).stdout
    assert before_last in table
    assert listed[1]["uri"] in table

    home = tmp_path / "home"
    result = server.temper("download", job, "--checkpoint", before_last, "--to", str(home))
    assert result.returncode == 0, result.stderr
    AutoModelForCausalLM.from_pretrained(home / "weights")
    # Another server, which knows nothing of the job: the copy is all it takes.
    other = start_server()
    resumed = other.submit(checkpointed | {"output": {"uri": str(tmp_path / "other")}}, f"--resume-from={home}")
    resumed = other.wait_for_end(resumed)
    assert resumed["state"] == "JOB_STATE_SUCCEEDED", resumed
    assert weights(resumed) == weights(ended) == uninterrupted

    missing = server.temper("download", job, "--checkpoint", "77", "--to", str(tmp_path / "none"))
    assert missing.returncode == 4
    assert f"has no checkpoint 77; it has {STEPS}, {before_last}" in missing.stderr


def test_the_best_checkpoint_is_marked(server, spec):
    spec["validation"] = {"share": 0.25, "every_steps": 20}
    spec["checkpoints"] = {"every_steps": 30}
    job = server.submit(spec)
    best = int(server.wait_for_end(job)["best_validation"]["step"])
    listed = server.json("checkpoints", job)["checkpoints"]
    assert [int(entry["step"]) for entry in listed if entry.get("best")] == [best]
    header, *rows = server.temper("checkpoints", job).stdout.splitlines()
    marks = {int(row.split()[0]): row[header.index("BEST") :].split()[0] for row in rows}
    assert [step for step, mark in marks.items() if mark == "yes"] == [best]
    assert len(marks) == len(listed) > 1


def test_damaged_checkpoints_are_passed_over_with_warnings(server, checkpointed, uninterrupted):
    checkpointed["checkpoints"]["keep_last"] = 3
    job = server.submit(checkpointed)
    # Three, so that one is left when two are not whole.
    server.wait_for(job, lambda event: kind(event) == "checkpoint" and event.checkpoint.step >= 3 * INTERVAL)
    server.json("pause", job)
    server.wait_for_state(job, "PAUSED")
    listed = server.json("checkpoints", job)["checkpoints"]
    altered, incomplete, whole = (Path(checkpoint["uri"]) for checkpoint in listed)
    file = altered / "weights/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    (incomplete / "optimizer/state-00001-of-00001.safetensors").unlink()
    server.json("resume", job)
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert weights(ended) == uninterrupted
    events = list(server.events(job))
    assert [event.resumption.uri for event in events if kind(event) == "resumption"] == [str(whole)]
    warnings = [event.log.text for event in events if kind(event) == "log" and event.log.severity >= 2]
    for directory, problem in (
        (altered, "model.safetensors is damaged"),
        (incomplete, "state-00001-of-00001.safetensors"),
    ):
        assert any(str(directory) in text and problem in text for text in warnings), warnings


def test_delete_forgets_an_ended_job_and_leaves_its_output(server, spec):
    job = server.submit(spec)
    running = server.temper("delete", job)
    assert running.returncode == 3
    assert "cancel it first" in running.stderr
    ended = server.wait_for_end(job)
    assert server.temper("delete", job).returncode == 0
    assert server.temper("get", job).returncode == 4
    assert Path(ended["export_uri"]).is_dir()
    assert not (server.data_dir / "runs" / job).exists()


def test_cancel_of_a_paused_job(server, spec):
    server.json("cancel", blocker := server.submit(spec))
    job = server.submit(spec)
    server.json("pause", job)
    wait_until(lambda: server.get(job)["state"] != "JOB_STATE_STOPPING")
    if server.get(job)["state"] == "JOB_STATE_PAUSED":
        server.json("cancel", job)
        assert server.wait_for_end(job)["state"] == "JOB_STATE_CANCELLED"
        refused = server.temper("resume", job)
        assert refused.returncode == 3
        assert "submit another job with resume_from" in refused.stderr
    server.wait_for_end(blocker)


def test_events_of_checkpoints_are_shown(server, checkpointed):
    job = server.submit(checkpointed)
    server.wait_for_end(job)
    shown = server.temper("watch", job).stdout
    assert f"checkpoint at step {INTERVAL}: " in shown
    lines = [json.loads(line) for line in server.temper("watch", job, "--output", "json").stdout.splitlines()]
    committed = [line["checkpoint"] for line in lines if "checkpoint" in line]
    assert all(entry["pause_seconds"] > 0 and entry["commit_seconds"] > 0 for entry in committed)


def test_metrics_are_thinned_and_count_a_step_that_was_taken_again_once(server, checkpointed):
    job = server.submit(checkpointed)
    wait_for_checkpoint(server, job)
    server.the_process("temper-rank").kill()
    server.wait_for_end(job)
    answer = server.json("metrics", job, "--points", "1000")
    assert [int(step["step"]) for step in answer["steps"]] == list(range(1, STEPS + 1))
    thinned = server.json("metrics", job, "--points", "5")
    assert [int(step["step"]) for step in thinned["steps"]] == [1, 61, 121, 181, STEPS]
    assert int(thinned["total_steps"]) == STEPS
    assert server.temper("metrics", job).stdout.splitlines()[0].split()[:2] == ["STEP", "LOSS"]
