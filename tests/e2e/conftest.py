# SPDX-License-Identifier: Apache-2.0
import importlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_chat_model
from grpc_tools import protoc
from temper_server import BIN, Server, tiny_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def binaries():
    missing = [n for n in ("temper-server", "temper-worker", "temper-rank", "temper") if not (BIN / n).exists()]
    if missing:
        pytest.fail(f"no {', '.join(missing)} in {BIN}: run `make build`, or say where they are in TEMPER_BIN")


@pytest.fixture(scope="session")
def protos(tmp_path_factory):
    """Python's own view of proto/, so that the wire format is tested by a reader that is not ours."""
    out = tmp_path_factory.mktemp("protos")
    names = ["job", "training_service", "worker_service"]
    files = [str(ROOT / f"proto/temper/v1/{name}.proto") for name in names]
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    assert protoc.main([*arguments, f"--python_out={out}", f"--grpc_python_out={out}", *files]) == 0
    sys.path.insert(0, str(out))
    modules = {name: importlib.import_module(f"temper.v1.{name}_pb2") for name in names}
    grpc_module = importlib.import_module("temper.v1.training_service_pb2_grpc")
    return SimpleNamespace(**modules, training_service_grpc=grpc_module)


@pytest.fixture(scope="session")
def pristine_model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny_chat_model.write_model(directory)
    return directory


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    tiny_chat_model.write_data(path)
    return path


@pytest.fixture
def model(pristine_model, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(pristine_model, tmp_path / "model"))


@pytest.fixture
def spec(pristine_model, data, tmp_path):
    """Tests change what they need."""
    return tiny_job(pristine_model, data, tmp_path / "output")


@pytest.fixture
def endless_spec(spec):
    """A job that ends when it is told to."""
    spec["training"]["steps"] = 10_000_000
    return spec


@pytest.fixture
def start_server(protos, tmp_path):
    """Starts servers; stops them at the end, and nothing of theirs may be left then."""
    servers = []

    def start(data_dir=None, **options) -> Server:
        servers.append(Server(data_dir or tmp_path / f"server-{len(servers)}", protos, **options))
        return servers[-1]

    yield start
    try:
        for server in servers:
            if server.is_running:
                assert server.interrupt() == 0
            assert server.processes() == []
    finally:
        for server in servers:
            for process in [*server.processes(), *([server.process] if server.is_running else [])]:
                process.kill()


@pytest.fixture
def server(start_server):
    return start_server()
