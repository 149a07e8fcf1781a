# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads when the server has no place for one more."""

import asyncio
import logging

import pytest
import temper.aio

WAITING = "Waiting for that, up to 10 minutes"


@pytest.fixture(scope="module")
def server_options():
    return ["--max-transfers=1"]


@pytest.fixture
def place(server):
    """Is taken until somebody says that it is waited for."""
    said = []

    class GiveBack(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())
            give_back()

    handler = GiveBack()
    with server.place_taken() as give_back:
        logging.getLogger("temper").addHandler(handler)
        yield
        logging.getLogger("temper").removeHandler(handler)
    assert [WAITING in message for message in said] == [True]


@pytest.mark.usefixtures("place")
def test_upload_waits(client, spec):
    assert client.submit(spec, preflight_only=True, upload=True).info.spec.data.uri.endswith("/train.jsonl")


@pytest.mark.usefixtures("place")
def test_download_waits(client, finished, tmp_path):
    assert client.get(finished).download(tmp_path).received_bytes > 0


@pytest.mark.usefixtures("place", "client")
def test_upload_waits_async(server, spec, tmp_path):
    async def submit():
        async with temper.aio.Client(server.listen) as client:
            return await client.submit(spec, preflight_only=True, upload=True)

    assert asyncio.run(submit()).info.spec.data.uri.endswith("/train.jsonl")


@pytest.mark.usefixtures("place")
def test_download_waits_async(server, finished, tmp_path):
    async def download():
        async with temper.aio.Client(server.listen) as client:
            return await (await client.get(finished)).download(tmp_path)

    assert asyncio.run(download()).received_bytes > 0
