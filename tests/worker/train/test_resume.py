# SPDX-License-Identifier: Apache-2.0
"""Training that was stopped and resumed gives the same weights, bit for bit, as training that never stopped."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from worker.train.backends import ONE_SHOWS_AS_MUCH, TOKEN_ADAPTERS, backend_of, refusal
from worker.train.training_run import STEPS, assert_refused, checkpoint, digests, job, run, train


@pytest.fixture(autouse=True)
def without_transformers(inputs, monkeypatch):
    """Comparing every export with transformers takes longer than training; test_export_verified.py does."""
    if backend_of(inputs) == "native":
        monkeypatch.setenv("TEMPER_PYTHON", "/none")


CHANGES = {
    "fp32": {},
    "bf16": {"training__precision": "PRECISION_BF16"},
    "lora": {"lora": {"rank": 4}},
    "lora-bf16": {"lora": {"rank": 4}, "training__precision": "PRECISION_BF16"},
    "lora-drops": {"lora": {"rank": 4, "dropout": 0.3, "dora": True, "modules_to_save": ["lm_head"]}},
    "lora-tokens": {"lora": {"rank": 4, "dropout": 0.3, "targets": ["lm_head", "embed_tokens"]}},
}


def assert_resumed_equals_never_stopped(inputs, tmp_path, case, stored):
    changes = CHANGES[case]
    model = tmp_path / "model"
    model.mkdir()
    for file in (inputs / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    save_file({k: v.to(stored) for k, v in tensors.items()}, model / "model.safetensors", metadata={"format": "pt"})

    whole_job = job(inputs, tmp_path / "whole", model__uri=str(model), **changes)
    if (refused := refusal(inputs, TOKEN_ADAPTERS)) and case == "lora-tokens":
        assert_refused(whole_job, tmp_path, refused)
        return
    whole = train(whole_job, tmp_path)
    source = checkpoint(tmp_path / "whole", 5)
    resumed = train(
        job(inputs, tmp_path / "resumed", model__uri=str(model), resume_from=str(source), **changes), tmp_path
    )
    assert {"resumed_after": 5, "checkpoint": str(source)} in resumed
    steps = [line for line in resumed if "loss" in line]
    assert [line["step"] for line in steps] == list(range(6, STEPS + 1))
    for line, before in zip(steps, [line for line in whole if "loss" in line][5:], strict=True):
        for figure in ("loss", "grad_norm", "learning_rate", "total_tokens", "epoch"):
            assert line[figure] == before[figure], (figure, line, before)
    before, after = (digests(tmp_path / name / "local/export-e0001") for name in ("whole", "resumed"))
    assert before
    assert after == before
    # The second checkpoint is the same, too, though one was taken by a resumed training. (The first training may have
    # none of step 10: one that is due waits for the one before.)
    train(job(inputs, tmp_path / "second", model__uri=str(model), checkpoints={"every_steps": 10}, **changes), tmp_path)
    files = [
        tmp_path / name / "local/checkpoints/step-00000010-e0001/optimizer/state-00001-of-00001.safetensors"
        for name in ("second", "resumed")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("case", CHANGES)
def test_resumed_equals_never_stopped(inputs, tmp_path, case):
    assert_resumed_equals_never_stopped(inputs, tmp_path, case, torch.bfloat16)


@ONE_SHOWS_AS_MUCH  # of weights that were read, neither backend knows how they are stored
@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16], ids=["F32", "F16"])
def test_resumed_equals_never_stopped_in_other_dtypes(inputs, tmp_path, case, stored):
    assert_resumed_equals_never_stopped(inputs, tmp_path, case, stored)


def test_checkpoint_weights_open_in_transformers(inputs, tmp_path):
    train(job(inputs, tmp_path / "out"), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(checkpoint(tmp_path / "out", 5) / "weights")
    assert model.num_parameters() > 0


def test_checkpoints_by_time(inputs, tmp_path):
    """So little time that one is due after every step; the default of 15 minutes would give none."""
    lines = train(job(inputs, tmp_path / "out", checkpoints={"every_minutes": 1e-6}), tmp_path)
    committed = [line["step"] for line in lines if "pause_seconds" in line]
    assert committed[0] == 1
    assert checkpoint(tmp_path / "out", committed[-1]).is_dir()


def test_keep_last_removes_older_ones_once_a_newer_is_committed(inputs, tmp_path):
    lines = train(job(inputs, tmp_path / "out", checkpoints={"every_steps": 2, "keep_last": 2}), tmp_path)
    events = [
        ("removed", line["checkpoint_removed"]) if "checkpoint_removed" in line else ("committed", line["step"])
        for line in lines
        if "checkpoint_removed" in line or "pause_seconds" in line
    ]
    # How many there are depends on how fast they are written: one that is due waits for the one before.
    committed = [step for kind, step in events if kind == "committed"]
    kept = sorted(path.name for path in (tmp_path / "out/local/checkpoints").iterdir())
    assert kept == [f"step-{step:08}-e0001" for step in committed[-2:]]
    assert [step for kind, step in events if kind == "removed"] == committed[:-2]
    for step, second_next in zip(committed, committed[2:]):
        assert events.index(("removed", step)) > events.index(("committed", second_next))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__steps": 3}, "is at step 5, but the job has only 3 steps"),
        ({"training__tokens_per_step": 512}, "Data, model and data options must be those"),
        ({"lora": {"rank": 4}}, "holds a whole model, but the job has lora"),
        ({"lora": {"rank": 400}}, "lora.rank: 400 is more than model.layers.0.self_attn.q_proj can have"),
        ({"resume_from": "/nonexistent"}, "resume_from: /nonexistent is not a committed checkpoint"),
    ],
)
def test_resume_from_what_does_not_fit_says_so(inputs, tmp_path, changes, message):
    train(job(inputs, tmp_path / "out"), tmp_path)
    spec = job(inputs, tmp_path / "again", **{"resume_from": str(checkpoint(tmp_path / "out", 5))} | changes)
    assert_refused(spec, tmp_path, message)


def test_checkpoint_that_can_not_be_written_is_a_warning(inputs, tmp_path):
    # A file where the directory of checkpoints would be.
    (tmp_path / "out/local").mkdir(parents=True)
    (tmp_path / "out/local/checkpoints").write_text("in the way")
    result = run(job(inputs, tmp_path / "out"), tmp_path)
    assert result.returncode == 0, result.stderr
    assert "the checkpoint of step 5 could not be written; training goes on" in result.stderr


def test_export_that_can_not_be_written_any_more_is_no_mistake_of_the_user(inputs, tmp_path):
    # The output was looked at before the training: what is in the way may be gone when the job is tried again.
    (tmp_path / "out/local").mkdir(parents=True)
    (tmp_path / "out/local/export-e0001").write_text("in the way")
    result = run(job(inputs, tmp_path / "out"), tmp_path)
    assert result.returncode == 1
    assert "STORAGE: " in result.stderr
    assert "Not a directory" in result.stderr


def test_output_of_another_job_is_refused_before_anything_is_read(inputs, tmp_path):
    train(job(inputs, tmp_path / "out"), tmp_path)
    result = run(job(inputs, tmp_path / "out", model__uri="/nonexistent"), tmp_path)
    assert result.returncode == 1
    assert f"{tmp_path}/out/local holds the files of another job (checkpoints, export-e0001)" in result.stderr
