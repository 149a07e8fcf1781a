#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that #include arrows point down only, as docs/ARCHITECTURE.md (§3) draws them. Exit status 1 if one does not.

    tools/check_layering.py [ROOT]

Three rules:
- a folder includes itself and what is below it in ARROWS (arrows add up: train → model → ops allows train → ops);
- only the folders of PROTOBUF, GRPC, TORCH and PYTHON include those libraries;
- no unit sees both torch and protobuf, however indirectly: the torch wheel brings an older protobuf along.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Folder → what it may include: folders, or single headers of a folder. A folder inside one that is listed follows the
# same rules; but the files right in common/, server/, worker/ and client/ do not speak for their folders.
ARROWS: dict[str, list[str]] = {
    "common": [],
    "common/storage": [],
    "common/rpc": [],
    "server": [
        "server/api",
        "server/auth",
        "server/jobs",
        "server/launch",
        "server/observe",
        "server/web",
        "common/rpc",
    ],
    "server/api": ["server/auth", "server/jobs", "server/observe", "common/rpc"],
    "server/auth": ["server/sqlite", "common/rpc"],
    "server/jobs": ["server/launch", "server/sqlite", "common/rpc"],
    "server/sqlite": [],
    "server/launch": ["common/rpc"],
    "server/observe": ["server/auth", "server/jobs"],
    "server/web": ["server/api", "server/observe", "common/rpc"],
    "client": ["common/rpc"],
    "client/command": ["client"],
    "worker": ["worker/session", "worker/train"],
    "worker/node": ["worker/session/frame.h", "worker/session/spin_count.h", "worker/session/utf8.h", "common/rpc"],
    "worker/session": ["worker/train", "worker/verify", "common/rpc"],
    "worker/train": ["worker/data", "worker/checkpoint", "worker/parallel", "worker/model", "worker/hf_backend"],
    "worker/data": ["worker/text"],
    "worker/text": [],
    "worker/checkpoint": ["worker/families", "worker/parallel", "worker/model"],
    "worker/families": ["worker/model/model_config.h"],
    "worker/parallel": ["worker/model"],
    "worker/hf_backend": ["worker/model", "worker/python"],
    "worker/verify": ["worker/checkpoint", "worker/model", "worker/python"],
    "worker/python": [],
    "worker/model": ["worker/ops"],
    "worker/ops": [],
}
# What everything else may include as well.
EVERYWHERE = ["common", "common/storage"]
PROTOBUF = {"server", "client", "common/rpc", "worker/node", "worker/session"}
GRPC = PROTOBUF - {"worker/session"}
TORCH = {"worker"}
NOT_TORCH = {"worker/node", "worker/session", "worker/text"}
PYTHON = {"worker/python"}

PROTOBUF_HEADER = re.compile(r".*\.pb\.h|google/(protobuf|rpc)/.*")
GRPC_HEADER = re.compile(r".*\.grpc\.pb\.h|(grpc|grpcpp)/.*")
PYTHON_HEADER = re.compile(r"Python\.h|pybind11/.*|torch/.*pybind.*|torch/csrc/python_headers\.h")
TORCH_HEADER = re.compile(r"(torch|ATen|c10)/.*")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
SOURCES = {".h", ".cc", ".cu", ".cuh"}
CHECKED = ("common", "server", "worker", "client")
OURS = tuple(f"{folder}/" for folder in CHECKED)
TESTS = "tests"  # may include whatever they test; the rule about units holds for them too


@dataclass(frozen=True)
class Include:
    file: str  # relative to the root, as is `header` when it is ours
    line: int
    header: str


@dataclass(frozen=True)
class Violation:
    include: Include
    rule: str

    def __str__(self) -> str:
        return f'{self.include.file}:{self.include.line}: includes "{self.include.header}": {self.rule}'


@cache
def below(folder: str) -> frozenset[str]:
    """Everything that the arrows reach from `folder`, itself included."""
    reached, to_visit = set(), [folder]
    while to_visit:
        here = to_visit.pop()
        if here not in reached:
            reached.add(here)
            to_visit += ARROWS.get(here, [])
    if folder != "common":
        reached.update(EVERYWHERE)
    return frozenset(reached)


def folder_of(file: str) -> str | None:
    """The folder of the table that a file belongs to."""
    own, *outer = map(str, Path(file).parents)
    return next((folder for folder in (own, *outer) if folder in ARROWS and (folder == own or "/" in folder)), None)


def within(file: str, folders: set[str]) -> bool:
    return any(str(parent) in folders for parent in Path(file).parents)


def includes_of(root: Path, file: str) -> list[Include]:
    lines = (root / file).read_text(encoding="utf-8", errors="replace").splitlines()
    matches = ((number, INCLUDE.match(line)) for number, line in enumerate(lines, start=1))
    return [Include(file, number, match.group(1)) for number, match in matches if match]


def arrow_violation(include: Include) -> str | None:
    mine, theirs = folder_of(include.file), folder_of(include.header)
    if mine is None:
        return f"{Path(include.file).parent} is not in the table of tools/check_layering.py"
    if not include.header.startswith(OURS) or {theirs, include.header} & below(mine):
        return None
    if mine == "common":
        return f"common may not include {theirs} (may: nothing but itself)"
    return f"{mine} may not include {theirs or include.header} (may: {', '.join([*ARROWS[mine], *EVERYWHERE])})"


def library_violation(include: Include) -> str | None:
    file, header = include.file, include.header
    if GRPC_HEADER.fullmatch(header) and not within(file, GRPC):
        return f"gRPC belongs in {', '.join(sorted(GRPC))} only"
    if PROTOBUF_HEADER.fullmatch(header) and not within(file, PROTOBUF):
        return f"protobuf belongs in {', '.join(sorted(PROTOBUF))} only"
    if PYTHON_HEADER.fullmatch(header) and not within(file, PYTHON):
        return f"Python belongs in {', '.join(sorted(PYTHON))} only: it is loaded when needed"
    if TORCH_HEADER.fullmatch(header) and (not within(file, TORCH) or within(file, NOT_TORCH)):
        return f"torch belongs in worker/ only, and there not in {', '.join(sorted(NOT_TORCH))}"
    return None


def mixed_units(includes: dict[str, list[Include]]) -> Iterator[Violation]:
    """Units that see torch and protobuf. Reported at the include that brings torch in."""
    for unit in (file for file in includes if not file.endswith((".h", ".cuh"))):
        seen, to_visit = set(), [unit]
        torch = protobuf = None
        while to_visit:
            for include in includes.get(to_visit.pop(), []):
                if TORCH_HEADER.fullmatch(include.header):
                    torch = torch or include
                if PROTOBUF_HEADER.fullmatch(include.header):
                    protobuf = protobuf or include
                if include.header in includes and include.header not in seen:
                    seen.add(include.header)
                    to_visit.append(include.header)
        if torch and protobuf:
            yield Violation(torch, f"{unit} sees protobuf as well (by {protobuf.file}:{protobuf.line})")


def violations(root: Path) -> list[Violation]:
    folders = [root / folder for folder in (*CHECKED, TESTS)]
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in SOURCES)
    includes = {name: includes_of(root, name) for name in (file.relative_to(root).as_posix() for file in files)}
    found = []
    for file, its_includes in includes.items():
        if file.startswith(f"{TESTS}/"):
            continue
        for include in its_includes:
            rules = (arrow_violation(include), library_violation(include))
            found += [Violation(include, rule) for rule in rules if rule]
    return found + list(mixed_units(includes))


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = violations(root)
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
