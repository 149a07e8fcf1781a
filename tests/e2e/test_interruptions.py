# SPDX-License-Identifier: Apache-2.0
"""Kills each process at each declared point (common/fault_point.h) and looks whether the job shrugs.

A run of all points writes build/reports/interruptions.json.
"""

import hashlib
import json
import re
import urllib.request
from pathlib import Path

import pytest
import selection
from temper_server import steps_lost, wait_until

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
INTERVAL = 10
# So many that a checkpoint is written before the next one is due, which would wait otherwise.
TOKENS_PER_STEP = 4096

# Where, and which time: in the middle of things.
POINTS = [
    "rank.preflight.before_report",
    "rank.step.before_update@15",
    "rank.step.reported@15",
    "rank.checkpoint.snapshot_taken@2",
    "rank.checkpoint.weights_written@2",
    "rank.checkpoint.before_commit@2",
    "rank.checkpoint.committed@2",
    "rank.checkpoint.before_removal",
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


def test_every_declared_point_is_tested():
    declared = set()
    for folder in ("client", "common", "server", "worker"):
        for source in [*(ROOT / folder).rglob("*.cc"), *(ROOT / folder).rglob("*.h")]:
            declared |= set(re.findall(r'\bFaultPoint\("([^"]+)"\)', source.read_text()))
    assert declared == {point.split("@")[0] for point in POINTS}


@pytest.fixture
def job_spec(spec):
    spec["training"] |= {"steps": STEPS, "tokens_per_step": TOKENS_PER_STEP}
    spec["checkpoints"] = {"every_steps": INTERVAL, "keep_last": 2}
    return spec


def digests(export: Path) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in export.glob("*.safetensors")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, protos, pristine_model, data):
    """The weights and the number of tokens of the job when nothing happens to it."""
    from temper_server import Server

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
        ended = server.wait_for_end(server.submit(spec))
        assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
        return digests(Path(ended["export_uri"])), int(ended["latest_step"]["total_tokens"])
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


def counter(server, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


def wait_for_end(server, job: str) -> dict:
    """As Server.wait_for_end, of a server that may die meanwhile; it is started again then."""

    def ended() -> bool:
        if not server.is_running:
            server.process.wait()
            server.start()
        result = server.temper("get", job, "--output", "json")
        return result.returncode == 0 and json.loads(result.stdout)["state"] in (
            "JOB_STATE_SUCCEEDED",
            "JOB_STATE_FAILED",
        )

    wait_until(ended, timeout=120)
    return server.get(job)


@pytest.mark.parametrize("point", POINTS)
def test_process_killed_at(point, start_server, job_spec, tmp_path, undisturbed, report):
    marks = tmp_path / "marks"
    marks.mkdir()
    server = start_server(
        environment={"TEMPER_FAULT": point, "TEMPER_FAULT_DIR": str(marks)}, preflights=int("preflight" in point)
    )
    first = server.process.pid
    try:
        job = server.submit(job_spec, "--job-id=victim")
    except AssertionError:  # it died while it answered
        server.process.wait()
        server.start()
        job = "victim"
        server.get(job)
    ended = wait_for_end(server, job)
    assert server.processes() == []  # no orphan

    name = point.split("@")[0]
    assert (marks / name).exists(), "the point was never reached"
    events = list(server.events(job))
    export = Path(ended.get("export_uri", "none"))
    lost = sum(event.resumption.lost_steps for event in events if event.WhichOneof("event") == "resumption")
    weights, tokens = undisturbed
    row = {
        "process": name.split(".")[0],
        "point": name,
        "survived": ended["state"] == "JOB_STATE_SUCCEEDED",
        "weights_identical": digests(export) == weights,
        "steps_lost": lost,
    }
    report.append(row)
    assert row["survived"], ended
    assert row["weights_identical"]
    assert lost == steps_lost(events, INTERVAL)

    # Nothing is lost or repeated: the log has no gap, and each gang's steps are consecutive.
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    steps = [event.step.step for event in events if event.WhichOneof("event") == "step"]
    assert all(b == a + 1 or b <= a for a, b in zip(steps, steps[1:], strict=False)), steps
    assert len(steps) == STEPS + lost
    assert int(ended["latest_step"]["total_tokens"]) == tokens
    counted = counter(server, "temper_train_tokens_total")
    assert counted == tokens if server.process.pid == first else counted <= tokens
    if row["process"] == "server" and name != "server.launch.before":
        assert ended["epoch"] == 1  # adopted

    # No stray file: what was committed, and nothing else.
    output = Path(job_spec["output"]["uri"]) / job
    assert {path.name for path in output.iterdir()} == {"checkpoints", export.name}
    checkpoints = list((output / "checkpoints").iterdir())
    assert 1 <= len(checkpoints) <= 2
    for directory in [export, *checkpoints]:
        manifest = json.loads((directory / "manifest.json").read_text())
        present = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
        assert present == {file["path"] for file in manifest["files"]} | {"manifest.json"}
