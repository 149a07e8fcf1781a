# SPDX-License-Identifier: Apache-2.0
"""Jobs of several ranks: what they compute, and what becomes of them when a rank, or their node, goes."""

import hashlib
import json
from pathlib import Path

import pytest
import tiny_chat_model
from temper_server import BIN, Server, steps_lost, wait_until

STEPS = 120
INTERVAL = 40


def job_of_two_ranks(spec):
    spec["training"] |= {"steps": STEPS, "tokens_per_step": 2048}
    spec["checkpoints"] = {"every_steps": INTERVAL, "keep_last": 2}
    spec["resources"] |= {"ranks_per_node": 2}
    return spec


@pytest.fixture
def spec(spec):
    return job_of_two_ranks(spec)


@pytest.fixture
def server(start_server):
    return start_server(slots="cpu:2")


def of_kind(events, kind):
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


def weights(job):
    export = Path(job["export_uri"])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in export.glob("*.safetensors")}


def ranks_of(server):
    """Rank by rank."""
    return sorted(server.processes("temper-rank"), key=lambda process: (process.create_time(), process.pid))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, protos, pristine_model, data):
    """By number of ranks: the job, and the losses of its steps, when nothing happens to it."""
    directory = tmp_path_factory.mktemp("undisturbed")
    found = {}
    for ranks in (1, 2):
        spec = job_of_two_ranks(
            {
                "model": {"uri": str(pristine_model)},
                "data": {"uri": str(data)},
                "training": {"micro_batch_tokens": 256, "learning_rate": 5e-3, "precision": "PRECISION_FP32"},
                "resources": {"threads_per_rank": 1},
                "output": {"uri": str(directory / "output")},
            }
        )
        spec["resources"]["ranks_per_node"] = ranks
        server = Server(directory / f"server-{ranks}", protos, slots="cpu:2", transformers=ranks == 2)
        try:
            job = server.submit(spec)
            server.wait_for_step(job)
            assert len(ranks_of(server)) == ranks
            ended = server.wait_for_end(job)
            assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
            found[ranks] = ended, [step.loss for step in of_kind(server.events(job), "step")]
        finally:
            assert server.interrupt() == 0
            assert server.processes() == []
    return found


def test_two_ranks_do_what_one_does(undisturbed):
    (alone, losses_alone), (together, losses) = undisturbed[1], undisturbed[2]
    assert len(losses) == STEPS
    assert losses[:20] == pytest.approx(losses_alone[:20], rel=1e-4)
    assert losses[-1] < 0.5 * losses[0]
    for key in ("total_tokens", "step"):
        assert together["latest_step"][key] == alone["latest_step"][key]
    proof = json.loads((Path(together["export_uri"]) / "verification.json").read_text())
    assert proof["tensors"]["passed"]
    assert proof["transformers"]["passed"]


def test_the_death_of_either_rank_is_the_gangs_and_costs_no_bit(server, spec, undisturbed):
    job = server.submit(spec)
    for epoch, rank in ((1, 1), (2, 0)):
        server.wait_for_step(job, epoch)
        ranks = ranks_of(server)
        ranks[rank].kill()
        server.wait_for_state(job, "STOPPING")
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 3
    assert ended["restarts"] == 2
    assert weights(ended) == weights(undisturbed[2][0])
    events = list(server.events(job))
    steps_lost(events, INTERVAL)
    # What is told is how it died, not that another one missed it.
    reasons = [state.reason for state in of_kind(events, "state") if "RANK_LOST" in state.reason]
    assert sum("SIGKILL" in reason for reason in reasons) >= 2, reasons
    assert not any("has lost rank" in reason for reason in reasons), reasons


def test_a_pause_and_the_end_of_a_node_come_after_the_same_step_on_all_ranks(server, spec, undisturbed):
    job = server.submit(spec)
    server.wait_for_step(job)
    server.json("pause", job)
    server.wait_for_state(job, "PAUSED")
    assert server.processes() == []
    server.json("resume", job)
    server.wait_for_step(job, epoch=2)
    server.the_process("temper-worker").terminate()
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 3
    assert ended.get("restarts", 0) == 0
    assert weights(ended) == weights(undisturbed[2][0])
    events = list(server.events(job))
    assert [step.step for step in of_kind(events, "step")] == list(range(1, STEPS + 1))
    for resumption in of_kind(events, "resumption"):
        assert resumption.lost_steps == 0


@pytest.mark.parametrize("point", ["rank.checkpoint.before_commit@2", "rank.export.before_commit"])
def test_a_rank_that_dies_while_all_write_leaves_nothing(start_server, spec, undisturbed, tmp_path, point):
    (tmp_path / "marks").mkdir()
    faults = {"TEMPER_FAULT": point, "TEMPER_FAULT_DIR": str(tmp_path / "marks")}
    server = start_server(slots="cpu:2", environment=faults)
    ended = server.wait_for_end(server.submit(spec))
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert weights(ended) == weights(undisturbed[2][0])
    output = Path(ended["export_uri"]).parent
    assert {path.name for path in output.iterdir()} == {"checkpoints", "export-e0002"}
    for directory in [output / "export-e0002", *(output / "checkpoints").iterdir()]:
        manifest = json.loads((directory / "manifest.json").read_text())
        present = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
        assert present == {file["path"] for file in manifest["files"]} | {"manifest.json"}


DEEP = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 6}


def test_four_ranks_train_a_model_that_one_has_no_room_for(start_server, spec, tmp_path):
    """154 MB of weights, which training makes 616: as much data as a rank may have, its threads' stacks included."""
    tiny_chat_model.write_model(tmp_path / "deep", **DEEP)
    worker = tmp_path / "worker-with-a-limit"
    worker.write_text(f"#!/bin/sh\nulimit -d 620000\nexec '{BIN / 'temper-worker'}' \"$@\"\n")
    worker.chmod(0o755)
    server = start_server(slots="cpu:4", options=[f"--worker-binary={worker}"])
    spec["model"] = {"uri": str(tmp_path / "deep")}
    spec["training"] |= {"steps": 4, "tokens_per_step": 256, "micro_batch_tokens": 64}
    spec["checkpoints"] = {"every_steps": 2}
    found = {}
    for ranks in (1, 4):
        job = server.submit(spec | {"resources": spec["resources"] | {"ranks_per_node": ranks}})
        found[ranks] = server.wait_for_end(job)
    assert found[1]["state"] == "JOB_STATE_FAILED"
    assert found[1]["cause"] == "FAILURE_CAUSE_OUT_OF_MEMORY"
    assert found[4]["state"] == "JOB_STATE_SUCCEEDED", found[4]
    assert found[4]["checkpoint_step"] == "4"
    assert weights(found[4])


@pytest.mark.parametrize(
    "training",
    [{}, {"sharding": {"keep_weights": True, "reduce_once": True}}],
    ids=["usual", "weights and gradients kept"],
)
def test_a_preflight_knows_the_memory_of_two_ranks(server, spec, tmp_path, training):
    """Within 15 % of twice what rank 0 has had at most."""
    tiny_chat_model.write_model(tmp_path / "deep", **DEEP)
    (tmp_path / "text.jsonl").write_text(f"{json.dumps({'text': 'What colour is the lamp? ' * 200})}\n" * 8)
    spec |= {"model": {"uri": str(tmp_path / "deep")}, "data": {"uri": str(tmp_path / "text.jsonl")}}
    spec["training"] |= training | {"steps": 2, "tokens_per_step": 2048, "micro_batch_tokens": 512}
    del spec["checkpoints"]
    job = server.submit(spec)
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    peak = 2 * max(step.peak_memory_bytes for step in of_kind(server.events(job), "step"))
    report = server.temper("preflight", "-", "--output", "json", stdin=json.dumps(spec))
    memory = json.loads(report.stdout)["memory"]
    ratio = int(memory["total"]) / peak
    assert 0.85 <= ratio <= 1.15, f"{ratio:.3f} of {peak / 1e9:.2f} GB; {memory}"


def test_ranks_take_slots(start_server, spec):
    server = start_server(slots="cpu:1")
    job = server.submit(spec)
    wait_until(lambda: "needs 2 cpu slots, the server has 1" in server.get(job).get("reason", ""))
