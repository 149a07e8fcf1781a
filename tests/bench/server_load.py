#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one temper-server carries: gangs that report, watchers, clients, and a long history behind it.

    build/venv/bin/python tests/bench/server_load.py [--jobs 125] [--ranks 8] [--history 10000] [--watchers 200]
        [--seconds 40] [--data-dir DIR] [--server temper-server] [--report build/reports/load.json]

Ranks report once a second: rank 0 a step, the others a line of log. Watchers are spread over the jobs, and then all on
one of them; one more watches that job without reading, is cut off, and goes on from where it was. Clients create,
cancel, get and list jobs meanwhile. In the end the server is killed, and what the ranks reported and the watchers saw
is looked for in its database; then it is started again on it. Gangs, watchers and clients are one process
(tests/bench/load), which takes processor time from the server as they would on one machine.

The goals, on 2 cores: p99 of CreateJob below 10 ms, of a report's way to a watcher below 50 ms (spread) and 250 ms (on
one job), 500 MB of memory, a start within 2 s, and no report lost. A commit is on the disk before anybody hears of it,
so times are those of the disk too: what it takes for a flush is measured beside them. `--data-dir` on a tmpfs shows
the server without the disk.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from load_process import Database, launch_gangs, start_load  # noqa: E402
from temper_process import BIN, Server, load_protos  # noqa: E402

TESTS = BIN.parent / "tests"
HISTORY_STEPS = 50  # events of each job that has ended
STALL_LIMIT = 30  # seconds that the server gives a watcher (server/api/watch_hub.h)
MOST_LATE = 10  # ms, p99: of a load that measures the server, not itself
TICK = os.sysconf("SC_CLK_TCK")


def fill(data: Path, jobs: int) -> None:
    """A history of jobs that have ended, written where flushing costs nothing, if there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        made = Path(directory) / "data"
        subprocess.run([TESTS / "fill_history", made, str(jobs), str(HISTORY_STEPS)], check=True)
        shutil.copytree(made, data)


def flush_times(directory: Path, count: int = 200) -> tuple[float, float]:
    """(p50, p99) of fdatasync after 32 KiB, in ms: what every commit waits for."""
    times = []
    with (directory / "flush").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(bytes(32768))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1e3 * (time.perf_counter() - start))
    (directory / "flush").unlink()
    times.sort()
    return times[count // 2], times[count * 99 // 100]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_memory(pid: int) -> float:
    """In MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def phases(arguments) -> list[dict]:
    common = {"seconds": arguments.seconds, "warm_up": 3, "watchers": arguments.watchers}
    return [{"name": "spread", "one_job": False} | common, {"name": "one job", "one_job": True} | common]


def run_load(server: Server, directory: Path, config: dict) -> tuple[list[dict], dict]:
    """(figures of each phase, the account of what was reported and seen)"""
    pid = server.process.pid
    found = []
    with start_load(server, directory, config) as process:
        start, used = time.monotonic(), processor_seconds(pid)
        for line in process.stdout:
            found.append(json.loads(line))
            now, now_used = time.monotonic(), processor_seconds(pid)
            found[-1]["cores"] = (now_used - used) / (now - start)
            start, used = now, now_used
    assert process.returncode == 0
    return [line for line in found if "ends" in line], found[-1]


def measure(directory: Path, arguments) -> list[dict]:
    data = directory / "data"
    if not data.exists():
        fill(data, arguments.history)
    server = Server(directory, options=["--slots", f"cpu:{arguments.jobs * arguments.ranks}"])
    server.command[0] = arguments.server
    server.start()
    protos = load_protos(directory)
    try:
        gangs = launch_gangs(server, protos, arguments.jobs, arguments.ranks)
        flushes = flush_times(data)
        config = {"gangs": gangs, "ranks": arguments.ranks, "period_ms": 1000, "phases": phases(arguments)}
        slow = 1.5 * arguments.seconds > STALL_LIMIT + 20
        figures, account = run_load(server, directory, config | {"calls": True, "slow_watcher": slow})
        rss = peak_memory(server.process.pid)
        server.stop(kill=True)
        database = Database(data / "temper.db", protos)
        lost = database.lost_reports(account["gangs"], arguments.ranks)
        start = time.monotonic()
        server.start()
        restart = time.monotonic() - start
    finally:
        server.stop()

    assert not account["failed_calls"], account["failed_calls"]
    if slow:
        watcher = account["slow_watcher"]
        assert watcher["breaks"], "a watcher that did not read was not cut off"
        print(f"the slow watcher was cut off: {watcher['breaks'][0]['message']}")
        account["watchers"].append(watcher)
    for watcher in account["watchers"]:
        assert watcher["gaps"] == 0, watcher
        assert watcher["newest"] <= database.last_sequence(watcher["job"]), watcher
    print(f"a flush of the disk alone: p50 {flushes[0]:.1f} ms, p99 {flushes[1]:.1f} ms")
    common = {"ranks": arguments.jobs * arguments.ranks, "jobs": arguments.jobs, "watchers": arguments.watchers}
    shared = {"rss_mb": round(rss), "reports_lost": lost, "restart_s": round(restart, 2)}
    return [row(phase) | common | shared for phase in figures]


def row(phase: dict) -> dict:
    calls = phase["calls"]
    names = {"create": "CreateJob", "get": "GetJob", "list": "ListJobs", "list_owner": "ListJobs of an owner"}
    result = {"watching": phase["ends"], "server_cores": round(phase["cores"], 2)}
    for key, name in names.items():
        result |= {f"{key}_{p}_ms": round(calls[name][f"{p}_ms"], 1) for p in ("p50", "p99")}
    for key in ("report_to_watch", "report_to_acknowledgement"):
        result |= {f"{key}_{p}_ms": round(phase[key][f"{p}_ms"], 1) for p in ("p50", "p99")}
    late = round(phase["late_ticks"]["p99_ms"], 1)
    if late > MOST_LATE:
        print(f"{phase['ends']}: ranks reported up to {late} ms late; the machine has no room, and times say so")
    return result | {"events_seen": phase["report_to_watch"]["count"], "load_late_p99_ms": late}


def table(rows: list[dict]) -> str:
    lines = []
    for key in rows[0]:
        lines.append(f"{key:<32}" + "".join(f"{row[key]!s:>12}" for row in rows))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=125)
    parser.add_argument("--ranks", type=int, default=8, help="of each job")
    parser.add_argument("--history", type=int, default=10_000, help="jobs that have ended")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=45, help="of each of the two ways to watch")
    parser.add_argument("--data-dir", type=Path, help="where the data is put for the time being (default: in build)")
    parser.add_argument("--server", type=Path, default=BIN / "temper-server")
    parser.add_argument("--report", type=Path, default=ROOT / "build/reports/load.json")
    arguments = parser.parse_args()
    # Whatever ends us, the server and its gangs end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("server_load: terminated"))
    # Not in /tmp, which may be in memory.
    with tempfile.TemporaryDirectory(dir=arguments.data_dir or ROOT / "build") as directory:
        rows = measure(Path(directory), arguments)
    print(table(rows))
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(json.dumps(rows, indent=2) + "\n")
    lost = rows[0]["reports_lost"]
    assert lost == 0, f"{lost} reports were lost"


if __name__ == "__main__":
    main()
