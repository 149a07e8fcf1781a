# SPDX-License-Identifier: Apache-2.0
"""Jobs whose model, data, checkpoints and export are all in a bucket, or whose model and data are on a hub."""

import hashlib
import json
from pathlib import Path

import pytest
from pyarrow import fs
from servers import storage_report
from servers.hub import Hub
from servers.s3_server import Versitygw
from servers.toxiproxy import Toxiproxy
from transformers import AutoModelForCausalLM

BUCKET = "s3://jobs"


@pytest.fixture
def storage(tmp_path, pristine_model, data):
    """A bucket with a model and data."""
    with Versitygw(tmp_path / "s3") as storage:
        storage.make_bucket("jobs")
        fs.copy_files(str(pristine_model), "jobs/model", fs.LocalFileSystem(), storage.files())
        fs.copy_files(str(data.parent), "jobs/data", fs.LocalFileSystem(), storage.files())
        yield storage


@pytest.fixture
def on_s3(spec):
    """A job of a few seconds with three checkpoints."""
    spec["model"] = {"uri": f"{BUCKET}/model"}
    spec["data"] = {"uri": f"{BUCKET}/data/*.jsonl"}
    spec["output"] = {"uri": f"{BUCKET}/output"}
    spec["training"] |= {"steps": 90, "tokens_per_step": 1024}
    spec["checkpoints"] = {"every_steps": 30, "keep_last": 2}
    return spec


def kind(event) -> str:
    return event.WhichOneof("event")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(storage: Versitygw, job: dict) -> dict[str, str]:
    """versitygw's buckets are directories."""
    export = storage.data / job["export_uri"].removeprefix("s3://")
    return {path.name: sha256_of(path) for path in export.glob("*.safetensors")}


def test_job_goes_on_from_storage_alone_and_its_export_is_what_a_disk_would_have(
    start_server, on_s3, storage, pristine_model, data, tmp_path, monkeypatch
):
    server = start_server(environment=storage.environment(), preflights=1, transformers=True)
    job = server.submit(on_s3)
    server.wait_for(job, lambda event: kind(event) == "checkpoint")
    server.the_process("temper-rank").kill()
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 2
    assert ended["export_uri"].startswith(f"{BUCKET}/output/{job}/export-")

    on_disk = on_s3 | {"model": {"uri": str(pristine_model)}, "data": {"uri": str(data)}}
    on_disk |= {"output": {"uri": str(tmp_path / "disk")}}
    undisturbed = server.wait_for_end(server.submit(on_disk))
    theirs = {path.name: sha256_of(path) for path in Path(undisturbed["export_uri"]).glob("*.safetensors")}
    assert weights(storage, ended) == theirs != {}

    # Streamed through the server, and nothing but what the manifest says.
    home = tmp_path / "home"
    result = server.temper("download", job, "--to", str(home))
    assert result.returncode == 0, result.stderr
    AutoModelForCausalLM.from_pretrained(home)
    assert {path.name: sha256_of(path) for path in home.glob("*.safetensors")} == theirs
    assert json.loads((home / "verification.json").read_text())["transformers"]["passed"]

    # Straight from the bucket, by who has its keys: the server sends nothing.
    direct = tmp_path / "direct"
    for name, value in (storage.environment() | {"AWS_ACCESS_KEY_ID": "nobody"}).items():
        monkeypatch.setenv(name, value)
    refused = server.temper("download", job, "--to", str(direct), "--direct")
    assert "AWS_ACCESS_KEY_ID" in refused.stderr
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", storage.environment()["AWS_ACCESS_KEY_ID"])
    result = server.temper("download", job, "--to", str(direct), "--direct")
    assert result.returncode == 0, result.stderr
    assert {path.name: sha256_of(path) for path in direct.iterdir()} == {
        path.name: sha256_of(path) for path in home.iterdir()
    }

    # A server that knows nothing of the job: the bucket is all it takes.
    first = server.json("checkpoints", job)["checkpoints"][-1]["uri"]
    assert first.startswith(BUCKET)
    other = start_server(environment=storage.environment())
    resumed = other.wait_for_end(other.submit(on_s3 | {"output": {"uri": f"{BUCKET}/other"}}, f"--resume-from={first}"))
    assert resumed["state"] == "JOB_STATE_SUCCEEDED", resumed
    assert weights(storage, resumed) == theirs
    storage_report.add("versitygw", "whole job, killed and resumed from storage alone", True)


def test_gang_outlives_a_store_that_is_gone_for_a_moment(start_server, on_s3, storage, tmp_path):
    with Toxiproxy(tmp_path) as toxiproxy:
        proxy = toxiproxy.proxy(storage.port)
        server = start_server(environment=storage.environment(f"http://{proxy.address}"), slots="cpu:2")
        on_s3["resources"]["ranks_per_node"] = 2
        on_s3["training"] |= {"steps": 60, "tokens_per_step": 512}
        on_s3["checkpoints"] = {"every_steps": 20}
        job = server.submit(on_s3)
        server.wait_for(job, lambda event: kind(event) == "step" and event.step.step >= 15)
        proxy.cut()
        server.wait_for(job, lambda event: kind(event) == "step" and event.step.step >= 25)
        proxy.heal()
        ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 1
    storage_report.add("versitygw", "job of two ranks whose store is gone for a moment", True)


def test_wrong_keys_end_a_job_with_what_to_do(start_server, on_s3, storage):
    server = start_server(environment=storage.environment() | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    ended = server.wait_for_end(server.submit(on_s3))
    assert ended["state"] == "JOB_STATE_FAILED", ended
    assert ended["cause"] == "FAILURE_CAUSE_USER_INPUT", ended
    assert "AWS_SECRET_ACCESS_KEY" in ended["reason"]
    storage_report.add("versitygw", "job with wrong keys", True)


def test_model_and_data_of_a_hub_stay_at_the_commit_that_the_job_began_with(
    start_server, spec, pristine_model, data, tmp_path
):
    spec["training"] |= {"steps": 90, "tokens_per_step": 1024}
    spec["checkpoints"] = {"every_steps": 30, "keep_last": 2}
    on_hub = spec | {"model": {"uri": "hf://org/tiny"}, "data": {"uri": "hf://datasets/org/chats/train/*.jsonl"}}
    with Hub() as hub:
        model = hub.push("org/tiny", {path.name: path.read_bytes() for path in pristine_model.iterdir()}, private=True)
        chats = hub.push("datasets/org/chats", {f"train/{data.name}": data.read_bytes()})
        environment = hub.environment() | {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub.token}
        server = start_server(environment=environment, preflights=1)
        job = server.submit(on_hub)
        server.wait_for(job, lambda event: kind(event) == "checkpoint")
        hub.push("org/tiny", {"config.json": b"{}"})
        hub.push("datasets/org/chats", {"train/train.jsonl": b"not JSON"})
        server.the_process("temper-rank").kill()
        ended = server.wait_for_end(job)
        assert (ended["state"], ended["epoch"]) == ("JOB_STATE_SUCCEEDED", 2), ended
        assert ended["spec"]["model"]["uri"] == f"hf://org/tiny@{model}"
        assert ended["spec"]["data"]["uri"] == f"hf://datasets/org/chats@{chats}/train/*.jsonl"
        nowhere = on_hub | {"model": {"uri": "hf://org/none"}}
        assert "no such repository" in server.temper("submit", "-", stdin=json.dumps(nowhere)).stderr
    undisturbed = server.wait_for_end(server.submit(spec))
    files = [
        {path.name: sha256_of(path) for path in Path(job["export_uri"]).glob("*.safetensors")}
        for job in (ended, undisturbed)
    ]
    assert files[0] == files[1] != {}
    storage_report.add("loopback hub", "whole job, killed and resumed after the branch moved", True)
