# SPDX-License-Identifier: Apache-2.0
"""The step loop on several ranks, over real data: the same steps in every world, and the same end on every rank."""

import functools
import json
import os
import subprocess

import pytest
from worker.train.training_run import RANK

PROBE = RANK.parents[1] / "tests/gang_probe"


@pytest.fixture
def run(inputs):
    """Lines of all ranks together."""

    def run(world, *options):
        command = [PROBE, inputs / "model", inputs / "train.jsonl", "--world", str(world), *map(str, options)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ)
        return [json.loads(line) for line in result.stdout.splitlines()], result

    return run


def values(lines, key):
    return [line[key] for line in lines if key in line]


def ends(lines):
    return {line["rank"]: (line["steps"], line["end"]) for line in lines if "rank" in line}


@pytest.mark.parametrize("options", [(), ("--lora",)], ids=["full", "lora"])
def test_every_world_takes_the_same_steps(run, options):
    approximately = functools.partial(pytest.approx, rel=1e-4)
    expected, _ = run(1, *options)
    assert len(values(expected, "validation_loss")) == 1
    for world in (2, 3, 4):
        lines, result = run(world, *options)
        assert ends(lines) == dict.fromkeys(range(world), (4, "done")), result.stderr
        for key in ("step", "scored_tokens"):
            assert values(lines, key) == values(expected, key)
        for key in ("loss", "grad_norm", "validation_loss"):
            assert values(lines, key) == approximately(values(expected, key))


@pytest.mark.parametrize("world", [1, 2])
def test_waiting_for_other_ranks_is_communication(run, world):
    lines, _ = run(world)
    seconds, waited = values(lines, "seconds"), values(lines, "communication")
    assert values(lines, "phases") == pytest.approx(seconds, rel=1e-6)
    if world == 1:
        assert waited == [0] * 4
    else:
        assert all(0 < part < step for part, step in zip(waited, seconds, strict=True))


def test_a_rank_that_is_told_to_stop_ends_all_after_the_same_step(run):
    lines, result = run(3, "--stop-rank", 1, "--stop-after", 1)
    assert ends(lines) == dict.fromkeys(range(3), (2, "stopped on request")), result.stderr


def test_a_rank_that_dies_is_missed_by_the_others(run):
    lines, result = run(3, "--die-rank", 2, "--die-after", 2)
    assert result.returncode != 0
    found = ends(lines)
    assert found.keys() == {0, 1}
    for rank, (steps, end) in found.items():
        assert steps == 2
        assert end.startswith(f"rank {rank} of 3 has lost rank "), result.stderr
    assert any(" has lost rank 2, " in end for _, end in found.values())
