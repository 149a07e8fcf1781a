# SPDX-License-Identifier: Apache-2.0
"""A TCP relay whose lines can be cut, held up and slowed down while they are in use.

It leads to one port of this host, or to where each connection says: that begins with three bytes then, who connects and
the port that it wants to reach (tests/e2e/fault_shim.c sends them).
"""

import asyncio
import contextlib
import enum
import threading
from collections.abc import Callable

HOST = "127.0.0.1"
CHUNK = 65536
DELAY = 0.02  # of a slow line, a chunk


class Line(enum.Enum):
    OPEN = enum.auto()
    CUT = enum.auto()  # connections break, and no new one comes about
    STALLED = enum.auto()  # connections stay, and nothing comes through
    SLOW = enum.auto()  # every chunk takes a while
    FAILING = enum.auto()  # HTTP requests are answered with 500, and go no further


FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Relay:
    """On a thread of its own. A line is known by who uses it: "W", a worker; "R", a rank; ANYBODY where nobody says so.
    `change` gets what a client sends, piece by piece. `answered`: bytes that clients got; `refused`: connections that
    found a line cut or failing."""

    ANYBODY = "*"

    def __init__(self, to: int | None = None, change: Callable[[bytes], bytes] = lambda data: data):
        self.answered = 0
        self.refused = 0
        self._to = to
        self._change = change
        self._lines: dict[str, Line] = {}
        self._connections: dict[str, set[asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, HOST, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://{HOST}:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def close(self) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def set(self, who: str, line: Line) -> None:
        """From now on, for the connections that there are as well."""
        self._call(self._set(who, line))

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _set(self, who: str, line: Line) -> None:
        self._lines[who] = line
        if line in (Line.CUT, Line.FAILING):
            for writer in self._connections.pop(who, set()):
                writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        for who in list(self._connections):
            await self._set(who, Line.CUT)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    def _line(self, who: str) -> Line:
        return self._lines.get(who, Line.OPEN)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            who, port = self.ANYBODY, self._to
            if port is None:
                header = await reader.readexactly(3)
                who, port = chr(header[0]), int.from_bytes(header[1:], "big")
            if self._line(who) in (Line.CUT, Line.FAILING):
                self.refused += 1
                if self._line(who) is Line.FAILING:
                    await self._fail(reader, writer)
                return writer.transport.abort()
            far_reader, far_writer = await asyncio.open_connection(HOST, port)
            ends = {writer, far_writer}
            self._connections.setdefault(who, set()).update(ends)
            try:
                async with asyncio.TaskGroup() as pumps:  # one that breaks ends the other
                    pumps.create_task(self._pump(who, reader, far_writer, self._change))
                    pumps.create_task(self._pump(who, far_reader, writer, self._count))
            except* OSError:
                pass
            finally:
                self._connections.get(who, set()).difference_update(ends)
                far_writer.transport.abort()
        writer.transport.abort()
        return None

    async def _fail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(FAILURE)
        # What the client is still sending is taken, or it would see a broken connection instead of the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while await reader.read(CHUNK):
                    pass

    def _count(self, data: bytes) -> bytes:
        self.answered += len(data)
        return data

    async def _pump(self, who: str, reader, writer, treat: Callable[[bytes], bytes]) -> None:
        while chunk := await reader.read(CHUNK):
            while self._line(who) is Line.STALLED:
                await asyncio.sleep(0.02)
            if self._line(who) is Line.SLOW:
                await asyncio.sleep(DELAY)
            writer.write(treat(chunk))
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
