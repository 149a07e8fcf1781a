# SPDX-License-Identifier: Apache-2.0
"""The demo leaves no process behind, also when a server died and its workers live on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "tools/demo"

# A driver like the demo's: its child starts a grandchild and dies; then the driver says so and waits for its end.
DRIVER = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import processes
processes.adopt_orphans()
try:
    with processes.termination_as_exception():
        script = "setsid sleep 1000 >/dev/null & echo $!"
        print(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True).stdout, flush=True)
        sys.stdin.read()
finally:
    processes.stop_children()
"""


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def run_driver(*, interrupt: bool) -> tuple[int, int]:
    """(exit status of the driver, process id of the orphan)."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, DEMO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    orphan = int(driver.stdout.readline())
    assert is_alive(orphan)
    if interrupt:
        os.kill(driver.pid, signal.SIGTERM)
    else:
        driver.stdin.close()
    return driver.wait(30), orphan


def test_orphan_is_stopped_at_the_end() -> None:
    status, orphan = run_driver(interrupt=False)
    assert status == 0
    assert not is_alive(orphan)


def test_orphan_is_stopped_when_terminated() -> None:
    status, orphan = run_driver(interrupt=True)
    assert status != 0
    assert not is_alive(orphan)
