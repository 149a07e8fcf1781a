# SPDX-License-Identifier: Apache-2.0
"""A temper-server of a test's own, and the ways to talk to it."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import psutil

BIN = Path(os.environ.get("TEMPER_BIN", Path(__file__).resolve().parents[2] / "build/release/bin"))

# What tests do to gangs, and what sanitizers are told, which temper knows nothing of.
WORKER_ENVIRONMENT = (
    *("TEMPER_FAULT*", "TEMPER_RELAY", "TEMPER_NOT_RELAYED", "TEMPER_CLOCK_SHIFT", "LD_PRELOAD"),
    *("ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS"),
)

ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


class Server:
    """One data directory and the server over it, which can be stopped, killed and started again on its old ports."""

    def __init__(
        self,
        data_dir: Path,
        protos,
        slots: str = "cpu:1",
        environment: dict | None = None,
        transformers: bool = False,  # ranks have them, and compare exports: longer than what a tiny job trains
        preflights: int = 0,  # a launch more for every job
        disk: str = "",  # mount options of a small disk for the data directory, such as size=16m
        options: Sequence[str] = (),
        binaries: Path = BIN,
        listen: str = "127.0.0.1:0",
    ):
        self.data_dir = data_dir
        self.disk = disk
        self.protos = protos
        self.slots = slots
        self.preflights = preflights
        self.options = options
        self.binaries = binaries
        self.environment = ({} if transformers else {"TEMPER_PYTHON": "/none"}) | (environment or {})
        self.listen = listen
        self.http = "127.0.0.1:0"
        self.process = None
        self.start()

    # Its life

    def command(self, *options: str) -> list[str]:
        return [
            str(self.binaries / "temper-server"),
            f"--data-dir={self.data_dir}",
            f"--listen={self.listen}",
            f"--http={self.http}",
            f"--slots={self.slots}",
            f"--max-preflights={self.preflights}",
            "--retry-backoff=1",
            *(f"--worker-env={name}" for name in WORKER_ENVIRONMENT),
            *self.options,
            *options,
        ]

    def on_disk(self, name: str) -> Path:
        """A file of the data directory, which only the server sees when it has a disk of its own."""
        root = f"/proc/{self.process.pid}/root" if self.disk else ""
        return Path(f"{root}{self.data_dir}/{name}")

    def start(self) -> None:
        command = self.command()
        if self.disk:
            # A mount namespace of the server's own: nothing is left mounted, and root is not needed.
            self.data_dir.mkdir()
            mount = f"mount -t tmpfs -o {self.disk} none '{self.data_dir}' && exec {shlex.join(command)}"
            map_root = [] if os.geteuid() == 0 else ["--map-root-user"]
            command = ["unshare", "--mount", *map_root, "sh", "-c", mount]
        self.log = (self.data_dir.parent / f"{self.data_dir.name}.log").open("a")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=os.environ | self.environment
        )
        # The line that says the addresses; at its end the server serves.
        assert self.process.stdout.readline().startswith("temper-server"), Path(self.log.name).read_text()
        address = json.loads(self.on_disk("address.json").read_text())
        self.listen = address["grpc"]
        self.http = address["http"]
        self.channel = grpc.insecure_channel(self.listen)
        self.stub = self.protos.training_service_grpc.TrainingServiceStub(self.channel)

    def stop(self) -> int:
        """Ends the server; its jobs go on."""
        return self._end(signal.SIGTERM)

    def interrupt(self) -> int:
        """Ends the server and its jobs."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, with_signal: int) -> int:
        self.channel.close()
        self.process.send_signal(with_signal)
        status = self.process.wait(timeout=60)
        self.process.stdout.close()
        self.log.close()
        return status

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    # The command line

    def temper(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
        return temper(*arguments, server=self.listen, stdin=stdin, timeout=timeout)

    def json(self, *arguments: str, stdin: str | None = None):
        """What a command says with --output json; it must succeed."""
        result = self.temper(*arguments, "--output", "json", stdin=stdin)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def submit(self, spec: dict, *options: str) -> str:
        """Id of the new job."""
        return self.json("submit", "-", *options, stdin=json.dumps(spec))["name"].removeprefix("jobs/")

    def get(self, job: str) -> dict:
        return self.json("get", job)

    # Transfers

    @contextlib.contextmanager
    def place_taken(self):
        """Of a server with --max-transfers=1: an upload that waits has the only place. Yields what ends it."""
        messages = self.protos.training_service
        header = messages.UploadHeader(file_name="waits.jsonl", sha256="0" * 64, size_bytes=1)
        over = threading.Event()

        def requests():
            yield messages.UploadFileRequest(header=header)
            over.wait()

        def is_taken() -> bool:
            try:
                self.stub.UploadFile(iter([messages.UploadFileRequest(header=header)]))
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

        try:
            upload = self.stub.UploadFile.future(requests())
            while True:
                time.sleep(0.3)  # a refusal has come by then, and the place of a question is free again
                if upload.done():  # something else had the place
                    upload = self.stub.UploadFile.future(requests())
                elif is_taken():
                    break
            yield over.set
        finally:
            over.set()

    # Events

    def events(self, job: str, after: int = 0, timeout: float = 120):
        """Events as they happen, until the job has ended."""
        request = self.protos.training_service.WatchJobRequest(name=f"jobs/{job}", after_sequence=after)
        stream = self.stub.WatchJob(request, timeout=timeout)
        try:
            yield from stream
        finally:
            stream.cancel()

    def wait_for(self, job: str, reached, timeout: float = 120):
        """The first event that `reached` is true of."""
        with contextlib.closing(self.events(job, timeout=timeout)) as events:
            for event in events:
                if reached(event):
                    return event
        raise AssertionError(f"{job} ended before that: {self.get(job)}")

    def wait_for_step(self, job: str, epoch: int = 1):
        """Blocks until the gang of that epoch has taken a step."""
        epochs = 0

        def reached(event):
            nonlocal epochs
            if event.WhichOneof("event") == "state":
                epochs = event.state.epoch
            return event.WhichOneof("event") == "step" and epochs == epoch

        return self.wait_for(job, reached)

    def wait_for_state(self, job: str, state: str):
        number = self.protos.training_service.JobState.Value(f"JOB_STATE_{state}")
        return self.wait_for(job, lambda event: event.WhichOneof("event") == "state" and event.state.state == number)

    def wait_for_end(self, job: str, timeout: float = 120) -> dict:
        for _ in self.events(job, timeout=timeout):
            pass
        ended = self.get(job)
        assert ended["state"] in ENDED, ended
        return ended

    # Processes

    def processes(self, name: str | None = None) -> list[psutil.Process]:
        """What runs of this server's gangs: every gang carries its run directory in its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                run_dir = process.environ().get("TEMPER_RUN_DIR", "")
                ours = run_dir.startswith(f"{self.data_dir}/") and process.status() != psutil.STATUS_ZOMBIE
                if ours and name in (None, process.name()):
                    found.append(process)
        return found

    def the_process(self, name: str) -> psutil.Process:
        (process,) = self.processes(name)
        return process


def tiny_job(model: Path, data: Path, output: Path) -> dict:
    """A job of a second."""
    return {
        "model": {"uri": str(model)},
        "data": {"uri": str(data)},
        "training": {
            "steps": 60,
            "tokens_per_step": 256,
            "micro_batch_tokens": 256,
            "learning_rate": 5e-3,
            "precision": "PRECISION_FP32",
        },
        "resources": {"threads_per_rank": 1},
        "output": {"uri": str(output)},
    }


def temper(*arguments: str, server: str, stdin: str | None = None, timeout: float = 120):
    return subprocess.run(
        [str(BIN / "temper"), f"--server={server}", *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def steps_lost(events: Sequence, interval: int) -> int:
    """By all gangs of a job together. Of each: at most what lies between two checkpoints, and what was taken since the
    newest snapshot, whose commit may have been under way. Commits must take less than an interval."""
    lost = newest = committed = 0
    for event in events:
        match event.WhichOneof("event"):
            case "step":
                newest = event.step.step
            case "checkpoint":
                committed = event.checkpoint.step
            case "resumption":
                assert committed <= event.resumption.step <= newest
                assert event.resumption.lost_steps == newest - event.resumption.step
                assert event.resumption.lost_steps <= interval + newest % interval
                lost += event.resumption.lost_steps
                newest = event.resumption.step
    return lost


def wait_until(reached, timeout: float = 30) -> None:
    """For what can only be asked, not waited for: processes of others, files."""
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.02)
