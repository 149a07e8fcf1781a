# SPDX-License-Identifier: Apache-2.0
"""Ten thousand malformed requests leave a server serving: on both ports, at every method, with and without a token."""

import contextlib
import http.client
import random
import socket

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from temper_process import LIMIT, Server, make_token, wait_for

MESSAGES, HTTP_REQUESTS, CONNECTIONS = 7_000, 1_500, 1_500
IN_FLIGHT = 50


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path, options=["--require-tokens", "--max-calls-per-second", "0"]).start()
    yield server
    server.stop()


def methods(channel: grpc.Channel) -> list[str]:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = [name for name in database.get_services() if name.startswith("temper.")]
    pool = [database.FindFileContainingSymbol(name) for name in services]
    return [
        f"/{file.package}.{service.name}/{method.name}"
        for file in {file.name: file for file in pool}.values()
        for service in file.service
        for method in service.method
    ]


def send_messages(server: Server, source: random.Random) -> set[str]:
    """Random bytes as messages. Returns the codes that calls ended with."""
    headers = [[("authorization", f"Bearer {token}")] for token in (make_token(server, "root", "admin"), "temper_a_b")]
    codes = set()
    with grpc.insecure_channel(server.grpc) as channel:
        routes = [*methods(channel), "/temper.v1.TrainingService/None", "/None/None"]
        for _ in range(MESSAGES // IN_FLIGHT):
            calls = []
            for _ in range(IN_FLIGHT):
                body = source.randbytes(source.choice((0, 1, 7, 100, 3000)))
                call = channel.stream_stream(source.choice(routes))
                calls.append(call(iter([body]), metadata=source.choice(headers), timeout=LIMIT))
            codes |= {ending(call) for call in calls}
    return codes


def ending(call) -> str:
    with contextlib.suppress(grpc.RpcError):
        for _ in call:  # without being read it does not end
            pass
    return call.code().name


def send_http(server: Server, source: random.Random) -> None:
    host, port = server.http.removeprefix("http://").split(":")
    kinds = (
        lambda: b"GET /" + bytes(source.choices(range(33, 127), k=50)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        lambda: (
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + source.randbytes(40).hex().encode() * 90
        ),
        lambda: source.randbytes(200) + b"\r\n\r\n",
    )
    for _ in range(HTTP_REQUESTS):
        with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
            connection.sendall(source.choice(kinds)())
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass


def send_connections(server: Server, source: random.Random) -> None:
    """What is no HTTP/2, or stops after its preface, or is a frame of a wrong length."""
    host, port = server.grpc.split(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for _ in range(CONNECTIONS):
        with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
            connection.sendall(source.choice((b"", preface, preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")))
            connection.sendall(source.randbytes(source.choice((0, 9, 500))))


def test_ten_thousand_malformed_requests_leave_it_serving(server):
    source = random.Random(8470)
    process = psutil.Process(server.process.pid)
    codes = send_messages(server, source)
    files, memory = process.num_fds(), process.memory_info().rss
    # gRPC's word for a message that it can't read is UNIMPLEMENTED.
    assert codes == {"OK", "UNAUTHENTICATED", "UNIMPLEMENTED", "INVALID_ARGUMENT"}
    send_http(server, source)
    send_connections(server, source)
    assert server.process.poll() is None
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=LIMIT)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    connection = http.client.HTTPConnection(server.http.removeprefix("http://"), timeout=LIMIT)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    wait_for(lambda: process.num_fds() <= files + 10, "connections that are closed on the other side to be closed")
    assert process.memory_info().rss - memory < 50 << 20
