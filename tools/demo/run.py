#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the whole way of a model, as a user goes it.

Writes a small data set, starts temper-server, submits client/examples/sft.yaml with the `temper` command, takes the
export home and lets plain transformers say what it has learned. Whatever was started is stopped at the end, at
Ctrl-C, and when something fails; with --keep the server stays up. The figures go to build/reports/demo.json.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # a thread that waits does not spin for long: the cores may be busy

import dataset
import evaluate
import parity
import processes
import transformers
from temper_server import Server, ServerError

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE = REPOSITORY / "build/release"
TEMPER = RELEASE / "bin/temper"
MODEL = REPOSITORY / "build/models/SmolLM2-135M-Instruct"
WORK = REPOSITORY / "build/demo"
JOB_FILE = REPOSITORY / "client/examples/sft.yaml"
REPORT = REPOSITORY / "build/reports/demo.json"
JOB = "demo"
TRAIN_SAMPLES, HELD_OUT_SAMPLES = 440, 200
GOOD_ENOUGH = 0.9  # exact match after training
PARITY_SAMPLES = 12


class DemoError(Exception):
    """What went wrong, for the user."""


def say(message: str) -> None:
    print(f"\n» {message}", flush=True)


def show(path: Path) -> str:
    return os.path.relpath(path)


def temper(server: Server, *arguments: str | Path) -> None:
    """Runs `temper` in the user's terminal."""
    command = ["temper", *(str(argument) for argument in arguments)]
    print(f"$ {' '.join(command)}", flush=True)
    status = subprocess.run(
        [TEMPER, *command[1:]], env=os.environ | {"TEMPER_SERVER": server.grpc}, check=False
    ).returncode
    if status != 0:
        raise DemoError(f"`temper {arguments[0]}` ended with status {status}; the server's log is {show(server.log)}")


def temper_json(server: Server, *arguments: str) -> list[dict]:
    """What `temper … --output json` prints: an object a line."""
    command = [TEMPER, "--server", server.grpc, "--output", "json", *arguments]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def measure(title: str, model: Path, held_out: Path) -> float:
    """Exact match on the held-out prompts, and one answer to look at."""
    start = time.monotonic()
    results = evaluate.answers(model, held_out)
    share = evaluate.exact_match(results)
    cut = "" if results[0].matches() else "  (cut at the first wrong character)"
    print(
        f"  prompt    {results[0].prompt}\n  expected  {results[0].expected}\n  {title:<8}  {results[0].given!r}{cut}"
    )
    print(
        f"  exact match {title}: {share:.1%} of {len(results)} prompts ({time.monotonic() - start:.0f} s)", flush=True
    )
    return share


def training_figures(server: Server, job: str) -> dict:
    """Sums up the steps that the job reported."""
    steps = [event["step"] for event in temper_json(server, "watch", job) if "step" in event]
    seconds = sum(step["seconds"] for step in steps)
    return {
        "steps": len(steps),
        "tokens": sum(int(step["tokens"]) for step in steps),
        "tokens_per_second": sum(int(step["tokens"]) for step in steps) / seconds,
        "mfu": sum(step.get("mfu", 0) * step["seconds"] for step in steps) / seconds,
        "final_loss": steps[-1].get("loss", 0),
        "peak_memory_bytes": max(int(step.get("peak_memory_bytes", 0)) for step in steps),
    }


def go(server: Server, held_out: Path) -> dict:
    """The way itself; returns the figures."""
    say("How good is the model before? (plain transformers, greedy, fp32)")
    before = measure("before", MODEL, held_out)

    say("Training it with temper")
    settings = {"model.uri": MODEL, "data.uri": held_out.with_name("train.jsonl"), "output.uri": WORK / "output"}
    overrides = [part for field, value in settings.items() for part in ("--set", f"{field}={value}")]
    temper(server, "submit", show(JOB_FILE), "--job-id", JOB, *overrides, "--watch")

    say("Taking the export home")
    export = WORK / "export"
    temper(server, "download", JOB, "--to", show(export))

    say("How good is it now? (plain transformers on the export)")
    after = measure("after", export, held_out)

    say("Do the engine and transformers agree on the export? (fp32, eager attention)")
    conversations = parity.read_conversations(held_out, PARITY_SAMPLES)
    agreement = parity.compare(export, conversations, RELEASE / "tests/parity_probe", WORK)
    print(
        f"  largest KL of a token: {agreement.max_token_kl:.1e} nats; "
        f"rounding alone, transformers in fp32 and in fp64: {agreement.fp32_noise:.1e}",
        flush=True,
    )

    return {
        "exact_match_before": before,
        "exact_match_after": after,
        "held_out": HELD_OUT_SAMPLES,
        **training_figures(server, JOB),
        "export": str(export),
        "max_token_kl": agreement.max_token_kl,
        "fp32_noise": agreement.fp32_noise,
        "max_token_kl_bound": agreement.bound(),
    }


def print_table(figures: dict) -> None:
    print(
        f"\n  exact match      {figures['exact_match_before']:.1%} → {figures['exact_match_after']:.1%}"
        f"\n  training         {figures['steps']} steps, {figures['tokens']:,} tokens, "
        f"{figures['tokens_per_second']:.0f} tokens/s, MFU {figures['mfu']:.1%}, "
        f"{figures['peak_memory_bytes'] / 1e9:.1f} GB"
        f"\n  largest token KL {figures['max_token_kl']:.1e} (native and transformers, both on the export)"
        f"\n  export           {show(Path(figures['export']))}"
        f"\n  all of it        {figures['seconds']:.0f} s; figures in {show(REPORT)}",
        flush=True,
    )


@contextlib.contextmanager
def running_server(work: Path, job: str, keep: bool) -> Iterator[Server]:
    """A server; it and everything below it are gone afterwards, unless all went well and it is to be kept."""
    server = Server(RELEASE / "bin/temper-server", work)
    try:
        server.wait_until_ready()
        yield server
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            processes.stop(server.process)  # which stops the job, too
            processes.stop_children()
    if keep:
        say(f"The server stays up. gRPC: {server.grpc} · metrics: http://{server.http}/metrics · job: {job}")
        print(f"  export TEMPER_SERVER={server.grpc}\n  To stop it: kill {server.process.pid}")


def begin_anew(work: Path, report: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    report.unlink(missing_ok=True)


def write_report(report: Path, figures: dict) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(figures, indent=2) + "\n")


def run(keep: bool) -> None:
    start = time.monotonic()
    begin_anew(WORK, REPORT)

    say(f"Writing {TRAIN_SAMPLES} samples to train on and {HELD_OUT_SAMPLES} held-out prompts")
    dataset.write(WORK / "data", seed=0, train=TRAIN_SAMPLES, held_out=HELD_OUT_SAMPLES)
    print(f"  {show(WORK / 'data')}/train.jsonl, held_out.jsonl: no slot value is in both")

    with running_server(WORK, JOB, keep) as server:
        figures = go(server, WORK / "data/held_out.jsonl")
        figures["seconds"] = time.monotonic() - start
        write_report(REPORT, figures)
        print_table(figures)
    if figures["exact_match_after"] < GOOD_ENOUGH:
        raise DemoError(f"exact match is {figures['exact_match_after']:.1%}; {GOOD_ENOUGH:.0%} was expected")
    if figures["max_token_kl"] > figures["max_token_kl_bound"]:
        raise DemoError(f"the engine and transformers are further apart than {figures['max_token_kl_bound']:.1e} nats")


def main(demo: Callable[[bool], None] = run, description: str | None = __doc__) -> int:
    """Runs a demo, which is told whether to keep the server, and says what went wrong; returns the exit status."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the server up and print its addresses")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    processes.adopt_orphans()
    try:
        with processes.termination_as_exception():
            demo(arguments.keep)
    except (DemoError, ServerError, subprocess.CalledProcessError) as error:
        print(f"\ndemo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything that it started is stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
