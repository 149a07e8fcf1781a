# SPDX-License-Identifier: Apache-2.0
"""hf:// on a loopback hub and in the cache of huggingface_hub: what is read, from where, and what is said when it can't
be. A whole run writes its part of build/reports/storage.json."""

import subprocess
import sys
from pathlib import Path

import pytest
from servers.hub import Hub, sha256
from servers.storage_probe import probe

SERVER = "loopback hub"
LARGE = bytes(range(256)) * 40_000  # 10 MB: more than one request
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": LARGE,
    "deep/down/file.txt": b"deep",
    "deep/other.txt": b"other",
    "a b+c.txt": b"odd name",
}
DEADLINE_MS = 1500


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def ask(hub, tmp_path):
    """A process with an empty cache and no token."""

    def run(*arguments, **environment) -> dict:
        clean = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": "", "HF_TOKEN": "", "HF_TOKEN_PATH": ""}
        return probe(hub.environment() | clean | environment, *arguments)

    return run


def take_into_cache(hub: Hub, home: Path, name: str, files: str = "*") -> None:
    """By huggingface_hub itself."""
    script = """
import sys, huggingface_hub
huggingface_hub.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2])
"""
    environment = hub.environment() | {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PATH": "/usr/bin"}
    subprocess.run([sys.executable, "-c", script, name, files], env=environment, check=True)


def test_model_is_listed_and_read(hub, ask):
    commit = hub.push("org/model", FILES)
    assert ask("list", "hf://org/model")["objects"] == len(FILES)  # more than a page
    assert ask("list", "hf://org/model", "deep")["objects"] == 2
    for path, content in FILES.items():
        result = ask("read", "hf://org/model", path)
        assert (result.get("size"), result.get("sha256")) == (len(content), sha256(content)), result
        assert result["uri"] == f"hf://org/model@{commit}"
    assert ask("read", "hf://org/model", "deep")["code"] == "FAILED_PRECONDITION"
    assert ask("read", "hf://org/model", "none.txt")["code"] == "NOT_FOUND"


def test_data_is_read_below_a_path(hub, ask):
    hub.push("datasets/org/data", {"data/train.jsonl": b'{"text": "a"}\n'})
    assert ask("read", "hf://datasets/org/data/data", "train.jsonl")["size"] == 14
    assert ask("read", "hf://org/data/data", "train.jsonl")["code"] == "FAILED_PRECONDITION"


def test_revision_is_found_once_and_stays(hub, ask):
    old = hub.push("org/model", {"config.json": b"old"})
    hub.push("org/model", {"config.json": b"pr"}, branch="refs/pr/1")
    pinned = ask("pin", "hf://org/model/config.json")["uri"]
    assert pinned == f"hf://org/model@{old}/config.json"
    hub.push("org/model", {"config.json": b"newer"})
    assert ask("read", f"hf://org/model@{old}", "config.json")["sha256"] == sha256(b"old")
    assert ask("read", "hf://org/model@refs%2Fpr%2F1", "config.json")["sha256"] == sha256(b"pr")
    hub.requests.clear()
    assert ask("pin", pinned)["uri"] == pinned
    assert hub.requests == []


def test_range_takes_these_bytes_and_the_redirect_is_used_again(hub, ask):
    commit = hub.push("org/model", FILES)
    result = ask("read", f"hf://org/model@{commit}", "model.safetensors", "--offset", 1_000_000, "--size", 9_000_000)
    assert result["sha256"] == sha256(LARGE[1_000_000:10_000_000])
    read = sum(int(last) - int(first) + 1 for first, last in (r.range[6:].split("-") for r in hub.store_requests))
    assert read == 9_000_000
    # The size, and where the bytes are: once for each of the two requests that may run at a time.
    assert len(hub.requests) <= 3
    assert all(request.authorization is None for request in hub.store_requests)


def test_token_goes_to_the_hub_alone(hub, ask, tmp_path):
    hub.push("org/secret", FILES, private=True)
    assert ask("read", "hf://org/secret", "model.safetensors", HF_TOKEN=hub.token)["sha256"] == sha256(LARGE)
    assert {request.authorization for request in hub.requests} == {f"Bearer {hub.token}"}
    assert {request.authorization for request in hub.store_requests} == {None}
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home/token").write_text(hub.token + "\n")  # of `hf auth login`
    assert ask("read", "hf://org/secret", "config.json")["code"] == "OK"


@pytest.mark.parametrize(
    ("uri", "environment", "code", "says"),
    [
        ("hf://org/none", {}, "FAILED_PRECONDITION", "HF_TOKEN"),
        ("hf://org/secret", {}, "FAILED_PRECONDITION", "no such repository"),
        ("hf://org/secret", {"HF_TOKEN": "hf_wrong"}, "PERMISSION_DENIED", "HF_TOKEN"),
        ("hf://org/none", {"HF_TOKEN": "hf_secret"}, "FAILED_PRECONDITION", "RepoNotFound"),
        ("hf://org/gated", {}, "PERMISSION_DENIED", "Ask for access"),
        ("hf://org/model@v9", {}, "FAILED_PRECONDITION", "Correct the revision"),
        ("hf://org/model@" + "0" * 40, {}, "FAILED_PRECONDITION", "Correct the revision"),
        ("hf://model", {}, "INVALID_ARGUMENT", "names no repository"),
        ("hf://org/model", {"HF_HUB_OFFLINE": "1"}, "FAILED_PRECONDITION", "hf download"),
    ],
)
def test_refusals_say_what_to_do(hub, ask, uri, environment, code, says):
    hub.push("org/model", FILES)
    hub.push("org/secret", FILES, private=True)
    hub.push("org/gated", FILES, gated=True)
    result = ask("read", uri, "config.json", **environment)
    assert (result["code"], result["cause"]) == (code, "USER_INPUT"), result
    assert says in result["message"]
    assert "hf_wrong" not in result["message"]
    assert "hf_secret" not in result["message"]


def test_nothing_is_written(hub, ask):
    hub.push("org/model", FILES)
    for action in ("write", "check", "publish"):
        result = ask(action, "hf://org/model", "x", "--size", 1)
        assert (result["code"], result["cause"]) == ("PERMISSION_DENIED", "USER_INPUT"), result
        assert "only read" in result["message"]


def test_failures_that_pass_are_waited_for(hub, ask):
    commit = hub.push("org/model", FILES)
    hub.failures = [503, 429, 500]
    hub.store_failures = [500, 503]
    assert ask("read", "hf://org/model", "model.safetensors")["sha256"] == sha256(LARGE)
    hub.failures = [500] * 100
    result = ask("read", f"hf://org/model@{commit}", "model.safetensors", "--deadline-ms", DEADLINE_MS)
    assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
    assert hub.url in result["message"]
    assert DEADLINE_MS / 1000 / 2 < result["seconds"] < 10


def test_signature_that_has_run_out_is_renewed(hub, ask):
    hub.push("org/model", FILES)
    hub.single_use = True
    result = ask("read", "hf://org/model", "model.safetensors", "--piece", 2_000_000)
    assert result["sha256"] == sha256(LARGE), result
    refused = len(hub.store_requests) - hub.signatures
    assert refused > 0


def test_small_ranges_of_large_files_are_read(hub, ask):
    """Where a redirect and a refusal have more to say than was asked for."""
    hub.push("org/model", FILES)
    hub.single_use = True
    result = ask("read", "hf://org/model", "model.safetensors", "--size", 90, "--piece", 30)
    assert result["sha256"] == sha256(LARGE[:90]), result
    assert hub.signatures >= 3


def test_hub_that_does_not_answer_is_given_up_after_the_deadline(hub, ask):
    commit = hub.push("org/model", FILES)
    hub.pause = 5
    result = ask("read", f"hf://org/model@{commit}", "config.json", "--deadline-ms", 500)
    assert (result["code"], result["cause"]) == ("UNAVAILABLE", "STORAGE"), result
    assert result["seconds"] < 10


def test_answers_that_make_no_sense_are_refused(hub, ask):
    commit = hub.push("org/model", FILES)
    for answer in ({"sha": None}, {"sha": 1}, {}, [], None):
        hub.answers = [answer]
        result = ask("pin", "hf://org/model")
        assert (result["code"], result["cause"]) == ("DATA_LOSS", "STORAGE"), result
    hub.endless = True
    result = ask("list", f"hf://org/model@{commit}")
    assert (result["code"], result["cause"]) == ("DATA_LOSS", "STORAGE"), result
    assert "without an end" in result["message"]


def test_other_bytes_than_the_hub_says_are_refused(hub, ask):
    hub.push("org/model", FILES)
    hub.damaged.add("model.safetensors")
    result = ask("read", "hf://org/model", "model.safetensors")
    assert (result["code"], result["cause"]) == ("DATA_LOSS", "STORAGE"), result
    assert "SHA-256" in result["message"]


def test_cache_of_huggingface_hub_comes_first(hub, ask, tmp_path):
    old = hub.push("org/model", FILES)
    take_into_cache(hub, tmp_path / "home", "org/model")
    hub.push("org/model", {"config.json": b"newer"})
    hub.requests.clear()
    result = ask("read", "hf://org/model", "model.safetensors")
    assert (result["sha256"], result["uri"]) == (sha256(LARGE), f"hf://org/model@{old}")
    assert result["local"].endswith(f"models--org--model/snapshots/{old}/model.safetensors")
    assert hub.store_requests[1:] == []  # huggingface_hub's own
    hub.requests.clear()
    for uri in ("hf://org/model", f"hf://org/model@{old}"):
        assert ask("read", uri, "deep/down/file.txt", HF_HUB_OFFLINE="1")["sha256"] == sha256(b"deep")
        assert ask("list", uri, HF_HUB_OFFLINE="1")["objects"] == len(FILES)
    assert hub.requests == []


def test_what_the_cache_lacks_comes_from_the_hub(hub, ask, tmp_path):
    hub.push("org/model", FILES)
    take_into_cache(hub, tmp_path / "home", "org/model", files="*.json")
    assert ask("list", "hf://org/model")["objects"] == len(FILES)
    assert ask("read", "hf://org/model", "deep/down/file.txt")["sha256"] == sha256(b"deep")
    hub.requests.clear()
    assert ask("read", "hf://org/model", "config.json")["code"] == "OK"
    assert not any("resolve" in request.path for request in hub.requests)
    # A hub that is gone leaves the files that the cache has, but nobody knows whether they are all.
    gone = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    arguments = ("hf://org/model", "config.json", "--deadline-ms", 300)
    assert ask("read", *arguments, **gone)["sha256"] == sha256(FILES["config.json"])
    result = ask("list", "hf://org/model", "--deadline-ms", 300, **gone)
    assert result["code"] == "UNAVAILABLE", result
    assert "HF_HUB_OFFLINE=1" in result["message"]
    assert ask("list", "hf://org/model", HF_HUB_OFFLINE="1", **gone)["objects"] == 1
