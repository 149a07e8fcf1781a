# SPDX-License-Identifier: Apache-2.0
"""Runs a test program's commands in forks of one process (tests/command_server.h), which has torch loaded already."""

import functools
import json
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def _server(program: Path) -> subprocess.Popen:
    """Ends with this process: its stdin does."""
    return subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run(program: Path, *arguments) -> subprocess.CompletedProcess:
    """As subprocess.run(capture_output=True, text=True) would, in the environment of the program's first command."""
    server = _server(program)
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        command = {"arguments": [str(argument) for argument in arguments], "stdout": output.name, "stderr": errors.name}
        try:
            server.stdin.write(json.dumps(command) + "\n")
            server.stdin.flush()
            status = int(server.stdout.readline())
        except BaseException:  # a time limit, for instance: what it would answer is of no use to the next command
            server.kill()
            _server.cache_clear()
            raise
        return subprocess.CompletedProcess([program, *arguments], status, output.read(), errors.read())


def check_run(program: Path, *arguments) -> None:
    done = run(program, *arguments)
    assert done.returncode == 0, f"{done.args}: exit status {done.returncode}\n{done.stderr}"
