# SPDX-License-Identifier: Apache-2.0
"""Processes die; jobs do not."""

import contextlib
import json
import signal
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from temper_server import wait_until


@pytest.fixture
def server(start_server):
    """gRPC looks after a channel that nobody waits for every 5 s. Here it never does: a node must not count on that to
    find its server again."""
    return start_server(environment={"GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "0"})


@pytest.fixture
def running_job(server, spec):
    """A job that takes a while, and has begun."""
    spec["training"]["steps"] = 400
    job = server.submit(spec)
    server.wait_for_step(job)
    return job


def test_rank_killed_restarts_the_job_and_counts_it(server, running_job):
    worker, rank = server.the_process("temper-worker"), server.the_process("temper-rank")
    rank.kill()
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert ended["restarts"] == 1
    assert not worker.is_running()
    assert ended["export_uri"].endswith("export-e0002")

    reasons = [e.state.reason for e in server.events(running_job) if e.WhichOneof("event") == "state"]
    assert any("RANK_LOST" in reason and "SIGKILL" in reason for reason in reasons), reasons

    # Where the time went: all of it is accounted for, what the kill cost included.
    spent = {key: value for key, value in ended["time_spent"].items() if isinstance(value, float | int)}
    created, until = (datetime.fromisoformat(ended[key]) for key in ("create_time", "end_time"))
    assert sum(spent.values()) == pytest.approx((until - created).total_seconds(), abs=1e-3)
    assert spent["lost"] > 0
    assert spent["queued"] > 0
    assert spent["other"] <= 0.02 * sum(spent.values())


def test_worker_killed_takes_its_rank_with_it_and_restarts_the_job(server, running_job):
    worker, rank = server.the_process("temper-worker"), server.the_process("temper-rank")
    worker.kill()
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert ended["restarts"] == 1
    assert not worker.is_running()
    assert not rank.is_running()


def test_worker_terminated_is_a_preemption_and_free(server, running_job):
    worker = server.the_process("temper-worker")
    run_dir = Path(worker.environ()["TEMPER_RUN_DIR"])
    worker.terminate()
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert ended.get("restarts", 0) == 0
    assert json.loads((run_dir / "exit.json").read_text())["exit_status"] == 6
    # It finished its step and committed a checkpoint: no step was taken twice.
    steps = [e.step.step for e in server.events(running_job) if e.WhichOneof("event") == "step"]
    assert steps == list(range(1, 401))


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_server_gone_for_a_while_is_not_noticed_by_the_training(server, running_job, end):
    gang = server.processes()
    assert len(gang) == 2
    rank = server.the_process("temper-rank")
    getattr(server, end)()
    before = rank.cpu_times().user
    wait_until(lambda: rank.cpu_times().user > before + 0.2)

    server.start()
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 1
    assert ended.get("restarts", 0) == 0
    events = list(server.events(running_job))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    steps = [event.step.step for event in events if event.WhichOneof("event") == "step"]
    assert steps == list(range(1, 401))
    psutil.wait_procs(gang, timeout=30)
    assert not any(process.is_running() for process in gang)


def test_server_killed_with_its_gang_starts_the_job_again(server, running_job):
    gang = server.processes()
    server.kill()
    for process in gang:
        process.kill()
    psutil.wait_procs(gang, timeout=30)
    server.start()
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2


def test_server_interrupted_stops_the_gang_which_keeps_its_progress(server, running_job):
    gang = server.processes()
    assert server.interrupt() == 0
    assert not any(process.is_running() for process in gang)
    server.start()
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert ended.get("restarts", 0) == 0
    resumption = next(e.resumption for e in server.events(running_job) if e.WhichOneof("event") == "resumption")
    assert resumption.step > 0
    assert resumption.lost_steps == 0


def test_server_killed_while_nothing_runs_still_knows_every_job(start_server, spec):
    server = start_server(slots="cpu:0")
    jobs = {server.submit(spec) for _ in range(3)}
    server.kill()
    server.start()
    assert {job["name"].removeprefix("jobs/") for job in server.json("list")["jobs"]} == jobs


def test_server_frozen_for_a_while_loses_no_step(server, running_job):
    server.process.send_signal(signal.SIGSTOP)
    rank = server.the_process("temper-rank")
    before = rank.cpu_times().user
    try:
        # The rank goes on without it.
        wait_until(lambda: rank.cpu_times().user > before + 0.2)
    finally:
        server.process.send_signal(signal.SIGCONT)
    ended = server.wait_for_end(running_job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 1
    steps = [event.step.step for event in server.events(running_job) if event.WhichOneof("event") == "step"]
    assert steps == list(range(1, 401))


def test_worker_leaves_an_account_of_its_end(server, endless_spec):
    job = server.submit(endless_spec)
    server.wait_for_step(job)
    run_dir = server.the_process("temper-worker").environ()["TEMPER_RUN_DIR"]
    server.json("cancel", job)
    server.wait_for_end(job)
    record = json.loads((Path(run_dir) / "exit.json").read_text())
    # The server's word and the launcher's signal race; whichever is first is the reason.
    account = (record["exit_status"], record["cause"], "cancel" in record["message"])
    assert account in [(3, "", True), (6, "PREEMPTED", False)]
    assert record["message"]


def test_disk_of_the_server_full_for_a_while_loses_nothing(start_server, spec):
    server = start_server(disk="size=16m")
    spec["training"]["steps"] = 400
    job = server.submit(spec)
    server.wait_for_step(job)
    rank = server.the_process("temper-rank")
    filler = server.on_disk("filler")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)

    def refused():
        result = server.temper("submit", "-", stdin=json.dumps(spec))
        return result if result.returncode != 0 else None

    results = []
    wait_until(lambda: results.append(refused()) or results[-1])
    assert results[-1].returncode == 6
    assert "database or disk is full" in results[-1].stderr
    assert rank.is_running()
    assert server.is_running

    filler.unlink()
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert (ended["epoch"], ended.get("restarts", 0)) == (1, 0)
    events = list(server.events(job))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.step.step for event in events if event.WhichOneof("event") == "step"] == list(range(1, 401))
    assert len(server.json("list")["jobs"]) == len(results)
