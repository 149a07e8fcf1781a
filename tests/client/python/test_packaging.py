# SPDX-License-Identifier: Apache-2.0
"""The package as pip installs it, and its README as people read it. Nothing is downloaded."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "client/python/README.md"


def python(*arguments, directory, interpreter=sys.executable, **environment):
    result = subprocess.run(
        [interpreter, *map(str, arguments)],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_wheel_from_sdist_from_checkout_installs_into_a_fresh_environment(tmp_path):
    """A few seconds. With the setuptools and grpcio-tools of the tests, for these are there without a network."""
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info", "v1")
    shutil.copytree(ROOT / "client/python", checkout / "client/python", ignore=ignore)
    shutil.copytree(ROOT / "proto", checkout / "proto")
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    python("-c", build, directory=checkout / "client/python")
    shutil.rmtree(checkout)

    (sdist,) = tmp_path.glob("temper_client-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"proto/temper/v1/job.proto", "proto/temper/v1/training_service.proto", "setup.py"} <= names
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    python("-m", "pip", "wheel", *options, "-w", tmp_path, sdist, directory=tmp_path)

    (wheel,) = tmp_path.glob("temper_client-*-py3-none-any.whl")
    python("-m", "venv", "--without-pip", tmp_path / "venv", directory=tmp_path)
    fresh = tmp_path / "venv/bin/python"
    python("-m", "pip", "--python", fresh, "install", "--no-deps", "--no-index", "-q", wheel, directory=tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {"temper/py.typed", "temper/v1/job_pb2.pyi", "temper/v1/training_service_pb2_grpc.py"} <= set(names)
    assert not [name for name in names if "worker" in name]
    # grpc and protobuf come from the environment of the tests, temper from the fresh one.
    show = "import temper.aio, temper.v1.training_service_pb2_grpc; print(temper.__file__, temper.Client().address)"
    libraries = sysconfig.get_path("purelib")
    shown = python("-c", show, directory=tmp_path, interpreter=fresh, PYTHONPATH=libraries, TEMPER_SERVER="there:1")
    assert shown.startswith(str(tmp_path / "venv"))
    assert shown.endswith("there:1\n")


@pytest.mark.usefixtures("client")
def test_tour_of_the_readme_works(server, inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEMPER_SERVER", server.listen)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.yaml").write_text(
        f"model: {{uri: {inputs}/model}}\ndata: {{uri: {inputs}/train.jsonl}}\noutput: {{uri: ./output}}\n"
        "training: {steps: 20, tokens_per_step: 256, precision: fp32}\nresources: {threads_per_rank: 1}\n"
    )
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(README), "exec"), {"__name__": "tour"})
    printed = capsys.readouterr().out
    assert "step 20/20  loss " in printed
    assert "training.steps must be" in printed
    assert (tmp_path / "my-finetune/model.safetensors").read_bytes()
    assert (tmp_path / "my-async-finetune/model.safetensors").read_bytes()
