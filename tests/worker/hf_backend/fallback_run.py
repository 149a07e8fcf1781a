# SPDX-License-Identifier: Apache-2.0
"""Jobs that take all of their data in each step, and how they are run."""

import json
import subprocess

from worker.train.training_run import RANK

STEPS = 20
LEARNING_RATE = 2e-3


def job(folder, model, output, **changes):
    return {
        "model": {"uri": str(folder / model)},
        "data": {"uri": str(folder / "train.jsonl")},
        "training": {
            "steps": STEPS,
            "tokens_per_step": 256,  # all of the data
            "micro_batch_tokens": 128,
            "learning_rate": LEARNING_RATE,
            "schedule": "SCHEDULE_CONSTANT",
            "warmup_steps": 0,
            "precision": "PRECISION_FP32",
            "adamw": {"weight_decay": 0.1},
        },
        "resources": {"threads_per_rank": 1},
        "output": {"uri": str(folder / output)},
        "checkpoints": {"every_steps": STEPS // 2, "keep_last": 10},
    } | changes


def run(folder, jobs):
    """All jobs in one process: [(lines of each)], and the log of all."""
    files = []
    for number, spec in enumerate(jobs):
        files.append(folder / f"job-{number}.json")
        files[-1].write_text(json.dumps(spec))
    done = subprocess.run([RANK, "train", *files], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    runs = []
    for line in map(json.loads, done.stdout.splitlines()):
        if line.get("phase") == "PHASE_PREPARING_DATA":
            runs.append([])
        runs[-1].append(line)
    return runs, done.stderr


def checkpoint(output, step):
    return output / f"local/checkpoints/step-{step:08}-e0001"
