#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast data is made ready (read, rendered, tokenised, packed), and how soon a job on a big file takes a step.

    build/venv/bin/python tests/bench/data_rate.py [--megabytes 50] [--big-gigabytes 5] [--model DIR]

The goals: 100,000 tokens/s a core; seconds to the first step, however big the file is.
"""

import argparse
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/release"
MODEL = ROOT / "build/models/SmolLM2-135M-Instruct"


def text(rng: random.Random, words: list[str], median: float) -> str:
    count = max(1, min(700, int(rng.lognormvariate(0, 0.8) * median)))
    return " ".join(rng.choices(words, k=count)).capitalize() + "."


def write_chats(path: Path, size: int) -> None:
    """Conversations with a log-normal spread of lengths, of words of this repository's documents."""
    words = " ".join(file.read_text() for file in sorted((ROOT / "docs").glob("*.md"))).split()
    rng = random.Random(0)
    with path.open("w") as file:
        while file.tell() < size:
            messages = [
                {"role": "user", "content": text(rng, words, 30)},
                {"role": "assistant", "content": text(rng, words, 60)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def measure_rate(model: Path, data: Path) -> None:
    for threads in ("1", "2"):
        subprocess.run([BUILD / "tests/data_bench", model, data, threads], check=True)


def measure_start(model: Path, directory: Path, chats: Path, gigabytes: float) -> None:
    big = directory / "big.jsonl"
    block = chats.read_bytes()
    with big.open("wb") as file:
        while file.tell() < gigabytes * 1e9:
            file.write(block)
    for name, data in (("one file of the rate", chats), (f"{big.stat().st_size / 1e9:.1f} GB", big)):
        job = {
            "model": {"uri": str(model)},
            "data": {"uri": str(data)},
            "training": {"steps": 1, "tokens_per_step": 512, "micro_batch_tokens": 512, "precision": "PRECISION_BF16"},
            "output": {"uri": str(directory / f"out-{data.stem}")},
        }
        path = directory / "job.json"
        path.write_text(json.dumps(job))
        start = time.perf_counter()
        process = subprocess.Popen([BUILD / "bin/temper-rank", "train", path], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            event = json.loads(line)
            if event.get("phase") == "PHASE_TRAINING":
                print(f"{name}: data and model ready after {time.perf_counter() - start:.1f} s", flush=True)
            if "step" in event:
                print(f"{name}: first step done after {time.perf_counter() - start:.1f} s", flush=True)
                break
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--big-gigabytes", type=float, default=5)
    parser.add_argument("--model", type=Path, default=MODEL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        chats = directory / "chats.jsonl"
        write_chats(chats, int(arguments.megabytes * 1e6))
        measure_rate(arguments.model, chats)
        if arguments.big_gigabytes > 0:
            measure_start(arguments.model, directory, chats, arguments.big_gigabytes)


if __name__ == "__main__":
    main()
