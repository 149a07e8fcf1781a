# SPDX-License-Identifier: Apache-2.0
"""Whole jobs that learn from a teacher: what they learn, resuming bit for bit, several ranks, what is refused."""

import json
import os
import subprocess

import pytest
import torch
from e2e import tiny_chat_model
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from worker.train.backends import DISTILLATION, ONE_SHOWS_AS_MUCH, backend_of, refusal
from worker.train.training_run import RANK, STEPS, assert_refused, checkpoint, digests, job, run, train

PROBE = RANK.parents[1] / "tests/gang_probe"
LORA = {"lora": {"rank": 4}}
CASES = {
    "all weights": {},
    "adapters": {**LORA, "method__distillation__divergence": "DIVERGENCE_JSD"},
    "reverse": {"method__distillation__divergence": "DIVERGENCE_REVERSE_KL", "method__distillation__temperature": 2},
    "mixed": {"method__distillation__sft_weight": 0.5, "method__distillation__divergence": "DIVERGENCE_JSD"},
}
# Of the loss, after all steps. Adapters can't make a head as sure of itself as the teacher's; data and teacher differ.
MOST_LEFT = {"all weights": 0.7, "adapters": 0.96, "reverse": 0.7, "mixed": 0.9}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """Wider and deeper than the model of `inputs`, surer of itself, and with as many spare rows as it has tokens."""
    directory = tmp_path_factory.mktemp("teacher") / "teacher"
    vocab = 2 * len(tiny_chat_model.make_tokenizer())
    tiny_chat_model.write_model(directory, seed=5, hidden_size=96, num_hidden_layers=3, vocab_size=vocab)
    model = LlamaForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def without_transformers(inputs, monkeypatch):
    if backend_of(inputs) == "native":
        monkeypatch.setenv("TEMPER_PYTHON", "/none")


def distillation_job(inputs, output, teacher, **changes):
    return job(inputs, output, method__distillation__teacher=str(teacher), **changes)


def steps_of(lines):
    return [line for line in lines if "grad_norm" in line]


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("case", CASES)
def test_what_the_teacher_says_is_learned(inputs, teacher, tmp_path, case):
    spec = distillation_job(inputs, tmp_path / "out", teacher, validation={"share": 0.2}, **CASES[case])
    lines = train(spec, tmp_path)
    first, *_, last = steps_of(lines)
    divergence = last["objective"]["distillation/divergence"]
    assert divergence > 0
    assert last["loss"] < MOST_LEFT[case] * first["loss"]
    weight = spec["method"]["distillation"].get("sft_weight", 0)
    mixed = (1 - weight) * divergence + weight * last["objective"]["distillation/cross_entropy"]
    assert last["loss"] == pytest.approx(mixed, rel=1e-9)
    assert 0 <= last["objective"]["distillation/agreement"] <= 1
    validations = [line for line in lines if "validation_loss" in line]
    assert validations[-1]["validation_loss"] < validations[0]["validation_loss"]
    figures = validations[-1]["objective"]
    mixed = (1 - weight) * figures["distillation/divergence"] + weight * figures["distillation/cross_entropy"]
    assert validations[-1]["validation_loss"] == pytest.approx(mixed, rel=1e-9)


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("case", ["all weights", "adapters"])
def test_resumed_equals_never_stopped(inputs, teacher, tmp_path, case):
    whole = steps_of(train(distillation_job(inputs, tmp_path / "whole", teacher, **CASES[case]), tmp_path))
    source = checkpoint(tmp_path / "whole", 5)
    resumed_job = distillation_job(inputs, tmp_path / "resumed", teacher, resume_from=str(source), **CASES[case])
    resumed = steps_of(train(resumed_job, tmp_path))
    assert [line["step"] for line in resumed] == list(range(6, STEPS + 1))
    for line, before in zip(resumed, whole[5:], strict=True):
        for figure in ("loss", "grad_norm", "objective"):
            assert line[figure] == before[figure]
    before, after = (digests(tmp_path / name / "local/export-e0001") for name in ("whole", "resumed"))
    assert before
    assert after == before


def write_what_it_says(teacher, path, most=8):
    """The conversations of `inputs`, and of each token that is learned the most probable ones."""
    model = LlamaForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(teacher)
    lines = []
    for messages in tiny_chat_model.conversations():
        question = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        texts = (question, messages[1]["content"] + "<|im_end|>")
        asked, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        with torch.no_grad():
            logits = model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1, : len(tokenizer)]
        top = logits.log_softmax(-1).topk(most)
        said = {"teacher_tokens": top.indices.tolist(), "teacher_logprobs": top.values.tolist()}
        lines.append(json.dumps({"messages": messages} | said))
    path.write_text("\n".join(lines * 4) + "\n")


@ONE_SHOWS_AS_MUCH
def test_what_samples_bring_is_learned_without_a_teacher(inputs, teacher, tmp_path):
    write_what_it_says(teacher, tmp_path / "said.jsonl")
    changes = {"data__uri": str(tmp_path / "said.jsonl"), "method__distillation__sft_weight": 0}
    spec = job(inputs, tmp_path / "whole", validation={"share": 0.2}, **changes)
    lines = train(spec, tmp_path)
    first, *_, last = steps_of(lines)
    assert set(last["objective"]) == {f"distillation/{name}" for name in ("divergence", "cross_entropy", "agreement")}
    assert 0 < last["loss"] < 0.7 * first["loss"]
    assert last["loss"] == pytest.approx(last["objective"]["distillation/divergence"], rel=1e-9)
    validations = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert validations[-1] < validations[0]
    resumed = spec | {
        "output": {"uri": str(tmp_path / "resumed")},
        "resume_from": str(checkpoint(tmp_path / "whole", 5)),
    }
    assert steps_of(train(resumed, tmp_path))[-1]["loss"] == last["loss"]


@ONE_SHOWS_AS_MUCH
def test_samples_that_bring_nothing_say_so(inputs, tmp_path):
    spec = job(inputs, tmp_path / "out", method__distillation__sft_weight=0)
    assert_refused(spec, tmp_path, "line 1: the sample has no `teacher_tokens`: method.distillation has no teacher")


def steps_of_gang(inputs, teacher, folder, world, *options):
    command = [PROBE, inputs / "model", inputs / "train.jsonl", "--world", world, "--teacher", teacher]
    command += ["--job", folder, "--steps", 6, *options]
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    ends = {line["rank"]: (line["steps"], line["end"]) for line in lines if "rank" in line}
    assert ends == dict.fromkeys(range(world), (6, "done")), result.stderr
    figures = ("loss", "grad_norm", "distillation/divergence", "distillation/cross_entropy", "distillation/agreement")
    return [{name: line[name] for name in figures} for line in steps_of(lines)]


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("options", [("--lora", "all-linear"), ()], ids=["adapters", "all weights"])
def test_every_world_takes_the_same_steps(inputs, teacher, tmp_path, options):
    """Five rows a step: one of two ranks has nothing to compute with the last one."""
    expected = steps_of_gang(inputs, teacher, tmp_path / "1", 1, *options)
    for world in (2, 3):
        found = steps_of_gang(inputs, teacher, tmp_path / str(world), world, *options)
        for step, alone in zip(found, expected, strict=True):
            assert step == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in alone.items()}


def test_only_models_of_our_own_learn_from_a_teacher(inputs, teacher, tmp_path):
    if message := refusal(inputs, DISTILLATION):
        assert_refused(distillation_job(inputs, tmp_path / "out", teacher), tmp_path, message)


def preflight(spec, directory):
    file = directory / "job.json"
    file.write_text(json.dumps(spec))
    return subprocess.run([RANK, "preflight", file], capture_output=True, text=True, timeout=60, check=False)


@ONE_SHOWS_AS_MUCH
def test_preflight_counts_the_teacher(inputs, teacher, tmp_path):
    def estimate(spec):
        looked = preflight(spec, tmp_path)
        assert looked.returncode == 0, looked.stderr
        lines = map(json.loads, looked.stdout.splitlines())
        report = next(line["preflight"] for line in lines if "preflight" in line)
        return report["memory"], [check["text"] for check in report["checks"]]

    alone, _ = estimate(job(inputs, tmp_path / "out"))
    together, checks = estimate(distillation_job(inputs, tmp_path / "out", teacher))
    weights = sum(file.stat().st_size for file in teacher.glob("*.safetensors"))
    assert int(together["weights"]) - int(alone["weights"]) == pytest.approx(weights, rel=0.02)
    assert any("the teacher has the model's tokens" in text for text in checks)


@ONE_SHOWS_AS_MUCH
def test_teacher_with_other_tokens_is_refused(inputs, teacher, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in teacher.iterdir():
        (other / file.name).symlink_to(file)
    (other / "tokenizer.json").unlink()
    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|more|>"])
    tokenizer.save(str(other / "tokenizer.json"))
    spec = distillation_job(inputs, tmp_path / "out", other)
    added = tokenizer.token_to_id("<|more|>")
    messages = [
        f"method.distillation.teacher: {other} has another tokenizer than {inputs / 'model'}",
        f"id {added} is no token to the model and '<|more|>' to the teacher",
        "choose a teacher with the model's tokenizer",
    ]
    assert_refused(spec, tmp_path, *messages)
    looked = preflight(spec, tmp_path)
    assert looked.returncode == 1
    assert all(message in looked.stderr for message in messages)


@ONE_SHOWS_AS_MUCH
def test_teacher_that_is_no_family_of_ours_is_refused(inputs, teacher, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in teacher.iterdir():
        (other / file.name).symlink_to(file)
    config = json.loads((teacher / "config.json").read_text()) | {"architectures": ["OtherForCausalLM"]}
    (other / "config.json").unlink()
    (other / "config.json").write_text(json.dumps(config))
    spec = distillation_job(inputs, tmp_path / "out", other)
    assert_refused(spec, tmp_path, "method.distillation.teacher: ", "OtherForCausalLM")


@ONE_SHOWS_AS_MUCH
def test_teacher_with_too_few_positions_says_what_to_set(inputs, tmp_path):
    tiny_chat_model.write_model(tmp_path / "short", max_position_embeddings=64)
    spec = distillation_job(inputs, tmp_path / "out", tmp_path / "short")
    assert_refused(spec, tmp_path, "has 64 positions", "set data.max_sample_tokens to at most 64")
    assert run(spec | {"data": spec["data"] | {"max_sample_tokens": 64}}, tmp_path).returncode == 0
