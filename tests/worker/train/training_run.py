# SPDX-License-Identifier: Apache-2.0
"""Runs temper-rank alone on a job file, and reads what it says."""

import atexit
import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from worker.train.backends import backend_of

ROOT = Path(__file__).resolve().parents[3]
RANK = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")) / "temper-rank"
STEPS = 12
ENVIRONMENT = dict(os.environ)  # before any test changes it
WITHOUT_TRANSFORMERS = {"TEMPER_PYTHON": "/none"}


def job(inputs: Path, output: Path, **changes) -> dict:
    spec = {
        "model": {"uri": str(inputs / "model")},
        "data": {"uri": str(inputs / "train.jsonl")},
        "training": {
            "steps": STEPS,
            "tokens_per_step": 256,
            "micro_batch_tokens": 128,
            "learning_rate": 5e-3,
            "precision": "PRECISION_FP32",
            "adamw": {"weight_decay": 0.1},
        },
        "resources": {"threads_per_rank": 1},
        "output": {"uri": str(output)},
        "checkpoints": {"every_steps": 5, "keep_last": 10},
    }
    if backend := backend_of(inputs):
        spec["backend"] = f"BACKEND_{backend.upper()}"
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = spec
        for parent in parents:
            target = target.setdefault(parent, {})
        target[name] = value
    return spec


class JobsInTurn:
    """A temper-rank that is given one job after the other. To start torch and transformers takes longer than to train
    a tiny model."""

    MOST_JOBS = 10_000

    def __init__(self, environment: dict[str, str]):
        self.folder = tempfile.TemporaryDirectory()
        # Two, in turn: one that was read to its end is closed by the time the other is opened.
        self.files = [Path(self.folder.name) / name for name in ("even", "odd")]
        for file in self.files:
            os.mkfifo(file)
        self.said = [Path(self.folder.name) / name for name in ("stdout", "stderr")]
        with contextlib.ExitStack() as stack:
            stdout, stderr = (stack.enter_context(path.open("w")) for path in self.said)
            command = [RANK, "train", *(self.files * (self.MOST_JOBS // 2))]
            self.process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        atexit.register(self.process.kill)
        self.jobs = 0
        self.wait_for_the_next()

    def wait_for_the_next(self) -> None:
        """Until the rank reads the file of its next job, or is no more."""
        self.job = None
        deadline = time.monotonic() + 120
        while self.job is None and self.process.poll() is None:
            with contextlib.suppress(OSError):  # nobody reads it yet
                self.job = os.open(self.files[self.jobs % 2], os.O_WRONLY | os.O_NONBLOCK)
                break
            assert time.monotonic() < deadline, "the job takes too long"
            time.sleep(0.005)
        self.jobs += 1

    def run(self, text: str) -> subprocess.CompletedProcess:
        before = [path.stat().st_size for path in self.said]
        with os.fdopen(self.job, "w") as file:
            file.write(text)
        self.wait_for_the_next()
        stdout, stderr = (path.read_bytes()[size:].decode() for path, size in zip(self.said, before, strict=True))
        code = self.process.poll()
        if code is None:
            code = int(any(line.startswith("temper-rank: ") for line in stderr.splitlines()))
        return subprocess.CompletedProcess(["train"], code, stdout, stderr)


ranks_in_turn: dict[bool, JobsInTurn] = {}


def rank_in_turn(compared: bool) -> JobsInTurn:
    if compared not in ranks_in_turn or ranks_in_turn[compared].process.poll() is not None:  # a job has killed it
        ranks_in_turn[compared] = JobsInTurn(ENVIRONMENT | ({} if compared else WITHOUT_TRANSFORMERS))
    return ranks_in_turn[compared]


def environment_is_changed() -> bool:
    def ours(environment: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}

    return ours(os.environ) != ours(ENVIRONMENT)


def run(spec: dict, directory: Path, compared: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """`compared`: the export with transformers' model, for which it must be started; where it trains it has been. A
    process of its own has the job of a test that changes the environment."""
    compared = compared or spec.get("backend") == "BACKEND_HF"
    if not environment and not environment_is_changed():
        return rank_in_turn(compared).run(json.dumps(spec))
    file = directory / "job.json"
    file.write_text(json.dumps(spec))
    environment = os.environ | environment | ({} if compared else WITHOUT_TRANSFORMERS)
    return subprocess.run(
        [RANK, "train", file], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def train(spec: dict, directory: Path, compared: bool = True) -> list[dict]:
    result = run(spec, directory, compared)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_refused(spec: dict, directory: Path, *messages: str) -> None:
    result = run(spec, directory)
    assert result.returncode == 1
    for message in ("USER_INPUT", *messages):
        assert message in result.stderr


def digests(export: Path) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(export.glob("*.safetensors"))}


def checkpoint(output: Path, step: int) -> Path:
    return output / f"local/checkpoints/step-{step:08}-e0001"
