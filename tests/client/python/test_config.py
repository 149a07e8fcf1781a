# SPDX-License-Identifier: Apache-2.0
"""Where the server's address and token come from."""

import traceback

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
    connection = Connection.of(address, token, None, 10)
    return connection.address, connection.token


def test_argument_environment_file_default(config, monkeypatch):
    assert place() == ("127.0.0.1:8470", "")
    (config.parent / "secret").write_text("of the file\n")
    config.write_text("server: localhost:1\ntoken_file: secret\n")
    assert place() == ("localhost:1", "of the file")
    monkeypatch.setenv("TEMPER_SERVER", "localhost:2")
    assert place() == ("localhost:2", "of the file")
    monkeypatch.setenv("TEMPER_TOKEN", "of the environment")
    assert place() == ("localhost:2", "of the environment")
    assert place("localhost:3", "of the argument") == ("localhost:3", "of the argument")


def test_tls_comes_with_https_or_a_file(config, monkeypatch):
    for variable in ("TEMPER_CA_FILE", "TEMPER_CERT_FILE", "TEMPER_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)

    def connection(address=None, ca_file=None):
        return Connection.of(address, None, ca_file, 10)

    assert connection().credentials is None
    assert connection("https://host:1").credentials is not None
    assert connection("https://host:1").address == "host:1"
    config.write_text("ca_file: ca.pem\n")
    assert connection().tls
    assert connection().ca_file == str(config.parent / "ca.pem")
    monkeypatch.setenv("TEMPER_CA_FILE", "/environment.pem")
    assert connection().ca_file == "/environment.pem"
    assert connection(ca_file="/argument.pem").ca_file == "/argument.pem"
    with pytest.raises(FileNotFoundError, match=r"argument\.pem"):
        _ = connection(ca_file="/argument.pem").credentials
    monkeypatch.setenv("TEMPER_CERT_FILE", "/me.pem")
    with pytest.raises(ValueError, match="needs its key"):
        _ = connection().credentials


def test_the_files_of_tls_are_read_where_address_and_token_are_known(config):
    config.write_text("ca_file: ca.pem\n")
    assert Connection.of("host:1", "secret", None, 10).ca_file == str(config.parent / "ca.pem")


@pytest.mark.parametrize(
    "address", ["host:1", "10.0.0.1:1", "127.evil.example:1", "localhost.evil.example:1", "[::2]:1"]
)
def test_a_token_goes_to_other_hosts_in_plain_text_only_if_that_is_wanted(config, address):
    with pytest.raises(ValueError, match="would be sent to .* in plain text"):
        place(address, "secret")
    assert place(address, "") == (address, "")
    assert Connection.of(address, "secret", None, 10, insecure=True).credentials is None
    assert Connection.of(f"https://{address}", "secret", None, 10).tls
    config.write_text("insecure: true\n")
    assert place(address, "secret") == (address, "secret")
    with pytest.raises(ValueError, match="in plain text"):
        Connection.of(address, "secret", None, 10, insecure=False)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/temper.sock"])
def test_a_token_stays_on_this_host_in_plain_text(config, address):
    assert place(address, "secret") == (address, "secret")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "servr: a\n",
            "expected the keys server, token, token_file, ca_file, cert_file, key_file, insecure, found servr$",
        ),
        ("- a\n", "expected the keys"),
        ("server: 1\n", "server must be a text"),
        ("insecure: please\n", "insecure must be true or false"),
        ("token: a\ntoken_file: b\n", "has token and token_file"),
        ("token_file: nowhere\n", "token_file: .*nowhere"),
        ("server: [\n", r"config\.yaml:2: is not valid YAML"),
    ],
)
def test_what_is_wrong_is_said(config, text, problem):
    config.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_config(config)


@pytest.mark.parametrize(
    "text",
    [
        "tokn: SECRET\n",
        "SECRET\n",
        "token:SECRET\n",
        "SECRET: x\n",
        "- token: SECRET\n",
        "token: [SECRET]\n",
        "token: {SECRET: x}\n",
        "token: SECRET\ntoken_file: secret\n",
        "server: h:1\ntoken: 'SECRET\n",
        "token: *SECRET\n",
        "token: !SECRET x\n",
        "token: SECRET\ninsecure: please\n",
        "token: SECRET\nserver: [\n",
        "token: SECRET\n\tserver: h:1\n",
    ],
)
def test_an_error_does_not_show_the_token(config, text):
    token = f"temper_{'0123456789abcdef' * 5}"
    config.write_text(text.replace("SECRET", token))
    with pytest.raises(ValueError, match=r"config\.yaml") as error:
        read_config(config)
    assert token not in "".join(traceback.format_exception(error.value))
