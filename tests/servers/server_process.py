# SPDX-License-Identifier: Apache-2.0
"""A server on loopback that is not ours, as a test starts it, kills it and starts it again."""

import os
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[2] / "build/test-servers/bin"  # of `make setup`
LIMIT = 30  # seconds that only a broken test needs


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class ServerProcess:
    """`command` listens on `port`, on 127.0.0.1, with `variables` in its environment; what it says goes to `log`."""

    def __init__(self, command: list, port: int, log: Path, variables: dict[str, str] | None = None):
        self.command = [str(word) for word in command]
        self.port = port
        self.log = log
        self.variables = variables or {}
        self.process: subprocess.Popen | None = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.log.parent, env=os.environ | self.variables
            )
        deadline = time.monotonic() + LIMIT
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{self.command[0]} does not listen: {self.log.read_text()}"
            time.sleep(0.02)
        return self

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self):
        """As when its machine loses power. Does nothing to one that is not running."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(LIMIT)

    def __enter__(self):
        return self.start()

    def __exit__(self, *failure):
        self.kill()
