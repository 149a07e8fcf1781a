# SPDX-License-Identifier: Apache-2.0
"""A job to which things happen: what they are, and who does them.

A *point* fault happens inside of a process, when it gets to a declared point (common/fault_point.h). An *outside* fault
is done to the processes, their network, storage and clock once the job has taken so many steps.
"""

import contextlib
import os
import random
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers.relay import Line, Relay
from servers.s3_server import Versitygw
from survival import check_survival, has_ended, look, lost_steps, of_kind, submit
from temper_server import BIN, Server, wait_until

SHIM = BIN.parent / "tests/libfault_shim.so"
JOB = "victim"
STEPS = 40
TOKENS_PER_STEP = 2048
INTERVAL = 10
# Of a step and of anything else, before it is taken for a hang.
HANG = {"step_minutes": 0.05, "other_minutes": 0.2}
MOMENT = 1.5  # seconds that a fault lasts which is not to be taken for a hang
LIMIT = 180  # of a case; only a job that does not survive needs it


@dataclass(frozen=True)
class Point:
    """`where` is NAME or NAME@HIT; `action` as TEMPER_FAULT has it."""

    where: str
    action: str = "kill"

    @property
    def name(self) -> str:
        return self.where.split("@")[0]

    @property
    def fault(self) -> str:
        return {"kill": "SIGKILL", "stop": "SIGSTOP"}.get(self.action, self.action)

    def __str__(self) -> str:
        return f"{self.fault} at {self.where}"


@dataclass(frozen=True)
class Outside:
    fault: str  # a key of OUTSIDE
    step: int

    @property
    def where(self) -> str:
        return f"step {self.step}"

    def __str__(self) -> str:
        return f"{self.fault} after {self.where}"


@dataclass(frozen=True)
class Case:
    ranks: int
    faults: tuple[Point | Outside, ...]
    # Seconds between two steps. The machine may be fast: what is to happen next must find the job still running.
    pace: float = 0.15

    def __str__(self) -> str:
        return f"{self.ranks} rank{'s' * (self.ranks > 1)}: " + ", ".join(map(str, self.faults))

    @property
    def commits_in_time(self) -> bool:
        """Nothing holds a checkpoint up for longer than the steps between two."""
        slow = ("delay", "storage", "the disk", "slow", "object store")
        return not any(fault.fault.startswith(slow) for fault in self.faults)

    @property
    def in_object_store(self) -> bool:
        """The output is on an S3 server then."""
        return any(fault.fault in OF_OBJECT_STORE for fault in self.faults)


class ObjectStore:
    """An S3 server behind a relay, and where the output lies in it. versitygw's buckets are directories."""

    def __init__(self, directory: Path):
        self.server = Versitygw(directory).start()
        self.uri = f"{self.server.make_bucket('jobs')}/output"
        self.output = self.server.data / "jobs/output"
        self.relay = Relay(self.server.port)

    def environment(self) -> dict[str, str]:
        return self.server.environment(self.relay.endpoint) | {"TEMPER_NOT_RELAYED": str(self.relay.port)}

    def close(self) -> None:
        self.relay.close()
        self.server.kill()


class Victim:
    """A server whose workers and ranks are reached through a relay, and its one job."""

    def __init__(
        self, directory: Path, protos, spec: dict, case: Case, options: Sequence[str] = (), silence_limit: int = 12
    ):
        self.case = case
        self.marks = directory / "marks"
        self.marks.mkdir(parents=True)
        self.relay = Relay()
        self.shift = directory / "shift"
        self.shift.write_bytes(struct.pack("=q", 0))
        self.data_dir = directory / "server"
        # Where the disk may become full, the output is on it too.
        disk = "size=24m" if any(fault.fault == "the disk is full" for fault in case.faults) else ""
        self.output = self.data_dir / "output" if disk else directory / "output"
        self.object_store: ObjectStore | None = None
        if case.in_object_store:
            self.object_store = ObjectStore(directory / "s3")
            self.output = self.object_store.output
        self.spec = spec | {
            "training": spec["training"] | {"steps": STEPS, "tokens_per_step": TOKENS_PER_STEP},
            "resources": {"threads_per_rank": 1, "ranks_per_node": case.ranks},
            "checkpoints": {"every_steps": INTERVAL, "keep_last": 2},
            "output": {"uri": self.object_store.uri if self.object_store else str(self.output)},
            "hang": HANG,
        }
        points = [fault for fault in case.faults if isinstance(fault, Point)]
        environment = {
            "TEMPER_FAULT": ",".join(
                [f"rank.step.reported:pace={case.pace}", *(f"{fault.where}:{fault.action}" for fault in points)]
            ),
            "TEMPER_FAULT_DIR": str(self.marks),
            "TEMPER_RELAY": str(self.relay.port),
            "TEMPER_CLOCK_SHIFT": str(self.shift),
            "LD_PRELOAD": str(SHIM),
            # A sanitizer's runtime wants to be the first library otherwise.
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
        }
        if self.object_store:
            environment |= self.object_store.environment()
        self.server = Server(
            self.data_dir,
            protos,
            slots=f"cpu:{case.ranks}",
            environment=environment,
            preflights=int(any("preflight" in fault.where for fault in points)),
            disk=disk,
            options=[f"--silence-limit={silence_limit}", "--max-restarts=20", *options],
        )
        self.first_server = self.server.process.pid
        # A rank that has stopped itself is found by its node. Nodes and servers are woken.
        to_wake = [point for point in points if point.action == "stop" and not point.name.startswith("rank.")]
        self._stop_waking = threading.Event()
        self._waker = threading.Thread(target=self._wake, args=(to_wake,))
        self._waker.start()

    def on_disk(self) -> Path:
        return self.server.on_disk("output") if self.server.disk else self.output

    def close(self) -> None:
        self._stop_waking.set()
        self._waker.join()
        try:
            if self.server.is_running:
                assert self.server.interrupt() == 0
            assert self.server.processes() == []
        finally:
            for process in self.server.processes():
                process.kill()
            if self.server.is_running:
                self.server.process.kill()
            self.relay.close()
            if self.object_store:
                self.object_store.close()

    def _wake(self, points: list[Point]) -> None:
        while points and not self._stop_waking.wait(0.05):
            if not (self.marks / points[0].name).exists():
                continue
            points.pop(0)
            time.sleep(MOMENT)
            for process in [psutil.Process(self.server.process.pid), *self.server.processes("temper-worker")]:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    def submit(self) -> None:
        submit(self.server, self.spec, JOB)

    def run(self) -> None:
        """Submits the job, and does to it what the case has in store."""
        outside = sorted((f for f in self.case.faults if isinstance(f, Outside)), key=lambda fault: fault.step)
        deadline = time.monotonic() + LIMIT
        self.submit()
        while True:
            job = look(self.server, JOB)
            assert time.monotonic() < deadline, f"{self.case}: {job}"
            if job is None:
                time.sleep(0.05)
                continue
            if has_ended(self.server, job):
                break
            if outside and job.latest_step.step >= outside[0].step and self.server.processes("temper-rank"):
                OUTSIDE[outside.pop(0).fault](self)
                continue
            time.sleep(0.02)
        assert not outside, f"the job ended before {outside[0]}"
        for fault in self.case.faults:
            assert not isinstance(fault, Point) or (self.marks / fault.name).exists(), f"{fault} was never reached"

    def check(self, undisturbed) -> None:
        check_survival(
            self.server,
            JOB,
            undisturbed,
            self.on_disk(),
            INTERVAL if self.case.commits_in_time else None,
            same_server=self.server.process.pid == self.first_server,
        )

    def events(self) -> list:
        return list(self.server.events(JOB))

    def steps_lost(self) -> int:
        return lost_steps(self.events())

    def reasons(self) -> list[str]:
        return [state.reason for state in of_kind(self.events(), "state")]

    def log(self) -> str:
        return "\n".join(line.text for line in of_kind(self.events(), "log"))


def ranks_of(server: Server) -> list[psutil.Process]:
    """Rank by rank."""
    return sorted(server.processes("temper-rank"), key=lambda process: (process.create_time(), process.pid))


# Faults from outside


def kill_rank(victim: Victim) -> None:
    ranks_of(victim.server)[-1].kill()


def stop_rank(victim: Victim) -> None:
    ranks_of(victim.server)[-1].suspend()


def kill_node(victim: Victim) -> None:
    victim.server.the_process("temper-worker").kill()


def stop_node(victim: Victim) -> None:
    node = victim.server.the_process("temper-worker")
    node.suspend()
    time.sleep(MOMENT)
    node.resume()


def kill_server(victim: Victim) -> None:
    victim.server.kill()
    time.sleep(0.3)


def stop_server(victim: Victim) -> None:
    victim.server.process.send_signal(signal.SIGSTOP)
    time.sleep(MOMENT)
    victim.server.process.send_signal(signal.SIGCONT)


def line(who: str, state: Line, seconds: float) -> Callable[[Victim], None]:
    def fault(victim: Victim) -> None:
        victim.relay.set(who, state)
        time.sleep(seconds)
        victim.relay.set(who, Line.OPEN)

    return fault


def object_store(state: Line) -> Callable[[Victim], None]:
    def fault(victim: Victim) -> None:
        relay = victim.object_store.relay
        before = relay.refused
        relay.set(Relay.ANYBODY, state)
        if state in (Line.CUT, Line.FAILING):
            wait_until(lambda: relay.refused > before)  # a checkpoint falls due
        time.sleep(MOMENT)
        relay.set(Relay.ANYBODY, Line.OPEN)

    return fault


def storage_is_away(victim: Victim) -> None:
    """Something else is where the output's directory was."""
    away = victim.output.with_name("away")
    victim.output.rename(away)
    victim.output.write_text("no directory")
    time.sleep(MOMENT)
    victim.output.unlink()
    away.rename(victim.output)


def disk_is_full(victim: Victim) -> None:
    """Of the server as well as of the ranks."""
    ballast = victim.server.on_disk("ballast")
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    time.sleep(MOMENT)
    ballast.unlink()


def clock_is_set(hours: float) -> Callable[[Victim], None]:
    def fault(victim: Victim) -> None:
        victim.shift.write_bytes(struct.pack("=q", int(hours * 3600e9)))

    return fault


def second_server(victim: Victim) -> None:
    if victim.server.disk:
        return  # nobody else sees its directory
    second = subprocess.run(victim.server.command(), capture_output=True, text=True, check=False)
    assert second.returncode == 3, second.stderr  # and says so
    assert "in use" in second.stderr, second.stderr


OUTSIDE: dict[str, Callable[[Victim], None]] = {
    "SIGKILL of a rank": kill_rank,
    "SIGSTOP of a rank": stop_rank,
    "SIGKILL of the node": kill_node,
    "SIGSTOP of the node": stop_node,
    "SIGKILL of the server": kill_server,
    "SIGSTOP of the server": stop_server,
    "network cut between ranks": line("R", Line.CUT, 0.3),
    "network stalled between ranks": line("R", Line.STALLED, 60 * HANG["step_minutes"] + 4),
    "slow network between ranks": line("R", Line.SLOW, MOMENT),
    "network cut between node and server": line("W", Line.CUT, MOMENT),
    "network stalled between node and server": line("W", Line.STALLED, MOMENT),
    "slow network between node and server": line("W", Line.SLOW, MOMENT),
    "storage is away": storage_is_away,
    "the disk is full": disk_is_full,
    "object store is down": object_store(Line.CUT),
    "object store answers 500": object_store(Line.FAILING),
    "object store is silent": object_store(Line.STALLED),
    "object store is slow": object_store(Line.SLOW),
    "clock set an hour ahead": clock_is_set(1),
    "clock set a day back": clock_is_set(-24),
    "second server on the data directory": second_server,
}
OF_SEVERAL_RANKS = [name for name in OUTSIDE if "between ranks" in name]
OF_OBJECT_STORE = [name for name in OUTSIDE if name.startswith("object store")]
OF_DISK = ["storage is away", "the disk is full"]


def random_case(generator: random.Random, points: list[str]) -> Case:
    """Two or three things at once."""
    ranks = generator.choice((1, 2))
    not_there = generator.choice((OF_OBJECT_STORE, OF_DISK)) + (OF_SEVERAL_RANKS if ranks == 1 else [])
    candidates = [name for name in OUTSIDE if name not in not_there]
    names = generator.sample(candidates, generator.choice((1, 2)))
    outside = [Outside(name, generator.randrange(2, STEPS // 3)) for name in names]
    where = generator.choice([point for point in points if ranks > 1 or "rendezvous" not in point])
    action = generator.choice(("kill", "stop", f"delay={generator.choice((0.2, 0.7))}"))
    # The job's steps are known only once a server that was killed is back, and its gang attached.
    return Case(ranks, (Point(where, action), *outside), pace=0.4)
