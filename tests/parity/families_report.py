# SPDX-License-Identifier: Apache-2.0
"""build/reports/families.json: what this run found of each family, written together by the tests that look at them."""

import json
from pathlib import Path

import selection

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "build/reports/families.json"
MODULES = {"test_families", "test_lora"}
_found = {}  # module → family → figures. Of this run alone: a family that is gone leaves no row behind


def update(request, figures):
    """Takes a module's figures of each family ({family: {figure: value}}), and writes the report once it has those of
    every module, whole."""
    if selection.is_whole(request):
        _found[request.module.__name__] = figures
    if _found.keys() != MODULES:
        return
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps([row(family) for family in sorted(set().union(*_found.values()))], indent=2) + "\n")


def row(family):
    lines = len((ROOT / f"worker/families/{family}.cc").read_text().splitlines())
    together = {name: value for figures in _found.values() for name, value in figures.get(family, {}).items()}
    return {"family": family} | together | {"lines": lines}
