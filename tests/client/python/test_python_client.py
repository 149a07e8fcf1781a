# SPDX-License-Identifier: Apache-2.0
"""`temper.Client` against a real server."""

import hashlib
import shutil
import sys
import threading
from pathlib import Path

import grpc
import pytest
import temper


def digests(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def until_paused(job):
    for event in job.events():
        if event.state.state == temper.v1.training_service_pb2.JOB_STATE_PAUSED:
            return


def test_submit_follow_download(client, spec, tmp_path):
    job = client.submit(spec, job_id="first")
    assert (job.id, job.name, job.state) == ("first", "jobs/first", "queued")
    events = list(job.events())
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert job.state is temper.State.SUCCEEDED
    assert job.wait() is temper.State.SUCCEEDED
    assert job.info.last_sequence == len(events)
    assert [event.sequence for event in job.events(after=10)] == list(range(11, len(events) + 1))

    seen = []
    result = job.download(tmp_path / "home", progress=seen.append)
    exported = digests(tmp_path / "output/first/export-e0001")
    del exported["manifest.json"]
    assert digests(tmp_path / "home") == exported
    assert result.files == len(exported)
    assert result.received_bytes == result.bytes == seen[-1].done_bytes == seen[-1].total_bytes


def test_preflight_looks_and_trains_nothing(client, spec, tmp_path):
    job = client.submit(spec, job_id="looked-at", preflight_only=True)
    assert job.wait() is temper.State.SUCCEEDED
    assert job.info.preflight.samples[0].tokens
    assert job.metrics() == []
    assert not (tmp_path / "output/looked-at").exists()


def test_upload_sends_the_files_of_this_machine_once(client, spec, inputs, tmp_path):
    spec["validation"] = {"uri": shutil.copy(inputs / "train.jsonl", tmp_path / "held out.jsonl")}
    spec["data"] = {"sources": [{"uri": shutil.copy(inputs / "train.jsonl", tmp_path / "a.jsonl")}]}
    job = client.submit(spec, preflight_only=True, upload=True)
    (source,) = job.info.spec.data.sources
    assert source.uri.endswith("/a.jsonl")
    assert source.uri != str(tmp_path / "a.jsonl")
    assert hashlib.sha256(Path(source.uri).read_bytes()).hexdigest() == Path(source.uri).parent.name
    assert job.info.spec.validation.uri.endswith("/held out.jsonl")
    assert job.wait() is temper.State.SUCCEEDED
    written = Path(source.uri).stat().st_mtime_ns
    assert client.submit(spec, preflight_only=True, upload=True).info.spec == job.info.spec
    assert Path(source.uri).stat().st_mtime_ns == written


def test_upload_leaves_data_in_a_bucket(client, spec):
    spec = spec | {"data": {"uri": "s3://bucket/train.jsonl"}}
    job = client.submit(spec, preflight_only=True, upload=True)
    assert job.info.spec.data.uri == "s3://bucket/train.jsonl"


def test_upload_of_what_is_no_file(client, spec, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.submit(spec | {"data": {"uri": tmp_path / "none.jsonl"}}, upload=True)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(temper.InvalidJob, match="an empty file has no samples") as caught:
        client.submit(spec | {"data": {"uri": tmp_path / "empty.jsonl"}}, upload=True)
    assert [violation.field for violation in caught.value.violations] == ["data.uri"]


def test_list_by_owner_and_label(client, spec):
    for owner, team in (("ana", "red"), ("ana", "blue"), ("bob", "red")):
        client.submit(spec | {"owner": owner, "labels": {"team": team}}, preflight_only=True)
    assert [job.info.spec.labels["team"] for job in client.list(owner="ana")] == ["blue", "red"]
    assert [job.info.spec.owner for job in client.list(labels={"team": "red"})] == ["bob", "ana"]
    assert list(client.list(owner="ana", labels={"team": "green"})) == []


def test_metrics_have_every_step(client, finished):
    job = client.get(finished)
    steps = job.metrics()
    assert [step.step for step in steps] == list(range(1, 21))
    assert steps[-1] == job.info.latest_step
    assert steps[-1].loss < steps[0].loss
    assert [step.step for step in job.metrics(max_points=4)] == [1, 8, 15, 20]


def test_metrics_of_a_running_job_do_not_wait_for_its_end(client, endless_spec):
    job = client.submit(endless_spec)
    next(event for event in job.events() if event.HasField("step"))
    assert job.metrics()[0].step == 1
    assert job.refresh().state is temper.State.RUNNING


def test_frame_needs_pandas_and_says_so(client, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'temper-client\[pandas\]'"):
        client.get(finished).to_pandas()


def test_frame_has_a_row_a_step(client, finished):
    job = client.get(finished)
    frame = job.to_pandas()
    assert frame.index.name == "step"
    assert list(frame.index) == list(range(1, 21))
    assert list(frame["loss"]) == [step.loss for step in job.metrics()]
    assert frame["phases.forward"].dtype == frame["loss"].dtype == "float64"
    assert str(frame["time"].dt.tz) == "UTC"
    assert frame["time"].is_monotonic_increasing


@pytest.mark.parametrize("partial", ["half", "wrong", "too long"])
def test_interrupted_download_goes_on(client, finished, tmp_path, partial):
    job = client.get(finished)
    whole = job.download(tmp_path / "whole")
    content = (tmp_path / "whole/model.safetensors").read_bytes()
    home = tmp_path / "home"
    home.mkdir()
    half = len(content) // 2
    found = {"half": content[:half], "wrong": bytes(half), "too long": content + b"x"}[partial]
    (home / "model.safetensors.part").write_bytes(found)
    (home / "config.json").write_bytes((tmp_path / "whole/config.json").read_bytes())
    result = job.download(home)
    assert digests(home) == digests(tmp_path / "whole")
    received = {"half": len(content) - half, "wrong": 2 * len(content) - half, "too long": len(content)}[partial]
    there = (home / "config.json").stat().st_size
    assert result.received_bytes == whole.bytes - there - len(content) + received
    assert job.download(home).received_bytes == 0


def test_download_that_is_interrupted_leaves_no_file_under_its_name(client, finished, tmp_path):
    def interrupt(progress):
        if progress.path == "model.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.get(finished).download(tmp_path, progress=interrupt)
    assert (tmp_path / "model.safetensors.part").exists()
    assert not (tmp_path / "model.safetensors").exists()
    client.get(finished).download(tmp_path)
    assert list(tmp_path.rglob("*.part")) == []


def test_damaged_export_is_data_loss(client, finished, copied_export, tmp_path):
    (copied_export / "config.json").write_bytes(b"{}")
    with pytest.raises(temper.DataLoss, match=r"config.json: what the server sends has the SHA-256"):
        client.get(finished).download(tmp_path / "home")
    assert not (tmp_path / "home/config.json").exists()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_events_go_on_when_the_server_comes_back(client, server, endless_spec, how):
    job = client.submit(endless_spec)
    sequences = []
    restarted = None  # the last event before
    for event in job.events():
        sequences.append(event.sequence)
        if event.step.step == 3:
            getattr(server, how)()
            server.start()
            restarted = job.refresh().info.last_sequence
        elif restarted is not None and event.sequence == restarted + 3:
            job.cancel()
    assert sequences == list(range(1, len(sequences) + 1))
    assert job.state is temper.State.CANCELLED


def test_wait_outlives_the_server(client, server, endless_spec, monkeypatch):
    job = client.submit(endless_spec)
    next(event for event in job.events() if event.HasField("step"))
    waiting = threading.Event()
    stream = client._stream
    monkeypatch.setattr(client, "_stream", lambda *arguments: (waiting.set(), stream(*arguments))[1])
    states = []
    waiter = threading.Thread(target=lambda: states.append(job.wait(check=False)))
    waiter.start()
    assert waiting.wait(30)
    server.kill()
    server.start()
    client.get(job.id).cancel()
    waiter.join()
    assert states == ["cancelled"]


def test_wait_gives_up_in_time(client, endless_spec):
    job = client.submit(endless_spec)
    with pytest.raises(TimeoutError, match=r"has not ended within 0.2 s") as error:
        job.wait(timeout=0.2)
    assert isinstance(error.value, temper.DeadlineExceeded)


def test_pause_resume_checkpoints_delete(client, long_spec, tmp_path):
    job = client.submit(long_spec)
    next(event for event in job.events() if event.HasField("step"))
    job.pause()
    until_paused(job)
    assert job.state is temper.State.PAUSED
    (paused,) = job.checkpoints()[:1]
    result = job.download(tmp_path / "checkpoint", checkpoint=paused)
    assert result.bytes > paused.size_bytes  # which leaves the manifest out
    assert (tmp_path / "checkpoint/manifest.json").exists()
    assert (tmp_path / "checkpoint/weights/model.safetensors").exists()
    with pytest.raises(temper.FailedPrecondition, match="has no export yet"):
        job.download(tmp_path / "home")
    with pytest.raises(temper.FailedPrecondition, match="cancel it first"):
        job.delete()

    job.resume()
    assert job.wait() == "succeeded"
    assert [step.step for step in job.metrics()] == list(range(1, 201))
    assert [checkpoint.step for checkpoint in job.checkpoints()] == [200, 150]
    with pytest.raises(temper.NotFound, match="has no checkpoint 77"):
        job.download(tmp_path / "none", checkpoint=77)

    other = client.submit(long_spec, resume_from=tmp_path / "checkpoint")
    resumption = next(event.resumption for event in other.events() if event.HasField("resumption"))
    assert resumption.step == paused.step
    other.cancel()
    with pytest.raises(temper.JobFailed, match="CANCELLED") as failure:
        other.wait()
    assert failure.value.state is temper.State.CANCELLED

    job.delete()
    with pytest.raises(temper.NotFound):
        job.refresh()


def test_job_that_fails_says_why(client, spec, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    spec["data"]["uri"] = tmp_path / "bad.jsonl"
    job = client.submit(spec)
    with pytest.raises(temper.JobFailed, match=r"FAILED \(USER_INPUT\): .*bad.jsonl") as failure:
        job.wait()
    assert failure.value.reason == job.cause == "USER_INPUT"
    assert job.wait(check=False) is temper.State.FAILED


def test_list_pages_by_itself(client, finished, spec):
    job = client.submit(spec).cancel()
    request = temper.v1.training_service_pb2.ListJobsRequest(page_size=1)
    all_jobs = [job.id for job in client.list()]
    assert {job.id, finished} <= set(all_jobs)
    assert [job.id for job in client._pages(request)] == all_jobs
    assert finished in [job.id for job in client.list(states=["succeeded"])]
    assert finished not in [job.id for job in client.list(states=[temper.State.FAILED])]
    with pytest.raises(ValueError, match="happy"):
        client.list(states=["happy"])


def test_same_request_id_creates_one_job(client, spec):
    request_id = "123e4567-e89b-42d3-a456-426614174000"
    first = client.submit(spec, request_id=request_id)
    assert client.submit(spec, request_id=request_id).id == first.id
    spec["training"]["steps"] = 61
    with pytest.raises(temper.AlreadyExists, match="request_id"):
        client.submit(spec, request_id=request_id)


def test_bad_job_names_the_field(client, spec):
    spec["training"]["learning_rate"] = 3
    with pytest.raises(temper.InvalidJob, match=r"training.learning_rate: must be") as error:
        client.submit(spec)
    (violation,) = error.value.violations
    assert violation.field == "training.learning_rate"
    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_bad_job_file_names_the_line(client, tmp_path):
    (tmp_path / "job.yaml").write_text(
        "model: {uri: model}\ndata: {uri: d}\noutput: {uri: o}\ntraining:\n  steps: 5\n  learning_rate: 3\n"
    )
    with pytest.raises(temper.InvalidJob, match=r"job.yaml:6: training.learning_rate: must be"):
        client.submit(tmp_path / "job.yaml")


def test_unknown_job_is_not_found(client):
    with pytest.raises(temper.NotFound, match="there is no jobs/nobody") as error:
        client.get("nobody")
    assert error.value.reason == "JOB_NOT_FOUND"
    assert isinstance(error.value, temper.TemperError)


def test_unreachable_server_is_unavailable():
    with temper.Client("127.0.0.1:1") as client, pytest.raises(temper.Unavailable, match="127.0.0.1:1"):
        client.get("a")


def test_defaults_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("TEMPER_SERVER", raising=False)
    assert temper.Client().address == "127.0.0.1:8470"
    monkeypatch.setenv("TEMPER_SERVER", "localhost:1")
    monkeypatch.setenv("TEMPER_TOKEN", "secret")
    client = temper.Client()
    assert client.address == "localhost:1"
    assert client._connection.metadata == (("authorization", "Bearer secret"),)
    assert "secret" not in repr(client._connection)


def test_states_are_those_of_the_protocol():
    names = temper.v1.training_service_pb2.JobState.keys()
    assert [f"JOB_STATE_{state.name}" for state in temper.State] == names
    assert temper.State.of(1000) is temper.State.UNSPECIFIED


def test_calls_are_those_of_the_protocol():
    methods = {
        method.name: method for method in vars(temper._calls).values() if isinstance(method, temper._calls.Method)
    }
    service = temper.v1.training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"]
    assert {name: (m.request.DESCRIPTOR, m.response.DESCRIPTOR) for name, m in methods.items()} == {
        method.name: (method.input_type, method.output_type) for method in service.methods
    }
