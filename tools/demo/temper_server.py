# SPDX-License-Identifier: Apache-2.0
"""A temper-server of the demo's own, on free ports of the loopback interface."""

import json
import subprocess
import time
from pathlib import Path

START_LIMIT = 30  # seconds


class ServerError(Exception):
    pass


class Server:
    def __init__(self, program: Path, directory: Path) -> None:
        self.data_directory = directory / "server"
        self.log = directory / "server.log"
        command = [program, "--data-dir", self.data_directory, "--slots", "cpu:1"]
        command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        with self.log.open("wb") as log:
            # In a session of its own: Ctrl-C is for the demo, which cancels the job before it stops the server.
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_until_ready(self) -> None:
        """Until the server has written its addresses, which it does last."""
        addresses = self.data_directory / "address.json"
        deadline = time.monotonic() + START_LIMIT
        while not addresses.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-2000:]
                raise ServerError(f"temper-server did not start. The end of {self.log}:\n{end}")
            time.sleep(0.05)
        found = json.loads(addresses.read_text())
        self.grpc, self.http = found["grpc"], found["http"]
