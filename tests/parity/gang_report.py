# SPDX-License-Identifier: Apache-2.0
"""build/reports/gang.json: what several ranks compute, hold and send, a row of each mode and number of ranks."""

import json

from engine import ROOT

REPORT = ROOT / "build/reports/gang.json"


def add(rows: list[dict]) -> None:
    """Puts them in the place of those of the same mode and world."""

    def key(row):
        return row["mode"], row["world"]

    new = {key(row) for row in rows}
    kept = json.loads(REPORT.read_text()) if REPORT.exists() else []
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps([*(row for row in kept if key(row) not in new), *rows], indent=2) + "\n")
