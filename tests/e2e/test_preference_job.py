# SPDX-License-Identifier: Apache-2.0
"""A job that learns from pairs, from its file to the adapter, and everywhere that its figures are told."""

import json
import math
import urllib.request

import pytest
import tiny_chat_model

FIGURES = {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")}
FIGURES |= {"logps/chosen", "logps/rejected", "kl"}


@pytest.fixture
def spec(spec, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    tiny_chat_model.write_pairs(pairs)
    spec["data"]["uri"] = str(pairs)
    return spec | {"method": {"preference": {}}, "lora": {"rank": 8}, "validation": {"share": 0.2}}


def metrics_of(server, job: str) -> dict[str, float]:
    """temper_train_objective of a job, by figure."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("temper_train_objective{") and f'job="{job}"' in line:
            labels, value = line.rsplit(" ", 1)
            found[labels.split('figure="')[1].split('"')[0]] = float(value)
    return found


def run(server, spec: dict, figures: set[str]):
    """(job, its events, its steps), each of which has these figures of its method."""
    job = server.submit(spec)
    assert server.wait_for_end(job)["state"] == "JOB_STATE_SUCCEEDED"
    events = list(server.events(job))
    steps = [event.step for event in events if event.WhichOneof("event") == "step"]
    assert all(set(step.objective) == figures for step in steps)
    return job, events, steps


def test_preference_is_learned_and_told_everywhere(start_server, spec):
    server = start_server(preflights=1)
    job, events, steps = run(server, spec, FIGURES)
    first, last = steps[0], steps[-1]
    assert first.loss == pytest.approx(math.log(2), rel=1e-6)  # the model is its own reference
    assert last.loss < 0.4
    assert last.objective["rewards/accuracies"] == 1
    assert last.objective["rewards/margins"] > 1
    validations = [event.validation for event in events if event.WhichOneof("event") == "validation"]
    assert validations[-1].objective["rewards/accuracies"] > 0.9

    assert metrics_of(server, job) == {name: pytest.approx(value) for name, value in last.objective.items()}
    table = server.temper("metrics", job).stdout.splitlines()
    assert table[0].split()[:4] == ["STEP", "LOSS", "MARGIN", "ACCURACY"]
    assert table[-1].split()[3] == "100.0%"
    watched = server.temper("watch", job).stdout
    assert "accuracy 100.0%" in watched
    with urllib.request.urlopen(f"http://{server.http}/api/v1/jobs/{job}/metrics", timeout=10) as answer:
        columns = json.load(answer)
    assert set(columns) >= FIGURES
    assert len(columns["rewards/margins"]) == len(columns["step"])

    samples = server.get(job)["preflight"]["samples"]
    assert [sample["part"] for sample in samples[:2]] == ["chosen", "rejected"]


def test_all_weights_keep_the_reference_with_the_job(server, spec, tmp_path):
    del spec["lora"]
    job = server.submit(spec)
    assert server.wait_for_end(job)["state"] == "JOB_STATE_SUCCEEDED"
    assert (tmp_path / "output" / job / "reference-e0001/logprobs.safetensors").exists()


def test_job_that_makes_no_sense_is_refused(server, spec):
    spec["lora"]["dropout"] = 0.1
    refused = server.temper("submit", "-", stdin=json.dumps(spec))
    assert refused.returncode == 3
    assert "lora.dropout" in refused.stderr
