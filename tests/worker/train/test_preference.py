# SPDX-License-Identifier: Apache-2.0
"""Whole jobs that learn from pairs: what they learn, resuming bit for bit, several ranks, a stored reference."""

import json
import math
import os
import subprocess

import pytest
from worker.train.backends import ONE_SHOWS_AS_MUCH, backend_of
from worker.train.training_run import RANK, STEPS, assert_refused, checkpoint, digests, job, train

PROBE = RANK.parents[1] / "tests/gang_probe"
LORA = {"lora": {"rank": 4}}
CASES = {
    "new adapters": LORA,
    "all weights": {},
    "whole modules": {"lora": {"rank": 4, "modules_to_save": ["lm_head"]}},
    "simpo": {"method": {"preference": {"loss": "LOSS_SIMPO"}}},
    "orpo": {"method": {"preference": {"loss": "LOSS_ORPO"}}},
}


@pytest.fixture(autouse=True)
def without_transformers(inputs, monkeypatch):
    if backend_of(inputs) == "native":
        monkeypatch.setenv("TEMPER_PYTHON", "/none")


def preference_job(inputs, output, **changes):
    changes = {"method": {"preference": {"beta": 0.5}}} | changes
    return job(inputs, output, data__uri=str(inputs / "pairs.jsonl"), **changes)


def steps_of(lines):
    return [line for line in lines if "grad_norm" in line]


@pytest.mark.parametrize("case", CASES)
def test_pairs_are_learned(inputs, tmp_path, case):
    lines = train(preference_job(inputs, tmp_path / "out", validation={"share": 0.2}, **CASES[case]), tmp_path)
    first, *_, last = steps_of(lines)
    figures = first["objective"]
    if "method" not in CASES[case]:
        # The model is its own reference at first.
        assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)
        assert figures["kl"] == pytest.approx(0, abs=1e-9)
        assert figures["rewards/margins"] == pytest.approx(0, abs=1e-5)
        assert last["objective"]["kl"] > 0
    assert last["loss"] < 0.8 * first["loss"]
    assert last["objective"]["rewards/accuracies"] == 1
    assert last["objective"]["rewards/margins"] > figures["rewards/margins"] + 0.1
    assert last["objective"]["logps/chosen"] > last["objective"]["logps/rejected"]
    validations = [line for line in lines if "validation_loss" in line]
    assert validations[-1]["validation_loss"] < validations[0]["validation_loss"]
    assert validations[-1]["objective"]["rewards/accuracies"] == 1


@pytest.mark.parametrize("case", ["new adapters", "all weights"])
def test_resumed_equals_never_stopped(inputs, tmp_path, case):
    whole = steps_of(train(preference_job(inputs, tmp_path / "whole", **CASES[case]), tmp_path))
    source = checkpoint(tmp_path / "whole", 5)
    resumed = steps_of(
        train(preference_job(inputs, tmp_path / "resumed", resume_from=str(source), **CASES[case]), tmp_path)
    )
    assert [line["step"] for line in resumed] == list(range(6, STEPS + 1))
    for line, before in zip(resumed, whole[5:], strict=True):
        for figure in ("loss", "grad_norm", "objective"):
            assert line[figure] == before[figure]
    before, after = (digests(tmp_path / name / "local/export-e0001") for name in ("whole", "resumed"))
    assert before
    assert after == before


@ONE_SHOWS_AS_MUCH
def test_pair_that_does_not_fit_says_what_to_do(inputs, tmp_path):
    spec = preference_job(inputs, tmp_path / "out", data__max_sample_tokens=100, **LORA)
    assert_refused(spec, tmp_path, "max_sample_tokens (100) is more than half of micro_batch_tokens (128)")


@ONE_SHOWS_AS_MUCH
def test_samples_that_are_no_pairs_are_refused(inputs, tmp_path):
    spec = job(inputs, tmp_path / "out", method={"preference": {}}, **LORA)
    assert_refused(spec, tmp_path, "learn from pairs, but the sample has no `chosen`")


@ONE_SHOWS_AS_MUCH
def test_reference_that_is_stored_needs_data_that_is_read_as_a_whole(inputs, tmp_path):
    many = tmp_path / "many.jsonl"
    pairs = (inputs / "pairs.jsonl").read_text()
    many.write_text(pairs * ((33 << 20) // len(pairs) + 1))
    spec = preference_job(inputs, tmp_path / "out") | {"data": {"uri": str(many)}}
    assert_refused(spec, tmp_path, "more than 32 MiB", "train new adapters", "simpo, orpo")


class Gang:
    """Ranks of one job, in a folder of its own."""

    FIGURES = ("loss", "grad_norm", "kl", "rewards/margins", "rewards/accuracies", "logps/chosen")

    def __init__(self, inputs, folder, method="--preference", figures=FIGURES):
        self.inputs, self.folder, self.method, self.figures = inputs, folder, method, figures

    def run(self, world, *options):
        """(steps of rank 0, what was said)"""
        command = [PROBE, self.inputs / "model", self.inputs / "pairs.jsonl", "--world", world, self.method]
        command += ["--job", self.folder, "--steps", 6, *options]
        result = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=120, check=False, env=os.environ
        )
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        ends = {line["rank"]: (line["steps"], line["end"]) for line in lines if "rank" in line}
        assert ends == dict.fromkeys(range(world), (6, "done")), result.stderr
        return [{name: line[name] for name in self.figures} for line in lines if "grad_norm" in line], result.stderr

    def checkpoint(self, step):
        return self.folder / f"probe/checkpoints/step-{step:08}-e0001"

    def references(self):
        return sorted(path.name for path in (self.folder / "probe").glob("reference-*"))


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("options", [("--lora", "all-linear"), ()], ids=["new adapters", "all weights"])
def test_every_world_takes_the_same_steps(inputs, tmp_path, options):
    """Five rows a step: one of two ranks has nothing to compute with the last one."""
    expected, _ = Gang(inputs, tmp_path / "1").run(1, *options)
    for world in (2, 3):
        found, _ = Gang(inputs, tmp_path / str(world)).run(world, *options)
        for step, alone in zip(found, expected, strict=True):
            assert step == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in alone.items()}


@ONE_SHOWS_AS_MUCH
def test_next_gang_takes_the_reference_that_is_stored(inputs, tmp_path):
    gang = Gang(inputs, tmp_path / "out")
    first, _ = gang.run(1, "--checkpoint-every", 3)
    assert gang.references() == ["reference-e0001"]
    second, said = gang.run(1, "--epoch", 2, "--resume-from", gang.checkpoint(3))
    assert gang.references() == ["reference-e0001"]
    assert second == first[3:]
    others, said = gang.run(2, "--epoch", 3, "--resume-from", gang.checkpoint(3))
    assert gang.references() == ["reference-e0001"], said
    assert others[0] == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in first[3].items()}


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("damage", ["bytes", "data"])
def test_reference_that_does_not_belong_is_computed_again(inputs, tmp_path, damage):
    """Of the model as it was, though training goes on with another one."""
    gang = Gang(inputs, tmp_path / "out")
    first, _ = gang.run(1, "--checkpoint-every", 3)
    stored = tmp_path / "out/probe/reference-e0001/logprobs.safetensors"
    if damage == "bytes":
        stored.write_bytes(stored.read_bytes()[:-1] + b"\x7f")
    else:
        other = Gang(inputs, tmp_path / "other")
        other.inputs = tmp_path / "inputs"
        other.inputs.mkdir()
        (other.inputs / "model").symlink_to(inputs / "model")
        (other.inputs / "pairs.jsonl").write_text((inputs / "pairs.jsonl").read_text().replace("colour", "color"))
        other.run(1)
        for file in (tmp_path / "other/probe/reference-e0001").iterdir():
            (stored.parent / file.name).write_bytes(file.read_bytes())
    second, said = gang.run(1, "--epoch", 2, "--resume-from", gang.checkpoint(3))
    assert "can't be used, and are computed again" in said
    assert gang.references() == ["reference-e0001", "reference-e0002"]
    assert second == first[3:]
