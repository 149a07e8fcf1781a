# SPDX-License-Identifier: Apache-2.0
"""Both clients over TLS, and with tokens."""

import asyncio

import pytest
import temper
import temper.aio
from temper_process import make_token
from tls_server import Authority, TlsServer


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"), "ours")
    server = TlsServer(tmp_path_factory.mktemp("tls"), authority.issue("server"), authority.certificate)
    yield server.start()
    server.stop()


def test_client_with_authority_and_token(secure):
    with temper.Client(secure.grpc, secure.token, ca_file=str(secure.ca)) as client:
        assert list(client.list()) == []
    with temper.Client(secure.grpc, "", ca_file=str(secure.ca)) as client, pytest.raises(temper.Unauthenticated):
        list(client.list())
    with temper.Client(secure.grpc, secure.token) as client, pytest.raises(temper.Unavailable):
        list(client.list())


def test_reader_may_not_submit(secure):
    reader = make_token(secure, "eve", "reader")
    spec = {"model": {"uri": "/m"}, "data": {"uri": "/d"}, "training": {"steps": 1}, "output": {"uri": "/o"}}
    refused = pytest.raises(temper.PermissionDenied, match="eve is reader, and this takes submitter")
    with temper.Client(secure.grpc, reader, ca_file=str(secure.ca)) as client, refused:
        client.submit(spec)


def test_asynchronous_client(secure):
    async def jobs():
        async with temper.aio.Client(f"https://{secure.grpc}", secure.token, ca_file=str(secure.ca)) as client:
            return [job async for job in client.list()]

    assert asyncio.run(jobs()) == []
