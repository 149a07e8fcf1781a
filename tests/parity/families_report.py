# SPDX-License-Identifier: Apache-2.0
"""build/reports/families.json: what this run found of each family, written together by the tests that look at them."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "build/reports/families.json"
_rows = {}  # family → its figures. Of this run alone: a family that is gone leaves no row behind


def update(figures):
    """Puts the figures of each family ({family: {figure: value}}) into the report, beside those of other tests."""
    for family, found in figures.items():
        lines = len((ROOT / f"worker/families/{family}.cc").read_text().splitlines())
        _rows[family] = _rows.get(family, {"family": family}) | found | {"lines": lines}
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps([_rows[family] for family in sorted(_rows)], indent=2) + "\n")
