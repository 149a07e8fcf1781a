#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make demo-dpo`: a model learns which of two answers is preferred.

Writes pairs of answers, of which those in metric units are preferred, submits client/examples/dpo.yaml, takes the
adapter home and lets transformers and PEFT say which answers the model prefers now, to questions and with numbers
that it has not seen. Whatever was started is stopped at the end; with --keep the server stays up. The figures go to
build/reports/demo-dpo.json.
"""

import json
import sys
import time
from pathlib import Path

import pairs
import run
from temper_server import Server
from win_rate import Judge

WORK = run.REPOSITORY / "build/demo-dpo"
JOB_FILE = run.REPOSITORY / "client/examples/dpo.yaml"
REPORT = run.REPOSITORY / "build/reports/demo-dpo.json"
JOB = "demo-dpo"
TRAIN_PAIRS, HELD_OUT_PAIRS = 160, 60
GOOD_ENOUGH = 0.9  # win rate after training


def measure(title: str, directory: Path, held_out: Path) -> float:
    """The win rate on the held-out pairs, and an answer to look at."""
    start = time.monotonic()
    judge = Judge(directory)
    share = judge.win_rate(held_out)
    first = json.loads(held_out.read_text(encoding="utf-8").split("\n", 1)[0])
    print(f"  question  {first['prompt'][0]['content']}\n  {title:<8}  {judge.answer(first['prompt'])!r}")
    print(f"  win rate {title}: {share:.1%} of {HELD_OUT_PAIRS} pairs ({time.monotonic() - start:.0f} s)", flush=True)
    return share


def go(server: Server, data: Path) -> dict:
    """The way itself; returns the figures."""
    held_out = data / "held_out.jsonl"
    run.say("Which answers does the model prefer? (plain transformers, fp32)")
    before = measure("before", run.MODEL, held_out)

    run.say("Training it with temper")
    settings = {"model.uri": run.MODEL, "data.uri": data / "train.jsonl", "output.uri": WORK / "output"}
    overrides = [part for field, value in settings.items() for part in ("--set", f"{field}={value}")]
    run.temper(server, "submit", run.show(JOB_FILE), "--job-id", JOB, *overrides, "--watch")

    run.say("Taking the adapter home")
    export = WORK / "export"
    run.temper(server, "download", JOB, "--to", run.show(export))

    run.say("Which does it prefer now? (transformers and PEFT on the adapter)")
    after = measure("after", export, held_out)
    return {
        "win_rate_before": before,
        "win_rate_after": after,
        "held_out": HELD_OUT_PAIRS,
        **run.training_figures(server, JOB),
        "export": str(export),
    }


def print_table(figures: dict) -> None:
    print(
        f"\n  win rate    {figures['win_rate_before']:.1%} → {figures['win_rate_after']:.1%}"
        f"\n  training    {figures['steps']} steps, {figures['tokens']:,} tokens, "
        f"{figures['tokens_per_second']:.0f} tokens/s, {figures['peak_memory_bytes'] / 1e9:.1f} GB"
        f"\n  adapter     {run.show(Path(figures['export']))}"
        f"\n  all of it   {figures['seconds']:.0f} s; figures in {run.show(REPORT)}",
        flush=True,
    )


def demo(keep: bool) -> None:
    start = time.monotonic()
    run.begin_anew(WORK, REPORT)
    run.say(f"Writing {TRAIN_PAIRS} pairs to learn from and {HELD_OUT_PAIRS} held-out ones")
    pairs.write(WORK / "data", seed=0, train=TRAIN_PAIRS, held_out=HELD_OUT_PAIRS)
    print(f"  {run.show(WORK / 'data')}/train.jsonl, held_out.jsonl: answers in metric units are preferred")
    with run.running_server(WORK, JOB, keep) as server:
        figures = go(server, WORK / "data")
        figures["seconds"] = time.monotonic() - start
        run.write_report(REPORT, figures)
        print_table(figures)
    if figures["win_rate_after"] < GOOD_ENOUGH:
        raise run.DemoError(f"the win rate is {figures['win_rate_after']:.1%}; {GOOD_ENOUGH:.0%} was expected")


if __name__ == "__main__":
    sys.exit(run.main(demo, __doc__))
