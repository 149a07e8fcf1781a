# SPDX-License-Identifier: Apache-2.0
"""The C++ client library as others get it: installed, found by find_package, linked, run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from temper_process import BIN, JOB

BUILD = BIN.parent
CONSUMER = Path(__file__).parent / "package"


def cmake(*arguments):
    result = subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def prefix(tmp_path):
    if not (BUILD / "cmake_install.cmake").exists():
        pytest.skip(f"{BUILD} is no build directory")
    cmake("--install", BUILD, "--component", "client", "--prefix", tmp_path / "prefix")
    return tmp_path / "prefix"


def options_of_the_build():
    """A sanitized library needs a sanitized program."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    values = dict(re.findall(r"^(CMAKE_BUILD_TYPE|CMAKE_CXX_FLAGS):\w+=(.*)$", cache, re.MULTILINE))
    return [f"-D{name}={value}" for name, value in values.items()]


def test_project_of_somebody_else_finds_links_and_runs(prefix, server, tmp_path):
    source, build = tmp_path / "consumer", tmp_path / "build"
    shutil.copytree(CONSUMER, source)
    headers = sorted(path.relative_to(prefix / "include/temper") for path in prefix.rglob("*.h"))
    names = [f"temper/{header}" if header.parts[0] == "v1" else str(header) for header in headers]
    assert "client/training_client.h" in names
    assert not [name for name in names if "worker" in name or "command" in name]
    (source / "every_header.cc").write_text("".join(f'#include "{name}"\n' for name in names))

    cmake("-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", *options_of_the_build())
    cmake("--build", build)
    server.temper("submit", "-", "--job-id", "a", text=JOB, check=0)
    listed = subprocess.run([build / "list_jobs", server.grpc], capture_output=True, text=True, timeout=30, check=True)
    assert listed.stdout == "jobs/a\n"


def test_package_names_no_path_of_the_machine_that_built_it(prefix):
    for file in prefix.rglob("*.cmake"):
        assert str(BUILD.parents[1]) not in file.read_text(), file
