# SPDX-License-Identifier: Apache-2.0
"""Where the server's address and token come from."""

import pytest
from temper._calls import Connection
from temper._config import read_config


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TEMPER_SERVER", raising=False)
    monkeypatch.delenv("TEMPER_TOKEN", raising=False)
    (tmp_path / "temper").mkdir()
    return tmp_path / "temper/config.yaml"


def place(address=None, token=None):
    connection = Connection.of(address, token, 10)
    return connection.address, connection.token


def test_argument_environment_file_default(config, monkeypatch):
    assert place() == ("127.0.0.1:8470", "")
    (config.parent / "secret").write_text("of the file\n")
    config.write_text("server: file:1\ntoken_file: secret\n")
    assert place() == ("file:1", "of the file")
    monkeypatch.setenv("TEMPER_SERVER", "environment:1")
    assert place() == ("environment:1", "of the file")
    monkeypatch.setenv("TEMPER_TOKEN", "of the environment")
    assert place() == ("environment:1", "of the environment")
    assert place("argument:1", "of the argument") == ("argument:1", "of the argument")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("servr: a\n", "expected the keys server, token, token_file, found {'servr': 'a'}"),
        ("- a\n", "expected the keys"),
        ("server: 1\n", "server must be a text"),
        ("token: a\ntoken_file: b\n", "has token and token_file"),
        ("token_file: nowhere\n", "token_file: .*nowhere"),
        ("server: [\n", "config.yaml: "),
    ],
)
def test_what_is_wrong_is_said(config, text, problem):
    config.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_config(config)
