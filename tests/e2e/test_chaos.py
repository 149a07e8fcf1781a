# SPDX-License-Identifier: Apache-2.0
"""Does to jobs what happens to them in the world, several things at once, and looks whether they shrug.

`make chaos` runs each fault at each declared point (SIGKILL, SIGSTOP, a delay), each fault from outside, and ROUNDS
cases drawn by SEED. In `make test` it is short: a few cases that have something of everything. Both print a table and
write build/reports/chaos.json.
"""

import json
import os
import random
import sys

import psutil
import pytest
import selection
from chaos import (
    INTERVAL,
    JOB,
    OF_SEVERAL_RANKS,
    OUTSIDE,
    STEPS,
    TOKENS_PER_STEP,
    Case,
    Outside,
    Point,
    Victim,
    random_case,
)
from survival import ROOT, Undisturbed, run_undisturbed
from temper_server import BIN, Server, wait_until
from test_interruptions import POINTS, POINTS_OF_SEVERAL_RANKS

SEED = int(os.environ.get("TEMPER_CHAOS_SEED", "1"))
ROUNDS = os.environ.get("TEMPER_CHAOS_ROUNDS")  # absent: the short form

ALL_POINTS = POINTS + POINTS_OF_SEVERAL_RANKS

SHORT = [
    Case(
        2,
        (
            Point("rank.rendezvous.store_opened", "delay=0.2"),
            Point("rank.step.before_update@12", "stop"),
            Outside("network cut between ranks", 25),
            Point("rank.rendezvous.done", "delay=0.2"),
        ),
        pace=0.05,
    ),
    Case(
        1,
        (
            Point("worker.rank.started"),
            Outside("second server on the data directory", 4),
            Outside("SIGKILL of the server", 6),
        ),
        pace=0.05,
    ),
    Case(
        1,
        (
            Outside("clock set an hour ahead", 2),
            Outside("SIGKILL of the node", 4),
            Outside("storage is away", 12),
            Point("server.commit.after@30"),
        ),
    ),
]


def long_form() -> list[Case]:
    actions = ("kill", "stop", "delay=0.7")
    cases = [Case(2, (Point(point, action),)) for point in ALL_POINTS for action in actions]
    for name in OUTSIDE:
        cases += [Case(ranks, (Outside(name, 15),)) for ranks in (1, 2) if ranks > 1 or name not in OF_SEVERAL_RANKS]
    generator = random.Random(SEED)
    return cases + [random_case(generator, ALL_POINTS) for _ in range(int(ROUNDS))]


CASES = SHORT if ROUNDS is None else long_form()


@pytest.fixture(scope="module")
def spec_of_all(pristine_model, data):
    return {
        "model": {"uri": str(pristine_model)},
        "data": {"uri": str(data)},
        "training": {"micro_batch_tokens": 256, "learning_rate": 5e-3, "precision": "PRECISION_FP32"},
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, protos, spec_of_all) -> dict[int, Undisturbed]:
    """By number of ranks."""
    directory = tmp_path_factory.mktemp("undisturbed")
    server = Server(directory / "server", protos, slots="cpu:2")
    try:
        spec = spec_of_all | {
            "training": spec_of_all["training"] | {"steps": STEPS, "tokens_per_step": TOKENS_PER_STEP},
            "output": {"uri": str(directory / "output")},
            "checkpoints": {"every_steps": INTERVAL, "keep_last": 2},
        }
        return {
            ranks: run_undisturbed(server, spec | {"resources": {"threads_per_rank": 1, "ranks_per_node": ranks}})
            for ranks in (1, 2)
        }
    finally:
        assert server.interrupt() == 0


@pytest.fixture(scope="module")
def report(request):
    rows = []
    yield rows
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(table(rows))
    if not selection.is_whole(request):
        return
    path = ROOT / "build/reports/chaos.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")


def table(rows: list[dict]) -> str:
    """By fault; what befell a job together with others counts for each."""
    lines = {}
    for row in rows:
        for fault in row["fault"].split(", "):
            survived = row["survived"] and row["weights_identical"]
            before = lines.get(fault, (0, 0, 0, 0))
            lines[fault] = tuple(map(sum, zip(before, (1, survived, not survived, row["steps_lost"]), strict=True)))
    good = sum(row["survived"] and row["weights_identical"] for row in rows)
    text = [f"\nchaos, seed {SEED}: {good} of {len(rows)} jobs survived", "", f"{'fault':42} {HEADER}"]
    text += [
        f"{fault:42} {n:>8} {survived:>9} {lost:>5} {steps:>12}" for fault, (n, survived, lost, steps) in lines.items()
    ]
    return "\n".join(text)


HEADER = "injected  survived  lost  steps again"


def new_row(case: Case, rows: list, **changes: str) -> dict:
    row = {
        "fault": ", ".join(fault.fault for fault in case.faults),
        "point": ", ".join(fault.where for fault in case.faults),
        "ranks": case.ranks,
        "survived": False,
        "weights_identical": False,
        "steps_lost": 0,
    }
    rows.append(row | changes)
    return rows[-1]


def check(victim: Victim, undisturbed: Undisturbed, row: dict) -> None:
    row["steps_lost"] = victim.steps_lost()
    row["survived"] = True
    victim.check(undisturbed)
    row["weights_identical"] = True


@pytest.mark.parametrize("case", CASES, ids=str)
def test_job_survives(case, protos, spec_of_all, tmp_path, undisturbed, report):
    victim = Victim(tmp_path, protos, spec_of_all, case)
    row = new_row(case, report)
    try:
        victim.run()
        check(victim, undisturbed[case.ranks], row)
        hangs = [fault for fault in case.faults if fault.fault in ("SIGSTOP", "SIGSTOP of a rank")]
        if any(isinstance(fault, Outside) or fault.name == "rank.step.before_update" for fault in hangs):
            # Of a step, or of the question between two steps whether a checkpoint is due.
            assert any("HANG: " in reason for reason in victim.reasons()), victim.reasons()
            assert "T (stopped)" in victim.log()
            if case.ranks > 1:  # the other one tells what it waits for
                assert "temper::ProcessGroup" in victim.log() or "PendingCollective" in victim.log()
    except BaseException:
        print(f"{case}: seed {SEED}", file=sys.stderr)
        raise
    finally:
        victim.close()


# A worker out of its launcher's reach, as on a host that has lost its network.
WRAPPER = """#!{python}
import os, subprocess, sys
environment = {{name: value for name, value in os.environ.items() if name != "TEMPER_RUN_DIR"}}
worker = subprocess.Popen(["{worker}", *sys.argv[1:]], env=environment, start_new_session=True)
open("{pids}", "a").write(f"{{worker.pid}}\\n")
sys.exit(worker.wait())
"""


def test_an_old_gang_that_wakes_up_is_refused_and_ends(protos, spec_of_all, tmp_path, undisturbed, report):
    pids = tmp_path / "pids"
    wrapper = tmp_path / "temper-worker"
    wrapper.write_text(WRAPPER.format(python=sys.executable, worker=BIN / "temper-worker", pids=pids))
    wrapper.chmod(0o755)
    case = Case(2, (Point("rank.checkpoint.before_commit@2", "stop"),), pace=0.05)
    # It stops where it is about to commit.
    victim = Victim(tmp_path, protos, spec_of_all, case, options=[f"--worker-binary={wrapper}"], silence_limit=6)
    row = new_row(case, report, fault="an old gang wakes up")
    old = []
    try:
        victim.submit()
        wait_until(lambda: (victim.marks / "rank.checkpoint.before_commit").exists(), timeout=60)
        node = psutil.Process(int(pids.read_text().split()[0]))
        old = [node, *node.children()]
        for process in old:
            process.suspend()
        wait_until(lambda: len(pids.read_text().split()) == 2, timeout=60)  # its successor
        victim.server.wait_for_step(JOB, epoch=2)
        for process in old:
            process.resume()
        psutil.wait_procs(old, timeout=30)
        assert not any(process.is_running() for process in old)
        left = json.loads((victim.data_dir / f"runs/{JOB}/e1/exit.json").read_text())
        assert left["exit_status"] == 4, left  # refused
        victim.server.wait_for_end(JOB)
        check(victim, undisturbed[2], row)
    finally:
        for process in old:
            if process.is_running():
                process.kill()
        victim.close()
