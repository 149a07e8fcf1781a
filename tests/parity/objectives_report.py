# SPDX-License-Identifier: Apache-2.0
"""build/reports/objectives.json: how far our objectives are from a reference, a row of each objective and check."""

import json

from engine import ROOT

REPORT = ROOT / "build/reports/objectives.json"


def add(objective: str, check: str, ours: float, reference: float, passed: bool) -> None:
    """Puts a row in the place of the one of the same objective and check."""
    rows = json.loads(REPORT.read_text()) if REPORT.exists() else []
    row = {"objective": objective, "check": check, "ours": ours, "reference": reference, "passed": passed}
    kept = [each for each in rows if (each["objective"], each["check"]) != (objective, check)]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps([*kept, row], indent=2) + "\n")
