# SPDX-License-Identifier: Apache-2.0
"""build/reports/storage.json: what holds on which server, and how much of its raw rate checkpoints and exports reach.
Rows of {server, check, passed, throughput_ratio}."""

import fcntl
import json
from pathlib import Path

REPORT = Path(__file__).resolve().parents[2] / "build/reports/storage.json"
_failed: set[tuple[str, str]] = set()  # since this process began


def add(server: str, check: str, passed: bool, throughput_ratio: float | None = None) -> None:
    """Puts it in the place of the row of the same server and check, while other processes may do so too. What failed
    stays so: a check may be several tests."""
    if not passed:
        _failed.add((server, check))
    row = {"server": server, "check": check, "passed": (server, check) not in _failed}
    row["throughput_ratio"] = throughput_ratio
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    with REPORT.open("a+") as report:
        fcntl.flock(report, fcntl.LOCK_EX)
        report.seek(0)
        rows = json.loads(report.read() or "[]")
        rows = [other for other in rows if (other["server"], other["check"]) != (server, check)] + [row]
        rows.sort(key=lambda row: (row["server"], row["check"]))
        report.truncate(0)
        report.write(json.dumps(rows, indent=2) + "\n")
