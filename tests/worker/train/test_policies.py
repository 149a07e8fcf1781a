# SPDX-License-Identifier: Apache-2.0
"""What a job can ask of its training beside the steps: validation, limits, freezing, shapes of the loss, and what
happens when numbers go wrong."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny_models
import torch
from e2e import tiny_chat_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_pt_utils import LabelSmoother
from worker.train.backends import BALANCE_LOSS, LAYERS, ONE_SHOWS_AS_MUCH, RECOMPUTE, lacks, refusal
from worker.train.training_run import STEPS, assert_refused, checkpoint, digests, job, run, train

ONE_TEXT = 32  # tokens of a row that has room for one text of spike_job
# What a step does depends on no step behind it then.
ONE_RATE = {"training__schedule": "SCHEDULE_CONSTANT", "training__warmup_steps": 0}
TEXTS = [f"the {thing} is {colour}" for thing, colour in zip(tiny_chat_model.THINGS, tiny_chat_model.COLOURS)]


def write_texts(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def steps_of(lines):
    return [line for line in lines if "grad_norm" in line]


def validations_of(lines):
    return [line for line in lines if "validation_loss" in line]


def mean_loss(model_directory, tokenizer_directory, texts):
    """Of plain transformers, over every token but the first of each text and the token that ends it."""
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].double().log_softmax(-1)
        total -= logprobs.gather(1, ids[0, 1:, None]).sum().item()
        count += ids.shape[1] - 1
    return total / count


def test_validation_loss_is_that_of_transformers(inputs, tmp_path):
    data = write_texts(tmp_path / "train.jsonl", TEXTS * 8)
    held_out = write_texts(tmp_path / "held_out.jsonl", TEXTS[::-1])
    spec = job(inputs, tmp_path / "out", data__uri=data, validation={"uri": held_out, "every_steps": 5})
    lines = train(spec, tmp_path)
    validations = validations_of(lines)
    assert [line["validated_step"] for line in validations] == [5, 10, 12]
    weights = {10: checkpoint(tmp_path / "out", 10) / "weights", 12: tmp_path / "out/local/export-e0001"}
    for line in validations[1:]:
        expected = mean_loss(weights[line["validated_step"]], inputs / "model", TEXTS)
        assert line["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert {line["scored_tokens"] for line in validations} == {validations[0]["scored_tokens"]}


@ONE_SHOWS_AS_MUCH
def test_validation_by_share_holds_samples_out(inputs, tmp_path):
    texts = [f"the {thing} is {colour}" for thing in tiny_chat_model.THINGS for colour in tiny_chat_model.COLOURS]
    data = write_texts(tmp_path / "train.jsonl", texts)
    spec = job(inputs, tmp_path / "out", data__uri=data, validation={"share": 0.25, "max_samples": 10})
    lines = train(spec, tmp_path)
    found = next(line for line in lines if "data_share" in line)
    assert 40 <= found["samples"] <= 56
    assert found["validation_samples"] == 10
    # Ten in a run by default: every step of twelve.
    assert [line["validated_step"] for line in validations_of(lines)] == list(range(1, STEPS + 1))


@ONE_SHOWS_AS_MUCH
def test_early_stop_ends_the_run_and_keeps_the_best(inputs, tmp_path):
    # What is learned makes the held-out texts less likely, sooner or later.
    data = write_texts(tmp_path / "train.jsonl", TEXTS * 8)
    held_out = write_texts(tmp_path / "held_out.jsonl", ["zzzz qqqq xxxx", "0000 1111 2222"])
    spec = job(
        inputs,
        tmp_path / "out",
        data__uri=data,
        training__steps=200,
        training__schedule="SCHEDULE_CONSTANT",
        validation={"uri": held_out, "every_steps": 2, "early_stop": {"patience": 3}},
        checkpoints={"every_steps": 2, "keep_last": 1},
    )
    result = run(spec, tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    losses = [line["validation_loss"] for line in validations_of(lines)]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) == best + 4
    last = 2 * len(losses)
    assert steps_of(lines)[-1]["step"] == last < 200
    assert f"training ends after step {last}: the validation loss has not been below" in result.stderr
    kept = sorted(path.name for path in (tmp_path / "out/local/checkpoints").iterdir())
    # The best, and the newest, which is as new as the disk allows: it may be the best.
    assert 1 <= len(kept) <= 2
    assert kept[0] == f"step-{2 * (best + 1):08}-e0001"
    assert [line["step"] for line in lines if line.get("best") and "pause_seconds" in line][-1] == 2 * (best + 1)


@ONE_SHOWS_AS_MUCH
def test_a_lower_loss_is_kept_though_it_improves_by_too_little_to_go_on(inputs, tmp_path):
    data = write_texts(tmp_path / "train.jsonl", TEXTS * 8)
    held_out = write_texts(tmp_path / "held_out.jsonl", TEXTS[::-1])  # the loss falls and falls
    changes = {
        "data__uri": data,
        "validation": {"uri": held_out, "every_steps": 2, "early_stop": {"patience": 3, "min_improvement": 100}},
        "checkpoints": {"every_steps": 0, "every_minutes": 0, "keep_last": 10},
    }
    result = run(job(inputs, tmp_path / "out", **changes), tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    validations = validations_of(lines)
    losses = [line["validation_loss"] for line in validations]
    assert losses == sorted(losses, reverse=True)
    assert [line["best"] for line in validations] == [True] * 4
    assert [(line["step"], line["best"]) for line in lines if "pause_seconds" in line] == [
        (step, True) for step in (2, 4, 6, 8)
    ]
    assert (
        f"training ends after step 8: the validation loss has not been below {losses[0]:.6g} by more than 100 for "
        "3 validations; the lowest was that of step 8"
    ) in result.stderr

    # Patience is in the checkpoint.
    source = checkpoint(tmp_path / "out", 6)
    resumed = train(job(inputs, tmp_path / "resumed", resume_from=str(source), **changes), tmp_path)
    assert [line["validated_step"] for line in validations_of(resumed)] == [8]
    assert steps_of(resumed)[-1]["step"] == 8


def test_validation_goes_on_as_if_never_stopped(inputs, tmp_path):
    data = write_texts(tmp_path / "train.jsonl", TEXTS * 8)
    changes = {"data__uri": data, "validation": {"share": 0.2, "every_steps": 3}}
    whole = train(job(inputs, tmp_path / "whole", **changes), tmp_path)
    source = checkpoint(tmp_path / "whole", 3)
    resumed = train(job(inputs, tmp_path / "resumed", resume_from=str(source), **changes), tmp_path)
    for line in validations_of(whole) + validations_of(resumed):
        line.pop("seconds")
    assert validations_of(resumed) == validations_of(whole)[1:]
    assert digests(tmp_path / "resumed/local/export-e0001") == digests(tmp_path / "whole/local/export-e0001")


@ONE_SHOWS_AS_MUCH
def test_a_checkpoint_after_its_own_validation_does_not_repeat_it(inputs, tmp_path):
    data = write_texts(tmp_path / "train.jsonl", TEXTS * 8)
    changes = {"data__uri": data, "validation": {"share": 0.2, "every_steps": 5}}
    train(job(inputs, tmp_path / "whole", **changes), tmp_path)
    source = checkpoint(tmp_path / "whole", 10)
    resumed = train(job(inputs, tmp_path / "resumed", resume_from=str(source), **changes), tmp_path)
    assert [line["validated_step"] for line in validations_of(resumed)] == [12]


@ONE_SHOWS_AS_MUCH
def test_max_minutes_ends_with_an_export(inputs, tmp_path):
    result = run(job(inputs, tmp_path / "out", training__max_minutes=1e-6), tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(steps_of(lines)) == 1
    assert "training ends after step 1: it has taken 1e-06 minutes, as training.max_minutes allows" in result.stderr
    assert any("export" in line for line in lines)


@ONE_SHOWS_AS_MUCH
def test_length_in_tokens(inputs, tmp_path):
    spec = job(inputs, tmp_path / "out", training__tokens=1000)
    del spec["training"]["steps"]
    assert [line["total_steps"] for line in steps_of(train(spec, tmp_path))] == [4] * 4


def test_phases_sum_to_the_step(inputs, tmp_path):
    steps = steps_of(train(job(inputs, tmp_path / "out"), tmp_path))
    for line in steps:
        assert sum(line["phases"].values()) == pytest.approx(line["seconds"], rel=1e-6)
        assert line["phases"]["communication"] == 0
    for phase in ("data", "forward", "backward", "optimizer"):
        assert all(line["phases"][phase] > 0 for line in steps), phase
    # The snapshot of step 5 is taken between it and the next.
    assert steps[5]["phases"]["checkpoint"] > 10 * steps[4]["phases"]["checkpoint"]


@pytest.mark.parametrize("precision", ["PRECISION_FP32", "PRECISION_BF16"])
def test_frozen_weights_stay_and_others_do_not(inputs, tmp_path, precision):
    patterns = ["model.embed_tokens.*", "*.0.self_attn.q_proj.weight", "model.layers.1.*", "lm_head.weight"]
    changes = {"training__freeze": patterns, "training__precision": precision}
    train(job(inputs, tmp_path / "out", **changes), tmp_path)
    before = load_file(inputs / "model/model.safetensors")
    after = load_file(tmp_path / "out/local/export-e0001/model.safetensors")
    # bf16 compute moves one fp32 value in 131,072 by its last bit when it splits masters (worker/model/master_split.h).
    units = 1 if precision == "PRECISION_BF16" else 0
    frozen = {
        name for name in before if (before[name].view(torch.int32) - after[name].view(torch.int32)).abs().max() <= units
    }
    assert frozen == {
        name
        for name in before
        if name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight")
        or name.startswith("model.layers.1.")
    }
    source = checkpoint(tmp_path / "out", 5)
    train(job(inputs, tmp_path / "resumed", resume_from=str(source), **changes), tmp_path)
    assert digests(tmp_path / "resumed/local/export-e0001") == digests(tmp_path / "out/local/export-e0001")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["model.layers.7.*"], "'model.layers.7.*' matches no weight of the model; its weights have names like"),
        (["*"], "all weights are frozen: nothing is left to train"),
    ],
)
def test_freezing_what_makes_no_sense_says_so(inputs, tmp_path, patterns, message):
    assert_refused(job(inputs, tmp_path / "out", training__freeze=patterns), tmp_path, message)


def test_label_smoothing_and_z_loss_are_those_of_transformers(inputs, tmp_path):
    text = TEXTS[0]
    data = write_texts(tmp_path / "train.jsonl", [text])
    spec = job(
        inputs,
        tmp_path / "out",
        data__uri=data,
        training__steps=1,
        training__label_smoothing=0.1,
        training__z_loss=0.01,
    )
    loss = steps_of(train(spec, tmp_path))[0]["loss"]
    model = AutoModelForCausalLM.from_pretrained(inputs / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
    logits = model(ids).logits
    smoothed = LabelSmoother(epsilon=0.1)({"logits": logits}, ids, shift_labels=True)
    z = 0.01 * logits[0, :-1].logsumexp(-1).square().mean()
    assert loss == pytest.approx((smoothed + z).item(), rel=1e-5)


def weights_of(directory):
    """Bytes of every tensor."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(directory / "model.safetensors").items()}


def weights_after(spec, steps, tmp_path):
    """Those that the job has after so many steps, and what it said."""
    output = tmp_path / "part"
    spec = spec | {"training": spec["training"] | {"steps": steps}, "output": {"uri": str(output)}}
    shutil.rmtree(output, ignore_errors=True)
    result = run(spec, tmp_path, compared=False)
    assert result.returncode == 0, result.stderr
    return weights_of(output / "local/export-e0001"), result.stderr


def write_model(inputs, directory, change):
    """The tiny model with `change(tensors)`."""
    shutil.copytree(inputs / "model", directory, dirs_exist_ok=True)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return str(directory)


def write_model_with_a_broken_token(inputs, directory):
    """Whoever reads an "@" gets no number."""
    token = AutoTokenizer.from_pretrained(inputs / "model")("@")["input_ids"][0]
    return write_model(
        inputs, directory, lambda tensors: tensors["model.embed_tokens.weight"][token].fill_(float("nan"))
    )


def write_model_with_opinions(inputs, directory):
    """Its losses differ much from text to text, though it knows nothing."""
    return write_model(inputs, directory, lambda tensors: tensors["lm_head.weight"].mul_(20))


def broken_job(inputs, tmp_path, **changes):
    """Every second step reads the broken token. The short text is in the row that is packed last: not in the first one,
    with which an export is verified."""
    return job(
        inputs,
        tmp_path / "out",
        model__uri=write_model_with_a_broken_token(inputs, tmp_path / "model"),
        data__uri=write_texts(tmp_path / "train.jsonl", [*TEXTS[:7], "@ @"]),
        training__tokens_per_step=32,
        training__micro_batch_tokens=32,
        training__freeze=["model.embed_tokens.*"],
        **changes,
    )


def test_a_step_that_is_not_finite_changes_no_weight(inputs, tmp_path):
    result = run(broken_job(inputs, tmp_path), tmp_path)
    assert result.returncode == 0, result.stderr
    steps = steps_of([json.loads(line) for line in result.stdout.splitlines()])
    skipped = [line["step"] for line in steps if line["skipped"]]
    assert len(steps) == STEPS
    assert 1 <= len(skipped) < STEPS
    assert all(line["loss"] is None for line in steps if line["skipped"])
    assert f"the loss of step {skipped[0]} is not finite: the step changes no weight" in result.stderr
    exported = load_file(tmp_path / "out/local/export-e0001/model.safetensors")
    assert not any(t.isnan().any() for name, t in exported.items() if name != "model.embed_tokens.weight")

    # The model as it is before, after, and one good step behind a step that was skipped.
    step = next(step for step in skipped if step > 1 and {step - 1, step + 1}.isdisjoint(skipped))
    spec = broken_job(inputs, tmp_path, **ONE_RATE)
    before, after, behind = (weights_after(spec, step + i, tmp_path)[0] for i in (-1, 0, 1))
    assert before == after != behind


def test_too_many_skipped_steps_end_the_job(inputs, tmp_path):
    spec = broken_job(inputs, tmp_path, training__numerics={"max_skipped_steps": 2})
    write_texts(tmp_path / "train.jsonl", ["an @ sign"])
    result = run(spec, tmp_path)
    assert result.returncode == 1
    assert "NUMERICS" in result.stderr
    assert "the loss of step 2 is not finite, as in 2 steps in a row" in result.stderr


def spike_job(inputs, output, on_spike, rows_per_step=1, **changes):
    """The same text again and again, at a learning rate that teaches nothing; the loss of one other stands out."""
    model = write_model_with_opinions(inputs, output.parent / "model")
    texts = sorted(
        (f"{text} {text}, {text} {text}" for text in TEXTS), key=lambda text: mean_loss(model, model, [text])
    )
    data = write_texts(output.parent / "spike.jsonl", [texts[0]] * (81 * rows_per_step - 1) + [texts[-1]])
    return job(
        inputs,
        output,
        model__uri=model,
        data__uri=data,
        training__steps=81,
        training__tokens_per_step=rows_per_step * ONE_TEXT,
        training__micro_batch_tokens=ONE_TEXT,
        training__learning_rate=1e-7,
        training__numerics={"on_spike": on_spike},
        training__seed=1,
        **{"checkpoints": {"every_steps": 10, "keep_last": 10}} | changes,
    )


def test_what_a_spike_does_to_the_weights(inputs, tmp_path):
    spec = spike_job(inputs, tmp_path / "out", "ON_SPIKE_WARN", **ONE_RATE)
    _, said = weights_after(spec, 81, tmp_path)
    spike = int(re.search(r"step (\d+) has .* standard deviations above", said)[1])
    before, _ = weights_after(spec, spike - 1, tmp_path)
    assert weights_after(spec, spike, tmp_path)[0] != before  # slow as it is, it learns

    spec["training"]["numerics"]["on_spike"] = "ON_SPIKE_SKIP"
    assert weights_after(spec, spike, tmp_path)[0] == before

    spec["training"]["numerics"]["on_spike"] = "ON_SPIKE_ROLL_BACK"
    back, said = weights_after(spec, spike, tmp_path)
    checkpoint = Path(re.search(r"going back to the weights of (\S+)", said)[1].removeprefix("file://"))
    assert back == weights_of(checkpoint / "weights")
    assert back != before


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize(
    ("on_spike", "message", "skips"),
    [
        ("ON_SPIKE_WARN", "standard deviations above", False),
        ("ON_SPIKE_SKIP", "the step changes no weight", True),
        ("ON_SPIKE_ROLL_BACK", "going back to the weights of", True),
    ],
)
def test_a_spike_is_found_and_dealt_with(inputs, tmp_path, on_spike, message, skips):
    result = run(spike_job(inputs, tmp_path / "out", on_spike), tmp_path)
    assert result.returncode == 0, result.stderr
    steps = steps_of([json.loads(line) for line in result.stdout.splitlines()])
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    spikes = [line for line in result.stderr.splitlines() if "standard deviations above" in line]
    assert spikes
    assert message in spikes[0]
    step = int(spikes[0].split()[1])
    assert step > 32
    assert steps[step - 1]["skipped"] is skips


@ONE_SHOWS_AS_MUCH
def test_a_spike_may_end_the_job(inputs, tmp_path):
    result = run(spike_job(inputs, tmp_path / "out", "ON_SPIKE_STOP"), tmp_path)
    assert result.returncode == 1
    spike = int(re.search(r"NUMERICS: step (\d+) has .* and training.numerics.on_spike is stop", result.stderr)[1])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert steps_of(lines)[-1]["step"] == spike - 1
    assert "checkpoint" in lines[-1]  # none that was being written is lost


@ONE_SHOWS_AS_MUCH
def test_roll_back_without_a_checkpoint_skips(inputs, tmp_path):
    spec = spike_job(inputs, tmp_path / "out", "ON_SPIKE_ROLL_BACK", checkpoints={"every_minutes": 0})
    result = run(spec, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "there is no checkpoint to go back to, the step changes no weight" in result.stderr


def test_training_after_a_roll_back_can_be_resumed(inputs, tmp_path, monkeypatch):
    # Slowly, so that each checkpoint is written before the next one is due, which would wait otherwise.
    monkeypatch.setenv("TEMPER_CPU_KERNELS", "none")
    whole = train(spike_job(inputs, tmp_path / "out", "ON_SPIKE_ROLL_BACK"), tmp_path)
    spike = next(line["step"] for line in steps_of(whole) if line["skipped"])
    # The newest one: of those that fall due while another is written, the last only waits.
    source = max((tmp_path / "out/local/checkpoints").glob("*/manifest.json")).parent
    assert source > checkpoint(tmp_path / "out", spike)
    train(spike_job(inputs, tmp_path / "resumed", "ON_SPIKE_ROLL_BACK", resume_from=str(source)), tmp_path)
    assert digests(tmp_path / "resumed/local/export-e0001") == digests(tmp_path / "out/local/export-e0001")


def test_profile_records_the_steps_that_were_asked_for_and_changes_nothing(inputs, tmp_path):
    spec = job(inputs, tmp_path / "plain")
    train(spec, tmp_path)
    spec = job(inputs, tmp_path / "profiled", profile={"first_step": 3, "steps": 2})
    train(spec, tmp_path)
    (trace,) = (tmp_path / "profiled/local/profile-e0001").iterdir()
    assert trace.name == "steps-3-4.json"
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"step 3", "step 4", "LM head and loss", "optimizer"} <= names
    assert ({"forward, unit 0", "backward, unit 0"} <= names) is not lacks(inputs, LAYERS)
    assert not {"step 2", "step 5"} & names
    assert any(name.startswith("aten::") for name in names if name)
    exports = [digests(tmp_path / out / "local/export-e0001") for out in ("plain", "profiled")]
    assert exports[0] == exports[1]


def test_recomputed_activations_change_no_bit_of_what_is_trained(inputs, tmp_path):
    spec = job(inputs, tmp_path / "again", training__recompute="RECOMPUTE_BLOCK")
    if refused := refusal(inputs, RECOMPUTE):
        assert_refused(spec, tmp_path, refused)
        return
    train(spec, tmp_path, compared=False)
    train(job(inputs, tmp_path / "kept", training__recompute="RECOMPUTE_NONE"), tmp_path, compared=False)
    exports = [digests(tmp_path / out / "local/export-e0001") for out in ("again", "kept")]
    assert exports[0] == exports[1]


def test_experts_are_used_evenly_where_the_model_asks_for_it(inputs, tmp_path):
    """What config.json says is no matter of taste: the loss is another one with it."""
    losses = {}
    for asked in (False, True):
        model = tmp_path / f"model-{asked}"
        tokenizer = tiny_chat_model.make_tokenizer()
        tokenizer.save_pretrained(model)
        shape = tiny_models.VARIANTS["mixtral"]["balanced_window"] | {"output_router_logits": asked}
        tiny_models.make(model, "mixtral", vocab_size=len(tokenizer), **shape)
        spec = job(inputs, tmp_path / f"out-{asked}", model__uri=str(model), training__steps=1)
        if asked and (refused := refusal(inputs, BALANCE_LOSS)):
            assert_refused(spec, tmp_path, refused)
            return
        losses[asked] = steps_of(train(spec, tmp_path, compared=False))[0]["loss"]
    assert losses[True] > losses[False]
