# SPDX-License-Identifier: Apache-2.0
"""Runs temper-rank alone on a job file, and reads what it says."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RANK = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")) / "temper-rank"
STEPS = 12


def job(inputs: Path, output: Path, **changes) -> dict:
    spec = {
        "model": {"uri": str(inputs / "model")},
        "data": {"uri": str(inputs / "train.jsonl")},
        "training": {
            "steps": STEPS,
            "tokens_per_step": 256,
            "micro_batch_tokens": 128,
            "learning_rate": 5e-3,
            "precision": "PRECISION_FP32",
            "adamw": {"weight_decay": 0.1},
        },
        "resources": {"threads_per_rank": 1},
        "output": {"uri": str(output)},
        "checkpoints": {"every_steps": 5, "keep_last": 10},
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = spec
        for parent in parents:
            target = target.setdefault(parent, {})
        target[name] = value
    return spec


def run(spec: dict, directory: Path, **environment: str) -> subprocess.CompletedProcess:
    file = directory / "job.json"
    file.write_text(json.dumps(spec))
    return subprocess.run(
        [RANK, "train", file], capture_output=True, text=True, timeout=120, check=False, env=os.environ | environment
    )


def train(spec: dict, directory: Path) -> list[dict]:
    result = run(spec, directory)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def digests(export: Path) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(export.glob("*.safetensors"))}


def checkpoint(output: Path, step: int) -> Path:
    return output / f"local/checkpoints/step-{step:08}-e0001"
