# SPDX-License-Identifier: Apache-2.0
"""A TCP relay whose lines can be cut, held up and slowed down while they are in use.

What comes to its port begins with three bytes: who connects, and the port on this host that it wants to reach
(tests/e2e/fault_shim.c sends them). `fixed` makes it a relay to one port, for those who do not say.
"""

import asyncio
import contextlib
import enum
import threading

HOST = "127.0.0.1"
CHUNK = 65536


class Line(enum.Enum):
    OPEN = enum.auto()
    CUT = enum.auto()  # connections break, and no new one comes about
    STALLED = enum.auto()  # connections stay, and nothing comes through
    SLOW = enum.auto()  # every chunk takes a while


class Relay:
    """On a thread of its own. A line is known by who uses it: "W", a worker; "R", a rank; "*" of a fixed relay."""

    def __init__(self, fixed: int | None = None, delay: float = 0.02):
        self.delay = delay
        self._fixed = fixed
        self._lines: dict[str, Line] = {}
        self._connections: dict[str, set[asyncio.StreamWriter]] = {}
        self.counts: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, HOST, 0))
        self.port = self._server.sockets[0].getsockname()[1]

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
        if line is Line.CUT:
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
            who, port = "*", self._fixed
            if port is None:
                header = await reader.readexactly(3)
                who, port = chr(header[0]), int.from_bytes(header[1:], "big")
            self.counts[who] = self.counts.get(who, 0) + 1
            if self._line(who) is Line.CUT:
                return writer.transport.abort()
            far_reader, far_writer = await asyncio.open_connection(HOST, port)
            ends = {writer, far_writer}
            self._connections.setdefault(who, set()).update(ends)
            try:
                async with asyncio.TaskGroup() as pumps:  # one that breaks ends the other
                    pumps.create_task(self._pump(who, reader, far_writer))
                    pumps.create_task(self._pump(who, far_reader, writer))
            except* OSError:
                pass
            finally:
                self._connections.get(who, set()).difference_update(ends)
                far_writer.transport.abort()
        writer.transport.abort()
        return None

    async def _pump(self, who: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            while self._line(who) is Line.STALLED:
                await asyncio.sleep(0.02)
            if self._line(who) is Line.SLOW:
                await asyncio.sleep(self.delay)
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
