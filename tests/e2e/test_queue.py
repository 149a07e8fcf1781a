# SPDX-License-Identifier: Apache-2.0
import copy

import grpc
import pytest


def test_jobs_start_by_priority_then_age_and_say_why_they_wait(start_server, endless_spec):
    server = start_server(slots="cpu:1")
    blocker = server.submit(endless_spec, "--job-id=blocker")
    server.wait_for_step(blocker)

    short = copy.deepcopy(endless_spec)
    short["training"]["steps"] = 1
    for job, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 5)):
        server.submit(short | {"priority": priority}, f"--job-id={job}")
    for job in ("low", "first", "second", "high"):
        waiting = server.get(job)
        assert waiting["state"] == "JOB_STATE_QUEUED"
        assert waiting["reason"] == "waiting for 1 cpu slot: 1 of 1 in use by jobs/blocker"

    server.json("cancel", blocker)
    ended = [server.wait_for_end(job) for job in ("low", "first", "second", "high")]
    assert all(job["state"] == "JOB_STATE_SUCCEEDED" for job in ended), ended
    order = sorted(ended, key=lambda job: job["start_time"])
    assert [job["name"] for job in order] == ["jobs/high", "jobs/first", "jobs/second", "jobs/low"]


def test_two_slots_run_two_jobs_at_once(start_server, endless_spec):
    server = start_server(slots="cpu:2")
    jobs = [server.submit(endless_spec) for _ in range(2)]
    for job in jobs:
        server.wait_for_step(job)
    assert len(server.processes("temper-rank")) == 2
    for job in jobs:
        server.json("cancel", job)
        server.wait_for_end(job)


@pytest.fixture
def idle_server(start_server):
    """One that starts nothing."""
    return start_server(slots="cpu:0")


def test_list_pages_newest_first_without_gaps_or_repeats(idle_server, protos, spec):
    created = [idle_server.submit(spec, f"--job-id=job-{i}") for i in range(5)]
    messages = protos.training_service
    names, sizes, token = [], [], ""
    while True:
        page = idle_server.stub.ListJobs(messages.ListJobsRequest(page_size=2, page_token=token), timeout=10)
        names += [job.name for job in page.jobs]
        sizes.append(len(page.jobs))
        token = page.next_page_token
        if not token:
            break
    assert names == [f"jobs/{job}" for job in reversed(created)]
    assert sizes == [2, 2, 1]
    assert [job["name"] for job in idle_server.json("list", "--limit", "3")["jobs"]] == names[:3]


def test_list_filters_by_state(idle_server, spec):
    kept = idle_server.submit(spec)
    cancelled = idle_server.submit(spec)
    idle_server.json("cancel", cancelled)

    def listed(state):
        return [job["name"] for job in idle_server.json("list", "--state", state).get("jobs", [])]

    assert listed("queued") == [f"jobs/{kept}"]
    assert listed("cancelled") == [f"jobs/{cancelled}"]
    assert listed("running") == []


@pytest.mark.parametrize("request_fields", [{"page_token": "nonsense"}, {"page_size": -1}, {"page_size": 1001}])
def test_list_refuses_what_makes_no_sense(idle_server, protos, request_fields):
    with pytest.raises(grpc.RpcError) as error:
        idle_server.stub.ListJobs(protos.training_service.ListJobsRequest(**request_fields), timeout=10)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(request_fields)) in error.value.details()
