#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: whole training steps of temper and of what one could use instead, on this machine.

    make bench [BENCH="--works chat,lora --contenders temper,trl --rounds 5"]

Every contender runs in a process of its own, one at a time, all of a work in turn, for several rounds. Start-up and a
first step are not measured. The table goes to stdout, its figures to build/reports/bench.json, a chart to
build/reports/bench.png; with --readme, table and chart go into README.md and docs/bench.png as well. Nothing else
should run on the machine meanwhile.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import bench_chart
import bench_table
from bench_table import OURS, Row, Run
from works import WORK_KINDS, Work, conversations

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "build/models/SmolLM2-135M-Instruct"
SCRATCH = ROOT / "build/bench"
REPORTS = ROOT / "build/reports"
README, README_CHART = ROOT / "README.md", ROOT / "docs/bench.png"
README_BEGIN, README_END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
LONGEST_RUN = 900  # seconds of one process
BUSY = 0.05  # share of the cores' time that others may take


Failures = dict[tuple[str, str], str]  # by work and contender: what went wrong


@dataclass(frozen=True)
class Contender:
    label: str
    command: list[str]  # the module of peers/ and its options
    works: tuple[str, ...]
    more_works: tuple[str, ...] = ()  # with --all only: they take long


CONTENDERS = {
    OURS: Contender("temper", ["temper_rank"], ("fixed", "chat", "lora", "long", "pairs", "pairs-lora")),
    # As TRL does unless it is told otherwise.
    "temper-recompute": Contender("temper, recompute: block", ["temper_rank", "--recompute"], ("chat",), ("lora",)),
    "eager": Contender("transformers, eager", ["transformers_loop"], ("fixed", "chat", "long")),
    "compile": Contender(
        "transformers, torch.compile", ["transformers_loop", "--compile"], ("fixed",), ("chat", "long")
    ),
    "trl": Contender("TRL", ["trl_sft"], ("chat", "lora")),
    "trl-fastest": Contender("TRL, fastest options", ["trl_sft", "--fastest"], ("chat", "lora")),
    "trl-dpo": Contender("TRL", ["trl_dpo"], ("pairs", "pairs-lora")),
    "trl-dpo-fastest": Contender("TRL, fastest options", ["trl_dpo", "--fastest"], ("pairs", "pairs-lora")),
}
TITLES = {name: kind.title for name, kind in WORK_KINDS.items()}
LABELS = {
    (work, name): contender.label.replace("TRL", "TRL + PEFT") if WORK_KINDS[work].lora else contender.label
    for name, contender in CONTENDERS.items()
    for work in WORK_KINDS
}


class BenchError(Exception):
    """What is wrong and what to do, for the user."""


class Failure(Exception):
    """A contender could not do it."""


# Works


def tokenize(samples: list[dict], limit: int) -> list[list[int]]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)

    def documents(sample: dict) -> list[list[int]]:
        if "text" in sample:
            return [tokenizer(sample["text"])["input_ids"]]
        return [
            tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"] for messages in conversations(sample)
        ]

    return [tokens[:limit] for sample in samples for tokens in documents(sample)]


def prepare(name: str, arguments: argparse.Namespace) -> Work:
    kind = WORK_KINDS[name]
    samples = kind.samples()
    data = SCRATCH / f"{name}.jsonl"
    data.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    work = Work(
        name=name,
        model=str(MODEL),
        data=str(data),
        max_sample_tokens=kind.max_sample_tokens,
        documents=tokenize(samples, kind.max_sample_tokens),
        lora=kind.lora,
        pairs=kind.pairs,
        bf16=arguments.precision == "bf16",
        threads=arguments.threads,
        seconds=arguments.seconds,
        steps=arguments.steps,
    )
    work.write(SCRATCH / f"{name}.json")
    return work


# Runs


def busy_share(seconds: float = 1) -> float:
    """Of the time of all cores, now."""

    def idle_and_all() -> tuple[int, int]:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)  # idle and iowait

    before = idle_and_all()
    time.sleep(seconds)
    idle, everything = (after - was for after, was in zip(idle_and_all(), before))
    return 1 - idle / everything


def environment(threads: int) -> dict[str, str]:
    """The same for everybody."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / "inductor"),  # torch.compile compiles in the first round only
    }


def output_of(command: list[str | Path], threads: int, log: Path) -> str:
    """What it prints. Whatever it started ends with it."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent,
            env=environment(threads),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=LONGEST_RUN)
        except subprocess.TimeoutExpired:
            raise Failure(f"took more than {LONGEST_RUN} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == -signal.SIGKILL:
        raise Failure("was killed, most likely for want of memory")
    if process.returncode != 0:
        raise Failure(f"failed with status {process.returncode}: {log} says why")
    return output


def run(work: Work, name: str, number: int) -> Run:
    module, *options = CONTENDERS[name].command
    command = [sys.executable, "-m", f"peers.{module}", SCRATCH / f"{work.name}.json", *options]
    output = output_of(command, work.threads, SCRATCH / f"{work.name}-{name}.log")
    measured = json.loads(output.splitlines()[-1])
    return Run(work=work.name, contender=name, round=number, tokens=work.tokens, **measured)


def run_round(number: int, works: list[Work], arguments: argparse.Namespace, failures: Failures) -> list[Run]:
    runs = []
    for work in works:
        for name in arguments.contenders:
            contender = CONTENDERS[name]
            if work.name not in contender.works + (contender.more_works if arguments.all else ()):
                continue
            if (work.name, name) in failures:
                continue
            start = time.monotonic()
            try:
                runs.append(run(work, name, number))
            except Failure as failure:
                if name == OURS:
                    raise BenchError(f"{work.name}: temper {failure}") from None
                failures[work.name, name] = str(failure)
                print(f"round {number}  {work.name:<10} {name:<16} {failure}", flush=True)
                continue
            seconds = " ".join(f"{step:.2f}" for step in runs[-1].seconds)
            print(
                f"round {number}  {work.name:<10} {name:<16} {runs[-1].tokens_per_second:7.1f} tokens/s, "
                f"{runs[-1].peak_bytes / 1e9:4.1f} GB, loss {runs[-1].loss:.4f}, steps {seconds} s "
                f"(process {time.monotonic() - start:.0f} s)",
                flush=True,
            )
    return runs


def run_rounds(works: list[Work], arguments: argparse.Namespace, failures: Failures) -> list[Run]:
    """As many as asked for, or as the time allows; one at least. Who fails once is left out of later rounds."""
    runs: list[Run] = []
    start = time.monotonic()
    for number in range(1, arguments.rounds + 1):
        taken = time.monotonic() - start
        if number > 1 and taken * number / (number - 1) > 60 * arguments.minutes:
            print(f"another round would take more than --minutes {arguments.minutes:g}", flush=True)
            break
        runs += run_round(number, works, arguments, failures)
    return runs


# Reports


def cpu() -> tuple[str, set[str]]:
    """Its name, and what it can do."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return (model[1] if model else "unknown CPU"), set(flags[1].split() if flags else [])


def machine(arguments: argparse.Namespace) -> str:
    name, flags = cpu()
    instructions = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    packages = ("torch", "transformers", "trl", "peft")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''}"
    return f"{threads} of {name} ({', '.join(instructions)}), {arguments.precision}; {versions}"


def remarks(runs: list[Run], rows: list[Row]) -> list[str]:
    """Of a work, first losses are those of one batch and one model."""
    lora, full = (bench_table.of(runs, work, OURS) for work in ("lora", "chat"))
    ratio = bench_table.speed_ratio(lora, full)
    return [
        *([f"temper's LoRA is {ratio:.2f} × as fast as its training of all weights."] if ratio else []),
        f"First losses of a work differ by at most {bench_table.loss_difference(rows):.2%}.",
    ]


def put_into_readme(table: str, caption: str) -> None:
    text = README.read_text()
    begin, end = text.index(README_BEGIN) + len(README_BEGIN), text.index(README_END)
    block = f"\n![tokens/s of each contender](docs/bench.png)\n\n{table}\n\n{caption}\n"
    README.write_text(text[:begin] + block + text[end:])
    shutil.copyfile(REPORTS / "bench.png", README_CHART)


def report(runs: list[Run], works: list[Work], arguments: argparse.Namespace, failures: Failures) -> None:
    rows = bench_table.rows(sorted(runs, key=lambda run: list(TITLES).index(run.work)))
    tokens = {work.name: work.tokens for work in works}
    titles = {name: f"{title}: {tokens[name]:,} tokens a step" for name, title in TITLES.items() if name in tokens}
    rounds = max(run.round for run in runs)
    caption = f"{machine(arguments)}; {rounds} round{'s' if rounds > 1 else ''}."
    table = bench_table.table(rows, titles, LABELS)
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / "bench.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    bench_chart.draw(REPORTS / "bench.png", rows, titles, LABELS, caption)
    failed = [f"{LABELS[work, name]}, {titles[work]}: {failure}." for (work, name), failure in failures.items()]
    caption = " ".join([caption, *remarks(runs, rows), *failed])
    print(f"\n{table}\n\n{caption}")
    if arguments.readme:
        put_into_readme(table, caption)


def names(known: dict) -> Callable[[str], list[str]]:
    """Parses a list of them with commas, into their own order."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = set(chosen) - set(known)
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return [name for name in known if name in chosen]

    return parse


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    precision = "bf16" if "avx512_bf16" in cpu()[1] else "fp32"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", type=names(WORK_KINDS), default=list(WORK_KINDS), help=",".join(WORK_KINDS))
    parser.add_argument("--contenders", type=names(CONTENDERS), default=list(CONTENDERS), help=",".join(CONTENDERS))
    parser.add_argument("--all", action="store_true", help="torch.compile also of (b) and (d); ten minutes more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15, help="no new round that would end later (default: 15)")
    parser.add_argument("--seconds", type=float, default=4, help="measured steps take so long at least (default: 4)")
    parser.add_argument("--steps", type=int, default=1, help="and are so many at least (default: 1)")
    parser.add_argument("--threads", type=int, default=cores, help=f"of each contender (default: {cores}, all cores)")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default=precision, help=f"default here: {precision}")
    parser.add_argument("--readme", action="store_true", help="put table and chart into README.md")
    arguments = parser.parse_args()

    start = time.monotonic()
    if (share := busy_share()) > BUSY:
        print(f"bench: warning: others take {share:.0%} of this machine: figures will mean little", flush=True)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    try:
        works = [prepare(name, arguments) for name in arguments.works]
        failures: Failures = {}
        runs = run_rounds(works, arguments, failures)
        if not runs:
            raise BenchError("none of these contenders takes part in these works")
        report(runs, works, arguments, failures)
    except BenchError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1
    print(f"\n{time.monotonic() - start:.0f} s; figures in build/reports/bench.json, chart in build/reports/bench.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
