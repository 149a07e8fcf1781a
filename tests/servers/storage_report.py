# SPDX-License-Identifier: Apache-2.0
"""build/reports/storage.json: what holds on which server, and how much of its raw rate checkpoints and exports reach.
Rows of {server, check, passed, throughput_ratio}."""

import json
from pathlib import Path

REPORT = Path(__file__).resolve().parents[2] / "build/reports/storage.json"


def add(server: str, check: str, passed: bool, throughput_ratio: float | None = None) -> None:
    """Puts it in the place of the row of the same server and check."""
    rows = json.loads(REPORT.read_text()) if REPORT.exists() else []
    rows = [row for row in rows if (row["server"], row["check"]) != (server, check)]
    rows.append({"server": server, "check": check, "passed": passed, "throughput_ratio": throughput_ratio})
    rows.sort(key=lambda row: (row["server"], row["check"]))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(rows, indent=2) + "\n")
