# SPDX-License-Identifier: Apache-2.0
"""gs:// and abfs:// on emulators: every promise of a store, and what is said and done when a server refuses, fails or
dies. A whole run writes its part of build/reports/storage.json."""

import json
import os
import signal
import subprocess

import pytest
from pyarrow import fs
from servers.cloud_servers import Azurite, CloudServer, FakeGcs
from servers.server_process import LIMIT, free_port
from servers.storage_probe import keeps_every_promise, probe, start
from servers.toxiproxy import Toxiproxy

LARGE = 24 << 20  # of several blocks
DEADLINE_MS = 2000
# The Azure SDK makes its own attempts before it says that one failed.
PATIENCE = 60


@pytest.fixture(scope="module", params=[FakeGcs, Azurite], ids=lambda server: server.name)
def server(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp(request.param.name)) as server:
        server.make_bucket("bucket")
        yield server


def only_on(server: type[CloudServer]):
    return pytest.mark.parametrize("server", [server], ids=lambda server: server.name, indirect=True)


@pytest.fixture
def proxy(server, tmp_path):
    with Toxiproxy(tmp_path) as toxiproxy:
        yield toxiproxy.proxy(server.port)


def test_every_promise(server: CloudServer):
    keeps_every_promise(server.environment(), f"{server.make_bucket('promises')}/below")
    left = server.files().get_file_info(fs.FileSelector("promises", recursive=True))
    assert [info.path for info in left if info.is_file] == []


@pytest.mark.long  # a thousand objects take it a while
@only_on(FakeGcs)
def test_lists_of_more_than_a_page(server: CloudServer):
    files = server.files()
    for i in range(1001):  # it lists 1000 at a time
        files.open_output_stream(f"bucket/many/{i}").close()
    assert probe(server.environment(), "list", server.uri("bucket"), "many")["objects"] == 1001


def test_missing_bucket_is_said_to_be_missing(server: CloudServer):
    for action in ("write", "read", "list", "check"):
        result = probe(server.environment(), action, f"{server.uri('nowhere')}/below", "x", "--size", 1)
        assert (result["code"], result["cause"]) == ("FAILED_PRECONDITION", "USER_INPUT"), (action, result)
        assert "Create the bucket" in result["message"]
        assert "nowhere" in result["message"]


def test_endpoint_of_the_uri_comes_first(server: CloudServer):
    environment = server.environment(f"127.0.0.1:{free_port()}")
    uri = f"{server.uri('bucket')}/own?endpoint=http://{server.address}"
    assert probe(environment, "write", uri, "x", "--size", 5)["code"] == "OK"
    assert probe(server.environment(), "read", server.uri("bucket"), "own/x")["size"] == 5


@only_on(Azurite)
def test_wrong_keys_are_said_to_be_wrong(server: CloudServer):
    wrong = server.environment() | {"AZURE_STORAGE_ACCOUNT_KEY": "bm9uc2Vuc2U="}
    for action in ("write", "read", "list", "check"):
        result = probe(wrong, action, server.uri("bucket"), "x")
        assert (result["code"], result["cause"]) == ("PERMISSION_DENIED", "USER_INPUT"), (action, result)
        assert "AZURE_STORAGE_ACCOUNT_KEY" in result["message"]
        assert server.address in result["message"]
        assert "bm9uc2Vuc2U" not in result["message"]


# The Azure SDK takes its time.
@pytest.mark.parametrize(
    "server",
    [FakeGcs, pytest.param(Azurite, marks=pytest.mark.long)],
    ids=lambda server: server.name,
    indirect=True,
)
def test_nobody_there_is_given_up_after_the_deadline(server: CloudServer):
    nowhere = f"127.0.0.1:{free_port()}"
    for action in ("write", "read"):
        arguments = (action, server.uri("bucket"), "x", "--size", 1, "--deadline-ms", DEADLINE_MS)
        result = probe(server.environment(nowhere), *arguments)
        assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), (action, result)
        assert nowhere in result["message"]
        assert result["seconds"] < PATIENCE


def test_store_that_is_gone_for_a_moment_is_waited_for(server: CloudServer, proxy):
    assert probe(server.environment(), "write", server.uri("bucket"), "moment", "--size", LARGE)["code"] == "OK"
    proxy.cut()
    process = start(server.environment(proxy.address), "read", server.uri("bucket"), "moment")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=3)
    proxy.heal()
    out, err = process.communicate(timeout=PATIENCE)
    assert json.loads(out)["code"] == "OK", err


def test_resets_now_and_then_change_nothing(server: CloudServer, proxy):
    written = probe(server.environment(), "write", server.uri("bucket"), "resets", "--size", LARGE)
    assert written["code"] == "OK", written
    proxy.add("reset_peer", toxicity=0.3, timeout=20)
    read = probe(server.environment(proxy.address), "read", server.uri("bucket"), "resets")
    assert read.get("sha256") == written["sha256"], read


def test_writer_killed_in_the_middle_leaves_nothing_to_see(server: CloudServer, proxy):
    proxy.add("bandwidth", upstream=True, rate=20_000)
    arguments = ("publish", server.uri("bucket"), "orphan", "--size", 512 << 20)
    process = start(server.environment(proxy.address), *arguments)
    assert process.stderr.readline(), process.communicate()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=LIMIT)
    assert probe(server.environment(), "list", server.uri("bucket"), "orphan")["objects"] == 0
    assert probe(server.environment(), "verify", server.uri("bucket"), "orphan")["code"] == "NOT_FOUND"


@pytest.mark.long
def test_server_gone_in_the_middle_of_a_file_is_an_error_of_the_store(server: CloudServer, proxy):
    """And what was committed before it counts still."""
    assert probe(server.environment(), "publish", server.uri("bucket"), "before", "--size", 11 << 20)["code"] == "OK"
    proxy.add("bandwidth", upstream=True, rate=20_000)
    arguments = ("publish", server.uri("bucket"), "during", "--size", 512 << 20, "--deadline-ms", DEADLINE_MS)
    process = start(server.environment(proxy.address), *arguments)
    assert process.stderr.readline(), process.communicate()
    proxy.cut()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
    assert probe(server.environment(), "verify", server.uri("bucket"), "before")["code"] == "OK"
    assert probe(server.environment(), "verify", server.uri("bucket"), "during")["code"] == "NOT_FOUND"
