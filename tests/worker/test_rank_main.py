# SPDX-License-Identifier: Apache-2.0
"""What temper-rank does before any of its commands."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RANK = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")) / "temper-rank"
SPIN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "5000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_that_wait_spin_a_little_unless_the_user_chooses(chosen, expected, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in SPIN} | chosen
    job = tmp_path / "job.json"
    os.mkfifo(job)
    with subprocess.Popen([RANK, "train", job], env=environment, stderr=subprocess.PIPE, text=True) as rank:
        with job.open("w") as file:  # which it reads by now
            words = Path(f"/proc/{rank.pid}/environ").read_bytes().decode().split("\0")
            assert Path(f"/proc/{rank.pid}/comm").read_text().strip() == "temper-rank"
            file.write("{")
        assert "job.json" in rank.communicate()[1]
    found = dict(word.split("=", 1) for word in words if word)
    assert {name: found[name] for name in SPIN if name in found} == expected
