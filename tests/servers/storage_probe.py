# SPDX-License-Identifier: Apache-2.0
"""What a process of ours does with a store: a call of tests/common/storage/storage_probe.cc."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")).parent / "tests"


def start(environment: dict[str, str], *arguments) -> subprocess.Popen:
    command = [TESTS / "storage_probe", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def probe(environment: dict[str, str], *arguments) -> dict:
    process = start(environment, *arguments)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    return json.loads(out)


def keeps_every_promise(environment: dict[str, str], uri: str, *without: str) -> None:
    """The conformance suite, below `uri`; `without` those that the store can't keep."""
    command = [TESTS / "store_conformance_test", "--gtest_brief=1"]
    if without:
        command.append(f"--gtest_filter=-{':'.join(without)}")
    result = subprocess.run(
        command, env=os.environ | environment | {"TEMPER_TEST_STORE": uri}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
