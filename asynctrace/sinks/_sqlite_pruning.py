"""Taking old runs out of a SQLite store, in small transactions beside its writers; marks say what went."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import astuple

from asynctrace.core.batch import Mark
from asynctrace.sinks._marks import merged
from asynctrace.sinks._sqlite_schema import EVENTS, MARKS, TRACES, columns_of

MARK = 'producer, "first", "last", admitted, filtered, dropped, pruned'
"""The columns of a mark."""

_NEWEST_MARKS = 1_000  # that stay as they are
_MERGED_AT_ONCE = 5_000  # marks; writers wait meanwhile, some 20 ms


def rows_before(connection: sqlite3.Connection, before: str) -> list[tuple[str, Sequence[int]]]:
    """The rows of all runs without a newer record, by table, in the order in which they lie in it."""
    # The + keeps SQLite from walking all newer records by their time for each old run.
    newer = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM {table} WHERE run_id = old.run_id AND +datetime >= ?)"
        for table in (TRACES, EVENTS)
    )
    old = " UNION ".join(f"SELECT run_id FROM {table} WHERE datetime < ?" for table in (TRACES, EVENTS))
    rows = connection.execute(f"SELECT run_id FROM ({old}) AS old WHERE {newer}", (before,) * 4)
    runs = [row[0] for row in rows]
    found: list[tuple[str, Sequence[int]]] = []
    for table in (TRACES, EVENTS):
        ids = array("q")
        for run_id in runs:
            ids.extend(
                row[0] for row in connection.execute(f"SELECT id FROM {table} WHERE run_id = ?", (run_id,))
            )
        found.append((table, array("q", sorted(ids))))
    return found


class Removal:
    """Takes rows out of a table, and says so in the marks of their producers; how many were there.

    Args:
        table: the table.
        ids: of the rows.
    """

    def __init__(self, table: str, ids: Sequence[int]) -> None:
        chosen = f"FROM {table} WHERE id IN ({','.join('?' * len(ids))})"
        told = "producer, min(seq), max(seq), count(*)"
        self._keys = f"SELECT {told} {chosen} AND producer IS NOT NULL GROUP BY producer"
        self._delete = f"DELETE {chosen}"
        self._ids = ids

    def __call__(self, connection: sqlite3.Connection) -> int:
        # In one transaction: a record that is gone without a mark would be a loss to whoever verifies.
        with _transaction(connection):
            for producer, first, last, count in connection.execute(self._keys, self._ids).fetchall():
                _tell_pruned(connection, producer, first, last, count)
            return connection.execute(self._delete, self._ids).rowcount


class Merging:
    """Makes few marks of some thousands, which outlive what they tell of; the last one that it looked at, 0 at the end.

    Args:
        behind: the mark that was looked at last.
    """

    def __init__(self, behind: int) -> None:
        self._behind = behind

    def __call__(self, connection: sqlite3.Connection) -> int:
        if not columns_of(connection, MARKS):
            return 0
        with _transaction(connection):
            return self._merge(connection)

    def _merge(self, connection: sqlite3.Connection) -> int:
        # The newest stay as they are: a writer that does not know whether it stored one does so again.
        rows = connection.execute(
            f"SELECT id, {MARK} FROM {MARKS} WHERE id > ? AND id <= (SELECT max(id) FROM {MARKS}) - ? "
            "ORDER BY id LIMIT ?",
            (self._behind, _NEWEST_MARKS, _MERGED_AT_ONCE),
        ).fetchall()
        few = list(merged(Mark(*row[1:]) for row in rows))
        if not rows or len(few) > len(rows) // 2:
            return int(rows[-1][0]) if len(rows) == _MERGED_AT_ONCE else 0
        connection.executemany(f"DELETE FROM {MARKS} WHERE id = ?", [row[:1] for row in rows])
        connection.executemany(
            f"INSERT OR IGNORE INTO {MARKS} (id, {MARK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(row[0], *astuple(mark)) for row, mark in zip(rows, few, strict=False)],
        )
        return int(rows[-1][0])


def _tell_pruned(connection: sqlite3.Connection, producer: str, first: int, last: int, count: int) -> None:
    """One mark a producer grows: a store that is pruned every night must not fill up with marks."""
    grown = connection.execute(
        f'UPDATE {MARKS} SET "first" = min("first", ?), "last" = max("last", ?), pruned = pruned + ? '
        "WHERE producer = ? AND pruned > 0",
        (first, last, count, producer),
    )
    if not grown.rowcount:
        connection.execute(
            f"INSERT INTO {MARKS} ({MARK}) VALUES (?, ?, ?, 0, 0, 0, ?)",
            (producer, first, last, count),
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
