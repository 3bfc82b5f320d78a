"""Putting rows into tables, with as few and as large statements as pay.

What a write costs beside a busy event loop is the number of times that its thread must take the GIL back, up
to 5 ms each: a few times a statement, once a row with ``executemany``. So a chunk is one statement in
autocommit, not a transaction of several. Preparing a large statement costs as much as running it, so there
are few of them:

* Its number of rows is one of a ladder, four steps an octave; the rest is filled up with NULL rows, which
  ``LIMIT`` keeps from being looked at. (Parts in powers of two are 5 statements for 250 rows.)
* Its columns are those that have held a value so far: they grow to what the program uses, then stay. Columns
  that are NULL throughout are not bound at all.

What is the same in all rows, or follows from another column, is not bound a row but told by the statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from asynctrace.core.batch import Mark
from asynctrace.core.level import LABELS, Level
from asynctrace.core.record import Record
from asynctrace.errors import Rejection
from asynctrace.sinks._sqlite_errors import blames_a_row
from asynctrace.sinks._sqlite_rows import NEEDED, OPTIONAL, SHARED, Row, RowEncoder, shared_values
from asynctrace.sinks._sqlite_schema import EVENTS, MARKS, TRACES

_MOST_ROWS = 1024  # a statement: its values are bound under the GIL, 1 ms for so many rows
_CACHED = 256  # texts of statements
_ALL = (*NEEDED, *OPTIONAL)
_STDERR = ", ".join(f"'{label}'" for level, label in LABELS.items() if level >= Level.ERROR)
_INSERT_MARK = (
    f'INSERT INTO {MARKS} (producer, "first", "last", admitted, filtered, dropped, pruned) '
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


def _ladder(most: int) -> list[int]:
    """Sizes of statements: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …"""
    sizes = [size for size in (1, 2, 3, 4, 5, 6, 7) if size <= most]
    step = 2
    while step * 4 <= most:
        sizes += [size for size in range(step * 4, step * 8, step) if size <= most]
        step *= 2
    return sizes


_SIZES = _ladder(_MOST_ROWS)
# The step that holds so many rows, by number of rows.
_STEP = [0, *(next(size for size in _SIZES if size >= rows) for rows in range(1, _MOST_ROWS + 1))]


class _Group:
    """Rows for one table that share a process and a producer, with their places in the batch."""

    __slots__ = ("indexes", "rows", "shared", "table")

    def __init__(self, table: str, shared: Row) -> None:
        self.table = table
        self.shared = shared
        self.rows: list[Row] = []
        self.indexes: list[int] = []


class Rows:
    """The rows of one batch, on their way to the file."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self.groups: dict[tuple[bool, int, str], _Group] = {}
        self.marks = marks
        self.rejections: list[Rejection] = []
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self.groups or self.marks)


class Inserter:
    """Turns records into rows and rows into statements. Not safe for two threads at once."""

    def __init__(self) -> None:
        self._encoder = RowEncoder()
        self._shapes = {TRACES: _Shape(TRACES), EVENTS: _Shape(EVENTS)}

    def add(self, rows: Rows, records: Iterable[Record]) -> None:
        """Encode records behind those that are there; what cannot be encoded becomes a rejection."""
        encode, groups, index = self._encoder.encode, rows.groups, rows.count
        for record in records:
            process, producer = record.context.run.process, record.producer
            key = (record.kind == 0, id(process), producer)
            group = groups.get(key)
            if group is None:
                table = TRACES if key[0] else EVENTS
                group = groups[key] = _Group(table, shared_values(process, producer))
            try:
                group.rows.append(encode(record))
            except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
                rows.rejections.append(Rejection(index, f"{type(error).__name__}: {error}"))
            else:
                group.indexes.append(index)
            index += 1
        rows.count = index

    def insert(self, connection: sqlite3.Connection, rows: Rows) -> list[Rejection]:
        """Store the rows, then the marks; blocks. Rows that are there already are passed over.

        Raises:
            sqlite3.Error: nothing is wrong with a single row; some of the rows may be stored.
        """
        rejections = list(rows.rejections)
        for group in rows.groups.values():
            shape = self._shapes[group.table]
            shape.grow(group.rows)
            most = shape.most_rows(connection)
            for start in range(0, len(group.rows), most):
                stop = start + most
                self._insert(connection, group, group.rows[start:stop], group.indexes[start:stop], rejections)
        for mark in rows.marks:
            values = (
                mark.producer,
                mark.first,
                mark.last,
                mark.admitted,
                mark.filtered,
                mark.dropped,
                mark.pruned,
            )
            connection.execute(_INSERT_MARK, values)
        return sorted(rejections, key=_index)

    def _insert(
        self,
        connection: sqlite3.Connection,
        group: _Group,
        rows: Sequence[Row],
        indexes: Sequence[int],
        rejections: list[Rejection],
    ) -> None:
        try:
            connection.execute(*self._shapes[group.table].statement(rows, group.shared))
        except Exception as error:
            if not blames_a_row(error):
                raise
            if len(rows) == 1:
                rejections.append(Rejection(indexes[0], str(error)))
                return
            half = len(rows) // 2  # the statement stored nothing: look for the row in halves
            self._insert(connection, group, rows[:half], indexes[:half], rejections)
            self._insert(connection, group, rows[half:], indexes[half:], rejections)


class _Shape:
    """The columns of one table that have held a value so far."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._texts: dict[int, str] = {}
        self._used = list(range(len(NEEDED)))
        self._unused = list(range(len(NEEDED), len(_ALL)))
        self._take()

    def _take(self) -> None:
        self._texts.clear()
        self._pick: Callable[[Row], Row] = itemgetter(*self._used)
        # Two at least, or itemgetter gives the bare value; looking at a needed column again does no harm.
        watched = [*self._unused, *self._unused][: max(2, len(self._unused))]
        self._watch: Callable[[Row], Row] | None = itemgetter(*watched) if watched else None
        self._nothing: Row = (None,) * len(watched)

    def grow(self, rows: Iterable[Row]) -> None:
        """Take in the columns that hold a value for the first time."""
        if self._watch is None:
            return
        seen = set(map(self._watch, rows)) - {self._nothing}
        if seen:
            found = {index for row in rows for index in self._unused if row[index] is not None}
            self._used = sorted({*self._used, *found})
            self._unused = [index for index in self._unused if index not in found]
            self._take()

    def most_rows(self, connection: sqlite3.Connection) -> int:
        """How many rows one statement may have."""
        variables = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - len(SHARED) - 1
        most = min(_MOST_ROWS, max(1, variables // len(self._used)))
        return max(size for size in _SIZES if size <= most)

    def statement(self, rows: Sequence[Row], shared: Row) -> tuple[str, list[Any]]:
        """A statement that stores these rows, and its values."""
        count, width = len(rows), len(self._used)
        size = _STEP[count]
        values: list[Any] = [*shared, *chain.from_iterable(map(self._pick, rows))]
        values += (None,) * ((size - count) * width)
        values.append(count)
        return self._texts.get(size) or self._text(size), values

    def _text(self, size: int) -> str:
        names = [_ALL[index] for index in self._used]
        of = {name: f"rows.column{place}" for place, name in enumerate(names, 1)}
        moment, level = of["datetime"], of["level"]
        row = f"({','.join('?' * len(names))})"
        text = (
            f"INSERT INTO {self._table} ({', '.join([*names, 'created_at', 'mode', *SHARED])}) "
            f"SELECT {', '.join(of.values())}, {moment}, "
            f"CASE WHEN {level} IN ({_STDERR}) THEN 'stderr' ELSE 'stdout' END, "
            f"{', '.join(f'shared.column{place}' for place in range(1, len(SHARED) + 1))} "
            f"FROM (VALUES ({','.join('?' * len(SHARED))})) AS shared "
            f"CROSS JOIN (VALUES {','.join([row] * size)}) AS rows "
            "LIMIT ? ON CONFLICT (producer, seq) DO NOTHING"
        )
        self._texts[size] = text
        return text


def _index(rejection: Rejection) -> int:
    return rejection.index
