# SPDX-License-Identifier: Apache-2.0
"""A server over TLS: whom it and its callers believe, and files that change while it serves."""

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
from temper_process import BIN, JOB, LIMIT, Node, wait_for
from tls_server import Authority, TlsServer

MORE_THAN_THE_PAGE_SERVES = 250  # connections


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "theirs")


@pytest.fixture
def server(tmp_path, authority):
    server = TlsServer(tmp_path, authority.issue("first"), authority.certificate)
    yield server.start()
    server.stop()


def test_callers_need_the_right_authority_and_a_token(server, stranger):
    server.call("list")
    server.call("--server", f"https://{server.grpc}", "list")
    assert "asks for a token" in server.call("list", check=3, TEMPER_TOKEN="").stderr
    server.call("list", check=6, TEMPER_CA_FILE=stranger.certificate)
    server.call("list", check=6, TEMPER_CA_FILE="")  # plain text
    assert server.page("/healthz") == "ok\n"
    assert "temper_server_tls_expiry_time_seconds" in server.page("/metrics")
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        server.page("/healthz", ssl.create_default_context(cafile=stranger.certificate))


def test_new_files_are_taken_over_without_a_restart_and_a_bad_pair_is_not(server, authority):
    assert server.subjects() == {"subject=CN=first"}
    server.put(*authority.issue("second"))
    wait_for(lambda: server.subjects() == {"subject=CN=second"}, "the second certificate")
    third, _ = authority.issue("third")
    server.put(third, authority.directory / "second.key")
    refused = 'temper_server_tls_reloads_total{result="refused"} 1'
    wait_for(lambda: refused in server.page("/metrics"), "the metric of a bad pair")
    server.call("list")
    assert server.subjects() == {"subject=CN=second"}
    assert "tls.key: not the key of" in server.log.read_text()
    server.put(third, authority.directory / "third.key")
    wait_for(lambda: server.subjects() == {"subject=CN=third"}, "the third certificate")
    assert 'temper_server_tls_reloads_total{result="taken"}' in server.page("/metrics")


def test_mutual_tls_lets_in_only_whom_the_authority_knows(tmp_path, authority, stranger):
    options = ["--tls-client-ca", str(authority.certificate)]
    server = TlsServer(tmp_path, authority.issue("first"), authority.certificate, *options).start()

    def pair(files):
        return {"TEMPER_CERT_FILE": files[0], "TEMPER_KEY_FILE": files[1]}

    known, unknown = authority.issue("ana"), stranger.issue("ana")
    server.call("list", **pair(known))
    assert "asks for a token" in server.call("list", check=3, TEMPER_TOKEN="", **pair(known)).stderr
    server.call("list", check=6)
    server.call("list", check=6, **pair(unknown))
    assert "needs its key" in server.call("list", check=2, TEMPER_CERT_FILE=known[0]).stderr
    context = ssl.create_default_context(cafile=authority.certificate)
    with pytest.raises(OSError, match="EOF|CERTIFICATE_REQUIRED|reset"):
        server.page("/healthz", context)
    context.load_cert_chain(*known)
    assert server.page("/healthz", context) == "ok\n"
    server.stop()


def test_probes_need_no_certificate_and_wait_for_nobody(tmp_path, authority):
    server = TlsServer(tmp_path, authority.issue("first"), authority.certificate, "--health", "127.0.0.1:0").start()
    health = json.loads((server.data / "address.json").read_text())["health"]
    page = ("127.0.0.1", int(server.http.rsplit(":", 1)[1]))
    with contextlib.ExitStack() as connections:
        for _ in range(MORE_THAN_THE_PAGE_SERVES):  # and say nothing
            connections.enter_context(socket.create_connection(page, LIMIT))
        with urllib.request.urlopen(f"http://{health}/healthz", timeout=1) as answer:
            assert answer.read() == b"ok\n"
        for path in ("/metrics", "/", "/api/v1/jobs"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{health}{path}", timeout=1)
    assert server.stop() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_connection_shows_its_certificate(tmp_path, authority, version):
    options = ["--tls-client-ca", str(authority.certificate)]
    server = TlsServer(tmp_path, authority.issue("first"), authority.certificate, *options).start()
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(*authority.issue("ana"))
    context.minimum_version = context.maximum_version = version

    def visit(session=None):
        with (
            socket.create_connection(("127.0.0.1", int(server.http.rsplit(":", 1)[1])), LIMIT) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            return connection.session, connection.session_reused

    session, _ = visit()
    assert not session.has_ticket
    assert visit(session)[1] is False
    server.stop()


def gang_address(server, job):
    server.environment_of(job)
    arguments = (server.data / f"runs/{job}/e1/arguments").read_text().split()
    return arguments[arguments.index("--server") + 1]


def test_gangs_come_over_a_socket_with_their_tokens_and_are_adopted_after_a_restart(tmp_path, authority, protos):
    directory = tmp_path / "a b"
    directory.mkdir()
    server = TlsServer(directory, authority.issue("first"), authority.certificate).start()
    server.call("submit", "-", "--job-id", "a", text=JOB)
    socket_file = server.data / "gang.sock"
    assert socket_file.stat().st_mode & 0o777 == 0o600
    server.grpc = gang_address(server, "a")
    assert server.grpc == f"unix:{socket_file}".replace(" ", "%20")
    node = Node(server, protos, "a")
    assert node.assignment.job == "jobs/a"
    assert "asks for a token" in server.temper("list", environment={"TEMPER_TOKEN": ""}, check=3).stderr
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(LIMIT)
    node.close()
    server.start()
    public, server.grpc = server.grpc, gang_address(server, "a")
    node = Node(server, protos, "a")
    server.grpc = public
    job = json.loads(server.call("get", "a", "--output", "json").stdout)
    assert (job["state"], job["epoch"]) == ("JOB_STATE_RUNNING", 1)
    server.stop()
    node.close()


def test_a_data_directory_whose_name_is_too_long_for_a_socket_ends_the_start(tmp_path, authority):
    server = TlsServer(tmp_path, authority.issue("first"), authority.certificate)
    server.command[server.command.index("--data-dir") + 1] = tmp_path / ("x" * 107)
    result = subprocess.run(server.command, text=True, capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 3
    assert "choose a shorter --data-dir" in result.stderr + result.stdout


def test_files_that_can_not_be_used_end_the_start(tmp_path, authority):
    first, _ = authority.issue("first")
    _, key = authority.issue("second")
    command = [BIN / "temper-server", "--data-dir", tmp_path, "--worker-binary", "/bin/true"]
    command += ["--listen", "0.0.0.0:0", "--http", "0.0.0.0:0", "--tls-cert", first]
    result = subprocess.run(command, text=True, capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 2
    assert "--tls-key" in result.stderr
    result = subprocess.run([*command, "--tls-key", key], text=True, capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 6
    assert "second.key: not the key of" in result.stderr
