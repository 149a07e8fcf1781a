# SPDX-License-Identifier: Apache-2.0
"""Model and data are looked at before a job is queued, and by `temper preflight` without any job."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import smollm2
import torch
from e2e import tiny_chat_model
from e2e.temper_server import BIN, wait_until
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parents[2]
# Times the tiny data: nearly 32 MiB, more than which comes in blocks.
MOST_READ_AT_ONCE = 32_000


@pytest.fixture
def looking_server(start_server):
    return start_server(preflights=2)


def state_changes(server, job):
    """(state, reason) of each, in order."""
    job_state = server.protos.training_service.JobState
    events = server.events(job.removeprefix("jobs/"))
    return [(job_state.Name(e.state.state), e.state.reason) for e in events if e.WhichOneof("event") == "state"]


def states(server, job):
    return [state.removeprefix("JOB_STATE_") for state, _ in state_changes(server, job)]


def preflight(server, spec, *options):
    return server.temper("preflight", "-", *options, stdin=json.dumps(spec))


def warnings_of(report):
    return [check["text"] for check in report["checks"] if check["severity"] == "LOG_SEVERITY_WARNING"]


def run_rank(command, spec, directory):
    file = directory / "job.json"
    file.write_text(json.dumps(spec))
    # What is asked for here is training; the comparison of its export with transformers takes longer than it.
    result = subprocess.run(
        [BIN / "temper-rank", command, file],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"TEMPER_PYTHON": "/none"},
    )
    return result, [json.loads(line) for line in result.stdout.splitlines()]


def spoil_config(model, spec):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 40}))
    return "wrong shape for this config.json: "


def spoil_names(model, spec):
    tensors = load_file(model / "model.safetensors")
    tensors["model.odd.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return "tensors missing: model.norm.weight; tensors that LlamaForCausalLM with this config.json does not have: "


def spoil_dtype(model, spec):
    import torch

    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return "dtypes that can't be trained (F32, F16 and BF16 can): model.norm.weight (I8)"


def spoil_tied_head(model, spec):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    return "lm_head.weight and model.embed_tokens.weight differ. Set it to false to keep both, or remove lm_head.weight"


def spoil_freeze(model, spec):
    spec["training"]["freeze"] = ["model.embedding.*"]
    return "training.freeze: 'model.embedding.*' matches no weight of the model"


@pytest.mark.parametrize(
    ("spoil", "changes"),
    [
        (spoil_config, {}),
        (spoil_config, {"lora": {"targets": ["q_proj"]}}),
        (spoil_names, {}),
        (spoil_dtype, {"lora": {"targets": ["q_proj"], "modules_to_save": ["lm_head"]}}),
        (spoil_tied_head, {}),
        (spoil_freeze, {}),
    ],
)
def test_wrong_checkpoint_is_found_without_loading_it(spoil, changes, model, spec, tmp_path):
    spec["model"]["uri"] = str(model)
    message = spoil(model, spec)
    result, lines = run_rank("preflight", spec | changes, tmp_path)
    assert result.returncode == 1
    assert f"temper-rank: USER_INPUT: {model if spoil is not spoil_freeze else ''}" in result.stderr
    assert message in result.stderr
    assert lines == [{"phase": "PHASE_PREPARING_DATA", "total_steps": 0}]


def report_of(spec, directory):
    result, lines = run_rank("preflight", spec, directory)
    assert result.returncode == 0, result.stderr
    return next(line["preflight"] for line in lines if "preflight" in line)


def test_a_job_is_looked_at_before_it_is_queued(looking_server, spec):
    job = looking_server.submit(spec)
    found = looking_server.wait_for_end(job)
    assert found["state"] == "JOB_STATE_SUCCEEDED"
    assert states(looking_server, job) == (
        "QUEUED CHECKING STOPPING QUEUED STARTING RUNNING STOPPING SUCCEEDED".split()
    )
    assert found["epoch"] == 1  # a look is no launch
    assert found.get("restarts", 0) == 0
    report = found["preflight"]
    assert report["backend"] == "native"
    assert int(report["total_steps"]) == int(found["total_steps"]) == 60
    assert report["data"]["samples_kept"] == found["data"]["samples_kept"] == "32"
    learned = "".join(piece["text"] for piece in report["samples"][0]["pieces"] if piece.get("scored"))
    assert learned == "The apple is red.<|im_end|>"
    everything = "".join(piece["text"] for piece in report["samples"][0]["pieces"])
    assert everything.startswith("<|im_start|>user\nWhat colour is the apple?<|im_end|>")


def test_a_job_that_waits_for_a_slot_has_been_looked_at(start_server, endless_spec, spec, tmp_path):
    server = start_server(preflights=2)
    first = server.submit(endless_spec)
    server.wait_for_step(first)
    spec["output"]["uri"] = str(tmp_path / "second")
    second = server.submit(spec)
    server.wait_for(second, lambda event: event.WhichOneof("event") == "preflight")
    third = server.submit(spec | {"output": {"uri": str(tmp_path / "third")}, "priority": 5})
    server.wait_for(third, lambda event: event.WhichOneof("event") == "preflight")

    def positions():
        return [server.get(job).get("queue_position", 0) for job in (third, second)]

    wait_until(lambda: positions() == [1, 2])
    for job in (second, third, first):
        server.temper("cancel", job)


def test_what_is_wrong_ends_the_job_before_it_takes_a_slot(looking_server, endless_spec, spec, tmp_path):
    running = looking_server.submit(endless_spec)
    looking_server.wait_for_step(running)
    spec["data"]["uri"] = str(tmp_path / "nothing.jsonl")
    spec["output"]["uri"] = str(tmp_path / "other")
    found = looking_server.wait_for_end(looking_server.submit(spec))
    assert found["state"] == "JOB_STATE_FAILED"
    assert found["cause"] == "FAILURE_CAUSE_USER_INPUT"
    assert "there is no data file" in found["reason"]
    assert found.get("epoch", 0) == 0
    looking_server.temper("cancel", running)


def test_skip_preflight(looking_server, spec):
    job = looking_server.submit(spec, "--skip-preflight")
    found = looking_server.wait_for_end(job)
    assert found["state"] == "JOB_STATE_SUCCEEDED"
    assert "preflight" not in found
    assert "CHECKING" not in states(looking_server, job)


def test_a_preflight_that_dies_does_not_stop_the_job(start_server, spec, tmp_path):
    fault = {"TEMPER_FAULT": "rank.preflight.before_report", "TEMPER_FAULT_DIR": str(tmp_path)}
    server = start_server(preflights=1, environment=fault)
    found = server.wait_for_end(server.submit(spec))
    assert found["state"] == "JOB_STATE_SUCCEEDED"
    assert found.get("restarts", 0) == 0
    reasons = [reason for _, reason in state_changes(server, found["name"])]
    assert any(reason.startswith("goes on without a preflight, which ended with RANK_LOST") for reason in reasons)


def test_a_server_that_is_killed_adopts_a_preflight(start_server, spec):
    server = start_server(preflights=1)
    job = server.submit(spec)
    server.wait_for_state(job, "CHECKING")
    server.kill()
    server.start()
    found = server.wait_for_end(job)
    assert found["state"] == "JOB_STATE_SUCCEEDED"
    assert found["preflight"]["backend"] == "native"


def assert_counts_are_shown(text, model):
    """Of the data in four copies, in rows of 256 tokens."""
    tokens, scored = token_counts(AutoTokenizer.from_pretrained(model), [*tiny_chat_model.conversations()])
    assert f"\nTokens    {4 * tokens}, {scored / tokens:.1%} of them learned\n" in text
    rows = int(re.search(r"^Rows +(\d+) a pass", text, re.MULTILINE)[1])
    assert 256 * rows >= 4 * tokens
    assert f"\nRows      {rows} a pass over the data, {1 - 4 * tokens / (256 * rows):.1%} of their room left\n" in text


def test_temper_preflight_shows_what_is_learned_and_leaves_no_job(server, spec, pristine_model):
    result = preflight(server, spec)
    assert result.returncode == 0, result.stderr
    assert "What colour is the apple?" in result.stdout
    assert "⟦The apple is red.<|im_end|>⟧" in result.stdout
    assert "Samples   32 of 32, 0 cut off, 0 too long, 0 with nothing to learn" in result.stdout
    assert "Steps     60" in result.stdout
    assert_counts_are_shown(result.stdout, pristine_model)
    assert "of memory" in result.stdout
    assert "Backend   native: " in result.stdout
    assert "and generation stops there" in result.stdout
    assert "jobs" not in server.json("list")
    assert not Path(spec["output"]["uri"]).exists() or not list(Path(spec["output"]["uri"]).iterdir())


def test_temper_preflight_in_colour(server, spec):
    shown = preflight(server, spec, "--color", "always").stdout
    assert "<|im_start|>assistant\n\x1b[0m\x1b[32mThe apple is red.<|im_end|>\x1b[0m" in shown
    assert "⟦" not in shown


def test_temper_preflight_of_what_is_wrong(server, spec, tmp_path):
    spec["model"]["uri"] = str(tmp_path / "no-model")
    result = preflight(server, spec)
    assert result.returncode == 5
    assert "USER_INPUT" in result.stderr
    assert "no-model" in result.stderr
    assert "jobs" not in server.json("list")


def test_temper_preflight_goes_before_and_beside_running_jobs(server, endless_spec, spec, tmp_path):
    running = server.submit(endless_spec)
    server.wait_for_step(running)
    spec["output"]["uri"] = str(tmp_path / "other")
    spec["training"]["steps"] = 60
    report = json.loads(preflight(server, spec, "--output", "json").stdout)
    assert int(report["total_steps"]) == 60
    server.temper("cancel", running)


def test_ctrl_c_ends_the_preflight(server, spec, tmp_path):
    # As much data as is read at once: it takes a while.
    tiny_chat_model.write_data(tmp_path / "much.jsonl", repeat=MOST_READ_AT_ONCE)
    spec["data"]["uri"] = str(tmp_path / "much.jsonl")
    process = subprocess.Popen(
        [BIN / "temper", "preflight", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TEMPER_SERVER": server.listen},
    )
    process.stdin.write(json.dumps(spec))
    process.stdin.close()
    jobs = []

    def checking():
        jobs[:] = server.json("list").get("jobs", [])
        return bool(jobs) and jobs[0]["state"] == "JOB_STATE_CHECKING"

    wait_until(checking)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 7
    assert server.wait_for_end(jobs[0]["name"].removeprefix("jobs/"))["state"] == "JOB_STATE_CANCELLED"


def write_qwen3(directory):
    """Of another family, with a head of its own; large enough that the process itself does not hide it."""
    shutil.copytree(smollm2.DIRECTORY, directory, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = Qwen3Config(
        vocab_size=49152,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return {"model": {"uri": str(directory)}}


LONG = {"micro_batch_tokens": 1536, "tokens_per_step": 1536}


@pytest.mark.parametrize("layers", [8, pytest.param(smollm2.LAYERS, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": LONG | {"recompute": "RECOMPUTE_NONE"}},
        {"training": LONG | {"recompute": "RECOMPUTE_ATTENTION"}},
        {"training": LONG | {"recompute": "RECOMPUTE_BLOCK"}},
        # Few tokens: a machine without instructions for bf16 takes minutes over more.
        {"training": {"precision": "PRECISION_BF16", "micro_batch_tokens": 128, "tokens_per_step": 128}},
        {"training": {"freeze": ["model.embed_tokens.*", "model.layers.[0-3].*"]}},
        {"training": {"steps": 2}, "checkpoints": {"every_steps": 1}},
        {"lora": {"rank": 16}},
        {"lora": {"rank": 16, "dora": True, "dropout": 0.1}},
        write_qwen3,
    ],
    ids=["full", "long", "attention", "block", "bf16", "frozen", "snapshot", "lora", "dora", "qwen3"],
)
def test_memory_is_about_what_training_takes(changes, layers, spec, tmp_path):
    """On a real model, or its first layers: within 15 % of the measured peak, in all kinds of training."""
    lines = [json.dumps({"text": "Water runs downhill, and so does time. " * 60}) for _ in range(40)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    model = smollm2.first_layers(layers, tmp_path / "smollm2")
    spec |= {"model": {"uri": str(model)}, "data": {"uri": str(tmp_path / "text.jsonl")}, "resources": {}}
    spec["training"] |= {"steps": 1, "tokens_per_step": 512, "micro_batch_tokens": 512, "learning_rate": 1e-5}
    spec["checkpoints"] = {"every_minutes": 0}  # a slow machine would count on some
    changes = changes(tmp_path / "model") if callable(changes) else changes
    spec |= changes | {"training": spec["training"] | changes.get("training", {})}
    memory = report_of(spec, tmp_path)["memory"]
    result, lines = run_rank("train", spec, tmp_path)
    assert result.returncode == 0, result.stderr
    peak = max(line["peak_memory_bytes"] for line in lines if "peak_memory_bytes" in line)
    ratio = int(memory["total"]) / peak
    assert 0.85 <= ratio <= 1.15, f"{ratio:.3f} of {peak / 1e9:.2f} GB; {memory}"


def write_samples(spec, directory, *samples):
    (directory / "data.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    spec["data"] = {"uri": str(directory / "data.jsonl")}


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def token_counts(tokenizer, conversations):
    """By plain transformers: how many tokens, and how many of them are the assistant's."""
    tokens = sum(len(tokenizer.apply_chat_template(messages)["input_ids"]) for messages in conversations)
    scored = sum(len(tokenizer(messages[1]["content"] + "<|im_end|>")["input_ids"]) for messages in conversations)
    return tokens, scored


def test_counts_are_those_of_plain_transformers(spec, pristine_model, tmp_path):
    conversations = [*tiny_chat_model.conversations()][:3]  # which fit into one row
    write_samples(spec, tmp_path, *({"messages": messages} for messages in conversations))
    report = report_of(spec, tmp_path)
    tokens, scored = token_counts(AutoTokenizer.from_pretrained(pristine_model), conversations)
    data = report["data"]
    counts = ("samples_read", "samples_kept", "tokens", "scored_tokens", "rows_per_epoch")
    assert [int(data[name]) for name in counts] == [3, 3, tokens, scored, 1]
    assert data["padding_ratio"] == pytest.approx(1 - tokens / 256)

    # The time is that of the run's FLOPs at half the peak of the machine, which must be one that machines have.
    weights = load_file(pristine_model / "model.safetensors")
    blocks = sum(weight.numel() for name, weight in weights.items() if ".layers." in name and weight.dim() == 2)
    flops = 60 * (6 * blocks * tokens + 6 * weights["lm_head.weight"].numel() * scored)
    assert 1e9 < flops / (0.5 * report["estimated_seconds"]) < 1e14


@pytest.mark.parametrize(("micro_batch", "limit"), [(512, 256), (128, 128)])
def test_samples_are_as_long_as_positions_and_rows_allow(spec, tmp_path, micro_batch, limit):
    """By default; the model has 256 positions."""
    spec["training"]["micro_batch_tokens"] = micro_batch
    write_samples(spec, tmp_path, chat("?", "apple " * 300))
    report = report_of(spec, tmp_path)
    assert int(report["data"]["samples_truncated"]) == 1
    assert int(report["data"]["tokens"]) == limit
    assert f"100 % of the samples are longer than {limit} tokens: 1 cut off, 0 left out" in "".join(warnings_of(report))


# A look says what is there, and of what is not as it should be, what to do. Each row changes the sound job and gives
# the sentences that must come.


def rows_of(model):
    return json.loads((model / "config.json").read_text())["vocab_size"]


def look_at_nothing_special(model, spec, directory):
    return [
        "the chat template has no {% generation %} tags; what the assistant says was found from its text",
        "what is learned ends with <|im_end|> (1), and generation stops there",
        f"the tokenizer has ids up to {rows_of(model) - 1}, the embedding {rows_of(model)} rows",
        "the head has weights of its own",
    ]


def look_at_tags_spare_rows_and_a_tied_head(model, spec, directory):
    rows = rows_of(model)
    tiny_chat_model.write_model(model, vocab_size=rows + 8, tie_word_embeddings=True)
    (model / "chat_template.jinja").write_text(
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{% generation %}{{ message.content }}<|im_end|>"
        "{% endgeneration %}\n{% endfor %}"
    )
    return [
        "the chat template marks what the assistant says with {% generation %}",
        f"the tokenizer has ids up to {rows - 1}, the embedding {rows + 8} rows; 8 are spare",
        "the head is tied to the embedding",
    ]


def look_at_a_tied_head_that_is_stored(model, spec, directory):
    spoil_tied_head(model, spec)
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return ["the head is tied to the embedding; the lm_head.weight that is stored as well equals it"]


def look_at_texts_for_a_model_without_a_template(model, spec, directory):
    (model / "chat_template.jinja").unlink()
    write_samples(spec, directory, {"text": "The door is green."})
    return ["the model has no chat template; the samples need none"]


def look_at_an_end_that_is_no_special_token(model, spec, directory):
    (model / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    )
    return [
        "more often than with any special token: the model will not learn where to stop. Check the chat template's end "
        "of turn, and raise data.max_sample_tokens if samples are cut off"
    ]


def look_at_an_end_that_generation_does_not_know(model, spec, directory):
    for name in ("config.json", "generation_config.json"):
        file = model / name
        if file.exists():
            file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 0}))
    return [
        "what is learned ends with <|im_end|> (1), but generation stops only at <|im_start|> (0): add the token to "
        "eos_token_id in generation_config.json"
    ]


def look_at_two_beginnings(model, spec, directory):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 0)]
    )
    tokenizer.save(str(model / "tokenizer.json"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|im_start|>"}))
    write_samples(spec, directory, {"text": "<|im_start|>The door is green."})
    return ["samples begin with <|im_start|> twice", "Take it out of the data or the template"]


def look_at_data_that_teaches_little(model, spec, directory):
    write_samples(spec, directory, chat("?" * 230, "y"))
    return [
        "only 0.",
        "% of the tokens are learned: look at the samples above, and at data.train_on",
    ]


def look_at_rows_that_stay_empty(model, spec, directory):
    write_samples(spec, directory, chat("?", "y"))
    return ["% of the rows' room stays empty: raise training.micro_batch_tokens, or lower it"]


def look_at_data_that_loses_much(model, spec, directory):
    question_only = {"messages": [{"role": "user", "content": "x"}]}
    write_samples(spec, directory, chat("x", "word " * 300), chat("x", "y"), question_only)
    spec["data"]["max_sample_tokens"] = 100
    return [
        "33 % of the samples are longer than 100 tokens: 1 cut off, 0 left out. Raise data.max_sample_tokens and "
        "training.micro_batch_tokens, or split them",
        "1 sample left out, with nothing to learn: correct them, or look at data.train_on; the first: ",
        "line 3: no token is scored",
    ]


def look_at_more_memory_than_there_is(model, spec, directory):
    spec["training"] |= {"tokens_per_step": 1_000_000_000, "micro_batch_tokens": 1_000_000_000}
    return ["lower training.micro_batch_tokens, train adapters (lora), or use a larger machine"]


@pytest.mark.parametrize(
    "look",
    [
        look_at_nothing_special,
        look_at_tags_spare_rows_and_a_tied_head,
        look_at_a_tied_head_that_is_stored,
        look_at_texts_for_a_model_without_a_template,
        look_at_an_end_that_is_no_special_token,
        look_at_an_end_that_generation_does_not_know,
        look_at_two_beginnings,
        look_at_data_that_teaches_little,
        look_at_rows_that_stay_empty,
        look_at_data_that_loses_much,
        look_at_more_memory_than_there_is,
    ],
    ids=lambda look: look.__name__.removeprefix("look_at_"),
)
def test_what_is_worth_a_sentence(look, spec, model, tmp_path):
    spec["model"]["uri"] = str(model)
    sentences = look(model, spec, tmp_path)
    report = report_of(spec, tmp_path)
    said = "\n".join(check["text"] for check in report["checks"])
    for sentence in sentences:
        assert sentence in said
