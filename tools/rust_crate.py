# SPDX-License-Identifier: Apache-2.0
"""The Rust crate and how cargo is called on it, as cmake/Rust.cmake does: another way would build everything twice."""

import os
import shutil
from pathlib import Path

CRATE = Path(__file__).resolve().parent.parent / "worker/text/rust"
TARGET = CRATE.parents[2] / "build/rust"

_path = f"{os.environ.get('PATH', os.defpath)}:{Path.home() / '.cargo/bin'}"
ENVIRONMENT = os.environ | {"PATH": _path, "RUSTONIG_SYSTEM_LIBONIG": "0"}


def has_subcommand(name: str) -> bool:
    """Debian's cargo comes without clippy and fmt."""
    return shutil.which(f"cargo-{name}", path=_path) is not None


def cargo(command: str, *arguments: str) -> list[str]:
    """A command line that compiles: release profile, locked, the build's own target directory."""
    return ["cargo", command, "--release", "--locked", "--target-dir", str(TARGET), *arguments]
