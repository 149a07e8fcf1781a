# SPDX-License-Identifier: Apache-2.0
"""Kills each process at each declared point (common/fault_point.h) and looks whether the job shrugs.

A run of all points writes build/reports/interruptions.json.
"""

import json
from pathlib import Path

import psutil
import pytest
import selection
from survival import (
    ROOT,
    check_survival,
    declared_points,
    digests,
    lost_steps,
    of_kind,
    run_undisturbed,
    submit,
    wait_for_end,
)
from temper_server import Server, wait_until

STEPS = 40
INTERVAL = 10
# So many that a checkpoint is written before the next one is due, which would wait otherwise.
TOKENS_PER_STEP = 4096

# Where, and which time: in the middle of things.
POINTS = [
    "rank.preflight.before_report",
    "rank.step.before_update@15",
    "rank.step.reported@15",
    "rank.file.written@12",
    "rank.checkpoint.snapshot_taken@2",
    "rank.checkpoint.weights_written@2",
    "rank.checkpoint.before_commit@2",
    "rank.checkpoint.committed@2",
    "rank.checkpoint.before_removal",
    "rank.export.model_written",
    "rank.export.before_commit",
    "rank.export.committed",
    "worker.rank.started",
    "worker.report.received@20",
    "worker.report.acknowledged@5",
    "worker.end.before_report",
    "server.launch.before",
    "server.launch.after",
    "server.commit.before@8",
    "server.commit.after@8",
]
# Only several ranks get there; test_chaos.py kills them, too.
POINTS_OF_SEVERAL_RANKS = ["rank.rendezvous.store_opened", "rank.rendezvous.done"]


def test_every_declared_point_is_tested():
    assert declared_points() == {point.split("@")[0] for point in POINTS + POINTS_OF_SEVERAL_RANKS}


@pytest.fixture
def job_spec(spec):
    spec["training"] |= {"steps": STEPS, "tokens_per_step": TOKENS_PER_STEP}
    spec["checkpoints"] = {"every_steps": INTERVAL, "keep_last": 2}
    return spec


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, protos, pristine_model, data):
    directory = tmp_path_factory.mktemp("undisturbed")
    server = Server(directory / "server", protos)
    try:
        spec = {
            "model": {"uri": str(pristine_model)},
            "data": {"uri": str(data)},
            "training": {
                "steps": STEPS,
                "tokens_per_step": TOKENS_PER_STEP,
                "micro_batch_tokens": 256,
                "learning_rate": 5e-3,
                "precision": "PRECISION_FP32",
            },
            "resources": {"threads_per_rank": 1},
            "output": {"uri": str(directory / "output")},
            "checkpoints": {"every_steps": INTERVAL, "keep_last": 2},
        }
        return run_undisturbed(server, spec)
    finally:
        assert server.interrupt() == 0


@pytest.fixture(scope="module")
def report(request):
    rows = []
    yield rows
    if not selection.is_whole(request):
        return
    path = ROOT / "build/reports/interruptions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")


@pytest.mark.parametrize("point", POINTS)
def test_process_killed_at(point, start_server, job_spec, tmp_path, undisturbed, report):
    marks = tmp_path / "marks"
    marks.mkdir()
    server = start_server(
        environment={"TEMPER_FAULT": point, "TEMPER_FAULT_DIR": str(marks)},
        preflights=int("preflight" in point),
    )
    first = server.process.pid
    submit(server, job_spec, "victim")
    ended = wait_for_end(server, "victim")

    name = point.split("@")[0]
    assert (marks / name).exists(), "the point was never reached"
    row = {
        "process": name.split(".")[0],
        "point": name,
        "survived": ended["state"] == "JOB_STATE_SUCCEEDED",
        "weights_identical": digests(Path(ended.get("export_uri", "none"))) == undisturbed.weights,
        "steps_lost": lost_steps(server.events("victim")),
    }
    report.append(row)
    output = Path(job_spec["output"]["uri"])
    check_survival(server, "victim", undisturbed, output, INTERVAL, same_server=server.process.pid == first)
    if row["process"] == "server" and name != "server.launch.before":
        assert ended["epoch"] == 1  # adopted


def test_steps_that_no_server_heard_are_told_by_the_gang_that_goes_on_from_them(start_server, job_spec, undisturbed):
    output = Path(job_spec["output"]["uri"])
    server = start_server()
    submit(server, job_spec, "victim")
    server.wait_for_step("victim")
    gang = server.processes()
    server.kill()
    committed = (output / "victim/checkpoints").glob
    wait_until(lambda: any(path.parent.name > f"step-{INTERVAL + 1:08}" for path in committed("*/manifest.json")))
    for process in gang:
        process.kill()
    psutil.wait_procs(gang, timeout=30)
    server.start()
    wait_for_end(server, "victim")
    events = list(server.events("victim"))
    assert [step.step for step in of_kind(events, "step")] == list(range(1, STEPS + 1))
    assert [resumption.step > INTERVAL for resumption in of_kind(events, "resumption")] == [True]
    check_survival(server, "victim", undisturbed, output, INTERVAL)
