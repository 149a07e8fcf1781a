# SPDX-License-Identifier: Apache-2.0
"""Ours, as a user runs it: temper-rank with a job file. Times, loss, MFU and memory are those that it reports itself.

cd tests/bench && python -m peers.temper_rank WORK.json [--recompute]
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from peers.step_recorder import StepRecorder
from works import Work

TEMPER_RANK = Path(__file__).resolve().parents[3] / "build/release/bin/temper-rank"
MORE_STEPS_THAN_NEEDED = 10_000


def job(work: Work, output: str, recompute: bool) -> dict:
    """All samples of the work are packed into one micro-batch, which is a step."""
    lora = {"lora": {"rank": 16, "alpha": 32, "targets": ["all-linear"]}} if work.lora else {}
    if work.pairs:  # they are not split, so that of each answer no more than half of a micro-batch is taken
        learned = {"method": {"preference": {}}}
        data = {"max_sample_tokens": min(work.max_sample_tokens, work.tokens // 2)}
    else:
        learned, data = {}, {"train_on": "TRAIN_ON_ALL", "max_sample_tokens": work.max_sample_tokens}
    return (
        lora
        | learned
        | {
            "model": {"uri": work.model},
            "data": {"uri": work.data} | data,
            "training": {
                "steps": MORE_STEPS_THAN_NEEDED,
                "tokens_per_step": work.tokens,
                "micro_batch_tokens": work.tokens,
                "precision": "PRECISION_BF16" if work.bf16 else "PRECISION_FP32",
                "recompute": "RECOMPUTE_BLOCK" if recompute else "RECOMPUTE_NONE",
            },
            "resources": {"threads_per_rank": work.threads},
            "output": {"uri": output},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--recompute", action="store_true", help="a layer keeps its input alone")
    arguments = parser.parse_args()
    work = Work.read(arguments.work)
    recorder = StepRecorder(work.seconds, work.steps)
    with tempfile.TemporaryDirectory() as directory:
        job_file = Path(directory) / "job.json"
        job_file.write_text(json.dumps(job(work, directory, arguments.recompute)))
        process = subprocess.Popen([TEMPER_RANK, "train", job_file], stdout=subprocess.PIPE, text=True)
        try:
            record_steps(process, work, recorder)
        finally:
            process.kill()
            process.wait()


def record_steps(process: subprocess.Popen, work: Work, recorder: StepRecorder) -> None:
    for line in process.stdout:
        event = json.loads(line)
        if "grad_norm" not in event:
            continue
        if event["tokens"] != work.tokens:
            raise SystemExit(f"a step of temper-rank has {event['tokens']} tokens, the samples have {work.tokens}")
        recorder.loss(event["loss"])
        recorder.end_of_step(event["seconds"])
        if recorder.enough():
            recorder.report(peak_bytes=event["peak_memory_bytes"], seconds_at_peak=event["mfu"] * event["seconds"])
            return
    raise SystemExit("temper-rank ended before it had taken enough steps; its errors are above")


if __name__ == "__main__":
    main()
