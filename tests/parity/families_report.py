# SPDX-License-Identifier: Apache-2.0
"""build/reports/families.json: what was found of each family, written together by the tests that look at families."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "build/reports/families.json"


def update(figures):
    """Puts the figures of each family ({family: {figure: value}}) into the report, beside those of other tests."""
    rows = {row["family"]: row for row in json.loads(PATH.read_text())} if PATH.exists() else {}
    for family, found in figures.items():
        source = ROOT / f"worker/families/{family}.cc"
        rows[family] = rows.get(family, {"family": family}) | found | {"lines": len(source.read_text().splitlines())}
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps([rows[family] for family in sorted(rows)], indent=2) + "\n")
