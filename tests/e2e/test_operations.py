# SPDX-License-Identifier: Apache-2.0
"""What docs/OPERATIONS.md promises."""

import configparser
import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

from temper_server import BIN

ROOT = Path(__file__).resolve().parents[2]


def test_backup_of_a_running_server_brings_its_jobs_back(start_server, spec, tmp_path):
    server = start_server()
    finished = server.submit(spec)
    before = server.wait_for_end(finished)
    spec["training"]["steps"] = 400
    spec["output"]["uri"] = str(tmp_path / "second")
    running = server.submit(spec)
    server.wait_for_step(running)

    restored = tmp_path / "restored"
    restored.mkdir()
    source, copy = sqlite3.connect(server.data_dir / "temper.db"), sqlite3.connect(restored / "temper.db")
    source.backup(copy)
    source.close()
    copy.close()
    events = list(server.events(finished))
    server.interrupt()

    server = start_server(data_dir=restored)
    assert server.get(finished) == before
    assert list(server.events(finished)) == events
    home = tmp_path / "home"
    assert server.temper("download", finished, "--to", str(home)).returncode == 0
    assert (home / "model.safetensors").exists()
    # Its gang is gone, and what it committed is found in storage.
    ended = server.wait_for_end(running)
    assert ended["state"] == "JOB_STATE_SUCCEEDED"
    assert int(ended["latest_step"]["step"]) == 400
    assert any(event.WhichOneof("event") == "resumption" for event in server.events(running))


def downgrade(database: Path) -> None:
    """To version 3 of the schema."""
    connection = sqlite3.connect(database)
    connection.execute("DROP INDEX jobs_by_owner")
    for column in ("owner", "preflight", "preflight_only"):
        connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 3")
    connection.close()


def test_upgrade_of_a_server_whose_gang_trains_on(start_server, spec, tmp_path):
    installed = Path(shutil.copytree(BIN, tmp_path / "bin"))
    server = start_server(binaries=installed, transformers=True)
    spec["training"]["steps"] = 400
    job = server.submit(spec)
    server.wait_for_step(job)
    # What the rank will load at its end is another build's by then.
    (installed / "libtemper_python.so").unlink()
    shutil.copy(BIN.parent / "tests/libforeign_python_module.so", installed / "libtemper_python.so")
    assert server.stop() == 0
    downgrade(server.data_dir / "temper.db")

    server.start()
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert (ended["epoch"], ended.get("restarts", 0)) == (1, 0)
    events = list(server.events(job))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.step.step for event in events if event.WhichOneof("event") == "step"] == list(range(1, 401))
    assert len(server.json("metrics", job, "--points", "1000")["steps"]) == 400
    proof = json.loads((Path(ended["export_uri"]) / "verification.json").read_text())
    assert "belongs to another build of temper" in proof["transformers"]["skipped"]
    warnings = [
        event.log.text for event in events if event.log.severity == server.protos.training_service.LOG_SEVERITY_WARNING
    ]
    assert any("the export was not compared with transformers' model" in text for text in warnings)


def test_unit_starts_the_server_and_stops_it_alone(tmp_path):
    text = (ROOT / "deploy/systemd/temper-server.service").read_text()
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(text)
    service = unit["Service"]
    assert service["KillMode"] == "process"
    assert service["Restart"] == "on-failure"  # Ctrl-C's signal ends jobs and server, and nothing begins anew
    listed = subprocess.run([BIN / "temper-server", "--help"], capture_output=True, text=True, check=True).stdout
    codes = re.findall(r"^ +(\d)  ", listed.split("Exit codes:")[1], re.MULTILINE)
    assert service["RestartPreventExitStatus"].split() == [code for code in codes if code not in ("0", "7")]

    binary, *options = shlex.split(service["ExecStart"])
    assert binary.endswith("/bin/temper-server")
    options = [option.replace("/var/lib/temper", str(tmp_path / "data")) for option in options]
    process = subprocess.Popen(
        [BIN / "temper-server", *options, "--listen=127.0.0.1:0", "--http=127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().startswith("temper-server")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()
