# SPDX-License-Identifier: Apache-2.0
"""What people ask for that can't be, and what they read then: what is wrong, where, and what to do.

Three parts, by who notices: the command (before it calls a server), the server (before it accepts a job), and the
server as it starts.
"""

import json
import socket
import subprocess
import uuid

import pytest
from temper_server import BIN, temper

# The command, before it calls anybody

COMMAND = {
    "unknown field": (
        "training: {stepz: 3}",
        ["job.yaml:1", "training.stepz", "unknown field", "did you mean 'steps'"],
    ),
    "unknown section": ("trainning: {steps: 3}", ["job.yaml:1", "trainning", "did you mean 'training'"]),
    "unknown enum value": (
        "training:\n  schedule: cosinus",
        ["job.yaml:2", "training.schedule", "'cosinus'", "did you mean 'cosine'"],
    ),
    "text for a number": (
        "training:\n  steps: many",
        ["job.yaml:2", "training.steps", "expected a whole number", "'many'"],
    ),
    "fraction for a whole number": ("training: {steps: 1.5}", ["training.steps", "expected a whole number", "'1.5'"]),
    "list for a map": ("training: [1, 2]", ["job.yaml:1", "training", "expected a map", "found a list"]),
    "text for a message": ("model: ./model", ["job.yaml:1", "model", "expected a map with uri"]),
    "field twice": ("priority: 1\npriority: 2", ["job.yaml:2", "priority", "given twice"]),
    "steps and epochs": ("training: {steps: 1, epochs: 1}", ["training.epochs", "excludes 'steps'"]),
    "section without a value": ("lora:", ["job.yaml:1", "lora", "has no value", "write {}"]),
    "no YAML": ("training: {steps: 3", ["job.yaml", "not valid YAML or JSON"]),
    "empty file": ("", ["job.yaml", "is empty", "sft.yaml"]),
}


@pytest.mark.parametrize("name", COMMAND)
def test_command_explains(name, tmp_path):
    text, message = COMMAND[name]
    (tmp_path / "job.yaml").write_text(text)
    result = temper("submit", str(tmp_path / "job.yaml"), server="127.0.0.1:1")
    assert result.returncode == 3, result
    assert result.stdout == ""
    for part in message:
        assert part in result.stderr


def test_job_file_missing(tmp_path):
    result = temper("submit", str(tmp_path / "none.yaml"), server="127.0.0.1:1")
    assert result.returncode == 3
    assert "none.yaml: can't be read: No such file" in result.stderr


def test_server_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = temper("list", server=address)
    assert result.returncode == 6, result
    for part in (f"no server answers at {address}", "temper-server", "--server HOST:PORT"):
        assert part in result.stderr


# The server, before it accepts a job: field, value, and what the message says of it

SERVER = [
    ("model.uri", "''", "is required: a directory in Hugging Face layout"),
    ("data.uri", "''", "is required: a file of samples"),
    ("output.uri", "''", "is required: a directory"),
    ("model.uri", "ftp://host/model", "has the scheme ftp, which this version does not read"),
    ("data.uri", "file://host/data", "three slashes"),
    ("display_name", "'" + "x" * 101 + "'", "at most 100 characters, not 101"),
    ("data.max_sample_tokens", "7", "at least 8, not 7"),
    ("training.steps", "0", "1 to 10,000,000, not 0"),
    ("training.steps", "10000001", "1 to 10,000,000, not 10000001"),
    ("training.epochs", "0", "over 0 and at most 1000"),
    ("training.epochs", "1001", "at most 1000, not 1001"),
    ("training.epochs", ".nan", "expected a number"),
    ("training.tokens_per_step", "7", "at least 8"),
    ("training.micro_batch_tokens", "7", "8 to 1,048,576, not 7"),
    ("training.micro_batch_tokens", "2000000", "8 to 1,048,576, not 2000000"),
    ("training.learning_rate", "-0.1", "over 0 and at most 1, not -0.1"),
    ("training.learning_rate", "2", "over 0 and at most 1, not 2"),
    ("training.warmup_steps", "-1", "at least 0, not -1"),
    ("training.final_learning_rate_ratio", "1.5", "0 to 1, not 1.5"),
    ("training.adamw.beta1", "1", "0 to below 1, not 1"),
    ("training.adamw.beta2", "-0.5", "0 to below 1, not -0.5"),
    ("training.adamw.epsilon", "0", "over 0, not 0"),
    ("training.adamw.weight_decay", "-1", "at least 0, not -1"),
    ("training.max_grad_norm", "-1", "at least 0, not -1"),
    ("training.seed", "-1", "at least 0, not -1"),
    ("lora.rank", "1025", "1 to 1024, not 1025"),
    ("lora.alpha", "-1", "over 0, not -1"),
    ("lora.targets", "[q_proj, q_proj]", "'q_proj' is given twice"),
    ("lora.dropout", "1", "0 to below 1, not 1"),
    ("lora", "{adapter: /a, rank: 8}", "is what lora.adapter says: leave it out"),
    ("output.adapters", "merged", "is for jobs with lora only"),
    ("output.adapter_format", "vllm", "is for jobs with lora only"),
    ("resources.threads_per_rank", "1025", "0 to 1024, not 1025"),
    ("resources.ranks_per_node", "65", "1 to 64, not 65"),
    ("output.max_shard_size", "1000", "at least 1048576 (1 MiB), not 1000"),
    ("priority", "1001", "-1000 to 1000, not 1001"),
]


def test_server_explains_values_out_of_range(start_server, spec):
    server = start_server(slots="cpu:0")
    wrong = []
    for field, value, message in SERVER:
        result = server.temper("submit", "-", "--set", f"{field}={value}", stdin=json.dumps(spec))
        named = field in result.stderr and message in result.stderr
        if result.returncode != 3 or not named or result.stdout:
            wrong.append((field, value, message, result))
    assert wrong == []
    assert "jobs" not in server.json("list")  # nothing was created


def test_server_names_every_wrong_field_with_its_line(start_server, tmp_path):
    server = start_server(slots="cpu:0")
    path = tmp_path / "job.yaml"
    path.write_text(
        "model: {uri: /m}\ndata: {uri: /d}\noutput: {uri: /o}\ntraining:\n  steps: 5\n  learning_rate: 7\n  seed: -1\n"
    )
    result = server.temper("submit", str(path))
    assert result.returncode == 3
    assert "job.yaml:6: training.learning_rate: must be over 0 and at most 1, not 7" in result.stderr
    assert "job.yaml:7: training.seed: must be at least 0, not -1" in result.stderr


def test_request_id_used_for_another_job(start_server, spec):
    server = start_server(slots="cpu:0")
    request_id = str(uuid.uuid4())
    first = server.submit(spec, "--request-id", request_id)
    assert server.submit(spec, "--request-id", request_id) == first
    spec["training"]["steps"] += 1
    result = server.temper("submit", "-", "--request-id", request_id, stdin=json.dumps(spec))
    assert result.returncode == 3
    for part in (request_id, f"was used before, for jobs/{first}", "use a new request_id"):
        assert part in result.stderr
    assert len(server.json("list")["jobs"]) == 1


def test_request_id_that_is_none(start_server, spec):
    server = start_server(slots="cpu:0")
    result = server.temper("submit", "-", "--request-id", "again", stdin=json.dumps(spec))
    assert result.returncode == 3
    assert "request_id: must be a UUID" in result.stderr


def test_job_id_taken_or_impossible(start_server, spec):
    server = start_server(slots="cpu:0")
    server.submit(spec, "--job-id", "mine")
    result = server.temper("submit", "-", "--job-id", "mine", stdin=json.dumps(spec))
    assert result.returncode == 3
    assert "there is a jobs/mine already: choose another id" in result.stderr
    result = server.temper("submit", "-", "--job-id", "Not OK", stdin=json.dumps(spec))
    assert result.returncode == 3
    assert "job_id" in result.stderr


@pytest.mark.parametrize("command", [["get"], ["watch"], ["logs"], ["cancel"], ["download", "--to", "/tmp/none"]])
def test_unknown_job(start_server, command):
    server = start_server(slots="cpu:0")
    result = server.temper(*command, "nobody")
    assert result.returncode == 4, result
    assert "there is no jobs/nobody" in result.stderr


def test_wrong_state(server, spec, tmp_path):
    spec["training"]["steps"] = 1
    done = server.submit(spec)
    waiting = server.submit(spec, "--job-id=waiting")
    early = server.temper("download", waiting, "--to", str(tmp_path / "home"))
    assert early.returncode == 3, early
    assert "jobs/waiting has no export yet" in early.stderr
    assert server.wait_for_end(done)["state"] == "JOB_STATE_SUCCEEDED"
    late = server.temper("cancel", done)
    assert late.returncode == 3, late
    assert f"jobs/{done} has ended already (SUCCEEDED): there is nothing to cancel" in late.stderr
    server.wait_for_end(waiting)


def test_download_to_a_place_that_can_not_be_written(server, spec, tmp_path):
    spec["training"]["steps"] = 1
    job = server.submit(spec)
    server.wait_for_end(job)
    (tmp_path / "file").write_text("")
    result = server.temper("download", job, "--to", str(tmp_path / "file/home"))
    assert result.returncode not in (0, 4, 5, 6), result
    assert str(tmp_path / "file") in result.stderr


# The server as it starts


def start_another(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([BIN / "temper-server", *options], capture_output=True, text=True, timeout=30, check=False)


def test_port_taken(server, tmp_path):
    for option, address in (("--listen", server.listen), ("--http", server.http)):
        other = "--http" if option == "--listen" else "--listen"
        result = start_another(f"--data-dir={tmp_path / 'other'}", f"{option}={address}", f"{other}=127.0.0.1:0")
        assert result.returncode == 4, result
        for part in (address, "in use", f"choose another with {option}"):
            assert part in result.stderr
    # The one that was there is not disturbed.
    assert "jobs" not in server.json("list")


def test_data_directory_in_use(server):
    result = start_another(f"--data-dir={server.data_dir}", "--listen=127.0.0.1:0", "--http=127.0.0.1:0")
    assert result.returncode == 3, result
    for part in (str(server.data_dir), f"pid {server.process.pid}", "choose another --data-dir"):
        assert part in result.stderr
    assert "jobs" not in server.json("list")


def test_data_directory_that_can_not_be(tmp_path):
    (tmp_path / "file").write_text("")
    result = start_another(f"--data-dir={tmp_path / 'file/data'}", "--listen=127.0.0.1:0", "--http=127.0.0.1:0")
    assert result.returncode == 3, result
    assert str(tmp_path / "file") in result.stderr


def test_no_worker_binary(tmp_path):
    result = start_another(f"--data-dir={tmp_path / 'other'}", "--worker-binary=/nowhere/temper-worker")
    assert result.returncode == 5, result
    assert "/nowhere/temper-worker" in result.stderr
    assert "--worker-binary" in result.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--slots=gpu:1", "unknown kind 'gpu'"),
        ("--slots=cpu", "KIND:COUNT"),
        ("--slots=cuda:4097", "0 to 4096"),
        ("--listen=localhost", "HOST:PORT"),
        ("--lissen=127.0.0.1:1", "--lissen"),
    ],
)
def test_server_options_that_make_no_sense(option, message):
    result = start_another(option)
    assert result.returncode == 2, result
    assert message in result.stderr


def test_a_server_that_dies_frees_its_data_directory(server):
    server.kill()
    server.start()
    assert "jobs" not in server.json("list")
