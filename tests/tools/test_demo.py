# SPDX-License-Identifier: Apache-2.0
"""The demo's own way, with a tiny model that learns nothing in so few steps."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e import tiny_chat_model

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin"))
# tools/demo/run.py with other constants: {name: value}, a text is a path. With figures they stand for the way itself.
DRIVER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import run
for name, value in json.loads(sys.argv.pop(1)).items():
    setattr(run, name, Path(value) if isinstance(value, str) else value)
if figures := json.loads(sys.argv.pop(1)):
    run.go = lambda server, held_out: figures
sys.exit(run.main())
"""
STAGES = ["Writing 12 samples", "How good is the model before?", "Training it", "Taking the export home"]
STAGES += ["How good is it now?", "Do the engine and transformers agree"]


@dataclass(frozen=True)
class Demo:
    """A demo that has ended."""

    folder: Path
    status: int
    out: str
    errors: str

    @property
    def figures(self) -> dict:
        return json.loads((self.folder / "reports/demo.json").read_text())

    def processes(self) -> list[int]:
        """Process ids of those that still work for it: its folder is in their command line."""
        command_lines = {path: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
        return [int(path.parent.name) for path, line in command_lines.items() if bytes(self.folder / "work") in line]


def run_demo(folder: Path, *options: str, figures: dict | None = None) -> Demo:
    tiny_chat_model.write_model(folder / "model", max_position_embeddings=1024)
    constants = {"RELEASE": str(BIN.parent), "TEMPER": str(BIN / "temper"), "MODEL": str(folder / "model")}
    constants |= {"WORK": str(folder / "work"), "REPORT": str(folder / "reports/demo.json")}
    constants |= {"TRAIN_SAMPLES": 12, "HELD_OUT_SAMPLES": 4, "PARITY_SAMPLES": 2, "GOOD_ENOUGH": 0.5}
    command = [sys.executable, "-c", DRIVER, str(ROOT / "tools/demo"), json.dumps(constants), json.dumps(figures)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, check=False)
    return Demo(folder, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    done = run_demo(tmp_path_factory.mktemp("demo"))
    yield done
    for process in done.processes():
        os.kill(process, signal.SIGKILL)


def test_demo_goes_the_whole_way(demo: Demo) -> None:
    places = [demo.out.index(f"» {stage}") for stage in STAGES]
    assert places == sorted(places)
    for title in ("before", "after"):
        assert f"exact match {title}: 0.0% of 4 prompts" in demo.out

    figures = demo.figures
    assert figures["exact_match_before"] == figures["exact_match_after"] == 0
    assert figures["steps"] > 1
    assert min(figures[name] for name in ("tokens_per_second", "mfu", "seconds", "max_token_kl")) > 0
    assert figures["max_token_kl"] < 1e-8
    assert (Path(figures["export"]) / "model.safetensors").exists()


def test_model_that_did_not_learn_is_a_failure(demo: Demo) -> None:
    assert demo.status == 1
    assert "demo: error: exact match is 0.0%; 50% was expected" in demo.errors


def test_demo_leaves_no_server_behind(demo: Demo) -> None:
    assert "The server stays up" not in demo.out
    assert demo.processes() == []


def test_demo_keeps_the_server_when_told_to(demo: Demo, tmp_path: Path) -> None:
    kept = run_demo(tmp_path, "--keep", figures=demo.figures | {"exact_match_after": 0.5})
    server = int(re.search(r"To stop it: kill (\d+)", kept.out)[1])
    try:
        assert kept.status == 0, kept.errors
        assert kept.processes() == [server]
        address = re.search(r"export TEMPER_SERVER=(\S+)", kept.out)[1]
        subprocess.run([BIN / "temper", "--server", address, "list"], check=True)
    finally:
        os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while kept.processes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_make_builds_all_that_it_runs():
    """In a fresh clone nobody has built the tests."""
    scripts = "".join(path.read_text() for path in (ROOT / "tools/demo").glob("*.py"))
    said = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = " ".join(re.findall(r"--target (.*)", said)).split()
    needed = {"programs", *re.findall(r'"tests/(\w+)"', scripts)}
    assert "parity_probe" in needed
    assert needed <= set(targets)
