#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a server does that has many jobs behind it: its start, ListJobs, GetJob and QueryMetrics.

    build/venv/bin/python tests/bench/server_history.py [--jobs 1000] [--steps 10000] [--data-dir DIR]

The goals for 1,000 finished jobs of 10,000 steps: start below 2 s, List and QueryMetrics below 50 ms. The database
(about 400 bytes a step) is made in DIR, or in a temporary directory that goes away; one that is there is used as it is.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

import grpc  # noqa: E402
from temper_process import BIN, Server, load_protos  # noqa: E402


def milliseconds(call, runs: int = 20) -> tuple[float, float]:
    """(median, longest)"""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), max(times)


def measure(directory: Path, jobs: int, steps: int) -> None:
    data = directory / "data"
    if not data.exists():
        start = time.perf_counter()
        subprocess.run([BIN.parent / "tests/fill_history", data, str(jobs), str(steps)], check=True)
        print(f"filled in {time.perf_counter() - start:.0f} s: {(data / 'temper.db').stat().st_size / 1e9:.2f} GB")
    server = Server(directory)
    start = time.perf_counter()
    server.start()
    print(f"start: {time.perf_counter() - start:.2f} s")
    pb = load_protos(directory)[0]
    try:
        with grpc.insecure_channel(server.grpc) as channel:

            def rpc(method, request, answer):
                path = f"/temper.v1.TrainingService/{method}"
                call = channel.unary_unary(
                    path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
                )
                return lambda: call(request, timeout=60)

            calls = {
                "ListJobs, newest 50": rpc("ListJobs", pb.ListJobsRequest(page_size=50), pb.ListJobsResponse),
                "ListJobs, 50 of one owner": rpc(
                    "ListJobs", pb.ListJobsRequest(page_size=50, owner="owner-3"), pb.ListJobsResponse
                ),
                "ListJobs, all": rpc("ListJobs", pb.ListJobsRequest(page_size=1000), pb.ListJobsResponse),
                "GetJob": rpc("GetJob", pb.GetJobRequest(name="jobs/job-7"), pb.Job),
                "QueryMetrics, 1000 points": rpc(
                    "QueryMetrics",
                    pb.QueryMetricsRequest(parent="jobs/job-7", max_points=1000),
                    pb.QueryMetricsResponse,
                ),
            }
            for name, call in calls.items():
                median, longest = milliseconds(call)
                print(f"{name}: median {median:.1f} ms, longest {longest:.1f} ms")
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    if arguments.data_dir:
        arguments.data_dir.mkdir(parents=True, exist_ok=True)
        measure(arguments.data_dir, arguments.jobs, arguments.steps)
        return
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), arguments.jobs, arguments.steps)


if __name__ == "__main__":
    main()
