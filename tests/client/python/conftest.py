# SPDX-License-Identifier: Apache-2.0
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import tiny_chat_model  # noqa: E402
from temper_server import BIN, Server  # noqa: E402

GENERATED = tempfile.TemporaryDirectory(prefix="temper-stubs-")


def load_package() -> None:
    """Makes `temper` of this checkout importable, with generated modules that lie elsewhere.

    Before any test runs: the first `temper` that is imported stays, and other tests need no more than its temper.v1.
    They come before those of an editable installation, which may be old.
    """
    out = GENERATED.name
    includes = [f"-I{ROOT / 'proto'}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    protos = [f"temper/v1/{name}.proto" for name in ("job", "training_service", "worker_service")]
    assert protoc.main(["protoc", *includes, f"--python_out={out}", f"--grpc_python_out={out}", *protos]) == 0
    package = ROOT / "client/python/temper"
    spec = importlib.util.spec_from_file_location(
        "temper", package / "__init__.py", submodule_search_locations=[f"{out}/temper", str(package)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["temper"] = module
    spec.loader.exec_module(module)


load_package()
import temper  # noqa: E402
from temper.v1 import training_service_pb2, training_service_pb2_grpc  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def binaries():
    missing = [n for n in ("temper-server", "temper-worker", "temper-rank") if not (BIN / n).exists()]
    if missing:
        pytest.fail(f"no {', '.join(missing)} in {BIN}: run `make build`, or say where they are in TEMPER_BIN")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A tiny model and data that it can learn."""
    directory = tmp_path_factory.mktemp("inputs")
    tiny_chat_model.write_model(directory / "model")
    tiny_chat_model.write_data(directory / "train.jsonl")
    return directory


@pytest.fixture
def spec(inputs, tmp_path):
    """A job of a second. Tests change what they need."""
    return {
        "model": {"uri": inputs / "model"},
        "data": {"uri": inputs / "train.jsonl"},
        "training": {
            "steps": 60,
            "tokens_per_step": 256,
            "micro_batch_tokens": 256,
            "learning_rate": 5e-3,
            "precision": "fp32",
        },
        "resources": {"threads_per_rank": 1},
        "output": {"uri": tmp_path / "output"},
    }


@pytest.fixture
def long_spec(spec):
    """A job of a few seconds, with checkpoints."""
    spec["training"]["steps"] = 200
    spec["checkpoints"] = {"every_steps": 50, "keep_last": 2}
    return spec


@pytest.fixture
def endless_spec(spec):
    """A job that ends when it is told to."""
    spec["training"]["steps"] = 10_000_000
    return spec


@pytest.fixture(scope="module")
def server_options():
    """Those of the module's server."""
    return []


@pytest.fixture(scope="module")
def server(tmp_path_factory, server_options):
    """A server that is there at the end of every test. Nothing of its gangs may be left at its own."""
    protos = SimpleNamespace(training_service=training_service_pb2, training_service_grpc=training_service_pb2_grpc)
    server = Server(tmp_path_factory.mktemp("server") / "data", protos, options=server_options)
    try:
        yield server
        assert server.interrupt() == 0
        assert server.processes() == []
    finally:
        for process in [*server.processes(), *([server.process] if server.is_running else [])]:
            process.kill()


@pytest.fixture
def client(server):
    """Ends what its test has left behind."""
    with temper.Client(server.listen) as client:
        yield client
        jobs = list(client.list(states=["queued", "starting", "running", "stopping", "paused"]))
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.wait(timeout=60, check=False)


@pytest.fixture(scope="module")
def finished(server, inputs, tmp_path_factory):
    """Id of a job that has succeeded. Tests leave it as it is."""
    spec = {
        "model": {"uri": inputs / "model"},
        "data": {"uri": inputs / "train.jsonl"},
        "training": {"steps": 20, "tokens_per_step": 256, "micro_batch_tokens": 256, "precision": "fp32"},
        "resources": {"threads_per_rank": 1},
        "checkpoints": {"every_steps": 10},
        "output": {"uri": tmp_path_factory.mktemp("output")},
    }
    with temper.Client(server.listen) as client:
        job = client.submit(spec)
        assert job.wait(timeout=120) == "succeeded"
        return job.id


@pytest.fixture
def copied_export(client, finished, tmp_path):
    """The export of `finished` on the server's side, which a test may damage; it is mended afterwards."""
    export = Path(client.get(finished).export_uri.removeprefix("file://"))
    shutil.copytree(export, tmp_path / "undamaged")
    yield export
    shutil.copytree(tmp_path / "undamaged", export, dirs_exist_ok=True)
