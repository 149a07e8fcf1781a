# SPDX-License-Identifier: Apache-2.0
"""Two ranks judge their numbers as one does, together, and tell how long each of them computed."""

import re
import urllib.request

import pytest
from survival import of_kind

from worker.train import test_policies


@pytest.fixture
def server(start_server):
    return start_server(slots="cpu:2")


@pytest.fixture
def inputs(pristine_model, data, tmp_path):
    """As the tests of policies on one rank have them."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/model").symlink_to(pristine_model)
    (tmp_path / "inputs/train.jsonl").symlink_to(data)
    return tmp_path / "inputs"


@pytest.mark.parametrize(
    ("on_spike", "message", "end"),
    [
        ("ON_SPIKE_WARN", "standard deviations above", "SUCCEEDED"),
        ("ON_SPIKE_SKIP", "the step changes no weight", "SUCCEEDED"),
        ("ON_SPIKE_ROLL_BACK", "going back to the weights of", "SUCCEEDED"),
        ("ON_SPIKE_STOP", "training.numerics.on_spike is stop", "FAILED"),
    ],
)
def test_two_ranks_deal_with_a_spike_as_one_does(server, inputs, tmp_path, on_spike, message, end):
    told, gone_back_to = {}, []
    for ranks in (1, 2):
        spec = test_policies.spike_job(inputs, tmp_path / f"out{ranks}", on_spike, rows_per_step=2)
        spec["resources"]["ranks_per_node"] = ranks
        job = server.submit(spec)
        ended = server.wait_for_end(job)
        assert ended["state"] == f"JOB_STATE_{end}", ended
        events = list(server.events(job))
        said = [line.text for line in of_kind(events, "log")] + [ended.get("reason", "")]
        spike = next(text for text in said if "standard deviations above" in text)
        assert message in spike
        steps = of_kind(events, "step")
        told[ranks] = spike.split()[:2], [(step.step, step.skipped) for step in steps], [step.loss for step in steps]
        gone_back_to.append(re.search(r"step-\d+|$", spike)[0])
    assert told[2][:2] == told[1][:2]
    # Which checkpoint was the newest when the spike came is a question of time.
    compared = len(steps) if gone_back_to[0] == gone_back_to[1] else int(told[1][0][1])
    assert told[2][2][:compared] == pytest.approx(told[1][2][:compared], rel=1e-4)
    if end == "FAILED":
        assert (ended["cause"], ended.get("restarts", 0)) == ("FAILURE_CAUSE_NUMERICS", 0)
        assert f"step {steps[-1].step + 1}" == " ".join(told[2][0])
    else:
        assert any(step.skipped for step in steps) is (on_spike != "ON_SPIKE_WARN")


def test_two_ranks_stop_after_too_many_steps_that_are_not_finite(server, inputs, tmp_path):
    spec = test_policies.broken_job(inputs, tmp_path, training__numerics={"max_skipped_steps": 2})
    test_policies.write_texts(tmp_path / "train.jsonl", ["an @ sign"])
    spec["resources"]["ranks_per_node"] = 2
    ended = server.wait_for_end(server.submit(spec))
    assert ended["state"] == "JOB_STATE_FAILED", ended
    assert ended["cause"] == "FAILURE_CAUSE_NUMERICS"
    assert ended.get("restarts", 0) == 0


def test_each_rank_tells_how_long_it_computed(server, spec):
    spec["training"] |= {"steps": 10, "tokens_per_step": 2048}
    spec["resources"]["ranks_per_node"] = 2
    job = server.submit(spec)
    server.wait_for_end(job)
    steps = of_kind(server.events(job), "step")
    assert [len(step.rank_compute_seconds) for step in steps] == [2] * 10
    for step in steps:
        assert all(0 < seconds <= 1.05 * step.seconds for seconds in step.rank_compute_seconds), step
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    ratios = re.findall(r'^temper_train_rank_compute_ratio\{job=".*",rank="(\d)"\} (\S+)$', page, re.MULTILINE)
    first, second = (float(ratio) for _, ratio in sorted(ratios))
    assert first + second == pytest.approx(2)  # the median of two is their mean
