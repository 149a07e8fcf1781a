#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long `temper` takes to start: wall-clock time of `temper --version`, process creation included.

    build/venv/bin/python tests/bench/command_start.py [--runs N] [--binary build/release/bin/temper]

The goal is a median below 50 ms.
"""

import argparse
import statistics
import subprocess
import time
from pathlib import Path

BINARY = Path(__file__).resolve().parents[2] / "build/release/bin/temper"


def start_seconds(binary: Path) -> float:
    start = time.perf_counter()
    subprocess.run([binary, "--version"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--binary", type=Path, default=BINARY)
    arguments = parser.parse_args()

    start_seconds(arguments.binary)  # brings the libraries into the page cache
    seconds = [start_seconds(arguments.binary) for _ in range(arguments.runs)]
    median, best = statistics.median(seconds), min(seconds)
    print(f"temper --version: median {1e3 * median:.1f} ms, min {1e3 * best:.1f} ms of {arguments.runs} runs")


if __name__ == "__main__":
    main()
