# SPDX-License-Identifier: Apache-2.0
"""What nobody may read anywhere but where it belongs: tokens, and the keys of storage in the server's environment."""

import subprocess
import urllib.request
from pathlib import Path

import psutil
from temper_server import BIN, wait_until

KEY = "marked-0123456789abcdef-key"


def files_with(secret: str, *places: Path) -> list[str]:
    found = subprocess.run(
        ["grep", "-rlaF", "--", secret, *map(str, places)], capture_output=True, text=True, check=False
    )
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.splitlines()


def environment_of(process: psutil.Process) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in Path(f"/proc/{process.pid}/environ").read_text().split("\0") if entry)


def test_gangs_have_only_what_they_need_of_the_servers_environment(start_server, endless_spec):
    needed = {"AWS_PROFILE": "team", "OMP_DISPLAY_ENV": "false", "TEAM_SETTING": "of the operator's choice"}
    others = {"DATABASE_URL": "postgres://user:password@host/db", "TEMPER_TOKEN": KEY, "XTEAM_SETTING": "x"}
    server = start_server(environment=needed | others, options=["--worker-env=TEAM_*"])
    server.wait_for_step(server.submit(endless_spec))
    for name in ("temper-worker", "temper-rank"):
        environment = environment_of(server.the_process(name))
        assert {key: environment.get(key) for key in needed} == needed
        assert environment.keys() & (others.keys() | {"PYTEST_CURRENT_TEST", "TEMPER_BIN"}) == set()
    assert "TEMPER_WORKER_TOKEN" in environment_of(server.the_process("temper-worker"))
    assert "TEMPER_WORKER_TOKEN" not in environment_of(server.the_process("temper-rank"))


def test_no_secret_is_in_files_logs_events_metrics_or_process_lists(start_server, spec, tmp_path, monkeypatch):
    server = start_server(options=["--require-tokens"], environment={"AWS_SECRET_ACCESS_KEY": KEY}, preflights=1)
    command = [BIN / "temper-server", "token", "create", "ana", "--role", "admin", "--data-dir", server.data_dir]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("TEMPER_TOKEN", token)
    spec["training"]["steps"] = 200
    spec["checkpoints"] = {"every_steps": 50}
    job = server.submit(spec)
    wait_until(lambda: server.get(job)["state"] == "JOB_STATE_RUNNING" and len(server.processes()) >= 2)
    gang = server.processes()
    gang_token = server.the_process("temper-worker").environ()["TEMPER_WORKER_TOKEN"]
    command_lines = [process.cmdline() for process in [*gang, psutil.Process(server.process.pid)]]
    assert len(command_lines) >= 3  # server, worker, rank
    watched = server.temper("watch", job, "--output", "json")
    assert watched.returncode == 0, watched.stderr
    shown = [server.temper(*words).stdout for words in (("get", job), ("logs", job), ("token", "list"))]
    request = urllib.request.Request(f"http://{server.http}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        metrics = answer.read().decode()

    assert f'job="{job}"' in metrics
    log = Path(server.log.name)
    places = (server.data_dir, log, tmp_path / "output")
    assert files_with(job, *places)  # there is something to be found
    for secret in (token.rsplit("_", 1)[1], gang_token, KEY):
        assert files_with(secret, *places) == []
        for text in (watched.stdout, *shown, metrics, str(command_lines)):
            assert secret not in text
    assert f'audit action=CreateJob object="jobs/{job}" identity=ana role=admin' in log.read_text()
