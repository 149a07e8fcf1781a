# SPDX-License-Identifier: Apache-2.0
"""A temper-server of the demo's own, on free ports of the loopback interface."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_LIMIT = 30  # seconds


class ServerError(Exception):
    pass


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


class Server:
    def __init__(self, program: Path, directory: Path) -> None:
        self.grpc, self.http = free_address(), free_address()
        self.log = directory / "server.log"
        command = [program, "--data-dir", directory / "server", "--slots", "cpu:1"]
        command += ["--grpc-address", self.grpc, "--http-address", self.http]
        with self.log.open("wb") as log:
            # In a session of its own: Ctrl-C is for the demo, which cancels the job before it stops the server.
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not self._is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-2000:]
                raise ServerError(f"temper-server did not start. The end of {self.log}:\n{end}")
            time.sleep(0.1)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.http}/healthz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
