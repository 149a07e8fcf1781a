# SPDX-License-Identifier: Apache-2.0
"""toxiproxy: TCP proxies in front of another server, and what shall go wrong in them."""

import json
import urllib.request
from pathlib import Path
from typing import Any

from servers.server_process import PROGRAMS, ServerProcess, free_port


class Toxiproxy(ServerProcess):
    def __init__(self, directory: Path):
        port = free_port()
        command = [PROGRAMS / "toxiproxy", "-host", "127.0.0.1", "-port", port]
        super().__init__(command, port, directory / "toxiproxy.log")

    def ask(self, method: str, path: str, body: dict | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, data=json.dumps(body).encode() if body else None
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def proxy(self, port: int) -> "Proxy":
        """A new proxy to 127.0.0.1:port."""
        name = f"to-{port}-{free_port()}"
        body = {"name": name, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{port}"}
        return Proxy(self, name, self.ask("POST", "/proxies", body)["listen"])


class Proxy:
    """`address` is where it listens. Toxics are of its stream to the client, unless said otherwise."""

    def __init__(self, toxiproxy: Toxiproxy, name: str, address: str):
        self.toxiproxy = toxiproxy
        self.name = name
        self.address = address

    def add(self, toxic: str, upstream: bool = False, toxicity: float = 1.0, **attributes):
        """For instance `latency` (latency=ms), `bandwidth` (rate=KB/s), `reset_peer` (timeout=ms), `timeout`
        (timeout=ms, 0: silence for ever), `limit_data` (bytes=N): github.com/Shopify/toxiproxy lists them. `toxicity`
        is the share of connections that it befalls."""
        body = {"type": toxic, "stream": "upstream" if upstream else "downstream", "toxicity": toxicity}
        self.toxiproxy.ask("POST", f"/proxies/{self.name}/toxics", body | {"attributes": attributes})

    def heal(self):
        """Removes all toxics, and lets connections through again."""
        for toxic in self.toxiproxy.ask("GET", f"/proxies/{self.name}/toxics"):
            self.toxiproxy.ask("DELETE", f"/proxies/{self.name}/toxics/{toxic['name']}")
        self.toxiproxy.ask("POST", f"/proxies/{self.name}", {"enabled": True})

    def cut(self):
        """Ends all connections and refuses new ones."""
        self.toxiproxy.ask("POST", f"/proxies/{self.name}", {"enabled": False})
