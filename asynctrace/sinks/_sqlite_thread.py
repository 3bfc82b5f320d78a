"""The thread that SQLite's blocking calls run on: aiosqlite's, as a daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import aiosqlite

from asynctrace.core.silence import Silence
from asynctrace.lending import Lender

T = TypeVar("T")

_START_GRACE = 0.1  # seconds: a thread that has nothing to do yet
_GRACE = 1.0  # seconds that a cancelled call waits for what already runs on the thread

_silence = Silence()  # aiosqlite logs two lines for each call


class _NoConnection:
    """What aiosqlite holds in place of a connection, so that files can be closed and reopened at a fork."""

    def close(self) -> None:
        """Nothing is held."""


class DriverThread:
    """Runs functions on one thread, in order. Not to be used after a fork: see :attr:`is_alive`."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._pid = os.getpid()

    @classmethod
    async def start(cls) -> DriverThread:
        connection = aiosqlite.Connection(cast("Any", _NoConnection), 64)
        thread = _thread_of(connection)
        thread.daemon = (
            True  # one that is none hangs the exit of an interpreter that leaves a connection open
        )
        logging.getLogger("aiosqlite").addFilter(_silence)
        _silence.cover(thread)
        try:
            await connection
        except asyncio.CancelledError:  # aiosqlite has told the thread to end; as in `run`
            thread.join(_START_GRACE)
            raise
        return cls(connection)

    @property
    def is_alive(self) -> bool:
        """Whether the thread is one of this process: a fork does not copy it."""
        return self._pid == os.getpid()

    async def run(self, function: Callable[[], T]) -> T:
        """The function's result. Cancelled, it lets what runs come to its end first, for at most a second."""
        try:
            return await _execute(self._connection, function)
        except asyncio.CancelledError:
            # The loop may close next, and a thread that answers to a closed loop dies loudly.
            try:
                async with asyncio.timeout(_GRACE):
                    await _execute(self._connection, _nothing)
            except TimeoutError:
                pass  # a statement that waits for a lock: it goes on, later calls queue behind it
            raise

    async def stop(self) -> None:
        """End the thread when it has done what it was given."""
        await self._connection.close()


def _nothing() -> None:
    pass


def _thread_of(connection: aiosqlite.Connection) -> threading.Thread:
    # Up to 0.21 the connection is the thread, from 0.22 on it has one.
    return cast("threading.Thread", getattr(connection, "_thread", connection))


async def _execute(connection: aiosqlite.Connection, function: Callable[[], T]) -> T:
    # aiosqlite's own way to the thread; its public methods run one statement each, a hop may need several.
    with Lender(asyncio.get_running_loop()):
        return cast("T", await connection._execute(function))  # type: ignore[no-untyped-call]
