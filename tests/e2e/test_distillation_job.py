# SPDX-License-Identifier: Apache-2.0
"""A job that learns from a teacher, from its file to the adapter, and everywhere that its figures are told."""

import json
import urllib.request

import pytest
import tiny_chat_model
from test_preference_job import metrics_of, run

FIGURES = {f"distillation/{name}" for name in ("divergence", "agreement", "cross_entropy", "teacher_cross_entropy")}


@pytest.fixture
def spec(spec, tmp_path):
    teacher = tmp_path / "teacher"
    tiny_chat_model.write_model(teacher, seed=5, hidden_size=96)
    return spec | {"method": {"distillation": {"teacher": str(teacher)}}, "validation": {"share": 0.2}}


def test_teacher_is_learned_from_and_told_everywhere(start_server, spec):
    server = start_server(preflights=1)
    job, events, steps = run(server, spec, FIGURES)
    first, last = steps[0], steps[-1]
    assert last.objective["distillation/divergence"] < 0.8 * first.objective["distillation/divergence"]
    assert last.objective["distillation/agreement"] > first.objective["distillation/agreement"]
    validations = [event.validation for event in events if event.WhichOneof("event") == "validation"]
    assert set(validations[-1].objective) == FIGURES

    assert metrics_of(server, job) == {name: pytest.approx(value) for name, value in last.objective.items()}
    table = server.temper("metrics", job).stdout.splitlines()
    assert table[0].split()[:4] == ["STEP", "LOSS", "DIVERGENCE", "AGREEMENT"]
    assert "agreement" in server.temper("watch", job).stdout
    with urllib.request.urlopen(f"http://{server.http}/api/v1/jobs/{job}/metrics", timeout=10) as answer:
        columns = json.load(answer)
    assert set(columns) >= FIGURES

    checks = server.get(job)["preflight"]["checks"]
    assert any("the teacher has the model's tokens" in check["text"] for check in checks)


def test_teacher_of_other_tokens_is_refused(server, spec, tmp_path):
    tokenizer = tmp_path / "teacher/tokenizer.json"
    content = json.loads(tokenizer.read_text())
    first, second = list(content["model"]["vocab"])[:2]
    vocab = content["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    tokenizer.write_text(json.dumps(content))
    job = server.submit(spec)
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_FAILED"
    assert "method.distillation.teacher" in json.dumps(ended)
