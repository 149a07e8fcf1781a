# SPDX-License-Identifier: Apache-2.0
"""s3:// on real servers: every promise of a store, and what is said and done when a server refuses, fails, is slow,
cuts connections or dies. A whole run writes its part of build/reports/storage.json."""

import json
import os
import re
import signal
import subprocess

import pytest
from servers.relay import Relay
from servers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, SeaweedFs, Versitygw
from servers.server_process import LIMIT, free_port
from servers.storage_probe import keeps_every_promise, probe, start
from servers.toxiproxy import Toxiproxy

SERVER = SeaweedFs.name  # of a test that starts its own
BUCKET = "s3://bucket"
LARGE = 32 << 20  # of several parts
# Requests end some time after their deadline: the last attempt is not cut off.
DEADLINE_MS = 2000
PATIENCE = 30


@pytest.fixture(scope="module", params=[Versitygw, SeaweedFs], ids=lambda server: server.name)
def server(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp(request.param.name)) as server:
        server.make_bucket("bucket")
        yield server


# What goes wrong on the way is for the client to deal with, and mostly takes waiting: one server shows it.
ON_ONE_SERVER = pytest.mark.parametrize(
    "server",
    [Versitygw, pytest.param(SeaweedFs, marks=pytest.mark.long)],
    ids=lambda server: server.name,
    indirect=True,
)


@pytest.fixture(scope="module")
def toxiproxy(tmp_path_factory):
    with Toxiproxy(tmp_path_factory.mktemp("toxiproxy")) as toxiproxy:
        yield toxiproxy


@pytest.fixture
def proxy(toxiproxy, server):
    return toxiproxy.proxy(server.port)


def through(server: S3Server, address: str) -> dict[str, str]:
    return server.environment(f"http://{address}")


def test_every_promise(server):
    server.make_bucket("promises")
    keeps_every_promise(server.environment(), "s3://promises/below")
    if isinstance(server, Versitygw):  # its unfinished uploads are files
        assert [
            path for path in (server.data / "promises").rglob("*") if "multipart" in str(path) and path.is_file()
        ] == []


def test_lists_of_more_than_a_page(server):
    files = server.files()
    for i in range(1001):  # S3 lists 1000 at a time
        if isinstance(server, Versitygw):
            path = server.data / "bucket/many" / str(i)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        else:
            files.open_output_stream(f"bucket/many/{i}").close()
    assert probe(server.environment(), "list", BUCKET, "many")["objects"] == 1001


@pytest.mark.parametrize("wrong", [{"AWS_SECRET_ACCESS_KEY": "nonsense"}, {"AWS_ACCESS_KEY_ID": "nobody"}])
def test_wrong_keys_are_said_to_be_wrong(server, wrong):
    for action in ("write", "read", "list", "check"):
        result = probe(server.environment() | wrong, action, BUCKET, "x")
        assert (result["code"], result["cause"]) == ("PERMISSION_DENIED", "USER_INPUT"), result
        assert "AWS_SECRET_ACCESS_KEY" in result["message"]
        assert server.endpoint in result["message"]
        assert SECRET_KEY not in result["message"]
        assert "nonsense" not in result["message"]


def test_missing_bucket_is_said_to_be_missing(server):
    for action in ("write", "read", "list", "check"):
        # SeaweedFS would make the bucket for those who may.
        refused = isinstance(server, SeaweedFs) and action in ("write", "check")
        code = "PERMISSION_DENIED" if refused else "FAILED_PRECONDITION"
        result = probe(server.environment(), action, "s3://nowhere/below", "x", "--size", 1)
        assert (result["code"], result["cause"]) == (code, "USER_INPUT"), result
        assert "bucket" in result["message"]
        assert "nowhere" in result["message"]


def test_endpoint_and_region_of_the_uri_come_first(server):
    environment = server.environment(f"http://127.0.0.1:{free_port()}") | {"AWS_REGION": "nowhere-1"}
    uri = f"{BUCKET}/own?endpoint={server.endpoint}&region=us-east-1"
    assert probe(environment, "write", uri, "x", "--size", 5)["code"] == "OK"
    assert probe(server.environment(), "read", BUCKET, "own/x")["size"] == 5


def test_keys_of_a_profile(server, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[mine]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    environment = server.environment()
    environment |= {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    environment |= {"AWS_PROFILE": "mine", "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    assert probe(environment, "write", BUCKET, "profile", "--size", 1)["code"] == "OK"


@ON_ONE_SERVER
def test_nobody_there_is_given_up_after_the_deadline(server):
    nowhere = f"http://127.0.0.1:{free_port()}"
    result = probe(server.environment(nowhere), "write", BUCKET, "x", "--deadline-ms", DEADLINE_MS)
    assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
    assert nowhere in result["message"]
    assert DEADLINE_MS / 1000 < result["seconds"] < PATIENCE


def test_errors_of_the_server_are_given_up_after_the_deadline(tmp_path):
    with SeaweedFs(tmp_path, volumes=1) as full:
        for bucket in ("first", "second"):  # which would need a volume more
            full.make_bucket(bucket)
            arguments = ("write", f"s3://{bucket}", "x", "--size", 1, "--deadline-ms", DEADLINE_MS)
            result = probe(full.environment(), *arguments)
    assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
    assert "INTERNAL_FAILURE" in result["message"]
    assert DEADLINE_MS / 1000 < result["seconds"] < PATIENCE


@ON_ONE_SERVER
def test_resets_now_and_then_change_nothing(server, proxy):
    proxy.add("reset_peer", toxicity=0.3, timeout=20)
    written = probe(through(server, proxy.address), "write", BUCKET, "resets", "--size", LARGE)
    assert written["code"] == "OK", written
    read = probe(through(server, proxy.address), "read", BUCKET, "resets")
    assert read["sha256"] == written["sha256"] == probe(server.environment(), "read", BUCKET, "resets")["sha256"]


@ON_ONE_SERVER
def test_answers_cut_off_are_asked_for_again(server, proxy):
    written = probe(server.environment(), "write", BUCKET, "cut", "--size", LARGE)
    proxy.add("limit_data", toxicity=0.4, bytes=3 << 20)
    read = probe(through(server, proxy.address), "read", BUCKET, "cut")
    assert read.get("sha256") == written["sha256"], read


@ON_ONE_SERVER
@pytest.mark.parametrize(
    "toxic", [("reset_peer", {"timeout": 0}), ("timeout", {"timeout": 0})], ids=["reset", "silence"]
)
def test_resets_and_silence_for_ever_are_given_up(server, proxy, toxic):
    name, attributes = toxic
    proxy.add(name, **attributes)
    for action in ("write", "read"):
        environment = through(server, proxy.address)
        result = probe(environment, action, BUCKET, "x", "--size", 1, "--deadline-ms", DEADLINE_MS)
        assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
        assert result["seconds"] < PATIENCE


@ON_ONE_SERVER
def test_slowness_is_no_failure(server, proxy):
    proxy.add("bandwidth", rate=4000)
    proxy.add("bandwidth", upstream=True, rate=4000)
    environment = through(server, proxy.address)
    written = probe(environment, "write", BUCKET, "slow", "--size", 12 << 20, "--deadline-ms", DEADLINE_MS)
    assert written["code"] == "OK", written
    assert written["seconds"] > DEADLINE_MS / 1000
    assert probe(environment, "read", BUCKET, "slow", "--deadline-ms", DEADLINE_MS)["sha256"] == written["sha256"]


def probe_of_a_server_that_waits(server: S3Server, requests: bytes, count: int, *arguments) -> tuple[dict, int]:
    """From the first request that the pattern finds, the server stands still until it has found so many different ones:
    who waits for an answer before asking again gets none. What the probe said, and the bytes that it was sent."""
    seen = set()

    def look(data: bytes) -> bytes:
        if found := re.findall(requests, data):
            server.process.send_signal(signal.SIGSTOP)
            seen.update(found)
        if len(seen) >= count:
            server.process.send_signal(signal.SIGCONT)
        return data

    with Relay(server.port, change=look) as relay:
        try:
            return probe(server.environment(relay.endpoint), *arguments, "--deadline-ms", 10_000), relay.answered
        finally:
            server.process.send_signal(signal.SIGCONT)


@ON_ONE_SERVER
def test_parts_go_up_at_the_same_time(server):
    arguments = ("write", BUCKET, "parts", "--size", 2 * LARGE)
    written, _ = probe_of_a_server_that_waits(server, rb"partNumber=\d+", 4, *arguments)
    assert written["code"] == "OK", written
    assert probe(server.environment(), "read", BUCKET, "parts")["sha256"] == written["sha256"]


@ON_ONE_SERVER
def test_a_long_range_comes_in_requests_at_the_same_time_and_nothing_else_does(server):
    assert probe(server.environment(), "write", BUCKET, "ranges", "--size", 2 * LARGE)["code"] == "OK"
    arguments = ("read", BUCKET, "ranges", "--offset", 5 << 20, "--size", LARGE)
    read, sent = probe_of_a_server_that_waits(server, rb"(?i)bytes=\d+-\d+", 4, *arguments)
    assert (read["code"], read.get("size")) == ("OK", 2 * LARGE), read
    assert LARGE < sent < LARGE + 100_000


@ON_ONE_SERVER
def test_bytes_that_change_on_the_way_are_refused(server):
    """What is written is known to the server by its checksum."""
    # Once in what the probe writes.
    marker = bytes.fromhex("253df55a4002c174")
    with Relay(server.port, change=lambda data: data.replace(marker, b"\0" * 8)) as relay:
        environment = server.environment(relay.endpoint)
        result = probe(environment, "write", BUCKET, "changed", "--size", 1 << 20, "--deadline-ms", DEADLINE_MS)
        assert result["code"] == "UNAVAILABLE", result
    assert probe(server.environment(), "read", BUCKET, "changed")["code"] == "NOT_FOUND"


def strike_in_the_middle(process: subprocess.Popen, strike) -> None:
    """Once it says that something was written, and before it can say that all was."""
    assert process.stderr.readline(), process.communicate()
    strike()


@ON_ONE_SERVER
def test_writer_killed_in_the_middle_leaves_nothing_to_see(server, proxy):
    proxy.add("bandwidth", upstream=True, rate=20_000)
    process = start(through(server, proxy.address), "publish", BUCKET, "orphan", "--size", 512 << 20)
    strike_in_the_middle(process, lambda: os.kill(process.pid, signal.SIGKILL))
    process.communicate(timeout=LIMIT)
    assert probe(server.environment(), "list", BUCKET, "orphan")["objects"] == 0


@ON_ONE_SERVER
def test_server_killed_in_the_middle(server, proxy):
    """Nothing counts of what was not committed, all of what was; once it is back, writing goes on."""
    assert probe(server.environment(), "publish", BUCKET, "before", "--size", 11 << 20)["code"] == "OK"
    proxy.add("bandwidth", upstream=True, rate=20_000)
    arguments = ("publish", BUCKET, "during", "--size", 512 << 20, "--deadline-ms", DEADLINE_MS)
    process = start(through(server, proxy.address), *arguments)
    strike_in_the_middle(process, server.kill)
    out, err = process.communicate(timeout=60)
    result = json.loads(out)
    assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
    server.start()
    environment = server.environment()
    if isinstance(server, Versitygw):  # SeaweedFS acknowledges what it has not made durable yet
        assert probe(environment, "verify", BUCKET, "before")["code"] == "OK"
    assert probe(environment, "verify", BUCKET, "during")["code"] == "NOT_FOUND"
    assert probe(environment, "publish", BUCKET, "after", "--size", 11 << 20)["code"] == "OK"
    assert probe(environment, "verify", BUCKET, "after")["code"] == "OK"
