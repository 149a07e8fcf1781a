# SPDX-License-Identifier: Apache-2.0
"""What must be true of a job that something has happened to, and of all that it has left."""

import hashlib
import json
import re
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from temper_server import ENDED, Server, steps_lost, wait_until

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Undisturbed:
    """The job when nothing happens to it."""

    weights: dict[str, str]  # digests by file
    tokens: int
    steps: int


def declared_points() -> set[str]:
    declared = set()
    for folder in ("client", "common", "server", "worker"):
        for source in [*(ROOT / folder).rglob("*.cc"), *(ROOT / folder).rglob("*.h")]:
            declared |= set(re.findall(r'\bFaultPoint\("([^"]+)"\)', source.read_text()))
    return declared


def digests(export: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in export.glob("*.safetensors")}


def run_undisturbed(server: Server, spec: dict) -> Undisturbed:
    ended = server.wait_for_end(server.submit(spec))
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    return Undisturbed(
        digests(Path(ended["export_uri"])), int(ended["latest_step"]["total_tokens"]), int(ended["latest_step"]["step"])
    )


def counter(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


def submit(server: Server, spec: dict, job: str) -> None:
    """To a server that may die of it; it is started again then."""
    request = server.protos.training_service.CreateJobRequest(job_id=job)
    json_format.ParseDict(spec, request.job.spec)
    try:
        server.stub.CreateJob(request, timeout=60)
    except grpc.RpcError:
        server.process.wait(timeout=30)
        server.start()
        if server.temper("get", job).returncode != 0:  # it died before the job was on disk
            server.stub.CreateJob(request, timeout=60)


def look(server: Server, job: str):
    """The job; None if the server does not answer. One that is dead is started again."""
    if not server.is_running:
        server.process.wait()
        server.start()
    try:
        return server.stub.GetJob(server.protos.training_service.GetJobRequest(name=f"jobs/{job}"), timeout=2)
    except grpc.RpcError:
        return None


def has_ended(server: Server, job) -> bool:
    return server.protos.training_service.JobState.Name(job.state) in ENDED


def wait_for_end(server: Server, job: str, timeout: float = 120) -> dict:
    """As Server.wait_for_end, of a server that may die meanwhile."""
    wait_until(lambda: (found := look(server, job)) is not None and has_ended(server, found), timeout)
    return server.get(job)


def of_kind(events, kind: str) -> list:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


def lost_steps(events) -> int:
    return sum(resumption.lost_steps for resumption in of_kind(events, "resumption"))


def check_time(server: Server, ended: dict) -> None:
    """All of it is accounted for, whatever gangs and servers it went to; `ended` is the server's only job."""
    created, until = (datetime.fromisoformat(ended[key]) for key in ("create_time", "end_time"))
    seconds = pytest.approx((until - created).total_seconds(), abs=1e-3)
    assert sum(value for value in ended["time_spent"].values() if isinstance(value, float | int)) == seconds
    assert counter(server, "temper_job_time_seconds_total") == seconds


def check_survival(
    server: Server,
    job: str,
    undisturbed: Undisturbed,
    output: Path,
    interval: int | None,
    keep_last: int = 2,
    same_server: bool = False,
) -> None:
    """It succeeded, and every step counts once; its files are whole, and there are no others. `interval`: steps between
    its checkpoints, if they took less time than that. `same_server`: it was never started anew."""
    ended = server.get(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    export = Path(ended["export_uri"])
    export = output / export.relative_to(export.parents[1])
    assert digests(export) == undisturbed.weights
    assert server.processes() == []  # no orphan
    check_time(server, ended)

    # Nothing is lost or repeated: the log has no gap, and each gang's steps are consecutive.
    events = list(server.events(job))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    steps = [step.step for step in of_kind(events, "step")]
    assert all(b == a + 1 or b <= a for a, b in zip(steps, steps[1:], strict=False)), steps
    assert len(steps) == undisturbed.steps + lost_steps(events)
    if interval is not None:
        assert lost_steps(events) == steps_lost(events, interval)
    assert int(ended["latest_step"]["total_tokens"]) == undisturbed.tokens
    counted = counter(server, "temper_train_tokens_total")
    assert counted == undisturbed.tokens if same_server else counted <= undisturbed.tokens

    # No stray file: what was committed, and nothing else.
    assert {path.name for path in (output / job).iterdir()} == {"checkpoints", export.name}
    checkpoints = list((output / job / "checkpoints").iterdir())
    assert 1 <= len(checkpoints) <= keep_last, checkpoints
    for directory in [export, *checkpoints]:
        manifest = json.loads((directory / "manifest.json").read_text())
        present = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
        assert present == {file["path"] for file in manifest["files"]} | {"manifest.json"}
        for file in manifest["files"]:
            assert hashlib.sha256((directory / file["path"]).read_bytes()).hexdigest() == file["sha256"], file
