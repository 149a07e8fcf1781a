# SPDX-License-Identifier: Apache-2.0
"""An export is compared with what transformers computes from it."""

import json
from pathlib import Path

from worker.train.training_run import job, run


def verification(output: Path) -> dict:
    return json.loads((output / "local/export-e0001/verification.json").read_text())


def test_export_is_compared_with_transformers(inputs, tmp_path):
    result = run(job(inputs, tmp_path / "out", training__steps=2), tmp_path)
    assert result.returncode == 0, result.stderr
    found = verification(tmp_path / "out")["transformers"]
    assert found["passed"]
    assert found["reasons"] == []
    assert {check["ids"] for check in found["logits"]} == {"random", "text"}
    assert all(0 < check["max_kl"] <= 1e-8 for check in found["logits"])
    assert "not compared with transformers" not in result.stderr


def test_without_python_the_job_warns_and_succeeds(inputs, tmp_path):
    result = run(job(inputs, tmp_path / "out", training__steps=2), tmp_path, TEMPER_PYTHON="/nowhere/python")
    assert result.returncode == 0, result.stderr
    assert "the export was not compared with transformers' model: there is no /nowhere/python" in result.stderr
    assert "set TEMPER_PYTHON" in verification(tmp_path / "out")["transformers"]["skipped"]
