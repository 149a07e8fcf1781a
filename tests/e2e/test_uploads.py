# SPDX-License-Identifier: Apache-2.0
"""`temper submit --upload`: the data is on the user's machine, and the server's gangs read it."""

import json
import shutil
import subprocess
from pathlib import Path

from temper_server import BIN, Server


def submit(server, spec, *options):
    return server.temper("submit", "-", "--upload", *options, stdin=json.dumps(spec))


def uploads_of(server):
    return sorted(str(path.relative_to(server.on_disk("uploads"))) for path in server.on_disk("uploads").rglob("*.*"))


def test_job_trains_on_what_was_sent(server, spec, data, tmp_path):
    local = Path(shutil.copy(data, tmp_path / "mine.jsonl"))
    spec["training"]["steps"] = 2
    spec["data"]["uri"] = str(local)
    spec["validation"] = {"uri": str(shutil.copy(data, tmp_path / "held out.jsonl"))}
    first = submit(server, spec, "--job-id=first")
    assert first.returncode == 0, first.stderr
    kilobytes = f"{2 * local.stat().st_size / 1000:.1f} kB"
    assert f"Uploaded {kilobytes} ({kilobytes} sent)" in first.stderr
    local.unlink()
    ended = server.wait_for_end("first")
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["spec"]["data"]["uri"].startswith(str(server.data_dir / "uploads"))

    # What the server has is not sent again, and a job that reads it is the same job.
    shutil.copy(data, local)
    again = submit(server, spec, "--job-id=again")
    assert f"Uploaded {kilobytes} (0 B sent)" in again.stderr
    assert server.get("again")["spec"] == ended["spec"]
    assert len(uploads_of(server)) == 2


def run_without_a_place(server, *command, stdin=""):
    """Runs a command that finds the server's one place for transfers taken, until it says that it waits for it."""
    with (
        server.place_taken() as give_back,
        subprocess.Popen(
            [BIN / "temper", f"--server={server.listen}", *command],
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
            text=True,
        ) as process,
    ):
        process.stdin.write(stdin)
        process.stdin.close()
        said = process.stderr.readline()
        give_back()
        assert process.wait(timeout=60) == 0, said + process.stderr.read()
    return said


def test_transfers_wait_for_a_place_and_say_so(start_server, spec, data, tmp_path):
    server = start_server(options=["--max-transfers=1"])
    spec["training"]["steps"] = 2
    spec["data"]["uri"] = str(shutil.copy(data, tmp_path / "mine.jsonl"))
    why = "has as many uploads and downloads open as one caller may at a time, 1 (temper-server --max-transfers)"
    said = run_without_a_place(server, "submit", "-", "--upload", "--job-id=first", stdin=json.dumps(spec))
    assert why in said
    assert said.endswith(": end one first. Waiting for that, up to 10m00s …\n")
    assert server.wait_for_end("first")["state"] == "JOB_STATE_SUCCEEDED"
    assert why in run_without_a_place(server, "download", "first", "--to", str(tmp_path / "home"))
    assert (tmp_path / "home/model.safetensors").exists()


def test_preflight_looks_at_what_was_sent(server, spec, data, tmp_path):
    spec["data"]["uri"] = str(shutil.copy(data, tmp_path / "mine.jsonl"))
    result = server.temper("preflight", "-", "--upload", stdin=json.dumps(spec))
    assert result.returncode == 0, result.stderr
    assert "Samples   32 of 32" in result.stdout


def test_too_large_a_file_and_a_directory_are_explained(start_server, tmp_path):
    server = start_server(options=["--max-upload-mb=1"])
    large = tmp_path / "large.jsonl"
    large.write_bytes(bytes(2 << 20))
    for uri, message in [
        (
            large,
            "can't be uploaded: has 2 MiB, and this server takes files of at most 1 MiB (--max-upload-mb)",
        ),
        (tmp_path, "it is a directory"),
        (tmp_path / "none.jsonl", "there is no such file on this machine"),
    ]:
        job = tmp_path / "job.yaml"
        job.write_text(f"training: {{steps: 1}}\ndata: {{uri: {uri}}}\n")
        result = server.temper("submit", str(job), "--upload")
        assert result.returncode == 3, result
        assert f"job.yaml:2: data.uri: {uri}" in result.stderr
        assert message in result.stderr
    assert "jobs" not in server.json("list")
    assert uploads_of(server) == []


def test_no_room_is_said_and_nothing_is_left(start_server, spec, tmp_path):
    server = start_server(disk="size=24m")
    large = tmp_path / "large.jsonl"
    large.write_bytes(bytes(16 << 20))
    spec["data"]["uri"] = str(large)
    result = submit(server, spec)
    assert result.returncode == 7, result
    assert "half of which it keeps for itself" in result.stderr
    assert uploads_of(server) == []


def test_a_server_without_uploads_says_so(start_server, spec):
    server = start_server(options=["--max-upload-mb=0"])
    result = submit(server, spec)
    assert result.returncode == 3, result
    assert "this server takes no uploads (--max-upload-mb is 0)" in result.stderr


def test_uploads_outlive_the_server(server: Server, spec, data, tmp_path):
    spec["data"]["uri"] = str(shutil.copy(data, tmp_path / "mine.jsonl"))
    spec["training"]["steps"] = 1
    assert submit(server, spec, "--job-id=first").returncode == 0
    server.wait_for_end("first")
    server.kill()
    (server.data_dir / "uploads/incoming").mkdir(exist_ok=True)
    (server.data_dir / "uploads/incoming/7.temper-partial").write_text("half")
    server.start()
    assert len(uploads_of(server)) == 1
    assert "(0 B sent)" in submit(server, spec, "--job-id=second").stderr
