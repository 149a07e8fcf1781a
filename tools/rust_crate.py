# SPDX-License-Identifier: Apache-2.0
"""The Rust crates and how cargo is called on them, as cmake/Rust.cmake does: another way would build everything
twice."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

_path = f"{os.environ.get('PATH', os.defpath)}:{Path.home() / '.cargo/bin'}"
ENVIRONMENT = os.environ | {"PATH": _path, "RUSTONIG_SYSTEM_LIBONIG": "0"}


@dataclass(frozen=True)
class Crate:
    name: str
    directory: Path
    target: Path  # what cargo builds

    def cargo(self, command: str, *arguments: str) -> list[str]:
        """A command line that compiles, to be run in the crate's directory: release profile, locked."""
        return ["cargo", command, "--release", "--locked", "--target-dir", str(self.target), *arguments]


TEXT = Crate("temper_text", REPOSITORY / "worker/text/rust", REPOSITORY / "build/rust")
CANDLE_READER = Crate("candle_reader", REPOSITORY / "tests/readers/candle", REPOSITORY / "build/candle")
CRATES = (TEXT, CANDLE_READER)


def has_subcommand(name: str) -> bool:
    """Debian's cargo comes without clippy and fmt."""
    return shutil.which(f"cargo-{name}", path=_path) is not None
