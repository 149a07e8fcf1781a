# SPDX-License-Identifier: Apache-2.0
"""Stops what was started, by process id: children, their orphans, and nothing else."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 60  # seconds before SIGKILL; a job has 40 to commit a checkpoint


def stop(process: subprocess.Popen) -> None:
    """SIGINT, with which a server ends its jobs, too, and SIGKILL if that does not help."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def children() -> list[int]:
    """Process ids of our children, as the kernel lists them."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def adopt_orphans() -> None:
    """Makes the kernel hand us the processes whose parent has gone (workers of a server that was killed), not init."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stop_children() -> None:
    """Ends every child that is left, orphans that were adopted included."""
    deadline = time.monotonic() + PATIENCE
    while pids := children():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


@contextlib.contextmanager
def termination_as_exception() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that what was started is stopped."""

    def unwind(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
