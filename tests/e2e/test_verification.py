# SPDX-License-Identifier: Apache-2.0
"""`temper families`, `temper verify`, and the comparison of a model on which temper comes with no verdict."""

import json
import re
import shutil
from pathlib import Path

import pytest
from e2e import tiny_chat_model
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]


# Figure of a verdict → how it is printed.
FIGURES = {"max_kl_fp32": "1e", "max_gradient_error": "1e", "bf16_mean_ratio": "2f", "bf16_max_ratio": "2f"}


@pytest.fixture
def server(start_server):
    return start_server(transformers=True)


@pytest.fixture
def looking_server(start_server):
    return start_server(preflights=1, transformers=True)


def test_families_are_those_that_were_verified(server):
    found = json.loads(server.temper("families", "--output", "json").stdout)["families"]
    shipped = json.loads((ROOT / "common/family_verdicts.json").read_text())
    assert [family["name"] for family in found] == sorted({row["family"] for row in shipped})
    keys = ("passed", "mechanisms", *FIGURES)
    verdicts = [verdict for family in found for verdict in family["verdicts"]]
    assert [[verdict[key] for key in keys] for verdict in verdicts] == [[row[key] for key in keys] for row in shipped]
    assert all(verdict["passed"] for verdict in verdicts)

    llamas = [row for row in shipped if row["family"] == "llama"]
    worst = {figure: max(row[figure] for row in llamas) for figure in FIGURES}
    table = server.temper("families").stdout
    llama = next(line for line in table.splitlines() if line.startswith("llama "))
    assert llama.split() == ["llama", "passed", *shown(worst), str(len(llamas)), "LlamaForCausalLM"]
    gemmas = [row for row in shipped if row["family"] == "gemma3_text"]
    one = [line.split(maxsplit=5) for line in server.temper("families", "gemma3_text").stdout.splitlines()]
    assert one[2:] == [["passed", *shown(row), ", ".join(row["mechanisms"])] for row in gemmas]


def shown(row):
    """The figures of a verdict as people see them."""
    return [f"{row[figure]:.{digits}}" for figure, digits in FIGURES.items()]


def test_family_that_there_is_not(server):
    result = server.temper("families", "lama")
    assert result.returncode == 4
    assert "did you mean 'llama'?" in result.stderr


def test_verify_through_the_server(server, model):
    result = server.temper("verify", str(model), "--layers", "--gradients")
    assert "text, packed" in result.stdout
    assert "layers: none of" in result.stdout
    assert result.stdout.endswith("PASSED\n")
    assert result.returncode == 0
    assert "jobs" not in json.loads(server.temper("list", "--output", "json").stdout)  # a question, not a job

    found = json.loads(server.temper("verify", str(model), "--dtype", "bf16", "--output", "json").stdout)
    assert found["passed"]
    assert found["figures"]["dtype"] == "bf16"
    assert found["figures"]["logits"][0]["positions"] >= 4096


def test_model_that_does_not_pass_is_exit_code_5(server, model):
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")  # who can say that nothing is the same as nothing?
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    result = server.temper("verify", str(model))
    assert result.returncode == 5
    assert re.search("largest KL is -?nan", result.stdout)
    assert result.stdout.endswith("FAILED\n")
    result = server.temper("verify", str(model), "--output", "json")
    assert result.returncode == 5
    assert not json.loads(result.stdout).get("passed", False)


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
    server = start_server(preflights=1)
    report = json.loads(server.temper("preflight", "-", "--output", "json", stdin=json.dumps(spec)).stdout)
    (warning,) = [check["text"] for check in report["checks"] if "no verdict" in check["text"]]
    assert "qkv_bias" in warning
