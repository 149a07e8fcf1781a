# SPDX-License-Identifier: Apache-2.0
"""Whole jobs that train reward models: what they learn, what transformers makes of their exports, resuming bit for bit,
several ranks, and what is refused."""

import json
import math

import peft
import pytest
import torch
import torch.nn.functional as F
from e2e import tiny_chat_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from worker.train.backends import ONE_SHOWS_AS_MUCH, REWARD, backend_of, refusal
from worker.train.test_preference import Gang, steps_of
from worker.train.training_run import STEPS, WITHOUT_TRANSFORMERS, assert_refused, checkpoint, digests, job, run, train

CASES = {
    "all weights": {},
    "adapters": {"lora": {"rank": 4}},
    "merged": {"lora": {"rank": 4, "targets": ["all-linear", "embed_tokens"]}, "output__adapters": "ADAPTERS_BOTH"},
    "centred": {"method": {"reward": {"centering": 0.05}}},
}


@pytest.fixture(autouse=True)
def without_transformers(inputs, monkeypatch):
    if backend_of(inputs) == "native":
        for name, value in WITHOUT_TRANSFORMERS.items():
            monkeypatch.setenv(name, value)


def reward_job(inputs, output, **changes):
    pairs = str(inputs / "pairs.jsonl")
    changes = {"method": {"reward": {}}, "validation": {"uri": pairs}} | changes
    return job(inputs, output, **{"data__uri": pairs} | changes)


def validations_of(lines):
    return [line for line in lines if "validation_loss" in line]


def figures_by_transformers(model, tokenizer, answers, centering=0.0):
    """Of pairs as TRL tokenises them, padded together."""
    texts = [text for pair in answers for text in pair]
    if isinstance(texts[0], str):
        batch = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
    else:
        texts = tokenizer.apply_chat_template(texts, tokenize=False)
        batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    chosen, rejected = rewards[0::2], rewards[1::2]
    loss = -F.logsigmoid(chosen - rejected).mean() + centering * (chosen + rejected).square().mean()
    figures = {
        "accuracy": (chosen > rejected).float().mean(),
        "margin": (chosen - rejected).mean(),
        "mean_reward": rewards.mean(),
        "min_reward": rewards.min(),
        "max_reward": rewards.max(),
    }
    return loss.item(), {name: value.item() for name, value in figures.items()}


def read_pairs(path):
    return [(line["chosen"], line["rejected"]) for line in map(json.loads, path.read_text().splitlines())]


def load(directory, **options):
    return AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32, **options).eval()


def assert_same_rewards(validation, loss, figures):
    assert validation["validation_loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert validation["objective"] == {
        name: pytest.approx(value, rel=1e-5, abs=1e-5) for name, value in figures.items()
    }


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("case", CASES)
def test_pairs_are_learned_and_transformers_gives_the_same_rewards(inputs, tmp_path, case):
    lines = train(reward_job(inputs, tmp_path / "out", **CASES[case]), tmp_path)
    first, *_, last = steps_of(lines)
    assert first["loss"] == pytest.approx(math.log(2), rel=0.2)
    assert first["scored_tokens"] % 2 == 0
    assert 0 < first["scored_tokens"] < first["tokens"] / 10  # one an answer
    assert last["loss"] < 0.5 * first["loss"]
    assert last["objective"]["accuracy"] == 1
    validation = validations_of(lines)[-1]
    assert validation["objective"]["accuracy"] == 1

    export, base = tmp_path / "out/local/export-e0001", inputs / "model"
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = read_pairs(inputs / "pairs.jsonl")
    centering = 0.05 if case == "centred" else 0.0
    adapter = {"adapters": export, "merged": export / "adapter"}.get(case)
    if case != "adapters":
        config = json.loads((export / "config.json").read_text())
        assert config["architectures"] == ["LlamaForSequenceClassification"]
        assert config["pad_token_id"] == tokenizer.pad_token_id
        tensors = load_file(export / "model.safetensors")
        assert tensors["score.weight"].shape == (1, 64)
        assert "lm_head.weight" not in tensors
        assert not (export / "generation_config.json").exists()
        model = load(export)
        assert_same_rewards(validation, *figures_by_transformers(model, tokenizer, pairs, centering))
    if adapter:
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
        model = load(base, num_labels=1, pad_token_id=tokenizer.pad_token_id)
        model = peft.PeftModel.from_pretrained(model, adapter).eval()
        assert_same_rewards(validation, *figures_by_transformers(model, tokenizer, pairs, centering))
    proof = json.loads((export / "verification.json").read_text())
    assert proof["tensors"]["passed"]
    assert proof["transformers"]["skipped"]
    if case != "adapters":
        assert proof["native_reload"]["passed"]
        assert proof["native_reload"]["max_score_difference"] <= 1e-5


@ONE_SHOWS_AS_MUCH
def test_texts_are_scored_where_transformers_pools_though_eos_is_padding(inputs, tmp_path):
    """The token before the eos then, which counts as padding."""
    tokenizer = tiny_chat_model.make_tokenizer()
    tokenizer.pad_token = None
    tiny_chat_model.write_model(tmp_path / "model", pad_token_id=None)
    tokenizer.save_pretrained(tmp_path / "model")
    lines = [
        {"prompt": f"The {t} is", "chosen": f" {c}.", "rejected": " wrong"}
        for t, c in zip(tiny_chat_model.THINGS, tiny_chat_model.COLOURS, strict=True)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines * 4)))
    uri = str(tmp_path / "pairs.jsonl")
    spec = reward_job(
        inputs, tmp_path / "out", model__uri=str(tmp_path / "model"), data__uri=uri, validation={"uri": uri}
    )
    validation = validations_of(train(spec, tmp_path))[-1]
    tokenizer.pad_token = tokenizer.eos_token
    model = load(tmp_path / "out/local/export-e0001")
    assert model.config.pad_token_id == tokenizer.eos_token_id
    pairs = [(line["prompt"] + line["chosen"], line["prompt"] + line["rejected"]) for line in lines]
    assert_same_rewards(validation, *figures_by_transformers(model, tokenizer, pairs))


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("case", ["all weights", "adapters"])
def test_resumed_equals_never_stopped(inputs, tmp_path, case):
    whole = steps_of(train(reward_job(inputs, tmp_path / "whole", **CASES[case]), tmp_path))
    source = checkpoint(tmp_path / "whole", 5)
    resumed = steps_of(
        train(reward_job(inputs, tmp_path / "resumed", resume_from=str(source), **CASES[case]), tmp_path)
    )
    assert [line["step"] for line in resumed] == list(range(6, STEPS + 1))
    for line, before in zip(resumed, whole[5:], strict=True):
        for figure in ("loss", "grad_norm", "objective"):
            assert line[figure] == before[figure]
    before, after = (digests(tmp_path / name / "local/export-e0001") for name in ("whole", "resumed"))
    assert before
    assert after == before


@ONE_SHOWS_AS_MUCH
def test_reward_model_goes_on_with_its_score(inputs, tmp_path):
    first = validations_of(train(reward_job(inputs, tmp_path / "first"), tmp_path))[-1]
    export = str(tmp_path / "first/local/export-e0001")
    spec = reward_job(inputs, tmp_path / "second", model__uri=export, training__learning_rate=1e-12)
    second = validations_of(train(spec, tmp_path))[-1]
    assert second["objective"] == {name: pytest.approx(value, rel=1e-5) for name, value in first["objective"].items()}


@ONE_SHOWS_AS_MUCH
@pytest.mark.parametrize("options", [("--lora", "all-linear"), ()], ids=["adapters", "all weights"])
def test_every_world_takes_the_same_steps(inputs, tmp_path, options):
    """Five rows a step: one of two ranks has nothing to compute with the last one."""
    figures = ("loss", "grad_norm", "accuracy", "margin", "mean_reward", "min_reward", "max_reward")
    expected, _ = Gang(inputs, tmp_path / "1", "--reward", figures).run(1, *options)
    for world in (2, 3):
        found, _ = Gang(inputs, tmp_path / str(world), "--reward", figures).run(world, *options)
        for step, alone in zip(found, expected, strict=True):
            assert step == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in alone.items()}


@ONE_SHOWS_AS_MUCH
def test_answers_that_are_too_long_are_left_out(inputs, tmp_path):
    long = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "blue " * 60}]
    short = [long[0], {"role": "assistant", "content": "red"}]
    lines = (inputs / "pairs.jsonl").read_text() + json.dumps({"chosen": long, "rejected": short}) + "\n"
    (tmp_path / "pairs.jsonl").write_text(lines)
    spec = reward_job(inputs, tmp_path / "out", data__uri=str(tmp_path / "pairs.jsonl"), training__steps=1)
    result = run(spec, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "0 longer than 64 tokens were cut off, 1 left out" in result.stderr


@ONE_SHOWS_AS_MUCH
class TestRefused:
    def test_family_without_a_class_in_transformers(self, inputs, tmp_path):
        granite = tmp_path / "granite"
        granite.mkdir()
        for file in (inputs / "model").iterdir():
            (granite / file.name).write_bytes(file.read_bytes())
        config = json.loads((granite / "config.json").read_text()) | {"architectures": ["GraniteForCausalLM"]}
        (granite / "config.json").write_text(json.dumps(config))
        spec = reward_job(inputs, tmp_path / "out", model__uri=str(granite))
        assert_refused(spec, tmp_path, "GraniteForCausalLM with method.reward is not supported", "LlamaForCausalLM")

    def test_reward_model_for_another_method(self, inputs, tmp_path):
        train(reward_job(inputs, tmp_path / "first"), tmp_path)
        export = str(tmp_path / "first/local/export-e0001")
        spec = job(inputs, tmp_path / "second", model__uri=export)
        assert_refused(spec, tmp_path, "LlamaForSequenceClassification says scores, not tokens")

    def test_reward_model_with_two_labels(self, inputs, tmp_path):
        model = AutoModelForSequenceClassification.from_pretrained(inputs / "model", num_labels=2)
        model.save_pretrained(tmp_path / "model")
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (inputs / "model" / name).exists():
                (tmp_path / "model" / name).write_bytes((inputs / "model" / name).read_bytes())
        spec = reward_job(inputs, tmp_path / "out", model__uri=str(tmp_path / "model"))
        assert_refused(spec, tmp_path, "names 2 labels, but a reward is one number")

    def test_language_models_adapter(self, inputs, tmp_path):
        train(job(inputs, tmp_path / "first", lora={"rank": 4}), tmp_path)
        adapter = str(tmp_path / "first/local/export-e0001")
        spec = reward_job(inputs, tmp_path / "second", lora={"adapter": adapter})
        assert_refused(spec, tmp_path, "lora.adapter: it has no score", "output.adapters: merged")

    def test_samples_that_are_no_pairs(self, inputs, tmp_path):
        spec = reward_job(inputs, tmp_path / "out", data__uri=str(inputs / "train.jsonl"))
        assert_refused(spec, tmp_path, "learn from pairs, but the sample has no `chosen`")


def test_only_models_of_our_own_learn_to_score(inputs, tmp_path):
    if message := refusal(inputs, REWARD):
        assert_refused(reward_job(inputs, tmp_path / "out"), tmp_path, message)
