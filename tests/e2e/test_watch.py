# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import subprocess

import pytest
from temper_server import BIN


def test_watch_resumes_without_gaps_or_repeats(server, spec):
    job = server.submit(spec)
    seen = []
    while True:
        # A new stream for every five events, some of them while the job runs.
        part = list(itertools.islice(server.events(job, after=seen[-1].sequence if seen else 0), 5))
        seen += part
        if len(part) < 5:
            break
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen == list(server.events(job))
    assert int(server.get(job)["last_sequence"]) == len(seen)


def test_two_watchers_see_the_same(server, spec):
    job = server.submit(spec)
    command = [BIN / "temper", f"--server={server.listen}", "watch", job, "--output", "json"]
    watchers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [watcher.communicate(timeout=120)[0] for watcher in watchers]
    assert [watcher.returncode for watcher in watchers] == [0, 0]
    # Parsed: the keys of an export's proof come in any order.
    first, second = ([json.loads(line) for line in output.splitlines()] for output in outputs)
    assert first == second


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_command_goes_on_watching_when_the_server_comes_back(server, spec, how):
    spec["training"]["steps"] = 400
    job = server.submit(spec)
    command = [BIN / "temper", f"--server={server.listen}", "watch", job, "--output", "json"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    server.wait_for_step(job)
    getattr(server, how)()
    server.start()
    output, _ = watcher.communicate(timeout=120)
    assert watcher.returncode == 0
    events = [json.loads(line) for line in output.splitlines()]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"]["state"] == "JOB_STATE_SUCCEEDED"


def test_logs_tell_what_the_data_was(server, spec):
    job = server.submit(spec)
    followed = server.temper("logs", "-f", job, "--output", "json")
    assert followed.returncode == 0, followed.stderr
    lines = [json.loads(line)["log"]["text"] for line in followed.stdout.splitlines()]
    assert any(line.startswith("data: 32 samples") for line in lines), lines
    assert any("the export is proved" in line for line in lines), lines
    later = server.temper("logs", job, "--output", "json")
    assert later.stdout == followed.stdout
