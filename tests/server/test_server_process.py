# SPDX-License-Identifier: Apache-2.0
"""temper-server as a process: addresses, signals, errors at start, health and reflection."""

import json
import re
import signal
import subprocess

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from temper_process import BIN, JOB, LIMIT, ROOT, Node, Server, wait_for


def start_badly(*options):
    """(exit status, standard error) of a server that can't start."""
    defaults = {"--listen": "127.0.0.1:0", "--http": "127.0.0.1:0", "--worker-binary": "/bin/true"}
    command = [BIN / "temper-server", *map(str, options)]
    for option, value in defaults.items():
        command += [] if option in options else [option, value]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    return result.returncode, result.stderr


def test_health_and_reflection(server):
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "temper.v1.TrainingService", "temper.v1.WorkerService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"temper.v1.TrainingService", "temper.v1.WorkerService", "grpc.health.v1.Health"} <= set(services)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_in_order(tmp_path, by):
    server = Server(tmp_path).start()
    assert json.loads((server.data / "address.json").read_text())["pid"] == server.process.pid
    server.process.send_signal(by)
    assert server.process.wait(LIMIT) == 0
    assert not (server.data / "address.json").exists()


def test_stop_with_a_gang_queues_its_job_again_uncharged(tmp_path, protos):
    server = Server(tmp_path).start()
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    node = Node(server, protos, "a")
    assert server.stop() == 0
    node.close()
    server.start()
    wait_for(lambda: server.environment_of("a", epoch=2), "the second launch")
    job = json.loads(server.temper("get", "a", "--output", "json", check=0).stdout)
    assert (job["epoch"], job.get("restarts", 0)) == (2, 0)
    server.stop()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_gang_outlives_its_server_and_is_adopted_by_the_next(tmp_path, protos, by):
    server = Server(tmp_path).start()
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    node = Node(server, protos, "a")
    server.process.send_signal(by)
    assert server.process.wait(LIMIT) == (-by if by == signal.SIGKILL else 0)
    node.close()
    server.start()
    node = Node(server, protos, "a")
    job = json.loads(server.temper("get", "a", "--output", "json", check=0).stdout)
    assert (job["state"], job["epoch"]) == ("JOB_STATE_RUNNING", 1)
    server.stop()
    node.close()


def test_watch_survives_a_restart_on_the_same_port(tmp_path):
    server = Server(tmp_path, options=["--slots", "cpu:0"]).start()
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    watch = subprocess.Popen(
        [BIN / "temper", "--server", server.grpc, "watch", "a", "--output", "json"], stdout=subprocess.PIPE, text=True
    )
    first = json.loads(watch.stdout.readline())
    server.stop(kill=True)
    server.command[server.command.index("--listen") + 1] = server.grpc
    server.start()
    server.temper("cancel", "a", check=0)
    # Not communicate(): it passes over what readline() has read ahead.
    events = [first, *map(json.loads, watch.stdout.read().splitlines())]
    watch.wait(timeout=LIMIT)
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"]["state"] == "JOB_STATE_CANCELLED"
    assert watch.returncode == 5
    server.stop()


def test_json_log_of_server_and_worker(tmp_path):
    server = Server(tmp_path, worker=BIN / "temper-worker", options=["--log-format", "json"]).start()
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    worker_log = server.data / "runs/a/e1/worker.log"
    wait_for(lambda: worker_log.exists() and worker_log.read_text(), "the worker's log")
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert all(line["program"] == "temper-server" for line in lines)
    assert {"job": "jobs/a", "message": "QUEUED -> STARTING", "level": "info"}.items() <= lines[0].items()
    assert all(json.loads(line)["program"] == "temper-worker" for line in worker_log.read_text().splitlines())


def test_data_directory_in_use(server):
    status, error = start_badly("--data-dir", server.data)
    assert status == 3
    assert f"{server.data} is in use by another temper-server (pid {server.process.pid})" in error


def test_data_directory_unwritable():
    # Even for root.
    status, error = start_badly("--data-dir", "/proc/temper")
    assert status == 3
    assert "can't use the data directory: /proc/temper" in error


def test_data_directory_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    status, error = start_badly("--data-dir", tmp_path / "file")
    assert status == 3
    assert str(tmp_path / "file") in error


def test_ports_taken(server, tmp_path):
    status, error = start_badly("--data-dir", tmp_path / "other", "--listen", server.grpc)
    assert status == 4
    assert f"{server.grpc}: Address already in use; choose another with --listen" in error
    http = server.http.removeprefix("http://")
    status, error = start_badly("--data-dir", tmp_path / "other", "--http", http)
    assert status == 4
    assert f"{http}: Address already in use; choose another with --http" in error


def test_no_worker_binary(tmp_path):
    status, error = start_badly("--data-dir", tmp_path, "--worker-binary", tmp_path / "missing")
    assert status == 5
    assert "name the temper-worker with --worker-binary" in error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--listen", "nowhere"], "'nowhere' is no address"),
        (["--slots", "gpu"], "must be KIND:COUNT"),
        (["--log-level", "loud"], "loud"),
        (["--worker-env", "A", "--worker-env", "TEMPER_TOKEN"], "workers never have the server's TEMPER_TOKEN"),
        (["--unknown"], "--unknown"),
    ],
)
def test_usage(options, expected):
    status, error = start_badly(*options)
    assert status == 2
    assert expected in error


def test_each_variable_that_gangs_get_is_documented():
    source = (ROOT / "server/launch/worker_environment.cc").read_text()
    (listed,) = re.findall(r"patterns = \{(.*?)\};", source, re.DOTALL)
    names = re.findall(r'"([^"]+)"', listed)
    assert "AWS_*" in names
    text = (ROOT / "docs/OPERATIONS.md").read_text()
    assert [name for name in names if f"`{name}`" not in text and f"`{name.lower()}`" not in text] == []


def test_help():
    result = subprocess.run([BIN / "temper-server", "--help"], capture_output=True, text=True, check=True)
    for part in ("--data-dir", "--slots", "Exit codes:", "Examples:", "127.0.0.1:8470"):
        assert part in result.stdout
