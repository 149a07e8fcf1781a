# SPDX-License-Identifier: Apache-2.0
"""A reward model, from its job file to the export, and everywhere that its figures are told."""

import json

import pytest
import tiny_chat_model
from test_preference_job import metrics_of, run

FIGURES = {"accuracy", "margin", "mean_reward", "min_reward", "max_reward"}


@pytest.fixture
def spec(spec, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    tiny_chat_model.write_pairs(pairs)
    spec["data"]["uri"] = str(pairs)
    return spec | {"method": {"reward": {"centering": 0.01}}, "lora": {"rank": 8}, "validation": {"share": 0.2}}


def test_reward_model_is_learned_and_told_everywhere(start_server, spec, tmp_path):
    server = start_server(preflights=1)
    job, _, steps = run(server, spec, FIGURES)
    last = steps[-1]
    assert last.loss < 0.5 * steps[0].loss
    assert last.objective["accuracy"] == 1
    assert last.objective["min_reward"] < last.objective["mean_reward"] < last.objective["max_reward"]

    assert metrics_of(server, job) == {name: pytest.approx(value) for name, value in last.objective.items()}
    table = server.temper("metrics", job).stdout.splitlines()
    assert table[0].split()[:4] == ["STEP", "LOSS", "MARGIN", "ACCURACY"]
    assert table[-1].split()[3] == "100.0%"
    assert "accuracy 100.0%" in server.temper("watch", job).stdout

    preflight = server.get(job)["preflight"]
    assert [sample["part"] for sample in preflight["samples"][:2]] == ["chosen", "rejected"]
    pieces = preflight["samples"][0]["pieces"]
    assert [piece.get("scored", False) for piece in pieces] == [False, True]
    assert pieces[-1]["text"] == "\n"  # behind the token that ends the turn
    assert any("the export is a LlamaForSequenceClassification" in check["text"] for check in preflight["checks"])
    config = json.loads((tmp_path / "output" / job / "export-e0001/adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"


def test_job_that_makes_no_sense_is_refused(server, spec):
    spec["output"]["adapter_format"] = "vllm"
    refused = server.temper("submit", "-", stdin=json.dumps(spec))
    assert refused.returncode == 3
    assert "output.adapter_format" in refused.stderr
