# SPDX-License-Identifier: Apache-2.0
"""A temper-server under load: gangs that report, watchers and clients, played by build/*/tests/server_load."""

import json
import re
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

import grpc
from temper_process import BIN, Server

LOAD = BIN.parent / "tests/server_load"
# What the gangs' ranks log (FakeGang, tests/bench/load/fake_gang.cc).
LINE = re.compile(r"rank \d+: .*; tick (\d+)")


def launch_gangs(server: Server, protos, jobs: int, ranks: int) -> list[dict]:
    """Jobs whose workers are placeholders: (job, token) of each."""
    messages = protos[0]
    spec = {
        "model": {"uri": "/models/tiny"},
        "data": {"uri": "/data/train.jsonl"},
        "training": {"steps": 10},
        "output": {"uri": "/out"},
        "resources": {"ranks_per_node": ranks},
    }
    names = [f"load-{i}" for i in range(jobs)]
    with grpc.insecure_channel(server.grpc) as channel:
        create = channel.unary_unary(
            "/temper.v1.TrainingService/CreateJob",
            request_serializer=messages.CreateJobRequest.SerializeToString,
            response_deserializer=messages.Job.FromString,
        )
        for name in names:
            create(messages.CreateJobRequest(job_id=name, job={"spec": spec}), timeout=60)
    return [{"job": name, "token": server.environment_of(name)["TEMPER_WORKER_TOKEN"]} for name in names]


def start_load(server: Server, directory: Path, config: dict) -> subprocess.Popen:
    """The load as a process that prints lines of JSON; tests/bench/load/server_load.cc says what `config` holds."""
    file = directory / "load.json"
    file.write_text(json.dumps(config | {"address": server.grpc}))
    return subprocess.Popen([LOAD, file], stdout=subprocess.PIPE, text=True)


class Database:
    """The database of a server that does not run, or a copy of one."""

    def __init__(self, path: Path, protos):
        self._messages = protos[0]
        # Reading alone leaves the server its journal to recover from.
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def last_sequence(self, job: str) -> int:
        query = "SELECT coalesce(max(sequence), 0) FROM events WHERE job_id = ?"
        return self._connection.execute(query, (job,)).fetchone()[0]

    def reports(self, job: str) -> Counter:
        """How many events there are of each report: by (rank, tick)."""
        found = Counter()
        for (event,) in self._connection.execute("SELECT event FROM events WHERE job_id = ?", (job,)):
            event = self._messages.JobEvent.FromString(event)
            if event.HasField("step"):
                found[0, event.step.step] += 1
            elif event.HasField("log") and (line := LINE.fullmatch(event.log.text)):
                found[event.log.rank, int(line[1])] += 1
        return found

    def lost_reports(self, gangs: list[dict], ranks: int) -> int:
        """Reports of these gangs without an event, or with more than one."""
        lost = 0
        for gang in gangs:
            found = self.reports(gang["job"])
            lost += sum(found[rank, tick] != 1 for rank in range(ranks) for tick in range(1, gang["ticks"] + 1))
        return lost
