# SPDX-License-Identifier: Apache-2.0
"""The demo's own way, with a tiny model that learns nothing in so few steps."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from e2e import tiny_chat_model

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin"))
# tools/demo/run.py with other constants: {name: value}, a text is a path.
DRIVER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import run
for name, value in json.loads(sys.argv.pop(1)).items():
    setattr(run, name, Path(value) if isinstance(value, str) else value)
sys.exit(run.main())
"""
STAGES = ["Writing 12 samples", "How good is the model before?", "Training it", "Taking the export home"]
STAGES += ["How good is it now?", "Do the engine and transformers agree", "The server stays up."]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


def test_demo_goes_the_whole_way_and_keeps_the_server(tmp_path: Path) -> None:
    tiny_chat_model.write_model(tmp_path / "model", max_position_embeddings=1024)
    constants = {"RELEASE": str(BIN.parent), "TEMPER": str(BIN / "temper"), "MODEL": str(tmp_path / "model")}
    constants |= {"WORK": str(tmp_path / "work"), "REPORT": str(tmp_path / "reports/demo.json")}
    constants |= {"TRAIN_SAMPLES": 12, "HELD_OUT_SAMPLES": 4, "PARITY_SAMPLES": 2, "GOOD_ENOUGH": 0}
    command = [sys.executable, "-c", DRIVER, str(ROOT / "tools/demo"), json.dumps(constants), "--keep"]
    demo = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert demo.returncode == 0, demo.stderr
    server = int(re.search(r"To stop it: kill (\d+)", demo.stdout)[1])
    try:
        places = [demo.stdout.index(f"» {stage}") for stage in STAGES]
        assert places == sorted(places)
        for title in ("before", "after"):
            assert f"exact match {title}: 0.0% of 4 prompts" in demo.stdout

        figures = json.loads((tmp_path / "reports/demo.json").read_text())
        assert figures["exact_match_before"] == figures["exact_match_after"] == 0
        assert figures["steps"] > 1
        assert min(figures[name] for name in ("tokens_per_second", "mfu", "seconds", "max_token_kl")) > 0
        assert figures["max_token_kl"] < 1e-8
        assert (Path(figures["export"]) / "model.safetensors").exists()

        address = re.search(r"export TEMPER_SERVER=(\S+)", demo.stdout)[1]
        listing = subprocess.run(
            [BIN / "temper", "--server", address, "list"], capture_output=True, text=True, check=True
        )
        assert "demo" in listing.stdout
    finally:
        os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while is_alive(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)
