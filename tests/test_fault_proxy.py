"""The fault proxy, between a real client and a real server on this machine."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from asynctrace.testing import FaultProxy

SECONDS = 10.0


class EchoServer:
    """Answers each line with itself; counts what reached it."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = asyncio.Event()
        self.torn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
            writer.write(b"bye\n")
            await writer.drain()
        except OSError:
            self.torn += 1
        finally:
            self.ended.set()
            writer.close()


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[tuple[EchoServer, FaultProxy]]:
    echo = EchoServer()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    try:
        async with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
            yield echo, proxy
        assert proxy.connections == 0
    finally:
        server.close()


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(to: Client, data: bytes = b"hello\n") -> bytes:
    reader, writer = to
    writer.write(data)
    await writer.drain()
    return await reader.readexactly(len(data))


def run(test: Callable[[EchoServer, FaultProxy], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), world() as (echo, proxy):
            await test(echo, proxy)

    asyncio.run(main())


def test_bytes_pass_in_both_directions_to_their_end() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        big = b"x" * 1_000_000
        async with client(proxy) as there:
            reader, writer = there
            assert await ask(there) == b"hello\n"
            echoed = asyncio.create_task(reader.readexactly(len(big)))
            writer.write(big)
            assert await echoed == big
            writer.write_eof()  # half closed: the answer still comes
            assert await reader.read() == b"bye\n"
        assert (proxy.accepted, proxy.bytes_up, proxy.bytes_down) == (1, len(big) + 6, len(big) + 10)

    run(test)


def test_latency_is_waited_for_in_each_direction() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        async with client(proxy) as there:
            await ask(there)
            proxy.latency = 0.05
            start = time.monotonic()
            await ask(there)
            assert time.monotonic() - start >= 0.1

    run(test)


def test_rate_bounds_the_bytes_a_second() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        proxy.rate = 100_000
        async with client(proxy) as there:
            start = time.monotonic()
            await ask(there, b"x" * 10_000)
            assert time.monotonic() - start >= 0.2  # up and down again

    run(test)


def test_hold_gives_neither_answer_nor_error_until_released() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        async with client(proxy) as there:
            await ask(there)
            proxy.hold()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await ask(there)
            async with client(proxy) as newcomer:  # the connection is taken, and nothing comes of it
                assert echo.received == b"hello\n"
                proxy.release()
                assert await ask(newcomer) == b"hello\n"

    run(test)


def test_refuse_and_accept_on_the_same_port() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        async with client(proxy) as there:
            await ask(there)
            port = proxy.port
            await proxy.refuse()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await ask(there)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await proxy.accept()
        assert proxy.port == port
        async with client(proxy) as there:
            assert await ask(there) == b"hello\n"

    run(test)


def test_reset_ends_connections_but_not_the_proxy() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        async with client(proxy) as there:
            await ask(there)
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                await there[0].read()
        async with client(proxy) as there:
            assert await ask(there) == b"hello\n"

    run(test)


def test_a_cut_tears_the_request_once() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        async with client(proxy) as there:
            await ask(there)
            proxy.cut_after(3)
            there[1].write(b"0123456789")
            with pytest.raises(ConnectionResetError):
                await there[0].readexactly(10)
        await echo.ended.wait()
        assert echo.received == b"hello\n012"
        async with client(proxy) as there:
            assert await ask(there) == b"hello\n"
        with pytest.raises(ValueError, match="count: -1"):
            proxy.cut_after(-1)

    run(test)


def test_a_lost_reply_was_done_all_the_same() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        proxy.lose_reply()
        async with client(proxy) as there:
            with pytest.raises(ConnectionResetError):
                await ask(there)
        assert echo.received == b"hello\n"
        async with client(proxy) as there:
            assert await ask(there) == b"hello\n"

    run(test)


def test_a_server_that_is_away_resets_the_client() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        port = taken.getsockname()[1]

        async def main() -> None:
            async with asyncio.timeout(SECONDS), FaultProxy(port) as proxy, client(proxy) as there:
                with pytest.raises(ConnectionResetError):
                    await there[0].read()

        asyncio.run(main())


def test_many_connections_and_an_end_in_the_middle() -> None:
    async def test(echo: EchoServer, proxy: FaultProxy) -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client(proxy)) for _ in range(20)]
            assert await asyncio.gather(*map(ask, clients)) == [b"hello\n"] * 20
            assert proxy.connections == 20
            proxy.hold()
            await proxy.aclose()
            await proxy.aclose()
            assert proxy.connections == 0

    run(test)


def test_its_repr_says_where() -> None:
    assert repr(FaultProxy(5432)) == "<FaultProxy on port 0 for 127.0.0.1:5432, 0 connections>"
