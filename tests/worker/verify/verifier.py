# SPDX-License-Identifier: Apache-2.0
"""Runs `temper-rank verify`."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin"))


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    errors: str

    @property
    def verdicts(self) -> list[dict]:
        """One for each model that could be compared, in order."""
        return [json.loads(line) for line in self.out.splitlines()]


def verify(*arguments, binary=BIN / "temper-rank", **environment) -> Run:
    command = [str(argument) for argument in (binary, "verify", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    return Run(done.returncode, done.stdout, done.stderr)


def json_verdicts(*arguments) -> list[dict]:
    run = verify(*arguments, "--output", "json")
    assert run.code in (0, 1), run.errors
    return run.verdicts
