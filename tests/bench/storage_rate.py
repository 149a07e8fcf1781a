#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast checkpoints and exports get into an S3 bucket, as a share of what the same client reaches alone.

    build/venv/bin/python tests/bench/storage_rate.py [--gigabytes 1.6] [--runs 3]

A server on this machine (versitygw) takes both. Raw: Arrow's own S3 client is given bytes that are in memory. Ours: the
same client behind Publication, which adds a SHA-256 of every byte, a bounded window of parts and the manifest; that is
how checkpoints and exports are written. Then what a job's rank takes for a checkpoint and an export of SmolLM2, where
gathering, rounding and reading back are in it too. The goal is a share of 0.8 of the raw rate. Rows of
build/reports/storage.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyarrow import fs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from servers import storage_report  # noqa: E402
from servers.s3_server import Versitygw  # noqa: E402

PROBE = ROOT / "build/release/tests/storage_probe"
RANK = ROOT / "build/release/bin/temper-rank"
MODEL = ROOT / "build/models/SmolLM2-135M-Instruct"
GOAL = 0.8
PIECE = 4 << 20


def raw_seconds(files: fs.S3FileSystem, path: str, size: int) -> float:
    piece = os.urandom(PIECE)
    start = time.perf_counter()
    with files.open_output_stream(path) as stream:
        for _ in range(size // PIECE):
            stream.write(piece)
    return time.perf_counter() - start


def published_seconds(server: Versitygw, path: str, size: int) -> float:
    command = [PROBE, "publish", "s3://bucket", path, "--size", str(size)]
    environment = os.environ | server.environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["code"] == "OK", result
    return result["seconds"]


def job_rates(server: Versitygw, directory: Path) -> dict[str, float]:
    """Bytes a second of a checkpoint, from its snapshot to its commit, and of an export, from the commit of the last
    checkpoint until it is read back."""
    data = directory / "train.jsonl"
    data.write_text(json.dumps({"text": "The bucket is all it takes. " * 20}) + "\n")
    spec = {
        "model": {"uri": str(MODEL)},
        "data": {"uri": str(data)},
        "training": {"steps": 2, "tokens_per_step": 128, "micro_batch_tokens": 128, "precision": "PRECISION_FP32"},
        "checkpoints": {"every_steps": 1},
        "output": {"uri": "s3://bucket/job"},
    }
    job = directory / "job.json"
    job.write_text(json.dumps(spec))
    environment = os.environ | server.environment() | {"HF_HUB_OFFLINE": "1"}
    rank = subprocess.Popen([RANK, "train", job], stdout=subprocess.PIPE, text=True, env=environment)
    size = sum(path.stat().st_size for path in MODEL.glob("*.safetensors"))
    rates, exporting = {}, 0.0
    for line in rank.stdout:
        event = json.loads(line)
        if "commit_seconds" in event:
            exporting = time.perf_counter()  # the last one is waited for
            rates["checkpoint"] = event["bytes"] / event["commit_seconds"]
        if event.get("phase") == "PHASE_EXPORTING":
            exporting = time.perf_counter()
        if event.get("phase") == "PHASE_VERIFYING":
            rates["export"] = size / (time.perf_counter() - exporting)
    assert rank.wait() == 0
    return rates


def publication_seconds(server: Versitygw, size: int, runs: int) -> tuple[list[float], list[float]]:
    """Of raw uploads and of ours, in turn, so that what else the machine does meets both."""
    raw, ours = [], []
    files = server.files()
    for run in range(runs):
        raw.append(raw_seconds(files, f"bucket/raw-{run}", size))
        ours.append(published_seconds(server, f"ours-{run}", size))
        files.delete_file(f"bucket/raw-{run}")
        files.delete_dir(f"bucket/ours-{run}")
    return raw, ours


def shares(directory: Path, size: int, runs: int) -> dict[str, float]:
    """Of the raw rate: what publications, checkpoints and exports reach. All into build/reports/storage.json."""
    with Versitygw(directory) as server:
        server.make_bucket("bucket")
        raw, ours = publication_seconds(server, size, runs)
        rates = {"publication": size / statistics.median(ours)} | job_rates(server, directory)
    raw_rate = size / statistics.median(raw)
    print(f"raw: {raw_rate / 1e6:.0f} MB/s; goal: {GOAL} of it")
    for check, rate in rates.items():
        print(f"{check}: {rate / 1e6:.0f} MB/s, {rate / raw_rate:.2f}")
        storage_report.add("versitygw", f"rate of a {check}", rate >= GOAL * raw_rate, round(rate / raw_rate, 3))
    return {check: rate / raw_rate for check, rate in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        shares(Path(directory), int(arguments.gigabytes * 1e9) // PIECE * PIECE, arguments.runs)


if __name__ == "__main__":
    main()
