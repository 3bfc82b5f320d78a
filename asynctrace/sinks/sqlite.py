"""The SQLite sink: one file that many processes write to and that answers SQL."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal

from asynctrace.core.allowed import is_choice, is_number, is_whole
from asynctrace.core.batch import Batch
from asynctrace.errors import ConfigurationError, PartialWriteError, SinkClosedError
from asynctrace.ports import LocalSink
from asynctrace.sinks._paths import checked_path
from asynctrace.sinks._sqlite_errors import as_sink_errors
from asynctrace.sinks._sqlite_file import StoreFile
from asynctrace.sinks._sqlite_insert import Inserter, Rows
from asynctrace.sinks._sqlite_reader import SQLiteReader
from asynctrace.sinks._sqlite_thread import DriverThread

__all__ = ["SQLiteReader", "SQLiteSink"]

_BUSY_TIMEOUT = 30.0  # seconds; SQLite is unfair under load, a writer may wait 2 s behind others
_CACHE_SIZE = (
    8 * 1024 * 1024
)  # bytes; it fills up whatever is gained by it, and more gains nothing with 200 runs at once

_abandoned: list[object] = []  # what other loops and a parent process hold; never closed, never finalised


class SQLiteSink(LocalSink):
    """Stores records in the tables of a SQLite file; see the reference for what stands in them.

    Any number of processes and threads may write to one file. A stored record survives the death of the
    process; with ``synchronous="full"`` also the loss of power.

    Args:
        path: the file; missing directories are made.
        synchronous: ``"normal"``, or ``"full"`` for one fsync a write.
        busy_timeout: seconds that a write waits for other writers.
        cache_size: bytes of SQLite's page cache.

    Raises:
        ConfigurationError: an argument cannot be used.

    Example:
        >>> SQLiteSink("/var/log/app/traces.db")
        <SQLiteSink /var/log/app/traces.db>
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["normal", "full"] = "normal",
        busy_timeout: float = _BUSY_TIMEOUT,
        cache_size: int = _CACHE_SIZE,
    ) -> None:
        self.path = checked_path(path, "the path of a file")
        if not is_choice(synchronous, ("normal", "full")):
            raise ConfigurationError("synchronous", synchronous, "normal, full")
        if not is_number(busy_timeout, 0, 86_400):
            raise ConfigurationError("busy_timeout", busy_timeout, "seconds, from 0 to 86400")
        if not is_whole(cache_size, 1024):
            raise ConfigurationError("cache_size", cache_size, "a whole number of bytes from 1024")
        self.safety = "disk" if synchronous == "full" else "process"
        self._options: dict[str, Any] = {
            "synchronous": synchronous,
            "busy_timeout": busy_timeout,
            "cache_size": cache_size,
        }
        self._held: _Held | None = None

    def __repr__(self) -> str:
        return f"<SQLiteSink {self.path}>"

    async def open(self) -> None:
        """Open or make the file and its tables.

        Raises:
            TransientSinkError: it is locked, the disk is full, the system is out of descriptors.
            PermanentSinkError: it may not be written, or it is no database.
        """
        held, self._held = self._held, None
        if held is not None:
            await held.let_go()
        opening = _Held(await DriverThread.start(), StoreFile(self.path, **self._options))
        try:
            with as_sink_errors(self.path):
                await opening.thread.run(lambda: opening.file.use(_nothing))
        except BaseException:
            await opening.close()  # cancelled, the thread may have opened the file all the same
            raise
        self._held = opening

    async def write(self, batch: Batch) -> None:
        """Store the batch: records, then marks.

        A batch that is cancelled on its way may have been stored; sent again, it is not stored twice.

        Raises:
            TransientSinkError: the file is locked, the disk is full.
            BatchTooLargeError: the memory does not hold it.
            PermanentSinkError: the file may not be written, is no database or lacks a table.
            PartialWriteError: some values cannot be stored; all other records are.
            SinkClosedError: the sink is not open in this process.
        """
        held = self._held
        if held is None or not held.thread.is_alive:
            raise SinkClosedError(f"{self!r} is not open")
        rows = Rows(batch.marks)
        async for part in batch.slices():
            held.inserter.add(rows, part)
        with as_sink_errors(self.path):
            rejections = await held.thread.run(
                lambda: held.file.use(lambda connection: held.inserter.insert(connection, rows))
            )
        if rejections:
            raise PartialWriteError(rejections)

    def write_now(self, batch: Batch) -> None:
        """Store the batch with a connection of its own, from any thread, and close it again.

        Raises:
            SinkError: as :meth:`write`.
        """
        inserter, rows = Inserter(), Rows(batch.marks)
        inserter.add(rows, batch.records)
        file = StoreFile(self.path, **self._options)
        with as_sink_errors(self.path):
            try:
                rejections = file.use(lambda connection: inserter.insert(connection, rows))
            finally:
                file.close()
        if rejections:
            raise PartialWriteError(rejections)

    async def aclose(self) -> None:
        """Close the file and end the thread."""
        held, self._held = self._held, None
        if held is not None:
            await held.close()


class _Held:
    """What an open sink holds, and where."""

    def __init__(self, thread: DriverThread, file: StoreFile) -> None:
        self.thread = thread
        self.file = file
        self.inserter = Inserter()
        self._loop = asyncio.get_running_loop()

    async def let_go(self) -> None:
        """Close, unless it belongs to another loop or process: then keep it as it is."""
        if self._loop is asyncio.get_running_loop():
            await self.close()
        else:
            _abandoned.append(self)

    async def close(self) -> None:
        if not self.thread.is_alive:
            _abandoned.append(self)
            return
        try:
            await self.thread.run(self.file.close)
        finally:
            await self.thread.stop()


def _nothing(connection: object) -> None:
    """Opens the file, no more."""
