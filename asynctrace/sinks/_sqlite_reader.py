"""Reading a SQLite store back."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from asynctrace.core.allowed import is_number
from asynctrace.core.batch import Mark
from asynctrace.core.numbers import Numbers, in_ranges
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary
from asynctrace.errors import ConfigurationError, StoreError
from asynctrace.sinks._paths import checked_path
from asynctrace.sinks._sqlite_errors import as_store_errors, is_busy
from asynctrace.sinks._sqlite_file import StoreFile
from asynctrace.sinks._sqlite_pruning import MARK, Merging, Removal, rows_before
from asynctrace.sinks._sqlite_query import conditions, moment, storable, teach
from asynctrace.sinks._sqlite_rows import RowDecoder, selection
from asynctrace.sinks._sqlite_runs import run_of, runs_of
from asynctrace.sinks._sqlite_schema import EVENTS, MARKS, TRACES, columns_of
from asynctrace.sinks._sqlite_thread import DriverThread

T = TypeVar("T")

_BUSY_TIMEOUT = 30.0  # seconds
_CACHE_SIZE = 16 * 1024 * 1024  # bytes, for removing
_PAUSE = 0.005  # seconds between two attempts to open it
_PAGE = 250  # records a thread hop
_REMOVED_AT_ONCE = 900  # records; writers wait meanwhile, some 20 ms; any SQLite binds so many values


class SQLiteReader:
    """Answers questions from the tables of a SQLite file, while others write to it.

    Also reads a ``traces`` table that another tool made as documented, as far as its columns go.

    Args:
        path: the file.
        busy_timeout: seconds to wait for writers that are in the way.

    Raises:
        ConfigurationError: an argument cannot be used.

    Example:
        >>> SQLiteReader("/var/log/app/traces.db")
        <SQLiteReader /var/log/app/traces.db>
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = _BUSY_TIMEOUT) -> None:
        self.path = checked_path(path, "the path of a file")
        if not is_number(busy_timeout, 0, 86_400):
            raise ConfigurationError("busy_timeout", busy_timeout, "seconds, from 0 to 86400")
        self._busy_timeout = busy_timeout

    def __repr__(self) -> str:
        return f"<SQLiteReader {self.path}>"

    def __str__(self) -> str:
        return self.path

    async def runs(self, query: Query = EVERYTHING) -> AsyncIterator[RunSummary]:
        """Runs with at least one record that the query admits, newest first by their last record.

        Raises:
            StoreError: the file is not there, is no database or has no table ``traces``.
        """
        for summary in await self._ask(lambda connection: runs_of(connection, query)):
            yield summary

    async def records(self, run_id: str, query: Query = EVERYTHING) -> AsyncIterator[Record]:
        """All records of one run that the query admits, oldest first; those of one moment by their numbers.

        Raises:
            StoreError: as :meth:`runs`.
        """
        thread = await DriverThread.start()
        pages = _Pages(self._connect, run_id, query)
        try:
            while page := await thread.run(lambda: self._translated(pages.next)):
                for record in page:
                    yield record
        finally:
            try:
                await thread.run(pages.close)
            finally:
                await thread.stop()

    async def find(self, run_id: str) -> RunSummary | None:
        """The one run, or None when the file does not hold it.

        Raises:
            StoreError: as :meth:`runs`.
        """
        return await self._ask(lambda connection: run_of(connection, storable(run_id)))

    async def marks(self) -> AsyncIterator[Mark]:
        """All marks, in the order in which they were stored.

        Raises:
            StoreError: as :meth:`runs`.
        """
        for mark in await self._ask(_marks_of):
            yield mark

    async def numbers(self) -> AsyncIterator[Numbers]:
        """The keys of all records, as ranges, ascending for each producer.

        Rows without a key, which other tools make, are left out.

        Raises:
            StoreError: as :meth:`runs`.
        """
        for numbers in await self._ask(_numbers_of):
            yield numbers

    async def prune(self, older_than_ns: int) -> int:
        """Remove runs whose newest record is older than the wall-clock stamp; how many records went.

        Removes some hundreds at a time, so that writers are not held up. The file keeps its size and reuses
        the room: :meth:`maintain` gives it back.

        Raises:
            StoreError: as :meth:`runs`, or the file may not be written.
        """
        removed = 0
        thread, file = await DriverThread.start(), self._writable()
        try:
            await thread.run(self._check)
            before = moment(older_than_ns)
            for table, ids in await thread.run(lambda: self._changed(file, lambda c: rows_before(c, before))):
                for start in range(0, len(ids), _REMOVED_AT_ONCE):
                    removal = Removal(table, ids[start : start + _REMOVED_AT_ONCE])
                    removed += await thread.run(partial(self._changed, file, removal))
            through = 0
            while (through := await thread.run(partial(self._changed, file, Merging(through)))) > 0:
                pass
            return removed
        finally:
            try:
                await thread.run(file.close)
            finally:
                await thread.stop()

    async def used_bytes(self) -> int:
        """Bytes of the file that hold something; VACUUM gives the others back.

        Raises:
            StoreError: as :meth:`runs`.
        """
        return await self._ask(_used_bytes)

    async def maintain(self) -> None:
        """Refresh what the query planner knows (ANALYZE) and give unused room back (VACUUM).

        Writers wait meanwhile: seconds for a gigabyte.

        Raises:
            StoreError: as :meth:`runs`; the file is busy or the disk has no room for a copy of it.
        """
        thread, file = await DriverThread.start(), self._writable()
        try:
            await thread.run(self._check)
            await thread.run(lambda: self._changed(file, _maintain))
        finally:
            try:
                await thread.run(file.close)
            finally:
                await thread.stop()

    async def aclose(self) -> None:
        """Nothing is held between two questions: every answer has a connection of its own."""

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        def answer() -> T:
            with closing(self._connect()) as connection:
                return question(connection)

        thread = await DriverThread.start()
        try:
            return await thread.run(lambda: self._translated(answer))
        finally:
            await thread.stop()

    def _translated(self, function: Callable[[], T]) -> T:
        with as_store_errors(self.path):
            return function()

    def _changed(self, file: StoreFile, change: Callable[[sqlite3.Connection], T]) -> T:
        with as_store_errors(self.path):
            return file.use(change)

    def _check(self) -> None:
        # Opening it for writing would make it a store.
        self._translated(self._connect).close()

    def _writable(self) -> StoreFile:
        return StoreFile(
            self.path, synchronous="normal", busy_timeout=self._busy_timeout, cache_size=_CACHE_SIZE
        )

    def _connect(self) -> sqlite3.Connection:
        """A connection that changes nothing, to a file that has traces."""
        if not os.path.exists(self.path):
            raise StoreError(f"{self.path}: no such file")
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                return self._connect_now()
            except sqlite3.OperationalError as error:
                # Who closes last tidies up, and refuses others meanwhile, whatever their busy timeout.
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)

    def _connect_now(self) -> sqlite3.Connection:
        try:
            # Opened read-only, it could not tidy up when it closes: an empty WAL and its index would stay behind.
            # It changes nothing all the same, but for temporary tables of its own.
            return self._connect_as("mode=rw")
        except sqlite3.OperationalError:
            # Reading a file in WAL mode means writing beside it. Where that is not allowed nobody writes, so
            # the file can be read as it lies, unless a WAL was left there.
            if os.access(os.path.dirname(self.path), os.W_OK) or os.path.exists(f"{self.path}-wal"):
                raise
            return self._connect_as("mode=ro&immutable=1")

    def _connect_as(self, parameters: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:///{quote(os.fsencode(Path(self.path).as_posix().lstrip('/')))}?{parameters}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,  # whoever ends an iteration closes it
        )
        try:
            if not columns_of(connection, TRACES):
                raise StoreError(f"{self.path}: has no table {TRACES!r}")
        except BaseException:
            connection.close()
            raise
        return connection


class _Pages:
    """The records of one run, a page at a time; blocks."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], run_id: str, query: Query) -> None:
        self._connect = connect
        self._run_id = storable(run_id)
        self._query = query
        self._decoder = RowDecoder()
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None

    def next(self) -> list[Record]:
        """The next records; none at the end."""
        if self._cursor is None:
            self._connection = self._connect()
            teach(self._connection, self._query)
            self._cursor = self._connection.execute(*self._statement(self._connection))
        return [self._decoder.decode(row) for row in self._cursor.fetchmany(_PAGE)]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _statement(self, connection: sqlite3.Connection) -> tuple[str, list[object]]:
        parts: list[str] = []
        values: list[object] = []
        for table in (TRACES, EVENTS):
            if present := columns_of(connection, table):
                condition, given = conditions(self._query, table, present)
                parts.append(
                    f"SELECT {selection(table, present)} FROM {table} WHERE run_id = ? AND {condition}"
                )
                values += [self._run_id, *given]
        limit = -1 if self._query.limit is None else self._query.limit
        return f"{' UNION ALL '.join(parts)} ORDER BY datetime, producer, seq LIMIT ?", [*values, limit]


def _marks_of(connection: sqlite3.Connection) -> list[Mark]:
    if not columns_of(connection, MARKS):
        return []
    return [Mark(*row) for row in connection.execute(f"SELECT {MARK} FROM {MARKS} ORDER BY id")]


def _numbers_of(connection: sqlite3.Connection) -> list[Numbers]:
    # Each half comes out of the index over just these columns, in order; the two are merged, not sorted.
    keyed = [table for table in (TRACES, EVENTS) if {"producer", "seq"} <= {*columns_of(connection, table)}]
    halves = [f"SELECT producer, seq FROM {table} WHERE producer IS NOT NULL" for table in keyed]
    if not halves:
        return []
    return list(in_ranges(connection.execute(f"{' UNION ALL '.join(halves)} ORDER BY producer, seq")))


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _maintain(connection: sqlite3.Connection) -> None:
    connection.execute("ANALYZE")
    connection.execute("VACUUM")
