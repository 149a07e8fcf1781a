# SPDX-License-Identifier: Apache-2.0
"""A TCP relay that changes what clients send: every `old` becomes a `new` of the same length."""

import socket
import threading


class CorruptingRelay:
    def __init__(self, port: int, old: bytes, new: bytes):
        assert len(old) == len(new)
        self.port = port
        self.old, self.new = old, new
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
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upstream: bool):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data.replace(self.old, self.new) if upstream else data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.listener.close()
