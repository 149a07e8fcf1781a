# SPDX-License-Identifier: Apache-2.0
"""An environment counts as good only once it is whole, and is made once."""

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


def test_failing_command_is_reported() -> None:
    with pytest.raises(set_up.SetUpError, match="`false …` failed with status 1"):
        set_up.run(["false"])


def test_package_list_has_no_comments_or_blanks() -> None:
    packages = set_up.listed(set_up.APT_PACKAGES)
    assert "libgrpc++-dev" in packages
    assert all(" " not in package and not package.startswith("#") for package in packages)
