# SPDX-License-Identifier: Apache-2.0
"""A server that is killed under load: what it acknowledged or showed is kept, and nothing is lost.

`make bench-server` is the long form, with times.
"""

import json
import random
import shutil
import signal
import time

import pytest
from load_process import Database, launch_gangs, start_load
from temper_process import LIMIT, Server

JOBS, RANKS = 4, 8


@pytest.mark.parametrize("seed", [1, 2])
def test_server_killed_under_load(tmp_path, protos, seed):
    server = Server(tmp_path, options=["--slots", f"cpu:{JOBS * RANKS}"]).start()
    gangs = launch_gangs(server, protos, JOBS, RANKS)
    phase = {"name": "all", "seconds": 2, "warm_up": 0, "watchers": 2 * JOBS, "one_job": False}
    config = {"gangs": gangs, "ranks": RANKS, "period_ms": 50, "phases": [phase], "calls": False, "slow_watcher": False}
    load = start_load(server, tmp_path, config)
    assert "begins" in json.loads(load.stdout.readline())
    time.sleep(random.Random(seed).uniform(0.1, 1.2))  # any moment will do
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(LIMIT)
    shutil.copytree(server.data, tmp_path / "killed")
    server.command[server.command.index("--listen") + 1] = server.grpc
    server.start()
    account = json.loads(load.stdout.readlines()[-1])
    assert load.wait(LIMIT) == 0
    server.stop(kill=True)

    # When the server died, it had shown and acknowledged nothing that was not on the disk.
    killed = Database(tmp_path / "killed/temper.db", protos)
    kept = {gang["job"]: killed.reports(gang["job"]) for gang in gangs}
    for gang in account["gangs"]:
        assert len(gang["acknowledged_at_breaks"]) == 1
        for rank, newest in enumerate(gang["acknowledged_at_breaks"][0]):
            assert newest > 0
            assert all(kept[gang["job"]][rank, tick] == 1 for tick in range(1, newest + 1))
    for watcher in account["watchers"]:
        assert len(watcher["breaks"]) == 1
        assert 0 < watcher["breaks"][0]["newest"] <= killed.last_sequence(watcher["job"])

    # In the end every report is there once, and every watcher has seen every event once.
    database = Database(server.data / "temper.db", protos)
    assert database.lost_reports(account["gangs"], RANKS) == 0
    for watcher in account["watchers"]:
        assert watcher["gaps"] == 0
        assert watcher["newest"] == database.last_sequence(watcher["job"])
    assert min(gang["ticks"] for gang in account["gangs"]) >= 20
