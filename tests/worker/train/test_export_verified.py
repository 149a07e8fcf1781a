# SPDX-License-Identifier: Apache-2.0
"""An export is compared with what transformers computes from it."""

import json
from pathlib import Path

from worker.train.backends import COMPARISON, backend_of, lacks
from worker.train.training_run import job, run


def verification(output: Path) -> dict:
    return json.loads((output / "local/export-e0001/verification.json").read_text())


def test_export_is_compared_with_transformers(inputs, tmp_path):
    result = run(job(inputs, tmp_path / "out", training__steps=2), tmp_path)
    assert result.returncode == 0, result.stderr
    proof = verification(tmp_path / "out")
    assert proof["tensors"]["passed"]
    assert proof["native_reload"]["passed"]
    if lacks(inputs, COMPARISON):
        assert "transformers" not in proof
        return
    found = proof["transformers"]
    assert found["passed"]
    assert found["reasons"] == []
    assert {check["ids"] for check in found["logits"]} == {"random", "text"}
    assert all(0 < check["max_kl"] <= 1e-8 for check in found["logits"])
    assert "not compared with transformers" not in result.stderr


def test_without_python_the_job_warns_and_succeeds(inputs, tmp_path):
    spec = job(inputs, tmp_path / "out", training__steps=2)
    result = run(spec, tmp_path, TEMPER_PYTHON="/nowhere/python")
    if backend_of(inputs) == "hf":
        assert result.returncode == 1
        assert "temper-rank: USER_INPUT: there is no /nowhere/python: set TEMPER_PYTHON" in result.stderr
        return
    assert result.returncode == 0, result.stderr
    assert "the export was not compared with transformers' model: there is no /nowhere/python" in result.stderr
    assert "set TEMPER_PYTHON" in verification(tmp_path / "out")["transformers"]["skipped"]
