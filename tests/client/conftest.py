# SPDX-License-Identifier: Apache-2.0
import pytest
from temper_process import Server, load_protos


@pytest.fixture
def server(tmp_path):
    """A running server whose gangs do nothing by themselves."""
    server = Server(tmp_path)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def protos(tmp_path_factory):
    return load_protos(tmp_path_factory.mktemp("protos"))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    """For tests that change nothing."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server.start()
    server.stop()
