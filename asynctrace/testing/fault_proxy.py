"""A TCP proxy that stands between a client and a real server, and lets the network fail."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType

_CHUNK = 65_536  # bytes a read
_LINGER_OFF = struct.pack("ii", 1, 0)  # closing sends RST instead of FIN
_ARRIVES = 0.02  # seconds for the bytes before a cut to get out: a reset throws away what is still on its way


class FaultProxy:
    """Passes bytes between its clients and one server; each fault may begin and end while connections are open.

    Args:
        port: where the server listens.
        host: on which machine.

    Attributes:
        latency: seconds that each piece of bytes waits, in both directions.
        rate: bytes a second of each connection and direction; None for no bound.
        accepted: connections taken so far.
        bytes_up: passed on to the server so far.
        bytes_down: passed back to clients so far.

    Example::

        async with FaultProxy(5432) as proxy:
            sink = PostgresSink(f"postgres://localhost:{proxy.port}/traces")
            proxy.latency = 0.2
            ...
            proxy.hold()            # bytes stay where they are: neither answer nor error
            proxy.release()
            proxy.reset()           # every connection ends as when a machine dies
            await proxy.refuse()    # nobody listens any more
            await proxy.accept()    # on the same port
            proxy.cut_after(1000)   # a torn request
            proxy.lose_reply()      # the server did it, the client never hears of it
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.latency = 0.0
        self.rate: float | None = None
        self.accepted = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._server_at = host, port
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._cut_at: int | None = None
        self._loses_reply = False

    def __repr__(self) -> str:
        host, port = self._server_at
        return f"<FaultProxy on port {self._port} for {host}:{port}, {self.connections} connections>"

    @property
    def port(self) -> int:
        """Where clients connect, on 127.0.0.1; the same after :meth:`refuse` and :meth:`accept`."""
        return self._port

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._tasks)

    async def __aenter__(self) -> FaultProxy:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Listen no more, reset all connections; a second call does nothing."""
        await self.refuse()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- faults ----------------------------------------------------------------------------------------------

    async def accept(self) -> None:
        """Take connections; does nothing when it does already."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections and reset those that are open, until :meth:`accept`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self.reset()

    def reset(self) -> None:
        """End every open connection with a reset, as when a machine dies."""
        for stream in list(self._streams):
            _reset(stream)

    def hold(self) -> None:
        """Keep all bytes back: clients wait for answers that do not come, new ones connect and hear nothing."""
        self._passing.clear()

    def release(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._passing.set()

    def cut_after(self, count: int) -> None:
        """Pass so many more bytes to the server, then reset that connection, once: a torn request.

        Raises:
            ValueError: the count is negative.
        """
        if count < 0:
            raise ValueError(f"count: {count!r} bytes cannot be passed; allowed: 0 or more")
        self._cut_at = self.bytes_up + count

    def lose_reply(self) -> None:
        """Reset the next connection on which the server answers, in place of the answer, once."""
        self._loses_reply = True

    # -- passing on ------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._streams.add(writer)
        self.accepted += 1
        server_writer: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._server_at)
            self._streams.add(server_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_up(reader, server_writer))
                both.create_task(self._pass_down(server_reader, writer))
        except* (OSError, EOFError):  # one side is gone: so is the other
            for stream in (writer, server_writer):
                if stream is not None:
                    _reset(stream)
        finally:
            for stream in (writer, server_writer):
                if stream is not None:
                    self._streams.discard(stream)
                    stream.close()
            self._tasks.discard(task)

    async def _pass_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._delay(len(data))
            if self._cut_at is not None and self.bytes_up + len(data) > self._cut_at:
                left, self._cut_at = self._cut_at - self.bytes_up, None
                self.bytes_up += left
                writer.write(data[:left])
                await writer.drain()
                await asyncio.sleep(_ARRIVES)
                raise ConnectionResetError("cut")
            self.bytes_up += len(data)
            writer.write(data)
            await writer.drain()
        _end(writer)

    async def _pass_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._delay(len(data))
            if self._loses_reply:
                self._loses_reply = False
                raise ConnectionResetError("the reply is lost")
            self.bytes_down += len(data)
            writer.write(data)
            await writer.drain()
        _end(writer)

    async def _delay(self, size: int) -> None:
        await self._passing.wait()
        seconds = self.latency + (size / self.rate if self.rate else 0.0)
        if seconds:
            await asyncio.sleep(seconds)
            await self._passing.wait()


def _end(writer: asyncio.StreamWriter) -> None:
    """Tell the other side that nothing follows; it may still answer."""
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    transport.abort()
