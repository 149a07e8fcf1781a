# SPDX-License-Identifier: Apache-2.0
"""Prometheus, scraping one server several times a second."""

import shutil
import time
from pathlib import Path

import requests
from servers.server_process import LIMIT, ServerProcess, free_port

CONFIG = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: temper-server
    honor_labels: true  # our `job` is the training job, not the scrape job
    static_configs: [{{targets: ['{target}']}}]
"""


class Prometheus(ServerProcess):
    """`target`: HOST:PORT. `rules`: a file of rules, with its path."""

    def __init__(self, directory: Path, target: str, rules: Path | None = None):
        program = shutil.which("prometheus")
        assert program, "apt-get install prometheus"
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "prometheus.yml"
        config.write_text(CONFIG.format(target=target, rules=rules or ""))
        port = free_port()
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        super().__init__([*command, f"--web.listen-address=127.0.0.1:{port}"], port, directory / "prometheus.log")

    def query(self, expression: str) -> list[dict]:
        """What it has of that now; nothing while it starts."""
        answer = requests.get(
            f"http://127.0.0.1:{self.port}/api/v1/query",
            params={"query": expression, "time": time.time()},
            timeout=LIMIT,
        )
        if answer.status_code == 503:
            return []
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return answer.json()["data"]["result"]
