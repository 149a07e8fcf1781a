# SPDX-License-Identifier: Apache-2.0
"""`temper families`, `temper verify`, and the comparison of a model on which temper comes with no verdict."""

import json
import shutil
from pathlib import Path

import pytest
from e2e import tiny_chat_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def looking_server(start_server):
    return start_server(preflights=1)


def test_families_are_those_that_were_verified(server):
    found = json.loads(server.temper("families", "--output", "json").stdout)["families"]
    shipped = json.loads((ROOT / "common/family_verdicts.json").read_text())
    assert [family["name"] for family in found] == sorted({row["family"] for row in shipped})
    assert [verdict["mechanisms"] for family in found for verdict in family["verdicts"]] == [
        row["mechanisms"] for row in shipped
    ]
    assert all(verdict["passed"] for family in found for verdict in family["verdicts"])

    table = server.temper("families").stdout
    llama = next(line for line in table.splitlines() if line.startswith("llama "))
    assert "passed" in llama
    assert llama.endswith("LlamaForCausalLM")
    one = server.temper("families", "gemma3_text").stdout
    assert "norm_weight_offset" in one


def test_family_that_there_is_not(server):
    result = server.temper("families", "lama")
    assert result.returncode == 4
    assert "did you mean 'llama'?" in result.stderr


def test_verify_through_the_server(server, model):
    result = server.temper("verify", str(model), "--layers", "--gradients")
    assert "text, packed" in result.stdout
    assert "layers: none of" in result.stdout
    assert result.stdout.endswith("PASSED\n")
    assert "jobs" not in json.loads(server.temper("list", "--output", "json").stdout)  # a question, not a job

    found = json.loads(server.temper("verify", str(model), "--dtype", "bf16", "--output", "json").stdout)
    assert found["passed"]
    assert found["figures"]["dtype"] == "bf16"
    assert found["figures"]["logits"][0]["positions"] >= 4096


def test_verify_what_cannot_be_compared(server, model, tmp_path):
    result = server.temper("verify", str(tmp_path / "nothing"))
    assert result.returncode == 5
    assert "USER_INPUT" in result.stderr
    assert "nothing" in result.stderr
    result = server.temper("verify", str(model), "--dtype", "bf16", "--gradients")
    assert result.returncode == 3
    assert "fp32 only" in result.stderr


def test_unknown_mechanisms_are_compared_before_a_job_is_queued(looking_server, spec, model):
    # No verdict came with biases in attention alone and linear RoPE.
    spec["model"]["uri"] = str(model)
    shutil.rmtree(model)
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    tiny_chat_model.write_model(model, attention_bias=True, rope_parameters=rope)
    report = json.loads(looking_server.temper("preflight", "-", "--output", "json", stdin=json.dumps(spec)).stdout)
    assert "qkv_bias" in report["backend_reason"]
    assert report["backend_reason"].endswith("in the first layers")
    assert not any("verdict" in check["text"] for check in report["checks"])


def test_unknown_mechanisms_without_python_are_warned_of(start_server, spec, model):
    spec["model"]["uri"] = str(model)
    shutil.rmtree(model)
    tiny_chat_model.write_model(model, attention_bias=True)
    server = start_server(preflights=1, environment={"TEMPER_PYTHON": "/none"})
    report = json.loads(server.temper("preflight", "-", "--output", "json", stdin=json.dumps(spec)).stdout)
    (warning,) = [check["text"] for check in report["checks"] if "no verdict" in check["text"]]
    assert "qkv_bias" in warning
