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
from operator import attrgetter, itemgetter

from asynctrace.core.batch import Mark
from asynctrace.core.level import LABELS, Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record
from asynctrace.core.slice import Slice
from asynctrace.errors import Rejection
from asynctrace.sinks._sqlite_columns import Columns, columns_of
from asynctrace.sinks._sqlite_errors import blames_a_row
from asynctrace.sinks._sqlite_rows import NEEDED, OPTIONAL, SHARED, Row, RowEncoder, shared_values
from asynctrace.sinks._sqlite_schema import EVENTS, MARKS, TRACES

_MOST_ROWS = 1024  # a statement: its values are bound under the GIL, 1 ms for so many rows
_ALL = (*NEEDED, *OPTIONAL)
_PLACE = {name: place for place, name in enumerate(_ALL)}
_STDERR = ", ".join(f"'{label}'" for level, label in LABELS.items() if level >= Level.ERROR)
_quoted = '"{}"'.format  # FIRST and LAST are words of SQL
_MARK_FIELDS = Mark.__struct_fields__
_INSERT_MARK = (
    f"INSERT INTO {MARKS} ({', '.join(map(_quoted, _MARK_FIELDS))}) "
    f"VALUES ({', '.join('?' * len(_MARK_FIELDS))}) ON CONFLICT DO NOTHING"
)
_NOT_CANONICAL = (TypeError, ValueError, LookupError, AttributeError, RecursionError)

_Key = tuple[bool, int, str]  # log record, identity of the process, producer


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


class _Layout:
    """The columns of a table that statements fill. Immutable: rows laid out by one stay readable."""

    def __init__(self, table: str, used: Iterable[int] = range(len(NEEDED))) -> None:
        self.table = table
        self._used = tuple(used)
        unused = [place for place in range(len(_ALL)) if place not in self._used]
        self.width = len(self._used)
        self._names = [_ALL[place] for place in self._used]
        self.pick: Callable[[Row], Row] = itemgetter(*self._used)
        # Two places at least, else itemgetter gives the bare value; a column twice does no harm.
        self._watch = itemgetter(*(unused * 2)[: max(2, len(unused))]) if unused else _nothing_unused
        self._nothing = self._watch((None,) * len(_ALL))
        self._texts: dict[int, str] = {}

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether all other columns are NULL in these rows."""
        return [*map(self._watch, rows)].count(self._nothing) == len(rows)

    def grown(self, rows: Iterable[Row]) -> _Layout:
        """With those columns that hold a value in these rows."""
        filled = {place for row in rows for place, value in enumerate(row) if value is not None}
        return _Layout(self.table, sorted(filled.union(self._used)))

    def grown_by(self, columns: Columns) -> _Layout:
        """With these columns; itself when it has them all."""
        places = {_PLACE[name] for name in columns}
        return self if places.issubset(self._used) else _Layout(self.table, sorted(places.union(self._used)))

    def rows_of(self, columns: Columns, count: int) -> list[object]:
        """The values of so many rows, one row after the other."""
        values: list[object] = [None] * (count * self.width)
        for index, name in enumerate(self._names):
            if name in columns:
                values[index :: self.width] = columns[name]
        return values

    def laid_out(self, values: Sequence[object], layout: _Layout) -> list[object]:
        """Values of another layout that has fewer columns, in this one."""
        source = {place: index for index, place in enumerate(layout._used)}
        sources = [source.get(place) for place in self._used]
        return [
            None if index is None else values[start + index]
            for start in range(0, len(values), layout.width)
            for index in sources
        ]

    def most_rows(self, connection: sqlite3.Connection) -> int:
        """How many rows one statement may have."""
        variables = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - len(SHARED) - 1
        return max(size for size in _SIZES if size == 1 or size * self.width <= variables)

    def statement(self, values: Sequence[object], shared: Row) -> tuple[str, list[object]]:
        """A statement that stores these rows, and what it binds."""
        count = len(values) // self.width
        size = _STEP[count]
        bound = [*shared, *values]
        bound += (None,) * ((size - count) * self.width)
        bound.append(count)
        return self._texts.get(size) or self._text(size), bound

    def _text(self, size: int) -> str:
        names = [_ALL[place] for place in self._used]
        of = {name: f"rows.column{number}" for number, name in enumerate(names, 1)}
        moment, level = of["datetime"], of["level"]
        row = f"({','.join('?' * len(names))})"
        text = (
            f"INSERT INTO {self.table} ({', '.join([*names, 'created_at', 'mode', *SHARED])}) "
            f"SELECT {', '.join(of.values())}, {moment}, "
            f"CASE WHEN {level} IN ({_STDERR}) THEN 'stderr' ELSE 'stdout' END, "
            f"{', '.join(f'shared.column{number}' for number in range(1, len(SHARED) + 1))} "
            f"FROM (VALUES ({','.join('?' * len(SHARED))})) AS shared "
            f"CROSS JOIN (VALUES {','.join([row] * size)}) AS rows "
            "LIMIT ? ON CONFLICT (producer, seq) DO NOTHING"
        )
        self._texts[size] = text
        return text


def _nothing_unused(row: Row) -> Row:
    return ()


class _Group:
    """Rows for one table, of one process and producer, value by value; with their places in the batch."""

    __slots__ = ("indexes", "layout", "shared", "values")

    def __init__(self, layout: _Layout, shared: Row) -> None:
        self.layout = layout
        self.shared = shared
        self.values: list[object] = []
        self.indexes: list[int] = []

    def add(self, rows: Sequence[Row], indexes: Iterable[int]) -> None:
        if not self.layout.fits(rows):
            self.lay_out(self.layout.grown(rows))
        self.values.extend(chain.from_iterable(map(self.layout.pick, rows)))
        self.indexes.extend(indexes)

    def add_columns(self, columns: Columns, indexes: Sequence[int]) -> None:
        layout = self.layout.grown_by(columns)
        if layout is not self.layout:
            self.lay_out(layout)
        self.values += layout.rows_of(columns, len(indexes))
        self.indexes.extend(indexes)

    def lay_out(self, layout: _Layout) -> None:
        self.values = layout.laid_out(self.values, self.layout)
        self.layout = layout


class Rows:
    """The rows of one batch, on their way to the file."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self.groups: dict[_Key, _Group] = {}
        self.marks = marks
        self.rejections: list[Rejection] = []
        self.count = 0


class Inserter:
    """Turns records into rows and rows into statements.

    ``add`` is not safe for two threads at once; ``insert`` may run on another thread meanwhile.
    """

    def __init__(self) -> None:
        encoder = RowEncoder()
        self._encode = encoder.encode
        self._handle_part = encoder.part
        self._layouts = {True: _Layout(TRACES), False: _Layout(EVENTS)}

    def add(self, rows: Rows, records: Sequence[Record]) -> None:
        """Encode records behind those that are there; what cannot be encoded becomes a rejection."""
        if not (isinstance(records, Slice) and self._add_slice(rows, records)):
            self._add_records(rows, records, range(rows.count, rows.count + len(records)))
        rows.count += len(records)

    def _add_slice(self, rows: Rows, part: Slice) -> bool:
        """Whether that could be done without making its records, those aside that are special."""
        special = part.special
        if any(record.kind is Kind.LOG for record in special.values()):
            return False  # it stands between others of its table
        places = (
            [place for place in range(len(part)) if place not in special] if special else range(len(part))
        )
        if places:
            try:
                found = columns_of(part, places, self._handle_part)
            except _NOT_CANONICAL:
                return False
            if found is None:
                return False
            process, columns = found
            group = self._group(rows, (True, id(process), part.producer), process)
            group.add_columns(columns, [rows.count + place for place in places])
            self._layouts[True] = group.layout
        self._add_records(rows, list(special.values()), [rows.count + place for place in special])
        return True

    def _group(self, rows: Rows, key: _Key, process: ProcessInfo) -> _Group:
        is_log, _, producer = key
        group = rows.groups.get(key)
        if group is None:
            group = rows.groups[key] = _Group(self._layouts[is_log], shared_values(process, producer))
        elif group.layout is not self._layouts[is_log]:
            group.lay_out(self._layouts[is_log])
        return group

    def _add_records(self, rows: Rows, records: Sequence[Record], places: Sequence[int]) -> None:
        for key, members in _sorted_out(records).items():
            indexes = [places[member] for member in members]
            wanted = records if len(members) == len(records) else [records[member] for member in members]
            is_log = key[0]
            group = self._group(rows, key, wanted[0].context.run.process)
            try:
                encoded = self._encode(wanted)
            except _NOT_CANONICAL:
                encoded, indexes = self._encode_singly(wanted, indexes, rows.rejections)
            group.add(encoded, indexes)
            self._layouts[is_log] = group.layout

    def _encode_singly(
        self, records: Iterable[Record], indexes: Iterable[int], rejections: list[Rejection]
    ) -> tuple[list[Row], list[int]]:
        encoded: list[Row] = []
        kept: list[int] = []
        for index, record in zip(indexes, records, strict=True):
            try:
                encoded += self._encode((record,))
            except _NOT_CANONICAL as error:
                rejections.append(Rejection(index, f"{type(error).__name__}: {error}"))
            else:
                kept.append(index)
        return encoded, kept

    def insert(self, connection: sqlite3.Connection, rows: Rows) -> list[Rejection]:
        """Store the rows, then the marks; blocks. Rows that are there already are passed over.

        Raises:
            sqlite3.Error: nothing is wrong with a single row; some of the rows may be stored.
        """
        rejections = list(rows.rejections)
        for group in rows.groups.values():
            most = group.layout.most_rows(connection)
            for start in range(0, len(group.indexes), most):
                _insert(connection, group, start, min(start + most, len(group.indexes)), rejections)
        for mark in rows.marks:
            connection.execute(_INSERT_MARK, [getattr(mark, name) for name in _MARK_FIELDS])
        return sorted(rejections, key=attrgetter("index"))


def _insert(
    connection: sqlite3.Connection, group: _Group, start: int, stop: int, rejections: list[Rejection]
) -> None:
    layout = group.layout
    values = group.values[start * layout.width : stop * layout.width]
    try:
        connection.execute(*layout.statement(values, group.shared))
    except Exception as error:
        if not blames_a_row(error):
            raise
        if stop - start == 1:
            rejections.append(Rejection(group.indexes[start], str(error)))
            return
        middle = (start + stop) // 2  # the statement stored nothing: look for the row in halves
        _insert(connection, group, start, middle, rejections)
        _insert(connection, group, middle, stop, rejections)


def _sorted_out(records: Iterable[Record]) -> dict[_Key, list[int]]:
    """Which places in the sequence go into one statement."""
    found: dict[_Key, list[int]] = {}
    last_log, last_process, last_producer = None, None, None
    members: list[int] = []
    for place, record in enumerate(records):
        is_log, process, producer = record.kind is Kind.LOG, record.context.run.process, record.producer
        if process is not last_process or producer is not last_producer or is_log is not last_log:
            members = found.setdefault((is_log, id(process), producer), [])
            last_log, last_process, last_producer = is_log, process, producer
        members.append(place)
    return found
