#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make test` after the build: lint, C++ (ctest), Rust (cargo), fuzzing (libFuzzer), Python (pytest).

Three suites run at a time, those that take longest first: they wait a good deal, for processes and single threads.
Every suite runs even when an earlier one failed. The end is a list of what was slowest, a list of what failed, and one
line that sums up: `N passed, M failed` (`, K skipped` when there were any). JUnit XML of each suite is left in
build/reports.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import lint
import rust_crate

REPOSITORY = Path(__file__).resolve().parent.parent
REPORTS = REPOSITORY / "build/reports"
SLOWEST = 10
FUZZ_INPUTS = 20_000
# Suites of their own.
END_TO_END = "tests/e2e"
SURVIVAL = [f"tests/e2e/test_{what}.py" for what in ("chaos", "checkpoints", "interruptions", "nodes", "recovery")]
TRAINING = "tests/worker/train"


@dataclass(frozen=True)
class Result:
    suite: str
    test: str
    outcome: str  # passed, failed, skipped
    seconds: float = 0


def run(command: list[str], environment: dict[str, str] | None = None) -> int:
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode


def read_junit(suite: str, report: Path) -> list[Result]:
    results = []
    for case in ElementTree.parse(report).iter("testcase"):
        children = {child.tag for child in case}
        skipped = "skipped" in children or case.get("status") in ("disabled", "notrun")
        outcome = "failed" if children & {"failure", "error"} else "skipped" if skipped else "passed"
        name = case.get("name", "?")
        scope = case.get("classname", "")
        name = name if scope in ("", name) else f"{scope}.{name}"
        results.append(Result(suite, name, outcome, float(case.get("time") or 0)))
    return results


def write_junit(results: list[Result], report: Path) -> None:
    for_suite = ElementTree.Element("testsuite", name=report.stem, tests=str(len(results)))
    for result in results:
        case = ElementTree.SubElement(for_suite, "testcase", name=result.test, time=f"{result.seconds:.3f}")
        if result.outcome != "passed":
            ElementTree.SubElement(case, "failure" if result.outcome == "failed" else "skipped")
    ElementTree.ElementTree(for_suite).write(report, encoding="unicode", xml_declaration=True)


def of_suite(suite: str, results: list[Result], status: int) -> list[Result]:
    """Adds a failure when a suite went wrong beside its tests, or had none: it must not count as good."""
    if not results:
        return [Result(suite, "ran no test", "failed")]
    if status != 0 and all(result.outcome != "failed" for result in results):
        return [*results, Result(suite, f"ended with status {status}", "failed")]
    return results


def run_lint(arguments: argparse.Namespace) -> list[Result]:
    results = []
    start = time.monotonic()
    for outcome in lint.outcomes():
        if not outcome.passed:
            print(f"{outcome.check}:\n{outcome.output}", flush=True)
        now = time.monotonic()
        results.append(Result("lint", outcome.check, "passed" if outcome.passed else "failed", now - start))
        start = now
    write_junit(results, REPORTS / "lint.xml")
    return of_suite("lint", results, 0)


def run_cpp(arguments: argparse.Namespace) -> list[Result]:
    """A binary is a ctest, and its report has its cases."""
    build = REPOSITORY / f"build/{arguments.preset}"
    of_cases = build / "test_reports"
    shutil.rmtree(of_cases, ignore_errors=True)
    of_binaries = REPORTS / "ctest.xml"
    of_binaries.unlink(missing_ok=True)
    jobs = str(os.cpu_count() or 1)
    status = run(
        ["ctest", "--test-dir", str(build), "-j", jobs, "--output-junit", str(of_binaries)]
        + ["--output-on-failure", "--progress", "--quiet"],
        test_environment(arguments.preset),
    )
    binaries = read_junit("cpp", of_binaries) if of_binaries.exists() else []
    results = [result for binary in binaries for result in cases_of(binary, of_cases / f"{binary.test}.xml")]
    write_junit(results, REPORTS / "cpp.xml")
    return of_suite("cpp", results, status)


def cases_of(binary: Result, report: Path) -> list[Result]:
    """One that crashed left no report, and one may fail beside its cases: then it counts itself."""
    cases = read_junit(binary.suite, report) if report.exists() else []
    cases = [replace(case, test=f"{binary.test}: {case.test}") for case in cases]
    told = cases and (binary.outcome != "failed" or any(case.outcome == "failed" for case in cases))
    return cases if told else [*cases, binary]


def run_rust(arguments: argparse.Namespace) -> list[Result]:
    """cargo has no JUnit output in stable: its lines are read, one a test."""
    cargo = subprocess.run(
        rust_crate.TEXT.cargo("test"),
        cwd=rust_crate.TEXT.directory,
        env=rust_crate.ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if cargo.returncode != 0:
        print(cargo.stdout, flush=True)
    outcomes = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    lines = re.findall(r"^test (.+?) \.\.\. (ok|FAILED|ignored)", cargo.stdout, re.MULTILINE)
    results = [Result("rust", name, outcomes[word]) for name, word in lines]
    write_junit(results, REPORTS / "rust.xml")
    return of_suite("rust", results, cargo.returncode)


def run_fuzz(arguments: argparse.Namespace) -> list[Result]:
    """Each target for a number of inputs, the same every time, or for a time. A crash leaves its input in reports."""
    build = REPOSITORY / "build/fuzz"
    configured = run(["cmake", "--preset", "fuzz", "--log-level=NOTICE"])
    if configured != 0 or run(["cmake", "--build", "--preset", "fuzz"]) != 0:
        return [Result("fuzz", "build", "failed")]
    limit = f"-max_total_time={arguments.fuzz_seconds}" if arguments.fuzz_seconds else f"-runs={FUZZ_INPUTS}"
    results = []
    for target in sorted((build / "fuzzers").iterdir()):
        name = target.name.removesuffix("_fuzzer")
        found = build / "found" / name  # what libFuzzer adds to the corpus
        if found.exists():
            shutil.rmtree(found)
        found.mkdir(parents=True)
        crashes = REPORTS / "fuzz" / name
        crashes.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        fuzzer = subprocess.run(
            [target, limit, "-seed=1", "-timeout=10", "-rss_limit_mb=4096", f"-artifact_prefix={crashes}/"]
            + [found, REPOSITORY / "tests/fuzz/corpus" / name],
            env=test_environment("fuzz"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if fuzzer.returncode != 0:
            print("\n".join(fuzzer.stdout.splitlines()[-60:]), flush=True)
        outcome = "passed" if fuzzer.returncode == 0 else "failed"
        results.append(Result("fuzz", name, outcome, time.monotonic() - start))
    write_junit(results, REPORTS / "fuzz.xml")
    return of_suite("fuzz", results, 0)


def run_pytest(suite: str, chosen: list[str], arguments: argparse.Namespace) -> list[Result]:
    report = REPORTS / f"{suite}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-o", "junit_family=xunit1", *chosen]
    # Shown when it is done: the other lane prints meanwhile.
    pytest = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=test_environment(arguments.preset),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    print(pytest.stdout, flush=True)
    return of_suite(suite, read_junit(suite, report) if report.exists() else [], pytest.returncode)


def run_e2e(arguments: argparse.Namespace) -> list[Result]:
    return run_pytest("e2e", [END_TO_END, *(f"--ignore={path}" for path in SURVIVAL)], arguments)


def run_survival(arguments: argparse.Namespace) -> list[Result]:
    return run_pytest("survival", SURVIVAL, arguments)


def run_training(arguments: argparse.Namespace) -> list[Result]:
    return run_pytest("training", [TRAINING], arguments)


def run_python(arguments: argparse.Namespace) -> list[Result]:
    return run_pytest("python", ["tests", f"--ignore={END_TO_END}", f"--ignore={TRAINING}"], arguments)


def run_long(arguments: argparse.Namespace) -> list[Result]:
    return run_pytest("long", ["tests", "-m", "long"], arguments)


def test_environment(preset: str) -> dict[str, str]:
    """What tests may rely on."""
    suppressions = REPOSITORY / "tools/sanitizers"
    return os.environ | {
        "TEMPER_BIN": str(REPOSITORY / f"build/{preset}/bin"),
        "TEMPER_MODEL": str(REPOSITORY / "build/models/SmolLM2-135M-Instruct"),
        "HF_HUB_OFFLINE": "1",
        # Tests share the cores: a thread that waits must not spin.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Read by binaries of the preset asan only.
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
        "LSAN_OPTIONS": f"suppressions={suppressions}/leaks.txt:print_suppressions=0",
        "UBSAN_OPTIONS": f"suppressions={suppressions}/undefined.txt:print_stacktrace=1:halt_on_error=1",
    }


SUITES = {
    "python": run_python,
    "training": run_training,
    "e2e": run_e2e,
    "survival": run_survival,
    "cpp": run_cpp,
    "fuzz": run_fuzz,
    "lint": run_lint,
    "rust": run_rust,
    "long": run_long,
}
USUAL = [suite for suite in SUITES if suite != "long"]


def run_suite(suite: str, arguments: argparse.Namespace) -> list[Result]:
    print(f"== {suite} …", flush=True)
    start = time.monotonic()
    results = SUITES[suite](arguments)
    print(f"== {suite}: {time.monotonic() - start:.0f} s\n", flush=True)
    return results


def summary(results: Iterable[Result]) -> tuple[str, bool]:
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for result in results:
        counts[result.outcome] += 1
    line = f"{counts['passed']} passed, {counts['failed']} failed"
    if counts["skipped"]:
        line += f", {counts['skipped']} skipped"
    return line, counts["failed"] == 0 and counts["passed"] > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="release", help="which build to test (a preset of CMakePresets.json)")
    parser.add_argument("--only", default=",".join(USUAL), help=f"suites to run, of {','.join(SUITES)}")
    parser.add_argument(
        "--fuzz-seconds",
        type=int,
        default=0,
        help=f"per fuzz target; default: {FUZZ_INPUTS} inputs, the same every time",
    )
    parser.add_argument("--at-a-time", type=int, default=3, help="suites that run beside each other (default: 3)")
    arguments = parser.parse_args()

    REPORTS.mkdir(parents=True, exist_ok=True)
    chosen = arguments.only.split(",")
    with ThreadPoolExecutor(arguments.at_a_time) as pool:
        results = [result for each in pool.map(lambda suite: run_suite(suite, arguments), chosen) for result in each]

    print("\nslowest:")
    for result in sorted(results, key=lambda result: -result.seconds)[:SLOWEST]:
        print(f"{result.seconds:8.1f} s  {result.suite}: {result.test}")
    failed = [result for result in results if result.outcome == "failed"]
    if failed:
        print("\nfailed:")
        for result in failed:
            print(f"  {result.suite}: {result.test}")
    line, good = summary(results)
    print(f"\n{line}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
