# SPDX-License-Identifier: Apache-2.0
"""The `temper` command against a real server: what people and programs see, and the exit codes."""

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from concurrent import futures

import grpc
import pytest
import yaml
from pyarrow import fs
from servers.hub import Hub
from servers.s3_server import Versitygw
from temper_process import BIN, JOB, LIMIT, ROOT, Node, wait_for


@pytest.fixture
def export(tmp_path):
    """A committed export directory, as a rank writes it."""
    directory = tmp_path / "out/a/export-e0001"
    directory.mkdir(parents=True)
    files = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 8000}
    listed = []
    for name, content in files.items():
        (directory / name).write_bytes(content)
        listed.append({"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    manifest = {"format_version": 1, "job": "jobs/a", "epoch": 1, "files": listed}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def step(training, number, **fields):
    return training.StepMetrics(
        step=number, total_steps=4, loss=2.0 / number, tokens=1000, seconds=0.5, mfu=0.25, **fields
    )


def run_to_the_end(server, protos, directory=None, cause=None, message=""):
    """Plays the gang of job `a`."""
    training, _, _ = protos
    node = Node(server, protos, "a")
    node.report(phase=training.PhaseChange(phase=training.PHASE_TRAINING, total_steps=4))
    node.report(log=training.LogLine(severity=training.LOG_SEVERITY_INFO, text="routine"))
    node.report(log=training.LogLine(severity=training.LOG_SEVERITY_WARNING, text="odd \x1b[31mcolour"))
    for number in (1, 2, 3, 4):
        node.report(step=step(training, number))
    if directory is not None:
        uri = directory if isinstance(directory, str) else f"file://{directory}"
        node.report(export=training.ExportCommitted(uri=uri, bytes=2048002, files=2))
    node.report(end=node.messages.RankEnd(cause=cause or 0, message=message))
    node.close()
    server.end_worker("a")


def test_submit_list_get_cancel(server, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    submitted = server.temper("submit", tmp_path / "job.yaml", "--job-id", "a", "--set", "training.steps=7", check=0)
    assert submitted.stdout == "Created jobs/a\nFollow it: temper watch a\n"
    assert re.search(r"^a +(QUEUED|STARTING) ", server.temper("list", check=0).stdout, re.MULTILINE)
    listed = json.loads(server.temper("list", "--output", "json", check=0).stdout)
    assert listed["jobs"][0]["spec"]["training"]["steps"] == "7"
    assert "Job         jobs/a" in server.temper("get", "jobs/a", check=0).stdout
    assert server.temper("cancel", "a", check=0).stdout.startswith("jobs/a is ")
    wait_for(lambda: "CANCELLED" in server.temper("get", "a").stdout, "the end")
    assert server.temper("list", "--state", "running", check=0).stdout == "No jobs.\n"
    assert "a " in server.temper("list", "--state", "cancelled,failed", check=0).stdout


def test_list_by_owner_and_label(server):
    for job, owner, team in (("a", "ana", "red"), ("b", "ana", "blue"), ("c", "bob", "red")):
        options = ["--job-id", job, "--set", f"owner={owner}", "--set", f"labels.team={team}"]
        server.temper("submit", "-", *options, text=JOB, check=0)

    def listed(*options):
        answer = server.temper("list", "--output", "json", *options, check=0).stdout
        return [job["name"] for job in json.loads(answer).get("jobs", [])]

    assert listed("--owner", "ana") == ["jobs/b", "jobs/a"]
    assert listed("--label", "team=red") == ["jobs/c", "jobs/a"]
    assert listed("--label", "team=red", "--owner", "ana") == ["jobs/a"]
    assert listed("--label", "team=red", "--label", "stage=x") == []
    refused = server.temper("list", "--label", "red", check=2)
    assert refused.stderr == "temper: --label red: must be KEY=VALUE\n"


@contextlib.contextmanager
def fake_server(list_jobs):
    """The address of a server that answers ListJobs as `list_jobs(request, context)` does."""
    services = importlib.import_module("temper.v1.training_service_pb2_grpc")
    servicer = services.TrainingServiceServicer()
    servicer.ListJobs = list_jobs
    server = grpc.server(futures.ThreadPoolExecutor(1))
    services.add_TrainingServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_ages_are_by_the_servers_clock(protos, hours):
    training, *_ = protos
    there = int(time.time()) + hours * 3600

    def list_jobs(request, context):
        response = training.ListJobsResponse(jobs=[training.Job(name="jobs/a")])
        response.time.seconds = there
        response.jobs[0].create_time.seconds = there - 7200
        return response

    with fake_server(list_jobs) as address:
        command = [BIN / "temper", "--server", address, "list"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert re.search(r"^a .* 2h00m$", listed.stdout, re.MULTILINE), listed


def test_same_request_id_creates_one_job(server):
    again = ["submit", "-", "--request-id", "123e4567-e89b-42d3-a456-426614174000"]
    first = server.temper(*again, text=JOB, check=0)
    assert server.temper(*again, text=JOB, check=0).stdout == first.stdout
    refused = server.temper(*again, "--set", "training.steps=11", text=JOB, check=3)
    assert "request_id" in refused.stderr


def test_validate_only_creates_nothing(server):
    assert server.temper("submit", "-", "--validate-only", text=JOB, check=0).stdout == "The job would be accepted.\n"
    assert server.temper("list", check=0).stdout == "No jobs.\n"


def test_job_files_of_the_documents_are_accepted(shared_server, protos):
    """docs/JOBS.md has a file with the least that a job needs, and one with every section that there is."""
    least, all_sections = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/JOBS.md").read_text(), re.DOTALL)
    for file in (least, all_sections, (ROOT / "client/examples/sft.yaml").read_text()):
        shared_server.temper("submit", "-", "--validate-only", text=file, check=0)
    known = {field.name for field in protos[0].Job.DESCRIPTOR.fields_by_name["spec"].message_type.fields}
    assert set(yaml.safe_load(all_sections)) == known


def test_watch_in_a_pipe_has_a_line_a_step_and_download_brings_the_export(server, protos, export, tmp_path):
    thread = threading.Thread(target=run_to_the_end, args=(server, protos, export))
    thread.start()
    watched = server.temper("submit", "-", "--job-id", "a", "--watch", text=JOB, check=0)
    thread.join()
    assert "\x1b" not in watched.stdout
    lines = watched.stdout.splitlines()
    assert lines[0] == "Created jobs/a"
    assert "step 3/4  loss 0.6667  grad_norm 0  lr 0.00e+00  2,000 tokens/s  MFU 25.0%" in lines
    assert any(line.endswith("W rank 0: odd ?[31mcolour") for line in lines)
    assert not any("routine" in line for line in lines)
    assert f"exported 2 files, 2.0 MB: file://{export}" in lines
    assert lines[-2:] == ["SUCCEEDED", "Take the result home: temper download a --to DIR"]

    events = [json.loads(line) for line in server.temper("watch", "a", "--output", "json", check=0).stdout.splitlines()]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert server.temper("logs", "a", check=0).stdout.count("\n") == 2

    home = tmp_path / "home"
    downloaded = json.loads(server.temper("download", "a", "--to", home, "--output", "json", check=0).stdout)
    assert downloaded["files"] == 2
    assert downloaded["received_bytes"] == downloaded["bytes"] == 2048002
    for name in ("config.json", "model.safetensors"):
        assert (home / name).read_bytes() == (export / name).read_bytes()
    again = json.loads(server.temper("download", "a", "--to", home, "--output", "json", check=0).stdout)
    assert again["received_bytes"] == 0

    (export / "config.json").write_bytes(b"[]")
    (home / "config.json").unlink()
    damaged = server.temper("download", "a", "--to", home, check=7)
    assert "config.json: what is stored has the SHA-256" in damaged.stderr


@pytest.fixture
def bucket(export, tmp_path, monkeypatch):
    """With the export in it, and its keys in the environment."""
    with Versitygw(tmp_path / "s3") as bucket:
        bucket.make_bucket("exports")
        fs.copy_files(str(export), "exports/a", fs.LocalFileSystem(), bucket.files())
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        yield bucket


def test_download_straight_from_the_store_takes_ones_own_keys(bucket, server, protos, export, tmp_path, monkeypatch):
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    assert "no export yet" in server.temper("download", "a", "--to", tmp_path / "x", "--direct", check=3).stderr
    run_to_the_end(server, protos, "s3://exports/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the server's")
    refused = server.temper("download", "a", "--to", tmp_path / "x", "--direct")
    assert refused.returncode != 0
    assert "AWS_SECRET_ACCESS_KEY" in refused.stderr
    server.temper("download", "a", "--to", tmp_path / "streamed", check=0)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.environment()["AWS_SECRET_ACCESS_KEY"])
    server.temper("download", "a", "--to", tmp_path / "direct", "--direct", check=0)
    for home in ("streamed", "direct"):
        for name in ("config.json", "model.safetensors"):
            assert (tmp_path / home / name).read_bytes() == (export / name).read_bytes()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub() as hub:
        for name, value in (hub.environment() | {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}).items():
            monkeypatch.setenv(name, value)
        yield hub


def test_submit_writes_the_commit_of_a_hub_into_the_job(hub, server):
    commit = hub.push("org/name", {"config.json": b"{}"})
    server.temper("submit", "-", "--job-id", "a", "--set", "model.uri=hf://org/name", text=JOB, check=0)
    hub.push("org/name", {"config.json": b"newer"})
    spec = json.loads(server.temper("get", "a", "--output", "json", check=0).stdout)["spec"]
    assert spec["model"]["uri"] == f"hf://org/name@{commit}"
    refused = server.temper("submit", "-", "--set", "model.uri=hf://org/none", text=JOB)
    assert refused.returncode != 0
    assert "There is no such repository" in refused.stderr
    refused = server.temper("submit", "-", "--set", "output.uri=hf://org/name", text=JOB)
    assert "only read" in refused.stderr


@pytest.mark.parametrize("no_color", ["", "1"])
def test_watch_on_a_terminal_shows_charts(server, protos, export, no_color):
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    environment = os.environ | {"TEMPER_SERVER": server.grpc, "TERM": "xterm", "NO_COLOR": no_color}
    watch = subprocess.Popen([BIN / "temper", "watch", "a"], stdout=terminal, env=environment)
    os.close(terminal)
    screen = bytearray()

    def read():
        try:
            while chunk := os.read(main, 4096):
                screen.extend(chunk)
        except OSError:  # the other side is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run_to_the_end(server, protos, export)
        assert watch.wait(LIMIT) == 0
    finally:
        watch.kill()  # or the reader would read for ever
        reader.join()
        os.close(main)
    text = screen.decode()
    assert all(title in text for title in ("Loss", "Gradient norm", "Learning rate"))  # three fit beside each other
    line = r"\[#{24}\]  4/4  loss [\d.]+ \S+  2,000 tokens/s  MFU 25\.0%  ETA 0\.0s\r\n"  # with all steps, and it stays
    assert re.search(line, text), text
    assert "\x1b[31mcolour" not in text
    assert ("SUCCEEDED" if no_color else "\x1b[32mSUCCEEDED\x1b[0m") in text
    if no_color:  # it moves up and erases, and no more
        assert set(re.findall(r"\x1b\[[0-9;]*([A-Za-z])", text)) <= set("AJK")


def test_job_that_fails_is_exit_code_5(server, protos):
    training, _, _ = protos
    thread = threading.Thread(
        target=run_to_the_end,
        args=(server, protos, None, training.FAILURE_CAUSE_USER_INPUT, "train.jsonl:3: no messages"),
    )
    thread.start()
    watched = server.temper("submit", "-", "--job-id", "a", "--watch", text=JOB, check=5)
    thread.join()
    assert "FAILED (USER_INPUT): train.jsonl:3: no messages" in watched.stdout


def test_interrupted_watch_leaves_the_job_alone(server):
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    watch = subprocess.Popen(
        [BIN / "temper", "--server", server.grpc, "watch", "a"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, error = watch.communicate(timeout=LIMIT)
    assert watch.returncode == 7
    assert "the job goes on" in error
    assert "CANCELLED" not in server.temper("get", "a", check=0).stdout


@pytest.mark.parametrize(
    ("arguments", "text", "status", "expected"),
    [
        ([], None, 2, "A subcommand is required"),
        (["lst"], None, 2, "'lst' is no command; did you mean 'list'?"),
        (["get"], None, 2, "job is required"),
        (["list", "--output", "xml"], None, 2, "xml"),
        (["list", "--state", "happy"], None, 2, "--state happy: is no state of a job; there are queued, starting"),
        (["submit", "/nowhere.yaml"], None, 3, "/nowhere.yaml: can't be read: No such file or directory"),
        (["submit", "-"], "modle: {}", 3, "standard input:1: modle: unknown field; did you mean 'model'?"),
        (["submit", "-"], "training: {steps: x}", 3, "training.steps: expected a whole number, found 'x'"),
        (["submit", "-"], JOB.replace("10", "-1"), 3, "standard input:4: training.steps: must be"),
        (["submit", "-"], "priority: 1", 3, "model.uri"),
        (["submit", "-", "--set", "training.step=1"], JOB, 3, "did you mean 'steps'?"),
        (["submit", "-", "--job-id", "Not An Id"], JOB, 3, "job_id"),
        (["get", "nobody"], None, 4, "there is no jobs/nobody"),
        (["watch", "nobody"], None, 4, "there is no jobs/nobody"),
        (["logs", "nobody"], None, 4, "there is no jobs/nobody"),
        (["cancel", "nobody"], None, 4, "there is no jobs/nobody"),
        (["download", "nobody", "--to", "x"], None, 4, "there is no jobs/nobody"),
        (["--server", "127.0.0.1:1", "list"], None, 6, "no server answers at 127.0.0.1:1"),
    ],
)
def test_errors(shared_server, arguments, text, status, expected):
    result = shared_server.temper(*arguments, text=text, check=status)
    assert expected in result.stderr
    assert result.stdout == ""


def test_download_before_the_export_says_so(server, tmp_path):
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    result = server.temper("download", "a", "--to", tmp_path / "home", check=3)
    assert "jobs/a has no export yet" in result.stderr
    assert not (tmp_path / "home").exists()


def test_help_has_examples():
    def output(*words):
        return subprocess.run([BIN / "temper", *words], capture_output=True, text=True, check=True).stdout

    commands = output("__complete", "").split()
    assert {"submit", "verify", "delete", "completion"} < set(commands)
    for command in ([], *([name] for name in commands)):
        example = "Examples:\n  " + ("source <(temper completion" if command == ["completion"] else "temper ")
        assert example in output(*command, "--help"), command
    assert "Exit codes:\n  0  done\n" in output("--help")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["li"], ["list"]),
        (["list", "--o"], ["--output", "--owner"]),
        (["list", "--output", ""], ["table", "json"]),
        (["--color", "a"], ["auto", "always"]),
        (["list", "--output=j"], ["--output=json"]),
        (["list", "--output", "=", "j"], ["json"]),  # as bash takes it apart
        (["--server", "list", "preflight", "--skip"], []),
        (["submit", "--skip"], ["--skip-preflight"]),
        (["submit", ""], [":files"]),
        (["download", "a", "--to", ""], [":files"]),
        (["get", ""], []),
        (["completion", ""], ["bash", "fish", "zsh"]),
    ],
)
def test_completion_knows_what_the_commands_declare(words, expected):
    result = subprocess.run([BIN / "temper", "__complete", *words], capture_output=True, text=True, check=True)
    assert sorted(result.stdout.split()) == sorted(expected)


def test_completion_in_bash(tmp_path):
    (tmp_path / "job.yaml").touch()
    script = """
        source <(temper completion bash)
        COMP_WORDS=(temper che) COMP_CWORD=1; _temper; echo "${COMPREPLY[@]}"
        COMP_WORDS=(temper submit j) COMP_CWORD=2; _temper; echo "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert result.stdout == "checkpoints\njob.yaml\n"


@pytest.mark.parametrize("steps", ["3-5", "4"])
def test_profile_is_part_of_the_job(server, steps):
    server.temper("submit", "-", "--job-id", "a", "--profile", steps, text=JOB, check=0)
    profile = json.loads(server.temper("get", "a", "--output", "json", check=0).stdout)["spec"]["profile"]
    assert profile == ({"first_step": "3", "steps": 3} if steps == "3-5" else {"first_step": "4", "steps": 1})


@pytest.mark.parametrize("steps", ["5-3", "a", "0", "1-2-3"])
def test_profile_that_is_no_range(server, steps):
    result = server.temper("submit", "-", f"--profile={steps}", text=JOB)
    assert result.returncode == 2
    assert result.stderr == f"temper: --profile {steps}: must be a step or a range, such as 3 or 3-5\n"


@pytest.fixture
def config(tmp_path):
    """Where the user's config file is, once a test has written it."""
    (tmp_path / "temper").mkdir()
    return tmp_path / "temper/config.yaml"


@pytest.fixture
def run(config):
    """Runs the command line with that config file, and with nothing of the caller's environment."""
    of_others = {key: value for key, value in os.environ.items() if not key.startswith("TEMPER_")}

    def run(*arguments, **environment):
        return subprocess.run(
            [BIN / "temper", *arguments],
            capture_output=True,
            text=True,
            env=of_others | {"XDG_CONFIG_HOME": str(config.parents[1])} | environment,
            timeout=LIMIT,
            check=False,
        )

    return run


def test_token_comes_from_the_environment_or_else_from_the_config_file(protos, config, run):
    training, *_ = protos
    sent = []

    def list_jobs(request, context):
        sent.append(dict(context.invocation_metadata()).get("authorization"))
        return training.ListJobsResponse()

    with fake_server(list_jobs) as address:
        config.write_text(f"server: {address}\n")
        assert run("list").returncode == 0
        (config.parent / "token").write_text("of the file\n")
        config.write_text(f"server: {address}\ntoken_file: token\n")
        assert run("list").returncode == 0
        assert run("list", TEMPER_TOKEN="of the environment").returncode == 0
    assert sent == [None, "Bearer of the file", "Bearer of the environment"]


def test_token_goes_to_other_hosts_in_plain_text_only_if_that_is_wanted(config, run):
    place = ("--server", "0.0.0.0:1", "list")  # no name of loopback, and nobody answers there
    refused = run(*place, TEMPER_TOKEN="secret")
    assert refused.returncode == 2
    assert "the token would be sent to 0.0.0.0:1 in plain text" in refused.stderr
    assert run("--insecure", *place, TEMPER_TOKEN="secret").returncode == 6
    config.write_text("insecure: true\n")
    assert run(*place, TEMPER_TOKEN="secret").returncode == 6


def test_config_file_says_where_the_server_is(server, config, run):
    config.write_text(f"server: {server.grpc}\n")
    assert run("list").stdout == "No jobs.\n"
    config.write_text("server: 127.0.0.1:1\n")
    assert run("list").returncode == 6
    assert run("list", "--server", server.grpc).returncode == 0
    config.write_text("servr: x\n")
    bad = run("list")
    assert bad.returncode == 2
    assert bad.stderr == f"temper: {config}:1: unknown key 'servr'; did you mean 'server'?\n"
    assert run("--version").returncode == 0
    assert run("completion", "bash").returncode == 0  # or no shell would start without a complaint


def test_color_always(server, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    assert "\x1b[" not in server.temper("list", check=0).stdout
    environment = {"NO_COLOR": "1"}
    server.temper("submit", tmp_path / "job.yaml", "--job-id", "a", check=0)
    server.temper("cancel", "a", check=0)
    wait_for(lambda: "CANCELLED" in server.temper("get", "a").stdout, "the end")
    assert "\x1b[" in server.temper("watch", "a", "--color", "always", environment=environment).stdout
    assert "\x1b[" not in server.temper("watch", "a", "--color", "never", environment=environment).stdout
