# SPDX-License-Identifier: Apache-2.0
"""A TCP relay to a server of this machine: it counts what is answered, and may change what clients send."""

import socket
import threading
from collections.abc import Callable


class Relay:
    """`change` gets what a client sends, piece by piece. `answered`: bytes that clients got."""

    def __init__(self, port: int, change: Callable[[bytes], bytes] = lambda data: data):
        self.port = port
        self.change = change
        self.answered = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._pump, args=(client, server, self.change), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, self._count), daemon=True).start()

    def _count(self, data: bytes) -> bytes:
        with self.lock:
            self.answered += len(data)
        return data

    def _pump(self, source: socket.socket, sink: socket.socket, treat: Callable[[bytes], bytes]):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(treat(data))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.listener.close()
