# SPDX-License-Identifier: Apache-2.0
"""temper's binaries as a test starts them: a server on free ports, and a gang whose node the test itself plays."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin"))
LIMIT = 30  # seconds that only a broken test needs

# Leaves its environment, in which the token is, and its pid for the test, and lives until it is told to go.
PLACEHOLDER_WORKER = """#!/bin/sh
PID=$$ env > "$TEMPER_RUN_DIR/environment.part" && mv "$TEMPER_RUN_DIR/environment.part" "$TEMPER_RUN_DIR/environment"
exec sleep 600
"""


def wait_for(condition, what):
    deadline = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


def load_protos(directory: Path):
    """The modules (training_service_pb2, worker_service_pb2, worker_service_pb2_grpc), generated anew."""
    stems = ["job", "training_service", "worker_service"]
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    include = Path(protoc.__file__).parent / "_proto"
    assert protoc.main([*arguments, f"-I{include}", *(f"temper/v1/{stem}.proto" for stem in stems)]) == 0
    sys.path.insert(0, str(directory))
    try:
        names = ["training_service_pb2", "worker_service_pb2", "worker_service_pb2_grpc"]
        return [importlib.import_module(f"temper.v1.{name}") for name in names]
    finally:
        sys.path.remove(str(directory))


class Server:
    """A temper-server with its data below `directory`. Its workers are placeholders unless another one is named."""

    def __init__(self, directory: Path, worker: Path | None = None, options=()):
        self.data = directory / "data"
        self.log = directory / "server.log"
        if worker is None:
            worker = directory / "placeholder-worker"
            worker.write_text(PLACEHOLDER_WORKER)
            worker.chmod(0o755)
        self.command = [BIN / "temper-server", "--data-dir", self.data, "--worker-binary", worker]
        self.command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--max-preflights", "0", *options]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        addresses = self.data / "address.json"

        def ready():
            assert self.process.poll() is None, self.log.read_text()
            return addresses.exists() and json.loads(addresses.read_text())["pid"] == self.process.pid

        wait_for(ready, "the server's addresses")
        found = json.loads(addresses.read_text())
        self.grpc, self.http = found["grpc"], f"http://{found['http']}"
        return self

    def stop(self, kill=False):
        """Its exit status. Its gangs end with it, unless it is killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        return self.process.wait(LIMIT)

    def environment_of(self, job: str, epoch: int = 1) -> dict[str, str]:
        """Of the placeholder worker of a gang, once it runs."""
        path = self.data / "runs" / job / f"e{epoch}" / "environment"
        wait_for(path.exists, f"the worker of {job}")
        return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)

    def end_worker(self, job: str, epoch: int = 1):
        """The placeholder leaves, as a worker does that has reported its end."""
        os.kill(int(self.environment_of(job, epoch)["PID"]), signal.SIGKILL)

    def temper(self, *arguments, text=None, environment=None, check=None):
        """Runs the command line against this server."""
        result = subprocess.run(
            [BIN / "temper", *map(str, arguments)],
            input=text,
            text=True,
            capture_output=True,
            timeout=LIMIT,
            env=os.environ | {"TEMPER_SERVER": self.grpc} | (environment or {}),
            check=False,
        )
        if check is not None:
            assert result.returncode == check, (result.returncode, result.stdout, result.stderr)
        return result


def make_token(server: Server, identity: str, role: str, *options: str) -> str:
    """As an admin does on the server's own machine."""
    command = [BIN / "temper-server", "token", "create", identity, "--role", role, "--data-dir", server.data, *options]
    return subprocess.run(command, text=True, capture_output=True, check=True, timeout=LIMIT).stdout.strip()


class Node:
    """The node of a gang: what temper-worker is to the server."""

    def __init__(self, server: Server, protos, job: str, epoch: int = 1):
        _, self.messages, services = protos
        self._queue = []
        self._channel = grpc.insecure_channel(server.grpc)
        self._sequence = 0
        token = server.environment_of(job, epoch)["TEMPER_WORKER_TOKEN"]
        hello = self.messages.Hello(job=f"jobs/{job}", epoch=epoch, token=token, incarnation="test")
        self._send(hello=hello)
        self._closed = False
        self._answers = services.WorkerServiceStub(self._channel).Attach(self._requests())
        self.assignment = next(self._answers).assignment

    def _send(self, **message):
        self._queue.append(self.messages.AttachRequest(**message))

    def _requests(self):
        while not self._closed:
            while self._queue:
                yield self._queue.pop(0)
            time.sleep(0.005)

    def report(self, **report):
        """Sends a report and waits until it is durable."""
        self._sequence += 1
        self._send(report=self.messages.RankReport(rank=0, sequence=self._sequence, **report))
        for answer in self._answers:
            if answer.ack.sequence == self._sequence:
                return
        raise AssertionError("the stream ended without an acknowledgement")

    def close(self):
        self._closed = True
        self._channel.close()


JOB = """
model: {uri: /models/tiny}
data: {uri: /data/train.jsonl}
training: {steps: 10}
output: {uri: /out}
"""
